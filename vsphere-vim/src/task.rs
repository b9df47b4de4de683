//! Waiting for tasks: progress as it comes, the typed result at the end, cancellation on the way.
//!
//! ```no_run
//! # use vsphere_vim::{Vim, MoRef, mo};
//! # async fn example(vim: Vim, vm: MoRef<mo::VirtualMachine>) -> vsphere_vim::Result<()> {
//! use vsphere_vim::types::methods::CreateSnapshot_Task;
//!
//! let args = CreateSnapshot_Task { name: "nightly".into(), ..Default::default() };
//! let task = vim.invoke(&vm, args).await?;
//! let snapshot: MoRef<mo::VirtualMachineSnapshot> =
//!     vim.wait(&task).on_progress(|progress| println!("{:?} %", progress.percent)).await?.result()?;
//! # Ok(())
//! # }
//! ```

mod collector;
mod watch;

use std::{fmt, future::IntoFuture, pin::pin, time::Duration};

use tokio::time::{Instant, timeout};
use vsphere_vim_types::{Any, DateTime, FromAny, MethodFault, MoRef, Poly, TaskInfo, TaskInfoState, methods, mo};

use self::{collector::TaskCollector, watch::Observation};
use crate::{
    client::Vim,
    error::{Call, Error, Result, ServerFault},
    transport::BoxFuture,
};

impl Vim {
    /// Waits until a task has ended. Await the returned [`Wait`], after adding progress, cancellation or a limit.
    #[doc(alias = "WaitForTask")]
    #[doc(alias = "WaitForUpdatesEx")]
    pub fn wait<'a>(&self, task: &MoRef<mo::Task>) -> Wait<'a> {
        Wait {
            vim: self.clone(),
            task: task.clone(),
            progress: None,
            cancel: None,
            limit: None,
            polling: None,
            grace: Duration::from_secs(30),
        }
    }

    /// The state of a task at this moment.
    ///
    /// # Errors
    /// As [`Vim::get`]; the server forgets tasks some ten minutes after their end.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn task_info(&self, task: &MoRef<mo::Task>) -> Result<TaskInfo> {
        self.get(task, mo::Task::INFO).await
    }
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskProgress {
    /// True while the task waits for its turn.
    pub queued: bool,
    /// 0 to 100, as far as the task says so.
    pub percent: Option<u8>,
}

/// A task that has succeeded.
#[derive(Clone, Debug)]
pub struct TaskDone {
    /// The task.
    pub task: MoRef<mo::Task>,
    /// The method that started it, such as `CreateSnapshot_Task`.
    pub operation: String,
    /// When it was queued, by the server's clock.
    pub queued_at: DateTime,
    /// When it ended, by the server's clock.
    pub completed_at: Option<DateTime>,
    value: Option<Any>,
}

impl TaskDone {
    /// The task's result as `V`.
    ///
    /// # Errors
    /// [`Error::Protocol`] when there is no result or it is of another type.
    pub fn result<V: FromAny>(self) -> Result<V> {
        let call = Call::on(&self.operation, self.task.as_untyped());
        let value = self.value.unwrap_or_default();
        V::from_any(value).map_err(|mismatch| Error::protocol(call, format!("the task's result: {mismatch}")))
    }

    /// The task's result as it came; `None` for tasks that have none.
    pub fn raw_result(&self) -> Option<&Any> {
        self.value.as_ref()
    }
}

/// A wait that has not begun; made by [`Vim::wait`], begun by `.await`.
#[must_use = "nothing is waited for until this is awaited"]
pub struct Wait<'a> {
    vim: Vim,
    task: MoRef<mo::Task>,
    progress: Option<Box<dyn FnMut(TaskProgress) + Send + 'a>>,
    cancel: Option<BoxFuture<'a, ()>>,
    limit: Option<Duration>,
    polling: Option<Duration>,
    grace: Duration,
}

impl<'a> Wait<'a> {
    /// Reports every change of state or percentage. The callback must not block.
    pub fn on_progress(self, report: impl FnMut(TaskProgress) + Send + 'a) -> Self {
        Self { progress: Some(Box::new(report)), ..self }
    }

    /// Cancels the task on the server when `token` completes; any future will do, such as
    /// `CancellationToken::cancelled()`. The wait then ends with [`Error::Cancelled`], unless the task was faster.
    #[doc(alias = "CancelTask")]
    pub fn cancel_on(self, token: impl Future<Output = ()> + Send + 'a) -> Self {
        Self { cancel: Some(Box::pin(token)), ..self }
    }

    /// Gives up waiting after `limit`, with [`Error::TimedOut`]. The task itself goes on.
    pub fn limit(self, limit: Duration) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// After a cancellation, waits this long for the server to confirm it. 30 s.
    pub fn cancel_grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// Asks every `interval` instead of letting the server report changes; for servers or proxies that do not
    /// support long polls.
    pub fn polling(self, interval: Duration) -> Self {
        Self { polling: Some(interval), ..self }
    }

    async fn run(mut self) -> Result<TaskDone> {
        let deadline = self.limit.and_then(|limit| Some((limit, Instant::now().checked_add(limit)?)));
        let mut observer = Observer::new(self.vim.clone(), self.task.clone(), self.polling);
        let outcome = self.observe(&mut observer, deadline).await;
        // A server that does not answer must not hold up what is known already.
        if timeout(FAREWELL, observer.finish()).await.is_err() {
            tracing::debug!("a property collector was left to the end of the session");
        }
        outcome
    }

    async fn observe(&mut self, observer: &mut Observer, deadline: Option<(Duration, Instant)>) -> Result<TaskDone> {
        let mut cancel = pin!(self.cancel.take());
        let mut cancelled_until: Option<Instant> = None;
        let mut last = None;
        loop {
            let give_up = match (cancelled_until, deadline) {
                (Some(until), _) => Some(until),
                (None, deadline) => deadline.map(|(_, at)| at),
            };
            let observation = tokio::select! {
                biased;
                observation = observer.next() => observation?,
                () = fired(cancel.as_mut()), if cancelled_until.is_none() => {
                    cancel.set(None);
                    cancelled_until = Some(Instant::now() + self.grace);
                    if timeout(self.grace, request_cancel(&self.vim, &self.task)).await.is_err() {
                        tracing::warn!(task = %self.task, "no answer to the cancellation");
                    }
                    continue;
                }
                () = sleep_until(give_up) => {
                    let operation = name_of(&self.vim, &self.task).await;
                    return Err(match (cancelled_until, deadline) {
                        (None, Some((limit, _))) => Error::TimedOut { operation, after: limit },
                        _ => Error::Cancelled { operation, still_running: true },
                    });
                }
            };
            match observation {
                Observation::Running(progress) => {
                    if last != Some(progress)
                        && let Some(report) = &mut self.progress
                    {
                        report(progress);
                    }
                    last = Some(progress);
                }
                Observation::Ended => {
                    let info = self.vim.task_info(&self.task).await?;
                    return conclude(self.task.clone(), info, cancelled_until.is_some());
                }
                // The observer has gone over to asking.
                Observation::Silent => {}
            }
        }
    }
}

async fn request_cancel(vim: &Vim, task: &MoRef<mo::Task>) {
    match vim.invoke(task, methods::CancelTask::default()).await {
        Ok(()) => tracing::info!(%task, "cancellation requested"),
        // Not cancellable, or ended in this moment: the wait goes on for its grace and tells which.
        Err(error) => tracing::warn!(%task, %error, "the task could not be cancelled"),
    }
}

/// The task's method for messages; its reference when the server does not say, or not soon.
async fn name_of(vim: &Vim, task: &MoRef<mo::Task>) -> Box<str> {
    match timeout(FAREWELL, vim.task_info(task)).await {
        Ok(Ok(info)) => operation_of(&info).into(),
        Ok(Err(_)) | Err(_) => task.to_string().into(),
    }
}

impl<'a> IntoFuture for Wait<'a> {
    type Output = Result<TaskDone>;
    type IntoFuture = BoxFuture<'a, Result<TaskDone>>;

    /// Waits.
    ///
    /// # Errors
    /// [`Error::TaskFailed`] with the task's fault, [`Error::Cancelled`], [`Error::TimedOut`], and the errors of
    /// [`Vim::invoke`].
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the task goes on. What the server keeps for the wait is destroyed in the
    /// background.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for Wait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait").field("task", &self.task).finish_non_exhaustive()
    }
}

/// Where observations come from: the server's reports, or polling when those are not to be had.
enum Observer {
    Updates(Box<TaskCollector>),
    Polling { vim: Vim, task: MoRef<mo::Task>, interval: Duration, first: bool },
}

impl Observer {
    fn new(vim: Vim, task: MoRef<mo::Task>, polling: Option<Duration>) -> Self {
        match polling {
            None => Self::Updates(Box::new(TaskCollector::new(vim, task))),
            Some(interval) => Self::Polling { vim, task, interval, first: true },
        }
    }

    /// The next observation. Cancel safe: a dropped call loses nothing that the next one does not see.
    async fn next(&mut self) -> Result<Observation> {
        if let Self::Updates(collector) = self {
            match collector.next().await {
                Ok(Observation::Silent) => tracing::info!("the server does not report on the task; asking for it"),
                Err(error) if reports_unsupported(&error) => {
                    tracing::info!(%error, "the server does not report updates; polling instead");
                }
                other => return other,
            }
            let (vim, task) = collector.subject();
            *self = Self::Polling { vim, task, interval: POLL_INTERVAL, first: true };
        }
        let Self::Polling { vim, task, interval, first } = self else {
            unreachable!("the other variant has returned or was replaced above")
        };
        if !*first {
            tokio::time::sleep(*interval).await;
        }
        let info = vim.task_info(task).await?;
        *first = false;
        Ok(Observation::of(&info.state, info.progress))
    }

    async fn finish(self) {
        if let Self::Updates(collector) = self {
            collector.destroy().await;
        }
    }
}

/// The server is too old for collectors of one's own, or the account may not make one.
fn reports_unsupported(error: &Error) -> bool {
    ["NotSupported", "InvalidRequest", "MethodNotFound", "NotImplemented"].iter().any(|name| error.is_fault(name))
}

async fn fired(token: std::pin::Pin<&mut Option<BoxFuture<'_, ()>>>) {
    match token.as_pin_mut() {
        Some(token) => token.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn operation_of(info: &TaskInfo) -> String {
    // `name` is the wire name; `descriptionId` (VirtualMachine.createSnapshot) is there on every server.
    info.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| info.description_id.clone())
}

fn conclude(task: MoRef<mo::Task>, info: TaskInfo, cancel_requested: bool) -> Result<TaskDone> {
    let operation = operation_of(&info);
    if info.state == TaskInfoState::Success {
        let TaskInfo { queue_time, complete_time, result, .. } = info;
        return Ok(TaskDone { task, operation, queued_at: queue_time, completed_at: complete_time, value: result });
    }
    let (fault, message) = match info.error {
        Some(error) => (error.fault, error.localized_message.unwrap_or_default()),
        None => (Poly::<MethodFault>::default(), "the task ended in error without a reason".to_owned()),
    };
    if info.cancelled || (cancel_requested && fault.is_a("RequestCanceled")) {
        return Err(Error::Cancelled { operation: operation.into(), still_running: false });
    }
    let object = info.entity.map(|entity| entity.to_string().into());
    let call = Call { object, ..Call::named(&operation) };
    Err(Error::TaskFailed(Box::new(ServerFault { call, fault, message: message.into() })))
}

/// How long a wait that has ended may still talk to the server.
const FAREWELL: Duration = Duration::from_secs(10);

/// Between two questions when the server does not report by itself.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use vsphere_vim_types::LocalizedMethodFault;

    use super::*;

    fn info(state: TaskInfoState) -> TaskInfo {
        TaskInfo { name: Some("PowerOnVM_Task".into()), state, ..Default::default() }
    }

    #[test]
    fn a_failed_task_keeps_its_fault() {
        let mut base = MethodFault::default();
        base.unknown.set_type_name("FaultOfTomorrow");
        let error =
            LocalizedMethodFault { fault: Poly::new(base), localized_message: Some("no".into()), ..Default::default() };
        let info = TaskInfo { error: Some(error), ..info(TaskInfoState::Error) };
        let error = conclude(MoRef::new("task-1"), info, false).unwrap_err();
        assert_eq!(error.fault_name(), Some("FaultOfTomorrow"));
        assert_eq!(error.to_string(), "the task of PowerOnVM_Task failed: FaultOfTomorrow: no");
    }

    #[test]
    fn a_task_that_was_faster_than_its_cancellation_succeeded() {
        assert!(conclude(MoRef::new("task-1"), info(TaskInfoState::Success), true).is_ok());
        let cancelled = TaskInfo { cancelled: true, ..info(TaskInfoState::Error) };
        assert!(matches!(
            conclude(MoRef::new("task-1"), cancelled, true),
            Err(Error::Cancelled { still_running: false, .. })
        ));
    }

    #[test]
    fn a_result_of_another_type_is_an_error() {
        let done = conclude(MoRef::new("task-1"), info(TaskInfoState::Success), false).unwrap();
        assert!(matches!(done.result::<String>(), Err(Error::Protocol(_))));
    }
}
