//! What a backup does to a server and must undo: the migration lock and the snapshot.
//!
//! Every step is in the journal before it is taken, and undoing reads nothing but the journal: the
//! same code runs after a success, after an error or a cancellation, and in the next process after
//! a crash.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use vsphere_vim::{
    CreateSnapshotOptions, MoRef, RemoveSnapshotOptions, Vim,
    method_lock::{LockOutcome, MethodLock},
    mo,
    types::TaskInfoState,
    vm::{Snapshot, SnapshotTree},
};

use crate::{
    cancel::CancelToken,
    error::{Error, Result},
    event::{Event, Events},
    journal::{Job, Journal, Leftover, Record, SnapshotState},
    repository::VmId,
    server::{failed, server_name},
};

use super::Quiesce;

/// Holds a machine for one backup.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    vim: Vim,
    vm: MoRef<mo::VirtualMachine>,
    /// For messages.
    name: String,
    journal: Arc<Mutex<Journal>>,
    events: Events,
}

impl Guard {
    /// Opens and locks the machine's journal.
    ///
    /// # Errors
    /// [`Error::JournalInUse`], [`Error::Journal`].
    pub(super) async fn open(
        vim: &Vim,
        vm: &MoRef<mo::VirtualMachine>,
        id: &VmId,
        folder: PathBuf,
        events: &Events,
    ) -> Result<Self> {
        let opened = id.clone();
        let journal = blocking(move || Journal::open(&folder, &opened)).await?;
        let (vim, vm, events) = (vim.clone(), vm.clone(), events.clone());
        Ok(Self { vim, name: format!("{id} ({vm})"), vm, journal: Arc::new(Mutex::new(journal)), events })
    }

    /// Undoes what an earlier job left; returns it.
    ///
    /// # Errors
    /// [`Error::Server`] when it cannot be undone: no new backup may begin then.
    pub(super) async fn recover(&self) -> Result<Option<Leftover>> {
        let Some(leftover) = self.leftover() else { return Ok(None) };
        if leftover.is_clean() {
            self.clear().await?;
            return Ok(None);
        }
        self.events.send(Event::LeftoverFound(leftover.clone()));
        let removed = self.remove_snapshot().await?;
        self.unlock().await?;
        let (there, here) = (&leftover.job.server, server_name(&self.vim));
        if *there != here && !removed && leftover.snapshot != SnapshotState::Absent {
            // The machine may have moved here with or without it; nothing more can be done here.
            let name = &leftover.job.snapshot_name;
            let what = format!("snapshot {name:?} of an earlier job was made on server {there} and is not on {here}");
            self.events.send(Event::LeftBehind { what });
        }
        self.clear().await?;
        self.events.send(Event::LeftoverRemoved);
        Ok(Some(leftover))
    }

    /// Writes down who is about to work on what.
    pub(super) async fn begin(&self, job: Job) -> Result<()> {
        self.with_journal(move |journal| journal.begin(job)).await
    }

    pub(super) async fn record(&self, record: Record) -> Result<()> {
        self.with_journal(move |journal| journal.append(record)).await
    }

    /// Locks the machine against migration, where the server offers that and nobody else did.
    ///
    /// # Errors
    /// [`Error::Server`] when the network failed; a refusal of the server is a warning.
    pub(super) async fn lock(&self, job: &Job) -> Result<()> {
        self.record(Record::LockIntent).await?;
        let outcome = self.vim.lock_methods(&method_lock(&self.vm, job)).await;
        let why_not = match outcome {
            Ok(LockOutcome::Taken) => {
                self.events.send(Event::Locked);
                return Ok(());
            }
            // An answer was lost and the call repeated.
            Ok(LockOutcome::AlreadyLocked { by: Some(by) }) if by == job.id => return Ok(()),
            Ok(LockOutcome::AlreadyLocked { by }) => {
                format!("it is locked already, by {}", by.as_deref().unwrap_or("someone else"))
            }
            // A single host does not migrate machines: nothing to be warned of.
            Ok(_) => return self.record(Record::LockReleased).await,
            Err(error) if error.server_fault().is_some() => error.to_string(),
            Err(error) => return Err(failed("locking", &self.name)(error)),
        };
        self.events.warn(format!("{} is not locked against migration: {why_not}", self.name));
        self.record(Record::LockReleased).await
    }

    /// Takes the snapshot and returns what the server says of it.
    ///
    /// # Errors
    /// [`Error::Server`], [`Error::Cancelled`].
    pub(super) async fn snapshot(&self, job: &Job, quiesce: Quiesce, cancel: &CancelToken) -> Result<Snapshot> {
        self.record(Record::SnapshotIntent).await?;
        let first = self.create(job, quiesce != Quiesce::No, cancel).await;
        let snapshot = match first {
            Err(error) if quiesce == Quiesce::Try && !matches!(error, Error::Cancelled) => {
                let why = crate::error::in_one_line(&error);
                self.events.warn(format!("the guest could not be quiesced, its state is as after a power cut: {why}"));
                // The failed one may have left something.
                self.remove_snapshot().await?;
                self.record(Record::SnapshotIntent).await?;
                self.create(job, false, cancel).await?
            }
            other => other?,
        };
        self.record(Record::SnapshotCreated { snapshot: snapshot.value().to_owned() }).await?;
        self.events.send(Event::SnapshotCreated { snapshot: snapshot.value().to_owned() });
        let tree = self.snapshots().await?;
        tree.get(&snapshot).cloned().ok_or_else(|| Error::Refused {
            vm: self.name.clone(),
            reason: format!("{snapshot} was created and is not among the machine's snapshots"),
            hint: None,
        })
    }

    async fn create(
        &self,
        job: &Job,
        quiesce: bool,
        cancel: &CancelToken,
    ) -> Result<MoRef<mo::VirtualMachineSnapshot>> {
        cancel.check()?;
        let options = CreateSnapshotOptions::new(&job.snapshot_name).description(&job.marker).quiesce(quiesce);
        let wrong = || failed("the snapshot", &self.name);
        let task = self.vim.create_snapshot_task(&self.vm, options).await.map_err(wrong())?;
        let done = self.vim.wait(&task).cancel_on(cancel.cancelled()).await.map_err(wrong())?;
        done.result().map_err(wrong())
    }

    /// Undoes all that the journal names. What cannot be undone is returned and stays in the
    /// journal.
    pub(super) async fn undo(&self) -> Vec<String> {
        let mut left = Vec::new();
        if let Err(error) = self.remove_snapshot().await {
            left.push(format!("a snapshot: {}", crate::error::in_one_line(&error)));
        }
        if let Err(error) = self.unlock().await {
            left.push(format!("a migration lock: {}", crate::error::in_one_line(&error)));
        }
        if left.is_empty()
            && let Err(error) = self.clear().await
        {
            left.push(format!("a journal: {}", crate::error::in_one_line(&error)));
        }
        for what in &left {
            self.events.send(Event::LeftBehind { what: what.clone() });
        }
        left
    }

    /// Removes the snapshot that the journal names, if there is one. It is known by the marker in
    /// its description: ids are given again when a server is restored. Tells whether there was one.
    async fn remove_snapshot(&self) -> Result<bool> {
        let Some(leftover) = self.leftover() else { return Ok(false) };
        if leftover.snapshot == SnapshotState::Absent {
            return Ok(false);
        }
        let mut tries = 0;
        let removed = loop {
            tries += 1;
            match self.try_remove(&leftover).await {
                Err(error) if error.is_retryable() && tries < TRIES => {
                    self.events.warn(format!("{}; trying again", crate::error::in_one_line(&error)));
                    tokio::time::sleep(PAUSE * tries).await;
                }
                other => break other?,
            }
        };
        self.record(Record::SnapshotRemoved).await?;
        if removed {
            self.events.send(Event::SnapshotRemoved);
            self.consolidate().await;
        }
        Ok(removed)
    }

    async fn try_remove(&self, leftover: &Leftover) -> Result<bool> {
        if leftover.snapshot == SnapshotState::Possible {
            self.await_snapshot_tasks().await?;
        }
        let job = &leftover.job;
        let tree = self.snapshots().await?;
        let is_ours = |found: &Snapshot| {
            let known = matches!(&leftover.snapshot, SnapshotState::Exists(id) if *id == found.snapshot.value());
            found.description.contains(&job.marker) || (known && found.name == job.snapshot_name)
        };
        let mut removed = false;
        for found in tree.iter().filter(|found| is_ours(found)) {
            let gone = self.vim.remove_snapshot(&found.snapshot, RemoveSnapshotOptions::default()).await;
            match gone {
                Ok(()) => removed = true,
                // Someone else was faster.
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(failed("removing the snapshot", &self.name)(error)),
            }
        }
        Ok(removed)
    }

    /// Waits for snapshots that the server is still making: their task outlives whoever asked.
    async fn await_snapshot_tasks(&self) -> Result<()> {
        let wrong = || failed("reading the tasks", &self.name);
        let tasks = self
            .vim
            .get_optional(&self.vm, mo::VirtualMachine::RECENT_TASK)
            .await
            .map_err(wrong())?
            .unwrap_or_default();
        for task in tasks {
            let info = match self.vim.task_info(&task).await {
                Ok(info) => info,
                // A task that the server has forgotten is over.
                Err(error) if is_gone(&error) => continue,
                // One that cannot be asked for may still make a snapshot: to call it over would forget that one.
                Err(error) => return Err(wrong()(error)),
            };
            let over = matches!(info.state, TaskInfoState::Success | TaskInfoState::Error);
            let makes_one = info.description_id.contains("createSnapshot")
                || info.name.as_deref().is_some_and(|name| name.starts_with("CreateSnapshot"));
            if makes_one && !over {
                match self.vim.wait(&task).limit(SNAPSHOT_LIMIT).await {
                    // Whether it succeeded is seen in the tree of snapshots.
                    Ok(_) | Err(vsphere_vim::Error::TaskFailed(_)) => {}
                    Err(error) if is_gone(&error) => {}
                    Err(error) => return Err(failed("waiting for a snapshot of an earlier job", &self.name)(error)),
                }
            }
        }
        Ok(())
    }

    /// Merges what a removed snapshot left unmerged; a failure is a warning, the data is safe.
    async fn consolidate(&self) {
        let done = async {
            if self.vim.consolidation_needed(&self.vm).await? {
                self.events.warn(format!("{} needs consolidation, which begins now", self.name));
                self.vim.consolidate_disks(&self.vm).await?;
            }
            Ok::<(), vsphere_vim::Error>(())
        };
        if let Err(error) = done.await {
            self.events.warn(format!("the disks of {} are not consolidated: {error}", self.name));
        }
    }

    async fn unlock(&self) -> Result<()> {
        let Some(leftover) = self.leftover().filter(|leftover| leftover.lock) else {
            return Ok(());
        };
        let lock = method_lock(&self.vm, &leftover.job);
        let mut tries = 0;
        loop {
            tries += 1;
            match self.vim.unlock_methods(&lock).await {
                Ok(()) => break,
                Err(error) if error.is_retryable() && tries < TRIES => {
                    tokio::time::sleep(PAUSE * tries).await;
                }
                Err(error) => return Err(failed("unlocking", &self.name)(error)),
            }
        }
        self.record(Record::LockReleased).await?;
        self.events.send(Event::Unlocked);
        Ok(())
    }

    async fn snapshots(&self) -> Result<SnapshotTree> {
        self.vim.snapshots(&self.vm).await.map_err(failed("reading the snapshots", &self.name))
    }

    async fn clear(&self) -> Result<()> {
        self.with_journal(Journal::clear).await
    }

    fn leftover(&self) -> Option<Leftover> {
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.leftover().cloned()
    }

    async fn with_journal(&self, work: impl FnOnce(&mut Journal) -> Result<()> + Send + 'static) -> Result<()> {
        let journal = self.journal.clone();
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

fn method_lock(vm: &MoRef<mo::VirtualMachine>, job: &Job) -> MethodLock {
    MethodLock::against_migration(vm, &job.id)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::WriterStopped { reason: format!("work on the journal ended: {error}") }))
}

const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);
/// A quiesced snapshot of a busy machine may take many minutes.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(1800);
