//! First Class Disks: backed up by snapshots of their own, undone like machines, restored in place.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use vsphere_backup::{
    CancelToken, ChangeTracking, Clock, Error, Event, FCD_KEY, FCD_OBJECT, FcdBackup, fcd_vm_id,
    journal::Journal,
    reaper::{Journals, Leases, Outcome, Reaper, Verdict},
    repository::{BackupMode, RecoveryPoint},
    step::Step,
};
use vsphere_sim::{DiskSpec, Fault, FcdHandle, Injection, Power, Simulator, VmSpec};
use vsphere_vim::fcd::{CreateFcd, FcdRef, FirstClassDisks, RegisterFcd};

use crate::{
    resume::HangAt,
    site::Site,
    world::{CHUNK, MIB, noise},
};

struct World {
    site: Site,
    disks: FirstClassDisks,
    disk: FcdRef,
}

impl World {
    /// The disk of a machine, registered as a First Class Disk, with some content.
    async fn new() -> Self {
        let vm = VmSpec::new("web").disk(DiskSpec::empty(2 * MIB));
        let site = Site::of(Simulator::builder().vm(vm)).await;
        let disks = site.vim.first_class_disks().unwrap();
        let path = site.sim.vm("web").unwrap().disk(2000).unwrap().path();
        let path = path.split_once("] ").unwrap().1.to_owned();
        let disk = disks.register(RegisterFcd::new("dc1", "ds1", path).name("volume")).await.unwrap().disk;
        let world = Self { site, disks, disk };
        world.handle().write_at(0, &noise(1, 5 * CHUNK)).unwrap();
        world
    }

    fn handle(&self) -> FcdHandle {
        self.site.sim.first_class_disk(self.disk.id.as_str()).unwrap()
    }

    fn backup(&self) -> FcdBackup {
        FcdBackup::of(&self.disks, self.disk.clone())
            .journal(self.site.journals())
            .change_tracking(ChangeTracking::Enable)
    }

    fn content(&self) -> Vec<u8> {
        let mut bytes = vec![0; 2 * MIB as usize];
        self.handle().read_at(0, &mut bytes).unwrap();
        bytes
    }

    async fn assert_is(&self, point: &RecoveryPoint, content: &[u8]) {
        self.site.assert_point_equals(point, &[(FCD_KEY, content.to_vec())]).await;
    }

    fn assert_clean(&self) {
        assert_eq!(self.handle().snapshots(), 0);
        assert_eq!(Journal::leftovers(&self.site.journals()).unwrap(), []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_class_disk_is_read_in_full_then_by_its_changes_and_set_back() {
    let world = World::new().await;
    // Tracking is enabled by this one; the snapshot after it is the first with a change id.
    world.backup().run(&world.site.repository).await.unwrap();
    let (first, before) = (world.backup().run(&world.site.repository).await.unwrap(), world.content());
    assert_eq!(first.mode, BackupMode::Full, "{}", first.reason);
    assert_eq!(first.point.id().vm(), &fcd_vm_id(&world.disk.id).unwrap());
    let described = first.point.object(FCD_OBJECT).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&described).contains("\"name\":\"volume\""), "{described:?}");
    world.assert_is(&first.point, &before).await;
    world.assert_clean();

    world.handle().write_at(9 * CHUNK, b"changed").unwrap();
    let second = world.backup().run(&world.site.repository).await.unwrap();
    assert_eq!((second.mode, second.bytes.read), (BackupMode::Incremental, CHUNK), "{}", second.reason);
    assert_eq!(second.point.manifest().parent.as_ref(), Some(first.point.id()));
    world.assert_is(&second.point, &world.content()).await;
    let full = world.backup().full(true).run(&world.site.repository).await.unwrap();
    assert_eq!(full.mode, BackupMode::Full);
    world.assert_clean();

    world.site.sim.vm("web").unwrap().set_power(Power::Off).unwrap();
    world.backup().restore_in_place(&first.point).await.unwrap();
    assert!(world.content() == before);
    // What a restore writes is not what is tracked.
    let next = world.backup().run(&world.site.repository).await.unwrap();
    assert!(next.mode == BackupMode::Full && next.reason.contains("restored"), "{}", next.reason);
    world.assert_is(&next.point, &before).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_no_machine_has_is_refused_before_anything_is_made() {
    let world = World::new().await;
    let store = world.disk.datastore.clone().unwrap();
    let alone = world.disks.create(CreateFcd::new("alone", &store, MIB)).await.unwrap().disk;
    let error = FcdBackup::of(&world.disks, alone.clone()).journal(world.site.journals());
    let error = error.run(&world.site.repository).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { reason, .. } if reason.contains("no machine")), "{error}");
    assert_eq!(world.site.sim.first_class_disk(alone.id.as_str()).unwrap().snapshots(), 0);
    let other = world.backup().run(&world.site.repository).await.unwrap().point;
    let error = FcdBackup::of(&world.disks, alone).journal(world.site.journals()).restore_in_place(&other).await;
    assert!(matches!(error, Err(Error::Refused { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_undone_after_errors_and_crashes_here_and_elsewhere() {
    let world = World::new().await;
    let faults = world.site.sim.faults();
    let repository = &world.site.repository;
    // An error after the snapshot is made; its answer is lost; it cannot be removed at first.
    faults.fail_next("RetrieveSnapshotDetails", Fault::new("NotFound", "injected"));
    world.backup().run(repository).await.unwrap_err();
    world.assert_clean();
    faults.inject("VStorageObjectCreateSnapshot_Task", Injection::DropAfter);
    let _ = world.backup().run(repository).await;
    world.backup().clean_up().await.unwrap();
    world.assert_clean();
    faults.fail_next_task("DeleteSnapshot_Task", Fault::new("InvalidState", "injected"));
    let report = world.backup().run(repository).await.unwrap();
    assert_eq!((report.leftovers.len(), world.handle().snapshots()), (1, 1), "{:?}", report.leftovers);
    let next = world.backup().run(repository).await.unwrap();
    assert!(next.recovered.is_some());
    world.assert_clean();

    for elsewhere in [false, true] {
        let token = CancelToken::new();
        let (cancel, seen) = (token.clone(), Arc::new(Mutex::new(false)));
        let noted = seen.clone();
        let backup = world.backup().cancel(&token).on_event(move |event| {
            if matches!(event, Event::SnapshotCreated { .. }) {
                *noted.lock().unwrap() = true;
                cancel.abandon();
            }
        });
        assert!(matches!(backup.run(repository).await, Err(Error::Abandoned)));
        assert!(*seen.lock().unwrap() && world.handle().snapshots() == 1);
        if elsewhere {
            let here = Reaper::new(Journals::in_folder(world.site.journals())).older_than(Duration::ZERO);
            let scan = here.scan(&world.site.vim).await.unwrap();
            here.reap(&world.site.vim, &scan.found).await.unwrap();
            assert_eq!(world.handle().snapshots(), 1, "a journal here names the job");
            let journals = world.site.folder.path().join("elsewhere");
            let there = Reaper::new(Journals::in_folder(journals)).older_than(Duration::ZERO);
            let scan = there.scan(&world.site.vim).await.unwrap();
            there.reap(&world.site.vim, &scan.found).await.unwrap();
            assert_eq!(world.handle().snapshots(), 0);
        }
        assert!(world.backup().clean_up().await.unwrap().is_some());
        world.assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_spared_while_its_lease_lives_and_undone_by_a_reaper_when_it_does_not() {
    let world = World::new().await;
    let (repository, token, hook) = (world.site.repository.clone(), CancelToken::new(), HangAt::new(Step::ReadDisk, 1));
    let backup = world.backup().cancel(&token).step_hook(hook.clone());
    let running = tokio::spawn(async move { backup.run(&repository).await });
    hook.hangs.notified().await;

    let (clock, hand) = Clock::by_hand(SystemTime::now());
    let reaper = |journals: Journals| {
        let leases = Leases::of(&world.site.repository).clock(&clock);
        Reaper::new(journals.spare(Duration::ZERO)).and(leases).older_than(Duration::ZERO)
    };
    let here = reaper(Journals::in_folder(world.site.journals()));
    let there = reaper(Journals::in_folder(world.site.folder.path().join("elsewhere")));
    for (reaper, witness) in [(&here, "holds"), (&there, "lease")] {
        let scan = reaper.scan(&world.site.vim).await.unwrap();
        assert!(
            matches!(&scan.found[..], [found] if matches!(&found.verdict, Verdict::Live(by) if by.contains(witness))),
            "{scan:?}"
        );
    }

    token.abandon();
    assert!(matches!(running.await.unwrap(), Err(Error::Abandoned)));
    hand.advance(Duration::from_secs(16 * 60));
    let scan = here.scan(&world.site.vim).await.unwrap();
    assert!(matches!(&scan.found[..], [found] if found.verdict == Verdict::Stale), "{scan:?}");
    // Someone else is faster at one of the two.
    for _ in 0..2 {
        let reaped = here.reap(&world.site.vim, &scan.found).await.unwrap();
        assert!(matches!(reaped[..], [ref one] if matches!(one.outcome, Outcome::Gone)), "{reaped:?}");
    }
    assert_eq!(world.handle().snapshots(), 0);
    let next = world.backup().run(&world.site.repository).await.unwrap();
    assert!(next.recovered.is_some(), "the journal is still there, and what it names is not");
    world.assert_is(&next.point, &world.content()).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_from_elsewhere_while_a_disk_is_set_back_is_not_what_changes_are_counted_from() {
    let world = World::new().await;
    let repository = &world.site.repository;
    world.backup().run(repository).await.unwrap();
    let (first, before) = (world.backup().run(repository).await.unwrap().point, world.content());
    world.handle().write_at(0, &noise(2, 5 * CHUNK)).unwrap();
    world.site.sim.vm("web").unwrap().set_power(Power::Off).unwrap();

    let hook = HangAt::new(Step::WriteDisk, 1);
    let (restore, point) = (world.backup().step_hook(hook.clone()), first.clone());
    let running = tokio::spawn(async move { restore.restore_in_place(&point).await });
    hook.hangs.notified().await;
    let elsewhere = world.backup().journal(world.site.folder.path().join("elsewhere"));
    let between = elsewhere.run(repository).await.unwrap();
    assert_eq!(between.mode, BackupMode::Full, "{}", between.reason);
    hook.go.notify_one();
    let error = running.await.unwrap().unwrap_err();
    assert!(matches!(&error, Error::Refused { reason, .. } if reason.contains("snapshotted")), "{error}");

    // The first mark is older than the point of that backup.
    let next = world.backup().run(repository).await.unwrap();
    assert!(next.mode == BackupMode::Full && next.reason.contains("restored"), "{:?}: {}", next.mode, next.reason);
    world.assert_is(&next.point, &world.content()).await;
    world.backup().restore_in_place(&first).await.unwrap();
    assert!(world.content() == before);
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_cancelled_in_either_way_ends_at_once_and_leaves_nothing() {
    let world = World::new().await;
    for stop in [CancelToken::cancel, CancelToken::cancel_gracefully] {
        let (repository, token) = (world.site.repository.clone(), CancelToken::new());
        let hook = HangAt::new(Step::ReadDisk, 1);
        let backup = world.backup().cancel(&token).step_hook(hook.clone());
        let running = tokio::spawn(async move { backup.run(&repository).await });
        hook.hangs.notified().await;
        assert_eq!(world.handle().snapshots(), 1);
        stop(&token);
        let error = running.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error:?}");
        world.assert_clean();
    }
    assert!(world.site.repository.points(&fcd_vm_id(&world.disk.id).unwrap()).await.unwrap().is_empty());
}
