//! What a backup does to a server and must undo: the migration lock and the snapshot.
//!
//! Every change is in the journal before it is made, and undoing reads nothing but the journal: the same code runs
//! after a success, after an error or a cancellation, and in the next process after a crash. What may follow what is
//! in [`step`](crate::step).

mod lock;
mod settle;
mod snapshot;
mod undo;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use vsphere_vim::{MoRef, Vim, mo};

use crate::{
    cancel::CancelToken,
    error::{Error, Result},
    event::Events,
    journal::{Job, Journal, Leftover, Record},
    repository::VmId,
    step::{State, Step, Steps},
};

/// Holds a machine for one backup.
#[derive(Clone, Debug)]
pub(super) struct Guard {
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

/// How long a guard waits for what others do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For tasks and merges that are in the way of a new snapshot.
    pub(super) settle: std::time::Duration,
}

impl Guard {
    /// Opens and locks the machine's journal.
    ///
    /// # Errors
    /// [`Error::JournalInUse`], [`Error::Journal`].
    pub(super) async fn open(backup: &super::Backup, id: &VmId, folder: PathBuf, steps: &Steps) -> Result<Self> {
        let work = || {
            let (folder, id) = (folder.clone(), id.clone());
            JournalHandle::open(folder, id)
        };
        let journal = steps.once(Step::OpenJournal, work()).await?;
        steps.begin_at(State::of(journal.leftover().as_ref()));
        Ok(Self {
            vim: backup.vim.clone(),
            vm: backup.vm.clone(),
            name: format!("{id} ({})", backup.vm),
            journal,
            events: backup.events.clone(),
            cancel: backup.cancel.clone(),
            steps: steps.clone(),
            limits: Limits { settle: backup.settle_within },
        })
    }

    /// Returns the journal, to be released when the work is given up.
    pub(super) fn journal(&self) -> &JournalHandle {
        &self.journal
    }

    pub(super) fn steps(&self) -> &Steps {
        &self.steps
    }

    /// Writes down who is about to work on what.
    pub(super) async fn begin(&self, job: Job) -> Result<()> {
        self.steps.once(Step::BeginJournal, self.journal.with(move |journal| journal.begin(job))).await
    }

    /// Writes a record, as a step.
    pub(super) async fn record(&self, step: Step, record: Record) -> Result<()> {
        self.steps.once(step, self.journal.with(move |journal| journal.append(record))).await
    }

    /// Returns what the job, or an earlier one, would leave now.
    pub(super) fn leftover(&self) -> Option<Leftover> {
        self.journal.leftover()
    }
}

/// A journal whose calls do not block the runtime. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct JournalHandle(Arc<Mutex<Journal>>);

impl JournalHandle {
    async fn open(folder: PathBuf, vm: VmId) -> Result<Self> {
        let journal = blocking(move || Journal::open(&folder, &vm)).await?;
        Ok(Self(Arc::new(Mutex::new(journal))))
    }

    fn leftover(&self) -> Option<Leftover> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).leftover().cloned()
    }

    /// Gives the lock back, so that the next run may have the machine. Nothing is written any more.
    pub(super) async fn release(&self) {
        let released = self.with(|journal| {
            journal.release();
            Ok(())
        });
        // Only a panic of the release itself is an error here.
        let _ = released.await;
    }

    async fn with(&self, work: impl FnOnce(&mut Journal) -> Result<()> + Send + 'static) -> Result<()> {
        let journal = self.0.clone();
        blocking(move || {
            // A panic inside leaves the file behind its last whole record, which is what counts.
            let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut journal)
        })
        .await
    }
}

/// Tells whether the object that was asked for is no longer there.
fn is_gone(error: &vsphere_vim::Error) -> bool {
    error.is_fault("ManagedObjectNotFound")
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::WriterStopped { reason: format!("work on the journal ended: {error}") }))
}
