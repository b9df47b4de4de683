//! Jobs of many machines, against the simulator.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use tempfile::TempDir;
use vsphere_backup::{
    CancelToken, ErrorKind, Job,
    job::{JobReport, MachineState, OnFailure, Selection},
    repository::{CreateOptions, Repository, Retention, VerifyLevel, VmId, storage::BoxFuture},
    schedule::{ScheduleLimits, Scheduler},
    step::{Step, StepCall, StepHook},
    task::{Outcome, TaskChange, TaskEvent, TaskId, TaskKind},
};
use vsphere_sim::{DiskSpec, Fault, Injection, Simulator, VmSpec};
use vsphere_vim::{
    Credentials, ManagedObjectReference, MoRef, Vim, mo,
    types::{VirtualMachineConfigSpec, methods::CreateVApp},
};

use crate::world::{CHUNK, KIB, MIB, noise};

/// Machines `vm-a` to `vm-e`, each with two disks of 1 MiB.
struct Plant {
    sim: Simulator,
    vim: Vim,
    folder: TempDir,
    repository: Repository,
}

const NAMES: [&str; 5] = ["vm-a", "vm-b", "vm-c", "vm-d", "vm-e"];

impl Plant {
    async fn new() -> Self {
        let machine =
            |name: &&str| VmSpec::new(name).disk(DiskSpec::empty(MIB)).disk(DiskSpec::empty(MIB)).change_tracking(true);
        let sim = NAMES.iter().map(machine).fold(Simulator::builder(), |sim, vm| sim.vm(vm)).start().await.unwrap();
        for (at, name) in NAMES.iter().enumerate() {
            sim.guest(name).unwrap().disk(2000).unwrap().write_at(0, &noise(at as u64, 100 * KIB)).unwrap();
        }
        let credentials = Credentials::password(sim.username(), sim.password());
        let pin: vsphere_vim::Thumbprint = sim.thumbprint_sha256().parse().unwrap();
        let vim = Vim::builder(sim.url()).credentials(credentials).thumbprint(pin).connect().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let options = CreateOptions::default().chunk_size(CHUNK as u32);
        let repository = Repository::create_local(folder.path().join("repo"), options).await.unwrap();
        Self { sim, vim, folder, repository }
    }

    fn job(&self, selection: Selection) -> Job {
        Job::new("nightly", selection).journal(self.folder.path().join("journal")).attempts(1, Duration::ZERO)
    }

    fn all(&self) -> Job {
        self.job(Selection::all(&self.vim))
    }

    async fn pool(&self) -> MoRef<mo::ResourcePool> {
        self.vim.find_inventory("*/host/*/Resources").await.unwrap().remove(0).object.cast()
    }

    /// Makes a machine in a new folder, or a new vApp, which is returned.
    async fn new_machine(&self, name: &str, in_vapp: bool) -> ManagedObjectReference {
        let folder = self.vim.find_inventory("*/vm").await.unwrap().remove(0).object.cast::<mo::Folder>();
        let pool = self.pool().await;
        let spec = VirtualMachineConfigSpec { name: Some(name.into()), ..Default::default() };
        if in_vapp {
            let vapp = CreateVApp { name: format!("{name}-vapp"), vm_folder: Some(folder), ..Default::default() };
            let vapp = self.vim.invoke(&pool, vapp).await.unwrap();
            self.vim.create_vm_in_vapp(&vapp, None, spec).await.unwrap();
            vapp.erase()
        } else {
            let folder = self.vim.create_folder(&folder, &format!("{name}-folder")).await.unwrap();
            self.vim.create_vm(&folder, &pool, None, spec).await.unwrap();
            folder.erase()
        }
    }

    async fn points(&self, name: &str) -> usize {
        let id = VmId::parse(&self.sim.vm(name).unwrap().instance_uuid()).unwrap();
        self.repository.points(&id).await.unwrap().len()
    }

    fn assert_clean(&self) {
        let left = self.sim.leftovers();
        assert!(left.snapshots.is_empty() && left.locks.is_empty() && left.open_layers == 0, "{left:?}");
    }
}

fn names(report: &JobReport) -> Vec<&str> {
    report.machines.iter().map(|machine| machine.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_machines_are_backed_up_verified_told_and_reported() {
    let plant = Plant::new().await;
    let job = plant.all().verify(VerifyLevel::Full).disks(|_, disk| disk.key.0 == 2000);
    let events = job.events();
    let heard = tokio::spawn(events.collect::<Vec<TaskEvent>>());
    let report = job.run(&plant.vim, &plant.repository).await.unwrap();
    plant.assert_clean();
    assert_eq!(names(&report), NAMES);
    for machine in &report.machines {
        // The second disk is left out as the caller wishes, which is nothing to be warned of.
        assert_eq!((machine.state, machine.attempts), (MachineState::Done, 1), "{machine:?}");
        assert_eq!(machine.left_out[0].reason, "The caller left the disk out", "{machine:?}");
        assert_eq!((machine.disks.len(), machine.disks[0].bytes.read), (1, 2 * CHUNK), "{machine:?}");
        let verified = machine.verified.as_ref().unwrap();
        assert!(verified.is_full && verified.damage == 0 && verified.chunks == 2, "{verified:?}");
        assert_eq!(plant.points(&machine.name).await, 1);
    }
    assert!(report.is_complete());
    let written = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<JobReport>(&written).unwrap(), report);

    // The tree: every task began and ended, the job's figures are the sum.
    let heard = heard.await.unwrap();
    let mut open: BTreeMap<TaskId, &TaskKind> = BTreeMap::new();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut read = 0;
    for event in &heard {
        match &event.change {
            TaskChange::Begun(kind) => {
                open.insert(event.task, kind);
                let kind = match kind {
                    TaskKind::Job { .. } => "job",
                    TaskKind::Machine { .. } => "machine",
                    TaskKind::Snapshot { .. } => "snapshot",
                    TaskKind::Disk { .. } => "disk",
                    TaskKind::Verify => "verify",
                    _ => "other",
                };
                *kinds.entry(kind).or_default() += 1;
            }
            TaskChange::Progress(figures) if event.parent.is_none() => read = figures.read,
            TaskChange::Ended(outcome) => {
                let kind = open.remove(&event.task).unwrap();
                assert!(matches!(outcome, Outcome::Done | Outcome::Skipped { .. }), "{kind:?}: {outcome:?}");
            }
            _ => {}
        }
    }
    assert!(open.is_empty(), "{open:?}");
    assert_eq!(kinds["job"], 1);
    assert_eq!((kinds["machine"], kinds["snapshot"], kinds["verify"], kinds["disk"]), (5, 5, 5, 10));
    assert_eq!(read, report.bytes().read);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_failure_stops_no_other_and_is_reported_with_the_servers_name_for_it() {
    let plant = Plant::new().await;
    let fail = || {
        let fault = Fault::new("InsufficientResourcesFault", "injected");
        plant.sim.faults().inject("CreateSnapshot_Task", Injection::TaskFault(fault));
    };
    fail();
    let report = plant.all().run(&plant.vim, &plant.repository).await.unwrap();
    plant.assert_clean();
    assert_eq!((report.count(MachineState::Failed), report.count(MachineState::Done)), (1, 4), "{report:?}");
    let failed = report.machines.iter().find(|machine| machine.state == MachineState::Failed).unwrap();
    let error = failed.error.as_ref().unwrap();
    assert_eq!((error.kind, error.fault.as_deref()), (ErrorKind::Server, Some("InsufficientResourcesFault")));
    assert!(!report.is_complete() && failed.point.is_none());
    assert_eq!(plant.points(&failed.name).await, 0);

    // With the other policy, one at a time, nothing is begun behind it.
    fail();
    let one = Scheduler::new(ScheduleLimits::default().machines(1));
    let job = plant.all().scheduler(&one).on_failure(OnFailure::Stop);
    let report = job.run(&plant.vim, &plant.repository).await.unwrap();
    assert_eq!((report.count(MachineState::Failed), report.count(MachineState::NotBegun)), (1, 4), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_are_selected_by_reference_path_container_and_predicate() {
    let plant = Plant::new().await;
    let path = plant.sim.vm("vm-a").unwrap().inventory_path();
    let folder = path.rsplit_once('/').unwrap().0.to_owned();
    let vm = |name: &str| MoRef::new(plant.sim.vm(name).unwrap().id());
    let gone = MoRef::new("vm-4711");
    // A folder and a vApp, with a machine each.
    let in_folder = plant.new_machine("in-folder", false).await;
    let in_vapp = plant.new_machine("in-vapp", true).await;
    let of_sim = |name: &str| NAMES.contains(&name);
    let table = [
        (Selection::vm(vm("vm-b")), vec!["vm-b"]),
        (Selection::vms([vm("vm-b"), vm("vm-a"), vm("vm-b")]), vec!["vm-a", "vm-b"]),
        (Selection::path(format!("{folder}/vm-[cd]")), vec!["vm-c", "vm-d"]),
        (
            Selection::path(format!("{folder}/*")).except_path(format!("{folder}/vm-[b-d]")).and_vm(vm("vm-a")),
            vec!["vm-a", "vm-e"],
        ),
        (Selection::all(&plant.vim).matching(|machine| machine.name.as_str() > "vm-c"), vec!["vm-d", "vm-e"]),
        (Selection::below(in_folder.clone()), vec!["in-folder"]),
        (Selection::below(in_vapp.clone()), vec!["in-vapp"]),
        (Selection::below(in_vapp).and_below(in_folder).and_vm(vm("vm-a")), vec!["in-folder", "in-vapp", "vm-a"]),
        (Selection::below(plant.pool().await).matching(move |machine| of_sim(&machine.name)), NAMES.to_vec()),
        (Selection::vms([gone.clone(), vm("vm-c")]), vec!["vm-c"]),
    ];
    for (selection, expected) in table {
        let found = selection.resolve(&plant.vim).await.unwrap();
        let names: Vec<_> = found.machines.iter().map(|machine| machine.name.as_str()).collect();
        assert_eq!(names, expected, "{selection:?}");
        for machine in &found.machines {
            assert!(machine.host.is_some() && !machine.datastores.is_empty(), "{machine:?}");
        }
    }
    let report = plant.job(Selection::vm(gone)).run(&plant.vim, &plant.repository).await.unwrap();
    let error = report.machines[0].error.as_ref().unwrap();
    assert_eq!(error.fault.as_deref(), Some("ManagedObjectNotFound"), "{report:?}");
    let none = plant.job(Selection::path("nowhere/**")).run(&plant.vim, &plant.repository).await.unwrap();
    assert_eq!((none.machines.len(), none.warnings.len()), (0, 1));
}

/// Looks at the simulator again and again, and keeps the most snapshots that there ever were at once.
struct Watch {
    most: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    fn of(plant: &Arc<Plant>) -> Self {
        let most = Arc::new(AtomicUsize::new(0));
        let (of, plant) = (most.clone(), plant.clone());
        let task = tokio::spawn(async move {
            loop {
                of.fetch_max(plant.sim.leftovers().snapshots.len(), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        Self { most, task }
    }

    /// A look at a moment at which there surely is one.
    fn look(plant: &Arc<Plant>, most: &Arc<AtomicUsize>) -> impl Fn(&TaskEvent) + Send + Sync + 'static {
        let (plant, most) = (plant.clone(), most.clone());
        move |event| {
            if is_snapshot(event) {
                most.fetch_max(plant.sim.leftovers().snapshots.len(), Ordering::Relaxed);
            }
        }
    }

    fn most(self) -> usize {
        self.task.abort();
        self.most.load(Ordering::Relaxed)
    }
}

fn is_snapshot(event: &TaskEvent) -> bool {
    matches!(event.change, TaskChange::Begun(TaskKind::Snapshot { .. }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_jobs_share_the_limit_of_snapshots_on_a_datastore() {
    let plant = Arc::new(Plant::new().await);
    let scheduler = Scheduler::new(ScheduleLimits::default().per_datastore(2));
    let watch = Watch::of(&plant);
    let job = |names: &'static [&str]| {
        let selection = Selection::all(&plant.vim).matching(|machine| names.contains(&machine.name.as_str()));
        plant.job(selection).scheduler(&scheduler).on_event(Watch::look(&plant, &watch.most))
    };
    let one = job(&NAMES[..3]).start(&plant.vim, &plant.repository);
    let other = job(&NAMES[3..]).start(&plant.vim, &plant.repository);
    let (one, other) = (one.finish().await.unwrap(), other.finish().await.unwrap());
    assert!(one.is_complete() && other.is_complete(), "{one:?} {other:?}");
    assert_eq!((one.machines.len(), other.machines.len()), (3, 2));
    let most = watch.most();
    assert!((1..=2).contains(&most), "{most} snapshots at once");
    assert_eq!(scheduler.counts(), (0, 0));
    plant.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_job_keeps_its_places_until_its_snapshots_are_gone() {
    let plant = Arc::new(Plant::new().await);
    let scheduler = Scheduler::new(ScheduleLimits::default().per_datastore(1));
    let watch = Watch::of(&plant);
    let job = || plant.all().scheduler(&scheduler).on_event(Watch::look(&plant, &watch.most));
    let dropped = job().start(&plant.vim, &plant.repository);
    let mut events = dropped.events();
    while !is_snapshot(&events.next().await.unwrap()) {}
    // The removal takes its time.
    plant.sim.faults().delay_next("RemoveSnapshot_Task", Duration::from_millis(80));
    drop(dropped);
    let report = job().run(&plant.vim, &plant.repository).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(watch.most(), 1);
    plant.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_follows_a_new_sound_point_and_spares_machines_without_one() {
    let plant = Plant::new().await;
    for _ in 0..2 {
        assert!(plant.all().run(&plant.vim, &plant.repository).await.unwrap().is_complete());
    }
    let vm_a = VmId::parse(&plant.sim.vm("vm-a").unwrap().instance_uuid()).unwrap();
    let oldest = plant.repository.points(&vm_a).await.unwrap().remove(0);
    plant.repository.point(&oldest).await.unwrap().hold("court", None).await.unwrap();
    plant.sim.faults().fail_next_task("CreateSnapshot_Task", Fault::new("InsufficientResourcesFault", "injected"));
    let job = plant.all().retention(Retention::keep().last(1)).scheduler(&Scheduler::default());
    let report = job.run(&plant.vim, &plant.repository).await.unwrap();
    assert_eq!(report.count(MachineState::Failed), 1, "{report:?}");
    for machine in &report.machines {
        let left = plant.points(&machine.name).await;
        let held = usize::from(machine.name == "vm-a");
        match &machine.retained {
            None => assert_eq!((machine.state, left), (MachineState::Failed, 2)),
            Some(retained) => {
                assert_eq!((left, retained.deleted.len(), retained.spared.len()), (1 + held, 2 - held, held));
                assert_eq!(retained.kept as usize, left);
            }
        }
    }
    plant.assert_clean();
}

/// Deletes each point as soon as it is committed.
struct Deletes(Repository);

impl StepHook for Deletes {
    fn before<'a>(&'a self, _: &'a StepCall) -> BoxFuture<'a, vsphere_backup::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn after<'a>(&'a self, call: &'a StepCall) -> BoxFuture<'a, vsphere_backup::Result<()>> {
        Box::pin(async move {
            if call.step == Step::Commit {
                for vm in self.0.vms().await? {
                    self.0.latest(&vm).await?.expect("it was committed").delete().await?;
                }
            }
            Ok(())
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_point_that_cannot_be_verified_does_not_count_as_sound_and_nothing_is_pruned_for_it() {
    let plant = Plant::new().await;
    let vm = || Selection::vm(MoRef::new(plant.sim.vm("vm-a").unwrap().id()));
    let hook = Arc::new(Deletes(plant.repository.clone()));
    let job = plant.job(vm()).verify(VerifyLevel::Full).retention(Retention::keep().last(1));
    let job = job.configure(move |_, backup| backup.step_hook(hook.clone()));
    let report = job.run(&plant.vim, &plant.repository).await.unwrap();
    let machine = &report.machines[0];
    assert_eq!((machine.state, report.is_complete()), (MachineState::Unverified, false), "{report:?}");
    assert!(machine.point.is_some() && machine.verified.is_none() && machine.retained.is_none(), "{report:?}");
    assert_eq!(machine.error.as_ref().unwrap().at, "verify");
    // Whoever does not ask for that is told what there is.
    assert!(plant.job(vm()).run(&plant.vim, &plant.repository).await.unwrap().is_complete());
    plant.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_gracefully_what_runs_ends_and_cancelled_it_is_undone() {
    let plant = Plant::new().await;
    let one = || Scheduler::new(ScheduleLimits::default().machines(1));
    let running = plant.all().scheduler(&one()).start(&plant.vim, &plant.repository);
    let mut events = running.events();
    while !is_snapshot(&events.next().await.unwrap()) {}
    running.stop_gracefully();
    let report = running.finish().await.unwrap();
    assert_eq!((report.count(MachineState::Done), report.count(MachineState::NotBegun)), (1, 4), "{report:?}");
    plant.assert_clean();

    let token = CancelToken::new();
    let running = plant.all().scheduler(&one()).cancel(&token).start(&plant.vim, &plant.repository);
    let mut events = running.events();
    while !is_snapshot(&events.next().await.unwrap()) {}
    token.cancel();
    let report = running.finish().await.unwrap();
    assert_eq!(report.count(MachineState::Cancelled), 5, "{report:?}");
    while events.next().await.is_some() {}
    plant.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_that_may_pass_is_tried_again() {
    let plant = Plant::new().await;
    let vm = MoRef::new(plant.sim.vm("vm-a").unwrap().id());
    plant.sim.faults().fail_next("CreateSnapshot_Task", Fault::new("TaskInProgress", "injected"));
    let job = plant.job(Selection::vm(vm)).attempts(3, Duration::from_millis(1));
    let report = job.run(&plant.vim, &plant.repository).await.unwrap();
    assert!(report.is_complete() && report.machines[0].attempts <= 2, "{report:?}");
    plant.assert_clean();
}
