//! Marks of restores go with the points that they concern, and no backup misses one.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use vsphere_backup::{
    BackupReport, Clock, ClockHand, Event, Restore, Result,
    repository::{BackupMode, GcOptions, RecoveryPoint, Repository, storage::BoxFuture},
    step::{Step, StepCall, StepHook},
};
use vsphere_sim::{DiskSpec, Power};

use crate::{
    site::Site,
    world::{KIB, MIB},
};

const DAY: Duration = Duration::from_secs(25 * 3600);

/// A machine with one small disk, its point, and a restore of that since.
async fn restored() -> (Site, RecoveryPoint) {
    let site = Site::with([DiskSpec::empty(MIB)]).await;
    site.guest_writes(2000, 64 * KIB, &[7; 4096]);
    let point = site.backup().run(&site.repository).await.unwrap().point;
    site.guest_writes(2000, 512 * KIB, &[8; 4096]);
    site.sim.vm("web").unwrap().set_power(Power::Off).unwrap();
    Restore::of(&point).to_vm(&site.vim, site.vm()).await.unwrap();
    (site, point)
}

/// How many marks a collection of the day after tomorrow deletes.
async fn forgotten(repository: &Repository) -> u64 {
    let (clock, _hand): (Clock, ClockHand) = Clock::by_hand(SystemTime::now() + 2 * DAY);
    repository.collect_garbage(&GcOptions::default().clock(clock)).await.unwrap().marks
}

/// Deletes a point and collects garbage before the first call of a step.
struct Deletion {
    at: Step,
    point: Mutex<Option<RecoveryPoint>>,
    /// How many marks went.
    forgotten: Mutex<Option<u64>>,
}

impl StepHook for Deletion {
    fn before<'a>(&'a self, call: &'a StepCall) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let point = self.point.lock().unwrap().take_if(|_| call.step == self.at);
            if let Some(point) = point {
                let repository = point.repository().clone();
                point.delete().await?;
                let marks = forgotten(&repository).await;
                *self.forgotten.lock().unwrap() = Some(marks);
            }
            Ok(())
        })
    }

    fn after<'a>(&'a self, _: &'a StepCall) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// Backs up while the point that it builds on is deleted and garbage collected; returns how many marks went.
async fn deleted_at(at: Step) -> (BackupReport, u64, Vec<String>) {
    let (site, point) = restored().await;
    let deletion = Arc::new(Deletion { at, point: Mutex::new(Some(point)), forgotten: Mutex::default() });
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let told = warnings.clone();
    let tell = move |event| {
        if let Event::Warning { message } = event {
            told.lock().unwrap().push(message);
        }
    };
    let report = site.backup().step_hook(deletion.clone()).on_event(tell).run(&site.repository).await.unwrap();
    site.assert_point_equals(&report.point, &[(2000, site.content(2000))]).await;
    site.assert_clean();
    let forgotten = deletion.forgotten.lock().unwrap().expect("the step was taken");
    let warnings = warnings.lock().unwrap().clone();
    (report, forgotten, warnings)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_goes_when_the_last_point_before_it_is_gone() {
    let (site, point) = restored().await;
    assert_eq!(forgotten(&site.repository).await, 0);
    let full = site.backup().run(&site.repository).await.unwrap();
    assert!(full.disks[0].reason.contains("restored"), "{full:?}");
    assert_eq!(forgotten(&site.repository).await, 0);
    point.delete().await.unwrap();
    // Two, because a restore marks at its begin and at its end.
    assert_eq!(forgotten(&site.repository).await, 2);
    let next = site.backup().run(&site.repository).await.unwrap();
    assert_eq!(next.disks[0].mode, BackupMode::Incremental, "{next:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_whose_base_goes_together_with_its_marks_reads_all() {
    let (report, forgotten, warnings) = deleted_at(Step::BeginPoint).await;
    assert_eq!(forgotten, 2, "no writer was there yet");
    assert_eq!(report.disks[0].mode, BackupMode::Full);
    assert!(warnings.iter().any(|text| text.contains("was deleted")), "{warnings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_stay_while_a_backup_of_the_machine_runs() {
    let (report, forgotten, warnings) = deleted_at(Step::ReadMarks).await;
    assert_eq!(forgotten, 0);
    assert_eq!(report.disks[0].mode, BackupMode::Full);
    assert!(warnings.iter().any(|text| text.contains("was deleted")), "{warnings:?}");
}
