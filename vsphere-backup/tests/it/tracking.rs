//! What a backup of a machine makes of change tracking that is wrong, and what it builds on.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    sync::{Arc, Mutex},
};

use vsphere_backup::{Event, Since, Trust, repository::BackupMode};
use vsphere_sim::DiskSpec;

use crate::{
    site::Site,
    world::{CHUNK, noise},
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
