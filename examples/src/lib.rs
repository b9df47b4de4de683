//! Code shared by the examples: a guest's file system, arguments, progress, tables.

pub mod args;
pub mod guest_fs;
pub mod show;
