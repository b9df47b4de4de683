//! What a backup, or a restore in place, does to a server and must undo: the migration lock and its snapshots.
//!
//! Every change is in the journal before it is made, and undoing reads nothing but the journal: the same code runs
//! after a success, after an error or a cancellation, and in the next process after a crash. What may follow what is
//! in [`step`](crate::step).

mod lock;
mod settle;
mod snapshot;
mod tracking;
mod undo;

use std::{path::Path, time::Duration};

use vsphere_vim::{MoRef, Vim, mo};

use crate::{
    cancel::CancelToken,
    error::Result,
    event::Events,
    journal::{Job, JournalHandle, Leftover, Record},
    repository::VmId,
    step::{State, Step, Steps},
};

/// Holds a machine for one backup or restore.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    vim: Vim,
    vm: MoRef<mo::VirtualMachine>,
    /// For messages.
    name: String,
    journal: JournalHandle,
    events: Events,
    cancel: CancelToken,
    steps: Steps,
    limits: Limits,
}

/// A machine, and who is to guard it.
#[derive(Clone, Debug)]
pub(crate) struct Ward<'a> {
    pub(crate) vim: &'a Vim,
    pub(crate) vm: &'a MoRef<mo::VirtualMachine>,
    pub(crate) id: &'a VmId,
    pub(crate) journals: &'a Path,
    pub(crate) events: &'a Events,
    pub(crate) cancel: &'a CancelToken,
    pub(crate) steps: &'a Steps,
    pub(crate) limits: Limits,
}

/// How long a guard waits for what others do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// For tasks and merges that are in the way of a new snapshot.
    pub(crate) settle: Duration,
}

impl Default for Limits {
    /// Ten minutes.
    fn default() -> Self {
        Self { settle: Duration::from_secs(600) }
    }
}

impl Guard {
    /// Opens and locks the machine's journal.
    ///
    /// # Errors
    /// [`Error::JournalInUse`](crate::Error::JournalInUse), [`Error::Journal`](crate::Error::Journal).
    pub(crate) async fn open(ward: Ward<'_>) -> Result<Self> {
        let Ward { vim, vm, id, journals, events, cancel, steps, limits } = ward;
        let work = JournalHandle::open(journals.to_owned(), id.clone());
        let journal = steps.once(Step::OpenJournal, work).await?;
        steps.begin_at(State::of(journal.leftover().as_ref()));
        Ok(Self {
            vim: vim.clone(),
            vm: vm.clone(),
            name: format!("{id} ({vm})"),
            journal,
            events: events.clone(),
            cancel: cancel.clone(),
            steps: steps.clone(),
            limits,
        })
    }

    /// Returns the journal, to be released when the work is given up.
    pub(crate) fn journal(&self) -> &JournalHandle {
        &self.journal
    }

    pub(crate) fn steps(&self) -> &Steps {
        &self.steps
    }

    /// Writes down who is about to work on what.
    pub(crate) async fn begin(&self, job: Job) -> Result<()> {
        self.steps.once(Step::BeginJournal, self.journal.begin(job)).await
    }

    /// Writes a record, as a step.
    pub(crate) async fn record(&self, step: Step, record: Record) -> Result<()> {
        self.steps.once(step, self.journal.append(record)).await
    }

    /// Returns what the job, or an earlier one, would leave now.
    pub(crate) fn leftover(&self) -> Option<Leftover> {
        self.journal.leftover()
    }
}

/// Tells whether the object that was asked for is no longer there.
fn is_gone(error: &vsphere_vim::Error) -> bool {
    error.is_fault("ManagedObjectNotFound")
}
