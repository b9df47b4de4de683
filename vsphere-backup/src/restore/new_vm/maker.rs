//! A machine that is being made: in the journal before it is, found again by its mark, destroyed unless it is whole.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use vsphere_vim::{
    MoRef, PowerState, Vim,
    methods::CreateVM_Task,
    mo,
    types::{OptionValue, Poly, TaskInfoState, VirtualMachineConfigSpec},
};

use super::NewVm;
use crate::{
    cancel::CancelToken,
    error::{Error, Result, in_one_line},
    event::{Event, Events},
    journal::{Job, Journal, JournalHandle, Leftover, MachineState, Record},
    repository::VmId,
    retry::Retries,
    server::{failed, server_name},
    step::{Hook, State, Step, Steps},
    thread::on_journal,
};

/// Makes one machine, or undoes that, by what its journal says.
#[derive(Debug)]
pub(super) struct Maker<'a> {
    vim: &'a Vim,
    journal: JournalHandle,
    /// The file that locks the journal.
    lock: PathBuf,
    steps: &'a Steps,
    events: &'a Events,
}

impl<'a> Maker<'a> {
    /// Opens the journal of a job, old or new.
    ///
    /// # Errors
    /// [`Error::JournalInUse`] while the job runs, [`Error::Journal`].
    pub(super) async fn open(
        vim: &'a Vim,
        folder: &Path,
        job: &str,
        steps: &'a Steps,
        events: &'a Events,
    ) -> Result<Self> {
        let id = VmId::parse(&format!("{PREFIX}{job}"))?;
        let lock = folder.join(format!("{id}.lock"));
        let journal = steps.once(Step::OpenJournal, JournalHandle::open(folder.to_owned(), id)).await?;
        steps.begin_at(State::of(journal.leftover().as_ref()));
        Ok(Self { vim, journal, lock, steps, events })
    }

    pub(super) fn vim(&self) -> &Vim {
        self.vim
    }

    pub(super) fn journal(&self) -> &JournalHandle {
        &self.journal
    }

    pub(super) fn steps(&self) -> &Steps {
        self.steps
    }

    /// Writes down who is about to make what.
    pub(super) async fn begin(&self, job: Job) -> Result<()> {
        self.steps.once(Step::BeginJournal, self.journal.begin(job)).await
    }

    /// Has the server create the machine. After a failure that may have made it all the same, it is looked for before
    /// another try.
    pub(super) async fn create(
        &self,
        job: &Job,
        place: &NewVm,
        mut spec: VirtualMachineConfigSpec,
        cancel: &CancelToken,
    ) -> Result<MoRef<mo::VirtualMachine>> {
        let name = spec.name.clone().unwrap_or_default();
        mark(&mut spec, &job.marker);
        let intent = Record::MachineIntent { folder: place.folder.value().to_owned(), name: name.clone() };
        self.steps.once(Step::RecordMachine, self.journal.append(intent)).await?;
        let mut attempt = 1;
        let vm = loop {
            let error = match self.try_create(&name, place, spec.clone(), cancel).await {
                Ok(vm) => break vm,
                Err(error) if error.is_retryable() => error,
                Err(error) => return Err(error),
            };
            if !self.steps.pause(&error, attempt).await? {
                return Err(error);
            }
            attempt += 1;
            self.steps.take(Step::AwaitMachines, || await_creation(self.vim, &place.folder)).await?;
            if let Some(made) = self.steps.take(Step::FindMachine, || find(self.vim, &name, job)).await? {
                break made;
            }
        };
        let made = Record::MachineCreated { machine: vm.value().to_owned() };
        self.steps.once(Step::RecordMachineId, self.journal.append(made)).await?;
        self.events.send(Event::MachineCreated { machine: vm.value().to_owned() });
        Ok(vm)
    }

    async fn try_create(
        &self,
        name: &str,
        place: &NewVm,
        spec: VirtualMachineConfigSpec,
        cancel: &CancelToken,
    ) -> Result<MoRef<mo::VirtualMachine>> {
        let wrong = || failed("creating the machine", name);
        let args =
            CreateVM_Task { config: spec, pool: place.pool.clone(), host: place.host.clone(), ..Default::default() };
        let begin = async { self.vim.invoke(&place.folder, args).await.map_err(wrong()) };
        let task = self.steps.once(Step::CreateMachine, begin).await?;
        let done = async {
            let done = self.vim.wait(&task).cancel_on(cancel.cancelled()).await.map_err(wrong())?;
            done.result().map_err(wrong())
        };
        self.steps.once(Step::AwaitMachine, done).await
    }

    /// States that the machine is whole, whatever else fails. Returns what could not be done.
    ///
    /// The mark goes first: a machine without it is destroyed by nobody, whatever a journal says.
    ///
    /// # Errors
    /// [`Error::Server`] when neither the mark could be taken off nor the journal be written: the machine counts as
    /// unfinished then.
    pub(super) async fn settle(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<Option<String>> {
        let steps = self.steps.undoing();
        let unmark = || async { unmark(self.vim, vm).await.map_err(failed("taking the mark off", vm.value())) };
        let unmarked = steps.take(Step::Unmark, unmark).await;
        let ended = steps.once(Step::RecordMachineEnd, self.journal.append(Record::MachineSettled)).await;
        match (unmarked, ended) {
            (Ok(()), Ok(())) => Ok(None),
            (Err(error), Ok(())) => {
                Ok(Some(format!("the mark of the restore stays in its configuration: {}", in_one_line(&error))))
            }
            (Ok(()), Err(error)) => Ok(Some(format!("its journal stays: {}", in_one_line(&error)))),
            (Err(error), Err(_)) => Err(error),
        }
    }

    /// Destroys the machine that the journal names, unless it is whole, and clears the journal. Returns what it named.
    ///
    /// # Errors
    /// [`Error::Server`] when the machine cannot be destroyed; the journal then keeps it.
    pub(super) async fn undo(&self) -> Result<Option<Leftover>> {
        let leftover = self.journal.leftover();
        // A step whose answer was lost may be in the journal all the same.
        self.steps.begin_at(State::of(leftover.as_ref()));
        let Some(leftover) = leftover else { return Ok(None) };
        let steps = self.steps.undoing();
        if let Some(machine) = self.unfinished(&steps, &leftover).await? {
            steps.take(Step::PowerOff, || power_off(self.vim, &machine)).await?;
            steps.take(Step::DestroyMachine, || destroy(self.vim, &machine)).await?;
            self.events.send(Event::MachineDestroyed { machine: machine.value().to_owned() });
        }
        if leftover.machine != MachineState::Absent {
            steps.once(Step::RecordMachineEnd, self.journal.append(Record::MachineSettled)).await?;
        }
        steps.once(Step::ClearJournal, self.journal.clear()).await?;
        // No other job has its name.
        if let Err(error) = std::fs::remove_file(&self.lock) {
            tracing::debug!(lock = %self.lock.display(), %error, "a lock's file stays");
        }
        Ok(Some(leftover))
    }

    /// Finds the machine that is to be destroyed.
    async fn unfinished(&self, steps: &Steps, leftover: &Leftover) -> Result<Option<MoRef<mo::VirtualMachine>>> {
        let (vim, job) = (self.vim, &leftover.job);
        match &leftover.machine {
            MachineState::Absent => Ok(None),
            MachineState::Possible { folder, name } => {
                let folder = MoRef::new(folder.as_str());
                steps.take(Step::AwaitMachines, || await_creation(vim, &folder)).await?;
                steps.take(Step::FindMachine, || find(vim, name, job)).await
            }
            MachineState::Exists { machine } => {
                let machine = MoRef::new(machine.as_str());
                // An id may have been given again; the mark is the machine's own.
                let ask = || async {
                    match has_marker(vim, &machine, job).await {
                        Ok(ours) => Ok(ours),
                        Err(error) if is_gone(&error) => Ok(false),
                        Err(error) => Err(failed("reading the configuration", machine.value())(error)),
                    }
                };
                let ours = steps.take(Step::FindMachine, ask).await?;
                Ok(Some(machine).filter(|_| ours))
            }
        }
    }
}

/// Undoes what earlier restores left that made machines on this server; those that run now are left alone.
///
/// # Errors
/// As [`Maker::undo`], with the first that fails; the others are tried all the same.
pub(super) async fn undo_all(vim: &Vim, folder: &Path) -> Result<Vec<Leftover>> {
    let place = folder.to_owned();
    let found = on_journal(move || Journal::leftovers(&place)).await?;
    let here = server_name(vim);
    let ours = found.into_iter().filter(|left| left.machine != MachineState::Absent && left.job.server == here);
    let (events, cancel) = (Events::default(), CancelToken::new());
    let (mut undone, mut first) = (Vec::new(), None);
    for left in ours {
        let steps = Steps::new(left.job.id.as_str(), &Hook::default(), Retries::default(), &events, &cancel);
        let done = match Maker::open(vim, folder, &left.job.id, &steps, &events).await {
            Ok(maker) => maker.undo().await,
            Err(Error::JournalInUse { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        match done {
            Ok(left) => undone.extend(left),
            Err(error) => {
                first.get_or_insert(error);
            }
        }
    }
    first.map_or(Ok(undone), Err)
}

/// Marks the description of a machine with the job that makes it.
fn mark(spec: &mut VirtualMachineConfigSpec, marker: &str) {
    spec.extra_config.push(Poly::new(OptionValue {
        key: MARKER.into(),
        value: Some(marker.into()),
        ..Default::default()
    }));
}

/// Takes the mark off a machine that is whole.
async fn unmark(vim: &Vim, machine: &MoRef<mo::VirtualMachine>) -> vsphere_vim::Result<()> {
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

async fn power_off(vim: &Vim, machine: &MoRef<mo::VirtualMachine>) -> Result<()> {
    let done = async {
        match vim.power_state(machine).await? {
            PowerState::Off => Ok(()),
            _ => vim.power_off(machine).await,
        }
    };
    unless_gone(done.await).map_err(failed("powering off", machine.value()))
}

async fn destroy(vim: &Vim, machine: &MoRef<mo::VirtualMachine>) -> Result<()> {
    unless_gone(vim.destroy(machine).await).map_err(failed("destroying", machine.value()))
}

/// What is gone needs nothing more: someone else was faster, or an answer was lost.
fn unless_gone(done: vsphere_vim::Result<()>) -> vsphere_vim::Result<()> {
    done.or_else(|error| if is_gone(&error) { Ok(()) } else { Err(error) })
}

fn is_gone(error: &vsphere_vim::Error) -> bool {
    error.is_fault("ManagedObjectNotFound")
}

/// The key of `extraConfig` under which a machine that is being made names its job.
const MARKER: &str = "vsphere-backup.restore";
/// What the names of such journals begin with.
const PREFIX: &str = "restore-";
/// A server makes even large machines within this; eagerly zeroed disks take their time.
const CREATION_LIMIT: Duration = Duration::from_secs(4 * 3600);
