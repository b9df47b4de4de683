//! A backup that runs in the background, and the handle on it.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::{
    cancel::CancelToken,
    error::{Error, Result},
    journal::Abandoned,
    repository::storage::BoxFuture,
};

use super::{Backup, BackupReport};

/// A backup that runs, from [`Backup::start`] or [`Backup::start_into`], and what it will report.
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
pub struct RunningBackup<R = BackupReport> {
    task: JoinHandle<Result<R>>,
    /// Of this job alone: the caller's may be shared with others.
    cancel: CancelToken,
}

impl<R: Send + 'static> RunningBackup<R> {
    pub(super) fn start(
        backup: Backup,
        work: impl FnOnce(Arc<Backup>, Arc<Abandoned>) -> BoxFuture<'static, Result<R>>,
    ) -> Self {
        let cancel = backup.cancel.child();
        let job = Arc::new(Backup { cancel: cancel.clone(), ..backup });
        let span = tracing::info_span!("backup", vm = %job.vm);
        let abandoned = Arc::new(Abandoned::default());
        let work = work(job.clone(), abandoned.clone());
        let work = async move {
            let done = job.cancel.unless_abandoned(&abandoned, work).await;
            // The journal is let go before the job is: who sees the end of the job may begin the next one.
            drop(abandoned);
            done
        };
        let task = tokio::spawn(work.instrument(span));
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
    pub async fn finish(mut self) -> Result<R> {
        let done = (&mut self.task).await;
        done.unwrap_or_else(|error| Err(Error::WriterStopped { reason: format!("the job ended: {error}") }))
    }
}

impl<R> Drop for RunningBackup<R> {
    fn drop(&mut self) {
        // Without effect on one that has ended.
        self.cancel.cancel();
    }
}
