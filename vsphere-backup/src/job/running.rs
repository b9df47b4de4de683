//! A job that runs in the background, and the handle on it.

use tokio::{sync::watch, task::JoinHandle};
use vsphere_vim::Vim;

use super::{Job, JobReport};
use crate::{
    cancel::CancelToken,
    error::{Error, Result},
    repository::Repository,
    task::{TaskEvents, Tasks},
};

/// A job that runs, from [`Job::start`].
///
/// Dropped, it is cancelled and goes on in the background until the servers are as they were.
#[derive(Debug)]
#[must_use = "dropping it cancels the job"]
pub struct RunningJob {
    task: JoinHandle<Result<JobReport>>,
    tasks: Tasks,
    stopped: watch::Sender<bool>,
    /// Of this job alone: the caller's may be shared with others.
    cancel: CancelToken,
}

impl RunningJob {
    pub(super) fn start(job: Job, vim: Vim, repository: Repository) -> Self {
        let (tasks, cancel) = (job.tasks.clone(), CancelToken::new());
        let (stopped, _) = watch::channel(false);
        let of_job = (stopped.clone(), cancel.clone());
        let task = tokio::spawn(async move {
            let (stopped, cancel) = of_job;
            let callers = job.cancel.clone();
            let job = Job { cancel: cancel.clone(), ..job };
            tokio::select! {
                done = job.work(&vim, &repository, &stopped) => done,
                never = callers.pass_on(&cancel) => match never {},
            }
        });
        Self { task, tasks, stopped, cancel }
    }

    /// Returns a stream of what happens from now on.
    pub fn events(&self) -> TaskEvents {
        self.tasks.events()
    }

    /// Begins no further machine; those that run come to their end.
    pub fn stop_gracefully(&self) {
        self.stopped.send_replace(true);
    }

    /// Cancels every machine that runs, undoing what was done to the server, and begins no other.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Stops everything at once, undoing too, and leaves the servers to the journals: see [`CancelToken::abandon`].
    pub fn abandon(&self) {
        self.cancel.abandon();
    }

    /// Tells whether the job has ended.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until the job has ended and what it did to servers is undone.
    ///
    /// # Errors
    /// As [`Job::run`].
    ///
    /// # Cancel safety
    /// When dropped, the job is cancelled and goes on in the background.
    pub async fn finish(mut self) -> Result<JobReport> {
        let done = (&mut self.task).await;
        done.unwrap_or_else(|error| Err(Error::WriterStopped { reason: format!("the job ended: {error}") }))
    }
}

impl Drop for RunningJob {
    fn drop(&mut self) {
        // Without effect on one that has ended.
        self.cancel.cancel();
    }
}
