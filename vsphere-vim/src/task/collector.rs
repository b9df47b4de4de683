//! A property collector of one's own that watches one task.
//!
//! The session's common collector would mix the updates of all waiters; an own one is cheap and is destroyed with all
//! it holds. It dies with the session, and is then made anew.

use std::time::Duration;

use tokio::time::Instant;
use vsphere_vim_types::{MoRef, PropertyFilterSpec, WaitOptions, methods, mo};

use super::watch::{Observation, TaskState};
use crate::{
    call::{CallOptions, SessionUse},
    client::Vim,
    error::{Error, Result},
    property::{FilterSpec, ObjectSpec, PropertySpec},
};

#[derive(Debug)]
pub(super) struct TaskCollector {
    vim: Vim,
    task: MoRef<mo::Task>,
    collector: Option<MoRef<mo::PropertyCollector>>,
    /// The login in which the collector was made.
    generation: u64,
    state: TaskState,
    remakes: u32,
    /// Answers in a row that said nothing and did not wait either.
    hasty: u32,
}

impl TaskCollector {
    pub(super) fn new(vim: Vim, task: MoRef<mo::Task>) -> Self {
        Self { vim, task, collector: None, generation: 0, state: TaskState::default(), remakes: 0, hasty: 0 }
    }

    pub(super) fn subject(&self) -> (Vim, MoRef<mo::Task>) {
        (self.vim.clone(), self.task.clone())
    }

    /// Waits for the next news. Cancel safe: the version advances only with a complete answer.
    pub(super) async fn next(&mut self) -> Result<Observation> {
        loop {
            let asked = Instant::now();
            match self.wait_once().await {
                Ok(Some(observation)) => {
                    (self.remakes, self.hasty) = (0, 0);
                    return Ok(observation);
                }
                // An expired session may be answered with nothing at once, and some proxies do not let a call wait.
                Ok(None) if asked.elapsed() < HASTY => {
                    self.hasty += 1;
                    if self.hasty >= MAX_HASTY {
                        return Ok(Observation::Silent);
                    }
                }
                Ok(None) => self.hasty = 0,
                Err(error) => self.recover(error).await?,
            }
        }
    }

    async fn wait_once(&mut self) -> Result<Option<Observation>> {
        let collector = match self.collector.clone() {
            Some(collector) => collector,
            None => self.make().await?,
        };
        let options = WaitOptions { max_wait_seconds: Some(MAX_WAIT_SECONDS), ..Default::default() };
        let version = self.state.version.clone();
        let args = methods::WaitForUpdatesEx { version: Some(version), options: Some(options), ..Default::default() };
        let limit = Duration::from_secs(MAX_WAIT_SECONDS.unsigned_abs().into()) + ANSWER_MARGIN;
        let call = CallOptions::long_poll(limit).session(SessionUse::Report);
        let update = self.vim.invoke_with(&collector, args, call).await?;
        Ok(update.and_then(|update| self.state.apply(update)))
    }

    async fn make(&mut self) -> Result<MoRef<mo::PropertyCollector>> {
        self.generation = self.vim.session().generation();
        let parent = self.vim.content().property_collector.clone();
        let args = methods::CreatePropertyCollector::default();
        let collector = self.vim.invoke_with(&parent, args, session_bound()).await?;
        // Remembered before the filter is made, so that it is destroyed whatever happens.
        self.collector = Some(collector.clone());
        self.state.restart();
        let args = methods::CreateFilter { spec: self.filter()?, partial_updates: true, ..Default::default() };
        self.vim.invoke_with(&collector, args, session_bound()).await?;
        Ok(collector)
    }

    fn filter(&self) -> Result<PropertyFilterSpec> {
        let properties = TaskState::PATHS.into_iter().fold(PropertySpec::of::<mo::Task>(), PropertySpec::path_named);
        FilterSpec::new().read(properties).start(ObjectSpec::from(self.task.clone())).to_wire()
    }

    /// Decides whether the wait can go on after an error, and prepares it.
    async fn recover(&mut self, error: Error) -> Result<()> {
        if self.remakes >= MAX_REMAKES {
            return Err(error);
        }
        self.remakes += 1;
        if error.is_fault("InvalidCollectorVersion") {
            self.state.restart();
            return Ok(());
        }
        let lost = error.is_fault("NotAuthenticated") || self.vim.session().generation() != self.generation;
        if lost && self.vim.log_in_again_if_dead(self.generation, &error).await? {
            // The collector went with the session.
            self.collector = None;
            return Ok(());
        }
        Err(error)
    }

    pub(super) async fn destroy(mut self) {
        if let Some(work) = self.leftovers() {
            work.await;
        }
    }

    fn leftovers(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let collector = self.collector.take()?;
        let vim = self.vim.clone();
        Some(async move {
            let args = methods::DestroyPropertyCollector::default();
            if let Err(error) = vim.invoke_with(&collector, args, session_bound()).await {
                tracing::debug!(%error, "a property collector was left to the end of the session");
            }
        })
    }
}

impl Drop for TaskCollector {
    fn drop(&mut self) {
        if let Some(work) = self.leftovers()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(work);
        }
    }
}

/// For what makes and destroys the collector. Making it twice after a lost answer is harmless: the first one ends with
/// the session. Giving up would not be: the task goes on, and its result would be lost.
fn session_bound() -> CallOptions {
    CallOptions::default().session(SessionUse::Report).idempotent(true)
}

/// Below the time-outs of proxies and of ours: the server answers with nothing after this long.
const MAX_WAIT_SECONDS: i32 = 50;

/// How much later than promised the answer may come.
const ANSWER_MARGIN: Duration = Duration::from_secs(60);

/// Times in a row that the wait is set up anew without any news in between.
const MAX_REMAKES: u32 = 5;

/// An answer without news that comes sooner than this did not wait for news.
const HASTY: Duration = Duration::from_secs(1);

/// So many of them in a row, and reports are not to be had.
const MAX_HASTY: u32 = 5;
