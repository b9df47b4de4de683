//! Virtual devices of a machine or snapshot: as plain values, as a list, and changes to it.

mod backing;
mod controller;
mod disk;
mod edit;
mod list;
mod new_device;

use std::fmt;

pub use self::{
    backing::{BackingKind, DiskBacking, DiskMode},
    controller::ControllerKind,
    disk::{DiskController, SnapshotObstacle, VirtualDiskInfo, strip_delta_suffix},
    edit::{DeviceEdit, DiskFiles},
    list::DeviceList,
    new_device::{AdapterKind, NewAdapter, NewDisk},
};

/// The key of a virtual device, unique within its machine and the same in all snapshots. The first SCSI disk is 2000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceKey(pub i32);

impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
