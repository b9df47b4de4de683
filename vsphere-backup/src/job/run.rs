//! The order of a job: look up, let begin, back up, verify, apply retention, report.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::watch;
use tracing::Instrument;
use vsphere_vim::Vim;

use super::{
    Candidate, Job, JobReport, MachineReport, MachineState, OnFailure, Resolved, SelectedSet, SetSummary,
    tasks::{Ending, TaskOfMachine, outcome},
};
use crate::{
    backup::Backup,
    error::{Error, ErrorKind, Result, in_one_line},
    repository::{PruneReport, RecoveryPoint, Repository, Retention, VerifyLevel, VmId, storage::BoxFuture},
    schedule::{Admission, Demand, Turns},
    server,
    task::{Figures, Outcome, TaskId, TaskKind, Total},
};

impl Job {
    pub(super) async fn work(
        &self,
        vim: &Vim,
        repository: &Repository,
        stopped: &watch::Sender<bool>,
    ) -> Result<JobReport> {
        let root = Ending::begin(&self.tasks, None, TaskKind::Job { name: self.name.clone() });
        // Until every machine has begun, nobody knows how much there is to read.
        self.tasks.progress(root.id, Figures { total: Total::Estimated(0), ..Default::default() });
        let span = tracing::info_span!("job", name = %self.name);
        let done = self.machines(vim, repository, stopped, root.id).instrument(span).await;
        root.end(outcome(done.as_ref().err()));
        self.tasks.close();
        done
    }

    async fn machines(
        &self,
        vim: &Vim,
        repository: &Repository,
        stopped: &watch::Sender<bool>,
        root: TaskId,
    ) -> Result<JobReport> {
        let (begun, at) = (Instant::now(), self.clock.seconds());
        self.tasks.phase(root, "selection");
        let selected = self.cancel.run(self.selected(vim)).await?;
        self.tasks.phase(root, "machines");
        let turns = self.scheduler.register();
        let site = Site { job: self, vim, repository, turns: &turns, stopped, root };
        let singles = selected.machines.iter().map(|machine| site.begin_machine(machine));
        let mut work: FuturesUnordered<BoxFuture<'_, Ended>> =
            singles.chain(selected.sets.iter().map(|set| site.begin_set(set))).collect();
        let (mut machines, mut sets) = (Vec::new(), Vec::new());
        let mut time = std::pin::pin!(self.scheduler.keep_time());
        while !work.is_empty() {
            tokio::select! {
                Some(ended) = work.next() => {
                    if self.on_failure == OnFailure::Stop && ended.is_bad() {
                        stopped.send_replace(true);
                    }
                    machines.extend(ended.machines);
                    sets.extend(ended.set);
                }
                never = &mut time => match never {},
            }
        }
        drop(work);
        for (vm, error) in selected.unreadable {
            self.tasks.warn(root, in_one_line(&error));
            machines.push(MachineReport::unreadable(&vm, &error));
        }
        sets.sort_by(|one, other| one.name.cmp(&other.name));
        machines.sort_by(|one, other| (&one.name, &one.vm).cmp(&(&other.name, &other.vm)));
        let mut warnings = Vec::new();
        if machines.is_empty() && sets.is_empty() {
            let warning = "no machine is selected".to_owned();
            self.tasks.warn(root, warning.clone());
            warnings.push(warning);
        }
        Ok(JobReport { job: self.name.clone(), begun: at, elapsed: begun.elapsed(), machines, sets, warnings })
    }

    async fn selected(&self, vim: &Vim) -> Result<Resolved> {
        let selected = self.selection.resolve(vim).await?;
        Ok(match &self.one_set {
            Some(name) => selected.into_one_set(name),
            None => selected,
        })
    }
}

/// A machine that a job is done with, or a set with its machines.
struct Ended {
    set: Option<SetSummary>,
    machines: Vec<MachineReport>,
}

impl Ended {
    fn is_bad(&self) -> bool {
        let is_bad = |state| matches!(state, MachineState::Failed | MachineState::Damaged);
        self.set.as_ref().is_some_and(|set| set.error.is_some())
            || self.machines.iter().any(|machine| is_bad(machine.state))
    }
}

/// What all machines of a job have in common.
pub(super) struct Site<'a> {
    pub(super) job: &'a Job,
    pub(super) vim: &'a Vim,
    pub(super) repository: &'a Repository,
    turns: &'a Turns,
    stopped: &'a watch::Sender<bool>,
    pub(super) root: TaskId,
}

impl Site<'_> {
    fn begin_machine<'a>(&'a self, machine: &'a Candidate) -> BoxFuture<'a, Ended> {
        let span = tracing::info_span!("machine", vm = %machine.vm.value(), name = %machine.name);
        let work = async move { Ended { set: None, machines: vec![self.machine(machine).await] } };
        Box::pin(work.instrument(span))
    }

    fn begin_set<'a>(&'a self, set: &'a SelectedSet) -> BoxFuture<'a, Ended> {
        let span = tracing::info_span!("set", name = %set.name);
        let work = async move {
            let (summary, machines) = self.set(set).await;
            Ended { set: Some(summary), machines }
        };
        Box::pin(work.instrument(span))
    }

    /// Backs up one machine; whatever happens is in the report.
    async fn machine(&self, machine: &Candidate) -> MachineReport {
        let mut report = MachineReport::new(machine);
        let demands = [machine.demand(self.vim)];
        let mut tries = Tries::default();
        while let Some(admission) = self.next_try(&demands, &mut tries).await {
            let done = tries.timed(self.attempt(machine, &mut report, admission)).await;
            if done.is_none_or(|error| !error.is_retryable()) {
                break;
            }
        }
        self.tell(&tries, &mut report);
        report
    }

    /// Tries once; returns why there is no point.
    async fn attempt(&self, machine: &Candidate, report: &mut MachineReport, admission: Admission) -> Option<Error> {
        let task = TaskOfMachine::begin(&self.job.tasks, self.root, machine);
        // The backup has it too: when this future is dropped, the snapshot still has to be removed.
        let admission = Arc::new(admission);
        let done = async {
            let backup = self.backup(machine).await?.admitted(admission.clone());
            task.hear(backup).run(self.repository).await
        };
        let done = done.await;
        // The snapshot is gone: the next machine of this datastore may begin.
        drop(admission);
        task.tell(report);
        let failed = match done {
            Err(error) => {
                report.failed(&error, &task.phase());
                Some(error)
            }
            Ok(done) => {
                let point = done.point.clone();
                report.backed_up(done);
                if let Some(level) = self.job.verify {
                    self.verify(&point, level, report, task.id()).await;
                }
                if let Some(retention) = &self.job.retention
                    && report.error.is_none()
                    && report.state != MachineState::Damaged
                {
                    let pruned = self.prune(&[point.id().vm().clone()].into(), retention, task.id()).await;
                    report.retained(&pruned);
                }
                None
            }
        };
        task.end(report);
        failed
    }

    pub(super) async fn backup(&self, machine: &Candidate) -> Result<Backup> {
        let job = self.job;
        let mut backup = Backup::of(self.vim, machine.vm.clone()).share(&job.scheduler).cancel(&job.cancel);
        if let Some(journal) = &job.journal {
            backup = backup.journal(journal);
        }
        if let Some(include) = &job.disks {
            let wrong = server::failed("reading the configuration", machine.vm.value());
            let details = job.cancel.run(async { self.vim.vm_details(&machine.vm).await.map_err(wrong) }).await?;
            let excluded = details.disks.iter().filter(|disk| !include(machine, disk));
            backup = excluded.fold(backup, |backup, disk| backup.exclude_disk(disk.key.0));
        }
        Ok(match &job.configure {
            Some(configure) => configure(machine, backup),
            None => backup,
        })
    }

    pub(super) async fn verify(
        &self,
        point: &RecoveryPoint,
        level: VerifyLevel,
        report: &mut MachineReport,
        machine: TaskId,
    ) {
        let tasks = &self.job.tasks;
        tasks.phase(machine, "verify");
        let task = tasks.begin(Some(machine), TaskKind::Verify);
        // What is read here is not read of the machine: it stays out of the figures.
        let verified = async {
            let pin = point.pin().await?;
            let verified = point.verify(level, &self.job.cancel, |_, _| {}).await;
            pin.release().await;
            verified
        };
        match verified.await {
            Ok(verified) => {
                report.checked(level, &verified);
                let is_sound = verified.is_sound();
                let damage = || Outcome::Failed {
                    message: format!("{} pieces of damage", verified.damage_count),
                    kind: ErrorKind::Damage,
                };
                tasks.end(task, if is_sound { Outcome::Done } else { damage() });
            }
            // The point is there; that it could not be checked is not its fault.
            Err(error) => {
                report.unchecked(&error);
                tasks.end(task, outcome(Some(&error)));
            }
        }
    }

    /// Applies retention to machines that have new, sound points.
    pub(super) async fn prune(
        &self,
        vms: &BTreeSet<VmId>,
        retention: &Retention,
        within: TaskId,
    ) -> Result<PruneReport> {
        let tasks = &self.job.tasks;
        tasks.phase(within, "retention");
        let task = tasks.begin(Some(within), TaskKind::Retention);
        let pruned = self.job.cancel.run(self.repository.prune_machines(vms, retention, false)).await;
        tasks.end(task, outcome(pruned.as_ref().err()));
        pruned
    }

    /// Waits until it may be tried, or tried again; `None` when it is not to be.
    pub(super) async fn next_try(&self, demands: &[Demand], tries: &mut Tries) -> Option<Admission> {
        if tries.count >= self.job.attempts || (tries.count > 0 && !self.pause().await) {
            return None;
        }
        let waits = Instant::now();
        let admission = tokio::select! {
            biased;
            () = self.ended() => return None,
            admission = self.turns.admit_all(demands) => admission,
        };
        tries.waited += waits.elapsed();
        tries.count += 1;
        Some(admission)
    }

    /// Writes down how often it was tried, and what became of a machine that never was.
    pub(super) fn tell(&self, tries: &Tries, report: &mut MachineReport) {
        (report.attempts, report.waited, report.elapsed) = (tries.count, tries.waited, tries.elapsed);
        if tries.count == 0 && self.job.cancel.is_stopping() {
            report.state = MachineState::Cancelled;
        }
    }

    /// Waits between two tries; `false` when there is not to be another.
    async fn pause(&self) -> bool {
        tokio::select! {
            biased;
            () = self.ended() => false,
            () = tokio::time::sleep(self.job.retry_after) => true,
        }
    }

    /// Waits until nothing more is to be begun.
    async fn ended(&self) {
        let mut stopped = self.stopped.subscribe();
        tokio::select! {
            () = self.job.cancel.stopping() => {}
            // The sender lives as long as the job.
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    }
}

/// How often something was tried.
#[derive(Debug, Default)]
pub(super) struct Tries {
    pub(super) count: u32,
    waited: Duration,
    elapsed: Duration,
}

impl Tries {
    /// Does the work of one try.
    pub(super) async fn timed<T>(&mut self, work: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let done = work.await;
        self.elapsed += begun.elapsed();
        done
    }
}
