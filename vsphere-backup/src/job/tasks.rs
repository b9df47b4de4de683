//! The tasks of a job, each of which ends whatever happens.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Candidate, ErrorReport, MachineReport, MachineState};
use crate::{
    backup::Backup,
    error::{Error, ErrorKind, in_one_line},
    task::{MachineTasks, Outcome, TaskId, TaskKind, Tasks},
};

/// A task that ends when it is dropped, if not before.
pub(super) struct Ending {
    tasks: Tasks,
    pub(super) id: TaskId,
}

impl Ending {
    pub(super) fn begin(tasks: &Tasks, parent: Option<TaskId>, kind: TaskKind) -> Self {
        Self { tasks: tasks.clone(), id: tasks.begin(parent, kind) }
    }

    pub(super) fn end(&self, outcome: Outcome) {
        self.tasks.end(self.id, outcome);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}

/// The task of a machine, with those below it, and what was heard of its backup.
pub(super) struct TaskOfMachine {
    task: Ending,
    tree: Arc<Mutex<MachineTasks>>,
}

impl TaskOfMachine {
    pub(super) fn begin(tasks: &Tasks, parent: TaskId, machine: &Candidate) -> Self {
        let kind = TaskKind::Machine { vm: machine.vm.value().to_owned(), name: machine.name.clone() };
        let task = Ending::begin(tasks, Some(parent), kind);
        let tree = Arc::new(Mutex::new(MachineTasks::new(tasks, task.id)));
        Self { task, tree }
    }

    pub(super) fn id(&self) -> TaskId {
        self.task.id
    }

    /// Lets a backup tell what it does.
    pub(super) fn hear(&self, backup: Backup) -> Backup {
        let tree = self.tree.clone();
        backup.also_on_event(move |event| lock(&tree).on(event))
    }

    /// Writes down what was heard besides.
    pub(super) fn tell(&self, report: &mut MachineReport) {
        let mut heard = lock(&self.tree);
        report.warnings.append(&mut heard.warnings);
        report.leftovers.append(&mut heard.left_behind);
    }

    /// Returns the step that was begun last.
    pub(super) fn phase(&self) -> String {
        lock(&self.tree).phase.clone()
    }

    /// Ends the task as the report says.
    pub(super) fn end(self, report: &MachineReport) {
        self.task.end(match (&report.error, &report.point) {
            (None, Some(point)) if report.state == MachineState::Damaged => {
                Outcome::Failed { message: format!("{point} is damaged"), kind: ErrorKind::Damage }
            }
            (error, _) => ErrorReport::outcome(error.as_ref()),
        });
    }
}

pub(super) fn outcome(error: Option<&Error>) -> Outcome {
    match error {
        None => Outcome::Done,
        Some(error) if error.kind() == ErrorKind::Cancelled => Outcome::Cancelled,
        Some(error) => Outcome::Failed { message: in_one_line(error), kind: error.kind() },
    }
}

fn lock(tree: &Mutex<MachineTasks>) -> MutexGuard<'_, MachineTasks> {
    tree.lock().unwrap_or_else(PoisonError::into_inner)
}
