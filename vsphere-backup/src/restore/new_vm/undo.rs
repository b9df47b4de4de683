//! A machine that is being made: in the journal before it is, found again by its marker, destroyed unless it is whole.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use vsphere_vim::{
    MoRef, PowerState, Vim, mo,
    types::{OptionValue, Poly, TaskInfoState, VirtualMachineConfigSpec},
};

use crate::{
    error::{Error, Result},
    event::{Event, Events},
    journal::{Job, Journal, Leftover, MachineState, Record},
    repository::VmId,
    restore::blocking,
    server::{failed, server_name},
};

/// The journal of one new machine. Blocking work on it runs on threads for such.
#[derive(Clone, Debug)]
pub(super) struct MachineJournal {
    journal: Arc<Mutex<Journal>>,
    folder: PathBuf,
    id: VmId,
}

impl MachineJournal {
    /// Opens the journal of a job, old or new.
    ///
    /// # Errors
    /// [`Error::JournalInUse`] while the job runs, [`Error::Journal`].
    pub(super) async fn open(folder: &Path, job: &str) -> Result<Self> {
        let id = VmId::parse(&format!("{PREFIX}{job}"))?;
        let (place, opened) = (folder.to_owned(), id.clone());
        let journal = blocking(move || Journal::open(&place, &opened)).await?;
        Ok(Self { journal: Arc::new(Mutex::new(journal)), folder: folder.to_owned(), id })
    }

    pub(super) async fn begin(&self, job: Job) -> Result<()> {
        self.with(move |journal| journal.begin(job)).await
    }

    pub(super) async fn record(&self, record: Record) -> Result<()> {
        self.with(move |journal| journal.append(record)).await
    }

    /// Removes the journal, and the file of its lock: no other job has its name.
    pub(super) async fn clear(&self) -> Result<()> {
        self.with(Journal::clear).await?;
        let lock = self.folder.join(format!("{}.lock", self.id));
        if let Err(error) = std::fs::remove_file(&lock) {
            tracing::debug!(lock = %lock.display(), %error, "a lock's file stays");
        }
        Ok(())
    }

    fn leftover(&self) -> Option<Leftover> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).leftover().cloned()
    }

    async fn with(&self, work: impl FnOnce(&mut Journal) -> Result<()> + Send + 'static) -> Result<()> {
        let journal = self.journal.clone();
        blocking(move || work(&mut journal.lock().unwrap_or_else(PoisonError::into_inner))).await
    }
}

/// Destroys the machine that a journal names, unless it is settled, and clears the journal. Returns what it named.
///
/// # Errors
/// [`Error::Server`] when the machine cannot be destroyed; the journal then keeps it.
pub(super) async fn undo(vim: &Vim, journal: &MachineJournal, events: &Events) -> Result<Option<Leftover>> {
    let Some(leftover) = journal.leftover() else { return Ok(None) };
    let machine = match &leftover.machine {
        MachineState::Absent => None,
        MachineState::Possible { folder, name } => {
            await_creation(vim, &MoRef::new(folder.as_str())).await?;
            find(vim, name, &leftover.job).await?
        }
        MachineState::Exists { machine } => {
            let machine = MoRef::new(machine.as_str());
            // An id may have been given again; the marker is the machine's own.
            match has_marker(vim, &machine, &leftover.job).await {
                Ok(true) => Some(machine),
                Ok(false) => None,
                Err(error) if is_gone(&error) => None,
                Err(error) => return Err(failed("reading the configuration", machine.value())(error)),
            }
        }
    };
    if let Some(machine) = machine {
        destroy(vim, &machine).await?;
        events.send(Event::MachineDestroyed { machine: machine.value().to_owned() });
    }
    if leftover.machine != MachineState::Absent {
        journal.record(Record::MachineSettled).await?;
    }
    journal.clear().await?;
    Ok(Some(leftover))
}

/// Undoes what earlier restores left that made machines on this server; those that run now are left alone.
///
/// # Errors
/// As [`undo`], with the first that fails; the others are tried all the same.
pub(super) async fn undo_all(vim: &Vim, folder: &Path, events: &Events) -> Result<Vec<Leftover>> {
    let place = folder.to_owned();
    let found = blocking(move || Journal::leftovers(&place)).await?;
    let here = server_name(vim);
    let ours = found.into_iter().filter(|left| left.machine != MachineState::Absent && left.job.server == here);
    let (mut undone, mut first) = (Vec::new(), None);
    for left in ours {
        let done = match MachineJournal::open(folder, &left.job.id).await {
            Ok(journal) => undo(vim, &journal, events).await,
            Err(Error::JournalInUse { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        match done {
            Ok(left) => undone.extend(left),
            Err(error) => {
                events.send(Event::LeftBehind { what: crate::error::in_one_line(&error) });
                first.get_or_insert(error);
            }
        }
    }
    first.map_or(Ok(undone), Err)
}

/// Marks the description of a machine with the job that makes it.
pub(super) fn mark(spec: &mut VirtualMachineConfigSpec, marker: &str) {
    spec.extra_config.push(Poly::new(OptionValue {
        key: MARKER.into(),
        value: Some(marker.into()),
        ..Default::default()
    }));
}

/// Takes the mark off a machine that is whole.
pub(super) async fn unmark(vim: &Vim, machine: &MoRef<mo::VirtualMachine>) -> vsphere_vim::Result<()> {
    let mut spec = VirtualMachineConfigSpec::default();
    // An empty value removes a key.
    mark(&mut spec, "");
    vim.reconfigure(machine, spec).await
}

async fn has_marker(vim: &Vim, machine: &MoRef<mo::VirtualMachine>, job: &Job) -> vsphere_vim::Result<bool> {
    let config = vim.config(machine).await?;
    let is_ours = |option: &Poly<OptionValue>| option.key == MARKER && option.value == Some(job.marker.as_str().into());
    Ok(config.extra_config.iter().any(is_ours))
}

/// Looks for the machine by name and marker.
async fn find(vim: &Vim, name: &str, job: &Job) -> Result<Option<MoRef<mo::VirtualMachine>>> {
    let wrong = || failed("looking for the machine", name);
    let mut every = vim.virtual_machines();
    while let Some(vm) = every.try_next().await.map_err(wrong())? {
        if vm.name != name {
            continue;
        }
        match has_marker(vim, &vm.moref, job).await {
            Ok(true) => return Ok(Some(vm.moref)),
            Ok(false) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(wrong()(error)),
        }
    }
    Ok(None)
}

/// Waits for machines that the server is still making in a folder: their task outlives whoever asked.
async fn await_creation(vim: &Vim, folder: &MoRef<mo::Folder>) -> Result<()> {
    let wrong = || failed("reading the tasks", folder.value());
    let tasks = match vim.get_optional(folder, mo::Folder::RECENT_TASK).await {
        Ok(tasks) => tasks.unwrap_or_default(),
        Err(error) if is_gone(&error) => return Ok(()),
        Err(error) => return Err(wrong()(error)),
    };
    for task in tasks {
        let info = match vim.task_info(&task).await {
            Ok(info) => info,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(wrong()(error)),
        };
        let over = matches!(info.state, TaskInfoState::Success | TaskInfoState::Error);
        let makes_one = info.description_id.contains("createVm")
            || info.name.as_deref().is_some_and(|name| name.starts_with("CreateVM"));
        if makes_one && !over {
            match vim.wait(&task).limit(CREATION_LIMIT).await {
                Ok(_) | Err(vsphere_vim::Error::TaskFailed(_)) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(failed("waiting for a machine of an earlier job", folder.value())(error)),
            }
        }
    }
    Ok(())
}

async fn destroy(vim: &Vim, machine: &MoRef<mo::VirtualMachine>) -> Result<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        let done = async {
            if vim.power_state(machine).await? != PowerState::Off {
                vim.power_off(machine).await?;
            }
            vim.destroy(machine).await
        };
        match done.await {
            Ok(()) => return Ok(()),
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) if error.is_retryable() && tries < TRIES => tokio::time::sleep(PAUSE * tries).await,
            Err(error) => return Err(failed("destroying", machine.value())(error)),
        }
    }
}

fn is_gone(error: &vsphere_vim::Error) -> bool {
    error.is_fault("ManagedObjectNotFound")
}

/// The key of `extraConfig` under which a machine that is being made names its job.
const MARKER: &str = "vsphere-backup.restore";
/// What the names of such journals begin with.
const PREFIX: &str = "restore-";
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);
/// A server makes even large machines within this; eagerly zeroed disks take their time.
const CREATION_LIMIT: Duration = Duration::from_secs(4 * 3600);
