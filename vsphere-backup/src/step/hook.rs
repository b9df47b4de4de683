//! What stands in the seam: called before and after every step.

use std::{fmt, sync::Arc};

use crate::{error::Result, repository::storage::BoxFuture};

use super::{State, Step};

/// One try of one step.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct StepCall {
    /// The step.
    pub step: Step,
    /// The number of the call within its job, from 0 on; a step that is tried again counts again.
    pub call: u64,
    /// The number of the try, from 1 on.
    pub attempt: u32,
    /// In which state the job is.
    pub state: State,
    /// Whether the step undoes what the job, or an earlier one, did.
    pub undoing: bool,
}

/// Sees every step of a job and may hold it up or make it fail: for tests of whatever embeds this crate.
///
/// [`Backup::step_hook`](crate::Backup::step_hook) puts one in place.
pub trait StepHook: Send + Sync {
    /// Called before a step is tried. An error is the step's, which is then not tried; a future that does not end is a
    /// call that hangs.
    fn before<'a>(&'a self, call: &'a StepCall) -> BoxFuture<'a, Result<()>>;

    /// Called after a step succeeded. An error is the step's: it happened, and its answer is lost.
    fn after<'a>(&'a self, call: &'a StepCall) -> BoxFuture<'a, Result<()>> {
        let _ = call;
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The hook of a job, if it has one.
#[derive(Clone, Default)]
pub(crate) struct Hook(pub(super) Option<Arc<dyn StepHook>>);

impl Hook {
    pub(crate) fn new(hook: Arc<dyn StepHook>) -> Self {
        Self(Some(hook))
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Hook(handler)" } else { "Hook" })
    }
}
