//! Back up and restore vSphere virtual machines: engine and repository.
#![cfg_attr(test, allow(clippy::unwrap_used))] // A failed unwrap is a failed test.

mod cancel;
pub mod engine;
mod error;
pub mod journal;
pub mod repository;

pub use crate::{
    cancel::CancelToken,
    error::{DiskError, Error, Result},
};
