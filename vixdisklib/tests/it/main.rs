//! Behaviour of the crate as its users see it.

#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.
#![allow(clippy::single_range_in_vec_init)] // Lists of one range are what is expected.

mod access;
mod attaching;
#[cfg(feature = "blocking")]
mod blocking;
mod clones;
mod file;
mod files;
mod images;
mod managed;
mod nbd;
mod random;
mod simulator;
mod support;
mod table;
