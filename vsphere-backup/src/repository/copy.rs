//! Copying points into another repository.
//!
//! Chunks have other names in every repository, so what is copied is read, checked, and stored anew: under the target's
//! keys and in chunks of the target's size, whatever those are. The point before it of the same machine, when that was
//! copied too, makes the copy incremental: only what differs between the two in the source is read.
//!
//! The copy is a point of its own, whose name has the time of the original; its manifest says what it is a copy of. A
//! copy that is interrupted is done again, and finds the chunks that it stored.

mod point;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    cancel::CancelToken,
    engine::Budget,
    error::{Error, Result},
};

use super::{
    Access, Repository,
    id::{PointId, RepositoryId, VmId},
    lease::{
        Lease,
        record::{Purpose, Roots},
    },
    pin::Pin,
    point::{PointWriter, RecoveryPoint},
    writer::WriterOptions,
};

/// Where a point comes from that is a copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Origin {
    /// The repository.
    pub repository: RepositoryId,
    /// The point in it.
    pub point: PointId,
}

/// How points are copied.
#[derive(Clone, Debug)]
#[must_use]
pub struct CopyOptions {
    vms: Option<Vec<VmId>>,
    points: Option<Vec<PointId>>,
    newest: Option<usize>,
    verify: bool,
    writer: WriterOptions,
    budget: Budget,
    cancel: CancelToken,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self {
            vms: None,
            points: None,
            newest: None,
            verify: true,
            writer: WriterOptions::default(),
            budget: Budget::default(),
            cancel: CancelToken::new(),
        }
    }
}

impl CopyOptions {
    /// Copies all points that the target does not have.
    pub fn new() -> Self {
        Self::default()
    }

    /// Copies points of these machines only.
    pub fn vms(mut self, vms: impl IntoIterator<Item = VmId>) -> Self {
        self.vms = Some(vms.into_iter().collect());
        self
    }

    /// Copies these points only.
    pub fn points(mut self, points: impl IntoIterator<Item = PointId>) -> Self {
        self.points = Some(points.into_iter().collect());
        self
    }

    /// Copies the newest points of each machine only, so many.
    pub fn newest(mut self, count: usize) -> Self {
        self.newest = Some(count);
        self
    }

    /// Compares each copy with its original before it becomes visible, which reads the original once more: on by default.
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Sets how the target is written.
    pub fn writer(mut self, options: WriterOptions) -> Self {
        self.writer = options;
        self
    }

    /// Shares a memory budget with other work.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.budget = budget.clone();
        self
    }

    /// Lets a token cancel the copy; cancelled gracefully, it ends after the point that it copies now.
    pub fn cancel(mut self, cancel: &CancelToken) -> Self {
        self.cancel = cancel.clone();
        self
    }
}

/// What a copy did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct CopyReport {
    /// The points that were to be copied, by machine and time.
    pub points: Vec<CopiedPoint>,
}

impl CopyReport {
    /// Tells whether the target has all points now.
    pub fn is_complete(&self) -> bool {
        self.points.iter().all(|point| !matches!(point.outcome, CopyOutcome::Failed(_)))
    }
}

/// What became of one point.
#[derive(Debug)]
#[non_exhaustive]
pub struct CopiedPoint {
    /// The original.
    pub original: PointId,
    /// What became of it.
    pub outcome: CopyOutcome,
}

/// What became of a point that was to be copied.
#[derive(Debug)]
#[non_exhaustive]
pub enum CopyOutcome {
    /// The target had it, as this point.
    There(PointId),
    /// It was copied.
    Copied {
        /// The copy.
        copy: PointId,
        /// Bytes of disks that were read in the source.
        read: u64,
        /// Bytes that the target stored.
        stored: u64,
    },
    /// It was deleted since it was listed.
    Gone,
    /// It could not be copied: it is damaged, or did not come out equal.
    Failed(Error),
}

impl Repository {
    /// Copies points into another repository, the oldest first, and leaves out those that it has.
    ///
    /// The original is pinned while it is copied; where the source was opened read-only it cannot be. A copy has no
    /// change ids: which restores were noted in this repository the other does not know, so that the first backup into
    /// it reads a machine's disks in full.
    ///
    /// # Errors
    /// [`Error::Invalid`] when both are the same repository; [`Error::Storage`] of either, [`Error::Fenced`],
    /// [`Error::Cancelled`]. A point that is damaged is told of in the report and does not keep others from being copied.
    ///
    /// # Cancel safety
    /// When dropped, points that were copied stay; the next copy goes on.
    pub async fn copy_to(&self, target: &Self, options: &CopyOptions) -> Result<CopyReport> {
        if self.id() == target.id() {
            return Err(Error::invalid("a repository cannot be copied into itself"));
        }
        let mut report = CopyReport::default();
        let vms = match &options.vms {
            Some(vms) => vms.clone(),
            None => self.vms().await?.into_iter().collect(),
        };
        for vm in vms {
            self.copy_machine(&vm, target, options, &mut report).await?;
        }
        Ok(report)
    }

    async fn copy_machine(
        &self,
        vm: &VmId,
        target: &Self,
        options: &CopyOptions,
        report: &mut CopyReport,
    ) -> Result<()> {
        let mut points = self.points(vm).await?;
        points.retain(|point| options.points.as_ref().is_none_or(|chosen| chosen.contains(point)));
        let skip = options.newest.map_or(0, |count| points.len().saturating_sub(count));
        let mut there = target.copies_of(vm, self.id()).await?;
        for original in points.split_off(skip) {
            if options.cancel.is_stopping() {
                return options.cancel.check();
            }
            let outcome = match there.get(&original) {
                Some(copy) => CopyOutcome::There(copy.clone()),
                None => match self.copy_point(&original, target, &there, options).await {
                    Ok(Some((copy, read, stored))) => {
                        there.insert(original.clone(), copy.clone());
                        CopyOutcome::Copied { copy, read, stored }
                    }
                    Ok(None) => CopyOutcome::Gone,
                    Err(error) if error.is_damage() => CopyOutcome::Failed(error),
                    Err(error @ Error::Disk { .. }) => CopyOutcome::Failed(error),
                    Err(error) => return Err(error),
                },
            };
            report.points.push(CopiedPoint { original, outcome });
        }
        Ok(())
    }

    /// Returns the copies that this repository has of points of another, by their originals.
    async fn copies_of(&self, vm: &VmId, origin: RepositoryId) -> Result<BTreeMap<PointId, PointId>> {
        let mut copies = BTreeMap::new();
        for id in self.points(vm).await? {
            match self.point(&id).await {
                Ok(point) => {
                    if let Some(from) = point.manifest().copy_of.as_ref().filter(|from| from.repository == origin) {
                        copies.insert(from.point.clone(), id);
                    }
                }
                // It will be copied anew.
                Err(error) if error.is_damage() => tracing::warn!(%error, "a copy cannot be read"),
                Err(Error::PointNotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(copies)
    }

    /// Copies one point; `None` when it is gone.
    async fn copy_point(
        &self,
        original: &PointId,
        target: &Self,
        there: &BTreeMap<PointId, PointId>,
        options: &CopyOptions,
    ) -> Result<Option<(PointId, u64, u64)>> {
        let point = match self.point(original).await {
            Err(Error::PointNotFound { .. }) => return Ok(None),
            other => other?,
        };
        // The newest point before this one of which there is a copy, as long as both can be read.
        let mut base = None;
        for (earlier, copy) in there.range(..original).rev().take(1) {
            if let (Ok(earlier), Ok(copy)) = (self.point(earlier).await, target.point(copy).await) {
                base = Some((earlier, copy));
            }
        }
        let pins = match self.pins(&point, base.as_ref().map(|(earlier, _)| earlier)).await {
            Err(Error::PointNotFound { .. }) => return Ok(None),
            other => other?,
        };
        let copied = point::copy(&point, base, target, options).await;
        for pin in pins {
            pin.release().await;
        }
        copied.map(Some)
    }

    /// Pins what is read.
    async fn pins(&self, point: &RecoveryPoint, base: Option<&RecoveryPoint>) -> Result<Vec<Pin>> {
        if self.access() == Access::ReadOnly {
            return Ok(Vec::new());
        }
        let mut pins = vec![point.pin().await?];
        if let Some(base) = base {
            match base.pin().await {
                Ok(pin) => pins.push(pin),
                Err(Error::PointNotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pins)
    }

    /// Begins a point that is a copy: with the time of the original in its name.
    async fn begin_copy(&self, original: &RecoveryPoint, options: WriterOptions) -> Result<PointWriter> {
        self.objects().refresh_keys().await?;
        let id = PointId::new(original.id().vm().clone(), original.id().micros())?;
        let purpose = Purpose::Write { point: id.clone() };
        let lease = Lease::begin(self.objects(), purpose, Roots::default(), options.lease).await?;
        if let Err(error) = self.refresh_index_to_write().await {
            lease.release().await;
            return Err(error);
        }
        let manifest = original.manifest();
        let mut point = PointWriter::new(self.clone(), id, manifest.vm.clone(), manifest.consistency, options, lease);
        point.imitate(manifest, Origin { repository: manifest.repository, point: manifest.id.clone() });
        Ok(point)
    }
}
