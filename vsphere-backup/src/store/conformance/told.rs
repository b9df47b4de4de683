//! What writers are told by the rules, and what a disk holds then.

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;

use super::{
    super::{DiskMeta, DiskRef, DiskWriter, PointDisk, PointMeta, Sink},
    Place,
    rules::Seen,
};
use crate::error::DiskError;

/// What a writer is told of, in steps of the store's alignment.
#[derive(Clone, Debug)]
pub(super) enum Told {
    Data(Range<u64>, u8),
    Zero(Range<u64>),
    Unallocated(Range<u64>),
    Unchanged(Range<u64>),
}

use Told::{Data, Unallocated, Unchanged, Zero};

impl Told {
    pub(super) fn steps(&self) -> &Range<u64> {
        match self {
            Data(steps, _) | Zero(steps) | Unallocated(steps) | Unchanged(steps) => steps,
        }
    }
}

impl Place<'_> {
    /// The whole steps of most disks here; half a kilobyte more ends them within a step where that is longer.
    pub(super) fn capacity(&self) -> u64 {
        STEPS * self.step + 512
    }

    pub(super) fn name(&self, number: u32) -> String {
        format!("{:02}-{number:02}", self.rule as u8)
    }

    pub(super) async fn begin(&self, capacity: u64, parent: Option<&DiskRef>) -> Seen<Box<dyn DiskWriter>> {
        self.sink.begin(self.disk(capacity), parent.cloned()).await.map_err(told("begin"))
    }

    pub(super) fn disk(&self, capacity: u64) -> DiskMeta {
        DiskMeta { vm: self.suite.vm.clone(), key: 2000, capacity, job: self.job(0) }
    }

    /// Names of a form that backups give.
    pub(super) fn job(&self, number: u32) -> String {
        format!("{:08x}{number:08x}", self.rule as u8)
    }

    /// The store, through another handle where that can be had.
    pub(super) async fn again(&self) -> Seen<Option<Arc<dyn Sink>>> {
        match &self.suite.reopen {
            Some(open) => open().await.map(Some).map_err(told("opening the store anew")),
            None => Ok(None),
        }
    }

    pub(super) async fn discard(&self, job: &str) -> Seen {
        self.sink.discard(&self.suite.vm, job).await.map_err(told("discard"))
    }

    /// A range of steps in bytes; behind the last whole step the disk ends.
    pub(super) fn bytes(&self, steps: &Range<u64>, capacity: u64) -> Range<u64> {
        (steps.start * self.step).min(capacity)..(steps.end * self.step).min(capacity)
    }

    pub(super) async fn tell(&self, writer: &mut dyn DiskWriter, capacity: u64, all: &[Told]) -> Seen {
        for part in all {
            let done = match part {
                Data(steps, fill) => {
                    let range = self.bytes(steps, capacity);
                    writer.write(range.start, pattern(*fill, &range)).await
                }
                Zero(steps) => writer.zero(self.bytes(steps, capacity)).await,
                Unallocated(steps) => writer.unallocated(self.bytes(steps, capacity)).await,
                Unchanged(steps) => writer.unchanged(self.bytes(steps, capacity)).await,
            };
            done.map_err(told(format!("{part:?}")))?;
        }
        Ok(())
    }

    /// What a disk holds after it was told so.
    pub(super) fn model(&self, capacity: u64, parent: &[u8], all: &[Told]) -> Vec<u8> {
        let mut model = parent.to_vec();
        model.resize(capacity as usize, 0);
        for part in all {
            match part {
                Data(steps, fill) => {
                    let range = self.bytes(steps, capacity);
                    model[range.start as usize..range.end as usize].copy_from_slice(&pattern(*fill, &range));
                }
                Zero(steps) | Unallocated(steps) => {
                    let range = self.bytes(steps, capacity);
                    model[range.start as usize..range.end as usize].fill(0);
                }
                Unchanged(_) => {}
            }
        }
        model
    }

    pub(super) fn point(&self, number: u32, disks: &[(DiskRef, u64)]) -> PointMeta {
        let disks = disks.iter().map(|(disk, capacity)| PointDisk {
            key: 2000,
            capacity: *capacity,
            disk: disk.clone(),
            change_id: Some(format!("52 de/{number}")),
        });
        PointMeta {
            vm: self.suite.vm.clone(),
            name: self.name(number),
            disks: disks.collect(),
            properties: [("config".to_owned(), format!("{{\"number\":{number}}}"))].into(),
        }
    }

    /// Writes a disk and commits a point of it.
    pub(super) async fn store(
        &self,
        number: u32,
        capacity: u64,
        parent: Option<&DiskRef>,
        all: &[Told],
    ) -> Seen<DiskRef> {
        let mut writer = self.begin(capacity, parent).await?;
        self.tell(&mut *writer, capacity, all).await?;
        let disk = writer.finish().await.map_err(told("finish"))?;
        self.sink.commit(self.point(number, &[(disk.clone(), capacity)])).await.map_err(told("commit"))?;
        Ok(disk)
    }

    /// Expects a disk to be just so, read at once and in pieces.
    pub(super) async fn holds(&self, sink: &dyn Sink, disk: &DiskRef, model: &[u8]) -> Seen {
        let source = sink.open(disk).await.map_err(told("open"))?;
        let capacity = source.capacity();
        ensure(capacity == model.len() as u64, || format!("the disk has {capacity} bytes, not {}", model.len()))?;
        for piece in [model.len(), 3 * 512, self.step as usize * 3 / 2 / 512 * 512] {
            for at in (0..model.len()).step_by(piece.max(512)) {
                let len = piece.max(512).min(model.len() - at);
                let found = source.read_at(at as u64, len).await.map_err(told(format!("read_at {at}, {len}")))?;
                let differs = found.iter().zip(&model[at..]).position(|(a, b)| a != b);
                ensure(found.len() == len && differs.is_none(), || {
                    let place = differs.map_or(at + found.len().min(len), |differs| at + differs);
                    format!("byte {place}, in step {}, is not what was told", place as u64 / self.step)
                })?;
            }
        }
        Ok(())
    }

    pub(super) async fn names(&self, sink: &dyn Sink) -> Seen<Vec<String>> {
        let points = sink.points(&self.suite.vm).await.map_err(told("points"))?;
        Ok(points.into_iter().map(|point| point.name).collect())
    }
}

/// Bytes that tell their place and who wrote them; not one of them is zero.
pub(super) fn pattern(fill: u8, range: &Range<u64>) -> Bytes {
    range.clone().map(|at| (at / 512 % 251) as u8 ^ fill | 1).collect()
}

pub(super) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Seen {
    if holds { Ok(()) } else { Err(otherwise()) }
}

pub(super) fn told(what: impl fmt::Display) -> impl FnOnce(DiskError) -> String {
    move |error| format!("{what} failed: {error}")
}

/// Whole steps of most disks.
pub(super) const STEPS: u64 = 16;
