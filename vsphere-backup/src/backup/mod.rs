//! Backing up a virtual machine.
//!
//! The order of things: read what there is; undo what an earlier job left; write the intent down;
//! lock against migration; snapshot; read the disks, several at once; commit the recovery point;
//! remove the snapshot; unlock; clear the journal.

mod disk;
mod guard;
mod plan;
mod report;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use vsphere_vim::{
    MoRef, PowerState, Vim, VirtualDiskInfo, mo,
    vm::{Snapshot, VmDetails},
};

use self::{disk::DiskJob, guard::Guard};
use crate::{
    cancel::CancelToken,
    engine::Budget,
    error::{Error, Result},
    event::{Event, Events},
    journal::{Job, Leftover, Record},
    repository::{
        BackupMode, Consistency, DiskRecord, LeftOut, PointWriter, RecoveryPoint, Repository, VmId, VmRecord,
        WriterOptions, storage::BoxFuture,
    },
    server,
};

pub use self::report::{BackupReport, DiskReport, Plan, PlannedDisk};

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
    quiesce: Quiesce,
    transports: String,
    snapshot_name: String,
    excluded: Vec<i32>,
    parallel_disks: usize,
    memory: u64,
    writer: WriterOptions,
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
    /// A point of the caller's choice, of the same machine and repository.
    Point(RecoveryPoint),
    /// Nothing: every disk is read in full.
    Nothing,
}

/// Whether the guest is asked to bring its data into order before the snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Quiesce {
    /// No: the disks are as after a power cut.
    #[default]
    No,
    /// Yes, and when that fails a snapshot without it is taken, with a warning.
    Try,
    /// Yes, and when that fails the backup fails.
    Require,
}

impl From<bool> for Quiesce {
    /// `true` is [`Quiesce::Try`].
    fn from(yes: bool) -> Self {
        if yes { Self::Try } else { Self::No }
    }
}

impl Backup {
    /// Prepares a backup of a virtual machine.
    pub fn of(vim: &Vim, vm: MoRef<mo::VirtualMachine>) -> Self {
        Self {
            vim: vim.clone(),
            vm,
            journal: None,
            since: Since::default(),
            quiesce: Quiesce::default(),
            transports: "nbdssl".into(),
            snapshot_name: "vsphere-backup".into(),
            excluded: Vec::new(),
            parallel_disks: 4,
            memory: 32 << 20,
            writer: WriterOptions::default(),
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

    /// States whether the guest is quiesced: [`Quiesce::No`] by default. The recovery point
    /// records what was achieved.
    pub fn quiesce(mut self, quiesce: impl Into<Quiesce>) -> Self {
        self.quiesce = quiesce.into();
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

    /// Lets a token cancel the backup: what was done to the server is undone first.
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = token.clone();
        self
    }

    /// Runs the backup.
    ///
    /// What an earlier job left on the server is undone first. Whatever happens, the snapshot is
    /// removed and the lock released at the end; what cannot be undone is in
    /// [`BackupReport::leftovers`] or told as [`Event::LeftBehind`], and in the journal for the
    /// next run.
    ///
    /// # Errors
    /// [`Error::Refused`] when the machine is not in a state to be backed up,
    /// [`Error::JournalInUse`], [`Error::Journal`], [`Error::Server`], [`Error::Disk`],
    /// [`Error::Areas`], [`Error::WriterStopped`], [`Error::Storage`], [`Error::Cancelled`],
    /// [`Error::Invalid`] when no journal was named. No recovery point appears then.
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
        // A token of its own: the caller's may be shared with other jobs, which a drop of this one is nothing to.
        let cancel = self.cancel.child();
        let job = Arc::new(Self { cancel, ..self });
        let (worker, repository) = (job.clone(), repository.clone());
        let mut guard = CancelOnDrop { token: job.cancel.clone(), armed: true };
        let done = tokio::spawn(async move { worker.work(&repository).await }).await;
        guard.armed = false;
        done.unwrap_or_else(|error| Err(Error::WriterStopped { reason: format!("the job ended: {error}") }))
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
        let wrong = server::failed("reading the configuration", self.vm.value());
        let details = self.vim.vm_details(&self.vm).await.map_err(wrong)?;
        let vm = check(&details)?;
        let base = self.base(repository, &vm).await?;
        let (base, restored) = self.restored(repository, base).await?;
        let left_out = self.left_out(&details);
        let stays = |key: i32| left_out.iter().all(|left| left.key != key);
        let planned = |disk: &VirtualDiskInfo| {
            let record = base.as_ref().and_then(|base| base.record(disk.key.0).ok());
            let (mode, reason) = match plan::decide(disk, record, restored.contains(&disk.key.0)) {
                plan::Decision::Full { reason } => (BackupMode::Full, reason),
                plan::Decision::Incremental { since, .. } => {
                    (BackupMode::Incremental, format!("changes since {} are known", since.as_str()))
                }
            };
            PlannedDisk { key: disk.key.0, label: disk.label.clone(), capacity: disk.capacity, mode, reason }
        };
        let disks = details.disks.iter().filter(|disk| stays(disk.key.0)).map(planned).collect();
        Ok(Plan { vm, base: base.map(|base| base.id().clone()), disks, left_out })
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

    async fn open(&self) -> Result<(VmDetails, VmId, Guard)> {
        let wrong = server::failed("reading the configuration", self.vm.value());
        let details = self.vim.vm_details(&self.vm).await.map_err(wrong)?;
        let vm = check(&details)?;
        let folder = self
            .journal
            .clone()
            .ok_or_else(|| Error::invalid("a backup needs a folder for its journal: Backup::journal"))?;
        let guard = Guard::open(&self.vim, &self.vm, &vm, folder, &self.events).await?;
        Ok((details, vm, guard))
    }

    async fn work(&self, repository: &Repository) -> Result<BackupReport> {
        let begun = Instant::now();
        let (details, vm, guard) = self.open().await?;
        let recovered = guard.recover().await?;
        let done = self.guarded(&guard, &details, &vm, repository, recovered, begun).await;
        let leftovers = guard.undo().await;
        done.map(|report| BackupReport { leftovers, elapsed: begun.elapsed(), ..report })
    }

    /// Everything between the journal's begin and its end.
    async fn guarded(
        &self,
        guard: &Guard,
        details: &VmDetails,
        vm: &VmId,
        repository: &Repository,
        recovered: Option<Leftover>,
        begun: Instant,
    ) -> Result<BackupReport> {
        self.cancel.check()?;
        let mut left_out = self.left_out(details);
        if details.disks.len() == left_out.len() {
            return Err(refused(details, "none of its disks can be backed up", None));
        }
        let base = self.base(repository, vm).await?;
        let record = VmRecord {
            instance_uuid: vm.clone(),
            mo_ref: self.vm.value().to_owned(),
            name: details.identity.name.clone(),
        };
        let mut point = repository.begin(record, Consistency::Crash, self.writer).await?;

        let job = self.job(vm)?;
        guard.begin(job.clone()).await?;
        guard.lock(&job).await?;
        let snapshot = guard.snapshot(&job, self.quiesce, &self.cancel).await?;
        // Asked now and not before: while there is a snapshot no restore begins, so no mark is missed.
        let (base, restored) = self.restored(repository, base).await?;
        let consistency = consistency(&snapshot, details);
        point.set_consistency(consistency);
        self.store_config(&mut point, &snapshot).await?;
        let disks = self.disks(details, &snapshot, &mut left_out).await?;

        let budget = Budget::new(self.memory);
        let connection = disk::connect(self).await?;
        let job_of = |disk| DiskJob {
            backup: self,
            connection: &connection,
            snapshot: &snapshot.snapshot,
            disk,
            base: base.as_ref(),
            restored: &restored,
            writer: point.writer().clone(),
            budget: budget.clone(),
        };
        let jobs: Vec<BoxFuture<'_, _>> = disks.into_iter().map(|disk| Box::pin(job_of(disk).run()) as _).collect();
        // The first error drops the others: their reads end, their chunks may be used later.
        let done: Vec<(DiskRecord, DiskReport)> =
            stream::iter(jobs).buffered(self.parallel_disks).try_collect().await?;

        let mut reports = Vec::new();
        let incremental = done.iter().any(|(_, report)| report.mode == BackupMode::Incremental);
        for (record, report) in done {
            point.add_disk(record)?;
            reports.push(report);
        }
        for disk in &left_out {
            point.leave_out(disk.clone());
        }
        point.set_parent(base.filter(|_| incremental).map(|base| base.id().clone()));
        self.cancel.check()?;
        let (point, stored) = point.commit().await?;
        // The point is there, whatever becomes of the journal.
        if let Err(error) = guard.record(Record::Committed { point: point.id().clone() }).await {
            self.events.warn(format!("{}: {}", point.id(), crate::error::in_one_line(&error)));
        }
        self.events.send(Event::Committed { point: point.id().clone() });
        Ok(BackupReport {
            point,
            disks: reports,
            left_out,
            consistency,
            stored,
            recovered,
            leftovers: Vec::new(),
            elapsed: begun.elapsed(),
        })
    }

    fn job(&self, vm: &VmId) -> Result<Job> {
        let id: [u8; 8] = crate::repository::random()?;
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Job {
            server: server::server_name(&self.vim),
            vm: vm.to_string(),
            vm_ref: self.vm.value().to_owned(),
            snapshot_name: self.snapshot_name.clone(),
            marker: format!("vsphere-backup job {id}"),
            id,
        })
    }

    /// Returns the disks that are known before the snapshot to stay out of it.
    fn left_out(&self, details: &VmDetails) -> Vec<LeftOut> {
        let mut left_out = Vec::new();
        for disk in &details.disks {
            let why = if self.excluded.contains(&disk.key.0) {
                Err("it was excluded by the caller".to_owned())
            } else {
                plan::eligible(disk)
            };
            if let Err(reason) = why {
                self.events.send(Event::DiskLeftOut {
                    disk: disk.key.0,
                    label: disk.label.clone(),
                    reason: reason.clone(),
                });
                left_out.push(plan::left_out(disk, reason));
            }
        }
        left_out
    }

    /// Returns the point that incremental disks begin with.
    async fn base(&self, repository: &Repository, vm: &VmId) -> Result<Option<RecoveryPoint>> {
        match &self.since {
            Since::Nothing => Ok(None),
            Since::Latest => repository.latest(vm).await,
            Since::Point(point) => {
                let manifest = point.manifest();
                if point.repository().id() != repository.id() || manifest.vm.instance_uuid != *vm {
                    let what = format!("{} is not a point of {vm} in this repository", point.id());
                    return Err(Error::invalid(what));
                }
                // Opened again: the caller's may be of a copy elsewhere, whose pages and chunks need not be here.
                repository.point(point.id()).await.map(Some)
            }
        }
    }

    /// Returns the disks that were restored since the base; without the base when that cannot be told.
    async fn restored(
        &self,
        repository: &Repository,
        base: Option<RecoveryPoint>,
    ) -> Result<(Option<RecoveryPoint>, BTreeSet<i32>)> {
        let Some(point) = base else { return Ok((None, BTreeSet::new())) };
        match repository.restored_since(point.id()).await {
            Ok(restored) => Ok((Some(point), restored)),
            Err(error) if error.is_damage() => {
                self.events.warn(format!("every disk is read in full, a mark of a restore is damaged: {error}"));
                Ok((None, BTreeSet::new()))
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the snapshot's disks that are to be read.
    async fn disks(
        &self,
        details: &VmDetails,
        snapshot: &Snapshot,
        left_out: &mut Vec<LeftOut>,
    ) -> Result<Vec<VirtualDiskInfo>> {
        let wrong = server::failed("reading the snapshot's disks", self.vm.value());
        let mut disks = self.vim.snapshot_disks(&snapshot.snapshot).await.map_err(wrong)?;
        disks.retain(|disk| left_out.iter().all(|left| left.key != disk.key.0));
        for disk in &details.disks {
            let held = disks.iter().any(|held| held.key == disk.key);
            if !held && left_out.iter().all(|left| left.key != disk.key.0) {
                let reason = "the snapshot does not hold it";
                self.events.send(Event::DiskLeftOut {
                    disk: disk.key.0,
                    label: disk.label.clone(),
                    reason: reason.into(),
                });
                left_out.push(plan::left_out(disk, reason));
            }
        }
        Ok(disks)
    }

    /// Stores the machine's configuration as of the snapshot.
    async fn store_config(&self, point: &mut PointWriter, snapshot: &Snapshot) -> Result<()> {
        let wrong = server::failed("reading the snapshot's configuration", self.vm.value());
        let config = self.vim.snapshot_config(&snapshot.snapshot).await.map_err(wrong)?;
        let json = serde_json::to_vec_pretty(&config)
            .map_err(|error| Error::invalid(format!("the configuration cannot be kept: {error}")))?;
        point.put_object(CONFIG_OBJECT, json.into()).await.map(drop)
    }
}

/// Checks that a machine can be backed up at all, and returns its identity.
fn check(details: &VmDetails) -> Result<VmId> {
    if details.is_template {
        let hint = "convert it to a machine, or wait for a release that reads templates";
        return Err(refused(details, "it is a template, of which no snapshot can be made", Some(hint)));
    }
    if !details.connected {
        let hint = "reconnect its host";
        return Err(refused(details, "the server has no connection to it", Some(hint)));
    }
    match &details.identity.instance_uuid {
        Some(uuid) => VmId::parse(uuid),
        None => Err(refused(details, "it has no instanceUuid by which to know it again", None)),
    }
}

fn refused(details: &VmDetails, reason: &str, hint: Option<&str>) -> Error {
    Error::Refused { vm: details.identity.to_string(), reason: reason.into(), hint: hint.map(str::to_owned) }
}

fn consistency(snapshot: &Snapshot, details: &VmDetails) -> Consistency {
    if snapshot.power_state == PowerState::Off && details.power_state == PowerState::Off {
        Consistency::PoweredOff
    } else if snapshot.quiesced && snapshot.backup_manifest.is_some() {
        Consistency::Application
    } else if snapshot.quiesced {
        Consistency::FileSystem
    } else {
        Consistency::Crash
    }
}

/// Cancels a job whose caller went away.
struct CancelOnDrop {
    token: CancelToken,
    armed: bool,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if self.armed {
            self.token.cancel();
        }
    }
}

/// The name under which a point keeps the machine's configuration (`ConfigInfo` as JSON).
pub const CONFIG_OBJECT: &str = "config.json";
