//! Making the snapshot, once.

use std::time::Duration;

use vsphere_vim::{CreateSnapshotOptions, MoRef, mo, vm::Snapshot, vm::SnapshotTree};

use crate::{
    error::{Error, Result, in_one_line},
    event::Event,
    journal::{Job, Leftover, Record, SnapshotState},
    server::failed,
    step::Step,
};

use super::{super::Quiesce, Guard};

impl Guard {
    /// Takes the snapshot and returns what the server says of it.
    ///
    /// # Errors
    /// [`Error::Refused`] when something stays in the way, [`Error::Server`], [`Error::Cancelled`].
    pub(in crate::backup) async fn snapshot(&self, job: &Job, quiesce: Quiesce) -> Result<Snapshot> {
        let first = self.create(job, quiesce != Quiesce::No).await;
        let snapshot = match first {
            Err(error) if quiesce == Quiesce::Try && is_about_quiescing(&error) => {
                let why = in_one_line(&error);
                self.events.warn(format!("the guest could not be quiesced, its state is as after a power cut: {why}"));
                // The failed one may have left something.
                self.remove_snapshot().await?;
                self.create(job, false).await?
            }
            other => other?,
        };
        let id = snapshot.value().to_owned();
        self.record(Step::RecordSnapshotId, Record::SnapshotCreated { snapshot: id.clone() }).await?;
        self.events.send(Event::SnapshotCreated { snapshot: id });
        let tree = self.steps.take(Step::FindSnapshot, || self.snapshots()).await?;
        tree.get(&snapshot).cloned().ok_or_else(|| Error::Refused {
            vm: self.name.clone(),
            reason: format!("{snapshot} was created and is not among the machine's snapshots"),
            hint: None,
        })
    }

    /// Makes one snapshot. After a failure that may have made it all the same, it is looked for before another try.
    async fn create(&self, job: &Job, quiesce: bool) -> Result<MoRef<mo::VirtualMachineSnapshot>> {
        self.settle().await?;
        self.record(Step::RecordSnapshot, Record::SnapshotIntent).await?;
        let mut attempt = 1;
        loop {
            let error = match self.try_create(job, quiesce).await {
                Err(error) if error.is_retryable() => error,
                other => return other,
            };
            if !self.steps.pause(&error, attempt).await? {
                return Err(error);
            }
            attempt += 1;
            self.steps.take(Step::AwaitTasks, || self.await_snapshot_tasks(self.limits.settle)).await?;
            let tree = self.steps.take(Step::FindSnapshot, || self.snapshots()).await?;
            if let Some(made) = tree.iter().find(|found| found.description.contains(&job.marker)) {
                return Ok(made.snapshot.clone());
            }
        }
    }

    async fn try_create(&self, job: &Job, quiesce: bool) -> Result<MoRef<mo::VirtualMachineSnapshot>> {
        let wrong = || failed("the snapshot", &self.name);
        let options = CreateSnapshotOptions::new(&job.snapshot_name).description(&job.marker).quiesce(quiesce);
        let begin = async { self.vim.create_snapshot_task(&self.vm, options).await.map_err(wrong()) };
        let task = self.steps.once(Step::CreateSnapshot, begin).await?;
        let done = async {
            let done = self.vim.wait(&task).cancel_on(self.cancel.stopping()).await.map_err(wrong())?;
            done.result().map_err(wrong())
        };
        self.steps.once(Step::AwaitSnapshot, done).await
    }

    /// Finds the snapshot of an earlier run of the same job, if it is still there.
    ///
    /// # Errors
    /// [`Error::Server`], [`Error::Cancelled`].
    pub(in crate::backup) async fn find_snapshot(&self, leftover: &Leftover) -> Result<Option<Snapshot>> {
        let tree = self.steps.take(Step::FindSnapshot, || self.snapshots()).await?;
        Ok(tree.iter().find(|found| is_of(found, leftover)).cloned())
    }

    pub(super) async fn snapshots(&self) -> Result<SnapshotTree> {
        self.vim.snapshots(&self.vm).await.map_err(failed("reading the snapshots", &self.name))
    }
}

/// Tells whether a snapshot is a job's. It is known by the marker in its description: ids are given again when a server
/// is restored.
pub(super) fn is_of(found: &Snapshot, leftover: &Leftover) -> bool {
    let known = matches!(&leftover.snapshot, SnapshotState::Exists(id) if *id == found.snapshot.value());
    found.description.contains(&leftover.job.marker) || (known && found.name == leftover.job.snapshot_name)
}

/// Tells whether a snapshot without quiescing may succeed where this one failed: the server itself refused it, and not
/// for something that passes.
fn is_about_quiescing(error: &Error) -> bool {
    let Error::Server { source, .. } = error else { return false };
    let inner = source.inner().downcast_ref::<vsphere_vim::Error>();
    !source.retryable && inner.is_some_and(|error| error.server_fault().is_some())
}

/// A quiesced snapshot of a busy machine may take many minutes.
pub(super) const SNAPSHOT_LIMIT: Duration = Duration::from_secs(1800);
