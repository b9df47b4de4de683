//! Behaviour of the crate as its users see it.

#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.
#![allow(clippy::single_range_in_vec_init)] // Lists of one range are what is expected.

mod access;
mod attaching;
mod blocking;
mod clones;
mod file;
mod files;
mod governed;
mod governor;
mod https;
mod images;
mod lab;
mod lease;
mod managed;
mod nbd;
mod random;
mod simulator;
/// The writer of snapshot files that the tests of crate `vmdk` have: nobody else but ESXi writes them.
#[path = "../../../vmdk/tests/it/support/snapshot.rs"]
#[allow(dead_code)] // Its other half is used there.
mod snapshot;
mod stored;
mod support;
mod table;
#[cfg(target_os = "linux")]
mod vddk;

// What that file expects beside it.
use lab::Random;
