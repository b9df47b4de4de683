//! The seam: every call of a job goes through here, is held to the order, told, tried again and made to fail by tests.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    cancel::CancelToken,
    error::{Error, Result, in_one_line},
    event::{Event, Events},
    retry::Retries,
};

use super::{Hook, Side, State, Step, StepCall};

/// The steps of one job. Clones share its state.
#[derive(Clone)]
pub(crate) struct Steps {
    job: Arc<Job>,
    undoing: bool,
}

struct Job {
    /// For messages.
    vm: String,
    state: Mutex<State>,
    calls: AtomicU64,
    hook: Hook,
    retries: Retries,
    events: Events,
    cancel: CancelToken,
}

impl Steps {
    pub(crate) fn new(
        vm: impl Into<String>,
        hook: &Hook,
        retries: Retries,
        events: &Events,
        cancel: &CancelToken,
    ) -> Self {
        let (events, cancel, hook) = (events.clone(), cancel.clone(), hook.clone());
        let (vm, state, calls) = (vm.into(), Mutex::new(State::Idle), AtomicU64::new(0));
        Self { job: Arc::new(Job { vm, state, calls, hook, retries, events, cancel }), undoing: false }
    }

    /// Returns the same steps as those that undo: they go on when the job is cancelled.
    pub(crate) fn undoing(&self) -> Self {
        Self { job: self.job.clone(), undoing: true }
    }

    pub(crate) fn state(&self) -> State {
        *self.lock()
    }

    /// States how far the job is, as a journal that was opened says.
    pub(crate) fn begin_at(&self, state: State) {
        *self.lock() = state;
    }

    /// Takes a step that is tried once.
    ///
    /// # Errors
    /// Those of `work`; [`Error::Cancelled`] unless these steps undo.
    pub(crate) async fn once<T>(&self, step: Step, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.attempt(step, 1, Box::pin(work)).await
    }

    /// Takes a step that is tried again when its failure passes by itself.
    ///
    /// # Errors
    /// As [`once`](Self::once).
    pub(crate) async fn take<T, F>(&self, step: Step, mut work: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut attempt = 1;
        loop {
            match self.attempt(step, attempt, Box::pin(work())).await {
                Err(error) if self.passes(&error) && self.pause(&error, attempt).await? => attempt += 1,
                other => return other,
            }
        }
    }

    /// Waits before another try of something that failed; tells whether there is one.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub(crate) async fn pause(&self, error: &Error, attempt: u32) -> Result<bool> {
        let Some(pause) = self.job.retries.pause_after(attempt) else { return Ok(false) };
        self.job.events.warn(format!("{}; trying again in {pause:?}", in_one_line(error)));
        self.unless_cancelled(async {
            tokio::time::sleep(pause).await;
            Ok(true)
        })
        .await
    }

    /// Tells whether a failure may be met by another try: what undoes is tried again after any failure that may pass,
    /// other steps when the server itself said so, as the network's failures were met below.
    pub(crate) fn passes(&self, error: &Error) -> bool {
        let said = |error: &Error| match error {
            Error::Server { source, .. } => {
                let inner = source.inner().downcast_ref::<vsphere_vim::Error>();
                inner.is_none_or(|error| error.server_fault().is_some())
            }
            Error::Areas { .. } => true,
            _ => false,
        };
        error.is_retryable() && (self.undoing || said(error))
    }

    /// Takes a step once. The work is on the heap: as a part of the future of each step it would make the futures of
    /// jobs hundreds of kilobytes, more than the stack of a thread bears when nothing is optimised.
    async fn attempt<T, F>(&self, step: Step, attempt: u32, work: Pin<Box<F>>) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let call = self.enter(step, attempt)?;
        if !matches!(step, Step::ReadDisk | Step::WriteDisk) {
            self.job.events.send(Event::StepBegun { step, attempt });
        }
        if let Some(hook) = &self.job.hook.0 {
            self.unless_cancelled(hook.before(&call)).await?;
        }
        let done = match (step, step.side()) {
            // These end themselves: in a moment, or by asking the server to cancel.
            (Step::Commit | Step::AwaitSnapshot | Step::AwaitMachine, _) | (_, Side::Journal) => work.await,
            // Only a snapshot that is there can be found and removed, and nothing tells of one that is on its way.
            (Step::CreateDiskSnapshot, _) => work.await,
            // An answer tells what there is to undo.
            _ if step.changes_server() => self.unless_long_cancelled(work).await,
            _ => self.unless_cancelled(work).await,
        }?;
        if let Some(hook) = &self.job.hook.0 {
            self.unless_cancelled(hook.after(&call)).await?;
        }
        let mut state = self.lock();
        // Disks are read at the same time: the table has one answer for all of them.
        if let Some(next) = state.after(step) {
            *state = next;
        }
        Ok(done)
    }

    fn enter(&self, step: Step, attempt: u32) -> Result<StepCall> {
        let state = self.state();
        if state.after(step).is_none() {
            debug_assert!(false, "{step} in state {state:?}");
            return Err(Error::Refused {
                vm: self.job.vm.clone(),
                reason: format!(
                    "step {step} was about to be taken in state {state:?}, which is a defect of this crate"
                ),
                hint: None,
            });
        }
        let call = self.job.calls.fetch_add(1, Ordering::Relaxed);
        Ok(StepCall { step, call, attempt, state, undoing: self.undoing })
    }

    /// Runs work until the job is cancelled. While disks are read or written, a graceful cancel lets it go on.
    pub(crate) async fn unless_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        if self.undoing {
            return work.await;
        }
        tokio::select! {
            biased;
            () = self.cancelled() => Err(Error::Cancelled),
            done = work => done,
        }
    }

    /// The same for a call that may have happened: its answer is waited for a while.
    async fn unless_long_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        if self.undoing {
            return work.await;
        }
        tokio::select! {
            biased;
            done = work => done,
            () = async {
                self.cancelled().await;
                tokio::time::sleep(GRACE).await;
            } => Err(Error::Cancelled),
        }
    }

    async fn cancelled(&self) {
        match self.state() {
            State::Reading | State::Writing | State::MachineMade | State::Filing => self.job.cancel.cancelled().await,
            _ => self.job.cancel.stopping().await,
        }
    }

    // The state is one word.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.job.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Steps({}, {:?})", self.job.vm, self.state())
    }
}

/// How long a cancelled job waits for the answer to a call that changes the server.
const GRACE: Duration = Duration::from_secs(10);
