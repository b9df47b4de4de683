//! Virtual devices of a machine or snapshot, as plain values.

mod backing;
mod disk;

use std::fmt;

pub use self::{
    backing::{BackingKind, DiskBacking, DiskMode},
    disk::{DiskController, SnapshotObstacle, VirtualDiskInfo, strip_delta_suffix},
};

/// The key of a virtual device, unique within its machine and the same in all snapshots. The first SCSI disk is 2000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceKey(pub i32);

impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
