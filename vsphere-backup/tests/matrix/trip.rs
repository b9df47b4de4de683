//! What goes wrong at a step.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;
use vsphere_backup::{
    DiskError, Error, Result,
    repository::storage::BoxFuture,
    step::{Step, StepCall, StepHook},
};

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// It fails and was not tried.
    Error,
    /// The same, once, for a reason that passes.
    Passing,
    /// It succeeds, and its answer is lost.
    LostAnswer,
    /// It does not end, and the job is cancelled.
    Hang,
    /// The process dies before it.
    Kill,
    /// The process dies after it.
    KillAfter,
}

impl How {
    pub(crate) const ALL: [Self; 6] =
        [Self::Error, Self::Passing, Self::LostAnswer, Self::Hang, Self::Kill, Self::KillAfter];

    pub(crate) fn kills(self) -> bool {
        matches!(self, Self::Kill | Self::KillAfter)
    }

    fn is_after(self) -> bool {
        matches!(self, Self::LostAnswer | Self::KillAfter)
    }
}

/// Makes one call of a step go wrong, and notes which steps were taken.
pub(crate) struct Trip {
    at: Option<(Step, usize, How)>,
    seen: Mutex<Vec<Step>>,
    /// The number of the call that goes wrong, once it is begun: others of the step may begin before it ends.
    call: Mutex<Option<u64>>,
    done: AtomicBool,
    pub(crate) tripped: Notify,
}

impl Trip {
    /// At the call of the step with this number, the first being 1.
    pub(crate) fn new(at: Option<(Step, usize, How)>) -> Arc<Self> {
        Arc::new(Self {
            at,
            seen: Mutex::default(),
            call: Mutex::default(),
            done: AtomicBool::new(false),
            tripped: Notify::new(),
        })
    }

    /// The steps that were taken, in order.
    pub(crate) fn steps(&self) -> Vec<Step> {
        self.seen.lock().unwrap().clone()
    }

    /// Tells whether anything went wrong.
    pub(crate) fn is_met(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    fn note(&self, call: &StepCall) {
        let mut seen = self.seen.lock().unwrap();
        seen.push(call.step);
        let is_it =
            |(step, number, _)| call.step == step && seen.iter().filter(|seen| **seen == step).count() == number;
        if self.at.is_some_and(is_it) {
            *self.call.lock().unwrap() = Some(call.call);
        }
    }

    async fn meet(&self, call: &StepCall, after: bool) -> Result<()> {
        let Some((step, _, how)) = self.at.filter(|(.., how)| after == how.is_after()) else { return Ok(()) };
        if *self.call.lock().unwrap() != Some(call.call) {
            return Ok(());
        }
        self.done.store(true, Ordering::Relaxed);
        self.tripped.notify_one();
        match how {
            How::Hang | How::Kill | How::KillAfter => std::future::pending().await,
            How::Passing => {
                let source = DiskError::new("injected, and passes").retryable(true);
                Err(Error::Server { operation: "a step", vm: step.to_string(), source })
            }
            _ => Err(Error::Refused { vm: step.to_string(), reason: "injected".into(), hint: None }),
        }
    }
}

impl StepHook for Trip {
    fn before<'a>(&'a self, call: &'a StepCall) -> BoxFuture<'a, Result<()>> {
        self.note(call);
        Box::pin(self.meet(call, false))
    }

    fn after<'a>(&'a self, call: &'a StepCall) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.meet(call, true))
    }
}
