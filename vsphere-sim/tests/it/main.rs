//! The simulator as its users see it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod disks;
mod machines;
mod nfc;
mod properties;
mod pyvmomi;
mod sessions;
mod storage;
