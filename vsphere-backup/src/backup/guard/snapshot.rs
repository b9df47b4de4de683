//! Making the snapshot, once.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use vsphere_vim::{MoRef, mo, vm::Snapshot, vm::SnapshotTree};

use crate::{
    error::{Error, Result},
    event::Event,
    journal::{Job, Leftover, Record, SnapshotState, marker},
    repository::Fallback,
    server::failed,
    step::Step,
};

use super::{
    super::quiesce::{Chain, QuiesceStep, took_too_long},
    Guard,
};

impl Guard {
    /// Takes the snapshot in the first way of a chain that succeeds; returns what the server says of it, and why other
    /// ways were given up.
    ///
    /// # Errors
    /// [`Error::Refused`] when something stays in the way or the guest's state is not good enough, [`Error::Server`],
    /// [`Error::Cancelled`].
    pub(crate) async fn snapshot(&self, job: &Job, chain: Chain<'_>) -> Result<(Snapshot, Vec<Fallback>)> {
        let refused =
            |reason: String| Error::Refused { vm: self.name.clone(), reason, hint: Some(QUIESCE_HINT.into()) };
        if let Some(reason) = chain.impossible() {
            return Err(refused(reason));
        }
        let mut fallbacks = chain.skipped.clone();
        for (at, step) in chain.steps.iter().enumerate() {
            let error = match self.create(job, step).await {
                Ok(snapshot) => {
                    let found = self.made(&snapshot).await?;
                    fallbacks.extend(chain.accept(at, &found).map_err(refused)?);
                    self.tell(&fallbacks);
                    return Ok((found, fallbacks));
                }
                Err(error) => error,
            };
            match step.gives_way(&error) {
                Some(reason) if at + 1 < chain.steps.len() => fallbacks.push(step.given_up(reason)),
                _ => return Err(error),
            }
            // The failed one may have left something, or be on its way still.
            self.remove_snapshot().await?;
        }
        Err(refused("no way to make a snapshot is left".into()))
    }

    /// Writes down and finds the snapshot that was made.
    async fn made(&self, snapshot: &MoRef<mo::VirtualMachineSnapshot>) -> Result<Snapshot> {
        let id = snapshot.value().to_owned();
        self.record(Step::RecordSnapshotId, Record::SnapshotCreated { snapshot: id.clone() }).await?;
        self.events.send(Event::SnapshotCreated { snapshot: id });
        let tree = self.steps.take(Step::FindSnapshot, || self.snapshots()).await?;
        tree.get(snapshot).cloned().ok_or_else(|| Error::Refused {
            vm: self.name.clone(),
            reason: format!("{snapshot} was created and is not among the machine's snapshots"),
            hint: None,
        })
    }

    fn tell(&self, fallbacks: &[Fallback]) {
        for Fallback { way, reason } in fallbacks {
            self.events.warn(format!("the guest could not be quiesced by {way:?}: {reason}"));
        }
    }

    /// Makes one snapshot. After a failure that may have made it all the same, it is looked for before another try.
    async fn create(&self, job: &Job, how: &QuiesceStep) -> Result<MoRef<mo::VirtualMachineSnapshot>> {
        self.settle().await?;
        self.record(Step::RecordSnapshot, Record::SnapshotIntent).await?;
        let mut attempt = 1;
        loop {
            let error = match self.try_create(job, how).await {
                Err(error) if error.is_retryable() => error,
                other => return other,
            };
            if !self.steps.pause(&error, attempt).await? {
                return Err(error);
            }
            attempt += 1;
            self.steps.take(Step::AwaitTasks, || self.await_snapshot_tasks(self.limits.settle)).await?;
            let tree = self.steps.take(Step::FindSnapshot, || self.snapshots()).await?;
            if let Some(made) = tree.iter().find(|found| marker::job_in(&found.description) == Some(&job.id)) {
                return Ok(made.snapshot.clone());
            }
        }
    }

    async fn try_create(&self, job: &Job, how: &QuiesceStep) -> Result<MoRef<mo::VirtualMachineSnapshot>> {
        let wrong = || failed("the snapshot", &self.name);
        let options = how.options(&job.snapshot_name, &job.marker);
        let begin = async { self.vim.create_snapshot_task(&self.vm, options).await.map_err(wrong()) };
        let task = self.steps.once(Step::CreateSnapshot, begin).await?;
        let done = async {
            let limit = how.limit_of_snapshot();
            let late = AtomicBool::new(false);
            let stop = async {
                tokio::select! {
                    () = self.cancel.stopping() => {}
                    () = tokio::time::sleep(limit) => late.store(true, Ordering::Relaxed),
                }
            };
            match self.vim.wait(&task).cancel_on(stop).await {
                Ok(done) => done.result().map_err(wrong()),
                // Whether or not the server confirms that: what it may make all the same is looked for and removed.
                Err(vsphere_vim::Error::Cancelled { .. }) if late.load(Ordering::Relaxed) => {
                    Err(took_too_long("the snapshot", &self.name, limit))
                }
                Err(error) => Err(wrong()(error)),
            }
        };
        self.steps.once(Step::AwaitSnapshot, done).await
    }

    /// Finds the very snapshot that an earlier run of the same job read, if it is still there: what is stored of its
    /// disks goes together with no other.
    ///
    /// # Errors
    /// [`Error::Server`], [`Error::Cancelled`].
    pub(crate) async fn find_snapshot(&self, leftover: &Leftover) -> Result<Option<Snapshot>> {
        let tree = self.steps.take(Step::FindSnapshot, || self.snapshots()).await?;
        Ok(tree.iter().find(|found| is_read(found, leftover)).cloned())
    }

    pub(super) async fn snapshots(&self) -> Result<SnapshotTree> {
        self.vim.snapshots(&self.vm).await.map_err(failed("reading the snapshots", &self.name))
    }
}

/// Tells whether a snapshot is a job's. It is known by the marker in its description: ids are given again when a server
/// is restored, and then one with a known id and name may be another job's.
pub(super) fn is_of(found: &Snapshot, leftover: &Leftover) -> bool {
    match marker::job_in(&found.description) {
        Some(job) => job == leftover.job.id,
        // Somebody wrote over the description.
        None => is_known(found, leftover) && found.name == leftover.job.snapshot_name,
    }
}

/// Tells whether a snapshot is the one that a job read: its mark is on every one that a lost answer made it take twice.
fn is_read(found: &Snapshot, leftover: &Leftover) -> bool {
    is_known(found, leftover) && marker::job_in(&found.description) == Some(&leftover.job.id)
}

fn is_known(found: &Snapshot, leftover: &Leftover) -> bool {
    matches!(&leftover.snapshot, SnapshotState::Exists(id) if *id == found.snapshot.value())
}

/// A quiesced snapshot of a busy machine may take many minutes.
pub(super) const SNAPSHOT_LIMIT: Duration = Duration::from_secs(1800);

const QUIESCE_HINT: &str = "see to VMware Tools in the guest, or allow a snapshot that is as after a power cut";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::sample_job;

    fn snapshot(id: &str, name: &str, description: &str) -> Snapshot {
        let mut tree = vsphere_vim::types::VirtualMachineSnapshotTree::default();
        (tree.name, tree.description) = (name.into(), description.into());
        tree.snapshot = MoRef::new(id);
        Snapshot::from(tree)
    }

    #[test]
    fn a_snapshot_that_was_given_the_same_id_and_name_is_left_to_the_job_that_it_names() {
        let mut leftover = Leftover::new(sample_job());
        leftover.apply(Record::SnapshotCreated { snapshot: "snapshot-1".into() });
        let Job { snapshot_name: name, marker: ours, .. } = &leftover.job;
        let theirs = marker::of("fedcba9876543210");
        for (found, is_ours, was_read) in [
            (snapshot("snapshot-1", name, ours), true, true),
            (snapshot("snapshot-7", "renamed", &format!("nightly; {ours}")), true, false),
            (snapshot("snapshot-1", name, "edited"), true, false),
            (snapshot("snapshot-1", "other", "edited"), false, false),
            (snapshot("snapshot-1", name, &theirs), false, false),
        ] {
            assert_eq!((is_of(&found, &leftover), is_read(&found, &leftover)), (is_ours, was_read), "{found:?}");
        }
    }
}
