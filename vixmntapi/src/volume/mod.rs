//! Volume managers: volumes that lie on several partitions or disks.
//!
//! Each manager finds what is its own among devices and puts it together. A part that is missing costs what lies on it:
//! mirrors are read from what is left, other volumes are there with their missing bytes as errors, and say so. What is
//! not read at all (thin volumes, caches, parity) is named, and is an error when it is opened.

pub(crate) mod ldm;
pub(crate) mod luks;
pub(crate) mod lvm;
mod mapped;
pub(crate) mod md;

use std::sync::Arc;

pub(crate) use self::mapped::{Leg, Mapped};
use crate::{
    device::Device,
    error::{Error, Result},
    set::VolumeKind,
};

/// What a manager makes of devices.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    pub(crate) volumes: Vec<Assembled>,
    /// What hides volumes, and where it is.
    pub(crate) problems: Vec<(String, Error)>,
    /// The numbers of the devices that volumes are made of, or would be.
    pub(crate) members: Vec<usize>,
}

/// A volume of a manager.
#[derive(Debug)]
pub(crate) struct Assembled {
    pub(crate) id: String,
    pub(crate) kind: VolumeKind,
    pub(crate) size: u64,
    pub(crate) device: Result<Arc<dyn Device>>,
    /// What is missing of it.
    pub(crate) degraded: Option<String>,
}
