//! Behaviour of the crate as its users see it.

#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.
#![allow(clippy::single_range_in_vec_init)] // Lists of one range are what is expected.

#[cfg(feature = "blocking")]
mod blocking;
mod file;
mod nbd;
mod simulator;
mod support;
