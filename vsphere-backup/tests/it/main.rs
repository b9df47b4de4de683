//! The crate's integration tests: one binary, a file for each theme.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.
#![allow(clippy::single_range_in_vec_init)] // A list of one area is what is meant.

mod catalogue;
mod encryption;
mod engine;
mod export;
mod faults;
mod fcd;
mod gate;
mod gc;
mod in_place;
mod instant;
mod job;
mod job_set;
mod keys;
mod login;
mod machine;
mod marks;
mod memory;
mod new_vm;
mod prune;
mod reaper;
mod resume;
mod set;
mod settle;
mod sink;
mod site;
mod steps;
mod storage;
mod store;
// The same programs as those of `vixdisklib`'s tests.
#[path = "../../../vixdisklib/tests/it/support.rs"]
mod support;
mod tracking;
mod trust;
mod vm;
mod world;
