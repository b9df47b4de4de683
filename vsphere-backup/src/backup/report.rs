//! What a backup did.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    journal::Leftover,
    repository::{BackupMode, Consistency, DiskBytes, Fallback, LeftOut, PointId, RecoveryPoint, VmId, WriterTotals},
};

/// What a backup would do, as things are now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// The virtual machine.
    pub vm: VmId,
    /// The point that incremental disks would begin with.
    pub base: Option<PointId>,
    /// The disks that would be backed up.
    pub disks: Vec<PlannedDisk>,
    /// The disks that would not, and why.
    pub left_out: Vec<LeftOut>,
}

/// How a disk would be backed up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlannedDisk {
    /// The device key.
    pub key: i32,
    /// The label.
    pub label: String,
    /// In bytes.
    pub capacity: u64,
    /// All of it or the changes.
    pub mode: BackupMode,
    /// Why.
    pub reason: String,
}

/// What a backup did.
#[derive(Debug)]
#[non_exhaustive]
pub struct BackupReport {
    /// The recovery point.
    pub point: RecoveryPoint,
    /// One report for each disk in it.
    pub disks: Vec<DiskReport>,
    /// Disks that are not in it, and why.
    pub left_out: Vec<LeftOut>,
    /// In which state the guest's data is.
    pub consistency: Consistency,
    /// The ways to quiesce the guest that were given up before that, and why.
    pub fallbacks: Vec<Fallback>,
    /// Whether the backup enabled change tracking.
    pub tracking_enabled: bool,
    /// What the repository's storage was given.
    pub stored: WriterTotals,
    /// What an earlier job had left on the server and this one undid.
    pub recovered: Option<Leftover>,
    /// Whether the backup went on with the snapshot of an interrupted one.
    pub resumed: bool,
    /// What could not be undone on the server, and why. The journal keeps it for the next run.
    pub leftovers: Vec<String>,
    /// From begin to end.
    pub elapsed: Duration,
}

impl BackupReport {
    /// Returns the figures of all disks together.
    pub fn bytes(&self) -> DiskBytes {
        self.disks.iter().fold(DiskBytes::default(), |sum, disk| sum.plus(&disk.bytes))
    }
}

/// How one disk was backed up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct DiskReport {
    /// The device key.
    pub key: i32,
    /// The label.
    pub label: String,
    /// In bytes.
    pub capacity: u64,
    /// All of it or the changes.
    pub mode: BackupMode,
    /// Why.
    pub reason: String,
    /// How the bytes travelled.
    pub transport: String,
    /// Figures.
    pub bytes: DiskBytes,
    /// From opening to closing.
    pub elapsed: Duration,
}
