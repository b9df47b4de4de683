//! Waiting for tasks of the service. They are none of the property collector's objects, so they are asked.

use std::{
    fmt,
    future::{IntoFuture, pending},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until, timeout};
use vsphere_vim_types::{Any, MethodFault, MoRef, Poly, VslmTaskInfo, VslmTaskInfoState, methods, mo};

use super::Vslm;
use crate::{
    error::{Call, Error, Result, ServerFault},
    task::TaskProgress,
    transport::BoxFuture,
};

/// A wait that has not begun; made by [`Vslm::wait`], begun by `.await`. It gives the task's result, which is
/// [`Any::Null`] for tasks that have none.
#[must_use = "nothing is waited for until this is awaited"]
pub struct VslmWait<'a> {
    subject: Subject,
    progress: Option<Box<dyn FnMut(TaskProgress) + Send + 'a>>,
    cancel: BoxFuture<'a, ()>,
    limit: Option<Duration>,
    polling: Duration,
    grace: Duration,
}

impl<'a> VslmWait<'a> {
    pub(super) fn new(vslm: Vslm, task: MoRef<mo::VslmTask>) -> Self {
        Self {
            subject: Subject { vslm, task },
            progress: None,
            cancel: Box::pin(pending()),
            limit: None,
            polling: LONGEST_PAUSE,
            grace: Duration::from_secs(30),
        }
    }

    /// Reports every change of state or percentage. The callback must not block.
    pub fn on_progress(self, report: impl FnMut(TaskProgress) + Send + 'a) -> Self {
        Self { progress: Some(Box::new(report)), ..self }
    }

    /// Cancels the task on the server when `token` completes. The wait then ends with [`Error::Cancelled`], unless the
    /// task was faster.
    #[doc(alias = "VslmCancelTask")]
    pub fn cancel_on(self, token: impl Future<Output = ()> + Send + 'a) -> Self {
        Self { cancel: Box::pin(token), ..self }
    }

    /// Gives up waiting after `limit`, with [`Error::TimedOut`]. The task itself goes on.
    pub fn limit(self, limit: Duration) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// After a cancellation, waits this long for the server to confirm it. 30 s.
    pub fn cancel_grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// The longest pause between two questions. 2 s; the first ones follow each other faster.
    pub fn polling(self, interval: Duration) -> Self {
        Self { polling: interval, ..self }
    }

    async fn run(mut self) -> Result<Any> {
        let mut give_up = self.limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut cancelled = false;
        let mut pause = FIRST_PAUSE.min(self.polling);
        let mut last = None;
        loop {
            // A question that is under way may be dropped: the next one learns the same.
            let info = tokio::select! {
                biased;
                info = self.subject.info() => info?,
                () = &mut self.cancel, if !cancelled => {
                    cancelled = true;
                    give_up = Instant::now().checked_add(self.grace);
                    self.subject.request_cancel(self.grace).await;
                    continue;
                }
                () = deadline(give_up) => return Err(self.gave_up(cancelled)),
            };
            match info.state {
                VslmTaskInfoState::Success => return self.subject.result(info).await,
                VslmTaskInfoState::Error => return Err(self.subject.failure(info, cancelled)),
                state => self.report(&state, info.progress, &mut last),
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = &mut self.cancel, if !cancelled => {
                    cancelled = true;
                    give_up = Instant::now().checked_add(self.grace);
                    self.subject.request_cancel(self.grace).await;
                }
                () = deadline(give_up) => return Err(self.gave_up(cancelled)),
            }
            pause = (pause * 2).min(self.polling);
        }
    }

    fn report(&mut self, state: &VslmTaskInfoState, percent: Option<i32>, last: &mut Option<TaskProgress>) {
        let progress = TaskProgress {
            queued: *state == VslmTaskInfoState::Queued,
            percent: percent.and_then(|percent| u8::try_from(percent.clamp(0, 100)).ok()),
        };
        if *last != Some(progress)
            && let Some(report) = &mut self.progress
        {
            report(progress);
        }
        *last = Some(progress);
    }

    fn gave_up(&self, cancelled: bool) -> Error {
        let operation = self.subject.task.to_string().into();
        match self.limit {
            Some(after) if !cancelled => Error::TimedOut { operation, after },
            _ => Error::Cancelled { operation, still_running: true },
        }
    }
}

/// The task and whom to ask about it.
struct Subject {
    vslm: Vslm,
    task: MoRef<mo::VslmTask>,
}

impl Subject {
    async fn info(&self) -> Result<VslmTaskInfo> {
        self.vslm.invoke(&self.task, methods::VslmQueryInfo::default()).await
    }

    /// The result, from the task's state or, where that leaves it out, by a question of its own.
    async fn result(&self, info: VslmTaskInfo) -> Result<Any> {
        match info.result {
            Some(result) => Ok(result),
            None => {
                let result = self.vslm.invoke(&self.task, methods::VslmQueryTaskResult::default()).await?;
                Ok(result.unwrap_or_default())
            }
        }
    }

    async fn request_cancel(&self, grace: Duration) {
        let asked = self.vslm.invoke(&self.task, methods::VslmCancelTask::default());
        match timeout(grace, asked).await {
            Ok(Ok(())) => tracing::info!(task = %self.task, "cancellation requested"),
            Ok(Err(error)) => tracing::warn!(task = %self.task, %error, "the task could not be cancelled"),
            Err(_) => tracing::warn!(task = %self.task, "no answer to the cancellation"),
        }
    }

    fn failure(&self, info: VslmTaskInfo, cancelled: bool) -> Error {
        let operation = info.name.filter(|name| !name.is_empty()).unwrap_or(info.description_id);
        let (fault, message) = match info.error {
            Some(error) => (error.fault, error.localized_message.unwrap_or_default()),
            None => (Poly::<MethodFault>::default(), "the task ended in error without a reason".to_owned()),
        };
        if info.cancelled || (cancelled && fault.is_a("RequestCanceled")) {
            return Error::Cancelled { operation: operation.into(), still_running: false };
        }
        let call = Call { object: Some(self.task.to_string().into()), ..Call::named(&operation) };
        Error::TaskFailed(Box::new(ServerFault { call, fault, message: message.into() }))
    }
}

impl<'a> IntoFuture for VslmWait<'a> {
    type Output = Result<Any>;
    type IntoFuture = BoxFuture<'a, Result<Any>>;

    /// Waits.
    ///
    /// # Errors
    /// [`Error::TaskFailed`] with the task's fault, [`Error::Cancelled`], [`Error::TimedOut`], and the errors of
    /// [`Vslm::invoke`].
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the task goes on.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for VslmWait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VslmWait").field("task", &self.subject.task).finish_non_exhaustive()
    }
}

async fn deadline(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

/// The first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
