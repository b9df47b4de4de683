//! Figures of jobs, for whatever recorder of the [`metrics`](https://docs.rs/metrics) crate the program has installed: by
//! [`Job::metrics`](crate::Job::metrics).
//!
//! | Name | Kind | Labels | What |
//! |---|---|---|---|
//! | `vsphere_backup_tasks_running` | gauge | `job`, `kind` | tasks that have begun and not ended |
//! | `vsphere_backup_tasks_total` | counter | `job`, `kind`, `outcome` | tasks that have ended |
//! | `vsphere_backup_task_seconds` | histogram | `job`, `kind`, `outcome` | how long they took |
//! | `vsphere_backup_read_bytes_total` | counter | `job` | bytes read from disks |
//! | `vsphere_backup_written_bytes_total` | counter | `job` | bytes stored of them |
//! | `vsphere_backup_warnings_total` | counter | `job`, `kind` | warnings |
//!
//! Machines are no labels: there may be thousands, and a job's report has each of them. Kinds are `job`, `set`, `machine`,
//! `snapshot`, `disk`, `verify`, `cleanUp`, `retention`; outcomes `done`, `failed`, `cancelled`, `skipped`.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use ::metrics::{counter, gauge, histogram};

use crate::task::{Outcome, TaskChange, TaskEvent, TaskId, TaskKind};

/// What is remembered of one job's tasks to make figures out of their events.
#[derive(Debug)]
pub(crate) struct JobMetrics {
    job: String,
    running: Mutex<HashMap<TaskId, Running>>,
}

#[derive(Debug)]
struct Running {
    kind: &'static str,
    begun: Instant,
    read: u64,
    written: u64,
}

impl JobMetrics {
    pub(crate) fn new(job: impl Into<String>) -> Self {
        Self { job: job.into(), running: Mutex::default() }
    }

    pub(crate) fn on(&self, event: &TaskEvent) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let job = || self.job.clone();
        if let TaskChange::Begun(kind) = &event.change {
            let kind = kind_name(kind);
            running.insert(event.task, Running { kind, begun: Instant::now(), read: 0, written: 0 });
            gauge!("vsphere_backup_tasks_running", "job" => job(), "kind" => kind).increment(1.0);
            return;
        }
        let Some(task) = running.get_mut(&event.task) else { return };
        match &event.change {
            // Those of a machine and of a job are the sums of their disks'.
            TaskChange::Progress(figures) if task.kind == "disk" => {
                let read = figures.read.saturating_sub(std::mem::replace(&mut task.read, figures.read));
                let written = figures.written.saturating_sub(std::mem::replace(&mut task.written, figures.written));
                counter!("vsphere_backup_read_bytes_total", "job" => job()).increment(read);
                counter!("vsphere_backup_written_bytes_total", "job" => job()).increment(written);
            }
            TaskChange::Warning(_) => {
                counter!("vsphere_backup_warnings_total", "job" => job(), "kind" => task.kind).increment(1);
            }
            TaskChange::Ended(outcome) => {
                let (kind, seconds, outcome) = (task.kind, task.begun.elapsed().as_secs_f64(), outcome_name(outcome));
                running.remove(&event.task);
                gauge!("vsphere_backup_tasks_running", "job" => job(), "kind" => kind).decrement(1.0);
                counter!("vsphere_backup_tasks_total", "job" => job(), "kind" => kind, "outcome" => outcome)
                    .increment(1);
                histogram!("vsphere_backup_task_seconds", "job" => job(), "kind" => kind, "outcome" => outcome)
                    .record(seconds);
            }
            _ => {}
        }
    }
}

fn kind_name(kind: &TaskKind) -> &'static str {
    match kind {
        TaskKind::Job { .. } => "job",
        TaskKind::Set { .. } => "set",
        TaskKind::Machine { .. } => "machine",
        TaskKind::Snapshot { .. } => "snapshot",
        TaskKind::Disk { .. } => "disk",
        TaskKind::Verify => "verify",
        TaskKind::CleanUp => "cleanUp",
        TaskKind::Retention => "retention",
    }
}

fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "done",
        Outcome::Failed { .. } => "failed",
        Outcome::Cancelled => "cancelled",
        Outcome::Skipped { .. } => "skipped",
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering},
        },
    };

    use ::metrics::{
        Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
        with_local_recorder,
    };

    use super::*;
    use crate::task::{Figures, Tasks};

    /// Keeps figures by name and labels; of histograms, how many values there were.
    #[derive(Default)]
    struct Kept(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

    struct Count(Arc<AtomicU64>);

    impl HistogramFn for Count {
        fn record(&self, _: f64) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Kept {
        fn of(&self, key: &Key) -> Arc<AtomicU64> {
            let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            let name = key.name().trim_start_matches("vsphere_backup_");
            self.0.lock().unwrap().entry(format!("{name} {}", labels.join(" "))).or_default().clone()
        }
    }

    impl Recorder for Kept {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.of(key))
        }
        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.of(key))
        }
        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::from_arc(Arc::new(Count(self.of(key))))
        }
    }

    #[test]
    fn what_a_job_does_arrives_as_figures() {
        let kept = Kept::default();
        with_local_recorder(&kept, || {
            let (tasks, metrics) = (Tasks::new(), JobMetrics::new("nightly"));
            tasks.on_event(move |event| metrics.on(event));
            let job = tasks.begin(None, TaskKind::Job { name: "nightly".into() });
            let machine = tasks.begin(Some(job), TaskKind::Machine { vm: "vm-1".into(), name: "web".into() });
            let disk = TaskKind::Disk {
                disk: 2000,
                label: String::new(),
                capacity: 9,
                mode: None,
                reason: String::new(),
                transport: String::new(),
            };
            let disk = tasks.begin(Some(machine), disk);
            for read in [4, 9] {
                tasks.progress(disk, Figures { read, written: read / 2, ..Default::default() });
            }
            tasks.warn(machine, "odd");
            tasks.end(disk, Outcome::Done);
            tasks.end(machine, Outcome::Cancelled);
        });
        let kept = kept.0.into_inner().unwrap();
        let figure = |name: &str| kept[name].load(Ordering::Relaxed);
        assert_eq!(figure("read_bytes_total job=nightly"), 9);
        assert_eq!(figure("written_bytes_total job=nightly"), 4);
        assert_eq!(figure("warnings_total job=nightly kind=machine"), 1);
        assert_eq!(figure("tasks_total job=nightly kind=disk outcome=done"), 1);
        assert_eq!(figure("tasks_total job=nightly kind=machine outcome=cancelled"), 1);
        assert_eq!(figure("task_seconds job=nightly kind=machine outcome=cancelled"), 1);
        assert_eq!(f64::from_bits(figure("tasks_running job=nightly kind=job")), 1.0);
        assert_eq!(f64::from_bits(figure("tasks_running job=nightly kind=machine")), 0.0);
    }
}
