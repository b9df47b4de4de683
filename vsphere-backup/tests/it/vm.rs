//! Whole virtual machines, against the simulator.

use std::sync::{Arc, Mutex};

use vsphere_backup::{
    Backup, CancelToken, Error, Event, FileFormat, Quiesce, Restore, RestoreMode, Since,
    journal::Journal,
    repository::{BackupMode, Consistency, VerifyLevel},
    step::Step,
};
use vsphere_sim::{Fault, Injection, Power};
use vsphere_vim::MoRef;

use crate::{
    site::Site,
    world::{CHUNK, MIB},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_then_incremental_then_restore_in_place_and_every_byte_is_right() {
    let site = Site::new().await;
    let before = [(2000, site.content(2000)), (2001, site.content(2001))];
    let plan = site.backup().plan(&site.repository).await.unwrap();
    assert_eq!((plan.disks.len(), plan.left_out.len(), plan.base), (2, 1, None));
    let full = site.backup().run(&site.repository).await.unwrap();
    site.assert_clean();
    site.assert_point_equals(&full.point, &before).await;
    assert!(full.disks.iter().all(|disk| disk.mode == BackupMode::Full), "{full:?}");
    assert_eq!(full.left_out.len(), 1);
    assert!(full.left_out[0].reason.contains("independent"), "{:?}", full.left_out);
    assert_eq!(full.consistency, Consistency::Crash);
    let config = full.point.object("config.json").await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&config).contains("web"));

    site.guest_writes(2000, 3 * MIB + 700, b"changed");
    let after = [(2000, site.content(2000)), (2001, site.content(2001))];
    let disk = site.sim.guest("web").unwrap().disk(2000).unwrap();
    disk.reset_counters();
    let incremental = site.backup().run(&site.repository).await.unwrap();
    site.assert_clean();
    let read = disk.counters();
    site.assert_point_equals(&incremental.point, &after).await;
    site.assert_point_equals(&full.point, &before).await;
    assert!(incremental.disks.iter().all(|disk| disk.mode == BackupMode::Incremental));
    assert_eq!(incremental.disks[0].bytes.read, CHUNK, "one chunk was changed");
    assert_eq!(incremental.disks[1].bytes.read, 0);
    assert_eq!(incremental.point.manifest().parent.as_ref(), Some(full.point.id()));
    assert_eq!(read.nfc_read, CHUNK, "the server counted {read:?}");

    // Back to the first point, writing only what differs.
    site.sim.vm("web").unwrap().set_power(Power::Off).unwrap();
    let restored =
        Restore::of(&full.point).mode(RestoreMode::OnlyDifferences).to_vm(&site.vim, site.vm()).await.unwrap();
    assert!(site.content(2000) == before[0].1 && site.content(2001) == before[1].1);
    assert_eq!(restored.disks[0].bytes.written + restored.disks[0].bytes.zeroed, CHUNK);
    assert!(restored.disks.iter().all(|disk| disk.verified));
    site.assert_clean();

    // And all of the second.
    let restored = Restore::of(&incremental.point).to_vm(&site.vim, site.vm()).await.unwrap();
    assert!(site.content(2000) == after[0].1 && site.content(2001) == after[1].1);
    assert!(restored.disks.iter().all(|disk| disk.verified));

    // The restore is noted: the next backup reads everything and stores nothing, the one after it only changes.
    site.sim.vm("web").unwrap().set_power(Power::On).unwrap();
    site.guest_writes(2001, 0, &[0; 512]);
    let next = site.backup().run(&site.repository).await.unwrap();
    assert!(next.disks.iter().all(|disk| disk.mode == BackupMode::Full), "{next:?}");
    assert!(next.disks[0].reason.contains("restored"), "{next:?}");
    assert_eq!(next.bytes().new, 0);
    site.assert_point_equals(&next.point, &after).await;
    let last = site.backup().run(&site.repository).await.unwrap();
    assert!(last.disks.iter().all(|disk| disk.mode == BackupMode::Incremental), "{last:?}");
    let report = site.repository.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_point_is_restored_into_files_of_each_format() {
    let site = Site::new().await;
    let content = site.content(2000);
    let point = site.backup().run(&site.repository).await.unwrap().point;
    for (name, format) in [
        ("disk.img", FileFormat::Raw),
        ("flat.vmdk", FileFormat::VmdkFlat),
        ("sparse.vmdk", FileFormat::VmdkSparse),
        ("stream.vmdk", FileFormat::VmdkStreamOptimized),
    ] {
        let path = site.folder.path().join(name);
        let report = Restore::of(&point).to_file(2000, &path, format).await.unwrap();
        assert!(report.disks[0].verified);
        let image = match format {
            FileFormat::Raw => vmdk::Disk::open_raw(&path, vmdk::Access::ReadOnly),
            _ => vmdk::Disk::open(&path, &vmdk::OpenOptions::new()),
        }
        .unwrap();
        let mut bytes = vec![0; image.capacity() as usize];
        image.read_at(0, &mut bytes).unwrap();
        assert!(bytes == content, "{name}");
        let again = Restore::of(&point).to_file(2000, &path, format).await;
        assert!(matches!(again, Err(Error::File { .. })), "an existing file is kept");
        Restore::of(&point).overwrite(true).to_file(2000, &path, format).await.unwrap();
    }
    let missing = Restore::of(&point).to_file(2002, "x", FileFormat::Raw).await;
    assert!(matches!(missing, Err(Error::DiskNotFound { disk: 2002, .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_of_tracking_makes_a_full_backup_with_the_reason() {
    let site = Site::new().await;
    site.backup().run(&site.repository).await.unwrap();
    site.sim.guest("web").unwrap().disk(2000).unwrap().reset_tracking();
    site.guest_writes(2000, MIB, b"unseen");
    let content = [(2000, site.content(2000))];
    let report = site.backup().run(&site.repository).await.unwrap();
    assert_eq!(report.disks[0].mode, BackupMode::Full);
    assert!(report.disks[0].reason.contains("reset"), "{}", report.disks[0].reason);
    assert_eq!(report.disks[1].mode, BackupMode::Incremental);
    site.assert_point_equals(&report.point, &content).await;
    let forced = site.backup().since(Since::Nothing).run(&site.repository).await.unwrap();
    assert!(forced.disks.iter().all(|disk| disk.mode == BackupMode::Full));
    assert_eq!(forced.bytes().new, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_call_leaves_the_server_clean_and_the_next_run_succeeds() {
    for method in [
        "DisableMethods",
        "CreateSnapshot_Task",
        "RetrievePropertiesEx",
        "NfcRandomAccessOpenReadonly",
        "QueryChangedDiskAreas",
        "RemoveSnapshot_Task",
        "EnableMethods",
    ] {
        let site = Site::new().await;
        site.backup().run(&site.repository).await.unwrap();
        site.guest_writes(2000, MIB, method.as_bytes());
        site.sim.faults().fail_next(method, Fault::new("SystemError", "injected"));
        let first = site.backup().run(&site.repository).await;
        // The second undoes what the first could not.
        let content = [(2000, site.content(2000)), (2001, site.content(2001))];
        let second = site.backup().run(&site.repository).await.unwrap();
        site.assert_clean();
        site.assert_point_equals(&second.point, &content).await;
        let points = site.repository.points(&site.id()).await.unwrap().len();
        assert_eq!(points, 2 + usize::from(first.is_ok()), "{method}: {first:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_backup_undoes_the_snapshot_and_leaves_no_point() {
    let site = Site::new().await;
    for stop_at in ["Locked", "SnapshotCreated", "DiskStarted", "DiskFinished"] {
        let cancel = CancelToken::new();
        let token = cancel.clone();
        let outcome = site
            .backup()
            .cancel(&cancel)
            .on_event(move |event| {
                if format!("{event:?}").starts_with(stop_at) {
                    token.cancel();
                }
            })
            .run(&site.repository)
            .await;
        assert!(matches!(outcome, Err(Error::Cancelled)), "{stop_at}: {outcome:?}");
        site.assert_clean();
        assert!(site.repository.points(&site.id()).await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_backup_cleans_up_in_the_background() {
    let site = Site::new().await;
    let (seen, mut wait) = tokio::sync::mpsc::unbounded_channel();
    let token = CancelToken::new();
    let backup = site.backup().cancel(&token).on_event(move |event| drop(seen.send(format!("{event:?}"))));
    let run = backup.run(&site.repository);
    let mut run = Box::pin(run);
    loop {
        tokio::select! {
            biased;
            event = wait.recv() => {
                if event.unwrap().starts_with("SnapshotCreated") {
                    break;
                }
            }
            done = &mut run => panic!("too early: {done:?}"),
        }
    }
    drop(run);
    while wait.recv().await.is_some() {}
    site.assert_clean();
    assert!(!token.is_cancelled(), "it may be that of other jobs too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crashed_run_left_is_found_through_the_journal_and_removed() {
    let site = Site::new().await;
    // A run that dies with its snapshot and lock: a runtime that is torn down under it.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let login = site.login();
    let vim = runtime.spawn(async move { login.connect().await }).await.unwrap();
    let (seen, mut wait) = tokio::sync::mpsc::unbounded_channel();
    let backup = Backup::of(&vim, site.vm()).journal(site.journals()).on_event(move |event| {
        if matches!(event, Event::DiskStarted { .. }) {
            seen.send(()).ok();
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    });
    let repository = site.repository.clone();
    runtime.spawn(async move { backup.run(&repository).await });
    wait.recv().await.unwrap();
    runtime.shutdown_background();
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    let left = site.sim.leftovers();
    assert_eq!((left.snapshots.len(), left.locks.len()), (1, 1), "{left:?}");
    assert_eq!(Journal::leftovers(&site.journals()).unwrap().len(), 1);
    assert!(site.repository.points(&site.id()).await.unwrap().is_empty());

    site.sim.vm("web").unwrap().set_power(Power::Off).unwrap();
    let found = Arc::new(Mutex::new(Vec::new()));
    let events = found.clone();
    let report = site
        .backup()
        .on_event(move |event| events.lock().unwrap().push(format!("{event:?}")))
        .run(&site.repository)
        .await
        .unwrap();
    assert!(report.recovered.is_some());
    assert!(found.lock().unwrap().iter().any(|event| event.starts_with("LeftoverFound")));
    assert_eq!(report.consistency, Consistency::PoweredOff);
    site.assert_clean();
    assert!(site.backup().clean_up().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quiescing_that_fails_falls_back_with_a_warning_or_fails_as_asked() {
    let site = Site::new().await;
    let fail = || {
        let fault = Fault::new("ApplicationQuiesceFault", "the guest did not answer");
        site.sim.faults().inject("CreateSnapshot_Task", Injection::TaskFault(fault));
    };
    fail();
    let report = site.backup().quiesce(true).run(&site.repository).await.unwrap();
    assert_eq!(report.consistency, Consistency::Crash);
    fail();
    let refused = site.backup().quiesce(Quiesce::Require).run(&site.repository).await;
    assert!(matches!(refused, Err(Error::Server { .. })), "{refused:?}");
    site.assert_clean();
    let quiesced = site.backup().quiesce(Quiesce::Require).run(&site.repository).await.unwrap();
    assert_eq!(quiesced.consistency, Consistency::FileSystem);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_backups_of_one_machine_at_once_are_refused_and_a_running_machine_is_not_restored() {
    let site = Site::new().await;
    let held = Journal::open(&site.journals(), &site.id()).unwrap();
    let second = site.backup().run(&site.repository).await;
    assert!(matches!(&second, Err(error @ Error::JournalInUse { .. }) if error.is_retryable()));
    drop(held);
    let point = site.backup().run(&site.repository).await.unwrap().point;
    let running = Restore::of(&point).to_vm(&site.vim, site.vm()).await;
    assert!(matches!(&running, Err(error @ Error::Refused { .. }) if error.hint().is_some()));
    site.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_slips_in_before_the_snapshot_makes_a_full_backup() {
    let site = Site::new().await;
    let full = site.backup().run(&site.repository).await.unwrap().point;
    site.guest_writes(2000, 0, b"to be undone by the restore");
    site.sim.vm("web").unwrap().set_power(Power::Off).unwrap();
    let (point, vim, vm) = (full.clone(), site.vim.clone(), site.vm());
    let slip_in = move |event: Event| {
        if matches!(event, Event::Locked) {
            let restore = Restore::of(&point).to_vm(&vim, vm.clone());
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(restore)).unwrap();
        }
    };
    let next = site.backup().on_event(slip_in).run(&site.repository).await.unwrap();
    assert!(next.disks.iter().all(|disk| disk.reason.contains("restored")), "{next:?}");
    site.assert_point_equals(&next.point, &[(2000, site.content(2000)), (2001, site.content(2001))]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_cannot_be_told_to_be_the_same_is_not_written() {
    let site = Site::new().await;
    let full = site.backup().run(&site.repository).await.unwrap().point;
    let vm = full.manifest().vm.clone();
    let mut point = site.repository.begin(vm, Consistency::Crash, Default::default()).await.unwrap();
    let mut disk = full.disks()[0].clone();
    disk.backing_uuid = None;
    point.add_disk(disk).unwrap();
    let (point, _) = point.commit().await.unwrap();
    site.sim.vm("web").unwrap().set_power(Power::Off).unwrap();
    let refused = Restore::of(&point).to_vm(&site.vim, site.vm()).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_while_a_snapshot_is_looked_for_leaves_it_in_the_journal() {
    let site = Site::new().await;
    site.backup().run(&site.repository).await.unwrap();
    let sim = Arc::new(site.sim);
    let faults = sim.clone();
    let fail = move |event: Event| {
        let Event::StepBegun { step, .. } = event else { return };
        let fault = || Fault::new("SystemError", "injected");
        match step {
            Step::CreateSnapshot => faults.faults().fail_next("CreateSnapshot_Task", fault()),
            Step::FindSnapshot => faults.faults().fail_next("RetrievePropertiesEx", fault()),
            _ => {}
        }
    };
    let journals = site.folder.path().join("journal");
    let backup = Backup::of(&site.vim, MoRef::new(sim.vm("web").unwrap().id())).journal(&journals);
    backup.clone().on_event(fail).run(&site.repository).await.unwrap_err();
    assert_eq!(Journal::leftovers(&journals).unwrap().len(), 1, "a snapshot may be on its way");
    assert!(backup.clean_up().await.unwrap().is_some());
    assert_eq!(Journal::leftovers(&journals).unwrap(), []);
    assert!(sim.leftovers().locks.is_empty());
}
