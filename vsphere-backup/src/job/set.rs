//! How a job backs several machines up as one set.

use std::collections::BTreeSet;

use super::{
    ErrorReport, MachineReport, MachineState, SelectedSet, SetSummary,
    run::{Site, Tries},
    tasks::{Ending, TaskOfMachine},
};
use crate::{
    backup::{Backup, BackupSet},
    error::{Error, ErrorKind, in_one_line},
    repository::{RecoveryPoint, Retention, SetOutcome},
    schedule::{Admission, Demand},
    task::{TaskId, TaskKind},
};

impl Site<'_> {
    /// Backs up a set; whatever happens is in the reports, of which there is one for each machine.
    pub(super) async fn set(&self, selected: &SelectedSet) -> (SetSummary, Vec<MachineReport>) {
        let mut summary = SetSummary::new(selected);
        let of_set = |report| MachineReport { set: Some(selected.name.clone()), ..report };
        let mut reports: Vec<_> = selected.machines.iter().map(|machine| of_set(MachineReport::new(machine))).collect();
        let demands: Vec<Demand> = selected.machines.iter().map(|machine| machine.demand(self.vim)).collect();
        let mut tries = Tries::default();
        match &selected.error {
            Some(error) => summary.error = Some(ErrorReport::new(error, "selection")),
            None => {
                while let Some(admission) = self.next_try(&demands, &mut tries).await {
                    let attempt = self.attempt_set(selected, &mut summary, &mut reports, admission);
                    if !tries.timed(attempt).await {
                        break;
                    }
                }
            }
        }
        summary.attempts = tries.count;
        reports.iter_mut().for_each(|report| self.tell(&tries, report));
        reports.extend(selected.missing.iter().map(|(vm, error)| of_set(MachineReport::unreadable(vm, error))));
        (summary, reports)
    }

    /// Tries once; tells whether it is worth another try.
    async fn attempt_set(
        &self,
        selected: &SelectedSet,
        summary: &mut SetSummary,
        reports: &mut [MachineReport],
        admission: Admission,
    ) -> bool {
        let tasks = &self.job.tasks;
        let task = Ending::begin(tasks, Some(self.root), TaskKind::Set { name: selected.name.clone() });
        let machines: Vec<_> =
            selected.machines.iter().map(|machine| TaskOfMachine::begin(tasks, task.id, machine)).collect();
        let mut failures = Vec::new();
        let mut prepared = Vec::new();
        for (at, (machine, task)) in selected.machines.iter().zip(&machines).enumerate() {
            match self.backup(machine).await {
                Ok(backup) => prepared.push((at, task.hear(backup))),
                Err(error) => failures.push((at, error)),
            }
        }
        let (at, prepared): (Vec<usize>, Vec<Backup>) = prepared.into_iter().unzip();
        let set = BackupSet::of(&selected.name, prepared);
        let set = match &self.job.configure_set {
            Some(configure) => configure(&selected.name, set),
            None => set,
        };
        summary.all_or_nothing = set.is_all_or_nothing();
        let first = failures.first().map(|(_, error)| in_one_line(error));
        let first = first.or_else(|| selected.missing.first().map(|(_, error)| in_one_line(error)));
        let ended = match first.filter(|_| summary.all_or_nothing) {
            Some(reason) => Err(given_up(&selected.name, &reason)),
            // The backups have the places too: when this future is dropped, their snapshots still have to be removed.
            None => set.cancel(&self.job.cancel).admitted(admission).run(self.repository).await,
        };
        let mut points = vec![None; reports.len()];
        let mut again = false;
        match ended {
            Ok(report) => {
                summary.ended(&report);
                // Of a member whose point is gone again because of another's failure.
                let cause = report.failures().map(|(_, error)| in_one_line(error)).next().unwrap_or_default();
                let is_lost = summary.all_or_nothing && report.outcome != SetOutcome::Complete;
                for (at, member) in at.into_iter().zip(report.members) {
                    machines[at].tell(&mut reports[at]);
                    match member.outcome {
                        Ok(_) if is_lost => failures.push((at, given_up(&selected.name, &cause))),
                        Ok(done) => {
                            points[at] = Some(done.point.clone());
                            reports[at].backed_up(done);
                        }
                        Err(error) => failures.push((at, error)),
                    }
                }
            }
            Err(error) => {
                summary.failed(&error);
                for at in at {
                    machines[at].tell(&mut reports[at]);
                    reports[at].failed(&error, "set");
                }
                again = error.is_retryable();
            }
        }
        for (at, error) in &failures {
            reports[*at].failed(error, &machines[*at].phase());
            again |= error.is_retryable();
        }
        // Members that failed only because the set was given up are refused, and name the cause too.
        let missing = selected.missing.iter().map(|(_, error)| error);
        let failed = failures.iter().map(|(_, error)| error).chain(missing);
        let cause = failed.min_by_key(|error| error.kind() == ErrorKind::Refused);
        if let Some(cause) = cause {
            summary.failed(cause);
        }
        self.settle_points(&points, reports, &machines, task.id).await;
        machines.into_iter().zip(&*reports).for_each(|(task, report)| task.end(report));
        task.end(ErrorReport::outcome(summary.error.as_ref()));
        again
    }

    /// Verifies the new points, and applies retention when every machine has a sound one.
    async fn settle_points(
        &self,
        points: &[Option<RecoveryPoint>],
        reports: &mut [MachineReport],
        machines: &[TaskOfMachine],
        set: TaskId,
    ) {
        if let Some(level) = self.job.verify {
            for ((point, report), task) in points.iter().zip(&mut *reports).zip(machines) {
                if let Some(point) = point {
                    self.verify(point, level, report, task.id()).await;
                }
            }
        }
        let is_sound = |report: &MachineReport| report.error.is_none() && report.state != MachineState::Damaged;
        if let Some(retention) = &self.job.retention
            && points.iter().all(Option::is_some)
            && reports.iter().all(is_sound)
        {
            self.retain_set(points.iter().flatten(), retention, reports, set).await;
        }
    }

    async fn retain_set<'p>(
        &self,
        points: impl Iterator<Item = &'p RecoveryPoint>,
        retention: &Retention,
        reports: &mut [MachineReport],
        set: TaskId,
    ) {
        let vms: BTreeSet<_> = points.map(|point| point.id().vm().clone()).collect();
        let pruned = self.prune(&vms, retention, set).await;
        reports.iter_mut().for_each(|report| report.retained(&pruned));
    }
}

fn given_up(set: &str, reason: &str) -> Error {
    Error::Refused { vm: set.to_owned(), reason: format!("the set is given up: {reason}"), hint: None }
}
