//! Code shared by the examples: a guest's file system, arguments, progress, tables, and where they run.

pub mod addresses;
pub mod args;
pub mod guest_fs;
pub mod show;
pub mod world;

/// The code of README.md, compiled with the doc tests so that it stays true.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
