//! Follows one task through the server's reports.

use vsphere_vim_types::{MoRef, mo};

use super::watch::{Observation, TaskState};
use crate::{
    client::Vim,
    error::Result,
    property::{
        FilterSpec, ObjectSpec, PropertySpec,
        pages::Source,
        waiter::{Heard, PATIENCE, Waiter},
    },
};

#[derive(Debug)]
pub(super) struct TaskCollector {
    task: MoRef<mo::Task>,
    waiter: Waiter,
    state: TaskState,
    /// Answers in a row that said nothing and did not wait either.
    hasty: u32,
}

impl TaskCollector {
    pub(super) fn new(vim: Vim, task: MoRef<mo::Task>) -> Self {
        let properties = TaskState::PATHS.into_iter().fold(PropertySpec::of::<mo::Task>(), PropertySpec::path_named);
        let filter = FilterSpec::new().read(properties).start(ObjectSpec::from(task.clone()));
        let waiter = Waiter::new(vim, vec![Source::Filter(filter)]);
        Self { task, waiter, state: TaskState::default(), hasty: 0 }
    }

    pub(super) fn subject(&self) -> (Vim, MoRef<mo::Task>) {
        (self.waiter.vim().clone(), self.task.clone())
    }

    /// Waits for the next news. Cancel safe: what was heard is taken in at once.
    pub(super) async fn next(&mut self) -> Result<Observation> {
        loop {
            match self.waiter.next(PATIENCE).await? {
                Heard::Update(update) => {
                    self.hasty = 0;
                    if let Some(observation) = self.state.apply(update) {
                        return Ok(observation);
                    }
                }
                // Some proxies do not let a call wait.
                Heard::Hasty => {
                    self.hasty += 1;
                    if self.hasty >= MAX_HASTY {
                        return Ok(Observation::Silent);
                    }
                }
                Heard::Nothing => self.hasty = 0,
                // What is known of the task stays; the story only adds to it.
                Heard::Began(_) | Heard::Woken => {}
            }
        }
    }

    /// Destroys what the server holds for the wait.
    pub(super) async fn destroy(self) {
        self.waiter.finish().await;
    }
}

/// So many hasty answers in a row, and reports are not to be had.
const MAX_HASTY: u32 = 5;
