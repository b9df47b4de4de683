//! Behaviour of the crate as its users see it: one binary, a file for each subject.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

mod chain;
mod check;
mod children;
mod coalescing;
mod compose;
mod copying;
mod creation;
mod descriptor;
mod faults;
mod hostile;
mod in_place;
mod limits;
mod metadata;
#[cfg(feature = "ova")]
mod ova;
mod packed;
mod peer_defects;
mod peers;
mod power;
mod props;
#[cfg(feature = "async")]
mod remote;
mod repair;
mod snapshots;
mod stream;
mod support;
mod upkeep;
