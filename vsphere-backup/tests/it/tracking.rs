//! What a backup of a machine makes of change tracking that is wrong, and what it builds on.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use vsphere_backup::{
    ChangeTracking, Condition, Event, Restore, RestoreMode, Since, Trust,
    reaper::{Journals, Reaper},
    repository::{BackupMode, RecoveryPoint},
    step::Step,
};
use vsphere_sim::{DiskSpec, Fault, Power, Simulator, VmSpec};
use vsphere_vim::CreateSnapshotOptions;

use crate::{
    resume::HangAt,
    site::Site,
    steps::{How, Trip},
    world::{CHUNK, MIB, noise},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_tracking_missed_means_a_full_backup_and_no_trust_until_all_was_compared() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("disk.raw");
    std::fs::write(&raw, noise(1, 20 * CHUNK)).unwrap();
    let site = Site::with([DiskSpec::raw_file(&raw)]).await;
    let events: Arc<Mutex<Vec<Event>>> = Arc::default();
    let backup = || {
        let events = events.clone();
        site.backup().on_event(move |event| events.lock().unwrap().push(event))
    };
    backup().run(&site.repository).await.unwrap();

    site.guest_writes(2000, 3 * CHUNK, b"told");
    // Behind the back of the machine, as a defect of a server looks like.
    File::options().write(true).open(&raw).unwrap().write_all_at(b"not told", 10 * CHUNK + 7).unwrap();
    let content = [(2000, site.content(2000))];
    let report = backup().trust(Trust::VerifyAll).run(&site.repository).await.unwrap();
    assert_eq!(report.disks[0].mode, BackupMode::Full);
    assert!(report.disks[0].reason.contains("had changed"), "{:?}", report.disks[0].reason);
    assert!(report.point.disks()[0].distrust.is_some());
    site.assert_point_equals(&report.point, &content).await;
    let found = |events: &[Event]| {
        events
            .iter()
            .any(|event| matches!(event, Event::TrackingDistrusted { disk: 2000, offset } if *offset == 10 * CHUNK))
    };
    assert!(found(&events.lock().unwrap()));

    // Nobody asks for it, and still all is compared.
    site.guest_writes(2000, 5 * CHUNK, b"told again");
    let content = [(2000, site.content(2000))];
    let report = backup().run(&site.repository).await.unwrap();
    assert_eq!(report.disks[0].mode, BackupMode::Incremental);
    assert_eq!((report.disks[0].bytes.read, report.disks[0].bytes.audited), (CHUNK, 19 * CHUNK));
    assert_eq!(report.point.disks()[0].distrust, None);
    assert!(events.lock().unwrap().iter().any(|event| matches!(event, Event::TrackingTrusted { disk: 2000 })));
    site.assert_point_equals(&report.point, &content).await;

    let report = backup().run(&site.repository).await.unwrap();
    assert_eq!((report.disks[0].bytes.read, report.disks[0].bytes.audited), (0, 0));
    site.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distrust_is_not_forgotten_by_a_full_backup() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("disk.raw");
    std::fs::write(&raw, noise(1, 4 * CHUNK)).unwrap();
    let site = Site::with([DiskSpec::raw_file(&raw)]).await;
    site.backup().run(&site.repository).await.unwrap();
    File::options().write(true).open(&raw).unwrap().write_all_at(b"not told", CHUNK).unwrap();
    site.backup().trust(Trust::Sample(1.0)).run(&site.repository).await.unwrap();
    let full = site.backup().since(Since::Nothing).run(&site.repository).await.unwrap();
    assert_eq!(full.disks[0].mode, BackupMode::Full);
    assert!(full.point.disks()[0].distrust.is_some());
    let next = site.backup().run(&site.repository).await.unwrap();
    assert_eq!((next.disks[0].mode, next.disks[0].bytes.audited), (BackupMode::Incremental, 4 * CHUNK));
    assert_eq!(next.point.disks()[0].distrust, None);
}

/// A machine with one disk of 20 chunks and a point, of which tracking then missed a change.
async fn with_a_missed_change(folder: &Path) -> (Site, RecoveryPoint, Vec<u8>) {
    let raw = folder.join("disk.raw");
    std::fs::write(&raw, noise(1, 20 * CHUNK)).unwrap();
    let site = Site::with([DiskSpec::raw_file(&raw)]).await;
    let before = site.content(2000);
    let first = site.backup().run(&site.repository).await.unwrap().point;
    File::options().write(true).open(&raw).unwrap().write_all_at(b"not told", 10 * CHUNK).unwrap();
    (site, first, before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missed_change_that_was_found_is_not_forgotten_when_the_backup_fails_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let (site, ..) = with_a_missed_change(folder.path()).await;
    let content = [(2000, site.content(2000))];
    let trip = Trip::new(Some((Step::Commit, How::Error)));
    let failed = site.backup().trust(Trust::VerifyAll).step_hook(trip).run(&site.repository).await;
    assert!(failed.is_err());
    // What was found there by reading all of it, nobody finds again by chance.
    let plan = site.backup().plan(&site.repository).await.unwrap();
    assert!(plan.disks[0].reason.contains("found wrong"), "{plan:?}");
    let next = site.backup().run(&site.repository).await.unwrap();
    site.assert_point_equals(&next.point, &content).await;
    assert_eq!(next.disks[0].mode, BackupMode::Full);
    assert!(next.point.disks()[0].distrust.as_ref().is_some_and(|found| found.contains("had changed")));
    // And tracking is not believed before all was compared once.
    let third = site.backup().run(&site.repository).await.unwrap();
    assert_eq!((third.disks[0].mode, third.disks[0].bytes.audited), (BackupMode::Incremental, 20 * CHUNK));
    assert_eq!(third.point.disks()[0].distrust, None);
    let fourth = site.backup().run(&site.repository).await.unwrap();
    assert_eq!((fourth.disks[0].mode, fourth.disks[0].bytes.audited), (BackupMode::Incremental, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missed_change_counts_for_all_points_before_it_also_when_tracking_is_believed_again() {
    let folder = tempfile::tempdir().unwrap();
    let (site, first, before) = with_a_missed_change(folder.path()).await;
    let now = [(2000, site.content(2000))];
    site.backup().trust(Trust::VerifyAll).run(&site.repository).await.unwrap();
    let trusted = site.backup().run(&site.repository).await.unwrap();
    assert_eq!(trusted.point.disks()[0].distrust, None);
    // What changed since the first point is still told wrong.
    let second = site.backup().since(Since::Point(first.clone())).run(&site.repository).await.unwrap();
    assert_eq!(second.disks[0].mode, BackupMode::Full);
    site.assert_point_equals(&second.point, &now).await;
    site.sim.vm("web").unwrap().set_power(Power::Off).unwrap();
    let restore = Restore::of(&first).mode(RestoreMode::OnlyDifferences).journal(site.journals());
    let warnings: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = warnings.clone();
    restore
        .change_tracking(true)
        .on_event(move |event| told.lock().unwrap().push(format!("{event:?}")))
        .to_vm(&site.vim, site.vm())
        .await
        .unwrap();
    assert!(site.content(2000) == before, "the missed change is undone too");
    assert!(warnings.lock().unwrap().iter().any(|text| text.contains("not believed")), "{warnings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_goes_on_compares_what_the_interrupted_one_believed() {
    let site = Site::with([DiskSpec::empty(8 * MIB), DiskSpec::empty(MIB)]).await;
    site.guest_writes(2000, 0, &noise(1, 8 * MIB));
    site.backup().run(&site.repository).await.unwrap();
    site.guest_writes(2000, MIB, b"told");
    let backup = || site.backup().parallel_disks(1).checkpoint_every(Duration::ZERO);
    // The first disk is stored, and the second not begun.
    let hook = HangAt::new(Step::AskAllocated, 2);
    let running = backup().step_hook(hook.clone()).start(&site.repository);
    hook.hangs.notified().await;
    running.abandon();
    running.finish().await.unwrap_err();
    let report = backup().trust(Trust::VerifyAll).run(&site.repository).await.unwrap();
    assert!(report.resumed);
    let bytes = report.disks[0].bytes;
    assert_eq!((report.disks[0].mode, bytes.read + bytes.audited), (BackupMode::Incremental, 8 * MIB));
    site.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_differential_backup_builds_on_the_last_full_one() {
    let site = Site::new().await;
    let full = site.backup().run(&site.repository).await.unwrap();
    site.guest_writes(2000, 0, b"one");
    let second = site.backup().run(&site.repository).await.unwrap();
    assert_eq!(second.point.manifest().parent.as_ref(), Some(full.point.id()));
    site.guest_writes(2000, 2 * CHUNK, b"two");
    let content = [(2000, site.content(2000))];
    let third = site.backup().since(Since::Full).run(&site.repository).await.unwrap();
    assert_eq!(third.point.manifest().parent.as_ref(), Some(full.point.id()));
    assert_eq!(third.disks[0].bytes.read, 2 * CHUNK);
    site.assert_point_equals(&third.point, &content).await;
    let forced = site.backup().since(Since::Nothing).run(&site.repository).await.unwrap();
    assert!(forced.disks.iter().all(|disk| disk.mode == BackupMode::Full));
}

/// A machine whose change tracking is off, with a point.
async fn untracked() -> Site {
    let site = Site::of(Simulator::builder().vm(VmSpec::new("web").disk(DiskSpec::empty(MIB)))).await;
    site.guest_writes(2000, 0, &noise(1, 3 * CHUNK));
    let report = site.backup().run(&site.repository).await.unwrap();
    assert!(!report.tracking_enabled && report.point.disks()[0].change_id.is_none());
    site
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tracking_that_is_asked_for_is_enabled_and_the_next_backup_reads_changes() {
    let site = untracked().await;
    let backup = || site.backup().change_tracking(ChangeTracking::Enable);
    let plan = backup().preflight(&site.repository).await.unwrap();
    assert_eq!(plan.findings_of(Condition::TrackingToBeEnabled).count(), 1, "{:?}", plan.findings);
    assert!(!site.sim.vm("web").unwrap().change_tracking(), "to look changes nothing");

    let events: Arc<Mutex<Vec<Event>>> = Arc::default();
    let told = events.clone();
    let report = backup().on_event(move |event| told.lock().unwrap().push(event)).run(&site.repository).await.unwrap();
    assert!(report.tracking_enabled);
    let disk = &report.disks[0];
    assert_eq!(disk.mode, BackupMode::Full);
    assert!(disk.reason.contains("was enabled by this backup") && plan.disks[0].reason == disk.reason, "{disk:?}");
    let order: Vec<_> = events
        .lock()
        .unwrap()
        .iter()
        .filter_map(|event| match event {
            Event::TrackingEnabled => Some("enabled"),
            Event::SnapshotCreated { .. } => Some("snapshot"),
            _ => None,
        })
        .collect();
    assert_eq!(order, ["enabled", "snapshot"]);
    site.assert_clean();

    site.guest_writes(2000, 5 * CHUNK, b"told");
    let content = [(2000, site.content(2000))];
    let report = backup().run(&site.repository).await.unwrap();
    assert!(!report.tracking_enabled, "it is on");
    assert_eq!((report.disks[0].mode, report.disks[0].bytes.read), (BackupMode::Incremental, CHUNK));
    site.assert_point_equals(&report.point, &content).await;
    site.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_forbids_tracking_is_told_before_and_the_backup_is_full() {
    let site = untracked().await;
    site.vim.create_snapshot(&site.vm(), CreateSnapshotOptions::new("of somebody")).await.unwrap();
    let backup = || site.backup().change_tracking(ChangeTracking::Enable);
    let blocked = |preflight: vsphere_backup::Preflight, condition| {
        let found = preflight.findings_of(condition).next().cloned();
        found.unwrap_or_else(|| panic!("{:?}", preflight.findings)).to_string()
    };
    let preflight = backup().preflight(&site.repository).await.unwrap();
    assert!(blocked(preflight, Condition::TrackingBlocked).contains("1 snapshots"));
    let report = backup().run(&site.repository).await.unwrap();
    assert!(!report.tracking_enabled && report.disks[0].mode == BackupMode::Full);
    assert!(!site.sim.vm("web").unwrap().change_tracking());
    assert_eq!(site.sim.vm("web").unwrap().snapshots(), ["of somebody"]);

    let old = VmSpec::new("web").disk(DiskSpec::empty(MIB)).hardware_version(4);
    let site = Site::of(Simulator::builder().vm(old)).await;
    let backup = || site.backup().change_tracking(ChangeTracking::Enable);
    let preflight = backup().preflight(&site.repository).await.unwrap();
    assert!(blocked(preflight, Condition::TrackingUnsupported).contains("virtual hardware 4"));
    assert!(!backup().run(&site.repository).await.unwrap().tracking_enabled);
    site.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn enabling_that_fails_or_is_cut_short_leaves_no_snapshot() {
    for (how, step) in [How::Error, How::LostAnswer, How::Hang]
        .into_iter()
        .flat_map(|how| [Step::RecordTracking, Step::EnableTracking].map(|step| (how, step)))
    {
        let site = untracked().await;
        let trip = Trip::new(Some((step, how)));
        let backup = site.backup().change_tracking(ChangeTracking::Enable).step_hook(trip.clone());
        let running = backup.start(&site.repository);
        if how == How::Hang {
            trip.tripped.notified().await;
            running.abandon();
        }
        let outcome = running.finish().await;
        let what = format!("{how:?} at {step}: {outcome:?}");
        // A refusal of the server is a warning.
        assert_eq!(outcome.is_ok(), step == Step::EnableTracking && how != How::Hang, "{what}");
        let content = [(2000, site.content(2000))];
        let next = site.backup().change_tracking(ChangeTracking::Enable).run(&site.repository).await.unwrap();
        site.assert_point_equals(&next.point, &content).await;
        site.assert_clean();
        assert!(site.sim.vm("web").unwrap().change_tracking(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_enabling_left_is_removed_at_once_by_the_next_run_or_by_the_reaper() {
    let site = untracked().await;
    let busy = || Fault::new("TaskInProgress", "something else is under way");
    site.sim.faults().fail_next_task("RemoveSnapshot_Task", busy());
    let report = site.backup().change_tracking(ChangeTracking::Enable).run(&site.repository).await.unwrap();
    assert_eq!(report.leftovers, [""; 0]);
    site.assert_clean();

    for reaped in [false, true] {
        let site = untracked().await;
        // The process dies while it waits for the removal to begin.
        site.sim.faults().delay_next("RemoveSnapshot_Task", Duration::from_secs(60));
        let running = site.backup().change_tracking(ChangeTracking::Enable).start(&site.repository);
        while site.sim.vm("web").unwrap().snapshots().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        running.abandon();
        running.finish().await.unwrap_err();
        assert_eq!(site.sim.leftovers().snapshots.len(), 1);
        if reaped {
            let elsewhere = Journals::in_folder(site.folder.path().join("elsewhere"));
            let reaper = Reaper::new(elsewhere).older_than(Duration::ZERO);
            let scan = reaper.scan(&site.vim).await.unwrap();
            reaper.reap(&site.vim, &scan.found).await.unwrap();
            assert!(site.sim.leftovers().snapshots.is_empty());
        } else {
            assert!(site.backup().clean_up().await.unwrap().is_some());
            site.assert_clean();
        }
    }
}
