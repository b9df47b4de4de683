//! First Class Disks: disks with an identity and snapshots of their own, such as the volumes of Kubernetes.

mod guard;
mod restore;
mod work;

use std::{path::PathBuf, sync::Arc, time::Duration};

use vsphere_vim::{
    MoRef,
    fcd::{Fcd, FcdId, FcdRef, FirstClassDisks},
    inventory::VmLookup,
    mo,
};

use crate::{
    cancel::CancelToken,
    error::{Error, Result},
    event::{Event, Events},
    journal::{Abandoned, FCD_PREFIX, Leftover},
    repository::{BackupMode, DiskBytes, RecoveryPoint, Repository, VmId, WriterOptions, WriterTotals},
    retry::Retries,
    server::failed,
    step::{Hook, Step, StepHook, Steps},
};

use self::guard::DiskGuard;
pub(crate) use self::guard::remove_disk_snapshot;
use super::machine::ChangeTracking;

/// A backup of one First Class Disk, or a restore of it.
///
/// ```no_run
/// # async fn example(vim: vsphere_vim::Vim, disk: vsphere_vim::fcd::FcdRef, repository: vsphere_backup::repository::Repository) -> Result<(), Box<dyn std::error::Error>> {
/// use vsphere_backup::{ChangeTracking, FcdBackup};
///
/// let backup = FcdBackup::of(&vim.first_class_disks()?, disk).journal("/var/lib/backup");
/// let report = backup.change_tracking(ChangeTracking::Enable).run(&repository).await?;
/// println!("{:?}, {} bytes read: {}", report.mode, report.bytes.read, report.reason);
/// # Ok(())
/// # }
/// ```
///
/// The disk has a snapshot of its own while it is read, whether or not a machine uses it: it is as after a power cut. In
/// the repository it is known as [`fcd_vm_id`] says, beside the virtual machines. Its bytes travel by way of a machine
/// that it is attached to, as only machines give access to disks; attach a disk that nobody uses to some machine that
/// is off, for the time of the backup.
#[derive(Clone, Debug)]
#[must_use]
pub struct FcdBackup {
    disks: FirstClassDisks,
    disk: FcdRef,
    through: Option<MoRef<mo::VirtualMachine>>,
    journal: Option<PathBuf>,
    full: bool,
    tracking: ChangeTracking,
    transports: String,
    memory: u64,
    writer: WriterOptions,
    retries: Retries,
    hook: Hook,
    events: Events,
    cancel: CancelToken,
}

/// What the backup of a First Class Disk did.
#[derive(Debug)]
#[non_exhaustive]
pub struct FcdReport {
    /// The recovery point, which has the disk under the key [`FCD_KEY`].
    pub point: RecoveryPoint,
    /// All of the disk or the changes.
    pub mode: BackupMode,
    /// Why.
    pub reason: String,
    /// Figures.
    pub bytes: DiskBytes,
    /// What the repository's storage was given.
    pub stored: WriterTotals,
    /// What an earlier job had left on the server and this one undid.
    pub recovered: Option<Leftover>,
    /// What could not be undone on the server, and why. The journal keeps it for the next run.
    pub leftovers: Vec<String>,
    /// From begin to end.
    pub elapsed: Duration,
}

/// The device key under which a point has a First Class Disk, which has none of its own.
pub const FCD_KEY: i32 = 0;

/// The name under which a point keeps what a First Class Disk was, as JSON.
pub const FCD_OBJECT: &str = "fcd.json";

/// Returns the identity of a First Class Disk in a repository: `fcd-` and its id.
///
/// # Errors
/// [`Error::Invalid`] when the id cannot be a name.
pub fn fcd_vm_id(id: &FcdId) -> Result<VmId> {
    VmId::parse(&format!("{FCD_PREFIX}{id}"))
}

impl FcdBackup {
    /// Prepares a backup of a First Class Disk.
    pub fn of(disks: &FirstClassDisks, disk: FcdRef) -> Self {
        Self {
            disks: disks.clone(),
            disk,
            through: None,
            journal: None,
            full: false,
            tracking: ChangeTracking::default(),
            transports: "nbdssl".into(),
            memory: 32 << 20,
            writer: WriterOptions::default(),
            retries: Retries::default(),
            hook: Hook::default(),
            events: Events::default(),
            cancel: CancelToken::new(),
        }
    }

    /// Names the folder of the journals, which is required: that of [`Backup::journal`](super::Backup::journal).
    pub fn journal(mut self, folder: impl Into<PathBuf>) -> Self {
        self.journal = Some(folder.into());
        self
    }

    /// Names the machine by way of which the disk is read and written: the one that uses it, by default.
    pub fn through(mut self, vm: MoRef<mo::VirtualMachine>) -> Self {
        self.through = Some(vm);
        self
    }

    /// States whether the disk is read in full, whatever is known of changes: only where it has to be, by default.
    pub fn full(mut self, yes: bool) -> Self {
        self.full = yes;
        self
    }

    /// States what is done about a disk whose changes are not tracked: nothing, by default.
    pub fn change_tracking(mut self, wish: ChangeTracking) -> Self {
        self.tracking = wish;
        self
    }

    /// Names the transports to try, in order, joined by colons: `nbdssl` by default.
    pub fn transports(mut self, list: impl Into<String>) -> Self {
        self.transports = list.into();
        self
    }

    /// Sets how many bytes of the disk may be in memory at once: 32 MiB by default.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// Sets how the repository is written.
    pub fn writer_options(mut self, options: WriterOptions) -> Self {
        self.writer = options;
        self
    }

    /// States how often a step is tried whose failure passes by itself: four times by default.
    pub fn retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// Puts a hook before and after every step, for tests.
    pub fn step_hook(mut self, hook: Arc<dyn StepHook>) -> Self {
        self.hook = Hook::new(hook);
        self
    }

    /// Tells of events. The handler is called from the task that works and must not block.
    pub fn on_event(mut self, handler: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.events = Events::new(handler);
        self
    }

    /// Lets a token cancel the backup, or the restore: what was done to the server is undone first. A backup is never
    /// gone on with, so that it stops at once in a graceful way, too.
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = token.clone();
        self
    }

    /// Runs the backup. What an earlier job left of the disk on the server is undone first.
    ///
    /// # Errors
    /// [`Error::Refused`] when the disk is a raw device or no machine has it, [`Error::JournalInUse`],
    /// [`Error::Journal`], [`Error::Server`], [`Error::Disk`], [`Error::Areas`], [`Error::WriterStopped`],
    /// [`Error::Storage`], [`Error::Cancelled`], [`Error::Abandoned`], [`Error::Invalid`] when no journal was named.
    ///
    /// # Privileges
    /// `Datastore.FileManagement` on the datastore; `VirtualMachine.Provisioning.DiskRandomRead` on the machine that has
    /// the disk.
    ///
    /// # Cancel safety
    /// When dropped, the job is cancelled and goes on in the background, on the runtime, until the server is as it was.
    ///
    /// # Since
    /// vCenter 6.7.
    #[doc(alias = "VStorageObjectCreateSnapshot_Task")]
    pub async fn run(self, repository: &Repository) -> Result<FcdReport> {
        let (repository, caller) = (repository.clone(), self.cancel.clone());
        let work =
            |cancel, journal: Arc<Abandoned>| async move { Self { cancel, ..self }.work(&repository, &journal).await };
        caller.outlive_journaled(work).await
    }

    /// Undoes what an earlier job left of the disk on the server, and nothing else; returns it.
    ///
    /// # Errors
    /// Those of [`run`](Self::run) that concern journal and server.
    ///
    /// # Cancel safety
    /// When dropped, call it again.
    pub async fn clean_up(&self) -> Result<Option<Leftover>> {
        self.hold(&fcd_vm_id(&self.disk.id)?).await?.recover().await
    }

    /// Holds the disk's journal.
    async fn hold(&self, id: &VmId) -> Result<DiskGuard> {
        let missing = || Error::invalid("a backup needs a folder for its journal: FcdBackup::journal");
        let folder = self.journal.clone().ok_or_else(missing)?;
        let steps = Steps::new(self.disk.id.as_str(), &self.hook, self.retries, &self.events, &self.cancel);
        DiskGuard::open((&self.disks, &self.disk), id, folder, &self.events, steps).await
    }

    async fn retrieve(&self) -> Result<Fcd> {
        self.disks.retrieve(&self.disk).await.map_err(failed("reading the disk", self.disk.id.as_str()))
    }

    /// Finds a machine by way of which the disk's bytes can travel.
    async fn machine(&self, steps: &Steps, disk: &Fcd) -> Result<MoRef<mo::VirtualMachine>> {
        if let Some(vm) = &self.through {
            return Ok(vm.clone());
        }
        let Some(consumer) = disk.consumers.first() else {
            let hint = "attach it to a machine that is off, for the time of the backup";
            return Err(self.refused("no machine has the disk", Some(hint)));
        };
        if consumer.id.starts_with("vm-") {
            return Ok(MoRef::new(&consumer.id));
        }
        let lookup = VmLookup::InstanceUuid(consumer.id.clone());
        let wrong = || failed("finding the disk's machine", self.disk.id.as_str());
        let find = || async { self.disks.vim().find_vm(&lookup).await.map_err(wrong()) };
        Ok(steps.take(Step::FindDiskMachine, find).await?.moref)
    }

    fn refused(&self, reason: &str, hint: Option<&str>) -> Error {
        let vm = format!("first class disk {}", self.disk.id);
        Error::Refused { vm, reason: reason.into(), hint: hint.map(str::to_owned) }
    }
}
