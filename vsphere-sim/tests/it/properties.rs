//! The PropertyCollector: selection, paging, missing properties, waiting.

use std::time::Duration;

use vsphere_sim::{DiskSpec, Simulator, VmSpec};
use vsphere_vim_types::methods::{
    CancelRetrievePropertiesEx, CheckForUpdates, ContinueRetrievePropertiesEx, CreateContainerView, CreateFilter,
    CreatePropertyCollector, CreateSnapshot_Task, DestroyPropertyCollector, DestroyView, FindByInventoryPath,
    FindByUuid, RetrievePropertiesEx, WaitForUpdatesEx,
};
use vsphere_vim_types::{
    Any, ManagedObjectReference, ObjectSpec, ObjectUpdateKind, Poly, PropertyFilterSpec, PropertySpec, RetrieveOptions,
    SelectionSpec, TraversalSpec, WaitOptions,
};

use crate::client::{Client, fault_name, one, root, vm};

fn collector() -> ManagedObjectReference {
    root("PropertyCollector", "propertyCollector")
}

fn step(name: &str, kind: &str, path: &str, then: &[&str]) -> Poly<SelectionSpec> {
    let by_name = |name: &&str| Poly::new(SelectionSpec { name: Some((*name).into()), ..Default::default() });
    let base = SelectionSpec { name: Some(name.into()), ..Default::default() };
    Poly::new(TraversalSpec {
        type_: kind.into(),
        path: path.into(),
        skip: Some(false),
        select_set: then.iter().map(by_name).collect(),
        base,
    })
}

/// The whole inventory by named recursion, as the programming guide has it.
fn everything(kind: &str, paths: &[&str]) -> PropertyFilterSpec {
    let select_set = vec![
        step(
            "folder",
            "Folder",
            "childEntity",
            &["folder", "dcVm", "dcHost", "crPool", "crHost", "poolPool", "poolVm"],
        ),
        step("dcVm", "Datacenter", "vmFolder", &["folder"]),
        step("dcHost", "Datacenter", "hostFolder", &["folder"]),
        step("crPool", "ComputeResource", "resourcePool", &["poolPool", "poolVm"]),
        step("crHost", "ComputeResource", "host", &[]),
        step("poolPool", "ResourcePool", "resourcePool", &["poolPool", "poolVm"]),
        step("poolVm", "ResourcePool", "vm", &[]),
    ];
    PropertyFilterSpec {
        prop_set: vec![PropertySpec {
            type_: kind.into(),
            path_set: paths.iter().map(|path| (*path).to_owned()).collect(),
            ..Default::default()
        }],
        object_set: vec![ObjectSpec {
            obj: root("Folder", "group-d1"),
            skip: Some(false),
            select_set,
            ..Default::default()
        }],
        ..Default::default()
    }
}

async fn many(count: usize) -> Simulator {
    let builder = (0..count).fold(Simulator::builder(), |builder, n| {
        builder.vm(VmSpec::new(&format!("vm{n:03}")).disk(DiskSpec::empty(1 << 20)))
    });
    builder.start().await.unwrap()
}

#[tokio::test]
async fn the_whole_inventory_is_reached_once_by_named_recursion() {
    let sim = many(3).await;
    let mut client = Client::login(&sim).await;
    let args =
        RetrievePropertiesEx { spec_set: vec![everything("ManagedEntity", &["name", "parent"])], ..Default::default() };
    let rows = client.call(&collector(), &args).await.unwrap().unwrap().objects;
    let mut kinds: Vec<_> = rows.iter().map(|row| row.obj.type_name().to_owned()).collect();
    kinds.sort();
    assert_eq!(
        kinds,
        [
            "ComputeResource",
            "Datacenter",
            "Folder",
            "Folder",
            "Folder",
            "HostSystem",
            "ResourcePool",
            "VirtualMachine",
            "VirtualMachine",
            "VirtualMachine"
        ]
    );
    assert!(rows.iter().all(|row| row.prop_set.iter().any(|property| property.name == "name")));
}

#[tokio::test]
async fn pages_come_by_token_and_a_vm_that_goes_away_is_a_row_with_a_fault() {
    let sim = many(5).await;
    let mut client = Client::login(&sim).await;
    let options = RetrieveOptions { max_objects: Some(2), ..Default::default() };
    let args =
        RetrievePropertiesEx { spec_set: vec![everything("VirtualMachine", &["name"])], options, ..Default::default() };
    let first = client.call(&collector(), &args).await.unwrap().unwrap();
    assert_eq!(first.objects.len(), 2);
    sim.vm("vm002").unwrap().unregister();
    let second = client
        .call(&collector(), &ContinueRetrievePropertiesEx { token: first.token.clone().unwrap(), ..Default::default() })
        .await
        .unwrap();
    assert_eq!(second.objects.len(), 2);
    let gone = &second.objects[0];
    assert_eq!(gone.missing_set[0].fault.fault.type_name(), "ManagedObjectNotFound");
    assert_eq!(second.objects[1].prop_set[0].val, Any::String("vm003".into()));
    let used = ContinueRetrievePropertiesEx { token: first.token.unwrap(), ..Default::default() };
    assert_eq!(client.refused(&collector(), &used).await, "InvalidProperty", "a token works once");
    assert_eq!(sim.leftovers().retrievals, 1);
    client
        .call(&collector(), &CancelRetrievePropertiesEx { token: second.token.unwrap(), ..Default::default() })
        .await
        .unwrap();
    assert_eq!(sim.leftovers().retrievals, 0);
}

#[tokio::test]
async fn denied_properties_are_missing_and_unset_ones_are_absent() {
    let sim = many(2).await;
    sim.vm("vm001").unwrap().deny_reading(true);
    let mut client = Client::login(&sim).await;
    let args = RetrievePropertiesEx {
        spec_set: vec![everything("VirtualMachine", &["name", "snapshot"])],
        ..Default::default()
    };
    let rows = client.call(&collector(), &args).await.unwrap().unwrap().objects;
    assert_eq!((rows[0].prop_set.len(), rows[0].missing_set.len()), (1, 0), "snapshot is unset");
    assert_eq!((rows[1].prop_set.len(), rows[1].missing_set.len()), (0, 2));
    assert_eq!(rows[1].missing_set[0].fault.fault.type_name(), "NoPermission");
}

#[tokio::test]
async fn nested_and_keyed_paths_are_read_and_unknown_ones_fail_the_call() {
    let sim = many(1).await;
    let mut client = Client::login(&sim).await;
    let vm = vm(&sim, "vm000");
    assert_eq!(
        client.get::<String>(&vm, "config.hardware.device[2000].backing.fileName").await.unwrap(),
        "[ds1] vm000/vm000.vmdk"
    );
    assert_eq!(client.get::<String>(&vm, "config.version").await.unwrap(), "vmx-19");
    assert!(client.get::<bool>(&vm, "capability.changeTrackingSupported").await.unwrap());
    for bad in ["nosuch", "config.nosuch", "config.hardware.nosuch.name", ""] {
        let args = RetrievePropertiesEx { spec_set: vec![one(&vm, bad)], ..Default::default() };
        assert_eq!(client.refused(&collector(), &args).await, "InvalidProperty", "{bad}");
    }
    let args =
        RetrievePropertiesEx { spec_set: vec![one(&root("VirtualMachine", "vm-9"), "name")], ..Default::default() };
    assert_eq!(client.refused(&collector(), &args).await, "ManagedObjectNotFound");
}

#[tokio::test]
async fn every_property_of_every_type_can_be_read() {
    let sim = many(1).await;
    let mut client = Client::login(&sim).await;
    client.snapshot(&vm(&sim, "vm000"), "one").await;
    let view =
        CreateContainerView { container: root("Folder", "group-d1").cast(), recursive: true, ..Default::default() };
    let view = client.call(&root("ViewManager", "ViewManager"), &view).await.unwrap().erase();
    let all = |kind: &str| PropertySpec { type_: kind.into(), all: Some(true), ..Default::default() };
    let follow = vec![
        step("view", "ContainerView", "view", &["snapshots"]),
        step("snapshots", "VirtualMachine", "rootSnapshot", &[]),
    ];
    let spec = PropertyFilterSpec {
        prop_set: vec![all("ManagedEntity"), all("VirtualMachineSnapshot"), all("ContainerView")],
        object_set: vec![ObjectSpec { obj: view.clone(), select_set: follow, ..Default::default() }],
        ..Default::default()
    };
    let rows = client
        .call(&collector(), &RetrievePropertiesEx { spec_set: vec![spec], ..Default::default() })
        .await
        .unwrap()
        .unwrap()
        .objects;
    let kinds: std::collections::BTreeSet<_> = rows.iter().map(|row| row.obj.type_name()).collect();
    for kind in [
        "ComputeResource",
        "ContainerView",
        "Datacenter",
        "Datastore",
        "Folder",
        "HostSystem",
        "Network",
        "ResourcePool",
        "VirtualMachine",
        "VirtualMachineSnapshot",
    ] {
        assert!(kinds.contains(kind), "{kind}");
    }
    for service in [
        root("ServiceInstance", "ServiceInstance"),
        root("SessionManager", "SessionManager"),
        root("TaskManager", "TaskManager"),
        root("ViewManager", "ViewManager"),
    ] {
        let mut spec = one(&service, "x");
        spec.prop_set = vec![all(service.type_name())];
        let rows = client
            .call(&collector(), &RetrievePropertiesEx { spec_set: vec![spec], ..Default::default() })
            .await
            .unwrap()
            .unwrap()
            .objects;
        assert!(!rows[0].prop_set.is_empty(), "{service}");
    }
    client.call(&view, &DestroyView::default()).await.unwrap();
    client.logout().await;
}

#[tokio::test]
async fn a_wait_ends_with_the_change_and_its_version_is_the_only_valid_one() {
    let sim = many(1).await;
    let vm = vm(&sim, "vm000");
    let mut client = Client::login(&sim).await;
    let own = client.call(&collector(), &CreatePropertyCollector::default()).await.unwrap().erase();
    client
        .call(
            &own,
            &CreateFilter { spec: one(&vm, "runtime.powerState"), partial_updates: false, ..Default::default() },
        )
        .await
        .unwrap();
    let first = client.call(&own, &WaitForUpdatesEx::default()).await.unwrap().unwrap();
    let update = &first.filter_set[0].object_set[0];
    assert_eq!((&update.kind, &update.obj), (&ObjectUpdateKind::Enter, &vm));
    let nothing = CheckForUpdates { version: Some(first.version.clone()), ..Default::default() };
    assert_eq!(client.call(&own, &nothing).await.unwrap(), None);
    let brief = WaitForUpdatesEx {
        version: Some(first.version.clone()),
        options: Some(WaitOptions { max_wait_seconds: Some(0), ..Default::default() }),
        ..Default::default()
    };
    assert_eq!(client.call(&own, &brief).await.unwrap(), None);

    let handle = sim.vm("vm000").unwrap();
    let later = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        handle.set_power(vsphere_sim::Power::Off).unwrap();
    });
    let wait = WaitForUpdatesEx { version: Some(first.version.clone()), ..Default::default() };
    let second = client.call(&own, &wait).await.unwrap().unwrap();
    later.await.unwrap();
    let update = &second.filter_set[0].object_set[0];
    assert_eq!(update.kind, ObjectUpdateKind::Modify);
    assert_eq!(update.change_set[0].val.clone().unwrap().into_typed::<String>().unwrap(), "poweredOff");
    assert_eq!(client.refused(&own, &wait).await, "InvalidCollectorVersion", "an old version");

    sim.vm("vm000").unwrap().unregister();
    let third = client
        .call(&own, &CheckForUpdates { version: Some(second.version), ..Default::default() })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(third.filter_set[0].object_set[0].kind, ObjectUpdateKind::Leave);
    assert_eq!(sim.leftovers().session_objects, 2);
    client.call(&own, &DestroyPropertyCollector::default()).await.unwrap();
    assert_eq!(sim.leftovers().session_objects, 0);
}

#[tokio::test]
async fn updates_beyond_the_limit_come_in_the_next_answer() {
    let sim = many(5).await;
    let mut client = Client::login(&sim).await;
    client
        .call(&collector(), &CreateFilter { spec: everything("VirtualMachine", &["name"]), ..Default::default() })
        .await
        .unwrap();
    let options = Some(WaitOptions { max_object_updates: Some(2), ..Default::default() });
    let (mut version, mut seen, mut answers) = (None, 0, 0);
    loop {
        let update = client
            .call(&collector(), &WaitForUpdatesEx { version, options: options.clone(), ..Default::default() })
            .await
            .unwrap()
            .unwrap();
        seen += update.filter_set[0].object_set.len();
        answers += 1;
        if update.truncated != Some(true) {
            break;
        }
        version = Some(update.version);
    }
    assert_eq!((seen, answers), (5, 3));
}

#[tokio::test]
async fn a_task_can_be_followed_by_a_filter_to_its_end() {
    let sim = Simulator::builder()
        .task_delay(Duration::from_millis(100))
        .vm(VmSpec::new("web").disk(DiskSpec::empty(1 << 20)))
        .start()
        .await
        .unwrap();
    let mut client = Client::login(&sim).await;
    let task = client
        .call(&vm(&sim, "web"), &CreateSnapshot_Task { name: "s".into(), ..Default::default() })
        .await
        .unwrap()
        .erase();
    let mut spec = one(&task, "info.state");
    spec.prop_set[0].path_set.push("info.progress".into());
    client.call(&collector(), &CreateFilter { spec, ..Default::default() }).await.unwrap();
    let (mut version, mut progress) = (None, Vec::new());
    loop {
        let update =
            client.call(&collector(), &WaitForUpdatesEx { version, ..Default::default() }).await.unwrap().unwrap();
        let changes = &update.filter_set[0].object_set[0].change_set;
        progress.extend(
            changes.iter().filter(|change| change.name == "info.progress").filter_map(|change| change.val.clone()),
        );
        if changes.iter().any(|change| {
            change.name == "info.state" && matches!(&change.val, Some(Any::Enum { value, .. }) if &**value == "success")
        }) {
            break;
        }
        version = Some(update.version);
    }
    assert!(progress.len() > 1, "{progress:?}");
}

#[tokio::test]
async fn vms_are_found_by_path_and_uuid() {
    let sim = many(2).await;
    let mut client = Client::login(&sim).await;
    let search = root("SearchIndex", "SearchIndex");
    let handle = sim.vm("vm001").unwrap();
    let by_path = FindByInventoryPath { inventory_path: handle.inventory_path(), ..Default::default() };
    assert_eq!(client.call(&search, &by_path).await.unwrap().unwrap().value(), handle.id());
    let none = FindByInventoryPath { inventory_path: "dc1/vm/nosuch".into(), ..Default::default() };
    assert_eq!(client.call(&search, &none).await.unwrap(), None);
    let by_uuid = FindByUuid {
        uuid: handle.instance_uuid().to_uppercase(),
        vm_search: true,
        instance_uuid: Some(true),
        ..Default::default()
    };
    assert_eq!(client.call(&search, &by_uuid).await.unwrap().unwrap().value(), handle.id());
    let bios = FindByUuid { uuid: handle.instance_uuid(), vm_search: true, ..Default::default() };
    assert_eq!(client.call(&search, &bios).await.unwrap(), None, "the instance UUID is not the BIOS UUID");
}

#[tokio::test]
async fn two_thousand_vms_are_listed_in_pages() {
    let builder = (0..2000).fold(Simulator::builder(), |builder, n| builder.vm(VmSpec::new(&format!("vm{n}"))));
    let sim = builder.start().await.unwrap();
    let mut client = Client::login(&sim).await;
    let options = RetrieveOptions { max_objects: Some(500), ..Default::default() };
    let args = RetrievePropertiesEx {
        spec_set: vec![everything("VirtualMachine", &["name", "config.changeTrackingEnabled"])],
        options,
        ..Default::default()
    };
    let mut page = client.call(&collector(), &args).await.unwrap().unwrap();
    let mut rows = page.objects.len();
    while let Some(token) = page.token {
        page = client.call(&collector(), &ContinueRetrievePropertiesEx { token, ..Default::default() }).await.unwrap();
        rows += page.objects.len();
    }
    assert_eq!(rows, 2000);
}

#[tokio::test]
async fn a_stale_filter_start_and_foreign_objects_are_faults() {
    let sim = many(1).await;
    let mut client = Client::login(&sim).await;
    let mut stranger = Client::login(&sim).await;
    let own = client.call(&collector(), &CreatePropertyCollector::default()).await.unwrap().erase();
    let error = stranger.call(&own, &WaitForUpdatesEx::default()).await.unwrap_err();
    assert_eq!(fault_name(&error), "ManagedObjectNotFound", "another session's collector");
    let error = client.call(&root("Folder", "group-v3"), &CreateSnapshot_Task::default()).await.unwrap_err();
    assert_eq!(fault_name(&error), "MethodNotFound");
}
