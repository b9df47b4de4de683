//! The order of a backup, from the first question to the last record.

use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use vsphere_vim::{
    PowerState, VirtualDiskInfo,
    vm::{Snapshot, VmDetails},
};

use crate::{
    engine::Budget,
    error::{Error, Result},
    event::Event,
    journal::{Abandoned, Job, Leftover, Record, marker},
    repository::{
        self, BackupMode, Consistency, DiskRecord, Fallback, PointId, RecoveryPoint, Repository, SetRecord, VmId,
        VmRecord, restored::Marked, storage::BoxFuture,
    },
    server,
    step::{Step, Steps},
};

use super::{
    Backup, BackupReport, DiskReport, Plan, PlannedDisk, Since,
    condition::{Condition, Severity},
    disk::{self, DiskJob, FrozenDisk},
    guard::{Guard, Limits, Ward},
    machine::Machine,
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

/// Disks that stand still.
#[derive(Debug, Default)]
pub(super) struct Frozen {
    /// `None` of a template.
    pub(super) snapshot: Option<Snapshot>,
    pub(super) fallbacks: Vec<Fallback>,
    pub(super) tracking_enabled: bool,
    /// What the point is to say of the set that it is in.
    pub(super) set: Option<SetRecord>,
}

impl Backup {
    pub(super) async fn make_plan(&self, repository: &Repository) -> Result<Plan> {
        let machine = self.read_machine().await?;
        let vm = identity(&machine.details)?;
        self.admit(&machine, repository.is_encrypted())?;
        let base = self.base(repository, &vm).await?;
        let newest = repository.latest(&vm).await?;
        let (base, marked) = self.marked(repository, base, newest.as_ref()).await?;
        let left_out = self.left_out(&machine);
        let stays = |key: i32| left_out.iter().all(|left| left.key != key);
        let planned = |disk: &VirtualDiskInfo| {
            let points = (base.as_ref(), newest.as_ref());
            let (mode, reason) = self.decision(&machine, disk, points, &marked).told();
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
        marked: &Marked,
    ) -> plan::Decision {
        if machine.details.is_template {
            return plan::Decision::full("a template has no snapshot by which changes could be asked for");
        }
        let key = disk.key.0;
        let base = base.and_then(|base| base.record(key).ok());
        let newest = newest.and_then(|newest| newest.record(key).ok());
        let enabled_now = machine.enables_tracking(self.policies.tracking);
        let tracking = Tracking {
            host: machine.host,
            base,
            newest,
            restored: marked.restored.contains(&key),
            found_wrong: marked.distrusted.get(&key).map(String::as_str),
            enabled_now,
            trust: self.trust,
        };
        tracking.choose(disk).decision
    }

    /// Refuses a machine that is in no state to be backed up, and warns of what a point will lack. `encrypts` is whether
    /// what it goes to encrypts.
    pub(super) fn admit(&self, machine: &Machine, encrypts: bool) -> Result<()> {
        let findings = machine.findings(&self.policies, &self.quiesce, encrypts);
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
            .as_deref()
            .ok_or_else(|| Error::invalid("a backup needs a folder for its journal: Backup::journal"))?;
        let steps = Steps::new(self.vm.value(), &self.hook, self.retries, &self.events, &self.cancel);
        let machine = steps.take(Step::ReadMachine, || self.read_machine()).await?;
        let vm = identity(&machine.details)?;
        let ward = Ward {
            vim: &self.vim,
            vm: &self.vm,
            id: &vm,
            journals: folder,
            events: &self.events,
            cancel: &self.cancel,
            steps: &steps,
            limits: Limits { settle: self.settle_within },
        };
        let guard = Guard::open(ward).await?;
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
        let start = Start { resume, recovered, begun };
        let done = Box::pin(self.guarded(&guard, &machine, &vm, repository, start)).await;
        if let (Some(seat), Err(error)) = (&self.seat, &done) {
            seat.leave(error);
        }
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
        self.admit(machine, repository.is_encrypted())?;
        let mut left_out = self.left_out_of_some(machine)?;
        let base = self.find_base(steps, repository, vm).await?;
        let newest = match &self.since {
            Since::Latest => base.clone(),
            _ => steps.once(Step::FindBase, async { repository.latest(vm).await }).await?,
        };
        let record = VmRecord {
            instance_uuid: vm.clone(),
            mo_ref: self.vm.value().to_owned(),
            name: details.identity.name.clone(),
        };
        let resume = start.resume;
        let job = match &resume {
            Some(resume) => resume.leftover.job.clone(),
            None => self.job(vm, repository.id().to_string(), base.as_ref().map(|base| base.id().clone()))?,
        };
        let begin = repository.begin_for(Some(&job.id), record, Consistency::Crash, self.writer);
        let mut point = steps.once(Step::BeginPoint, begin).await?;

        let Frozen { snapshot, fallbacks, tracking_enabled, set } = match &resume {
            Some(resume) => {
                self.events.send(Event::Resumed { leftover: resume.leftover.clone() });
                guard.lock(&job).await?;
                let (snapshot, fallbacks) = (Some(resume.snapshot.clone()), resume.fallbacks.clone());
                Frozen { snapshot, fallbacks, ..Frozen::default() }
            }
            None => {
                guard.begin(job.clone()).await?;
                guard.lock(&job).await?;
                Box::pin(self.freeze(guard, &job, machine, point.id())).await?
            }
        };
        let snapshot = snapshot.as_ref();
        // Asked now and not before: while there is a snapshot no restore begins, so no mark is missed.
        let (base, marked) = steps.once(Step::ReadMarks, self.marked(repository, base, newest.as_ref())).await?;
        let consistency = consistency(snapshot, details);
        point.set_consistency(consistency);
        point.set_fallbacks(fallbacks.clone());
        if let Some(set) = set {
            point.set_set(set);
        }
        self.store_objects(steps, &mut point, machine, snapshot).await?;
        let disks = self.disks(steps, details, snapshot, &mut left_out).await?;

        let reading = match &self.seat {
            Some(seat) => Some(steps.unless_cancelled(seat.reading()).await?),
            None => None,
        };
        let budget = self.budget();
        let connection = steps.take(Step::Connect, || disk::connect(self)).await?;
        let job_of = |info| DiskJob {
            frozen: FrozenDisk::new(self, guard, &connection, snapshot, info),
            resume: resume.as_ref(),
            base: base.as_ref(),
            newest: newest.as_ref(),
            host: machine.host,
            marked: &marked,
            tracking_enabled,
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
        drop(reading);

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
        if let Some(seat) = self.seat.as_ref().filter(|seat| seat.is_all_or_nothing()) {
            steps.once(Step::Flush, point.writer().finish()).await?;
            steps.unless_cancelled(seat.stored()).await?;
        }
        let (point, stored) = steps.once(Step::Commit, point.commit()).await?;
        if let Some(seat) = &self.seat {
            seat.committed().await;
        }
        self.note_commit(guard, point.id()).await;
        Ok(BackupReport {
            point,
            disks: reports,
            left_out,
            consistency,
            fallbacks,
            tracking_enabled,
            stored,
            recovered: start.recovered,
            resumed: resume.is_some(),
            leftovers: Vec::new(),
            elapsed: start.begun.elapsed(),
        })
    }

    /// Writes down that a point is visible, and tells of it. The point is there, whatever becomes of the journal.
    pub(super) async fn note_commit(&self, guard: &Guard, point: &PointId) {
        let record = Record::Committed { point: point.clone() };
        if let Err(error) = guard.record(Step::RecordCommit, record).await {
            self.events.warn(format!("{point}: {}", crate::error::in_one_line(&error)));
        }
        self.events.send(Event::Committed { point: point.clone() });
    }

    pub(super) fn budget(&self) -> Budget {
        self.shared.as_ref().map_or_else(|| Budget::new(self.memory), |shared| shared.budget().clone())
    }

    /// Sees to it that the disks stand still: by a snapshot, or because the machine is a template.
    pub(super) async fn freeze(&self, guard: &Guard, job: &Job, machine: &Machine, point: &PointId) -> Result<Frozen> {
        let (is_template, steps) = (machine.details.is_template, guard.steps());
        let tracking_enabled = match !is_template && machine.enables_tracking(self.policies.tracking) {
            true => guard.enable_tracking(job).await?,
            false => false,
        };
        if let Some(seat) = &self.seat {
            if !is_template {
                // What takes long comes before the others are met.
                guard.settle().await?;
            }
            steps.unless_cancelled(seat.ready(point)).await?;
        }
        let begun = Instant::now();
        let mut frozen = Frozen { tracking_enabled, ..Frozen::default() };
        if is_template {
            self.confirm_template(steps, machine).await?;
        } else {
            let (snapshot, fallbacks) = Box::pin(guard.snapshot(job, self.quiesce.chain(&machine.details))).await?;
            (frozen.snapshot, frozen.fallbacks) = (Some(snapshot), fallbacks);
        }
        if let Some(seat) = &self.seat {
            let made = frozen.snapshot.is_some().then(|| (begun, Instant::now()));
            frozen.set = Some(steps.unless_cancelled(seat.still(made)).await?);
        }
        Ok(frozen)
    }

    /// Checks that a template is one still and was not changed.
    pub(super) async fn confirm_template(&self, steps: &Steps, machine: &Machine) -> Result<()> {
        let now = steps.take(Step::ConfirmTemplate, || self.read_machine()).await?;
        if now.details.is_template && now.change_version == machine.change_version {
            return Ok(());
        }
        let hint = "run the backup again when nobody works on it";
        Err(refused(&machine.details, "it was changed or converted while it was read as a template", Some(hint)))
    }

    /// Who works on what. No job goes on that names no repository.
    pub(super) fn job(&self, vm: &VmId, repository: String, base: Option<PointId>) -> Result<Job> {
        let id = crate::repository::random_name()?;
        Ok(Job {
            server: server::server_name(&self.vim),
            vm: vm.to_string(),
            vm_ref: self.vm.value().to_owned(),
            snapshot_name: self.snapshot_name.clone(),
            marker: marker::of(&id),
            created: repository::now(),
            repository,
            base,
            id,
        })
    }
}

/// Returns by what a machine is known.
fn identity(details: &VmDetails) -> Result<VmId> {
    match &details.identity.instance_uuid {
        Some(uuid) => VmId::parse(uuid),
        None => Err(refused(details, Condition::NoIdentity.what(), Some(Condition::NoIdentity.advice()))),
    }
}

pub(super) fn refused(details: &VmDetails, reason: &str, hint: Option<&str>) -> Error {
    Error::Refused { vm: details.identity.to_string(), reason: reason.into(), hint: hint.map(str::to_owned) }
}

/// Says in which state the guest's data is; of a template there is no snapshot.
pub(super) fn consistency(snapshot: Option<&Snapshot>, details: &VmDetails) -> Consistency {
    let Some(snapshot) = snapshot else { return Consistency::PoweredOff };
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
