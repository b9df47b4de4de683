//! The snapshot of a First Class Disk: in the journal before it is made, undone by what the journal says.
//!
//! The journal is that of virtual machines, under the disk's own identity: who is alive is told by it in the same way,
//! and the reaper finds the snapshot by the same marker.

use std::{path::PathBuf, time::Duration};

use vsphere_vim::fcd::{FcdRef, FcdSnapshot, FcdSnapshotDetails, FcdSnapshotId, FirstClassDisks};

use crate::{
    error::{Result, in_one_line},
    event::{Event, Events},
    journal::{Job, JournalHandle, Leftover, Record, SnapshotState},
    repository::VmId,
    server::failed,
    step::{State, Step, Steps},
};

/// Holds a First Class Disk for one backup.
#[derive(Clone, Debug)]
pub(super) struct DiskGuard {
    pub(super) disks: FirstClassDisks,
    pub(super) disk: FcdRef,
    pub(super) events: Events,
    journal: JournalHandle,
    steps: Steps,
}

impl DiskGuard {
    /// Opens and locks the disk's journal.
    ///
    /// # Errors
    /// [`Error::JournalInUse`](crate::Error::JournalInUse), [`Error::Journal`](crate::Error::Journal).
    pub(super) async fn open(
        (disks, disk): (&FirstClassDisks, &FcdRef),
        id: &VmId,
        folder: PathBuf,
        events: &Events,
        steps: Steps,
    ) -> Result<Self> {
        let journal = steps.once(Step::OpenJournal, JournalHandle::open(folder, id.clone())).await?;
        steps.begin_at(State::of(journal.leftover().as_ref()));
        Ok(Self { disks: disks.clone(), disk: disk.clone(), events: events.clone(), journal, steps })
    }

    /// Returns the journal, to be released when the work is given up.
    pub(super) fn journal(&self) -> &JournalHandle {
        &self.journal
    }

    pub(super) fn steps(&self) -> &Steps {
        &self.steps
    }

    /// Undoes what an earlier job left; returns it.
    pub(super) async fn recover(&self) -> Result<Option<Leftover>> {
        let Some(leftover) = self.journal.leftover() else { return Ok(None) };
        let guard = self.undoing();
        if leftover.is_clean() {
            guard.clear().await?;
            return Ok(None);
        }
        self.events.send(Event::LeftoverFound(leftover.clone()));
        guard.remove_snapshot().await?;
        guard.clear().await?;
        self.events.send(Event::LeftoverRemoved);
        Ok(Some(leftover))
    }

    /// Makes the snapshot of a new job.
    pub(super) async fn snapshot(&self, job: Job) -> Result<(FcdSnapshotId, FcdSnapshotDetails)> {
        let marker = job.marker.clone();
        self.steps.once(Step::BeginJournal, self.journal.begin(job)).await?;
        self.record(Step::RecordDiskSnapshot, Record::SnapshotIntent).await?;
        let made = self.create(&marker).await?;
        let id = made.as_str().to_owned();
        self.record(Step::RecordSnapshotId, Record::SnapshotCreated { snapshot: id.clone() }).await?;
        self.events.send(Event::SnapshotCreated { snapshot: id });
        let wrong = || self.wrong("reading the snapshot");
        let read = || async { self.disks.snapshot_details(&self.disk, &made).await.map_err(wrong()) };
        let details = self.steps.take(Step::ReadDiskSnapshot, read).await?;
        Ok((made, details))
    }

    /// Makes a snapshot. After a failure that may have made it all the same, it is looked for before another try.
    async fn create(&self, marker: &str) -> Result<FcdSnapshotId> {
        let mut attempt = 1;
        loop {
            let create =
                async { self.disks.create_snapshot(&self.disk, marker).await.map_err(self.wrong("the snapshot")) };
            let error = match self.steps.once(Step::CreateDiskSnapshot, create).await {
                Err(error) if error.is_retryable() => error,
                other => return other,
            };
            if !self.steps.pause(&error, attempt).await? {
                return Err(error);
            }
            attempt += 1;
            let found = self.marked(marker).await?;
            if let Some(made) = found.into_iter().find_map(|found| found.id) {
                return Ok(made);
            }
        }
    }

    /// Writes a record, as a step.
    pub(super) async fn record(&self, step: Step, record: Record) -> Result<()> {
        self.steps.once(step, self.journal.append(record)).await
    }

    /// Undoes all that the journal names. What cannot be undone is returned and stays in the journal.
    pub(super) async fn undo(&self) -> Vec<String> {
        // A step whose answer was lost may be in the journal all the same.
        self.steps.begin_at(State::of(self.journal.leftover().as_ref()));
        let guard = self.undoing();
        let done = async {
            guard.remove_snapshot().await?;
            guard.clear().await
        };
        let left: Vec<_> = done.await.err().iter().map(|error| format!("a snapshot: {}", in_one_line(error))).collect();
        for what in &left {
            self.events.send(Event::LeftBehind { what: what.clone() });
        }
        left
    }

    /// Returns the same guard with steps that go on when the job is cancelled.
    fn undoing(&self) -> Self {
        Self { steps: self.steps.undoing(), ..self.clone() }
    }

    async fn clear(&self) -> Result<()> {
        if self.journal.leftover().is_none() {
            return Ok(());
        }
        self.steps.once(Step::ClearJournal, self.journal.clear()).await
    }

    /// Removes the job's snapshots, which are known by its marker.
    async fn remove_snapshot(&self) -> Result<()> {
        let Some(leftover) = self.journal.leftover() else { return Ok(()) };
        if leftover.snapshot == SnapshotState::Absent {
            return Ok(());
        }
        let mut found = self.marked(&leftover.job.marker).await?;
        // An answer was lost, and the server may be at it still. What comes later yet is the reaper's.
        for _ in 0..LOOKS {
            if leftover.snapshot != SnapshotState::Possible || !found.is_empty() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            found = self.marked(&leftover.job.marker).await?;
        }
        for id in found.iter().filter_map(|snapshot| snapshot.id.as_ref()) {
            let remove = || async {
                let removed = remove_disk_snapshot(&self.disks, &self.disk, id).await;
                removed.map_err(self.wrong("removing the snapshot"))
            };
            if self.steps.take(Step::RemoveDiskSnapshot, remove).await? {
                self.events.send(Event::SnapshotRemoved);
            }
        }
        self.record(Step::RecordRemoval, Record::SnapshotRemoved).await
    }

    /// Lists the disk's snapshots with a marker.
    async fn marked(&self, marker: &str) -> Result<Vec<FcdSnapshot>> {
        let list = || async {
            match self.disks.snapshots(&self.disk).await {
                Ok(found) => Ok(found.into_iter().filter(|found| found.description.contains(marker)).collect()),
                // The disk is gone, and its snapshots with it.
                Err(error) if error.is_fault("NotFound") => Ok(Vec::new()),
                Err(error) => Err(self.wrong("listing the snapshots")(error)),
            }
        };
        self.steps.take(Step::FindDiskSnapshot, list).await
    }

    fn wrong(&self, operation: &'static str) -> impl FnOnce(vsphere_vim::Error) -> crate::Error + use<> {
        failed(operation, self.disk.id.as_str())
    }
}

/// Removes a snapshot; tells whether it was there.
pub(crate) async fn remove_disk_snapshot(
    disks: &FirstClassDisks,
    disk: &FcdRef,
    snapshot: &FcdSnapshotId,
) -> Result<bool, vsphere_vim::Error> {
    match disks.delete_snapshot(disk, snapshot).await {
        Ok(()) => Ok(true),
        // Someone else was faster, or an answer was lost.
        Err(error) if error.is_fault("NotFound") => Ok(false),
        Err(error) => Err(error),
    }
}

/// How often a snapshot is looked for that may be on its way.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);
