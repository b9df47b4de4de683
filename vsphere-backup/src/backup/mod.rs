//! Backing up a virtual machine.
//!
//! The order of things: read what there is; undo what an earlier job left; write the intent down;
//! lock against migration; wait until nothing is in the way of a snapshot; snapshot; read the disks, several at once;
//! commit the recovery point; remove the snapshot; unlock; clear the journal. [`step`](crate::step) has it in full.

mod base;
mod condition;
#[cfg(test)]
mod condition_rows;
mod disk;
pub(crate) mod fcd;
mod flow;
pub(crate) mod guard;
mod included;
mod into;
mod machine;
mod objects;
pub(crate) mod plan;
mod preflight;
mod quiesce;
mod report;
mod resume;
mod running;
mod set;
mod surroundings;
pub(crate) mod tracking;

use std::{path::PathBuf, sync::Arc, time::Duration};

use vsphere_vim::{MoRef, Vim, mo};

use self::{machine::Policies, set::Seat};
#[cfg(doc)]
use crate::error::Error;
use crate::{
    cancel::CancelToken,
    engine::Trust,
    error::Result,
    event::{Event, Events},
    journal::Leftover,
    reaper::{Reaped, Reaper},
    repository::{RecoveryPoint, Repository, WriterOptions},
    retry::Retries,
    schedule::{Admission, Scheduler},
    step::{Hook, StepHook},
};

pub(crate) use self::set::machines_of_vapp;
pub use self::{
    condition::{Condition, Finding, Severity, Subject},
    fcd::{FCD_KEY, FCD_OBJECT, FcdBackup, FcdReport, fcd_vm_id},
    into::SinkReport,
    machine::{ChangeTracking, EncryptedMachines, VirtualTpms},
    objects::{CONFIG_OBJECT, NVRAM_OBJECT, VMX_OBJECT, VSS_OBJECT},
    preflight::{Estimate, EstimateBasis, Preflight, PreflightDisk},
    quiesce::{GiveWay, Quiesce, QuiescePolicy, QuiesceStep, QuiesceWay},
    report::{BackupReport, DiskReport, Plan, PlannedDisk},
    running::RunningBackup,
    set::{BackupSet, SetMember, SetReport},
};

/// A backup of one virtual machine.
///
/// ```no_run
/// # async fn example(vim: vsphere_vim::Vim, repository: vsphere_backup::repository::Repository) -> vsphere_backup::Result<()> {
/// use vsphere_backup::{Backup, CancelToken, Since};
/// use vsphere_vim::MoRef;
///
/// let cancel = CancelToken::new();
/// let report = Backup::of(&vim, MoRef::new("vm-42"))
///     .journal("/var/lib/backup/journal")
///     .since(Since::Latest)
///     .quiesce(true)
///     .on_event(|event| println!("{event:?}"))
///     .cancel(&cancel)
///     .run(&repository)
///     .await?;
/// println!("{}: {} bytes read", report.point.id(), report.bytes().read);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Backup {
    vim: Vim,
    vm: MoRef<mo::VirtualMachine>,
    journal: Option<PathBuf>,
    since: Since,
    trust: Trust,
    quiesce: QuiescePolicy,
    policies: Policies,
    transports: String,
    snapshot_name: String,
    excluded: Vec<i32>,
    parallel_disks: usize,
    memory: u64,
    /// With whom connections and memory are shared.
    shared: Option<Scheduler>,
    /// Its place among the machines of all jobs, given back when the server is as it was.
    admission: Option<Arc<Admission>>,
    writer: WriterOptions,
    retries: Retries,
    settle_within: Duration,
    resume_within: Duration,
    checkpoint_every: Duration,
    /// The machine's place in a set.
    seat: Option<Seat>,
    hook: Hook,
    events: Events,
    cancel: CancelToken,
}

/// What an incremental backup is based on.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Since {
    /// The machine's newest sound recovery point in the repository, if there is one.
    #[default]
    Latest,
    /// The machine's newest sound point of which every disk was read in full: a differential backup.
    Full,
    /// A point of the caller's choice, of the same machine and repository.
    Point(RecoveryPoint),
    /// Nothing: every disk is read in full.
    Nothing,
}

impl Backup {
    /// Prepares a backup of a virtual machine.
    pub fn of(vim: &Vim, vm: MoRef<mo::VirtualMachine>) -> Self {
        Self {
            vim: vim.clone(),
            vm,
            journal: None,
            since: Since::default(),
            trust: Trust::default(),
            quiesce: QuiescePolicy::default(),
            policies: Policies::default(),
            transports: "nbdssl".into(),
            snapshot_name: "vsphere-backup".into(),
            excluded: Vec::new(),
            parallel_disks: 4,
            memory: 32 << 20,
            shared: None,
            admission: None,
            writer: WriterOptions::default(),
            retries: Retries::default(),
            settle_within: Duration::from_secs(600),
            resume_within: Duration::from_secs(4 * 3600),
            checkpoint_every: Duration::from_secs(60),
            seat: None,
            hook: Hook::default(),
            events: Events::default(),
            cancel: CancelToken::new(),
        }
    }

    /// Names the folder of the journals, which is required. It must outlive a crash and be the
    /// same for every backup of the machine, wherever its repository is.
    pub fn journal(mut self, folder: impl Into<PathBuf>) -> Self {
        self.journal = Some(folder.into());
        self
    }

    /// States what the backup is based on: [`Since::Latest`] by default.
    pub fn since(mut self, since: Since) -> Self {
        self.since = since;
        self
    }

    /// States how far change tracking is believed: [`Trust::Trust`] by default.
    ///
    /// When a block changed that it calls unchanged, [`Event::TrackingDistrusted`] tells so, the disk is read in full by
    /// this backup, and every later one reads and compares all of it ([`Trust::VerifyAll`]) until one finds no
    /// difference. What is not believed is kept in the disk's record; before that in a mark in the repository, which
    /// makes the next backup a full one should this one fail, and every one that builds on an older point.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// States whether and how the guest is quiesced: [`Quiesce::No`] by default. The recovery point records what was
    /// achieved, and why it is not more.
    pub fn quiesce(mut self, quiesce: impl Into<QuiescePolicy>) -> Self {
        self.quiesce = quiesce.into();
        self
    }

    /// States what is done about machines that vSphere encrypts: by default they need an encrypted repository.
    pub fn encrypted_machines(mut self, policy: EncryptedMachines) -> Self {
        self.policies.encrypted = policy;
        self
    }

    /// States what is done about machines with a virtual TPM: a warning, by default.
    pub fn virtual_tpms(mut self, policy: VirtualTpms) -> Self {
        self.policies.virtual_tpms = policy;
        self
    }

    /// States what is done about a machine whose change tracking is off: nothing, by default.
    ///
    /// Enabling it makes a snapshot and removes it, before the one that is read. What stands in the way of it is a
    /// warning; every disk is read in full then.
    ///
    /// # Privileges
    /// `VirtualMachine.Config.ChangeTracking` on the machine, to enable it.
    pub fn change_tracking(mut self, wish: ChangeTracking) -> Self {
        self.policies.tracking = wish;
        self
    }

    /// Names the transports to try, in order, joined by colons: `nbdssl` by default.
    pub fn transports(mut self, list: impl Into<String>) -> Self {
        self.transports = list.into();
        self
    }

    /// Names the snapshot: `vsphere-backup` by default.
    pub fn snapshot_name(mut self, name: impl Into<String>) -> Self {
        self.snapshot_name = name.into();
        self
    }

    /// Leaves a disk out, by its device key.
    pub fn exclude_disk(mut self, key: i32) -> Self {
        self.excluded.push(key);
        self
    }

    /// Sets how many disks are read at once: 4 by default, 1 to 50.
    pub fn parallel_disks(mut self, count: usize) -> Self {
        self.parallel_disks = count.clamp(1, 50);
        self
    }

    /// Sets how many bytes of disks may be in memory at once: 32 MiB by default. The writer's
    /// packs come on top, see [`WriterOptions::pack_size`].
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// Shares connections, bandwidth and memory with everything else that a scheduler is given to; it then counts
    /// instead of [`memory`](Self::memory). Jobs do this by themselves.
    pub fn share(mut self, scheduler: &Scheduler) -> Self {
        self.shared = Some(scheduler.clone());
        self
    }

    /// Sets how the repository is written.
    pub fn writer_options(mut self, options: WriterOptions) -> Self {
        self.writer = options;
        self
    }

    /// Tells of events. The handler is called from the task that works and must not block.
    pub fn on_event(mut self, handler: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.events = Events::new(handler);
        self
    }

    /// Keeps a place in a scheduler until the backup has ended, also in the background.
    pub(crate) fn admitted(mut self, admission: Arc<Admission>) -> Self {
        self.admission = Some(admission);
        self
    }

    /// Tells one more of events.
    pub(crate) fn also_on_event(mut self, handler: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.events = self.events.and(handler);
        self
    }

    /// Lets a token cancel the backup: what was done to the server is undone first.
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = token.clone();
        self
    }

    /// States how often a step is tried whose failure passes by itself: four times by default.
    pub fn retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// States how long a new snapshot waits for snapshot tasks of others and for merges of removed snapshots before it
    /// is refused: ten minutes by default.
    pub fn settle_within(mut self, limit: Duration) -> Self {
        self.settle_within = limit;
        self
    }

    /// States how old an interrupted backup may be so that this one goes on with its snapshot: four hours by default, at
    /// most twelve, never with [`Duration::ZERO`].
    ///
    /// Interrupted is a backup whose process died or that was [abandoned](CancelToken::abandon). The point shows the
    /// machine at the time of that snapshot. What an older one stored is not read from the machine's disks as changes,
    /// yet its chunks are found and not stored again.
    pub fn resume_within(mut self, age: Duration) -> Self {
        self.resume_within = age.min(Duration::from_secs(12 * 3600));
        self
    }

    /// States how often it is made durable up to where disks are stored: every minute by default. An interrupted backup
    /// loses what it read since.
    pub fn checkpoint_every(mut self, interval: Duration) -> Self {
        self.checkpoint_every = interval;
        self
    }

    /// Puts a hook before and after every step, for tests.
    pub fn step_hook(mut self, hook: Arc<dyn StepHook>) -> Self {
        self.hook = Hook::new(hook);
        self
    }

    /// Runs the backup.
    ///
    /// An interrupted backup goes on with its snapshot where that is of use ([`resume_within`](Self::resume_within));
    /// what any other job left on the server is undone first. Whatever happens, the snapshot is
    /// removed and the lock released at the end; what cannot be undone is in
    /// [`BackupReport::leftovers`] or told as [`Event::LeftBehind`], and in the journal for the
    /// next run.
    ///
    /// # Errors
    /// [`Error::Refused`] when the machine is not in a state to be backed up,
    /// [`Error::JournalInUse`], [`Error::Journal`], [`Error::Server`], [`Error::Disk`],
    /// [`Error::Areas`], [`Error::WriterStopped`], [`Error::Storage`], [`Error::Cancelled`],
    /// [`Error::Abandoned`], [`Error::Invalid`] when no journal was named. No recovery point appears then.
    ///
    /// # Privileges
    /// `VirtualMachine.State.CreateSnapshot`, `VirtualMachine.State.RemoveSnapshot`,
    /// `VirtualMachine.Provisioning.DiskRandomRead` on the machine; `Global.DisableMethods` for
    /// the lock.
    ///
    /// # Cancel safety
    /// When dropped, the job is cancelled and goes on in the background, on the runtime, until
    /// the server is as it was.
    pub async fn run(self, repository: &Repository) -> Result<BackupReport> {
        self.start(repository).finish().await
    }

    /// Starts the backup on the current runtime and returns a handle on it: the same as [`run`](Self::run), for callers
    /// that want to stop it in other ways than by dropping a future.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(self, repository: &Repository) -> RunningBackup {
        let repository = repository.clone();
        RunningBackup::start(self, |backup, abandoned| {
            Box::pin(async move { backup.work(&repository, &abandoned).await })
        })
    }

    /// Tells what the backup would do, without changing anything.
    ///
    /// The decision counts when the snapshot is there; tracking may have been reset by then.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Server`], [`Error::Storage`], [`Error::Invalid`].
    ///
    /// # Privileges
    /// `System.Read` on the machine.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn plan(&self, repository: &Repository) -> Result<Plan> {
        self.make_plan(repository).await
    }

    /// Finds out what the backup would do, what it would not and why, without changing anything: of the machine, its
    /// disks, datastores and host, of the account's privileges, and of what earlier jobs left.
    ///
    /// # Errors
    /// [`Error::Server`](crate::Error::Server) when the machine cannot be read, [`Error::Storage`](crate::Error::Storage),
    /// [`Error::Invalid`](crate::Error::Invalid). A machine that would be refused is a finding, no error.
    ///
    /// # Privileges
    /// `System.Read` on the machine, its host and datastores; `System.View` for the privileges.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn preflight(&self, repository: &Repository) -> Result<Preflight> {
        self.run_preflight(repository).await
    }

    /// Undoes what an earlier job left on the server, and nothing else; returns it.
    ///
    /// # Errors
    /// [`Error::JournalInUse`] while another backup of the machine runs, [`Error::Journal`],
    /// [`Error::Server`] when it cannot be undone, [`Error::Invalid`] when no journal was named.
    ///
    /// # Cancel safety
    /// When dropped, call it again.
    pub async fn clean_up(&self) -> Result<Option<Leftover>> {
        let (_, _, guard) = self.open().await?;
        guard.recover().await
    }

    /// Removes what backups of the machine left that ran elsewhere and are dead: on a proxy that was lost together with
    /// its journals. What the reaper calls alive or too young stays.
    ///
    /// # Errors
    /// Those of [`Reaper::scan`] and [`Reaper::reap`].
    ///
    /// # Cancel safety
    /// When dropped, call it again.
    pub async fn clean_up_from_elsewhere(&self, reaper: &Reaper) -> Result<Vec<Reaped>> {
        let reaper = reaper.clone().of_vm(self.vm.clone());
        let scan = reaper.scan(&self.vim).await?;
        scan.unseen.iter().for_each(|what| self.events.warn(format!("not looked at: {what}")));
        reaper.reap(&self.vim, &scan.found).await
    }
}
