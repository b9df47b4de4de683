//! The whole client over TLS against the simulator.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use vsphere_sim::nfc::{HostVersion, NfcServerConfig};
use vsphere_sim::{DiskSpec, Fault, Personality, Power, Simulator, SimulatorBuilder, VmSpec};
use vsphere_vim::{
    CreateSnapshotOptions, Credentials, DeviceKey, DiskAccess, Error, MoRef, PowerState, PropertyPath,
    RemoveSnapshotOptions, Thumbprint, TlsTrust, Vim, VmLookup,
    device::BackingKind,
    error::TransportErrorKind,
    method_lock::{LockOutcome, MethodLock},
    methods::{CreateSnapshot_Task, PowerOnVM_Task},
    mo::{self, VirtualMachine},
    types::{FileFault, VirtualMachineConfigSpec},
};

use crate::simulated::connect;

const MIB: u64 = 1 << 20;

fn one_vm() -> SimulatorBuilder {
    Simulator::builder().vm(VmSpec::new("web").disk(DiskSpec::empty(64 * MIB)).power(Power::On))
}

fn pin(sim: &Simulator) -> Thumbprint {
    sim.thumbprint_sha256().parse().unwrap()
}

async fn web(vim: &Vim) -> MoRef<VirtualMachine> {
    let path = if vim.is_vcenter() { "dc1/vm/web" } else { "ha-datacenter/vm/web" };
    vim.find_vm(&VmLookup::InventoryPath(path.into())).await.unwrap().moref
}

/// Ends the session and checks that nothing is left on the server.
async fn close(vim: Vim, sim: Simulator) {
    // Clean-up of dropped streams and waits runs in the background.
    for _ in 0..100 {
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

#[tokio::test]
async fn every_kind_of_trust_leads_in_and_a_wrong_pin_does_not() {
    let sim = one_vm().start().await.unwrap();
    let credentials = Credentials::password(sim.username(), sim.password());
    let sha1: Thumbprint = sim.thumbprint_sha1().parse().unwrap();
    let pem = TlsTrust::CaPem(sim.certificate_pem().as_bytes().to_vec());
    for trust in [TlsTrust::from(sha1), pin(&sim).into(), pem] {
        let vim = Vim::builder(sim.url()).credentials(credentials.clone()).trust(trust).connect().await.unwrap();
        vim.logout().await.unwrap();
    }
    let fetched = Thumbprint::fetch(&sim.url(), sha1.kind()).await.unwrap();
    assert_eq!(fetched, sha1);
    let wrong: Thumbprint = "00".repeat(32).parse().unwrap();
    let error = Vim::builder(sim.url()).credentials(credentials).thumbprint(wrong).connect().await.unwrap_err();
    assert_eq!(error.transport_kind(), Some(TransportErrorKind::Untrusted));
    assert!(error.hint().is_some());
    assert_eq!(sim.leftovers().sessions, 0);
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let sim = one_vm().start().await.unwrap();
    let credentials = Credentials::password(sim.username(), "wrong");
    let error = Vim::builder(sim.url()).credentials(credentials).thumbprint(pin(&sim)).connect().await.unwrap_err();
    assert_eq!(error.fault_name(), Some("InvalidLogin"));
}

#[tokio::test]
async fn a_machine_is_found_by_path_ids_and_reference() {
    for personality in [Personality::VCenter, Personality::Esxi] {
        let sim = one_vm().personality(personality).start().await.unwrap();
        let vim = connect(&sim).await;
        assert_eq!(vim.is_vcenter(), personality == Personality::VCenter);
        let handle = sim.vm("web").unwrap();
        let found = vim.find_vm(&VmLookup::InventoryPath(format!("/{}", handle.inventory_path()))).await.unwrap();
        assert_eq!((found.moref.value(), found.name.as_str()), (handle.id(), "web"));
        let by = [
            VmLookup::InstanceUuid(handle.instance_uuid()),
            VmLookup::BiosUuid(found.bios_uuid.clone().unwrap()),
            VmLookup::MoRef(handle.id().to_owned()),
        ];
        for lookup in by {
            assert_eq!(vim.find_vm(&lookup).await.unwrap(), found, "{lookup}");
        }
        for lookup in [
            VmLookup::InventoryPath("nowhere/vm/web".into()),
            VmLookup::InstanceUuid("00000000-0000-0000-0000-000000000000".into()),
            VmLookup::MoRef("vm-999999".into()),
        ] {
            assert!(matches!(vim.find_vm(&lookup).await, Err(Error::NotFound { .. })), "{lookup}");
        }
        let folder = handle.inventory_path().replace("/web", "");
        assert!(matches!(vim.find_vm(&VmLookup::InventoryPath(folder)).await, Err(Error::InvalidInput { .. })));
        close(vim, sim).await;
    }
}

#[tokio::test]
async fn the_whole_inventory_is_found_by_traversal_and_by_view_page_by_page() {
    let many = (0..25).map(|index| VmSpec::new(&format!("vm{index:02}")).disk(DiskSpec::empty(MIB)));
    let sim = many.fold(Simulator::builder(), SimulatorBuilder::vm).start().await.unwrap();
    let vim = connect(&sim).await;
    let expected: Vec<_> = (0..25).map(|index| format!("vm{index:02}")).collect();
    for by_view in [false, true] {
        for page in [1, 7, 25, 1000] {
            let all = vim.properties::<VirtualMachine>().under(vim.root());
            let all = if by_view { all.by_view() } else { all };
            let rows =
                all.select((VirtualMachine::NAME, VirtualMachine::RUNTIME)).page_size(page).collect().await.unwrap();
            let mut names: Vec<_> = rows.into_iter().map(|row| row.values.0.present().unwrap()).collect();
            names.sort();
            assert_eq!(names, expected, "view {by_view}, pages of {page}");
        }
    }
    let mut all = vim.virtual_machines();
    let mut count = 0;
    while let Some(vm) = all.try_next().await.unwrap() {
        assert!(vm.instance_uuid.is_some() && vm.server_uuid.is_some());
        count += 1;
    }
    assert_eq!(count, 25);
    // Everything else of the inventory is on the way too.
    for (found, kind) in [
        (vim.properties::<mo::Folder>().select(()).collect().await.unwrap().len(), "folders"),
        (vim.properties::<mo::Datacenter>().select(()).collect().await.unwrap().len(), "datacenters"),
        (vim.properties::<mo::HostSystem>().select(()).collect().await.unwrap().len(), "hosts"),
        (vim.properties::<mo::ResourcePool>().select(()).collect().await.unwrap().len(), "pools"),
        (vim.properties::<mo::Datastore>().select(()).collect().await.unwrap().len(), "datastores"),
    ] {
        assert!(found >= 1, "no {kind}");
    }
    close(vim, sim).await;
}

#[tokio::test]
async fn a_walk_goes_on_when_all_sessions_expire_in_its_middle() {
    let many = (0..12).map(|index| VmSpec::new(&format!("vm{index:02}")).disk(DiskSpec::empty(MIB)));
    let sim = many.fold(Simulator::builder(), SimulatorBuilder::vm).start().await.unwrap();
    let vim = connect(&sim).await;
    for by_view in [false, true] {
        let all = vim.properties::<VirtualMachine>();
        let all = if by_view { all.by_view() } else { all };
        let mut rows = all.select(VirtualMachine::NAME).page_size(5).stream();
        let mut names = Vec::new();
        while let Some(row) = rows.try_next().await.unwrap() {
            names.push(row.values.present().unwrap());
            if names.len() == 5 {
                sim.expire_sessions();
            }
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 12);
    }
    close(vim, sim).await;
}

#[tokio::test]
async fn a_stream_dropped_early_leaves_nothing_on_the_server() {
    let many = (0..9).map(|index| VmSpec::new(&format!("vm{index}")).disk(DiskSpec::empty(MIB)));
    let sim = many.fold(Simulator::builder(), SimulatorBuilder::vm).start().await.unwrap();
    let vim = connect(&sim).await;
    for by_view in [false, true] {
        let all = vim.properties::<VirtualMachine>();
        let all = if by_view { all.by_view() } else { all };
        let mut rows = all.select(()).page_size(2).stream();
        rows.try_next().await.unwrap();
        assert_eq!(sim.leftovers().retrievals, 1);
        drop(rows);
    }
    close(vim, sim).await;
}

#[tokio::test]
async fn a_forbidden_property_hides_neither_its_row_nor_the_others() {
    let vms = ["web", "db"].map(|name| VmSpec::new(name).disk(DiskSpec::empty(MIB)));
    let sim = vms.into_iter().fold(Simulator::builder(), SimulatorBuilder::vm).start().await.unwrap();
    sim.vm("db").unwrap().deny_reading(true);
    let vim = connect(&sim).await;
    let uuid: PropertyPath<VirtualMachine, String> = PropertyPath::new("config.uuid");
    let rows = vim.properties::<VirtualMachine>().select((VirtualMachine::NAME, uuid)).collect().await.unwrap();
    assert_eq!(rows.len(), 2);
    let denied = rows.iter().filter(|row| row.values.1.missing().is_some()).count();
    assert_eq!(denied, 1);
    let fault = rows.iter().find_map(|row| row.values.1.missing()).unwrap();
    assert!(fault.fault.as_ref().unwrap().is_a("NoPermission"));
    close(vim, sim).await;
}

#[tokio::test]
async fn details_tell_what_a_backup_plan_needs() {
    let spec = VmSpec::new("web")
        .disk(DiskSpec::empty(64 * MIB))
        .disk(DiskSpec::empty(10 * MIB).independent())
        .power(Power::On)
        .hardware_version(19);
    let sim = Simulator::builder().vm(spec).start().await.unwrap();
    let vim = connect(&sim).await;
    let details = vim.vm_details(&web(&vim).await).await.unwrap();
    assert_eq!((details.identity.name.as_str(), details.hardware_version), ("web", Some(19)));
    assert_eq!(details.power_state, PowerState::On);
    assert!(details.connected && details.host.is_some() && !details.is_template);
    assert!(details.change_tracking_supported && !details.change_tracking_enabled);
    assert!(details.snapshots.is_empty() && details.disabled_methods.is_empty() && !details.consolidation_needed);
    assert!(details.config_path.unwrap().ends_with(".vmx"));
    let [system, independent] = &details.disks[..] else { panic!("two disks") };
    assert_eq!((system.key, system.capacity), (DeviceKey(2000), 64 * MIB));
    assert_eq!(system.backing.kind, BackingKind::FlatVer2);
    assert!(system.backing.file_name.as_ref().unwrap().starts_with("[ds1] web/"));
    assert!(system.controller.is_some() && system.snapshot_obstacle().is_none() && system.backing.parents.is_empty());
    assert!(independent.snapshot_obstacle().is_some());
    close(vim, sim).await;
}

#[tokio::test]
async fn snapshots_are_created_found_reverted_and_removed() {
    let sim = one_vm().start().await.unwrap();
    let vim = connect(&sim).await;
    let vm = web(&vim).await;
    let base = vim.disks(&vm).await.unwrap()[0].backing.file_name.clone().unwrap();
    let options = CreateSnapshotOptions::new("nightly").description("tag 7").quiesce(true);
    let first = vim.create_snapshot(&vm, options).await.unwrap();
    let second = vim.create_snapshot(&vm, CreateSnapshotOptions::new("nightly")).await.unwrap();
    let tree = vim.snapshots(&vm).await.unwrap();
    assert_eq!(tree.current.as_ref(), Some(&second));
    let found: Vec<_> = tree.named("nightly").map(|snapshot| snapshot.snapshot.clone()).collect();
    assert_eq!(found, [first.clone(), second.clone()]);
    assert_eq!(tree.get(&first).unwrap().description, "tag 7");
    assert_eq!(tree.matching("nightly", "tag 7").count(), 1);

    // The running disk is a child now; the snapshot's disk is the file that was frozen.
    let running = &vim.disks(&vm).await.unwrap()[0];
    assert_eq!(running.backing.parents.len(), 2);
    assert_eq!(running.base_disk_name().as_deref(), Some(base.as_str()));
    assert_ne!(running.backing.file_name.as_deref(), Some(base.as_str()));
    assert_eq!(vim.snapshot_disks(&first).await.unwrap()[0].backing.file_name.as_deref(), Some(base.as_str()));
    assert_eq!(vim.snapshot_config(&first).await.unwrap().name, "web");

    vim.revert_to_snapshot(&first).await.unwrap();
    assert_eq!(vim.snapshots(&vm).await.unwrap().current, Some(first.clone()));
    vim.remove_snapshot(&second, RemoveSnapshotOptions::default()).await.unwrap();
    vim.remove_snapshot(&first, RemoveSnapshotOptions::default()).await.unwrap();
    assert!(vim.snapshots(&vm).await.unwrap().is_empty());
    let gone = vim.remove_snapshot(&first, RemoveSnapshotOptions::default()).await.unwrap_err();
    assert!(gone.is_fault("ManagedObjectNotFound"), "{gone}");
    assert!(!vim.consolidation_needed(&vm).await.unwrap());
    close(vim, sim).await;
}

#[tokio::test]
async fn a_removal_without_merging_needs_consolidation() {
    let sim = one_vm().start().await.unwrap();
    let vim = connect(&sim).await;
    let vm = web(&vim).await;
    let snapshot = vim.create_snapshot(&vm, CreateSnapshotOptions::new("s")).await.unwrap();
    let options = RemoveSnapshotOptions { consolidate: false, ..Default::default() };
    vim.remove_snapshot(&snapshot, options).await.unwrap();
    assert!(vim.consolidation_needed(&vm).await.unwrap());
    vim.consolidate_disks(&vm).await.unwrap();
    assert!(!vim.consolidation_needed(&vm).await.unwrap());
    assert!(vim.disks(&vm).await.unwrap()[0].backing.parents.is_empty());
    close(vim, sim).await;
}

#[tokio::test]
async fn changed_areas_are_what_the_guest_wrote() {
    let sim = one_vm().start().await.unwrap();
    let vim = connect(&sim).await;
    let vm = web(&vim).await;
    vim.set_change_tracking(&vm, true).await.unwrap();
    assert!(vim.change_tracking_enabled(&vm).await.unwrap());
    let options = || CreateSnapshotOptions::new("s");
    // Tracking begins with a stun; a snapshot that comes and goes is one.
    let stun = vim.create_snapshot(&vm, options()).await.unwrap();
    vim.remove_snapshot(&stun, RemoveSnapshotOptions::default()).await.unwrap();
    let first = vim.create_snapshot(&vm, options()).await.unwrap();
    let disk = &vim.snapshot_disks(&first).await.unwrap()[0];
    let base = disk.backing.change_id.clone().expect("tracking began with the stun");
    sim.guest("web").unwrap().disk(2000).unwrap().write_at(10 * MIB, b"changed").unwrap();
    let second = vim.create_snapshot(&vm, options()).await.unwrap();
    let changed = vim.query_changed_disk_areas(&vm, Some(&second), DeviceKey(2000), 0, &base).await.unwrap();
    assert_eq!(changed.window, 0..64 * MIB);
    let [area] = &changed.areas[..] else { panic!("one area: {changed:?}") };
    assert!(area.contains(&(10 * MIB)) && area.end - area.start <= MIB, "{area:?}");

    let beyond = vim.query_changed_disk_areas(&vm, Some(&second), DeviceKey(2000), 64 * MIB, &base).await.unwrap_err();
    assert!(beyond.is_fault("InvalidArgument") && beyond.to_string().contains("startOffset"), "{beyond}");
    sim.vm("web").unwrap().disk(2000).unwrap().reset_tracking();
    let third = vim.create_snapshot(&vm, options()).await.unwrap();
    let stale = vim.query_changed_disk_areas(&vm, Some(&third), DeviceKey(2000), 0, &base).await.unwrap_err();
    assert!(stale.fault::<FileFault>().is_some() && stale.hint().unwrap().contains("full backup"), "{stale}");
    for snapshot in [third, second, first] {
        vim.remove_snapshot(&snapshot, RemoveSnapshotOptions::default()).await.unwrap();
    }
    close(vim, sim).await;
}

#[tokio::test]
async fn power_follows_the_calls_and_wrong_states_are_typed_faults() {
    let sim = one_vm().start().await.unwrap();
    let vim = connect(&sim).await;
    let vm = web(&vim).await;
    let error = vim.power_on(&vm).await.unwrap_err();
    assert!(error.is_fault("InvalidPowerState") && error.hint().unwrap().contains("poweredOn"), "{error}");
    for (step, expected) in [
        ("suspend", PowerState::Suspended),
        ("on", PowerState::On),
        ("reset", PowerState::On),
        ("off", PowerState::Off),
    ] {
        match step {
            "suspend" => vim.suspend(&vm).await.unwrap(),
            "on" => vim.power_on(&vm).await.unwrap(),
            "reset" => vim.reset(&vm).await.unwrap(),
            _ => vim.power_off(&vm).await.unwrap(),
        }
        assert_eq!(vim.power_state(&vm).await.unwrap(), expected, "{step}");
    }
    close(vim, sim).await;
}

#[tokio::test]
async fn reconfiguring_changes_the_configuration() {
    let sim = one_vm().start().await.unwrap();
    let vim = connect(&sim).await;
    let vm = web(&vim).await;
    let spec = VirtualMachineConfigSpec { annotation: Some("seen & <kept> \u{1F600}".into()), ..Default::default() };
    vim.reconfigure(&vm, spec).await.unwrap();
    assert_eq!(vim.config(&vm).await.unwrap().annotation.as_deref(), Some("seen & <kept> \u{1F600}"));
    close(vim, sim).await;
}

#[tokio::test]
async fn a_slow_task_is_followed_through_expiry_of_the_session() {
    let sim = one_vm().task_delay(Duration::from_millis(400)).start().await.unwrap();
    let vim = connect(&sim).await;
    let vm = web(&vim).await;
    let task = vim.create_snapshot_task(&vm, CreateSnapshotOptions::new("slow")).await.unwrap();
    let seen = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&seen);
    let wait = vim.wait(&task).on_progress(move |_| *counter.lock().unwrap() += 1);
    let kill = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        sim.expire_sessions();
    };
    let (done, ()) = tokio::join!(wait.into_future(), kill);
    let snapshot: MoRef<mo::VirtualMachineSnapshot> = done.unwrap().result().unwrap();
    assert!(*seen.lock().unwrap() >= 1, "progress was reported");
    vim.remove_snapshot(&snapshot, RemoveSnapshotOptions::default()).await.unwrap();
    close(vim, sim).await;
}

#[tokio::test]
async fn injected_task_faults_and_call_faults_reach_the_caller() {
    let sim = one_vm().start().await.unwrap();
    let vim = connect(&sim).await;
    let vm = web(&vim).await;
    sim.faults().fail_next_task("CreateSnapshot_Task", Fault::new("ApplicationQuiesceFault", "VSS said no"));
    let error = vim.create_snapshot(&vm, CreateSnapshotOptions::new("s").quiesce(true)).await.unwrap_err();
    assert!(matches!(error, Error::TaskFailed(_)), "{error}");
    assert!(error.is_fault("SnapshotFault") && error.to_string().contains("VSS said no"));
    assert!(error.hint().unwrap().contains("quiesc"));

    sim.faults().fail_next("CreateSnapshot_Task", Fault::new("TaskInProgress", "busy"));
    let error = vim.invoke(&vm, CreateSnapshot_Task { name: "s".into(), ..Default::default() }).await.unwrap_err();
    assert!(matches!(error, Error::Fault(_)) && error.is_retryable(), "{error}");
    close(vim, sim).await;
}

#[tokio::test]
async fn a_dropped_connection_is_retried_for_reads_and_reported_for_writes() {
    let sim = one_vm().start().await.unwrap();
    let vim = connect(&sim).await;
    let vm = web(&vim).await;
    sim.faults().drop_next("RetrievePropertiesEx");
    assert_eq!(vim.power_state(&vm).await.unwrap(), PowerState::On);
    sim.faults().drop_next("PowerOnVM_Task");
    let error = vim.invoke(&vm, PowerOnVM_Task::default()).await.unwrap_err();
    assert_eq!(error.transport_kind(), Some(TransportErrorKind::Disconnected), "{error}");
    close(vim, sim).await;
}

#[tokio::test]
async fn tickets_name_host_port_and_certificate() {
    for personality in [Personality::VCenter, Personality::Esxi] {
        let sim = one_vm().personality(personality).start().await.unwrap();
        let vim = connect(&sim).await;
        let vm = web(&vim).await;
        let host = vim.host_of(&vm).await.unwrap();
        assert!(vim.nfc_version(&host).await.unwrap() > 0);
        let ticket = vim.nfc_ticket(&vm, DeviceKey(2000), Some(&host), DiskAccess::ReadOnly).await.unwrap();
        assert_eq!(ticket.host, "127.0.0.1");
        assert_eq!(ticket.port, sim.nfc_address().port());
        assert!(ticket.thumbprint.is_some() || ticket.certificate.is_some());
        assert_eq!(ticket.service, if vim.is_vcenter() { "vpxa-nfc" } else { "nfc" });
        assert!(!format!("{ticket:?}").contains(ticket.session_id.expose()));
        assert_eq!(sim.leftovers().tickets, 1);
        vim.logout().await.unwrap();
    }
}

#[tokio::test]
async fn a_host_without_the_version_method_is_told_from_one_that_fails() {
    for (version, expected) in
        [(HostVersion::Esxi67, Some(2)), (HostVersion::Esxi65, Some(0)), (HostVersion::Esxi60, None)]
    {
        let sim = one_vm().nfc(NfcServerConfig::of(version)).start().await.unwrap();
        let vim = connect(&sim).await;
        let host = vim.host_of(&web(&vim).await).await.unwrap();
        match (vim.nfc_version(&host).await, expected) {
            (Ok(told), Some(expected)) => assert_eq!(told, expected),
            (Err(Error::Unsupported { .. }), None) => {}
            (other, _) => panic!("{version:?}: {other:?}"),
        }
        close(vim, sim).await;
    }
}

#[tokio::test]
async fn a_locked_method_fails_until_its_lock_is_released() {
    let sim = one_vm().start().await.unwrap();
    let vim = connect(&sim).await;
    let vm = web(&vim).await;
    let lock = MethodLock::against_migration(&vm, "backup-7");
    assert_eq!(vim.lock_methods(&lock).await.unwrap(), LockOutcome::Taken);
    assert_eq!(vim.locked_methods(&vm).await.unwrap(), ["RelocateVM_Task"]);
    assert!(matches!(vim.lock_methods(&lock).await.unwrap(), LockOutcome::AlreadyLocked { .. }));
    vim.unlock_methods(&lock).await.unwrap();
    assert!(vim.locked_methods(&vm).await.unwrap().is_empty());
    vim.unlock_methods(&lock).await.unwrap();
    close(vim, sim).await;

    let host = one_vm().personality(Personality::Esxi).start().await.unwrap();
    let vim = connect(&host).await;
    assert_eq!(vim.lock_methods(&lock).await.unwrap(), LockOutcome::NotOffered);
    close(vim, host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_share_one_session_through_its_death() {
    let sim = one_vm().start().await.unwrap();
    let vim = connect(&sim).await;
    let vm = web(&vim).await;
    sim.expire_sessions();
    let tasks: Vec<_> = (0..40)
        .map(|_| {
            let (vim, vm) = (vim.clone(), vm.clone());
            tokio::spawn(async move { vim.power_state(&vm).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), PowerState::On);
    }
    assert_eq!(sim.leftovers().sessions, 1);
    close(vim, sim).await;
}
