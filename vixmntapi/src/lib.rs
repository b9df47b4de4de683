//! Files out of virtual disks: partitions, volumes, file systems, operating system facts and mounts, read in this
//! process, without a vendor's library and without a kernel mount.
#![doc = "\n\nThe crate is named after VMware's `VixMntapi`, whose model it has in [`set`]; see [`device`], [`part`] and [`fs`] for the layers, [`os`] for what is installed."]
//!
//! Where VMware's own library is installed, the feature `vendor` has it do the reading; [`backend`] has the calls that both
//! ways share.
//!
//! Volumes that are encrypted with LUKS are opened with a key when the feature `luks` is on.
//!
//! What people do with the files of one: [`walk`] over all of them, [`find`] some of them, make a [`catalogue`], [`compare`] two, [`copy`] them out, or as an [`archive`].
//!
//! With the feature `fuse`, on Linux, the module `fuse` mounts volumes for other programs.
#![cfg_attr(test, allow(clippy::unwrap_used))] // A failed unwrap is a failed test.

pub mod archive;
pub mod backend;
mod bytes;
pub mod catalogue;
pub mod compare;
pub mod copy;
pub mod device;
mod error;
pub mod find;
pub mod fs;
#[cfg(all(feature = "fuse", target_os = "linux"))]
pub mod fuse;
pub mod os;
pub mod part;
mod progress;
pub mod set;
#[cfg(all(feature = "vendor", target_os = "linux"))]
pub mod vendor;
mod volume;
pub mod walk;
mod windows;

pub use error::{Error, Result};
