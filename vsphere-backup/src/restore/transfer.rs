//! One disk written, read back and compared, wherever it goes.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use vixdisklib::{Access, Connection, OpenOptions};

use super::{Restore, RestoredDiskReport, resume::Positions};
use crate::{
    engine::{Budget, DiskRestore, DiskTarget, Progress, RestoreMode, RestoredDisk, compare_areas},
    error::{Error, Result},
    event::Event,
    repository::{DiskReader, DiskRecord},
    server::{self, RemoteDisk},
    step::{Step, SteppedDisk, Steps},
};

/// What the disks of one restore share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work<'a> {
    pub(super) steps: &'a Steps,
    pub(super) connection: &'a Connection,
    pub(super) budget: &'a Budget,
}

/// What is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A disk that reads as zeros.
    New,
    /// A disk that read as zeros before an earlier run of the same restore wrote to it.
    Begun,
    /// A disk with a content, of which the mode says what is written.
    Used,
}

/// What is known of a disk before it is written.
pub(super) struct Prior<'a> {
    pub(super) target: Target,
    /// Outside of these it is as in the point.
    pub(super) areas: Option<Vec<Range<u64>>>,
    /// It reads as zeros there.
    pub(super) holes: Vec<Range<u64>>,
    /// Up to where an earlier run of the same restore wrote.
    pub(super) below: u64,
    /// Is told up to where this one did.
    pub(super) on_position: Option<&'a (dyn Fn(u64) + Send + Sync)>,
}

impl Prior<'_> {
    /// A disk that reads as zeros.
    pub(super) const NEW: Self =
        Self { target: Target::New, areas: None, holes: Vec::new(), below: 0, on_position: None };
}

impl Restore {
    /// Returns the disks that are asked for: those that were named, or all of the point.
    pub(super) fn wanted(&self) -> Result<Vec<DiskRecord>> {
        match self.disks.is_empty() {
            true => Ok(self.point.disks().to_vec()),
            false => self.disks.iter().map(|&key| self.point.record(key).cloned()).collect(),
        }
    }

    /// Writes over a disk of a machine.
    pub(super) async fn overwrite_remote(
        &self,
        work: Work<'_>,
        record: &DiskRecord,
        path: String,
        areas: Option<Vec<Range<u64>>>,
        positions: &Positions,
    ) -> Result<RestoredDiskReport> {
        let begun = Instant::now();
        let ask = async { Ok(holes(work.connection, record, &path).await) };
        let holes = work.steps.once(Step::AskAllocated, ask).await?;
        let reason = if areas.is_some() { "in place, what changed" } else { "in place" };
        let target = self.open(work, record, path, reason).await?;
        let note = |position| positions.note(record.key, position);
        let below = positions.of(record.key);
        let prior = Prior { target: Target::Used, areas, holes, below, on_position: Some(&note) };
        self.remote(work, target, record, &prior, begun).await
    }

    /// Fills a disk that was just created. Returns also what the disk says of itself that differs from the stored one.
    pub(super) async fn fill_remote(
        &self,
        work: Work<'_>,
        record: &DiskRecord,
        path: String,
        keep_ids: bool,
    ) -> Result<(RestoredDiskReport, Vec<String>)> {
        let begun = Instant::now();
        let target = self.open(work, record, path, "into a new disk").await?;
        // First, so that no disk is ever full of data and of another geometry than was asked for.
        let set = async { Ok(set_metadata(&target.0, record, keep_ids).await) };
        let notes = work.steps.once(Step::WriteMetadata, set).await?;
        let report = self.remote(work, target, record, &Prior::NEW, begun).await?;
        Ok((report, notes))
    }

    async fn open(
        &self,
        Work { steps, connection, .. }: Work<'_>,
        record: &DiskRecord,
        path: String,
        reason: &str,
    ) -> Result<RemoteDisk> {
        let open = || async { connection.open(path.as_str()).await.map_err(failed(record, "opening")) };
        let target = RemoteDisk(steps.take(Step::OpenDisk, open).await?);
        self.started(record, reason, &target.0.transport().to_string());
        Ok(target)
    }

    /// Writes a disk that is open, and closes it.
    async fn remote(
        &self,
        Work { steps, budget, .. }: Work<'_>,
        target: RemoteDisk,
        record: &DiskRecord,
        prior: &Prior<'_>,
        begun: Instant,
    ) -> Result<RestoredDiskReport> {
        let transport = target.0.transport().to_string();
        let done = async {
            let reader = self.point.disk(record.key).await?;
            self.one(&reader, &SteppedDisk::new(record.key, &target, steps), prior, budget).await
        };
        let done = done.await;
        let close = async { target.0.close().await.map_err(failed(record, "closing")) };
        let undoing = steps.undoing();
        let closed = tokio::time::timeout(CLOSE_LIMIT, undoing.once(Step::CloseDisk, close)).await;
        let (bytes, verified) = done?;
        // Closing is what makes the last writes count.
        closed.unwrap_or_else(|_| {
            let reason = format!("its disk {} is not closed after {CLOSE_LIMIT:?}", record.key);
            Err(self.refused(reason, Some("run the restore again")))
        })?;
        Ok(RestoredDiskReport {
            key: record.key,
            capacity: record.capacity,
            bytes,
            verified,
            transport,
            elapsed: begun.elapsed(),
        })
    }

    pub(super) async fn one(
        &self,
        reader: &DiskReader,
        target: &dyn DiskTarget,
        prior: &Prior<'_>,
        budget: &Budget,
    ) -> Result<(RestoredDisk, bool)> {
        let disk = reader.record().key;
        let progress = |progress: Progress| {
            if let Some(note) = prior.on_position {
                note(progress.position);
            }
            self.events.send(Event::DiskProgress { disk, progress });
        };
        let whole = || std::iter::once(0..reader.capacity()).collect();
        let areas = prior.areas.clone().unwrap_or_else(whole);
        let done = DiskRestore::new(reader, target)
            .mode(if prior.target == Target::Used { self.mode } else { RestoreMode::Full })
            .target_is_zero(prior.target == Target::New)
            .only(areas.clone())
            .target_holes(prior.holes.clone())
            .resume_at(prior.below)
            .budget(budget)
            .cancel(&self.cancel)
            .on_progress(&progress)
            .run()
            .await?;
        self.events.send(Event::DiskFinished { disk, bytes: Default::default() });
        if self.verify {
            let differences = compare_areas(reader, target, areas, budget, &self.cancel, None).await?;
            if let Some(first) = differences.first() {
                return Err(Error::damaged(
                    format!("restored disk {disk}"),
                    format!(
                        "{} parts differ from the point, the first at bytes {}..{}",
                        differences.len(),
                        first.range.start,
                        first.range.end
                    ),
                ));
            }
            self.events.send(Event::DiskVerified { disk });
        }
        Ok((done, self.verify))
    }

    pub(super) fn started(&self, record: &DiskRecord, reason: &str, transport: &str) {
        self.events.send(Event::DiskStarted {
            disk: record.key,
            label: record.label.clone(),
            capacity: record.capacity,
            mode: None,
            reason: reason.into(),
            transport: transport.into(),
        });
    }
}

/// Returns where a disk has nothing behind it. Asked before it is opened for writing: hosts answer readers only. What
/// cannot be told is no hole.
async fn holes(connection: &Connection, record: &DiskRecord, path: &str) -> Vec<Range<u64>> {
    let options = OpenOptions::new().access(Access::ReadOnly);
    let allocated = async {
        let disk = connection.open_with(path, options).await?;
        let allocated = disk.allocated(0..disk.capacity()).await;
        disk.close().await?;
        allocated
    };
    let areas = match allocated.await {
        Ok(allocation) if !allocation.is_assumed() => allocation.areas,
        Ok(_) => return Vec::new(),
        Err(error) => {
            tracing::debug!(disk = record.key, %error, "where the disk is empty is not known");
            return Vec::new();
        }
    };
    let mut holes = Vec::new();
    let mut at = 0;
    for area in areas {
        if at < area.start {
            holes.push(at..area.start);
        }
        at = area.end;
    }
    if at < record.capacity {
        holes.push(at..record.capacity);
    }
    holes
}

/// Sets what the stored disk said of itself, where the transport lets it be set; else tells what differs.
async fn set_metadata(disk: &vixdisklib::Disk, record: &DiskRecord, keep_ids: bool) -> Vec<String> {
    let mut notes = Vec::new();
    for (key, wanted) in &record.metadata {
        if !(CONTENT.contains(&key.as_str()) || (keep_ids && key == "uuid")) {
            continue;
        }
        if disk.metadata(key).await.is_ok_and(|now| now.as_ref() == Some(wanted)) {
            continue;
        }
        if let Err(error) = disk.set_metadata(key, wanted).await {
            tracing::debug!(disk = record.key, key, %error, "metadata is not set");
            notes.push(format!("disk {}: {key} was {wanted:?} and is as the server made it", record.key));
        }
    }
    notes
}

fn failed(record: &DiskRecord, operation: &'static str) -> impl FnOnce(vixdisklib::Error) -> Error + use<> {
    let disk = record.key;
    move |error| Error::Disk { operation, disk, offset: 0, len: 0, source: server::disk_error(error) }
}

/// How long a disk may take to be closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(30);
/// What a guest may have remembered of its disk.
const CONTENT: &[&str] = &["adapterType", "geometry.cylinders", "geometry.heads", "geometry.sectors"];
