//! Machines into stores of others, against the simulator.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use vsphere_backup::{
    Backup, CONFIG_OBJECT, CancelToken, Error, Event, RunningBackup, Since, SinkReport, Trust,
    journal::Journal,
    repository::{BackupMode, WriterOptions},
    step::Step,
    store::{FaultySink, PointMeta, RepositorySink, Sink},
};
use vsphere_sim::DiskSpec;

use crate::{
    resume::{self, DISK, HangAt, read, reopened},
    site::Site,
    store::{OwnStore, own},
    world::{KIB, MIB, noise},
};

type Mode = BackupMode;

async fn small() -> Site {
    let site = Site::with([DiskSpec::empty(MIB)]).await;
    site.guest_writes(2000, 64 * KIB, &noise(1, 100 * KIB));
    site
}

async fn assert_holds(sink: &dyn Sink, point: &PointMeta, disks: &[(i32, Vec<u8>)]) {
    assert_eq!(point.disks.len(), disks.len());
    for (disk, (key, content)) in point.disks.iter().zip(disks) {
        assert_eq!(disk.key, *key);
        let stored = sink.open(&disk.disk).await.unwrap();
        assert!(stored.read_at(0, content.len()).await.unwrap() == content[..], "disk {key} differs");
    }
}

fn modes(report: &SinkReport) -> Vec<Mode> {
    report.disks.iter().map(|disk| disk.mode).collect()
}

fn contents(site: &Site) -> [(i32, Vec<u8>); 2] {
    [2000, 2001].map(|key| (key, site.content(key)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_goes_into_a_store_and_then_its_changes() {
    let site = Site::new().await;
    let vm = site.id();
    let repository = RepositorySink::new(&site.repository, WriterOptions::default());
    for sink in [own(None) as Arc<dyn Sink>, Arc::new(repository)] {
        let before = contents(&site);
        let full = site.backup().run_into(sink.clone()).await.unwrap();
        site.assert_clean();
        assert_eq!((modes(&full), full.left_out.len(), &full.base), (vec![Mode::Full; 2], 1, &None));
        assert!(full.disks[0].bytes.read < 8 * MIB, "what is not allocated is not read: {:?}", full.disks[0]);

        site.guest_writes(2000, 3 * MIB + 700, b"changed");
        let after = contents(&site);
        let next = site.backup().run_into(sink.clone()).await.unwrap();
        site.assert_clean();
        assert_eq!((modes(&next), next.base.as_ref()), (vec![Mode::Incremental; 2], Some(&full.point.name)));
        let read: Vec<_> = next.disks.iter().map(|disk| disk.bytes.read).collect();
        assert!(read[0] <= 64 * KIB && read[1] == 0, "{read:?}");

        let points = sink.points(vm.as_str()).await.unwrap();
        assert_eq!(points, [full.point.clone(), next.point.clone()], "as committed, the oldest first");
        assert_holds(&*sink, &full.point, &before).await;
        assert_holds(&*sink, &next.point, &after).await;
        let config = next.point.object(CONFIG_OBJECT).unwrap();
        assert!(String::from_utf8_lossy(&config).contains("web"));
        let property = |name: &str| next.point.properties.get(name).map(String::as_str);
        assert_eq!((property("consistency"), property("vm.name")), (Some("crash"), Some("web")));
        assert_eq!(
            (property("disk.2000.mode"), property("disk.2001.mode")),
            (Some("incremental"), Some("incremental"))
        );
        assert!(property("leftOut.2002").unwrap().contains("independent"), "{:?}", next.point.properties);

        // Of the newest full point, all that changed since.
        let differential = site.backup().since(Since::Full).run_into(sink.clone()).await.unwrap();
        assert_eq!(differential.base.as_ref(), Some(&full.point.name));
        assert!(differential.disks[0].bytes.read > 0);
        assert_holds(&*sink, &differential.point, &after).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_doubt_about_changes_makes_a_disk_full() {
    let site = small().await;
    let sink = own(None);
    let run = |backup: Backup| backup.run_into(sink.clone());
    let reason = |report: &SinkReport| {
        assert_eq!(modes(report), [Mode::Full], "{report:?}");
        report.disks[0].reason.clone()
    };
    assert!(reason(&run(site.backup()).await.unwrap()).contains("no earlier point"));
    assert_eq!(modes(&run(site.backup()).await.unwrap()), [Mode::Incremental]);
    assert!(reason(&run(site.backup().trust(Trust::VerifyAll)).await.unwrap()).contains("no hashes"));
    assert!(reason(&run(site.backup().since(Since::Nothing)).await.unwrap()).contains("no earlier point"));

    site.sim.guest("web").unwrap().disk(2000).unwrap().reset_tracking();
    site.guest_writes(2000, 512 * KIB, b"unseen");
    let report = run(site.backup()).await.unwrap();
    assert!(reason(&report).contains("reset"), "{report:?}");
    assert_holds(&*sink, &report.point, &[(2000, site.content(2000))]).await;
    site.assert_clean();

    // A repository's point is none of a store.
    let point = site.backup().run(&site.repository).await.unwrap().point;
    let error = run(site.backup().since(Since::Point(point))).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_the_store_lost_makes_a_disk_full() {
    let (site, sink) = (small().await, own(None));
    let first = site.backup().run_into(sink.clone()).await.unwrap();
    sink.forget(&first.point.disks[0].disk);
    let report = site.backup().run_into(sink.clone()).await.unwrap();
    assert_eq!(modes(&report), [Mode::Full]);
    assert!(report.disks[0].reason.contains("no such parent"), "{report:?}");
    assert_holds(&*sink, &report.point, &[(2000, site.content(2000))]).await;
    site.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_every_call_of_a_store_leaves_neither_a_point_nor_anything_on_the_server() {
    let site = small().await;
    let vm = site.id();
    let (mut faults, mut freed_later) = (0, 0);
    for stored_before in [0, 1] {
        let counting = Arc::new(FaultySink::new(own(None), u64::MAX, false));
        let mut before = 0;
        for _ in 0..=stored_before {
            before = counting.operations();
            site.backup().run_into(counting.clone()).await.unwrap();
        }
        for at in 0..counting.operations() - before {
            let store = own(None);
            for _ in 0..stored_before {
                site.backup().run_into(store.clone()).await.unwrap();
            }
            let sink = FaultySink::new(store.clone(), at, false);
            let done = site.backup().run_into(Arc::new(sink)).await;
            site.assert_clean();
            let points = store.points(vm.as_str()).await.unwrap().len();
            match done {
                Err(error) => {
                    assert!(error.is_retryable() && matches!(error, Error::Sink { .. }), "{at}: {error}");
                    assert_eq!((points, store.unused()), (stored_before, 0), "{at}");
                }
                // The point is there. What could not be freed is told, and freed by the next.
                Ok(report) => {
                    assert_eq!((points, report.leftovers.len()), (stored_before + 1, 1), "{at}: {report:?}");
                    freed_later += 1;
                    site.backup().run_into(store.clone()).await.unwrap();
                    assert_eq!(store.unused(), 0, "{at}");
                }
            }
            faults += 1;
        }
        // And after it, a store that is well.
        let store = own(None);
        let report = site.backup().run_into(store.clone()).await.unwrap();
        assert_holds(&*store, &report.point, &[(2000, site.content(2000))]).await;
    }
    println!("{faults} faults of a store");
    assert!(faults > 8 && freed_later == 2, "{faults} {freed_later}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_gone_is_freed_of_everything_once_it_is_back() {
    let site = small().await;
    for at in 1..6 {
        let store = own(None);
        // From then on nothing works, to the end of the run.
        let cut = FaultySink::new(store.clone(), at, true);
        site.backup().checkpoint_every(Duration::ZERO).run_into(Arc::new(cut)).await.unwrap_err();
        site.assert_clean();
        // Backups into other places neither free it nor forget it.
        site.backup().run(&site.repository).await.unwrap();
        site.backup().run_into(own(None)).await.unwrap();
        let report = site.backup().run_into(store.clone()).await.unwrap();
        assert_holds(&*store, &report.point, &[(2000, site.content(2000))]).await;
        assert_eq!(store.unused(), 0, "{at}");
    }
}

/// Gives a backup up when it hangs.
async fn interrupt(backup: Backup, sink: Arc<dyn Sink>, step: Step, call: usize) {
    let hook = HangAt::new(step, call);
    let running = backup.step_hook(hook.clone()).start_into(sink);
    hook.hangs.notified().await;
    // Checkpoints of what was read before come to their end.
    tokio::time::sleep(Duration::from_millis(100)).await;
    running.abandon();
    running.finish().await.unwrap_err();
}

/// A store, and a way to open it as another process does.
async fn stores(site: &Site) -> [(Arc<dyn Sink>, Arc<dyn Sink>, Option<Arc<OwnStore>>); 2] {
    let ours = async || Arc::new(RepositorySink::new(&reopened(site).await, WriterOptions::default()));
    let small = own(None);
    [(small.clone(), small.clone(), Some(small)), (ours().await, ours().await, None)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_backup_goes_on_in_the_store_and_reads_no_finished_disk_again() {
    let site = resume::site().await;
    for (first, second, small) in stores(&site).await {
        let content = [(2000, site.content(2000)), (2001, site.content(2001))];
        interrupt(resume::backup(&site), first, Step::AskAllocated, 2).await;
        let left = Journal::leftovers(&site.journals()).unwrap().remove(0);
        assert_eq!(left.disks[&2000].position, None, "the first disk is done: {left:?}");
        // What the guest writes now is not in the snapshot.
        site.guest_writes(2000, 0, b"later");
        site.sim.guest("web").unwrap().disk(2000).unwrap().reset_counters();
        let report = resume::backup(&site).run_into(second.clone()).await.unwrap();
        assert!(report.resumed && report.recovered.is_none());
        assert_eq!(read(&site, 2000), 0, "a disk that is done is not opened");
        assert_holds(&*second, &report.point, &content).await;
        site.assert_clean();
        // The change ids are those of the snapshot.
        let content = [(2000, site.content(2000)), (2001, site.content(2001))];
        let next = site.backup().run_into(second.clone()).await.unwrap();
        assert_eq!(modes(&next), [Mode::Incremental; 2]);
        assert_holds(&*second, &next.point, &content).await;
        assert!(small.is_none_or(|small| small.unused() == 0));
    }
}

/// Counts from now on. The server may still be busy with what was asked for before.
async fn forget_what_was_read(site: &Site) {
    let (mut before, mut quiet) = (0, 0);
    while quiet < 5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = read(site, 2000);
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
    }
    site.sim.guest("web").unwrap().disk(2000).unwrap().reset_counters();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_goes_on_in_its_middle_or_is_begun_anew_where_the_store_forgot_it() {
    let site = resume::site().await;
    for (first, second, small) in stores(&site).await {
        for (mode, forgets) in [(Mode::Full, false), (Mode::Incremental, false), (Mode::Incremental, true)] {
            for at in (0..DISK).step_by(MIB as usize) {
                site.guest_writes(2000, at + 64 * KIB, &noise(at + 1000 + mode as u64, 4 * KIB));
            }
            let content = [(2000, site.content(2000)), (2001, site.content(2001))];
            // Far enough that a checkpoint was kept: eight runs are in flight at once.
            let call = if mode == Mode::Full { 10 } else { 38 };
            let (mut position, mut before, mut tries) = (0, 0, 0);
            while position == 0 {
                interrupt(resume::backup(&site), first.clone(), Step::ReadDisk, call).await;
                let left = Journal::leftovers(&site.journals()).unwrap().remove(0);
                if let Some(stored) = left.disks.get(&2000) {
                    (position, before) = (stored.position.unwrap(), stored.record.bytes.read);
                }
                tries += 1;
                assert!(tries < 20, "no checkpoint was kept");
            }
            assert!(position < DISK && before > 0, "{position} {before}");
            let forgets = match &small {
                Some(small) if forgets => {
                    small.forget_checkpoints();
                    true
                }
                _ => false,
            };
            forget_what_was_read(&site).await;
            let told = Arc::new(Mutex::new(Vec::new()));
            let events = told.clone();
            let backup = resume::backup(&site).on_event(move |event| match event {
                Event::Warning { message } => events.lock().unwrap().push(message),
                Event::DiskStarted { reason, .. } => events.lock().unwrap().push(reason),
                _ => {}
            });
            let report = backup.run_into(second.clone()).await.unwrap();
            let told = told.lock().unwrap().join("\n");
            assert!(report.resumed, "{mode:?}");
            assert_eq!(report.disks[0].mode, mode);
            assert_eq!((told.contains("goes on at byte"), told.contains("begun anew")), (!forgets, forgets), "{told}");
            let expected = report.disks[0].bytes.read - if forgets { 0 } else { before };
            assert_eq!(read(&site, 2000), expected, "nothing is read twice");
            assert_holds(&*second, &report.point, &content).await;
            site.assert_clean();
            assert!(small.as_ref().is_none_or(|small| small.unused() == 0));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_every_call_of_a_store_leaves_nothing_that_the_next_run_does_not_free() {
    let site = small().await;
    let backup = || site.backup().since(Since::Nothing).checkpoint_every(Duration::ZERO);
    let counting = Arc::new(FaultySink::new(own(None), u64::MAX, false));
    backup().run_into(counting.clone()).await.unwrap();
    let (mut resumed, mut kills) = (0, 0);
    for at in 0..counting.operations() {
        let store = own(None);
        let sink = Arc::new(FaultySink::hanging(store.clone(), at));
        let running = backup().start_into(sink.clone());
        while sink.operations() <= at {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        running.abandon();
        assert!(matches!(running.finish().await, Err(Error::Abandoned)), "{at}");
        let committed = store.points(site.id().as_str()).await.unwrap().len();
        let report = backup().run_into(store.clone()).await.unwrap();
        resumed += usize::from(report.resumed);
        assert_eq!(store.points(site.id().as_str()).await.unwrap().len(), committed + 1, "{at}");
        assert_holds(&*store, &report.point, &[(2000, site.content(2000))]).await;
        assert_eq!((store.unused(), report.leftovers.len()), (0, 0), "{at}");
        site.assert_clean();
        kills += 1;
    }
    println!("{kills} kills, {resumed} of them gone on with");
    assert!(kills > 8 && resumed > 2, "{kills} {resumed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_into_a_store_that_is_cancelled_leaves_nothing() {
    let (site, sink) = (small().await, own(None));
    for graceful in [false, true] {
        let token = CancelToken::new();
        let at = token.clone();
        let stop = move |event| match event {
            Event::DiskStarted { .. } if graceful => at.cancel_gracefully(),
            Event::DiskStarted { .. } => at.cancel(),
            _ => {}
        };
        let error = site.backup().cancel(&token).on_event(stop).run_into(sink.clone()).await.unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error}");
        site.assert_clean();
    }
    assert_eq!(sink.points(site.id().as_str()).await.unwrap(), []);
    assert_eq!(sink.unused(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_backup_into_a_store_left_that_died_is_undone_by_the_next() {
    let (site, sink) = (small().await, own(None));
    let mut interrupted = 0;
    for step in [Step::RecordSnapshotId, Step::ReadDisks, Step::ReadDisk, Step::Commit, Step::RecordCommit] {
        let hook = HangAt::new(step, 1);
        // In full: there is something to read each time.
        let backup = site.backup().since(Since::Nothing).step_hook(hook.clone());
        let running: RunningBackup<SinkReport> = backup.start_into(sink.clone());
        hook.hangs.notified().await;
        running.abandon();
        assert!(matches!(running.finish().await, Err(Error::Abandoned)), "{step}");
        assert_eq!(Journal::leftovers(&site.journals()).unwrap().len(), 1, "{step}");
        interrupted += 1;

        let points = sink.points(site.id().as_str()).await.unwrap().len();
        assert_eq!(points, interrupted - 1 + usize::from(step == Step::RecordCommit), "{step}");
        // A repository's backup undoes it as well, and goes on with nothing of it.
        let report = site.backup().run(&site.repository).await.unwrap();
        assert!(report.recovered.is_some() && !report.resumed, "{step}");
        site.assert_clean();
        let report = site.backup().run_into(sink.clone()).await.unwrap();
        assert_holds(&*sink, &report.point, &[(2000, site.content(2000))]).await;
        assert_eq!(sink.unused(), 0, "{step}");
    }
}
