//! The engine: one disk into the repository and out of it again, over the narrow traits
//! [`DiskSource`] and [`DiskTarget`].
//!
//! Memory is bounded in bytes by a [`Budget`] that all disks of a job share.

mod audit;
mod backup;
mod disk;
mod grid;
#[cfg(test)]
mod huge;
mod memory;
mod piece;
mod restore;

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::DiskError;

pub(crate) use self::backup::Checkpoint;
pub use self::{
    backup::{BackedUpDisk, DiskBackup, Parent, Trust},
    disk::{DiskSource, DiskTarget, Source, SourceExtent},
    memory::MemoryDisk,
    restore::{Difference, DiskRestore, RestoreMode, RestoredDisk, compare_areas, compare_disk},
};

pub(crate) use self::grid::{Grid, runs};

/// How many bytes of disks may be in memory at once. Clones share the budget.
#[derive(Clone, Debug)]
pub struct Budget {
    permits: Arc<Semaphore>,
    total: u32,
}

impl Default for Budget {
    /// 32 MiB.
    fn default() -> Self {
        Self::new(32 << 20)
    }
}

impl Budget {
    /// Makes a budget of `bytes`, at least 8 MiB.
    pub fn new(bytes: u64) -> Self {
        let total = u32::try_from(bytes.max(8 << 20) / UNIT).unwrap_or(u32::MAX >> 3);
        let total = total.min(u32::MAX >> 3);
        Self { permits: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Waits until `bytes` may be held.
    pub(crate) async fn take(&self, bytes: u64) -> OwnedSemaphorePermit {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.total);
        let permit = self.permits.clone().acquire_many_owned(units).await;
        permit.expect("the semaphore is never closed")
    }
}

/// How far one disk's transfer is. All figures in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The place on the disk up to which all is done.
    pub position: u64,
    /// The disk's capacity.
    pub capacity: u64,
    /// Read so far.
    pub read: u64,
    /// Written to the target, or stored in the repository, so far.
    pub written: u64,
}

pub(crate) fn disk_error(what: impl Into<String>) -> DiskError {
    DiskError::new(what.into())
}

const UNIT: u64 = 4096;
/// The longest read of a source and write of a target, in bytes.
pub(crate) const RUN: u64 = 4 << 20;
/// Runs of one disk in flight at once; the budget may allow fewer.
pub(crate) const IN_FLIGHT: usize = 8;
