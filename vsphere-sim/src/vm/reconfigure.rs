//! `ReconfigVM_Task`: the settings and disk changes that a backup program makes. All else is refused.

use vsphere_vim_types::{
    Poly, VirtualDeviceConfigSpec, VirtualDeviceConfigSpecFileOperation, VirtualDeviceConfigSpecOperation, VirtualDisk,
    VirtualMachineConfigSpec,
};

use crate::Fault;
use crate::storage::{DiskOptions, DiskSource};
use crate::world::World;

use super::hardware::{FIRST_DISK_KEY, SCSI_KEY, free_unit};
use super::snapshot::gone;
use super::{DiskMode, Power, Vm, VmDisk};

/// The largest virtual disk, 62 TiB.
const MAX_CAPACITY: u64 = 62 << 40;

/// Applies a specification, or nothing of it when a part is refused before the first change.
pub(crate) fn reconfigure(world: &World, vm_id: &str, spec: &VirtualMachineConfigSpec) -> Result<(), Fault> {
    let mut state = world.lock();
    if spec.name.as_ref().is_some_and(|name| state.vms.values().any(|vm| vm.name() == name && vm.id != vm_id)) {
        let name = spec.name.clone().unwrap_or_default();
        return Err(Fault::new("DuplicateName", &format!("The name '{name}' already exists.")).field("name", &name));
    }
    let vm = state.vms.get_mut(vm_id).ok_or_else(|| gone(vm_id))?;
    check(vm, spec)?;
    for (index, change) in spec.device_change.iter().enumerate() {
        change_device(world, vm, change, index)?;
    }
    if let Some(name) = &spec.name {
        vm.settings.name.clone_from(name);
    }
    if let Some(annotation) = &spec.annotation {
        vm.settings.annotation.clone_from(annotation);
    }
    if let Some(guest) = &spec.guest_id {
        vm.settings.guest_id.clone_from(guest);
    }
    if let Some(cpus) = spec.num_cpus {
        vm.settings.cpus = cpus;
    }
    if let Some(memory) = spec.memory_mb {
        vm.settings.memory_mb = i32::try_from(memory).map_err(|_| Fault::invalid_argument("spec.memoryMB"))?;
    }
    for option in &spec.extra_config {
        match &option.value {
            Some(vsphere_vim_types::Any::String(value)) if !value.is_empty() => {
                vm.settings.extra.insert(option.key.clone(), value.clone())
            }
            // An empty value deletes the key.
            _ => vm.settings.extra.remove(&option.key),
        };
    }
    if let Some(tracking) = spec.change_tracking_enabled {
        vm.settings.tracking = tracking;
        vm.settings
            .disks
            .values()
            .filter(|disk| disk.mode == DiskMode::Persistent)
            .for_each(|disk| disk.store.set_tracking(tracking));
    }
    vm.revise();
    Ok(())
}

fn check(vm: &Vm, spec: &VirtualMachineConfigSpec) -> Result<(), Fault> {
    if spec.change_version.as_ref().is_some_and(|wanted| *wanted != super::config::change_version(vm)) {
        return Err(Fault::new("ConcurrentAccess", "The change version of the configuration is not the present one"));
    }
    if spec.change_tracking_enabled == Some(true) && vm.hardware_version < 7 {
        return Err(Fault::not_supported("change tracking needs hardware version 7 or later"));
    }
    if spec.name.as_ref().is_some_and(|name| name.is_empty() || name.len() > 80) {
        return Err(Fault::new("InvalidName", "The name is empty or too long")
            .field("name", spec.name.as_deref().unwrap_or_default()));
    }
    if (spec.num_cpus.is_some() || spec.memory_mb.is_some()) && vm.power != Power::Off {
        return Err(Fault::power_state(Some("poweredOff"), vm.power.as_str()));
    }
    Ok(())
}

fn change_device(
    world: &World,
    vm: &mut Vm,
    change: &Poly<VirtualDeviceConfigSpec>,
    index: usize,
) -> Result<(), Fault> {
    let refuse = |property: &str, why: &str| {
        Fault::new("InvalidDeviceSpec", &format!("Invalid configuration for device '{index}'. {why}"))
            .field("property", &format!("virtualDeviceSpec.{property}"))
            .field("deviceIndex", &index.to_string())
    };
    let Some(disk) = change.device.downcast_ref::<VirtualDisk>() else {
        return Err(Fault::not_supported(&format!("changing a {}", change.device.type_name())));
    };
    match &change.operation {
        Some(VirtualDeviceConfigSpecOperation::Edit) => {
            let attached = vm.settings.disks.get(&disk.key).ok_or_else(|| refuse("device.key", "No such device."))?;
            let wanted = capacity(disk).ok_or_else(|| refuse("device.capacityInKB", "No capacity."))?;
            if wanted != attached.store.capacity() {
                attached.store.grow(wanted).map_err(|error| Fault::storage(&error))?;
            }
            Ok(())
        }
        Some(VirtualDeviceConfigSpecOperation::Add) => {
            if change.file_operation != Some(VirtualDeviceConfigSpecFileOperation::Create) {
                return Err(Fault::not_supported("attaching an existing disk"));
            }
            let bytes = capacity(disk)
                .filter(|bytes| *bytes > 0)
                .ok_or_else(|| refuse("device.capacityInKB", "No capacity."))?;
            let unit = match disk.unit_number {
                Some(unit) if unit >= 0 && vm.settings.disks.values().all(|other| other.unit != unit) => unit,
                Some(unit) if unit >= 0 => return Err(refuse("device.unitNumber", "The unit is taken.")),
                _ => free_unit(|unit| vm.settings.disks.values().any(|other| other.unit == unit))
                    .ok_or_else(|| refuse("device.unitNumber", "No unit is free."))?,
            };
            if disk.controller_key.is_some_and(|key| key != SCSI_KEY) {
                return Err(refuse("device.controllerKey", "No such controller."));
            }
            let options = DiskOptions { write_through: false, tracking: world.settings.tracking.clone() };
            attach(world, vm, unit, &DiskSource::Empty(bytes), &options, DiskMode::Persistent, None)
                .map_err(|error| Fault::storage(&error))?;
            Ok(())
        }
        Some(VirtualDeviceConfigSpecOperation::Remove) => {
            let removed = vm.settings.disks.remove(&disk.key).ok_or_else(|| refuse("device.key", "No such device."))?;
            let in_snapshot = vm.all_stores().iter().any(|store| std::sync::Arc::ptr_eq(store, &removed.store));
            if change.file_operation == Some(VirtualDeviceConfigSpecFileOperation::Destroy) && !in_snapshot {
                removed.store.delete().map_err(|error| Fault::storage(&error))?;
            }
            Ok(())
        }
        _ => Err(refuse("operation", "Unknown operation.")),
    }
}

/// Creates a disk and attaches it; returns its key.
pub(crate) fn attach(
    world: &World,
    vm: &mut Vm,
    unit: i32,
    source: &DiskSource,
    options: &DiskOptions,
    mode: DiskMode,
    label: Option<&str>,
) -> crate::storage::Result<i32> {
    let store = world.datastore.create_disk(&vm.folder, vm.disks_created, source, options)?;
    vm.disks_created += 1;
    let key = FIRST_DISK_KEY + unit;
    let number = vm.settings.disks.len() + 1;
    let label = label.map_or_else(|| format!("Hard disk {number}"), str::to_owned);
    if vm.settings.tracking && mode == DiskMode::Persistent {
        store.set_tracking(true);
    }
    vm.settings.disks.insert(key, VmDisk { key, label, unit, mode, store });
    Ok(key)
}

/// The capacity that a specification asks for, in bytes.
fn capacity(disk: &VirtualDisk) -> Option<u64> {
    let kib = u64::try_from(disk.capacity_in_kb).ok().filter(|kib| *kib > 0).and_then(|kib| kib.checked_mul(1024));
    let bytes = disk.capacity_in_bytes.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
    bytes.or(kib).filter(|bytes| *bytes <= MAX_CAPACITY).map(|bytes| bytes.div_ceil(512) * 512)
}
