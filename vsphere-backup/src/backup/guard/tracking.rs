//! Enabling change tracking, for which a snapshot is made and removed.
//!
//! To the journal it is a snapshot of the job like any other: it has the job's marker, and whatever cuts the work short,
//! it is looked for and removed before the job goes on, by the next run, or by the reaper.

use vsphere_cbt::EnableOptions;

use crate::{
    error::{Error, Result, in_one_line},
    event::Event,
    journal::{Job, Record},
    server,
    step::Step,
};

use super::{super::quiesce::took_too_long, Guard, snapshot::SNAPSHOT_LIMIT};

impl Guard {
    /// Enables change tracking; tells whether that was done. A refusal is a warning.
    ///
    /// # Errors
    /// [`Error::Refused`] when something stays in the way of a snapshot, [`Error::Server`] when the snapshot that
    /// starts tracking cannot be removed, [`Error::Cancelled`].
    pub(in crate::backup) async fn enable_tracking(&self, job: &Job) -> Result<bool> {
        self.settle().await?;
        self.record(Step::RecordTracking, Record::SnapshotIntent).await?;
        let enable = || async {
            let options = EnableOptions::default().mark(&job.marker);
            let enabling = vsphere_cbt::enable(&self.vim, &self.vm, options);
            match tokio::time::timeout(SNAPSHOT_LIMIT, enabling).await {
                Ok(done) => done.map_err(|error| Error::Server {
                    operation: OPERATION,
                    vm: self.name.clone(),
                    source: server::cbt_error(error),
                }),
                Err(_) => Err(took_too_long(OPERATION, &self.name, SNAPSHOT_LIMIT)),
            }
        };
        let done = self.steps.take(Step::EnableTracking, enable).await;
        if matches!(done, Err(Error::Cancelled | Error::Abandoned)) {
            return done.map(|_| false);
        }
        // Removed by now, unless something went wrong.
        self.remove_snapshot().await?;
        let enabled = match done {
            Ok(enabled) => enabled,
            Err(error) => {
                self.events.warn(format!("change tracking is not enabled: {}", in_one_line(&error)));
                return Ok(false);
            }
        };
        for disk in enabled.without_change_id() {
            self.events.warn(format!("disk {} has no change id although its changes are tracked", disk.key));
        }
        if enabled.switched_on || enabled.stunned {
            self.events.send(Event::TrackingEnabled);
        }
        Ok(enabled.switched_on || enabled.stunned)
    }
}

const OPERATION: &str = "enabling change tracking";
