//! Machines, devices and the inventory of a server of others.

use vsphere_vim::{
    CreateSnapshotOptions, DeviceKey, Error, MoRef, PowerState, PropertyPath, RemoveSnapshotOptions, Vim, VmLookup,
    config_spec::{ConfigConversion, NetworkSource, NetworkTarget},
    device::{ControllerKind, DeviceEdit, DiskFiles, NewAdapter, NewDisk},
    mo,
    types::{InvalidPowerState, ManagedObjectNotFound},
    vm::{CloneOptions, RegisterVm, ShutdownOutcome, ShutdownPolicy},
};

use super::Vcsim;

type Vm = MoRef<mo::VirtualMachine>;

/// A machine of standalone host 0 with its folder and pool.
async fn place(vim: &Vim) -> (Vm, MoRef<mo::Folder>, MoRef<mo::ResourcePool>) {
    let found = vim.find_vm(&VmLookup::InventoryPath("DC0/vm/DC0_H0_VM0".into())).await.unwrap().moref;
    let folder = vim.get(&found, PropertyPath::<_, MoRef<mo::Folder>>::new("parent")).await.unwrap();
    let pool = vim.get(&found, PropertyPath::<_, MoRef<mo::ResourcePool>>::new("resourcePool")).await.unwrap();
    (found, folder, pool)
}

#[tokio::test]
async fn a_machine_is_made_anew_from_its_kept_configuration() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    let vim = vcsim.connect().await;
    let (vm, folder, pool) = place(&vim).await;
    let kept = vim.config(&vm).await.unwrap();
    let converted = ConfigConversion::of(&kept)
        .as_copy("restored")
        .network(NetworkSource::Any, NetworkTarget::standard("VM Network"))
        .convert();
    let new = vim.create_vm(&folder, &pool, None, converted.spec.clone()).await.unwrap();

    let (old, made) = (vim.devices(&vm).await.unwrap(), vim.devices(&new).await.unwrap());
    let kinds = |list: &vsphere_vim::device::DeviceList| {
        let mut kinds: Vec<_> = list.iter().map(|device| device.type_name().to_owned()).collect();
        kinds.sort();
        kinds
    };
    assert_eq!(kinds(&made), kinds(&old), "every device is there again, the default ones once");
    let (old_disk, disk) = (&old.disks()[0], &made.disks()[0]);
    assert_eq!((disk.capacity, disk.unit_number), (old_disk.capacity, old_disk.unit_number));
    assert_eq!(disk.controller.as_ref().map(|it| &it.kind), old_disk.controller.as_ref().map(|it| &it.kind));
    assert_ne!(disk.backing.file_name, old_disk.backing.file_name);
    let config = vim.config(&new).await.unwrap();
    assert_eq!((config.name.as_str(), &config.guest_id), ("restored", &kept.guest_id));
    assert_ne!(config.instance_uuid, kept.instance_uuid);
    assert_eq!((config.hardware.num_cpu, config.hardware.memory_mb), (kept.hardware.num_cpu, kept.hardware.memory_mb));

    let old_path = kept.files.vm_path_name.clone().unwrap();
    let over = ConfigConversion::of(&kept).as_copy("restored over").vm_path(old_path).convert();
    let error = vim.create_vm(&folder, &pool, None, over.spec).await.unwrap_err();
    assert_eq!(error.fault_name(), Some("FileAlreadyExists"), "{error}");
    vim.destroy(&new).await.unwrap();
    assert!(matches!(vim.find_vm(&VmLookup::MoRef(new.value().into())).await, Err(Error::NotFound { .. })));
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn snapshots_are_made_found_gone_back_to_and_removed() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    let vim = vcsim.connect().await;
    let (vm, ..) = place(&vim).await;
    let options = |name| CreateSnapshotOptions::new(name).description("by a test");
    let first = vim.create_snapshot(&vm, options("one")).await.unwrap();
    let second = vim.create_snapshot(&vm, options("two")).await.unwrap();
    let tree = vim.snapshots(&vm).await.unwrap();
    assert_eq!(tree.current().map(|snapshot| snapshot.name.as_str()), Some("two"));
    assert_eq!(tree.described("by a test").count(), 2);
    assert_eq!(tree.get(&first).unwrap().children[0].snapshot, second);
    vim.revert_to_snapshot(&first).await.unwrap();
    assert_eq!(vim.snapshots(&vm).await.unwrap().current, Some(first.clone()));
    vim.remove_snapshot(&first, RemoveSnapshotOptions { children: true, ..Default::default() }).await.unwrap();
    assert!(vim.snapshots(&vm).await.unwrap().is_empty());
    let gone = vim.remove_snapshot(&first, RemoveSnapshotOptions::default()).await.unwrap_err();
    assert!(gone.fault::<ManagedObjectNotFound>().is_some(), "{gone}");
    vim.create_snapshot(&vm, options("three")).await.unwrap();
    vim.revert_to_current_snapshot(&vm).await.unwrap();
    vim.remove_all_snapshots(&vm, true).await.unwrap();
    assert!(vim.snapshots(&vm).await.unwrap().is_empty());
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn power_is_switched_and_the_wrong_state_is_a_typed_fault() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    let vim = vcsim.connect().await;
    let (vm, ..) = place(&vim).await;
    assert_eq!(vim.power_state(&vm).await.unwrap(), PowerState::On);
    let error = vim.power_on(&vm).await.unwrap_err();
    assert_eq!(error.fault::<InvalidPowerState>().unwrap().existing_state.as_str(), "poweredOn");
    vim.suspend(&vm).await.unwrap();
    assert_eq!(vim.power_state(&vm).await.unwrap(), PowerState::Suspended);
    vim.power_on(&vm).await.unwrap();
    vim.reset(&vm).await.unwrap();
    assert_eq!(vim.shut_down(&vm, ShutdownPolicy::guest_only()).await.unwrap(), ShutdownOutcome::GuestObeyed);
    assert_eq!(vim.shut_down(&vm, ShutdownPolicy::force()).await.unwrap(), ShutdownOutcome::WasOff);
    assert!(vim.power_off(&vm).await.unwrap_err().is_fault("InvalidPowerState"));
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn disks_controllers_and_adapters_are_added_grown_and_removed() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    let vim = vcsim.connect().await;
    let (vm, ..) = place(&vim).await;
    let mut edit = DeviceEdit::of(vim.devices(&vm).await.unwrap());
    edit.add_disk(NewDisk::new(8 << 20).thin()).unwrap();
    let sata = edit.add_controller(ControllerKind::Sata).unwrap();
    edit.add_disk(NewDisk::new(16 << 20).on(sata)).unwrap();
    edit.add_adapter(NewAdapter::new(NetworkTarget::standard("VM Network")).mac_address("00:50:56:11:22:33"));
    vim.reconfigure(&vm, edit.into_spec()).await.unwrap();

    let devices = vim.devices(&vm).await.unwrap();
    let disks = devices.disks();
    assert_eq!(disks.iter().map(|disk| disk.capacity >> 20).collect::<Vec<_>>()[1..], [8, 16]);
    assert_eq!((disks[0].controller.clone(), disks[1].unit_number), (disks[1].controller.clone(), Some(1)));
    assert_eq!(disks[2].controller.as_ref().unwrap().kind, "VirtualAHCIController");
    assert!(devices.network_adapters().any(|card| card.mac_address.as_deref() == Some("00:50:56:11:22:33")));
    assert!(devices.iter().all(|device| device.key > 0));

    let mut edit = DeviceEdit::of(devices);
    edit.remove(disks[1].key, DiskFiles::Destroy).unwrap();
    edit.remove(disks[2].key, DiskFiles::Keep).unwrap();
    vim.reconfigure(&vm, edit.into_spec()).await.unwrap();
    assert_eq!(vim.disks(&vm).await.unwrap().len(), 1);
    let nonsense = DeviceEdit::of(vim.devices(&vm).await.unwrap()).remove(DeviceKey(9999), DiskFiles::Keep);
    assert!(matches!(nonsense, Err(Error::InvalidInput { .. })));
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn machines_leave_the_inventory_and_come_back() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    let vim = vcsim.connect().await;
    let (vm, folder, pool) = place(&vim).await;
    assert!(vim.unregister_vm(&vm).await.unwrap_err().is_fault("InvalidPowerState"));
    assert!(vim.destroy(&vm).await.unwrap_err().is_fault("InvalidPowerState"));
    vim.power_off(&vm).await.unwrap();
    let path = vim.config(&vm).await.unwrap().files.vm_path_name.unwrap();
    let known = vim.register_vm(&folder, RegisterVm::new(&path, &pool)).await.unwrap_err();
    assert!(known.is_fault("AlreadyExists"), "{known}");
    let by_path = vim.find_vm(&VmLookup::DatastorePath(path.clone())).await.unwrap();
    assert_eq!(by_path.moref, vm);
    vim.unregister_vm(&vm).await.unwrap();
    assert!(vim.find_vms(&VmLookup::DatastorePath(path.clone())).await.unwrap().is_empty());
    let back = vim.register_vm(&folder, RegisterVm::new(&path, &pool)).await.unwrap();
    assert_ne!(back, vm);
    vim.rename(&back, "back").await.unwrap();
    assert_eq!(vim.vm_identity(&back).await.unwrap().name, "back");
    let copy = vim.clone_vm(&back, &folder, "copy", CloneOptions::new()).await.unwrap();
    vim.mark_as_template(&copy).await.unwrap();
    assert_eq!(vim.templates().await.unwrap().iter().map(|vm| vm.name.as_str()).collect::<Vec<_>>(), ["copy"]);
    vim.mark_as_vm(&copy, &pool, None).await.unwrap();
    vim.rename(&copy, "copy 2").await.unwrap();
    vim.destroy(&copy).await.unwrap();
    let nowhere = vim.register_vm(&folder, RegisterVm::new("[LocalDS_0] no/no.vmx", &pool)).await.unwrap_err();
    assert!(nowhere.server_fault().is_some(), "{nowhere}");
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn folders_patterns_and_ids_lead_to_machines() {
    let Some(vcsim) = Vcsim::start(&["-folder", "1", "-app", "1", "-dc", "2"]) else { return };
    let vim = vcsim.connect().await;
    let all = vim.find_inventory("**").await.unwrap();
    let machines = |found: &[vsphere_vim::inventory::InventoryEntry]| {
        let mut paths: Vec<_> =
            found.iter().filter(|it| it.object.is_a::<mo::VirtualMachine>()).map(|it| it.path.clone()).collect();
        paths.sort();
        paths
    };
    let mut by_traversal = Vec::new();
    let mut every = vim.virtual_machines();
    while let Some(vm) = every.try_next().await.unwrap() {
        by_traversal.push(vm);
    }
    let by_pattern: std::collections::BTreeSet<_> = all
        .iter()
        .filter(|entry| entry.object.is_a::<mo::VirtualMachine>())
        .map(|entry| entry.object.clone())
        .collect();
    assert_eq!(by_pattern.len(), by_traversal.len());
    let first = machines(&vim.find_inventory("**/DC[0]/vm/**/DC?_H0_VM*").await.unwrap());
    assert_eq!(first.len(), 2, "{first:?}");
    for path in &first {
        assert!(vim.find_by_inventory_path(path).await.unwrap().is_some(), "{path} leads back");
    }
    assert!(vim.find_inventory("no/such/**").await.unwrap().is_empty());
    assert!(matches!(vim.find_inventory("a[").await, Err(Error::InvalidInput { .. })));
    let several = vim.find_vm(&VmLookup::Pattern("**/DC0_H0_VM*".into())).await.unwrap_err();
    assert!(matches!(&several, Error::Ambiguous { candidates, .. } if candidates.len() == 2), "{several}");

    let one = &by_traversal[0];
    for lookup in [
        VmLookup::InstanceUuid(one.instance_uuid.clone().unwrap()),
        VmLookup::BiosUuid(one.bios_uuid.clone().unwrap()),
        VmLookup::MoRef(one.moref.value().into()),
    ] {
        assert_eq!(vim.find_vm(&lookup).await.unwrap(), *one, "{lookup}");
    }
    let vapps = vim.vapps().await.unwrap();
    assert!(!vapps.is_empty() && vapps.iter().all(|vapp| !vapp.members.is_empty()), "{vapps:?}");

    let root = vim.find_by_inventory_path(first[0].rsplit_once('/').unwrap().0).await.unwrap().unwrap();
    let made = vim.create_folder(&root.cast(), "made").await.unwrap();
    let twice = vim.create_folder(&root.cast(), "made").await.unwrap_err();
    assert!(twice.is_fault("DuplicateName"), "{twice}");
    let moved = vim.find_by_inventory_path(&first[0]).await.unwrap().unwrap();
    vim.move_into_folder(&made, [moved.clone()]).await.unwrap();
    let found = vim.find_inventory("**/made/*").await.unwrap();
    assert_eq!(found.iter().map(|entry| &entry.object).collect::<Vec<_>>(), [&moved]);
    vim.logout().await.unwrap();
}
