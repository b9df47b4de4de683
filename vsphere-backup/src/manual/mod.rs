//! The manual: pages to be read, without code of their own.

pub mod restore;
