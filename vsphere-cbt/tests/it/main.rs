//! Behaviour of the crate as its users see it.

#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

mod props;
mod simulator;
