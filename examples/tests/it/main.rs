//! The family as its users meet it: real programs, real file systems, killed processes.
#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod crash;
mod damage;
mod file_systems;
mod guest_files;
mod guest_kinds;
mod memory;
mod support;
