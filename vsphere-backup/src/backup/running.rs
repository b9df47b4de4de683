//! A backup that runs in the background, and the handle on it.

use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::{
    cancel::CancelToken,
    error::{Error, Result},
    repository::Repository,
};

use super::{Backup, BackupReport, flow::Abandoned};

/// A backup that runs, from [`Backup::start`].
///
/// ```no_run
/// # async fn example(backup: vsphere_backup::Backup, repository: vsphere_backup::repository::Repository) {
/// let running = backup.start(&repository);
/// running.cancel_gracefully();
/// let report = running.finish().await;
/// # }
/// ```
///
/// Dropped, it is cancelled and goes on in the background until the server is as it was; only
/// [`abandon`](Self::abandon) leaves that to the next run.
#[derive(Debug)]
#[must_use = "dropping it cancels the backup"]
pub struct RunningBackup {
    task: JoinHandle<Result<BackupReport>>,
    /// Of this job alone: the caller's may be shared with others.
    cancel: CancelToken,
}

impl RunningBackup {
    pub(super) fn start(backup: Backup, repository: Repository) -> Self {
        let cancel = backup.cancel.child();
        let job = Arc::new(Backup { cancel: cancel.clone(), ..backup });
        let task = tokio::spawn(async move {
            let abandoned = Abandoned::default();
            let done = tokio::select! {
                biased;
                () = job.cancel.abandoned() => None,
                done = job.work(&repository, &abandoned) => Some(done),
            };
            match done {
                Some(done) => done,
                // The work was dropped where it waited.
                None => {
                    abandoned.release().await;
                    Err(Error::Abandoned)
                }
            }
        });
        Self { task, cancel }
    }

    /// Cancels: see [`CancelToken::cancel`].
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Cancels gracefully: see [`CancelToken::cancel_gracefully`].
    pub fn cancel_gracefully(&self) {
        self.cancel.cancel_gracefully();
    }

    /// Stops everything at once, undoing too, and leaves the server to the journal: see [`CancelToken::abandon`].
    pub fn abandon(&self) {
        self.cancel.abandon();
    }

    /// Tells whether the backup has ended.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until the backup has ended and what it did to the server is undone.
    ///
    /// # Errors
    /// As [`Backup::run`].
    ///
    /// # Cancel safety
    /// When dropped, the backup is cancelled and goes on in the background until the server is as it was.
    pub async fn finish(mut self) -> Result<BackupReport> {
        let done = (&mut self.task).await;
        done.unwrap_or_else(|error| Err(Error::WriterStopped { reason: format!("the job ended: {error}") }))
    }
}

impl Drop for RunningBackup {
    fn drop(&mut self) {
        // Without effect on one that has ended.
        self.cancel.cancel();
    }
}
