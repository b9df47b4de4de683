//! Waiting until nothing is in the way of a new snapshot.

use std::time::{Duration, Instant};

use vsphere_vim::{MoRef, mo, types::TaskInfoState};

use crate::{
    error::{Error, Result, in_one_line},
    server::failed,
    step::Step,
};

use super::{Guard, is_gone};

impl Guard {
    /// Waits for snapshot tasks of others and for merges, and begins a merge that is pending: a snapshot made on top of
    /// one has cost machines their disks.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is not over in time or the merge fails; [`Error::Server`], [`Error::Cancelled`].
    pub(in crate::backup) async fn settle(&self) -> Result<()> {
        let until = Instant::now() + self.limits.settle;
        loop {
            self.steps.take(Step::AwaitTasks, || self.await_snapshot_tasks(left(until))).await?;
            if !self.consolidation_pending().await? {
                return Ok(());
            }
            self.events.warn(format!("{} needs consolidation before a snapshot, which begins now", self.name));
            let merged = self
                .steps
                .take(Step::Consolidate, || async {
                    let merge = self.vim.consolidate_disks(&self.vm);
                    match tokio::time::timeout(left(until), merge).await {
                        Ok(done) => done.map_err(failed("consolidating the disks", &self.name)),
                        Err(_) => Err(self.in_the_way("the merge of disks of removed snapshots still runs")),
                    }
                })
                .await;
            match merged {
                Ok(()) => {}
                Err(error @ (Error::Refused { .. } | Error::Cancelled)) => return Err(error),
                Err(error) => {
                    let why = in_one_line(&error);
                    return Err(self.in_the_way(&format!("disks of removed snapshots cannot be merged: {why}")));
                }
            }
            if left(until).is_zero() {
                return Err(self.in_the_way("disks of removed snapshots wait to be merged, again and again"));
            }
        }
    }

    pub(super) async fn consolidation_pending(&self) -> Result<bool> {
        let wrong = || failed("asking for consolidation", &self.name);
        let ask = || async { self.vim.consolidation_needed(&self.vm).await.map_err(wrong()) };
        self.steps.take(Step::AskConsolidation, ask).await
    }

    /// Waits for snapshots that the server makes, removes or merges: a task outlives whoever asked for it.
    pub(super) async fn await_snapshot_tasks(&self, limit: Duration) -> Result<()> {
        let wrong = || failed("reading the tasks", &self.name);
        let tasks = self
            .vim
            .get_optional(&self.vm, mo::VirtualMachine::RECENT_TASK)
            .await
            .map_err(wrong())?
            .unwrap_or_default();
        for task in tasks {
            let info = match self.vim.task_info(&task).await {
                Ok(info) => info,
                // A task that the server has forgotten is over.
                Err(error) if is_gone(&error) => continue,
                // One that cannot be asked for may still make a snapshot: to call it over would forget that one.
                Err(error) => return Err(wrong()(error)),
            };
            let over = matches!(info.state, TaskInfoState::Success | TaskInfoState::Error);
            if !over && is_about_snapshots(&info.description_id, info.name.as_deref()) {
                self.await_task(&task, &info.description_id, limit).await?;
            }
        }
        Ok(())
    }

    async fn await_task(&self, task: &MoRef<mo::Task>, what: &str, limit: Duration) -> Result<()> {
        match self.vim.wait(task).limit(limit).await {
            // What became of it is seen in the tree of snapshots.
            Ok(_) | Err(vsphere_vim::Error::TaskFailed(_)) => Ok(()),
            Err(error) if is_gone(&error) => Ok(()),
            Err(vsphere_vim::Error::TimedOut { .. }) => {
                Err(self.in_the_way(&format!("{task} ({what}) still runs after {limit:?}")))
            }
            Err(error) => Err(failed("waiting for a snapshot task", &self.name)(error)),
        }
    }

    /// A refusal because of what others do.
    fn in_the_way(&self, what: &str) -> Error {
        Error::Refused {
            vm: self.name.clone(),
            reason: what.to_owned(),
            hint: Some("wait until its tasks have ended and consolidate its disks, then run the backup again".into()),
        }
    }
}

/// Tells whether a task makes, removes or merges snapshots.
fn is_about_snapshots(description: &str, name: Option<&str>) -> bool {
    let about = |text: &str| {
        let text = text.to_ascii_lowercase();
        ["snapshot", "consolidate"].iter().any(|word| text.contains(word))
    };
    about(description) || name.is_some_and(about)
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_that_touch_snapshots_are_known_by_their_names() {
        for (description, name) in [
            ("VirtualMachine.createSnapshot", None),
            ("vm.Snapshot.remove", None),
            ("VirtualMachine.removeAllSnapshots", None),
            ("VirtualMachine.consolidateDisks", None),
            ("", Some("CreateSnapshotEx_Task")),
            ("", Some("RevertToSnapshot_Task")),
        ] {
            assert!(is_about_snapshots(description, name), "{description} {name:?}");
        }
        assert!(!is_about_snapshots("VirtualMachine.reconfigure", Some("ReconfigVM_Task")));
    }
}
