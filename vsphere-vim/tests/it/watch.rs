//! Watches and the inventory in memory, against our simulator.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::timeout;
use vsphere_sim::{DiskSpec, Injection, Personality, Power, Simulator, SimulatorBuilder, VmSpec};
use vsphere_vim::{
    CreateSnapshotOptions, Credentials, MoRef, Poly, PropertyPath, RetryPolicy, Thumbprint, Vim,
    mo::{self, VirtualMachine},
    property::{Property, Query, RetrieveCall, Selection, UpdateCall},
    property_struct,
    types::{VirtualDevice, VirtualMachineConfigSpec, VirtualMachineRuntimeInfo},
    version::WireVersion,
    watch::{InventoryChange, Watch, WatchEvent},
};

const MIB: u64 = 1 << 20;

fn vms(names: &[&str]) -> SimulatorBuilder {
    let spec = |name: &&str| VmSpec::new(name).disk(DiskSpec::empty(MIB)).power(Power::Off);
    names.iter().map(spec).fold(Simulator::builder(), SimulatorBuilder::vm)
}

fn builder(sim: &Simulator) -> vsphere_vim::VimBuilder {
    let pin: Thumbprint = sim.thumbprint_sha256().parse().unwrap();
    let retry = RetryPolicy::default().back_off(Duration::from_millis(1), Duration::from_millis(20));
    Vim::builder(sim.url())
        .credentials(Credentials::password(sim.username(), sim.password()))
        .thumbprint(pin)
        .retry(retry)
}

async fn connect(sim: &Simulator) -> Vim {
    builder(sim).connect().await.unwrap()
}

fn vm(sim: &Simulator, name: &str) -> MoRef<VirtualMachine> {
    MoRef::new(sim.vm(name).unwrap().id())
}

async fn rename(vim: &Vim, vm: &MoRef<VirtualMachine>, name: &str) {
    let spec = VirtualMachineConfigSpec { name: Some(name.into()), ..Default::default() };
    vim.reconfigure(vm, spec).await.unwrap();
}

/// Ends the session and checks that nothing is left on the server.
async fn close(vim: Vim, sim: Simulator) {
    for _ in 0..200 {
        let left = sim.leftovers();
        if left.session_objects == 0 && left.retrievals == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    vim.logout().await.unwrap();
    let left = sim.leftovers();
    assert!(left.is_clean(), "{left:?}");
    sim.shutdown().await;
}

type Names = PropertyPath<VirtualMachine, String>;

fn names(vim: &Vim) -> Query<VirtualMachine, Names> {
    vim.properties::<VirtualMachine>().select(VirtualMachine::NAME)
}

/// An event in short: `+web`, `~web name`, `-vm-1001`, `complete`.
fn told(event: &WatchEvent<VirtualMachine, Property<String>>) -> String {
    let name = |value: &Property<String>| value.as_present().cloned().unwrap_or_else(|| "?".into());
    match event {
        WatchEvent::Entered(row) => format!("+{}", name(&row.values)),
        WatchEvent::Changed(row, paths) => format!("~{} {}", name(&row.values), paths.join(",")),
        WatchEvent::Left(vm) => format!("-{}", vm.value()),
        WatchEvent::Complete => "complete".into(),
        other => format!("{other:?}"),
    }
}

/// The next event, soon.
async fn next<S: Selection<VirtualMachine>>(
    watch: &mut Watch<VirtualMachine, S>,
) -> WatchEvent<VirtualMachine, S::Values> {
    timeout(Duration::from_secs(20), watch.try_next()).await.expect("an event comes").unwrap().expect("no end")
}

/// Everything that is told at the beginning, sorted.
async fn first_sight(watch: &mut Watch<VirtualMachine, Names>) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        match told(&next(watch).await) {
            event if event == "complete" => break,
            event => all.push(event),
        }
    }
    all.sort();
    all
}

const EVERY_CALL: [UpdateCall; 3] = [
    UpdateCall::WaitForUpdatesEx,
    UpdateCall::WaitForUpdates,
    UpdateCall::CheckForUpdates { every: Duration::from_millis(100) },
];

#[tokio::test]
async fn everything_is_told_then_what_changes_by_every_way_and_every_call() {
    for by_view in [false, true] {
        for call in EVERY_CALL {
            let sim = vms(&["a", "b", "c"]).start().await.unwrap();
            let vim = connect(&sim).await;
            let all = vim.properties::<VirtualMachine>();
            let all = if by_view { all.by_view() } else { all };
            let mut watch = all.select(VirtualMachine::NAME).page_size(2).updates_by(call).watch();
            assert_eq!(first_sight(&mut watch).await, ["+a", "+b", "+c"], "{by_view} {call:?}");
            let (a, b) = (vm(&sim, "a"), vm(&sim, "b"));
            rename(&vim, &a, "x").await;
            assert_eq!(told(&next(&mut watch).await), "~x name");
            sim.vm("b").unwrap().unregister();
            assert_eq!(told(&next(&mut watch).await), format!("-{}", b.value()));
            assert_eq!(watch.row(&a).unwrap().values, Property::Present("x".into()));
            assert_eq!((watch.rows().count(), watch.row(&b).is_none()), (2, true));
            watch.close().await;
            assert_eq!(sim.leftovers().session_objects, 0, "{by_view} {call:?}");
            close(vim, sim).await;
        }
    }
}

#[tokio::test]
async fn parts_of_large_values_are_merged_into_what_a_fresh_read_gives() {
    let sim = vms(&["web"]).start().await.unwrap();
    let vim = connect(&sim).await;
    let web = vm(&sim, "web");
    type Devices = Vec<Poly<VirtualDevice>>;
    let devices: PropertyPath<VirtualMachine, Devices> = PropertyPath::new("config.hardware.device");
    let file: PropertyPath<VirtualMachine, String> = PropertyPath::new("config.hardware.device[2000].backing.fileName");
    let selection = (VirtualMachine::CONFIG, devices, file, VirtualMachine::RUNTIME);
    let mut watch = vim.properties().of([&web]).select(selection).watch();
    let WatchEvent::Entered(row) = next(&mut watch).await else { panic!("it enters first") };
    let before = row.values.2.present().unwrap();
    assert!(matches!(next(&mut watch).await, WatchEvent::Complete));
    vim.power_on(&web).await.unwrap();
    let snapshot = vim.create_snapshot(&web, CreateSnapshotOptions::new("s")).await.unwrap();
    // The tasks' own changes come in any number of updates.
    let seen = loop {
        let WatchEvent::Changed(row, paths) = next(&mut watch).await else { panic!("only changes come") };
        assert!(!paths.is_empty());
        let on = row.values.3.as_present().is_some_and(|runtime| runtime.power_state.as_str() == "poweredOn");
        if on && row.values.2.as_present().is_some_and(|now| *now != before) {
            break row.values;
        }
    };
    watch.check().await.unwrap();
    let kept = watch.row(&web).unwrap().values;
    let read = vim.read(&web, selection).await.unwrap();
    assert_eq!((&kept.0, &kept.1, &kept.2), (&read.0, &read.1, &read.2));
    assert_eq!(seen.1, kept.1);
    vim.remove_snapshot(&snapshot, Default::default()).await.unwrap();
    drop(watch);
    close(vim, sim).await;
}

#[tokio::test]
async fn a_dead_session_costs_one_login_and_only_differences_are_told() {
    for call in EVERY_CALL {
        let sim = vms(&["a", "b", "c"]).start().await.unwrap();
        let vim = connect(&sim).await;
        let mut watch = names(&vim).updates_by(call).watch();
        assert_eq!(first_sight(&mut watch).await.len(), 3);
        // In the middle of a wait, and with things happening while nobody looks.
        let pending = timeout(Duration::from_millis(200), watch.try_next()).await;
        assert!(pending.is_err(), "nothing has happened");
        sim.expire_sessions();
        let gone = sim.vm("b").unwrap();
        gone.unregister();
        assert_eq!(told(&next(&mut watch).await), format!("-{}", gone.id()), "{call:?}");
        assert_eq!(sim.logins(), 2);
        let quiet = timeout(Duration::from_millis(300), watch.try_next()).await;
        assert!(quiet.is_err(), "the others are as they were: {quiet:?}");
        sim.expire_sessions();
        assert!(watch.check().await.unwrap().is_empty());
        assert_eq!(sim.logins(), 3);
        drop(watch);
        close(vim, sim).await;
    }
}

#[tokio::test]
async fn retrieve_watch_and_task_go_on_after_one_login_each() {
    let many: Vec<String> = (0..12).map(|at| format!("vm{at:02}")).collect();
    let sim = vms(&many.iter().map(String::as_str).collect::<Vec<_>>());
    let sim = sim.task_delay(Duration::from_millis(300)).start().await.unwrap();
    let vim = connect(&sim).await;

    let mut rows = names(&vim).page_size(5).stream();
    rows.try_next().await.unwrap();
    sim.expire_sessions();
    let mut count = 1;
    while rows.try_next().await.unwrap().is_some() {
        count += 1;
    }
    assert_eq!((count, sim.logins()), (12, 2), "a paged retrieve");

    let mut watch = names(&vim).page_size(5).watch();
    let mut all = vec![told(&next(&mut watch).await)];
    sim.expire_sessions();
    all.extend(first_sight(&mut watch).await);
    all.sort();
    all.dedup();
    assert_eq!((all.len(), sim.logins()), (12, 3), "the first sight of a watch, in pages");

    let task = vim.create_snapshot_task(&vm(&sim, "vm00"), CreateSnapshotOptions::new("s")).await.unwrap();
    let kill = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        sim.expire_sessions();
    };
    let (done, ()) = tokio::join!(vim.wait(&task).into_future(), kill);
    let snapshot: MoRef<mo::VirtualMachineSnapshot> = done.unwrap().result().unwrap();
    assert_eq!(sim.logins(), 4, "a wait for a task");
    vim.remove_snapshot(&snapshot, Default::default()).await.unwrap();
    drop((rows, watch));
    close(vim, sim).await;
}

#[tokio::test]
async fn lost_answers_refusals_and_old_versions_are_gone_through_without_a_repeat() {
    let sim = vms(&["a", "b"]).start().await.unwrap();
    let vim = connect(&sim).await;
    let mut watch = names(&vim).watch();
    first_sight(&mut watch).await;
    let (a, mut at) = (vm(&sim, "a"), 0);
    for injection in [
        None,
        Some(Injection::DropBefore),
        // The server has told it and forgotten it; the client has not heard it.
        Some(Injection::DropAfter),
        Some(Injection::Http(503)),
    ] {
        at += 1;
        match injection {
            Some(injection) => sim.faults().inject("WaitForUpdatesEx", injection),
            None => sim.expire_versions(),
        }
        rename(&vim, &a, &format!("name{at}")).await;
        assert_eq!(told(&next(&mut watch).await), format!("~name{at} name"));
        let quiet = timeout(Duration::from_millis(100), watch.try_next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
    }
    assert_eq!(sim.logins(), 1);
    // Everything a restart does: nobody is there, then nobody knows anything.
    for _ in 0..3 {
        sim.faults().inject("WaitForUpdatesEx", Injection::Http(503));
    }
    sim.expire_sessions();
    sim.vm("b").unwrap().unregister();
    assert!(told(&next(&mut watch).await).starts_with('-'));
    watch.close().await;
    close(vim, sim).await;
}

#[tokio::test]
async fn what_stays_out_of_reach_is_reported_and_the_watch_goes_on_when_asked_again() {
    let sim = vms(&["a"]).start().await.unwrap();
    let vim = builder(&sim).retry(RetryPolicy::never()).connect().await.unwrap();
    let mut watch = names(&vim).watch();
    first_sight(&mut watch).await;
    sim.faults().drop_next("WaitForUpdatesEx");
    let error = watch.try_next().await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    sim.vm("a").unwrap().unregister();
    assert!(told(&next(&mut watch).await).starts_with('-'));
    drop(watch);
    close(vim, sim).await;
}

#[tokio::test]
async fn a_check_does_not_wait_and_misses_nothing() {
    for call in EVERY_CALL {
        let sim = vms(&["a", "b", "c"]).start().await.unwrap();
        let vim = connect(&sim).await;
        let mut watch = names(&vim).page_size(1).updates_by(call).watch();
        let mut first: Vec<_> = watch.check().await.unwrap().iter().map(told).collect();
        assert_eq!(first.pop().as_deref(), Some("complete"));
        assert_eq!(first.len(), 3);
        assert!(watch.check().await.unwrap().is_empty());
        rename(&vim, &vm(&sim, "a"), "x").await;
        // A wait that was begun and given up is no hindrance.
        let early = timeout(Duration::ZERO, watch.try_next()).await;
        sim.vm("b").unwrap().unregister();
        let begun = std::time::Instant::now();
        let mut events: Vec<_> = early.into_iter().map(|event| told(&event.unwrap().unwrap())).collect();
        while events.len() < 2 {
            assert!(begun.elapsed() < Duration::from_secs(5), "{call:?}: {events:?}");
            events.extend(watch.check().await.unwrap().iter().map(told));
        }
        // Both in one answer come in the server's order.
        events.sort();
        assert!(events[0].starts_with('-') && events[1] == "~x name", "{call:?}: {events:?}");
        watch.close().await;
        close(vim, sim).await;
    }
}

#[tokio::test]
async fn another_task_ends_the_wait() {
    for call in EVERY_CALL {
        let sim = vms(&["a"]).start().await.unwrap();
        let vim = connect(&sim).await;
        let mut watch = names(&vim).updates_by(call).watch();
        first_sight(&mut watch).await;
        let waker = watch.waker();
        let wake = async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            waker.wake();
        };
        let (event, ()) = tokio::join!(next(&mut watch), wake);
        assert!(matches!(event, WatchEvent::Woken), "{call:?}");
        rename(&vim, &vm(&sim, "a"), "x").await;
        assert_eq!(told(&next(&mut watch).await), "~x name");
        drop(watch);
        close(vim, sim).await;
    }
}

#[tokio::test]
async fn a_watch_dropped_at_any_moment_leaves_nothing_on_the_server() {
    let sim = vms(&["a", "b"]).start().await.unwrap();
    let vim = connect(&sim).await;
    for method in ["CreateContainerView", "CreatePropertyCollector", "CreateFilter", "WaitForUpdatesEx"] {
        sim.faults().delay_next(method, Duration::from_millis(100));
        let mut watch = vim.properties::<VirtualMachine>().by_view().select(()).watch();
        let dropped = timeout(Duration::from_millis(60), watch.try_next()).await;
        assert!(dropped.is_err(), "{method}");
        drop(watch);
        sim.faults().clear();
    }
    // In the middle of a long wait.
    let mut watch = names(&vim).watch();
    first_sight(&mut watch).await;
    assert!(timeout(Duration::from_millis(50), watch.try_next()).await.is_err());
    drop(watch);
    close(vim, sim).await;
}

#[tokio::test]
async fn a_watch_on_named_objects_ends_with_the_last_of_them() {
    for die in [false, true] {
        let sim = vms(&["a", "b", "c"]).start().await.unwrap();
        let vim = connect(&sim).await;
        let (a, b) = (vm(&sim, "a"), vm(&sim, "b"));
        let mut watch = vim.properties().of([&a, &b]).select(VirtualMachine::NAME).watch();
        assert_eq!(first_sight(&mut watch).await, ["+a", "+b"]);
        if die {
            // The filter cannot be made again with an object that is gone.
            sim.expire_sessions();
        }
        for name in ["a", "b"] {
            let gone = sim.vm(name).unwrap();
            gone.unregister();
            assert_eq!(told(&next(&mut watch).await), format!("-{}", gone.id()));
        }
        assert!(timeout(Duration::from_secs(5), watch.try_next()).await.unwrap().unwrap().is_none());
        close(vim, sim).await;
    }
    let sim = vms(&["a"]).start().await.unwrap();
    let vim = connect(&sim).await;
    let mut nothing = vim.properties::<VirtualMachine>().of([]).select(VirtualMachine::NAME).watch();
    assert!(matches!(next(&mut nothing).await, WatchEvent::Complete));
    assert!(nothing.try_next().await.unwrap().is_none());
    let never = vim.properties().of([&MoRef::new("vm-none")]).select(VirtualMachine::NAME).watch().try_next().await;
    assert!(never.unwrap_err().is_fault("ManagedObjectNotFound"));
    close(vim, sim).await;
}

#[tokio::test]
async fn an_empty_inventory_is_complete_at_once_whatever_the_server_answers_first() {
    for answers in [true, false] {
        for call in EVERY_CALL {
            let sim = vms(&[]).answer_first_wait(answers).start().await.unwrap();
            let vim = connect(&sim).await;
            let mut watch = names(&vim).updates_by(call).watch();
            assert!(first_sight(&mut watch).await.is_empty());
            watch.close().await;
            close(vim, sim).await;
        }
    }
}

#[tokio::test]
async fn a_permission_that_goes_and_comes_back_is_a_change_of_values() {
    let sim = vms(&["a"]).start().await.unwrap();
    let vim = connect(&sim).await;
    let mut watch = names(&vim).watch();
    first_sight(&mut watch).await;
    sim.vm("a").unwrap().deny_reading(true);
    let WatchEvent::Changed(row, _) = next(&mut watch).await else { panic!("a change") };
    assert!(row.values.missing().unwrap().fault.as_ref().unwrap().is_a("NoPermission"));
    sim.vm("a").unwrap().deny_reading(false);
    assert_eq!(told(&next(&mut watch).await), "~a name");
    drop(watch);
    close(vim, sim).await;
}

#[tokio::test]
async fn an_old_server_is_asked_in_its_own_way() {
    let sim = vms(&["a", "b"]).start().await.unwrap();
    let vim = builder(&sim).api_version(WireVersion::new("4.0").unwrap()).connect().await.unwrap();
    // The newer calls would fail.
    for newer in ["RetrievePropertiesEx", "WaitForUpdatesEx"] {
        sim.faults().fail_next(newer, vsphere_sim::Fault::new("InvalidRequest", newer));
    }
    assert_eq!(names(&vim).page_size(1).collect().await.unwrap().len(), 2);
    let mut watch = names(&vim).watch();
    assert_eq!(first_sight(&mut watch).await, ["+a", "+b"]);
    rename(&vim, &vm(&sim, "a"), "x").await;
    assert_eq!(told(&next(&mut watch).await), "~x name");
    watch.close().await;
    close(vim, sim).await;

    let sim = vms(&["a", "b"]).start().await.unwrap();
    let vim = connect(&sim).await;
    sim.faults().fail_next("RetrievePropertiesEx", vsphere_sim::Fault::new("InvalidRequest", ""));
    let rows = names(&vim).retrieve_by(RetrieveCall::RetrieveProperties).collect().await.unwrap();
    assert_eq!(rows.len(), 2);
    assert!(names(&vim).collect().await.is_err(), "that was not the call");
    close(vim, sim).await;
}

property_struct! {
    #[derive(Debug)]
    struct Planned of VirtualMachine {
        name: String = VirtualMachine::NAME,
        annotation: Option<String> = PropertyPath::<_, String>::new("config.annotation"),
        runtime: Property<VirtualMachineRuntimeInfo> = VirtualMachine::RUNTIME,
        disk: Option<i64> = PropertyPath::<_, i64>::new("config.hardware.device[2000].capacityInKB"),
    }
}

#[tokio::test]
async fn rows_come_as_structs_of_the_callers_own() {
    let sim = vms(&["a", "b"]).start().await.unwrap();
    let vim = connect(&sim).await;
    let a = vm(&sim, "a");
    let planned: Planned = vim.read_as(&a).await.unwrap();
    assert_eq!((planned.name.as_str(), planned.disk), ("a", Some(1024)));
    assert_eq!(planned.runtime.present().unwrap().power_state.as_str(), "poweredOff");
    assert!(planned.annotation.is_none_or(|text| text.is_empty()));

    sim.vm("b").unwrap().deny_reading(true);
    let rows = vim.properties().select_as::<Planned>().collect().await.unwrap();
    let (good, bad): (Vec<_>, Vec<_>) = rows.into_iter().map(|row| row.values).partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (1, 1));
    let error = bad.into_iter().next().unwrap().unwrap_err();
    assert!(error.is_fault("NoPermission") && error.to_string().contains("name"), "{error}");

    let mut watch = vim.properties().of([&a]).select_as::<Planned>().watch();
    let WatchEvent::Entered(row) = next(&mut watch).await else { panic!("it enters first") };
    assert_eq!(row.values.unwrap().name, "a");
    drop(watch);
    close(vim, sim).await;
}

#[tokio::test]
async fn the_inventory_is_known_from_memory_on_both_kinds_of_server() {
    for personality in [Personality::VCenter, Personality::Esxi] {
        let sim = vms(&["web", "db"]).personality(personality).start().await.unwrap();
        let vim = connect(&sim).await;
        let mut inventory = vim.inventory().also(VirtualMachine::RUNTIME).page_size(4).open().await.unwrap();
        let tree = inventory.tree();
        assert_eq!(tree.root().unwrap().object, vim.root().erase());
        let mut kinds = BTreeMap::<&str, usize>::new();
        tree.nodes().for_each(|node| *kinds.entry(node.object.type_name()).or_default() += 1);
        for (kind, least) in [
            ("Folder", 5),
            ("Datacenter", 1),
            ("ComputeResource", 1),
            ("HostSystem", 1),
            ("ResourcePool", 1),
            ("Datastore", 1),
            ("Network", 1),
            ("VirtualMachine", 2),
        ] {
            assert!(kinds.get(kind).is_some_and(|count| *count >= least), "{kind}: {kinds:?}");
        }
        // Memory and server agree on every path.
        for node in tree.nodes() {
            let Some(path) = tree.path(&node.object) else { continue };
            assert_eq!(tree.find(&path).unwrap().object, node.object, "{path}");
            if node.object.is_a::<VirtualMachine>() {
                assert_eq!(vim.find_by_inventory_path(&path).await.unwrap().unwrap(), node.object, "{path}");
            }
        }
        let web = sim.vm("web").unwrap();
        let reference = vm(&sim, "web");
        assert_eq!(tree.path(reference.as_untyped()).unwrap(), web.inventory_path());
        assert_eq!(tree.find_by_instance_uuid(&web.instance_uuid()).unwrap().name, "web");
        assert_eq!(tree.vms_below(vim.root().as_untyped()).len(), 2);
        let state = |inventory: &vsphere_vim::watch::Inventory| {
            inventory.get(&reference, VirtualMachine::RUNTIME).present().unwrap().power_state.as_str().to_owned()
        };
        assert_eq!(state(&inventory), "poweredOff");

        web.set_power(Power::On).unwrap();
        assert!(!inventory.refresh().await.unwrap().is_empty());
        assert_eq!(state(&inventory), "poweredOn");
        rename(&vim, &vm(&sim, "db"), "a%2fb").await;
        let change = timeout(Duration::from_secs(10), inventory.next_change()).await.unwrap().unwrap().unwrap();
        assert_eq!(change, InventoryChange::Changed(vm(&sim, "a%2fb").erase(), vec!["name".into()]));
        let renamed = inventory.tree().node(vm(&sim, "a%2fb").as_untyped()).unwrap();
        assert_eq!((renamed.name.as_str(), renamed.display_name().as_str()), ("a%2fb", "a/b"));
        sim.expire_sessions();
        web.unregister();
        let changes = inventory.refresh().await.unwrap();
        let [InventoryChange::Left(node)] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!((node.name.as_str(), sim.logins()), ("web", 2));
        inventory.close().await;
        close(vim, sim).await;
    }
}

#[tokio::test]
async fn the_filters_of_a_collector_are_listed_and_go_one_by_one() {
    use vsphere_vim::{methods, types};
    let sim = vms(&["a"]).start().await.unwrap();
    let vim = connect(&sim).await;
    let collector = vim.content().property_collector.clone();
    let filters: PropertyPath<mo::PropertyCollector, Vec<MoRef<mo::PropertyFilter>>> = PropertyPath::new("filter");
    let partial: PropertyPath<mo::PropertyFilter, bool> = PropertyPath::new("partialUpdates");
    let a = vm(&sim, "a");
    for partial_updates in [true, false] {
        let prop_set = types::PropertySpec {
            type_: "VirtualMachine".into(),
            path_set: vec!["runtime".into(), "name".into()],
            ..Default::default()
        };
        let object_set = vec![types::ObjectSpec { obj: a.erase(), ..Default::default() }];
        let spec = types::PropertyFilterSpec { prop_set: vec![prop_set], object_set, ..Default::default() };
        vim.invoke(&collector, methods::CreateFilter { spec, partial_updates, ..Default::default() }).await.unwrap();
    }
    let listed = vim.get(&collector, filters).await.unwrap();
    assert_eq!(listed.len(), 2);
    let check = |version: &str| {
        let args = methods::CheckForUpdates { version: Some(version.into()), ..Default::default() };
        vim.invoke(&collector, args)
    };
    let first = check("").await.unwrap().unwrap();
    assert_eq!(first.filter_set.len(), 2, "each filter tells it");
    assert!(check(&first.version).await.unwrap().is_none());
    sim.vm("a").unwrap().set_power(Power::On).unwrap();
    let second = check(&first.version).await.unwrap().unwrap();
    for update in &second.filter_set {
        let parts = vim.get(&update.filter, partial).await.unwrap();
        let names: Vec<_> = update.object_set[0].change_set.iter().map(|change| change.name.as_str()).collect();
        assert_eq!(names.contains(&"runtime"), !parts, "{names:?}");
        assert_eq!(names.contains(&"runtime.powerState"), parts, "{names:?}");
    }
    let stale = check(&first.version).await.unwrap_err();
    assert!(stale.is_fault("InvalidCollectorVersion"), "{stale}");
    for filter in listed {
        vim.invoke(&filter, methods::DestroyPropertyFilter::default()).await.unwrap();
    }
    assert_eq!(vim.get_optional(&collector, filters).await.unwrap().unwrap_or_default(), []);
    close(vim, sim).await;
}
