//! The engine: one disk into the repository and out of it again, over the narrow traits
//! [`DiskSource`] and [`DiskTarget`].
//!
//! Memory is bounded in bytes by a [`Budget`] that all disks of a job share.

mod audit;
mod backup;
mod budget;
mod compare;
mod disk;
mod grid;
#[cfg(test)]
mod huge;
mod live;
mod memory;
#[cfg(test)]
mod model;
mod piece;
mod restore;
mod stored;

use std::ops::Range;

use crate::error::{DiskError, Error};

pub use self::{
    backup::{BackedUpDisk, DiskBackup, Parent, Trust},
    budget::Budget,
    compare::{Difference, compare_areas, compare_disk},
    disk::{DiskSource, DiskTarget, Source, SourceExtent},
    live::{LiveCheck, LiveReport, check_live},
    memory::MemoryDisk,
    restore::{DiskRestore, RestoreMode, RestoredDisk},
};

pub(crate) use self::{
    backup::{Checkpoint, behind, with_tail},
    grid::{Grid, runs},
    piece::{Rules, Task, longest_run, pieces},
};

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

/// Says what failed of a disk. Where its job was stopped, that is the answer.
fn failed(operation: &'static str, disk: i32, range: &Range<u64>, source: DiskError) -> Error {
    match source.inner().downcast_ref() {
        Some(Error::Cancelled) => Error::Cancelled,
        Some(Error::Abandoned) => Error::Abandoned,
        _ => Error::Disk { operation, disk, offset: range.start, len: range.end - range.start, source },
    }
}

/// The longest read of a source and write of a target, in bytes.
pub(crate) const RUN: u64 = 4 << 20;
/// Runs of one disk in flight at once; the budget may allow fewer.
pub(crate) const IN_FLIGHT: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_job_is_no_failed_disk() {
        let told = |error| failed("reading", 2000, &(0..512), DiskError::from_error(error));
        assert!(matches!(told(Error::Cancelled), Error::Cancelled));
        assert!(matches!(told(Error::Abandoned), Error::Abandoned));
        assert!(matches!(told(Error::invalid("no")), Error::Disk { offset: 0, len: 512, .. }));
        assert!(matches!(failed("reading", 2000, &(0..512), disk_error("no")), Error::Disk { .. }));
    }
}
