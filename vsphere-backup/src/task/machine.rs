//! The tasks of one machine, made out of the events of its backup.

use std::collections::BTreeMap;

use super::{Figures, Outcome, TaskId, TaskKind, Tasks, Total};
use crate::{engine::Progress, event::Event};

/// Turns the events of one backup into tasks below the machine's.
#[derive(Debug)]
pub(crate) struct MachineTasks {
    tasks: Tasks,
    machine: TaskId,
    snapshot: Option<TaskId>,
    clean_up: Option<TaskId>,
    disks: BTreeMap<i32, Disk>,
    /// What a report says besides.
    pub(crate) warnings: Vec<String>,
    pub(crate) left_behind: Vec<String>,
    /// The step that was begun last.
    pub(crate) phase: String,
}

#[derive(Debug)]
struct Disk {
    task: TaskId,
    newest: Progress,
}

impl MachineTasks {
    pub(crate) fn new(tasks: &Tasks, machine: TaskId) -> Self {
        // Disks begin one after the other: until the last has, the sum is an estimate.
        tasks.progress(machine, Figures { total: Total::Estimated(0), ..Default::default() });
        Self {
            tasks: tasks.clone(),
            machine,
            snapshot: None,
            clean_up: None,
            disks: BTreeMap::new(),
            warnings: Vec::new(),
            left_behind: Vec::new(),
            phase: String::new(),
        }
    }

    pub(crate) fn on(&mut self, event: Event) {
        match event {
            Event::StepBegun { step, attempt } => {
                self.phase(step.name());
                if attempt > 1 {
                    self.tasks.warn(self.machine, format!("{} is tried for time {attempt}", step.name()));
                }
            }
            Event::Resumed { .. } => self.phase("resumed"),
            Event::LeftoverFound(_) => self.begin_clean_up(),
            Event::LeftoverRemoved => self.end_clean_up(),
            Event::DiskLeftOut { disk, label, reason } => {
                let kind = TaskKind::Disk {
                    disk,
                    label,
                    capacity: 0,
                    mode: None,
                    reason: reason.clone(),
                    transport: String::new(),
                };
                let task = self.tasks.begin(Some(self.machine), kind);
                self.tasks.end(task, Outcome::Skipped { reason });
            }
            Event::SnapshotCreated { snapshot } => {
                self.snapshot = Some(self.tasks.begin(Some(self.machine), TaskKind::Snapshot { snapshot }));
            }
            Event::DiskStarted { disk, label, capacity, mode, reason, transport } => {
                let kind = TaskKind::Disk { disk, label, capacity, mode, reason, transport };
                let task = self.tasks.begin(Some(self.machine), kind);
                self.tasks.progress(task, Figures { total: Total::Unknown, ..Default::default() });
                self.disks.insert(disk, Disk { task, newest: Progress { capacity, ..Default::default() } });
            }
            Event::DiskProgress { disk, progress } => {
                if let Some(disk) = self.disks.get_mut(&disk) {
                    disk.newest = progress;
                    self.tasks.progress(disk.task, figures(progress));
                }
            }
            Event::DiskFinished { disk, bytes } => {
                if let Some(Disk { task, newest }) = self.disks.remove(&disk) {
                    let read = bytes.read.max(newest.read);
                    let written = bytes.stored.max(newest.written);
                    self.tasks.progress(task, Figures { read, written, total: Total::Known(read), rate: 0 });
                    self.tasks.end(task, Outcome::Done);
                }
            }
            Event::Committed { .. } => {
                self.tasks.progress(self.machine, Figures { total: Total::Known(0), ..Default::default() });
                self.begin_clean_up();
            }
            Event::SnapshotRemoved => {
                if let Some(snapshot) = self.snapshot.take() {
                    self.tasks.end(snapshot, Outcome::Done);
                }
            }
            Event::Unlocked => self.end_clean_up(),
            Event::Warning { message } => {
                self.tasks.warn(self.machine, message.clone());
                keep(&mut self.warnings, message);
            }
            Event::LeftBehind { what } => {
                self.tasks.warn(self.machine, what.clone());
                keep(&mut self.left_behind, what);
            }
            _ => {}
        }
    }

    fn phase(&mut self, phase: &str) {
        if self.phase != phase {
            self.phase = phase.into();
            self.tasks.phase(self.machine, phase);
        }
    }

    fn begin_clean_up(&mut self) {
        let begin = || self.tasks.begin(Some(self.machine), TaskKind::CleanUp);
        self.clean_up.get_or_insert_with(begin);
    }

    fn end_clean_up(&mut self) {
        if let Some(task) = self.clean_up.take() {
            self.tasks.end(task, Outcome::Done);
        }
    }
}

/// What is to come is read like what is behind: an estimate, until all of the disk is behind.
fn figures(Progress { position, capacity, read, written, .. }: Progress) -> Figures {
    let total = if position >= capacity {
        Total::Known(read)
    } else if position == 0 {
        Total::Unknown
    } else {
        let estimate = u128::from(read) * u128::from(capacity) / u128::from(position);
        Total::Estimated(u64::try_from(estimate).unwrap_or(u64::MAX))
    };
    Figures { read, written, total, rate: 0 }
}

fn keep(lines: &mut Vec<String>, line: String) {
    if lines.len() < MAX_LINES {
        lines.push(line);
    }
}

/// Lines of a kind that a report keeps of one machine; the events have all.
const MAX_LINES: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{repository::DiskBytes, step::Step, task::TaskChange};

    const POINT: &str = "5029c440-0000-0000-0000-000000000001/20261122T170000.000000Z-00112233aabbccdd";

    #[test]
    fn a_backup_becomes_a_tree() {
        let tasks = Tasks::new();
        let mut events = tasks.events();
        let machine = tasks.begin(None, TaskKind::Machine { vm: "vm-42".into(), name: "web".into() });
        let mut tree = MachineTasks::new(&tasks, machine);
        let started = Event::DiskStarted {
            disk: 2000,
            label: "Hard disk 1".into(),
            capacity: 100,
            mode: None,
            reason: String::new(),
            transport: "nbdssl".into(),
        };
        let halfway = Progress { position: 50, capacity: 100, read: 20, written: 9 };
        for event in [
            Event::StepBegun { step: Step::CreateSnapshot, attempt: 1 },
            Event::SnapshotCreated { snapshot: "snapshot-1".into() },
            started,
            Event::DiskProgress { disk: 2000, progress: halfway },
            Event::DiskFinished { disk: 2000, bytes: DiskBytes { read: 30, ..Default::default() } },
            Event::Warning { message: "odd".into() },
            Event::Committed { point: crate::repository::PointId::parse(POINT).unwrap() },
            Event::SnapshotRemoved,
            Event::Unlocked,
        ] {
            tree.on(event);
        }
        tasks.end(machine, Outcome::Done);
        let mut lines = Vec::new();
        while let Some(event) = events.try_next() {
            let what = match event.change {
                TaskChange::Begun(kind) => format!("+{}", format!("{kind:?}").split(' ').next().unwrap()),
                TaskChange::Phase(phase) => phase,
                TaskChange::Progress(figures) => format!("{} of {:?}", figures.read, figures.total),
                TaskChange::Warning(text) => format!("!{text}"),
                TaskChange::Ended(outcome) => format!("-{outcome:?}"),
            };
            lines.push(format!("{} {what}", event.task));
        }
        let expected = [
            "1 +Machine",
            "1 0 of Estimated(0)",
            "1 CreateSnapshot",
            "2 +Snapshot",
            "3 +Disk",
            "3 30 of Known(30)",
            "1 30 of Estimated(30)",
            "3 -Done",
            "1 !odd",
            "1 30 of Known(30)",
            "4 +CleanUp",
            "2 -Done",
            "4 -Done",
            "1 -Done",
        ];
        assert_eq!(lines, expected);
        assert_eq!(tree.warnings, ["odd"]);
        assert_eq!(figures(halfway).total, Total::Estimated(40));
    }
}
