//! The simulator as its users see it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::single_range_in_vec_init, reason = "lists of areas with one area are what is meant")]

mod client;
mod disks;
mod machines;
mod nfc;
mod properties;
mod pyvmomi;
mod sessions;
mod storage;
