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
        self, BackupMode, Consistency, DiskRecord, Fallback, LeftOut, RecoveryPoint, Repository, VmId, VmRecord,
        storage::BoxFuture,
    },
    server,
    step::{Step, Steps},
};

use super::{
    Backup, BackupReport, DiskReport, Plan, PlannedDisk, Since,
    condition::{Condition, Severity},
    disk::{self, DiskJob},
    guard::{Guard, JournalHandle},
    machine::{self, Machine},
    plan,
    resume::Resume,
    tracking::{HostVersion, Tracking},
};

/// What a backup begins with.
struct Start {
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
        let machine = self.read_machine().await?;
        let vm = identity(&machine.details)?;
        self.admit(&machine, repository)?;
        let base = self.base(repository, &vm).await?;
        let (base, restored) = self.restored(repository, base).await?;
        let newest = repository.latest(&vm).await?;
        let left_out = self.left_out(&machine);
        let stays = |key: i32| left_out.iter().all(|left| left.key != key);
        let planned = |disk: &VirtualDiskInfo| {
            let points = (base.as_ref(), newest.as_ref());
            let (mode, reason) = self.decision(&machine, disk, points, restored.contains(&disk.key.0)).told();
            PlannedDisk { key: disk.key.0, label: disk.label.clone(), capacity: disk.capacity, mode, reason }
        };
        let disks = machine.details.disks.iter().filter(|disk| stays(disk.key.0)).map(planned).collect();
        Ok(Plan { vm, base: base.map(|base| base.id().clone()), disks, left_out })
    }

    /// Reads what there is of the machine.
    pub(super) async fn read_machine(&self) -> Result<Machine> {
        let wrong = || server::failed("reading the configuration", self.vm.value());
        let details = self.vim.vm_details(&self.vm).await.map_err(wrong())?;
        let config = self.vim.config(&self.vm).await.map_err(wrong())?;
        let host = HostVersion::of(&self.vim, details.host.as_ref()).await;
        Ok(Machine::new(details, &config, host))
    }

    /// Decides how a disk would be read, given the point that it builds on and the newest.
    pub(super) fn decision(
        &self,
        machine: &Machine,
        disk: &VirtualDiskInfo,
        (base, newest): (Option<&RecoveryPoint>, Option<&RecoveryPoint>),
        restored: bool,
    ) -> plan::Decision {
        if machine.details.is_template {
            return plan::Decision::full("a template has no snapshot by which changes could be asked for");
        }
        let key = disk.key.0;
        let base = base.and_then(|base| base.record(key).ok());
        let newest = newest.and_then(|newest| newest.record(key).ok());
        Tracking { host: machine.host, base, newest, restored, trust: self.trust }.choose(disk).decision
    }

    /// Refuses a machine that is in no state to be backed up, and warns of what a point will lack.
    fn admit(&self, machine: &Machine, repository: &Repository) -> Result<()> {
        let findings = machine.findings(&self.policies, &self.quiesce, repository.is_encrypted());
        for finding in &findings {
            match finding.severity {
                Severity::Refused => {
                    let hint = finding.advice();
                    return Err(refused(&machine.details, &finding.reason(), hint));
                }
                // The guard tells of these when it comes to them.
                Severity::Warning if finding.condition != Condition::QuiesceFallback => {
                    self.events.warn(format!("{}: {finding}", machine.details.identity));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads what there is and holds the machine's journal.
    pub(super) async fn open(&self) -> Result<(Machine, VmId, Guard)> {
        let folder = self
            .journal
            .clone()
            .ok_or_else(|| Error::invalid("a backup needs a folder for its journal: Backup::journal"))?;
        let steps = Steps::new(self.vm.value(), &self.hook, self.retries, &self.events, &self.cancel);
        let machine = steps.take(Step::ReadMachine, || self.read_machine()).await?;
        let vm = identity(&machine.details)?;
        let guard = Guard::open(self, &vm, folder, &steps).await?;
        Ok((machine, vm, guard))
    }

    pub(super) async fn work(&self, repository: &Repository, abandoned: &Abandoned) -> Result<BackupReport> {
        let begun = Instant::now();
        let (machine, vm, guard) = self.open().await?;
        abandoned.note(guard.journal());
        let resume = self.resumable(&guard, &machine, repository, &vm).await;
        let recovered = match &resume {
            Some(_) => None,
            None => guard.recover().await?,
        };
        let done = self.guarded(&guard, &machine, &vm, repository, Start { resume, recovered, begun }).await;
        let leftovers = guard.undo().await;
        done.map(|report| BackupReport { leftovers, elapsed: begun.elapsed(), ..report })
    }

    /// Everything between the journal's begin and its end.
    async fn guarded(
        &self,
        guard: &Guard,
        machine: &Machine,
        vm: &VmId,
        repository: &Repository,
        start: Start,
    ) -> Result<BackupReport> {
        let steps = guard.steps();
        let details = &machine.details;
        self.admit(machine, repository)?;
        let mut left_out = self.left_out(machine);
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
        let (snapshot, fallbacks) = match &resume {
            Some(resume) => {
                self.events.send(Event::Resumed { leftover: resume.leftover.clone() });
                guard.lock(&resume.leftover.job).await?;
                (Some(resume.snapshot.clone()), resume.fallbacks.clone())
            }
            None => {
                let job = self.job(vm, repository, base.as_ref())?;
                guard.begin(job.clone()).await?;
                guard.lock(&job).await?;
                self.freeze(guard, &job, machine).await?
            }
        };
        let snapshot = snapshot.as_ref();
        // Asked now and not before: while there is a snapshot no restore begins, so no mark is missed.
        let (base, restored) = steps.once(Step::ReadMarks, self.restored(repository, base)).await?;
        let consistency = snapshot.map_or(Consistency::PoweredOff, |snapshot| consistency(snapshot, details));
        point.set_consistency(consistency);
        point.set_fallbacks(fallbacks.clone());
        self.store_objects(steps, &mut point, machine, snapshot).await?;
        let disks = match snapshot {
            Some(snapshot) => self.disks(steps, details, snapshot, &mut left_out).await?,
            None => template_disks(details, &left_out),
        };

        let budget = Budget::new(self.memory);
        let connection = steps.take(Step::Connect, || disk::connect(self)).await?;
        let job_of = |disk| DiskJob {
            backup: self,
            guard,
            resume: resume.as_ref(),
            connection: &connection,
            snapshot: snapshot.map(|snapshot| &snapshot.snapshot),
            disk,
            base: base.as_ref(),
            newest: newest.as_ref(),
            host: machine.host,
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
        if snapshot.is_none() {
            self.confirm_template(steps, machine).await?;
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
            fallbacks,
            stored,
            recovered: start.recovered,
            resumed: resume.is_some(),
            leftovers: Vec::new(),
            elapsed: start.begun.elapsed(),
        })
    }

    /// Sees to it that the disks stand still: by a snapshot, or because the machine is a template.
    async fn freeze(&self, guard: &Guard, job: &Job, machine: &Machine) -> Result<(Option<Snapshot>, Vec<Fallback>)> {
        if machine.details.is_template {
            self.confirm_template(guard.steps(), machine).await?;
            return Ok((None, Vec::new()));
        }
        let (snapshot, fallbacks) = guard.snapshot(job, self.quiesce.chain(&machine.details)).await?;
        Ok((Some(snapshot), fallbacks))
    }

    /// Checks that a template is one still and was not changed.
    async fn confirm_template(&self, steps: &Steps, machine: &Machine) -> Result<()> {
        let now = steps.take(Step::ConfirmTemplate, || self.read_machine()).await?;
        if now.details.is_template && now.change_version == machine.change_version {
            return Ok(());
        }
        let hint = "run the backup again when nobody works on it";
        Err(refused(&machine.details, "it was changed or converted while it was read as a template", Some(hint)))
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

    /// Returns the disks that are known before the snapshot to stay out of it, and tells of them.
    fn left_out(&self, machine: &Machine) -> Vec<LeftOut> {
        let left_out = self.left_out_of(machine);
        for LeftOut { key, label, reason } in &left_out {
            self.events.send(Event::DiskLeftOut { disk: *key, label: label.clone(), reason: reason.clone() });
        }
        left_out
    }

    pub(super) fn left_out_of(&self, machine: &Machine) -> Vec<LeftOut> {
        let why = |disk: &VirtualDiskInfo| match self.excluded.contains(&disk.key.0) {
            true => Some(Condition::Excluded.what().trim_end_matches('.').to_owned()),
            false => machine::obstacle(disk).map(|obstacle| obstacle.text()),
        };
        machine.details.disks.iter().filter_map(|disk| Some(plan::left_out(disk, why(disk)?))).collect()
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
    pub(super) async fn base(&self, repository: &Repository, vm: &VmId) -> Result<Option<RecoveryPoint>> {
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
    pub(super) async fn restored(
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
}

/// Returns by what a machine is known.
fn identity(details: &VmDetails) -> Result<VmId> {
    match &details.identity.instance_uuid {
        Some(uuid) => VmId::parse(uuid),
        None => Err(refused(details, Condition::NoIdentity.what(), Some(Condition::NoIdentity.advice()))),
    }
}

/// Returns a template's disks that are to be read. There is no snapshot of which changes could be asked.
fn template_disks(details: &VmDetails, left_out: &[LeftOut]) -> Vec<VirtualDiskInfo> {
    let mut disks = details.disks.clone();
    disks.retain(|disk| left_out.iter().all(|left| left.key != disk.key.0));
    for disk in &mut disks {
        disk.backing.change_id = None;
    }
    disks
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
