//! Undoing, by what the journal says.

use vsphere_vim::RemoveSnapshotOptions;

use crate::{
    error::{Result, in_one_line},
    event::Event,
    journal::{Leftover, Record, SnapshotState},
    server::{failed, server_name},
    step::{State, Step},
};

use super::{
    Guard, is_gone,
    snapshot::{SNAPSHOT_LIMIT, is_of},
};

impl Guard {
    /// Undoes what an earlier job left; returns it.
    ///
    /// # Errors
    /// [`Error::Server`](crate::Error::Server) when it cannot be undone: no new backup may begin then.
    pub(crate) async fn recover(&self) -> Result<Option<Leftover>> {
        let Some(leftover) = self.leftover() else { return Ok(None) };
        let guard = self.undoing();
        if leftover.is_clean() {
            guard.clear().await?;
            return Ok(None);
        }
        self.events.send(Event::LeftoverFound(leftover.clone()));
        let removed = guard.remove_snapshot().await?;
        guard.unlock().await?;
        let (there, here) = (&leftover.job.server, server_name(&self.vim));
        if *there != here && !removed && leftover.snapshot != SnapshotState::Absent {
            // The machine may have moved here with or without it; nothing more can be done here.
            let name = &leftover.job.snapshot_name;
            let what = format!("snapshot {name:?} of an earlier job was made on server {there} and is not on {here}");
            self.events.send(Event::LeftBehind { what });
        }
        guard.clear().await?;
        self.events.send(Event::LeftoverRemoved);
        Ok(Some(leftover))
    }

    /// Undoes all that the journal names. What cannot be undone is returned and stays in the
    /// journal.
    pub(crate) async fn undo(&self) -> Vec<String> {
        // A step whose answer was lost may be in the journal all the same.
        self.steps.begin_at(State::of(self.leftover().as_ref()));
        let guard = self.undoing();
        let mut left = Vec::new();
        if let Err(error) = guard.remove_snapshot().await {
            left.push(format!("a snapshot: {}", in_one_line(&error)));
        }
        if let Err(error) = guard.unlock().await {
            left.push(format!("a migration lock: {}", in_one_line(&error)));
        }
        if left.is_empty()
            && let Err(error) = guard.clear().await
        {
            left.push(format!("a journal: {}", in_one_line(&error)));
        }
        for what in &left {
            self.events.send(Event::LeftBehind { what: what.clone() });
        }
        left
    }

    /// Writes down that a job has nothing in its store of others any more but in points.
    pub(crate) async fn forget_store(&self, job: &str) -> Result<()> {
        self.record(Step::RecordStore, Record::StoreDiscarded { job: job.to_owned() }).await?;
        let leftover = self.leftover();
        if leftover.as_ref().is_some_and(|leftover| leftover.is_clean() && leftover.stores.is_empty()) {
            self.steps.begin_at(State::of(leftover.as_ref()));
            self.clear().await?;
        }
        Ok(())
    }

    /// Returns the same guard with steps that go on when the job is cancelled.
    pub(crate) fn undoing(&self) -> Self {
        Self { steps: self.steps.undoing(), ..self.clone() }
    }

    /// Removes the snapshot that the journal names, if there is one. Tells whether there was one.
    pub(crate) async fn remove_snapshot(&self) -> Result<bool> {
        let Some(leftover) = self.leftover() else { return Ok(false) };
        if leftover.snapshot == SnapshotState::Absent {
            return Ok(false);
        }
        if leftover.snapshot == SnapshotState::Possible {
            self.steps.take(Step::AwaitTasks, || self.await_snapshot_tasks(SNAPSHOT_LIMIT)).await?;
        }
        let tree = self.steps.take(Step::FindSnapshot, || self.snapshots()).await?;
        let mut removed = false;
        for found in tree.iter().filter(|found| is_of(found, &leftover)) {
            let remove = || async {
                match self.vim.remove_snapshot(&found.snapshot, RemoveSnapshotOptions::default()).await {
                    Ok(()) => Ok(true),
                    // Someone else was faster, or an answer was lost.
                    Err(error) if is_gone(&error) => Ok(false),
                    Err(error) => Err(failed("removing the snapshot", &self.name)(error)),
                }
            };
            removed |= self.steps.take(Step::RemoveSnapshot, remove).await?;
        }
        self.record(Step::RecordRemoval, Record::SnapshotRemoved).await?;
        if removed {
            self.events.send(Event::SnapshotRemoved);
            self.consolidate().await;
        }
        Ok(removed)
    }

    /// Merges what a removed snapshot left unmerged; a failure is a warning, the data is safe and the next run waits.
    async fn consolidate(&self) {
        let done = async {
            if self.consolidation_pending().await? {
                self.events.warn(format!("{} needs consolidation, which begins now", self.name));
                let wrong = || failed("consolidating the disks", &self.name);
                let merge = || async { self.vim.consolidate_disks(&self.vm).await.map_err(wrong()) };
                self.steps.take(Step::Consolidate, merge).await?;
            }
            Ok::<(), crate::Error>(())
        };
        if let Err(error) = done.await {
            self.events.warn(format!("the disks of {} are not consolidated: {}", self.name, in_one_line(&error)));
        }
    }

    async fn clear(&self) -> Result<()> {
        if self.leftover().is_none() {
            return Ok(());
        }
        self.steps.once(Step::ClearJournal, self.journal.clear()).await
    }
}
