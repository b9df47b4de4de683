//! Tests of the loader against small libraries that the C compiler makes on the spot.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.
#![cfg(all(feature = "load", target_os = "linux"))]

mod fake;
mod faults;
mod loading;
mod order;
mod told;
