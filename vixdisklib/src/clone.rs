//! Whole disks from one place to another.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use vmdk::AdapterType;
use vsphere_vim::Vim;

use crate::{
    Progress,
    connection::Connection,
    create::{CreateSpec, DiskKind},
    disk::Disk,
    error::Result,
    open::{Access, OpenOptions},
    progress::growing,
    transport::SharedHandle,
};

/// How [`clone_disk`] works.
#[derive(Clone, Default)]
#[must_use]
pub struct CloneOptions {
    pub(crate) kind: Option<DiskKind>,
    pub(crate) adapter: Option<AdapterType>,
    pub(crate) hardware_version: Option<u32>,
    pub(crate) overwrite: bool,
    pub(crate) progress: Option<Progress>,
}

impl CloneOptions {
    /// What suits the target: one sparse file on this machine, a thick disk on a datastore. Adapter and hardware are the
    /// source's. A disk that exists is not touched.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the kind of the new disk.
    pub fn kind(self, kind: DiskKind) -> Self {
        Self { kind: Some(kind), ..self }
    }

    /// Sets the adapter that the geometry is made for.
    pub fn adapter(self, adapter: AdapterType) -> Self {
        Self { adapter: Some(adapter), ..self }
    }

    /// Sets the virtual hardware version.
    pub fn hardware_version(self, version: u32) -> Self {
        Self { hardware_version: Some(version), ..self }
    }

    /// Whether a disk that exists is replaced.
    pub fn overwrite(self, overwrite: bool) -> Self {
        Self { overwrite, ..self }
    }

    /// Sets what is told how far the work is.
    pub fn progress(self, progress: Progress) -> Self {
        Self { progress: Some(progress), ..self }
    }
}

impl std::fmt::Debug for CloneOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CloneOptions")
            .field("kind", &self.kind)
            .field("adapter", &self.adapter)
            .field("hardware_version", &self.hardware_version)
            .field("overwrite", &self.overwrite)
            .finish_non_exhaustive()
    }
}

/// What a transport needs to make a disk of another one's data.
pub(crate) struct CloneJob {
    /// The source, which nobody else reads.
    pub(crate) source: SharedHandle,
    /// What it is called.
    pub(crate) name: String,
    /// The server that has it, if one does.
    pub(crate) server: Option<Vim>,
    pub(crate) options: CloneOptions,
    /// Becomes true when the caller has gone.
    pub(crate) cancelled: Arc<AtomicBool>,
}

impl CloneJob {
    /// The new disk, of `usual` kind where the caller does not say.
    pub(crate) fn spec(&self, usual: DiskKind) -> CreateSpec {
        let CloneOptions { kind, adapter, hardware_version, .. } = self.options.clone();
        CreateSpec { kind: kind.unwrap_or(usual), capacity: self.source.capacity(), adapter, hardware_version }
    }
}

/// Makes a disk at `to_path` with the data of the disk at `from_path`: a chain becomes one disk, holes stay holes.
///
/// Nothing half-made stays behind: what was written is removed after a failure, and when the future is dropped.
///
/// # Errors
/// Those of opening the source and of reading it; [`Error::NotOffered`](crate::Error::NotOffered) when the target's
/// transports make no such disk; [`Error::ReadOnly`](crate::Error::ReadOnly) when the target's connection is for
/// reading; those of the target, also when it exists and is not to be replaced.
///
/// # Cancel safety
/// Dropping the future ends the work soon and removes what was made.
#[doc(alias = "VixDiskLib_Clone")]
pub async fn clone_disk(
    to: &Connection,
    to_path: &str,
    from: &Connection,
    from_path: &str,
    options: &CloneOptions,
) -> Result<()> {
    to.check_writable("clone to", to_path)?;
    let source = from.open_with(from_path, OpenOptions::new().access(Access::ReadOnly)).await?;
    let cancelled = CancelOnDrop::default();
    let job = CloneJob {
        source: source.shared_handle(),
        name: from_path.to_owned(),
        server: from.server_of(from_path).cloned(),
        options: CloneOptions { progress: options.progress.clone().map(growing), ..options.clone() },
        cancelled: Arc::clone(&cancelled.0),
    };
    let done = to.first_of(to_path, |transport| transport.clone_from(to_path, &job)).await;
    drop(job);
    let closed = source.close().await;
    done.and(closed)
}

impl Disk {
    /// Estimates the bytes of storage that a clone of this disk takes as another kind.
    ///
    /// Data that are zero are left out of a clone but not found here, and compression is not foreseen: for
    /// [`DiskKind::StreamOptimized`] it is what data need that cannot be compressed.
    ///
    /// # Errors
    /// Those of [`allocated`](Self::allocated).
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "VixDiskLib_SpaceNeededForClone")]
    pub async fn space_needed_for_clone(&self, kind: DiskKind) -> Result<u64> {
        let capacity = self.capacity();
        if matches!(kind, DiskKind::MonolithicFlat | DiskKind::SplitFlat | DiskKind::VmfsFlat) {
            return Ok(capacity);
        }
        let mut data = 0;
        let mut start = 0;
        while start < capacity {
            let end = capacity.min(start.saturating_add(WINDOW));
            data += self.allocated_in_chunks(start..end, GRAIN).await?.total();
            start = end;
        }
        if kind == DiskKind::VmfsThin {
            return Ok(data);
        }
        // Two tables with four bytes for each grain, and room for header, descriptor and directories.
        let tables = capacity.div_ceil(GRAIN) * 4 * 2;
        Ok(data.next_multiple_of(GRAIN) + tables + HEAD)
    }
}

/// Tells work on other threads that nobody waits for it any more.
#[derive(Default)]
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The grain of sparse disks.
const GRAIN: u64 = 64 << 10;

/// Header, descriptor and the directories' rounding.
const HEAD: u64 = 64 << 10;

/// What is asked for at once.
const WINDOW: u64 = 64 << 30;
