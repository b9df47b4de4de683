//! What backups left on a server although no journal tells of it any more: a proxy that was lost, a folder that was
//! deleted. It is found by the marker that everything carries which a job made.
//!
//! ```no_run
//! # async fn example(vim: vsphere_vim::Vim, repository: vsphere_backup::repository::Repository) -> vsphere_backup::Result<()> {
//! use vsphere_backup::reaper::{Journals, Leases, Reaper};
//!
//! let reaper = Reaper::new(Journals::in_folder("/var/lib/backup")).and(Leases::of(&repository));
//! let scan = reaper.scan(&vim).await?;
//! for found in &scan.found {
//!     println!("{} of job {}: {:?}", found.what, found.job, found.verdict);
//! }
//! reaper.reap(&vim, &scan.found).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Nothing without the marker is ever touched, nothing that is younger than [`Reaper::older_than`], and nothing of a
//! job that some [`Liveness`] calls alive. The one exception is asked for by its name:
//! [`Reaper::remove_all_snapshots`].

mod find;
mod leases;
mod liveness;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use vsphere_vim::{
    MoRef, RemoveSnapshotOptions, Vim,
    fcd::{FcdRef, FcdSnapshotId},
    method_lock::MethodLock,
    mo,
};

use crate::{
    backup::{fcd::remove_disk_snapshot, fcd_vm_id},
    cancel::CancelToken,
    error::{Error, Result, in_one_line},
    event::{Event, Events},
    repository::VmId,
    retry::Retries,
    server::failed,
    step::{Hook, State, Step, StepHook, Steps},
};

pub use self::{
    leases::Leases,
    liveness::{Fence, Fenced, Journals, Liveness},
};

/// Finds and removes what dead jobs left on a server.
#[derive(Clone)]
#[must_use]
pub struct Reaper {
    older_than: Duration,
    liveness: Vec<Arc<dyn Liveness>>,
    vms: Vec<MoRef<mo::VirtualMachine>>,
    first_class_disks: bool,
    retries: Retries,
    hook: Hook,
    events: Events,
    /// When locks were first seen, by the server's clock in seconds: a lock does not say when it was taken.
    locks_seen: Arc<Mutex<LocksSeen>>,
}

/// What a scan found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Scan {
    /// Everything with a marker.
    pub found: Vec<Found>,
    /// What could not be looked at, and why.
    pub unseen: Vec<String>,
}

/// Something that a job made and did not remove.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Found {
    /// What it is.
    pub what: Left,
    /// The job, by its marker.
    pub job: String,
    /// How old it is by the server's clock. Of a lock: for how long it was seen, or the age of a snapshot of the same
    /// job.
    pub age: Duration,
    /// What is to become of it.
    pub verdict: Verdict,
}

/// What a job left.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Left {
    /// A snapshot of a virtual machine.
    Snapshot {
        /// The machine.
        vm: Machine,
        /// The snapshot.
        snapshot: MoRef<mo::VirtualMachineSnapshot>,
        /// Its name.
        name: String,
    },
    /// A lock against migration.
    Lock {
        /// The machine.
        vm: Machine,
        /// Its source, which releases it.
        source: String,
    },
    /// A snapshot of a First Class Disk.
    DiskSnapshot {
        /// The disk.
        disk: FcdRef,
        /// The snapshot.
        snapshot: FcdSnapshotId,
    },
}

/// A virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Machine {
    /// Its reference.
    pub moref: MoRef<mo::VirtualMachine>,
    /// Its name.
    pub name: String,
    /// Its identity, where it can be read.
    pub id: Option<VmId>,
}

/// What is to become of something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Its job is dead: it can go.
    Stale,
    /// It is too young to tell.
    TooYoung,
    /// Its job is alive, and who says so.
    Live(String),
}

/// What became of something that was found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Reaped {
    /// What it is.
    pub what: Left,
    /// Gone, or why it stays.
    pub outcome: Outcome,
}

/// How an attempt to remove something ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// It is gone.
    Gone,
    /// It was judged anew, and stays.
    Kept(Verdict),
    /// It could not be removed.
    Failed(Error),
}

/// A word that has to be said before snapshots of others are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveAll {
    /// Yes: everybody's, whoever made them and whatever they are for.
    EverybodysSnapshots,
}

/// By machine and what disabled the methods.
type LocksSeen = HashMap<(MoRef<mo::VirtualMachine>, String), i64>;

impl Reaper {
    /// Makes a reaper that spares what this knows to be alive.
    pub fn new(liveness: impl Liveness + 'static) -> Self {
        Self {
            older_than: Duration::from_secs(24 * 3600),
            liveness: vec![Arc::new(liveness)],
            vms: Vec::new(),
            first_class_disks: true,
            retries: Retries::default(),
            hook: Hook::default(),
            events: Events::default(),
            locks_seen: Arc::default(),
        }
    }

    /// Spares what this knows to be alive, too.
    pub fn and(mut self, liveness: impl Liveness + 'static) -> Self {
        self.liveness.push(Arc::new(liveness));
        self
    }

    /// States from which age on something may be stale: a day by default. Jobs that nobody here knows of, on other
    /// proxies, must be over by then.
    pub fn older_than(mut self, age: Duration) -> Self {
        self.older_than = age;
        self
    }

    /// Looks at this machine, and others given in this way, alone. First Class Disks are left out then.
    pub fn of_vm(mut self, vm: MoRef<mo::VirtualMachine>) -> Self {
        self.vms.push(vm);
        self.first_class_disks = false;
        self
    }

    /// States whether snapshots of First Class Disks are looked for: they are by default.
    pub fn first_class_disks(mut self, yes: bool) -> Self {
        self.first_class_disks = yes;
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

    /// Tells of events.
    pub fn on_event(mut self, handler: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.events = Events::new(handler);
        self
    }

    /// Finds everything with a marker, and judges it.
    ///
    /// Nothing is changed, but for one thing: who holds a lock is told only to those who want it, so a locked machine
    /// is asked for the lock; should it be free by then, it is given back at once.
    ///
    /// # Errors
    /// [`Error::Server`] when the machines cannot be read; those of the [`Liveness`].
    ///
    /// # Privileges
    /// `System.Read` on the machines, `Global.DisableMethods` for locks.
    ///
    /// # Cancel safety
    /// When dropped, a lock of the scan's own may be left, which the next scan finds.
    pub async fn scan(&self, vim: &Vim) -> Result<Scan> {
        let steps = self.steps();
        let now = steps.take(Step::AskTime, || find::server_time(vim)).await?;
        let mut scan = Scan::default();
        for vm in steps.take(Step::FindMarked, || find::machines(vim, &self.vms)).await? {
            let snapshots = find::snapshots(&vm, now);
            let mut lock = None;
            if vm.is_locked {
                match steps.take(Step::ProbeLock, || find::lock(vim, &vm.machine)).await {
                    Ok(found) => lock = found,
                    Err(error) => scan.unseen.push(in_one_line(&error)),
                }
            }
            for (what, job, age) in snapshots.iter().cloned() {
                self.add(&mut scan, what, job, age).await?;
            }
            if let Some((what, job)) = lock {
                let oldest = snapshots.iter().filter(|(_, other, _)| *other == job).map(|(_, _, age)| *age).max();
                let age = oldest.unwrap_or_default().max(self.lock_age(&what, now));
                self.add(&mut scan, what, job, age).await?;
            }
        }
        if self.first_class_disks {
            let look = || find::disk_snapshots(vim, now);
            let (found, unseen) = steps
                .take(Step::FindMarked, look)
                .await
                .unwrap_or_else(|error| (Vec::new(), vec![format!("first class disks: {}", in_one_line(&error))]));
            scan.unseen.extend(unseen);
            for (what, job, age) in found {
                self.add(&mut scan, what, job, age).await?;
            }
        }
        Ok(scan)
    }

    /// Removes what a scan found stale, having judged it anew while its jobs are fenced.
    ///
    /// # Errors
    /// Those of the [`Liveness`] and of asking the server for its time; what cannot be removed is an [`Outcome`].
    ///
    /// # Privileges
    /// `VirtualMachine.State.RemoveSnapshot` on the machines, `Global.DisableMethods`,
    /// `Datastore.FileManagement` for First Class Disks.
    ///
    /// # Cancel safety
    /// When dropped, scan and reap again.
    pub async fn reap(&self, vim: &Vim, found: &[Found]) -> Result<Vec<Reaped>> {
        let (steps, mut reaped) = (self.steps(), Vec::new());
        for found in found.iter().filter(|found| found.verdict == Verdict::Stale) {
            let outcome = self.reap_one(&steps, vim, found).await?;
            let what = found.what.clone();
            match &outcome {
                Outcome::Gone => self.events.send(Event::Reaped { what: what.to_string(), job: found.job.clone() }),
                Outcome::Kept(_) => {}
                Outcome::Failed(error) => {
                    self.events.send(Event::LeftBehind { what: format!("{what}: {}", in_one_line(error)) });
                }
            }
            reaped.push(Reaped { what, outcome });
        }
        Ok(reaped)
    }

    /// Removes all snapshots of a machine, those of others too, unless a backup of it is known to be alive.
    ///
    /// # Errors
    /// [`Error::Refused`] when one is, [`Error::Server`], those of the [`Liveness`].
    ///
    /// # Privileges
    /// `VirtualMachine.State.RemoveSnapshot`.
    ///
    /// # Cancel safety
    /// When dropped, the removal goes on.
    pub async fn remove_all_snapshots(
        &self,
        vim: &Vim,
        vm: &MoRef<mo::VirtualMachine>,
        which: RemoveAll,
    ) -> Result<()> {
        let RemoveAll::EverybodysSnapshots = which;
        let steps = self.steps();
        let machines = steps.take(Step::FindMarked, || find::machines(vim, std::slice::from_ref(vm))).await?;
        let id = machines.first().and_then(|found| found.machine.id.clone());
        let refused = |by: String| {
            let reason = format!("its snapshots stay, a backup is alive: {by}");
            Error::Refused { vm: vm.to_string(), reason, hint: None }
        };
        for (_, job, _) in machines.iter().flat_map(|vm| find::snapshots(vm, 0)) {
            self.fence(&job, id.as_ref()).await?.map_err(refused)?;
        }
        // Held until they are gone: a backup may be about to make its own.
        let _fences = self.fence(NO_JOB, id.as_ref()).await?.map_err(refused)?;
        let wrong = || failed("removing all snapshots", vm.value());
        let remove = || async { vim.remove_all_snapshots(vm, true).await.map_err(wrong()) };
        steps.take(Step::RemoveAllSnapshots, remove).await
    }

    async fn add(&self, scan: &mut Scan, what: Left, job: String, age: Duration) -> Result<()> {
        let verdict = if age < self.older_than {
            Verdict::TooYoung
        } else {
            match self.fence(&job, what.vm_id().as_ref()).await? {
                Ok(_) => Verdict::Stale,
                Err(by) => Verdict::Live(by),
            }
        };
        scan.found.push(Found { what, job, age, verdict });
        Ok(())
    }

    /// Fences a job wherever it may be known, or returns who says that it is alive.
    async fn fence(&self, job: &str, vm: Option<&VmId>) -> Result<Result<Vec<Fence>, String>> {
        let mut fences = Vec::new();
        for liveness in &self.liveness {
            match liveness.fence(job, vm).await? {
                Fenced::Live(by) => return Ok(Err(by)),
                Fenced::Dead(fence) => fences.push(fence),
            }
        }
        Ok(Ok(fences))
    }

    async fn reap_one(&self, steps: &Steps, vim: &Vim, found: &Found) -> Result<Outcome> {
        let _fences = match self.fence(&found.job, found.what.vm_id().as_ref()).await? {
            Ok(fences) => fences,
            Err(by) => return Ok(Outcome::Kept(Verdict::Live(by))),
        };
        let done = match &found.what {
            Left::Snapshot { vm, snapshot, .. } => remove_snapshot(steps, vim, vm, snapshot, &found.job).await,
            Left::Lock { vm, source } => {
                let lock = MethodLock::against_migration(&vm.moref, source);
                let unlock = || async { vim.unlock_methods(&lock).await.map_err(failed("unlocking", &vm.name)) };
                steps.take(Step::Unlock, unlock).await
            }
            Left::DiskSnapshot { disk, snapshot } => {
                let wrong = || failed("removing a snapshot", disk.id.as_str());
                let remove = || async {
                    let disks = vim.first_class_disks().map_err(wrong())?;
                    remove_disk_snapshot(&disks, disk, snapshot).await.map_err(wrong()).map(drop)
                };
                steps.take(Step::RemoveDiskSnapshot, remove).await
            }
        };
        Ok(match done {
            Ok(()) => Outcome::Gone,
            Err(error) => Outcome::Failed(error),
        })
    }

    fn steps(&self) -> Steps {
        let steps = Steps::new("the server", &self.hook, self.retries, &self.events, &CancelToken::new());
        steps.begin_at(State::Reaping);
        steps.undoing()
    }

    /// Returns for how long a lock was seen by this reaper.
    fn lock_age(&self, what: &Left, now: i64) -> Duration {
        let Left::Lock { vm, source } = what else { return Duration::ZERO };
        let mut seen = self.locks_seen.lock().unwrap_or_else(PoisonError::into_inner);
        let first = *seen.entry((vm.moref.clone(), source.clone())).or_insert(now);
        Duration::from_secs(u64::try_from(now.saturating_sub(first)).unwrap_or(0))
    }
}

async fn remove_snapshot(
    steps: &Steps,
    vim: &Vim,
    vm: &Machine,
    snapshot: &MoRef<mo::VirtualMachineSnapshot>,
    job: &str,
) -> Result<()> {
    let wrong = || failed("removing the snapshot", &vm.name);
    let look = || async { vim.snapshots(&vm.moref).await.map_err(wrong()) };
    let tree = steps.take(Step::FindSnapshot, look).await?;
    // References are given again when a server is restored: the marker decides, now as in the scan.
    let same = tree.get(snapshot).is_some_and(|found| find::job_of(&found.description) == Some(job));
    if !same {
        return Ok(());
    }
    let remove = || async {
        match vim.remove_snapshot(snapshot, RemoveSnapshotOptions::default()).await {
            Err(error) if !error.is_fault("ManagedObjectNotFound") => Err(wrong()(error)),
            _ => Ok(()),
        }
    };
    steps.take(Step::RemoveSnapshot, remove).await
}

impl Left {
    /// Under which identity a journal has the job.
    fn vm_id(&self) -> Option<VmId> {
        match self {
            Self::Snapshot { vm, .. } | Self::Lock { vm, .. } => vm.id.clone(),
            Self::DiskSnapshot { disk, .. } => fcd_vm_id(&disk.id).ok(),
        }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot { vm, snapshot, name } => write!(f, "snapshot {name:?} ({snapshot}) of {}", vm.name),
            Self::Lock { vm, .. } => write!(f, "the lock against migration of {}", vm.name),
            Self::DiskSnapshot { disk, snapshot } => write!(f, "snapshot {snapshot} of {disk}"),
        }
    }
}

impl fmt::Debug for Reaper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reaper").field("older_than", &self.older_than).field("vms", &self.vms).finish_non_exhaustive()
    }
}

/// The marker of no job: who is asked for it tells only whether the machine is worked on.
const NO_JOB: &str = "0000000000000000";
