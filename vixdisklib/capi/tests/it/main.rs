//! The library as programs load it: from C, from Rust, from Python, by nbdkit.

#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

mod dlopen;
mod nbdkit;
mod programs;
mod python;
mod site;
mod support;
mod symbols;
