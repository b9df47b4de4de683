//! One backup, as whoever drives the engine does it.

use std::{collections::BTreeMap, ops::Range, sync::Mutex, time::Duration};

use bytes::Bytes;
use futures_util::stream;

use super::{guest::Guest, op::Plan};
use crate::{
    cancel::CancelToken,
    engine::{Checkpoint, DiskBackup, DiskSource, MemoryDisk, Parent, Trust},
    error::{DiskError, Result},
    repository::{
        BackupMode, Consistency, DiskRecord, PointId, Repository, VmId, VmRecord, WriterOptions, storage::BoxFuture,
    },
};

/// One backup, as whoever drives the engine does it.
pub(super) struct Job<'a> {
    pub(super) snapshot: &'a Guest,
    pub(super) base: Option<&'a PointId>,
    /// What changed since the base, when that is known.
    pub(super) areas: Option<Vec<Range<u64>>>,
    pub(super) plan: Plan,
    pub(super) interrupted: Option<Interrupted>,
    pub(super) begun: &'a Mutex<Option<PointId>>,
    pub(super) kept: &'a Mutex<Option<Checkpoint>>,
}

pub(super) struct Way {
    pub(super) mode: BackupMode,
    pub(super) resumed: bool,
}

impl Job<'_> {
    pub(super) async fn run(self, repository: &Repository) -> Result<Way> {
        let machine = VmRecord { instance_uuid: vm(), mo_ref: "vm-1".into(), name: "web".into() };
        let options = WriterOptions::default().pack_size(1 << 20).workers(1);
        let mut point = repository.begin(machine, Consistency::Crash, options).await?;
        *self.begun.lock().unwrap() = Some(point.id().clone());
        let disk = MemoryDisk::new(self.snapshot.bytes.clone());
        let source = Dying { disk, at: self.plan.dies_at.unwrap_or(u64::MAX) };
        let (mode, areas, parent) = match (&self.areas, self.base) {
            (Some(areas), Some(base)) => {
                let parent = Parent::new(repository.point(base).await?.disk(KEY).await?);
                (BackupMode::Incremental, areas.clone(), Some(parent))
            }
            _ => (BackupMode::Full, self.snapshot.allocated.clone(), None),
        };
        let mut from = None;
        if let Some(Interrupted { point: id, stored, .. }) = &self.interrupted
            && !repository.may_lose_uncommitted()
        {
            let disk = point.writer().reopen(id, self.record(mode, stored)).await?;
            from = disk.first_damage(&CancelToken::new()).await?.is_none().then_some(*stored);
        }
        let (writer, kept) = (point.writer().clone(), self.kept);
        let keep = |at: Checkpoint| -> BoxFuture<'_, Result<()>> {
            let writer = writer.clone();
            Box::pin(async move {
                writer.finish().await?;
                *kept.lock().unwrap() = Some(at);
                Ok(())
            })
        };
        let done = DiskBackup::new(KEY, &source, point.writer())
            .allocated(Some(self.snapshot.allocated.clone()))
            .trust(if self.plan.distrust { Trust::VerifyAll } else { Trust::Trust })
            .parent(parent)
            .resume(from)
            .checkpoints(Duration::ZERO, &keep)
            .run(stream::iter(areas.into_iter().map(Ok)))
            .await?;
        let stored = Checkpoint { position: done.capacity, root: done.root, bytes: done.bytes };
        point.add_disk(self.record(mode, &stored))?;
        point.set_parent(self.base.filter(|_| mode == BackupMode::Incremental).cloned());
        point.commit().await?;
        Ok(Way { mode, resumed: from.is_some() })
    }

    fn record(&self, mode: BackupMode, stored: &Checkpoint) -> DiskRecord {
        DiskRecord {
            key: KEY,
            label: String::new(),
            backing_uuid: None,
            path: String::new(),
            capacity: self.snapshot.bytes.len() as u64,
            change_id: None,
            root: stored.root,
            mode,
            reason: String::new(),
            bytes: stored.bytes,
            distrust: None,
            metadata: BTreeMap::new(),
        }
    }
}

/// A backup that ended early, and its snapshot, which is there still.
#[derive(Clone, Debug)]
pub(super) struct Interrupted {
    pub(super) snapshot: Guest,
    pub(super) base: Option<PointId>,
    pub(super) point: PointId,
    pub(super) mode: BackupMode,
    pub(super) stored: Checkpoint,
}

/// A disk whose reader dies, some moments after it came to a place.
struct Dying {
    disk: MemoryDisk,
    at: u64,
}

impl DiskSource for Dying {
    fn capacity(&self) -> u64 {
        self.disk.capacity()
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes, DiskError>> {
        Box::pin(async move {
            if offset + len as u64 > self.at {
                tokio::time::sleep(Duration::from_millis(2)).await;
                return Err(DiskError::new("the process dies"));
            }
            self.disk.read_at(offset, len).await
        })
    }
}

pub(super) fn vm() -> VmId {
    VmId::parse("5029c440-0000-0000-0000-000000000001").unwrap()
}

pub(super) const KEY: i32 = 2000;
