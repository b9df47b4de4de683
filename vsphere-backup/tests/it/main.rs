//! The crate's integration tests: one binary, a file for each theme.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

mod damage;
mod engine;
mod faults;
mod vm;
mod world;
