//! Properties, watches and the inventory against vcsim.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::timeout;
use vsphere_vim::{
    CallOptions, MoRef, Vim,
    methods::{CreateVM_Task, Rename_Task},
    mo::{self, VirtualMachine},
    property::UpdateCall,
    types::{VirtualMachineConfigSpec, VirtualMachineFileInfo},
    watch::{Watch, WatchEvent},
};

use super::Vcsim;

/// All machines below the root: reference and name.
async fn machines(vim: &Vim, by_view: bool) -> BTreeMap<String, String> {
    let all = vim.properties::<VirtualMachine>();
    let all = if by_view { all.by_view() } else { all };
    let rows = all.select(VirtualMachine::NAME).page_size(3).collect().await.unwrap();
    rows.into_iter().map(|row| (row.object.value().to_owned(), row.values.present().unwrap())).collect()
}

#[tokio::test]
async fn the_whole_inventory_is_the_same_by_traversal_by_view_and_in_memory() {
    let vcenter = &["-dc", "2", "-folder", "1", "-app", "1", "-pool", "1", "-vm", "3", "-ds", "2"][..];
    for (options, vcenter) in [(vcenter, true), (&["-esx"][..], false)] {
        let Some(vcsim) = Vcsim::start(options) else { return };
        let vim = vcsim.connect().await;
        let walked = machines(&vim, false).await;
        assert_eq!(walked, machines(&vim, true).await);
        assert!(walked.len() >= if vcenter { 10 } else { 2 }, "{walked:?}");

        let inventory = vim.inventory().open().await.unwrap();
        let tree = inventory.tree();
        assert_eq!(tree.root().unwrap().object, vim.root().erase());
        let below: BTreeSet<String> =
            tree.vms_below(vim.root().as_untyped()).iter().map(|vm| vm.value().to_owned()).collect();
        assert_eq!(below, walked.keys().cloned().collect());
        let count = |kind: &str| tree.nodes().filter(|node| node.object.type_name() == kind).count();
        for kind in ["Datacenter", "HostSystem", "Datastore", "Network", "ResourcePool"] {
            assert!(count(kind) >= 1, "no {kind}");
        }
        if vcenter {
            // It does not set `parentVApp`: its machines in vApps are in their folders only.
            assert!(count("VirtualApp") >= 2 && count("Datacenter") == 2 && count("Datastore") >= 2);
        }
        // What the server finds at a path of ours is what we mean.
        for node in tree.nodes().filter(|node| !node.object.type_name().ends_with("Pool")) {
            let Some(path) = tree.path(&node.object) else { continue };
            assert_eq!(tree.find(&path).unwrap().object, node.object, "{path}");
            if node.object.is_a::<mo::Folder>() || node.object.is_a::<mo::Datacenter>() {
                assert_eq!(vim.find_by_inventory_path(&path).await.unwrap(), Some(node.object.clone()), "{path}");
            }
        }
        inventory.close().await;
        vim.logout().await.unwrap();
    }
}

type Names = vsphere_vim::PropertyPath<VirtualMachine, String>;

/// Events until one is as wanted; what comes before it is another's business.
async fn until(watch: &mut Watch<VirtualMachine, Names>, wanted: &str) -> MoRef<VirtualMachine> {
    let mut before = Vec::new();
    let seen = timeout(Duration::from_secs(30), async {
        loop {
            let event = watch.try_next().await.unwrap().expect("no end");
            let name = |row: &vsphere_vim::property::Row<VirtualMachine, _>| {
                let value: &vsphere_vim::property::Property<String> = &row.values;
                value.as_present().cloned().unwrap_or_default()
            };
            let (text, vm) = match &event {
                WatchEvent::Entered(row) => (format!("+{}", name(row)), Some(row.object.clone())),
                WatchEvent::Changed(row, _) => (format!("~{}", name(row)), Some(row.object.clone())),
                WatchEvent::Left(vm) => ("-".to_owned(), Some(vm.clone())),
                WatchEvent::Complete => ("complete".to_owned(), None),
                other => (format!("{other:?}"), None),
            };
            if text == wanted {
                return vm.unwrap_or_else(|| MoRef::new(""));
            }
            before.push(text);
        }
    });
    match seen.await {
        Ok(vm) => vm,
        Err(_) => panic!("no {wanted}"),
    }
}

#[tokio::test]
async fn a_watch_sees_what_another_client_does() {
    // It has no CheckForUpdates, which the other calls begin with.
    for call in [UpdateCall::WaitForUpdatesEx] {
        let Some(vcsim) = Vcsim::start(&[]) else { return };
        let (vim, other) = (vcsim.connect().await, vcsim.connect().await);
        let mut watch = vim.properties::<VirtualMachine>().select(VirtualMachine::NAME).updates_by(call).watch();
        until(&mut watch, "complete").await;
        let known = watch.rows().count();

        let inventory = other.inventory().open().await.unwrap();
        let find = |kind: &str, name: &str| {
            let found = inventory
                .tree()
                .nodes()
                .find(|node| node.object.type_name() == kind && (name.is_empty() || node.name == name));
            found.unwrap_or_else(|| panic!("no {kind} {name}")).object.clone()
        };
        let (folder, pool, datastore) = (find("Folder", "vm"), find("ResourcePool", ""), find("Datastore", ""));
        let files = VirtualMachineFileInfo {
            vm_path_name: Some(format!("[{}]", inventory.tree().node(&datastore).unwrap().name)),
            ..Default::default()
        };
        let config = VirtualMachineConfigSpec {
            name: Some("made".into()),
            guest_id: Some("otherGuest".into()),
            files: Some(files),
            ..Default::default()
        };
        let create = CreateVM_Task { config, pool: pool.cast(), ..Default::default() };
        let task = other.invoke(&folder.cast(), create).await.unwrap();
        let made: MoRef<VirtualMachine> = other.wait(&task).await.unwrap().result().unwrap();
        assert_eq!(until(&mut watch, "+made").await, made);
        assert_eq!(watch.rows().count(), known + 1);

        let rename = Rename_Task { new_name: "renamed".into(), ..Default::default() };
        let task = other.invoke(&made.cast(), rename).await.unwrap();
        other.wait(&task).await.unwrap();
        assert_eq!(until(&mut watch, "~renamed").await, made);

        let mut power = vim.properties().of([&made]).select(VirtualMachine::RUNTIME).updates_by(call).watch();
        assert!(matches!(power.try_next().await.unwrap(), Some(WatchEvent::Entered(_))));
        assert!(matches!(power.try_next().await.unwrap(), Some(WatchEvent::Complete)));
        other.power_on(&made).await.unwrap();
        let on = timeout(Duration::from_secs(30), async {
            loop {
                let Some(WatchEvent::Changed(row, _)) = power.try_next().await.unwrap() else { panic!("a change") };
                let runtime = row.values.present().unwrap();
                if runtime.power_state.as_str() == "poweredOn" {
                    return;
                }
            }
        });
        on.await.expect("the machine is seen running");
        other.power_off(&made).await.unwrap();

        // A method by its name does as well.
        let answer =
            other.invoke_dynamic(made.as_untyped(), "Destroy_Task", &[], CallOptions::default()).await.unwrap();
        let task: MoRef<mo::Task> = MoRef::new(answer[0].text());
        other.wait(&task).await.unwrap();
        assert_eq!(until(&mut watch, "-").await, made);
        assert_eq!(watch.rows().count(), known);
        inventory.close().await;
        watch.close().await;
        other.logout().await.unwrap();
        vim.logout().await.unwrap();
    }
}

#[tokio::test]
async fn a_missing_object_is_a_typed_fault() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    let vim = vcsim.connect().await;
    let nowhere: MoRef<VirtualMachine> = MoRef::new("vm-none");
    let read = vim.get(&nowhere, VirtualMachine::NAME).await.unwrap_err();
    let fault = read.fault::<vsphere_vim::types::ManagedObjectNotFound>().expect("the typed fault");
    assert_eq!(fault.obj, nowhere.erase());
    let watched = vim.properties().of([&nowhere]).select(VirtualMachine::NAME).watch().try_next().await;
    assert!(watched.unwrap_err().is_fault("ManagedObjectNotFound"));
    vim.logout().await.unwrap();
}
