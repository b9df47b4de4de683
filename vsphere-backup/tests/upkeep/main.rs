//! Tests of a repository's upkeep. A simulated server is behind what only a server makes objects of.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.
#![allow(clippy::single_range_in_vec_init)] // A list of one area is what is meant.

mod access;
mod check;
mod copy;
mod damage;
mod flips;
#[path = "../it/gate.rs"]
mod gate;
mod heal;
#[allow(dead_code)] // Shared with the other tests.
#[path = "../it/login.rs"]
mod login;
mod machine;
mod prune;
mod repair;
#[allow(dead_code)]
#[path = "../it/site.rs"]
mod site;
#[allow(dead_code)] // Shared with the other tests.
#[path = "../it/world.rs"]
mod world;
