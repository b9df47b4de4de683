//! Copies, moves within the inventory, templates, hardware versions, and guests that are asked to stop.

use std::sync::Arc;

use vsphere_vim_types::{DateTime, ManagedObjectReference, VirtualMachineCloneSpec, VirtualMachineRelocateSpec};

use crate::Fault;
use crate::inventory::{self, container};
use crate::personality::{Fixed, Personality};
use crate::storage::{Access, DiskOptions, DiskSource, DiskStore, NodeId};
use crate::world::World;

use super::snapshot::gone;
use super::{GuestBehaviour, Power, Settings, Vm, VmDisk, create, reconfigure};

/// The newest hardware version that the host knows.
const NEWEST_HARDWARE: u32 = 21;

/// Bytes copied at a time.
const COPY: u64 = 1 << 20;

/// `CloneVM_Task`; returns the new VM's id.
pub(crate) fn clone(
    world: &World,
    vm_id: &str,
    folder: &ManagedObjectReference,
    name: &str,
    spec: &VirtualMachineCloneSpec,
) -> Result<String, Fault> {
    if world.personality() != Personality::VCenter {
        return Err(Fault::not_supported("a host without vCenter does not clone"));
    }
    check_place(world, &spec.location)?;
    let (copy, sources) = {
        let mut state = world.lock();
        if !container::is_vm_folder(world, &state, folder) {
            return Err(Fault::not_supported("this folder holds no virtual machines"));
        }
        container::check_name(&state, folder, name, None)?;
        let vm = state.vms.get(vm_id).ok_or_else(|| gone(vm_id))?;
        let (settings, sources) = match &spec.snapshot {
            None => (vm.settings.clone(), present(vm)),
            Some(snapshot) => {
                let found =
                    vm.snapshots.get(snapshot.value()).ok_or_else(|| Fault::invalid_argument("spec.snapshot"))?;
                let held = |(key, point): (&i32, &crate::storage::Point)| {
                    Some((found.settings.disks.get(key)?.clone(), point.node()))
                };
                (found.settings.clone(), found.points.iter().filter_map(held).collect())
            }
        };
        let (guest, hardware_version) = (vm.guest, vm.hardware_version);
        let made = create::NewVm {
            name: name.to_owned(),
            annotation: settings.annotation.clone(),
            guest_id: settings.guest_id.clone(),
            memory_mb: settings.memory_mb,
            cpus: settings.cpus,
            hardware_version,
            power: Power::Off,
            tracking: false,
            reuse_folder: false,
        };
        let mut copy = create::new(world, &mut state, made);
        copy.parent = folder.clone();
        copy.guest = guest;
        copy.instance_uuid = crate::ids::uuid();
        copy.bios_uuid = crate::ids::uuid();
        copy.settings = Settings { name: name.to_owned(), tracking: false, disks: Default::default(), ..settings };
        (copy, sources)
    };
    let id = copy_disks(world, copy, &sources)?;
    if let Some(config) = &spec.config
        && let Err(fault) = reconfigure::reconfigure(world, &id, config)
    {
        create::destroy(world, &id)?;
        return Err(fault);
    }
    if spec.template {
        mark_as_template(world, &id)?;
    } else if spec.power_on {
        super::operate::power(world, &id, super::operate::PowerOperation::On)?;
    }
    Ok(id)
}

/// The disks of a VM as they are.
fn present(vm: &Vm) -> Vec<(VmDisk, NodeId)> {
    vm.settings.disks.values().map(|disk| (disk.clone(), disk.store.current())).collect()
}

/// Gives a VM copies of disks and puts it into the inventory. Copies data, so the state is not locked meanwhile.
fn copy_disks(world: &World, mut copy: Vm, sources: &[(VmDisk, NodeId)]) -> Result<String, Fault> {
    for (disk, node) in sources {
        match copy_disk(world, &copy.folder, copy.disks_created, &disk.store, *node) {
            Ok(store) => {
                copy.disks_created += 1;
                copy.settings.disks.insert(disk.key, VmDisk { store, ..disk.clone() });
            }
            Err(error) => {
                for store in copy.all_stores() {
                    drop(store.delete());
                }
                return Err(Fault::storage(&error));
            }
        }
    }
    let mut state = world.lock();
    // Another may have taken the name while the disks were copied.
    if let Err(fault) = container::check_name(&state, &copy.parent, copy.name(), None) {
        for store in copy.all_stores() {
            drop(store.delete());
        }
        return Err(fault);
    }
    let id = copy.id.clone();
    state.vms.insert(id.clone(), copy);
    Ok(id)
}

/// The bytes of one layer, as its snapshot shows them, in a disk of their own.
fn copy_disk(
    world: &World,
    folder: &str,
    index: usize,
    from: &Arc<DiskStore>,
    node: NodeId,
) -> crate::storage::Result<Arc<DiskStore>> {
    let options = DiskOptions { write_through: false, tracking: world.settings.tracking.clone() };
    let capacity = from.capacity_of(node)?;
    let to = world.datastore.create_disk(folder, index, &DiskSource::Empty(capacity), &options)?;
    let source = from.open(node, Access::ReadOnly)?;
    let mut buffer = Vec::new();
    for range in from.allocated(node, 0..capacity)? {
        let mut at = range.start;
        while at < range.end {
            buffer.resize((range.end - at).min(COPY) as usize, 0);
            source.read_at(at, &mut buffer)?;
            to.guest_write(at, &buffer)?;
            at += buffer.len() as u64;
        }
    }
    Ok(to)
}

/// `RelocateVM_Task`, as far as there are places to go: another folder or vApp; host and datastore are the only ones.
pub(crate) fn relocate(world: &World, vm_id: &str, spec: &VirtualMachineRelocateSpec) -> Result<(), Fault> {
    check_place(world, spec)?;
    let mut state = world.lock();
    let vm = state.vms.get(vm_id).ok_or_else(|| gone(vm_id))?;
    for locator in &spec.disk {
        if !vm.settings.disks.contains_key(&locator.disk_id) {
            return Err(Fault::invalid_argument("spec.disk.diskId"));
        }
    }
    let name = vm.name().to_owned();
    let pool = spec.pool.as_ref().map(|pool| pool.erase());
    let to = match (spec.folder.as_ref().map(|folder| folder.erase()), pool) {
        (_, Some(vapp)) if vapp.type_name() == "VirtualApp" => Some(vapp),
        (Some(folder), _) if !container::is_vm_folder(world, &state, &folder) => {
            return Err(Fault::invalid_argument("spec.folder"));
        }
        (Some(folder), _) => Some(folder),
        // Out of a vApp into the pool: it is shown in the root folder of VMs.
        (None, Some(_)) if vm.parent.type_name() == "VirtualApp" => Some(world.fixed(Fixed::VmFolder)),
        (None, Some(_)) => None,
        (None, None) if spec.datastore.is_some() || spec.host.is_some() || !spec.disk.is_empty() => None,
        (None, None) => return Err(Fault::not_supported("the simulator has one host and one datastore")),
    };
    if let Some(to) = to {
        container::check_name(&state, &to, &name, Some(&ManagedObjectReference::of("VirtualMachine", vm_id)))?;
        if let Some(vm) = state.vms.get_mut(vm_id) {
            vm.parent = to;
        }
    }
    Ok(())
}

/// Everything that a relocation names has to exist.
fn check_place(world: &World, spec: &VirtualMachineRelocateSpec) -> Result<(), Fault> {
    let state = world.lock();
    let named = [
        spec.datastore.as_ref().map(|it| it.erase()),
        spec.pool.as_ref().map(|it| it.erase()),
        spec.host.as_ref().map(|it| it.erase()),
        spec.folder.as_ref().map(|it| it.erase()),
    ];
    let disks = spec.disk.iter().map(|locator| locator.datastore.erase());
    match named.into_iter().flatten().chain(disks).find(|it| inventory::find(world, &state, None, it).is_none()) {
        Some(missing) => Err(Fault::not_found(&missing)),
        None => Ok(()),
    }
}

/// `MarkAsTemplate`
pub(crate) fn mark_as_template(world: &World, vm_id: &str) -> Result<(), Fault> {
    let mut state = world.lock();
    let vm = state.vms.get_mut(vm_id).ok_or_else(|| gone(vm_id))?;
    if vm.template || world.personality() != Personality::VCenter {
        return Err(Fault::not_supported("it cannot be made a template"));
    }
    if vm.power != Power::Off {
        return Err(Fault::power_state(Some("poweredOff"), vm.power.as_str()));
    }
    vm.template = true;
    vm.revise();
    Ok(())
}

/// `MarkAsVirtualMachine`
pub(crate) fn mark_as_vm(world: &World, vm_id: &str) -> Result<(), Fault> {
    let mut state = world.lock();
    let vm = state.vms.get_mut(vm_id).ok_or_else(|| gone(vm_id))?;
    if !vm.template {
        return Err(Fault::not_supported("it is no template"));
    }
    vm.template = false;
    vm.revise();
    Ok(())
}

/// `UpgradeVM_Task`
pub(crate) fn upgrade(world: &World, vm_id: &str, version: Option<&str>) -> Result<(), Fault> {
    let wanted = match version {
        None => NEWEST_HARDWARE,
        Some(version) => create::hardware_number(version)
            .filter(|number| *number <= NEWEST_HARDWARE)
            .ok_or_else(|| Fault::invalid_argument("version"))?,
    };
    let mut state = world.lock();
    let vm = state.vms.get_mut(vm_id).ok_or_else(|| gone(vm_id))?;
    if vm.power != Power::Off {
        return Err(Fault::power_state(Some("poweredOff"), vm.power.as_str()));
    }
    if wanted <= vm.hardware_version {
        return Err(Fault::new("AlreadyUpgraded", "The virtual hardware is that new already"));
    }
    vm.hardware_version = wanted;
    vm.revise();
    Ok(())
}

/// `ShutdownGuest` and `RebootGuest`: the guest is asked, and does what guests do.
pub(crate) fn ask_guest(world: &Arc<World>, vm_id: &str, restart: bool) -> Result<(), Fault> {
    let (guest, booted) = {
        let state = world.lock();
        let vm = state.vms.get(vm_id).ok_or_else(|| gone(vm_id))?;
        if vm.power != Power::On {
            return Err(Fault::power_state(Some("poweredOn"), vm.power.as_str()));
        }
        (vm.guest, vm.booted)
    };
    let delay = match guest {
        GuestBehaviour::NoTools => {
            return Err(Fault::new("ToolsUnavailable", "VMware Tools are not running in the guest"));
        }
        GuestBehaviour::Ignores => return Ok(()),
        GuestBehaviour::ShutsDownAfter(delay) => delay,
    };
    let (world, vm_id) = (world.clone(), vm_id.to_owned());
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        let mut state = world.lock();
        // Somebody may have switched it off, and on again, meanwhile.
        if let Some(vm) = state.vms.get_mut(&vm_id).filter(|vm| vm.power == Power::On && vm.booted == booted) {
            if restart {
                vm.booted = DateTime::now();
            } else {
                vm.power = Power::Off;
            }
        }
        drop(state);
        world.touch();
    });
    Ok(())
}
