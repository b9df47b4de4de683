//! The order of a backup, from the first question to the last record.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use vsphere_vim::{
    PowerState, VirtualDiskInfo,
    vm::{Snapshot, VmDetails},
};

use crate::{
    engine::Budget,
    error::{Error, Result},
    event::Event,
    journal::{Job, Leftover, Record, marker},
    repository::{
        self, BackupMode, Consistency, DiskRecord, LeftOut, PointWriter, RecoveryPoint, Repository, VmId, VmRecord,
        storage::BoxFuture,
    },
    server,
    step::{Step, Steps},
};

use super::{
    Backup, BackupReport, CONFIG_OBJECT, DiskReport, Plan, PlannedDisk, Since,
    disk::{self, DiskJob},
    guard::{Guard, JournalHandle},
    plan,
    resume::Resume,
    tracking::{HostVersion, Tracking},
};

/// What a backup begins with.
struct Start {
    host: Option<HostVersion>,
    resume: Option<Resume>,
    /// What an earlier job left and this one undid.
    recovered: Option<Leftover>,
    begun: Instant,
}

/// The journal of a job, for whoever gives the job up.
#[derive(Debug, Default)]
pub(super) struct Abandoned(Mutex<Option<JournalHandle>>);

impl Abandoned {
    fn note(&self, journal: &JournalHandle) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(journal.clone());
    }

    /// Lets the next run have the machine, now that nothing works on it any more.
    pub(super) async fn release(&self) {
        let journal = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(journal) = journal {
            journal.release().await;
        }
    }
}

impl Backup {
    pub(super) async fn make_plan(&self, repository: &Repository) -> Result<Plan> {
        let wrong = server::failed("reading the configuration", self.vm.value());
        let details = self.vim.vm_details(&self.vm).await.map_err(wrong)?;
        let vm = check(&details)?;
        let base = self.base(repository, &vm).await?;
        let (base, restored) = self.restored(repository, base).await?;
        let newest = repository.latest(&vm).await?;
        let host = HostVersion::of(&self.vim, details.host.as_ref()).await;
        let left_out = self.left_out(&details);
        let stays = |key: i32| left_out.iter().all(|left| left.key != key);
        let planned = |disk: &VirtualDiskInfo| {
            let record = base.as_ref().and_then(|base| base.record(disk.key.0).ok());
            let tracking = Tracking {
                host,
                base: record,
                newest: newest.as_ref().and_then(|newest| newest.record(disk.key.0).ok()),
                restored: restored.contains(&disk.key.0),
                trust: self.trust,
            };
            let (mode, reason) = match tracking.choose(disk).decision {
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

    /// Reads what there is and holds the machine's journal.
    pub(super) async fn open(&self) -> Result<(VmDetails, Option<HostVersion>, VmId, Guard)> {
        let folder = self
            .journal
            .clone()
            .ok_or_else(|| Error::invalid("a backup needs a folder for its journal: Backup::journal"))?;
        let steps = Steps::new(self.vm.value(), &self.hook, self.retries, &self.events, &self.cancel);
        let wrong = || server::failed("reading the configuration", self.vm.value());
        let read = || async {
            let details = self.vim.vm_details(&self.vm).await.map_err(wrong())?;
            let host = HostVersion::of(&self.vim, details.host.as_ref()).await;
            Ok((details, host))
        };
        let (details, host) = steps.take(Step::ReadMachine, read).await?;
        let vm = check(&details)?;
        let guard = Guard::open(self, &vm, folder, &steps).await?;
        Ok((details, host, vm, guard))
    }

    pub(super) async fn work(&self, repository: &Repository, abandoned: &Abandoned) -> Result<BackupReport> {
        let begun = Instant::now();
        let (details, host, vm, guard) = self.open().await?;
        abandoned.note(guard.journal());
        let resume = self.resumable(&guard, repository, &vm).await;
        let recovered = match &resume {
            Some(_) => None,
            None => guard.recover().await?,
        };
        let done = self.guarded(&guard, &details, &vm, repository, Start { host, resume, recovered, begun }).await;
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
        start: Start,
    ) -> Result<BackupReport> {
        let steps = guard.steps();
        let mut left_out = self.left_out(details);
        if details.disks.len() == left_out.len() {
            return Err(refused(details, "none of its disks can be backed up", None));
        }
        let base = self.find_base(steps, repository, vm).await?;
        let newest = match &self.since {
            // The base is it.
            Since::Latest => None,
            _ => steps.once(Step::FindBase, async { repository.latest(vm).await }).await?,
        };
        let record = VmRecord {
            instance_uuid: vm.clone(),
            mo_ref: self.vm.value().to_owned(),
            name: details.identity.name.clone(),
        };
        let begin = repository.begin(record, Consistency::Crash, self.writer);
        let mut point = steps.once(Step::BeginPoint, begin).await?;

        let resume = start.resume;
        let snapshot = match &resume {
            Some(resume) => {
                self.events.send(Event::Resumed { leftover: resume.leftover.clone() });
                guard.lock(&resume.leftover.job).await?;
                resume.snapshot.clone()
            }
            None => {
                let job = self.job(vm, repository, base.as_ref())?;
                guard.begin(job.clone()).await?;
                guard.lock(&job).await?;
                guard.snapshot(&job, self.quiesce).await?
            }
        };
        // Asked now and not before: while there is a snapshot no restore begins, so no mark is missed.
        let (base, restored) = steps.once(Step::ReadMarks, self.restored(repository, base)).await?;
        let consistency = consistency(&snapshot, details);
        point.set_consistency(consistency);
        self.store_config(steps, &mut point, &snapshot).await?;
        let disks = self.disks(steps, details, &snapshot, &mut left_out).await?;

        let budget = Budget::new(self.memory);
        let connection = steps.take(Step::Connect, || disk::connect(self)).await?;
        let job_of = |disk| DiskJob {
            backup: self,
            guard,
            resume: resume.as_ref(),
            connection: &connection,
            snapshot: &snapshot.snapshot,
            disk,
            base: base.as_ref(),
            newest: newest.as_ref(),
            host: start.host,
            restored: &restored,
            point: point.id(),
            writer: point.writer().clone(),
            budget: budget.clone(),
            begun: start.begun,
        };
        let jobs: Vec<BoxFuture<'_, _>> = disks.into_iter().map(|disk| Box::pin(job_of(disk).run()) as _).collect();
        // The first error drops the others: their reads end, their chunks may be used later.
        let done: Result<Vec<(DiskRecord, DiskReport)>> =
            stream::iter(jobs).buffered(self.parallel_disks).try_collect().await;
        if self.cancel.is_stopping() && !self.cancel.is_cancelled() {
            // What was read so far is of use to the next backup once it is durable.
            steps.once(Step::Flush, point.writer().finish()).await?;
            return Err(Error::Cancelled);
        }
        let done = done?;

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
        if self.cancel.is_stopping() {
            return Err(Error::Cancelled);
        }
        let (point, stored) = steps.once(Step::Commit, point.commit()).await?;
        // The point is there, whatever becomes of the journal.
        let record = Record::Committed { point: point.id().clone() };
        if let Err(error) = guard.record(Step::RecordCommit, record).await {
            self.events.warn(format!("{}: {}", point.id(), crate::error::in_one_line(&error)));
        }
        self.events.send(Event::Committed { point: point.id().clone() });
        Ok(BackupReport {
            point,
            disks: reports,
            left_out,
            consistency,
            stored,
            recovered: start.recovered,
            resumed: resume.is_some(),
            leftovers: Vec::new(),
            elapsed: start.begun.elapsed(),
        })
    }

    fn job(&self, vm: &VmId, repository: &Repository, base: Option<&RecoveryPoint>) -> Result<Job> {
        let id: [u8; 8] = crate::repository::random()?;
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Job {
            server: server::server_name(&self.vim),
            vm: vm.to_string(),
            vm_ref: self.vm.value().to_owned(),
            snapshot_name: self.snapshot_name.clone(),
            marker: marker::of(&id),
            created: repository::now(),
            repository: repository.id().to_string(),
            base: base.map(|base| base.id().clone()),
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

    pub(super) async fn find_base(
        &self,
        steps: &Steps,
        repository: &Repository,
        vm: &VmId,
    ) -> Result<Option<RecoveryPoint>> {
        steps.once(Step::FindBase, self.base(repository, vm)).await
    }

    /// Returns the point that incremental disks begin with.
    async fn base(&self, repository: &Repository, vm: &VmId) -> Result<Option<RecoveryPoint>> {
        match &self.since {
            Since::Nothing => Ok(None),
            Since::Latest => repository.latest(vm).await,
            Since::Full => repository.latest_full(vm).await,
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
        steps: &Steps,
        details: &VmDetails,
        snapshot: &Snapshot,
        left_out: &mut Vec<LeftOut>,
    ) -> Result<Vec<VirtualDiskInfo>> {
        let wrong = || server::failed("reading the snapshot's disks", self.vm.value());
        let read = || async { self.vim.snapshot_disks(&snapshot.snapshot).await.map_err(wrong()) };
        let mut disks = steps.take(Step::ReadDisks, read).await?;
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
    async fn store_config(&self, steps: &Steps, point: &mut PointWriter, snapshot: &Snapshot) -> Result<()> {
        let wrong = || server::failed("reading the snapshot's configuration", self.vm.value());
        let read = || async { self.vim.snapshot_config(&snapshot.snapshot).await.map_err(wrong()) };
        let config = steps.take(Step::ReadConfig, read).await?;
        let json = serde_json::to_vec_pretty(&config)
            .map_err(|error| Error::invalid(format!("the configuration cannot be kept: {error}")))?;
        steps.once(Step::StoreConfig, point.put_object(CONFIG_OBJECT, json.into())).await.map(drop)
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
