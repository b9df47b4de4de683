//! Restoring a recovery point: into the machine in place, as a new machine, or into files.

mod changed;
mod export;
mod files;
mod image;
mod in_place;
mod new_image;
mod new_vm;
mod power;
mod resume;
mod transfer;
mod workplace;

use std::{path::PathBuf, sync::Arc, time::Duration};

pub(crate) use self::new_image::NewImage;
pub use self::{
    image::{FileFormat, ImageTarget},
    new_vm::{NetworkChoice, NewVm, NewVmReport, UnmappedNetworks, VmIdentity},
    power::PowerPolicy,
};
use crate::{
    cancel::CancelToken,
    engine::{RestoreMode, RestoredDisk},
    error::{Error, Result, in_one_line},
    event::{Event, Events},
    journal::Job,
    repository::{Pin, RecoveryPoint},
    retry::Retries,
    step::{Hook, Step, StepHook, Steps},
};

/// A restore of a recovery point's disks.
///
/// Each chunk is checked against its identity before it is written; damage ends the restore with
/// [`Error::DamagedChunk`] and nothing wrong is written. A restore that ended early, however it
/// did, can be run again.
///
/// ```no_run
/// # async fn example(vim: vsphere_vim::Vim, point: vsphere_backup::repository::RecoveryPoint) -> vsphere_backup::Result<()> {
/// use vsphere_backup::{FileFormat, Restore, RestoreMode};
/// use vsphere_vim::MoRef;
///
/// // In place, only what differs now; the machine is off.
/// Restore::of(&point).mode(RestoreMode::OnlyDifferences).to_vm(&vim, MoRef::new("vm-42")).await?;
/// // One disk into a file.
/// Restore::of(&point).to_file(2000, "web.vmdk", FileFormat::VmdkSparse).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Restore {
    point: RecoveryPoint,
    disks: Vec<i32>,
    mode: RestoreMode,
    verify: bool,
    overwrite: bool,
    transports: String,
    parallel_disks: usize,
    memory: u64,
    journal: Option<PathBuf>,
    pin: bool,
    power: PowerPolicy,
    remove_snapshots: bool,
    change_tracking: bool,
    retries: Retries,
    hook: Hook,
    events: Events,
    cancel: CancelToken,
}

/// What a restore did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RestoreReport {
    /// One report for each disk.
    pub disks: Vec<RestoredDiskReport>,
    /// From begin to end.
    pub elapsed: Duration,
}

/// How one disk was restored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RestoredDiskReport {
    /// The device key.
    pub key: i32,
    /// Its size in bytes.
    pub capacity: u64,
    /// Figures.
    pub bytes: RestoredDisk,
    /// Whether it was read back and found equal to the point.
    pub verified: bool,
    /// How the bytes travelled.
    pub transport: String,
    /// From opening to closing.
    pub elapsed: Duration,
}

impl Restore {
    /// Prepares a restore of a point's disks, all of them by default.
    pub fn of(point: &RecoveryPoint) -> Self {
        Self {
            point: point.clone(),
            disks: Vec::new(),
            mode: RestoreMode::default(),
            verify: true,
            overwrite: false,
            transports: "nbdssl".into(),
            parallel_disks: 4,
            memory: 64 << 20,
            journal: None,
            pin: true,
            power: PowerPolicy::default(),
            remove_snapshots: false,
            change_tracking: false,
            retries: Retries::default(),
            hook: Hook::default(),
            events: Events::default(),
            cancel: CancelToken::new(),
        }
    }

    /// Restores this disk, by its device key, and others that are named; not the rest.
    pub fn disk(mut self, key: i32) -> Self {
        self.disks.push(key);
        self
    }

    /// States what is written in place: [`RestoreMode::Full`] by default.
    pub fn mode(mut self, mode: RestoreMode) -> Self {
        self.mode = mode;
        self
    }

    /// States what is done with a machine that is not off when it is restored in place: refused by default.
    pub fn power(mut self, policy: PowerPolicy) -> Self {
        self.power = policy;
        self
    }

    /// States whether all snapshots of a machine that is restored in place are removed first, which merges them into its
    /// disks: no by default, a machine with snapshots is refused. They cannot stay: what lies above a restored disk does
    /// not fit it.
    pub fn remove_snapshots(mut self, yes: bool) -> Self {
        self.remove_snapshots = yes;
        self
    }

    /// States whether change tracking is asked, for [`RestoreMode::OnlyDifferences`] in place, what changed since the
    /// point, so that only that is read, compared and written: no by default.
    ///
    /// It takes a snapshot that lives for the question only, and a [`journal`](Self::journal). Where the point's change
    /// id and the disk's do not follow each other, and where the disk was restored since, the whole disk is compared.
    /// With it only what was written is verified: a defect of the server's tracking stays unseen.
    pub fn change_tracking(mut self, yes: bool) -> Self {
        self.change_tracking = yes;
        self
    }

    /// States whether each disk is read back and compared: yes by default.
    pub fn verify(mut self, yes: bool) -> Self {
        self.verify = yes;
        self
    }

    /// States whether existing files are replaced, once what replaces them is whole: no by default.
    pub fn overwrite(mut self, yes: bool) -> Self {
        self.overwrite = yes;
        self
    }

    /// Names the transports to try, in order, joined by colons: `nbdssl` by default.
    pub fn transports(mut self, list: impl Into<String>) -> Self {
        self.transports = list.into();
        self
    }

    /// Sets how many disks are written at once: 4 by default, 1 to 50.
    pub fn parallel_disks(mut self, count: usize) -> Self {
        self.parallel_disks = count.clamp(1, 50);
        self
    }

    /// Sets how many bytes of disks may be in memory at once: 64 MiB by default.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// Names the folder of the journals, the same as for backups: needed where a restore makes something on a server
    /// that has to be undone when it ends early, which is a new machine or a snapshot.
    ///
    /// With it a restore in place undoes what an earlier job left on the machine, keeps backups from beginning and
    /// locks the machine against migration, where the server offers that.
    pub fn journal(mut self, folder: impl Into<PathBuf>) -> Self {
        self.journal = Some(folder.into());
        self
    }

    /// States whether the point is pinned meanwhile, so that nothing it needs is collected: yes by default. A
    /// repository that cannot be written to takes no pins.
    pub fn pin(mut self, yes: bool) -> Self {
        self.pin = yes;
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

    /// Lets a token cancel the restore; what is written stays.
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = token.clone();
        self
    }

    /// Holds what the point needs, for as long as the restore runs.
    async fn hold(&self) -> Result<Option<Pin>> {
        self.hold_for(None).await
    }

    async fn hold_for(&self, job: Option<&str>) -> Result<Option<Pin>> {
        match self.pin {
            true => self.point.pin_for(job).await.map(Some),
            false => Ok(None),
        }
    }

    fn steps(&self, on: &str) -> Steps {
        Steps::new(on, &self.hook, self.retries, &self.events, &self.cancel)
    }

    /// Does work for a job while the point is held, as steps.
    async fn holding<T>(&self, steps: &Steps, job: &Job, work: impl Future<Output = Result<T>>) -> Result<T> {
        let pin = steps.once(Step::HoldPoint, self.hold_for(Some(&job.id))).await?;
        let done = work.await;
        if let Some(pin) = pin {
            give_back(pin, steps, &self.events).await;
        }
        done
    }

    fn refused(&self, reason: impl Into<String>, hint: Option<&str>) -> Error {
        let vm = &self.point.manifest().vm;
        Error::Refused {
            vm: format!("{} ({})", vm.name, vm.instance_uuid),
            reason: reason.into(),
            hint: hint.map(str::to_owned),
        }
    }
}

/// Has a restore's last look at what it wrote over, for as long as whoever cancelled it can wait.
pub(crate) async fn last_look<T>(look: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Err(Error::invalid(format!("it was not answered within {LOOK_LIMIT:?}")));
    tokio::time::timeout(LOOK_LIMIT, look).await.unwrap_or_else(late)
}

/// Gives the hold on a point back, as a step that no cancellation keeps from it.
pub(crate) async fn give_back(pin: Pin, steps: &Steps, events: &Events) {
    let release = async {
        pin.release().await;
        Ok(())
    };
    if let Err(error) = steps.undoing().once(Step::ReleasePoint, release).await {
        // It ends by its time to live.
        events.warn(in_one_line(&error));
    }
}

/// How long a last look may take.
const LOOK_LIMIT: Duration = Duration::from_secs(30);
