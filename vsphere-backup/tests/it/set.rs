//! Several machines as one set: together, all or nothing, and undone for every member.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use vsphere_backup::{
    Backup, BackupSet, CancelToken, Error, Event, Restore, Result, Retries, SetReport,
    journal::Journal,
    repository::{SetOutcome, VmId, storage::BoxFuture},
    schedule::{Demand, ScheduleLimits, Scheduler},
    step::{Step, StepCall, StepHook},
};
use vsphere_sim::{DiskSpec, Power, Simulator, VmSpec};
use vsphere_vim::{MoRef, mo, types::methods::CreateVApp, vm::Relocation};

use crate::{
    site::Site,
    world::{CHUNK, MIB, noise},
};

pub(crate) const NAMES: [&str; 3] = ["db", "app", "web"];

/// Three machines with a disk each.
pub(crate) async fn site() -> Site {
    let vm = |name| VmSpec::new(name).disk(DiskSpec::empty(MIB)).change_tracking(true);
    let site = Site::of(NAMES.into_iter().map(vm).fold(Simulator::builder(), |sim, vm| sim.vm(vm))).await;
    for (seed, name) in NAMES.into_iter().enumerate() {
        write(&site, name, &noise(seed as u64, 3 * CHUNK));
    }
    site
}

pub(crate) fn write(site: &Site, name: &str, bytes: &[u8]) {
    site.sim.guest(name).unwrap().disk(2000).unwrap().write_at(0, bytes).unwrap();
}

pub(crate) fn vm(site: &Site, name: &str) -> MoRef<mo::VirtualMachine> {
    MoRef::new(site.sim.vm(name).unwrap().id())
}

pub(crate) fn id(site: &Site, name: &str) -> VmId {
    VmId::parse(&site.sim.vm(name).unwrap().instance_uuid()).unwrap()
}

pub(crate) fn content(site: &Site, name: &str) -> Vec<u8> {
    let mut bytes = vec![0; MIB as usize];
    site.sim.vm(name).unwrap().disk(2000).unwrap().read_at(0, &mut bytes).unwrap();
    bytes
}

fn backup(site: &Site, vm: MoRef<mo::VirtualMachine>) -> Backup {
    let moment = Duration::from_millis(1);
    Backup::of(&site.vim, vm).journal(site.journals()).retries(Retries::default().pauses(moment, moment))
}

fn set(site: &Site) -> BackupSet {
    BackupSet::of("shop", NAMES.map(|name| backup(site, vm(site, name))))
}

/// How many points of each machine are listed.
pub(crate) async fn seen(site: &Site) -> Vec<usize> {
    let mut counts = Vec::new();
    for name in NAMES {
        counts.push(site.repository.points(&id(site, name)).await.unwrap().len());
    }
    counts
}

fn assert_whole(report: &SetReport) {
    assert_eq!(report.outcome, SetOutcome::Complete, "{:?}", report.failures().collect::<Vec<_>>());
    assert_eq!(report.points().count(), NAMES.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_snapshots_are_made_before_anything_is_read_and_the_points_name_the_set() {
    let site = site().await;
    let order: Arc<Mutex<Vec<&str>>> = Arc::default();
    let members = NAMES.map(|name| {
        let order = order.clone();
        backup(&site, vm(&site, name)).on_event(move |event| match event {
            Event::SnapshotCreated { .. } => order.lock().unwrap().push("snapshot"),
            Event::DiskStarted { .. } => order.lock().unwrap().push("read"),
            _ => {}
        })
    });
    let report = BackupSet::of("shop", members).parallel_machines(1).run(&site.repository).await.unwrap();
    assert_whole(&report);
    assert_eq!(*order.lock().unwrap(), ["snapshot", "snapshot", "snapshot", "read", "read", "read"]);
    site.assert_clean();
    assert_eq!(seen(&site).await, [1, 1, 1]);

    let first = report.points().next().unwrap();
    let record = first.set().unwrap();
    assert_eq!((record.id.as_str(), record.name.as_str()), (report.id.as_str(), "shop"));
    assert_eq!(u128::from(record.spread_millis), report.spread.as_millis());
    // Any of them leads to all.
    let points = first.points_of_set().await.unwrap();
    for (name, point) in NAMES.into_iter().zip(&points) {
        assert_eq!(point.id().vm(), &id(&site, name));
        site.assert_point_equals(point, &[(2000, content(&site, name))]).await;
    }
    // And back, machine by machine.
    let before = NAMES.map(|name| content(&site, name));
    for (name, point) in NAMES.into_iter().zip(&points) {
        write(&site, name, b"what the restore undoes");
        site.sim.vm(name).unwrap().set_power(Power::Off).unwrap();
        Restore::of(point).to_vm(&site.vim, vm(&site, name)).await.unwrap();
    }
    assert!(NAMES.map(|name| content(&site, name)) == before);
    // The next one builds on it.
    write(&site, "app", b"changed");
    for name in NAMES {
        site.sim.vm(name).unwrap().set_power(Power::On).unwrap();
    }
    assert_whole(&set(&site).run(&site.repository).await.unwrap());
    site.assert_clean();
}

/// A vApp `shop` with `db`, and in it another with `app`.
pub(crate) async fn vapp(site: &Site) -> MoRef<mo::VirtualApp> {
    let (pool, folder) = (MoRef::<mo::ResourcePool>::new("resgroup-9"), MoRef::<mo::Folder>::new("group-v3"));
    let outer = CreateVApp { name: "shop".into(), vm_folder: Some(folder), ..Default::default() };
    let outer = site.vim.invoke(&pool, outer).await.unwrap();
    let inner = CreateVApp { name: "inner".into(), ..Default::default() };
    let inner = site.vim.invoke(&outer.clone().cast::<mo::ResourcePool>(), inner).await.unwrap();
    for (name, vapp) in [("db", &outer), ("app", &inner)] {
        site.vim.relocate(&vm(site, name), Relocation::new().pool(&vapp.clone().cast())).await.unwrap();
    }
    outer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vapp_is_a_set_with_what_is_nested_in_it_in_the_order_of_its_start() {
    let site = site().await;
    let outer = vapp(&site).await;
    let prepared = BackupSet::of_vapp(&site.vim, &outer, |vm| backup(&site, vm)).await.unwrap();
    assert_eq!(prepared.machines().cloned().collect::<Vec<_>>(), [vm(&site, "db"), vm(&site, "app")]);
    let report = prepared.run(&site.repository).await.unwrap();
    assert_eq!((report.name.as_str(), report.outcome, report.points().count()), ("shop", SetOutcome::Complete, 2));
    site.assert_clean();
    let none = BackupSet::of_vapp(&site.vim, &MoRef::new("resgroup-v999"), |vm| backup(&site, vm)).await;
    assert!(matches!(none, Err(Error::Invalid { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_s_failure_gives_up_the_whole_set_or_only_itself() {
    let site = site().await;
    for (step, whole) in
        [Step::CreateSnapshot, Step::ReadDisk, Step::Commit].into_iter().flat_map(|step| [(step, true), (step, false)])
    {
        let before = seen(&site).await;
        let members = NAMES.map(|name| {
            let member = backup(&site, vm(&site, name));
            write(&site, name, format!("{step} {whole}").as_bytes());
            if name == "app" { member.step_hook(Arc::new(FailsAt(step))) } else { member }
        });
        let report = BackupSet::of("shop", members).all_or_nothing(whole).run(&site.repository).await.unwrap();
        let what = format!("{step}, {whole}: {report:?}");
        assert_eq!(report.outcome, SetOutcome::GivenUp, "{what}");
        site.assert_clean();
        let added: Vec<_> = seen(&site).await.iter().zip(before).map(|(now, then)| now - then).collect();
        assert_eq!(added, if whole { [0, 0, 0] } else { [1, 0, 1] }, "{what}");
        assert_eq!(report.points().count(), added.iter().sum::<usize>(), "{what}");
        let told = |error: &Error| format!("{error:?}").contains("injected");
        assert!(report.failures().all(|(_, error)| told(error)), "each failure names the cause: {what}");
    }
    assert_whole(&set(&site).run(&site.repository).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_begins_when_there_is_room_for_all_its_snapshots() {
    let site = site().await;
    let scheduler = Scheduler::new(ScheduleLimits::default().per_datastore(3));
    let other = Demand::of(&site.vim, &vm(&site, "web")).await.unwrap();
    assert!(other.host.is_some() && other.datastores.len() == 1, "{other:?}");
    let turns = scheduler.register();
    let place = turns.admit(&other).await;
    // Two places are free, which is one too few.
    let running = tokio::spawn({
        let (set, repository) = (set(&site).schedule(&scheduler), site.repository.clone());
        async move { set.run(&repository).await }
    });
    while scheduler.counts() != (1, 3) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!running.is_finished() && site.sim.leftovers().snapshots.is_empty());
    drop(place);
    assert_whole(&running.await.unwrap().unwrap());
    assert_eq!(scheduler.counts(), (0, 0));
    site.assert_clean();

    // One that is stopped while it waits begins nothing and gives its place up.
    let place = turns.admit(&other).await;
    for abandoned in [false, true] {
        let token = CancelToken::new();
        let waits = set(&site).schedule(&scheduler).cancel(&token).run(&site.repository);
        let stop = async {
            while scheduler.counts() != (1, 3) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if abandoned { token.abandon() } else { token.cancel_gracefully() }
        };
        match tokio::join!(waits, stop).0 {
            Err(Error::Abandoned) => assert!(abandoned),
            Err(Error::Cancelled) => assert!(!abandoned),
            other => panic!("{other:?}"),
        }
        assert_eq!(scheduler.counts(), (1, 0));
    }
    assert_eq!(seen(&site).await, [1, 1, 1]);
    drop(place);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_beyond_the_limits_begins_all_the_same_and_is_read_within_them() {
    let site = site().await;
    let scheduler = Scheduler::new(ScheduleLimits::default().per_datastore(2).per_host(1));
    let order: Arc<Mutex<Vec<&str>>> = Arc::default();
    let members = NAMES.map(|name| {
        let order = order.clone();
        backup(&site, vm(&site, name)).on_event(move |event| match event {
            Event::SnapshotCreated { .. } => order.lock().unwrap().push("snapshot"),
            Event::DiskStarted { .. } => order.lock().unwrap().push("read"),
            Event::DiskFinished { .. } => order.lock().unwrap().push("end"),
            _ => {}
        })
    });
    let whole = BackupSet::of("shop", members).parallel_machines(3).schedule(&scheduler);
    assert_whole(&whole.run(&site.repository).await.unwrap());
    let one_by_one = ["read", "end"].repeat(3);
    assert_eq!(*order.lock().unwrap(), [["snapshot"; 3].as_slice(), &one_by_one].concat());
    site.assert_clean();
}

pub(crate) struct FailsAt(pub(crate) Step);

impl StepHook for FailsAt {
    fn before<'a>(&'a self, call: &'a StepCall) -> BoxFuture<'a, Result<()>> {
        let fails = call.step == self.0;
        let error = || Error::Refused { vm: "app".into(), reason: "injected".into(), hint: None };
        Box::pin(async move { if fails { Err(error()) } else { Ok(()) } })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_that_is_cancelled_or_dropped_leaves_no_member_s_snapshot() {
    let site = site().await;
    for dropped in [false, true] {
        let token = CancelToken::new();
        let cancel = token.clone();
        let (over, mut ended) = tokio::sync::mpsc::unbounded_channel::<()>();
        let (begun, reads) = tokio::sync::oneshot::channel();
        let begun = Mutex::new(Some(begun));
        let first = backup(&site, vm(&site, "db")).on_event(move |event| {
            let _ = &over;
            if matches!(event, Event::DiskStarted { .. }) {
                if !dropped {
                    cancel.cancel();
                }
                let _ = begun.lock().unwrap().take().map(|begun| begun.send(()));
            }
        });
        // What is dropped must not be done before.
        let first =
            if dropped { first.step_hook(Arc::new(HangsAt(Step::ReadDisk, Default::default()))) } else { first };
        let others = ["app", "web"].map(|name| backup(&site, vm(&site, name)));
        let set = BackupSet::of("shop", [first].into_iter().chain(others)).cancel(&token);
        if dropped {
            tokio::select! {
                biased;
                Ok(()) = reads => {}
                done = set.run(&site.repository) => panic!("{done:?}"),
            }
            assert_eq!(ended.recv().await, None);
            // The handler's member may end before the others.
            let is_at_work = || {
                let left = site.sim.leftovers();
                !left.snapshots.is_empty() || !left.locks.is_empty() || left.tasks > 0 || left.open_layers > 0
            };
            while is_at_work() || !Journal::leftovers(&site.journals()).unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        } else {
            let report = set.run(&site.repository).await.unwrap();
            assert_eq!(report.failures().count(), 3, "{report:?}");
        }
        site.assert_clean();
        assert_eq!(seen(&site).await, [0, 0, 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_whose_process_died_between_the_points_is_given_up_by_the_next_one() {
    let site = site().await;
    assert_whole(&set(&site).run(&site.repository).await.unwrap());
    // One member never comes to its commit, and the whole process dies there.
    let hook = Arc::new(HangsAt(Step::Commit, tokio::sync::Notify::new()));
    let token = CancelToken::new();
    let committed = Arc::new(Mutex::new(0));
    let members = NAMES.map(|name| {
        let committed = committed.clone();
        let member = backup(&site, vm(&site, name)).on_event(move |event| {
            *committed.lock().unwrap() += usize::from(matches!(event, Event::Committed { .. }));
        });
        if name == "web" { member.step_hook(hook.clone()) } else { member }
    });
    let running = BackupSet::of("shop", members).cancel(&token).run(&site.repository);
    let kill = async {
        hook.1.notified().await;
        while *committed.lock().unwrap() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        token.abandon();
    };
    let (report, ()) = tokio::join!(running, kill);
    assert_eq!(report.unwrap().outcome, SetOutcome::GivenUp);
    assert_eq!(seen(&site).await, [1, 1, 1], "what is committed of it is not seen");
    assert!(!site.sim.leftovers().snapshots.is_empty());

    let report = set(&site).run(&site.repository).await.unwrap();
    assert_whole(&report);
    assert_eq!(seen(&site).await, [2, 2, 2]);
    site.assert_clean();
    assert_eq!(site.repository.settle_sets(0).await.unwrap(), []);
}

pub(crate) struct HangsAt(pub(crate) Step, pub(crate) tokio::sync::Notify);

impl StepHook for HangsAt {
    fn before<'a>(&'a self, call: &'a StepCall) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if call.step == self.0 {
                self.1.notify_one();
                std::future::pending::<()>().await;
            }
            Ok(())
        })
    }
}
