//! VMs through the API: power, snapshots, change tracking, method locks, injected faults.

use std::time::{Duration, Instant};

use vsphere_sim::{DiskSpec, Fault, Injection, Personality, Power, Simulator, VmSpec};
use vsphere_vim_types::internal::{DisableMethods, DisabledMethodRequest, EnableMethods};
use vsphere_vim_types::methods::{
    ConsolidateVMDisks_Task, CreateSnapshot_Task, CreateVM_Task, CurrentTime, Destroy_Task, PowerOffVM_Task,
    PowerOnVM_Task, RelocateVM_Task, RemoveAllSnapshots_Task, ResetVM_Task, RetrieveServiceContent,
    RevertToSnapshot_Task, SuspendVM_Task, UnregisterVM,
};
use vsphere_vim_types::{
    ManagedObjectReference, Poly, TaskInfoState, VirtualDeviceConfigSpec, VirtualDeviceConfigSpecFileOperation,
    VirtualDeviceConfigSpecOperation, VirtualDisk, VirtualMachineConfigSpec, VirtualMachineSnapshotInfo,
};

use crate::client::{Client, fault_name, root, vm};

const BLOCK: i64 = 65536;
const CAPACITY: i64 = 100 * BLOCK;

async fn simulator(vm: VmSpec) -> Simulator {
    Simulator::builder().vm(vm.disk(DiskSpec::empty(CAPACITY as u64))).start().await.unwrap()
}

fn bytes(sim: &Simulator, name: &str, range: std::ops::Range<usize>) -> Vec<u8> {
    let mut buffer = vec![0; range.len()];
    sim.guest(name).unwrap().disk(2000).unwrap().read_at(range.start as u64, &mut buffer).unwrap();
    buffer
}

#[tokio::test]
async fn enabling_change_tracking_takes_a_stun_and_then_answers_exactly() {
    let sim = simulator(VmSpec::new("web")).await;
    let mut client = Client::login(&sim).await;
    let vm = vm(&sim, "web");
    let disk = sim.guest("web").unwrap().disk(2000).unwrap();
    disk.write_at(3 * BLOCK as u64, b"before tracking").unwrap();

    let untracked = client.snapshot(&vm, "untracked").await;
    assert_eq!(client.backing(&untracked, 2000).await.1, None);
    assert_eq!(fault_name(&client.areas_page(&vm, &untracked, 0, "*").await.unwrap_err()), "FileFault");
    client.remove_snapshot(&untracked, false).await;

    let spec = VirtualMachineConfigSpec { change_tracking_enabled: Some(true), ..Default::default() };
    assert_eq!(client.reconfigure(&vm, spec).await.state, TaskInfoState::Success);
    assert!(client.get::<bool>(&vm, "config.changeTrackingEnabled").await.unwrap());
    assert_eq!(client.backing(&vm, 2000).await.1, None, "no stun yet");
    let stun = client.snapshot(&vm, "stun").await;
    client.remove_snapshot(&stun, false).await;
    assert!(client.backing(&vm, 2000).await.1.is_some());

    let full = client.snapshot(&vm, "full").await;
    let base = client.backing(&full, 2000).await.1.unwrap();
    assert_eq!(client.areas(&vm, &full, CAPACITY, "*").await, [(3 * BLOCK, BLOCK)]);
    client.remove_snapshot(&full, false).await;

    disk.write_at(10 * BLOCK as u64 - 1, b"xy").unwrap();
    disk.write_at(50 * BLOCK as u64, b"z").unwrap();
    let incremental = client.snapshot(&vm, "incremental").await;
    disk.write_at(70 * BLOCK as u64, b"after the snapshot").unwrap();
    assert_eq!(client.areas(&vm, &incremental, CAPACITY, &base).await, [(9 * BLOCK, 2 * BLOCK), (50 * BLOCK, BLOCK)]);
    let inside = client.areas_page(&vm, &incremental, 10 * BLOCK + 512, &base).await.unwrap();
    assert_eq!((inside.changed_area[0].start, inside.changed_area[0].length), (10 * BLOCK + 512, BLOCK - 512));

    assert_eq!(
        fault_name(&client.areas_page(&vm, &incremental, CAPACITY, &base).await.unwrap_err()),
        "InvalidArgument"
    );
    disk.reset_tracking();
    assert_eq!(fault_name(&client.areas_page(&vm, &incremental, 0, &base).await.unwrap_err()), "FileFault");
    client.remove_snapshot(&incremental, false).await;
    client.logout().await;
    assert!(sim.leftovers().is_clean(), "{:?}", sim.leftovers());
}

#[tokio::test]
async fn change_tracking_is_refused_on_old_hardware() {
    let sim = simulator(VmSpec::new("old").hardware_version(4)).await;
    let mut client = Client::login(&sim).await;
    let vm = vm(&sim, "old");
    assert!(!client.get::<bool>(&vm, "capability.changeTrackingSupported").await.unwrap());
    let spec = VirtualMachineConfigSpec { change_tracking_enabled: Some(true), ..Default::default() };
    assert_eq!(client.reconfigure(&vm, spec).await.error.unwrap().fault.type_name(), "NotSupported");
}

#[tokio::test]
async fn snapshots_form_a_tree_that_survives_removal_and_revert() {
    let sim = simulator(VmSpec::new("web").change_tracking(true)).await;
    let mut client = Client::login(&sim).await;
    let vm = vm(&sim, "web");
    let disk = sim.guest("web").unwrap().disk(2000).unwrap();
    disk.write_at(0, b"one").unwrap();
    let one = client.snapshot(&vm, "one").await;
    disk.write_at(0, b"two").unwrap();
    let two = client.snapshot(&vm, "two").await;
    disk.write_at(0, b"six").unwrap();
    assert_eq!(client.backing(&vm, 2000).await.0, "[ds1] web/web-000002.vmdk");

    client.done(&one, &RevertToSnapshot_Task::default()).await;
    assert_eq!(bytes(&sim, "web", 0..3), b"one");
    assert_eq!(sim.vm("web").unwrap().power(), Power::Off, "the snapshot held no memory");
    disk.write_at(0, b"alt").unwrap();
    let three = client.snapshot(&vm, "three").await;
    let info: VirtualMachineSnapshotInfo = client.get(&vm, "snapshot").await.unwrap();
    assert_eq!(info.current_snapshot.unwrap().value(), three.value());
    let children: Vec<_> =
        info.root_snapshot_list[0].child_snapshot_list.iter().map(|child| child.name.as_str()).collect();
    assert_eq!(children, ["two", "three"]);

    client.remove_snapshot(&one, false).await;
    let info: VirtualMachineSnapshotInfo = client.get(&vm, "snapshot").await.unwrap();
    assert_eq!(info.root_snapshot_list.len(), 2, "its children are roots now");
    client.done(&two, &RevertToSnapshot_Task::default()).await;
    assert_eq!(bytes(&sim, "web", 0..3), b"two");
    client.done(&three, &RevertToSnapshot_Task::default()).await;
    assert_eq!(bytes(&sim, "web", 0..3), b"alt");
    client.done(&vm, &RemoveAllSnapshots_Task::default()).await;
    assert_eq!(bytes(&sim, "web", 0..3), b"alt");
    assert_eq!(client.get::<VirtualMachineSnapshotInfo>(&vm, "snapshot").await, None);
    assert_eq!(client.backing(&vm, 2000).await.0, "[ds1] web/web.vmdk");
    assert!(!client.get::<bool>(&vm, "runtime.consolidationNeeded").await.unwrap());
}

#[tokio::test]
async fn removing_with_children_removes_the_subtree_only() {
    let sim = simulator(VmSpec::new("web")).await;
    let mut client = Client::login(&sim).await;
    let vm = vm(&sim, "web");
    client.snapshot(&vm, "keep").await;
    let cut = client.snapshot(&vm, "cut").await;
    client.snapshot(&vm, "below").await;
    client.remove_snapshot(&cut, true).await;
    assert_eq!(sim.vm("web").unwrap().snapshots(), ["keep"]);
    let info: VirtualMachineSnapshotInfo = client.get(&vm, "snapshot").await.unwrap();
    assert_eq!(info.current_snapshot.unwrap().value(), info.root_snapshot_list[0].snapshot.value());
}

#[tokio::test]
async fn a_removal_without_consolidation_leaves_it_to_be_asked_for() {
    let sim = simulator(VmSpec::new("web")).await;
    let mut client = Client::login(&sim).await;
    let vm = vm(&sim, "web");
    let snapshot = client.snapshot(&vm, "s").await;
    let args = vsphere_vim_types::methods::RemoveSnapshot_Task { consolidate: Some(false), ..Default::default() };
    client.done(&snapshot, &args).await;
    assert!(client.get::<bool>(&vm, "runtime.consolidationNeeded").await.unwrap());
    assert_eq!(sim.leftovers().unconsolidated, ["web"]);
    client.done(&vm, &ConsolidateVMDisks_Task::default()).await;
    assert!(!client.get::<bool>(&vm, "runtime.consolidationNeeded").await.unwrap());
}

#[tokio::test]
async fn a_snapshot_with_memory_is_of_a_running_machine_and_runs_again() {
    let sim = simulator(VmSpec::new("web")).await;
    let mut client = Client::login(&sim).await;
    let vm = vm(&sim, "web");
    let power = || sim.vm("web").unwrap().power();
    assert_eq!(power(), Power::On);
    let args = CreateSnapshot_Task { name: "awake".into(), memory: true, ..Default::default() };
    let awake: ManagedObjectReference = client.done(&vm, &args).await.into_typed().unwrap();
    let info: VirtualMachineSnapshotInfo = client.get(&vm, "snapshot").await.unwrap();
    assert_eq!(info.root_snapshot_list[0].state.as_str(), "poweredOn");
    client.power_off(&vm).await;
    client.done(&awake, &RevertToSnapshot_Task { suppress_power_on: Some(true), ..Default::default() }).await;
    assert_eq!(power(), Power::Off);
    client.done(&awake, &RevertToSnapshot_Task::default()).await;
    assert_eq!(power(), Power::On);
    client.remove_snapshot(&awake, false).await;
    client.logout().await;
}

#[tokio::test]
async fn power_states_allow_what_a_host_allows() {
    let sim = simulator(VmSpec::new("web").power(Power::Off)).await;
    let mut client = Client::login(&sim).await;
    let vm = vm(&sim, "web");
    assert_eq!(client.fails(&vm, &PowerOffVM_Task::default()).await, "InvalidPowerState");
    assert_eq!(client.fails(&vm, &ResetVM_Task::default()).await, "InvalidPowerState");
    client.done(&vm, &PowerOnVM_Task::default()).await;
    assert_eq!(client.fails(&vm, &PowerOnVM_Task::default()).await, "InvalidPowerState");
    client.done(&vm, &ResetVM_Task::default()).await;
    client.done(&vm, &SuspendVM_Task::default()).await;
    assert_eq!(client.get::<String>(&vm, "runtime.powerState").await.unwrap(), "suspended");
    client.done(&vm, &PowerOnVM_Task::default()).await;
    assert_eq!(sim.vm("web").unwrap().power(), Power::On);
}

#[tokio::test]
async fn disks_are_added_grown_and_removed() {
    let sim = simulator(VmSpec::new("web").change_tracking(true)).await;
    let mut client = Client::login(&sim).await;
    let vm = vm(&sim, "web");
    let change = |operation, file_operation, key: i32, bytes: i64| {
        let mut disk = VirtualDisk { capacity_in_kb: bytes / 1024, ..Default::default() };
        disk.key = key;
        disk.controller_key = Some(1000);
        let change = VirtualDeviceConfigSpec {
            operation: Some(operation),
            file_operation,
            device: Poly::new(disk),
            ..Default::default()
        };
        VirtualMachineConfigSpec { device_change: vec![Poly::new(change)], ..Default::default() }
    };
    let create = Some(VirtualDeviceConfigSpecFileOperation::Create);
    let added = client.reconfigure(&vm, change(VirtualDeviceConfigSpecOperation::Add, create, -1, 1 << 20)).await;
    assert_eq!(added.state, TaskInfoState::Success, "{:?}", added.error);
    assert_eq!(sim.vm("web").unwrap().disks(), [2000, 2001]);
    assert_eq!(client.backing(&vm, 2001).await.0, "[ds1] web/web_1.vmdk");

    let disk = sim.guest("web").unwrap().disk(2000).unwrap();
    let before = client.snapshot(&vm, "before").await;
    let grow = change(VirtualDeviceConfigSpecOperation::Edit, None, 2000, 2 * CAPACITY);
    assert_eq!(
        client.reconfigure(&vm, grow.clone()).await.error.unwrap().fault.type_name(),
        "InvalidDeviceSpec",
        "snapshots forbid it"
    );
    let id = client.backing(&before, 2000).await.1.unwrap();
    client.remove_snapshot(&before, false).await;
    assert_eq!(client.reconfigure(&vm, grow).await.state, TaskInfoState::Success);
    assert_eq!(disk.capacity(), 2 * CAPACITY as u64);
    let after = client.snapshot(&vm, "after").await;
    assert_eq!(
        client.areas(&vm, &after, 2 * CAPACITY, &id).await,
        [(CAPACITY, CAPACITY)],
        "the tail counts as changed"
    );
    let shrink = change(VirtualDeviceConfigSpecOperation::Edit, None, 2000, CAPACITY);
    assert_eq!(client.reconfigure(&vm, shrink).await.state, TaskInfoState::Error);

    let destroy = Some(VirtualDeviceConfigSpecFileOperation::Destroy);
    assert_eq!(
        client.reconfigure(&vm, change(VirtualDeviceConfigSpecOperation::Remove, destroy, 2001, 0)).await.state,
        TaskInfoState::Success
    );
    assert_eq!(sim.vm("web").unwrap().disks(), [2000]);
}

#[tokio::test]
async fn an_independent_disk_is_in_no_snapshot_and_never_tracked() {
    let vm_spec = VmSpec::new("web").change_tracking(true).disk(DiskSpec::empty(1 << 20).independent());
    let sim = Simulator::builder().vm(vm_spec).start().await.unwrap();
    let mut client = Client::login(&sim).await;
    let vm = vm(&sim, "web");
    assert_eq!(
        client.get::<String>(&vm, "config.hardware.device[2000].backing.diskMode").await.unwrap(),
        "independent_persistent"
    );
    let snapshot = client.snapshot(&vm, "s").await;
    assert_eq!(client.backing(&snapshot, 2000).await.1, None);
    assert_eq!(client.backing(&vm, 2000).await.0, "[ds1] web/web.vmdk", "it runs on its base as before");
}

#[tokio::test]
async fn a_locked_method_fails_until_the_same_source_allows_it() {
    let sim = simulator(VmSpec::new("web")).await;
    let mut client = Client::login(&sim).await;
    let vm = vm(&sim, "web");
    let manager = root("AuthorizationManager", "AuthorizationManager");
    let request =
        DisabledMethodRequest { method: "RelocateVM_Task".into(), reason_id: "backup".into(), ..Default::default() };
    let disable = DisableMethods {
        entity: vec![vm.clone()],
        method: vec![request],
        source_id: "me".into(),
        ..Default::default()
    };
    client.call(&manager, &disable).await.unwrap();
    assert_eq!(client.get::<Vec<String>>(&vm, "disabledMethod").await.unwrap(), ["RelocateVM_Task"]);
    assert_eq!(client.refused(&vm, &RelocateVM_Task::default()).await, "MethodDisabled");
    assert_eq!(client.refused(&manager, &disable).await, "MethodAlreadyDisabledFault");
    let enable = |source: &str| EnableMethods {
        entity: vec![vm.clone()],
        method: vec!["RelocateVM_Task".into()],
        source_id: source.into(),
        ..Default::default()
    };
    client.call(&manager, &enable("another")).await.unwrap();
    assert_eq!(sim.leftovers().locks, ["web/RelocateVM_Task by me"]);
    client.call(&manager, &enable("me")).await.unwrap();
    assert_eq!(client.get::<Vec<String>>(&vm, "disabledMethod").await, None);
    assert_eq!(client.fails(&vm, &RelocateVM_Task::default()).await, "NotSupported", "allowed, and nowhere to go");
}

#[tokio::test]
async fn a_lock_bound_to_a_session_ends_with_it() {
    let sim = simulator(VmSpec::new("web")).await;
    let mut client = Client::login(&sim).await;
    let request = DisabledMethodRequest { method: "RelocateVM_Task".into(), ..Default::default() };
    let disable = DisableMethods {
        entity: vec![vm(&sim, "web")],
        method: vec![request],
        source_id: "me".into(),
        session_scope: Some(true),
        ..Default::default()
    };
    client.call(&root("AuthorizationManager", "AuthorizationManager"), &disable).await.unwrap();
    assert_eq!(sim.vm("web").unwrap().disabled_methods(), ["RelocateVM_Task"]);
    client.logout().await;
    assert!(sim.leftovers().is_clean(), "{}", sim.leftovers());
}

#[tokio::test]
async fn vms_are_created_with_disks_and_destroyed_with_their_files() {
    let sim = simulator(VmSpec::new("web")).await;
    let mut client = Client::login(&sim).await;
    let mut disk = VirtualDisk { capacity_in_kb: 2048, ..Default::default() };
    disk.key = -1;
    disk.unit_number = Some(0);
    let add = VirtualDeviceConfigSpec {
        operation: Some(VirtualDeviceConfigSpecOperation::Add),
        file_operation: Some(VirtualDeviceConfigSpecFileOperation::Create),
        device: Poly::new(disk),
        ..Default::default()
    };
    let config = VirtualMachineConfigSpec {
        name: Some("new".into()),
        version: Some("vmx-15".into()),
        num_cpus: Some(2),
        memory_mb: Some(512),
        change_tracking_enabled: Some(true),
        device_change: vec![Poly::new(add)],
        ..Default::default()
    };
    let create = CreateVM_Task { config, pool: root("ResourcePool", "resgroup-9").cast(), ..Default::default() };
    let folder = root("Folder", "group-v3");
    let new = client.done(&folder, &create).await.into_typed::<ManagedObjectReference>().unwrap();
    assert_eq!(client.get::<String>(&new, "config.version").await.unwrap(), "vmx-15");
    assert_eq!(client.backing(&new, 2000).await.0, "[ds1] new/new.vmdk");
    assert_eq!(sim.vm("new").unwrap().power(), Power::Off);
    assert_eq!(client.fails(&folder, &create).await, "DuplicateName");
    sim.guest("new").unwrap().disk(2000).unwrap().write_at(0, b"x").unwrap();
    client.done(&new, &PowerOnVM_Task::default()).await;
    assert_eq!(client.fails(&new, &Destroy_Task::default()).await, "InvalidPowerState");
    client.power_off(&new).await;
    client.done(&new, &Destroy_Task::default()).await;
    assert!(sim.vm("new").is_err());
    let web = vm(&sim, "web");
    client.power_off(&web).await;
    client.call(&web, &UnregisterVM::default()).await.unwrap();
    assert!(sim.vm("web").is_err());
    let mut again = create.clone();
    again.config.name = Some("web".into());
    let again = client.done(&folder, &again).await.into_typed::<ManagedObjectReference>().unwrap();
    assert_eq!(client.backing(&again, 2000).await.0, "[ds1] web_1/web_1.vmdk", "the other web's files are still there");
}

#[tokio::test]
async fn a_test_in_another_process_plays_the_guest_where_that_is_allowed() {
    let closed = simulator(VmSpec::new("web")).await;
    assert_eq!(Client::new(&closed).http("GET", "/sim/leftovers", b"").await.unwrap().status, 404);
    let spec = VmSpec::new("web").disk(DiskSpec::empty(1 << 20));
    let sim = Simulator::builder().control(true).vm(spec).start().await.unwrap();
    let client = Client::login(&sim).await;
    assert_eq!(client.http("PUT", "/sim/vm/web/disk/2000/4096", b"hello").await.unwrap().status, 200);
    assert_eq!(client.http("GET", "/sim/vm/web/disk/2000/4095/6", b"").await.unwrap().body, b"\0hello");
    assert_eq!(client.http("GET", "/sim/leftovers", b"").await.unwrap().body, b"sessions: 1\n");
    assert_eq!(client.http("POST", "/sim/expire-sessions", b"").await.unwrap().status, 200);
    assert_eq!(client.http("GET", "/sim/leftovers", b"").await.unwrap().body, b"");
    for bad in ["/sim/vm/no/disk/2000/0", "/sim/vm/web/disk/x/0", "/sim/vm/web/disk/2000/1048576", "/sim/x"] {
        assert_eq!(client.http("PUT", bad, b"x").await.unwrap().status, 400, "{bad}");
    }
}

#[tokio::test]
async fn injected_faults_strike_once_and_leave_nothing() {
    let sim = simulator(VmSpec::new("web")).await;
    let mut client = Client::login(&sim).await;
    let vm = vm(&sim, "web");
    let args = CreateSnapshot_Task { name: "s".into(), ..Default::default() };
    sim.faults().fail_next("CreateSnapshot_Task", Fault::new("TaskInProgress", "busy"));
    assert_eq!(client.refused(&vm, &args).await, "TaskInProgress");
    sim.faults()
        .fail_next_task("CreateSnapshot_Task", Fault::new("ApplicationQuiesceFault", "the guest did not freeze"));
    assert_eq!(client.fails(&vm, &args).await, "ApplicationQuiesceFault");
    assert!(sim.vm("web").unwrap().snapshots().is_empty());

    let body = vsphere_vim_types::soap::encode_request(&vm, &args, Default::default());
    sim.faults().drop_next("CreateSnapshot_Task");
    assert!(client.http("POST", "/sdk", body.as_bytes()).await.is_err());
    assert!(sim.vm("web").unwrap().snapshots().is_empty());
    sim.faults().inject("CreateSnapshot_Task", Injection::DropAfter);
    assert!(client.http("POST", "/sdk", body.as_bytes()).await.is_err());
    sim.faults().inject("CurrentTime", Injection::Http(503));
    let time = vsphere_vim_types::soap::encode_request(
        &root("ServiceInstance", "ServiceInstance"),
        &CurrentTime::default(),
        Default::default(),
    );
    assert_eq!(client.http("POST", "/sdk", time.as_bytes()).await.unwrap().status, 503);
    let start = Instant::now();
    sim.faults().delay_next("CurrentTime", Duration::from_millis(50));
    client.call(&root("ServiceInstance", "ServiceInstance"), &CurrentTime::default()).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert_eq!(sim.vm("web").unwrap().snapshots(), ["s"], "the dropped answer belonged to a call that was carried out");
}

#[tokio::test]
async fn a_bare_host_has_its_own_names_and_no_method_locks() {
    let sim = Simulator::builder()
        .personality(Personality::Esxi)
        .vm(VmSpec::new("esx").disk(DiskSpec::empty(1 << 20)))
        .start()
        .await
        .unwrap();
    let mut client = Client::login(&sim).await;
    let content =
        client.call(&root("ServiceInstance", "ServiceInstance"), &RetrieveServiceContent::default()).await.unwrap();
    assert_eq!(content.about.api_type, "HostAgent");
    assert_eq!(content.root_folder.value(), "ha-folder-root");
    assert_eq!(content.property_collector.value(), "ha-property-collector");
    assert_eq!(sim.vm("esx").unwrap().id(), "1");
    assert_eq!(sim.vm("esx").unwrap().inventory_path(), "ha-datacenter/vm/esx");
    let disable = DisableMethods { entity: vec![vm(&sim, "esx")], source_id: "me".into(), ..Default::default() };
    assert_eq!(client.refused(&root("AuthorizationManager", "ha-authmgr"), &disable).await, "MethodNotFound");
    assert_eq!(client.refused(&root("Folder", "group-d1"), &CurrentTime::default()).await, "ManagedObjectNotFound");
}

#[tokio::test]
async fn operations_on_one_vm_wait_for_each_other() {
    let sim = Simulator::builder()
        .task_delay(Duration::from_millis(30))
        .vm(VmSpec::new("web").disk(DiskSpec::empty(1 << 20)))
        .start()
        .await
        .unwrap();
    let mut client = Client::login(&sim).await;
    let vm = vm(&sim, "web");
    let mut tasks = Vec::new();
    for n in 0..4 {
        tasks.push(
            client.call(&vm, &CreateSnapshot_Task { name: format!("s{n}"), ..Default::default() }).await.unwrap(),
        );
    }
    client.done(&vm, &RemoveAllSnapshots_Task::default()).await;
    for task in tasks {
        let state: String = client.get(&task.erase(), "info.state").await.unwrap();
        assert_eq!(state, "success", "earlier tasks are done before a later one begins");
    }
    assert!(sim.vm("web").unwrap().snapshots().is_empty());
}

#[tokio::test]
async fn many_disks_keep_off_the_controllers_unit() {
    let spec = (0..9).fold(VmSpec::new("web"), |vm, _| vm.disk(DiskSpec::empty(1 << 20)));
    let sim = Simulator::builder().vm(spec).start().await.unwrap();
    assert_eq!(sim.vm("web").unwrap().disks(), [2000, 2001, 2002, 2003, 2004, 2005, 2006, 2008, 2009]);
    assert!(sim.vm("nosuch").is_err());
}
