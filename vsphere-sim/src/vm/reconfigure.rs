//! `ReconfigVM_Task`: settings, disks and other devices.

use std::collections::BTreeMap;
use std::sync::Arc;

use vsphere_vim_types::{
    Poly, VirtualController, VirtualDeviceConfigSpec, VirtualDeviceConfigSpecFileOperation,
    VirtualDeviceConfigSpecOperation, VirtualDeviceFileBackingInfo, VirtualDisk, VirtualDiskFlatVer2BackingInfo,
    VirtualMachineConfigSpec,
};

use crate::Fault;
use crate::inventory::container::check_name;
use crate::storage::{DiskOptions, DiskSource, DiskStore};
use crate::world::{State, World};

use super::devices::{self, Change};
use super::hardware::SCSI_KEY;
use super::snapshot::gone;
use super::{DiskMode, DiskShape, Power, Vm, VmDisk};

/// The largest virtual disk, 62 TiB.
const MAX_CAPACITY: u64 = 62 << 40;

/// The largest memory, 24 TiB.
const MAX_MEMORY_MB: i64 = 24 << 20;

/// Applies a specification, or nothing of it when a part is refused before the first change.
pub(crate) fn reconfigure(world: &World, vm_id: &str, spec: &VirtualMachineConfigSpec) -> Result<(), Fault> {
    let mut state = world.lock();
    if let Some(name) = &spec.name {
        let vm = state.vms.get(vm_id).ok_or_else(|| gone(vm_id))?;
        check_name(&state, &vm.parent, name, Some(&vm.reference()))?;
    }
    let known = Known::of(&state);
    let state = &mut *state;
    let vm = state.vms.get_mut(vm_id).ok_or_else(|| gone(vm_id))?;
    check(vm, spec)?;
    let before = vm.settings.clone();
    let removed = match change_devices(world, vm, &known, &spec.device_change) {
        Ok(removed) => removed,
        Err(fault) => {
            let changed = std::mem::replace(&mut vm.settings, before);
            known.discard_new(changed.disks.values());
            return Err(fault);
        }
    };
    // Files go only when the whole specification is carried out.
    for (disk, files) in removed {
        match files {
            Files::Keep => state.loose_disks.push(disk),
            Files::Destroy => disk.delete().map_err(|error| Fault::storage(&error))?,
        }
    }
    let held = |disk: &Arc<DiskStore>| vm.settings.disks.values().any(|own| Arc::ptr_eq(&own.store, disk));
    state.loose_disks.retain(|disk| !held(disk));
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
        vm.settings.memory_mb = i32::try_from(memory).unwrap_or(i32::MAX);
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
    if spec.memory_mb.is_some_and(|memory| !(4..=MAX_MEMORY_MB).contains(&memory)) {
        return Err(Fault::invalid_argument("spec.memoryMB"));
    }
    if (spec.num_cpus.is_some() || spec.memory_mb.is_some()) && vm.power != Power::Off {
        return Err(Fault::power_state(Some("poweredOff"), vm.power.as_str()));
    }
    Ok(())
}

/// Which VM's files are where: what a disk that exists already may be.
pub(crate) struct Known {
    /// Disks by every path under which one is known.
    disks: Vec<Arc<DiskStore>>,
}

impl Known {
    /// Every disk of the datastore: of VMs in the inventory and out of it, and of none.
    pub(crate) fn of(state: &State) -> Self {
        let vms = state.vms.values().chain(state.shelved.values());
        Self { disks: vms.flat_map(Vm::all_stores).chain(state.loose_disks.iter().cloned()).collect() }
    }

    /// Deletes the disks among these that were not there when this was taken.
    fn discard_new<'a>(&self, disks: impl Iterator<Item = &'a VmDisk>) {
        for disk in disks.filter(|disk| !self.disks.iter().any(|known| Arc::ptr_eq(known, &disk.store))) {
            if let Err(error) = disk.store.delete() {
                tracing::warn!(%error, "disk left behind by a refused specification");
            }
        }
    }

    fn find(&self, path: &str) -> Option<Arc<DiskStore>> {
        self.disks.iter().find(|disk| disk.find(path) == Some(disk.current())).cloned()
    }
}

/// What happens to the files of a disk that is taken out.
enum Files {
    Keep,
    Destroy,
}

/// A disk that no VM holds any more.
type Removed = Option<(Arc<DiskStore>, Files)>;

/// Carries the changes out in the VM's settings; returns the disks that were taken out.
fn change_devices(
    world: &World,
    vm: &mut Vm,
    known: &Known,
    changes: &[Poly<VirtualDeviceConfigSpec>],
) -> Result<Vec<(Arc<DiskStore>, Files)>, Fault> {
    // What was added under a key of the caller's is meant by that key in the rest of the specification, so
    // controllers come first, wherever they stand.
    let is_controller =
        |change: &&Poly<VirtualDeviceConfigSpec>| change.device.downcast_ref::<VirtualController>().is_some();
    let numbered = || changes.iter().enumerate();
    let first = numbered().filter(|(_, change)| is_controller(change));
    let then = numbered().filter(|(_, change)| !is_controller(change));
    let mut keys = BTreeMap::new();
    let mut removed = Vec::new();
    for (index, change) in first.chain(then) {
        let about = Change { device: &change.device, index };
        if let Some(disk) = change.device.downcast_ref::<VirtualDisk>() {
            removed.extend(change_disk(world, vm, known, change, disk, &about, &keys)?);
            continue;
        }
        match &change.operation {
            Some(VirtualDeviceConfigSpecOperation::Add) => devices::add(world, &mut vm.settings, &about, &mut keys)?,
            Some(VirtualDeviceConfigSpecOperation::Edit) => devices::edit(world, &mut vm.settings, &about)?,
            Some(VirtualDeviceConfigSpecOperation::Remove) => devices::remove(&mut vm.settings, &about)?,
            _ => return Err(about.refuse("operation", "Unknown operation.")),
        }
    }
    Ok(removed)
}

/// Adds, grows or removes a disk.
fn change_disk(
    world: &World,
    vm: &mut Vm,
    known: &Known,
    change: &VirtualDeviceConfigSpec,
    disk: &VirtualDisk,
    about: &Change<'_>,
    keys: &BTreeMap<i32, i32>,
) -> Result<Removed, Fault> {
    match &change.operation {
        Some(VirtualDeviceConfigSpecOperation::Edit) => {
            let attached =
                vm.settings.disks.get(&disk.key).ok_or_else(|| about.refuse("device.key", "No such device."))?;
            let wanted = capacity(disk).ok_or_else(|| about.refuse("device.capacityInKB", "No capacity."))?;
            if wanted != attached.store.capacity() {
                attached.store.grow(wanted).map_err(|error| Fault::storage(&error))?;
            }
            Ok(None)
        }
        Some(VirtualDeviceConfigSpecOperation::Add) => {
            add_disk(world, vm, known, change, disk, about, keys)?;
            Ok(None)
        }
        Some(VirtualDeviceConfigSpecOperation::Remove) => {
            let removed =
                vm.settings.disks.remove(&disk.key).ok_or_else(|| about.refuse("device.key", "No such device."))?;
            let in_snapshot = vm.all_stores().iter().any(|store| Arc::ptr_eq(store, &removed.store));
            let destroy = change.file_operation == Some(VirtualDeviceConfigSpecFileOperation::Destroy);
            // What a snapshot still holds goes with the snapshot.
            Ok((!in_snapshot).then_some((removed.store, if destroy { Files::Destroy } else { Files::Keep })))
        }
        _ => Err(about.refuse("operation", "Unknown operation.")),
    }
}

fn add_disk(
    world: &World,
    vm: &mut Vm,
    known: &Known,
    change: &VirtualDeviceConfigSpec,
    disk: &VirtualDisk,
    about: &Change<'_>,
    keys: &BTreeMap<i32, i32>,
) -> Result<(), Fault> {
    let controller = match devices::controller_of(&vm.settings, about, keys)? {
        Some(controller) => controller,
        None => first_controller(&mut vm.settings),
    };
    let (units, first_key) = devices::places(&vm.settings, controller)
        .ok_or_else(|| about.refuse("device.controllerKey", "The controller takes no disks."))?;
    let unit = match disk.unit_number {
        Some(unit) if (0..units).contains(&unit) && !devices::taken(&vm.settings, controller, unit) => unit,
        Some(unit) if unit >= 0 => return Err(about.refuse("device.unitNumber", "The unit is taken.")),
        _ => (0..units)
            .find(|unit| !devices::taken(&vm.settings, controller, *unit))
            .ok_or_else(|| about.refuse("device.unitNumber", "No unit is free."))?,
    };
    let backing = disk.backing.as_ref();
    let path = backing.and_then(|backing| backing.downcast_ref::<VirtualDeviceFileBackingInfo>());
    let path = path.map(|file| file.file_name.as_str()).unwrap_or_default();
    let flat = backing.and_then(|backing| backing.downcast_ref::<VirtualDiskFlatVer2BackingInfo>());
    let mode = match flat.map(|flat| flat.disk_mode.as_str()) {
        None | Some("" | "persistent") => DiskMode::Persistent,
        Some("independent_persistent") => DiskMode::IndependentPersistent,
        Some(_) => return Err(about.refuse("device.backing.diskMode", "The mode is not supported.")),
    };
    let slot = Slot {
        key: first_key + unit,
        controller,
        unit,
        mode,
        thin: flat.and_then(|flat| flat.thin_provisioned) == Some(true),
    };
    if change.file_operation == Some(VirtualDeviceConfigSpecFileOperation::Create) {
        let bytes = capacity(disk)
            .filter(|bytes| *bytes > 0)
            .ok_or_else(|| about.refuse("device.capacityInKB", "No capacity."))?;
        let options = DiskOptions { write_through: false, tracking: world.settings.tracking.clone() };
        let store = match place(world, vm, path)? {
            Some((folder, stem)) => {
                if known.find(path).is_some() {
                    return Err(
                        Fault::new("FileAlreadyExists", &format!("The file {path} already exists")).field("file", path)
                    );
                }
                world.datastore.create_disk_file(&folder, &stem, &DiskSource::Empty(bytes), &options)
            }
            None => new_store(world, vm, &DiskSource::Empty(bytes), &options),
        };
        plug(vm, slot, store.map_err(|error| Fault::storage(&error))?, None);
        return Ok(());
    }
    let store = known
        .find(path)
        .ok_or_else(|| Fault::new("FileNotFound", &format!("File {path} was not found")).field("file", path))?;
    if vm.settings.disks.values().any(|other| Arc::ptr_eq(&other.store, &store)) {
        return Err(Fault::file_locked(path));
    }
    plug(vm, slot, store, None);
    Ok(())
}

/// The first SCSI controller; a VM that has none gets one.
fn first_controller(settings: &mut super::Settings) -> i32 {
    let first = settings.devices.values().find(|device| device.is_a("VirtualSCSIController"));
    if let Some(controller) = first {
        return controller.key;
    }
    settings.devices.insert(SCSI_KEY, super::hardware::scsi_controller(0));
    SCSI_KEY
}

/// The folder and the name of a path that names a file; `None` where the server is to choose.
fn place(world: &World, vm: &Vm, path: &str) -> Result<Option<(String, String)>, Fault> {
    let Some((datastore, rest)) = path.strip_prefix('[').and_then(|path| path.split_once(']')) else {
        return if path.is_empty() { Ok(None) } else { Err(invalid_path(path)) };
    };
    if datastore != world.datastore.name() {
        return Err(invalid_path(path));
    }
    let rest = rest.trim();
    if rest.is_empty() {
        return Ok(None);
    }
    let (folder, file) = rest.split_once('/').ok_or_else(|| invalid_path(path))?;
    let stem = file.strip_suffix(".vmdk").filter(|stem| !stem.is_empty() && !stem.contains('/'));
    let stem = stem.ok_or_else(|| invalid_path(path))?;
    if folder != vm.folder && !world.datastore.has_folder(folder) {
        return Err(Fault::new("FileNotFound", &format!("The folder of {path} was not found")).field("file", path));
    }
    Ok(Some((folder.to_owned(), stem.to_owned())))
}

pub(crate) fn invalid_path(path: &str) -> Fault {
    Fault::new("InvalidDatastorePath", &format!("Invalid datastore path '{path}'.")).field("datastorePath", path)
}

/// Where a disk goes and how it is used.
pub(crate) struct Slot {
    key: i32,
    controller: i32,
    unit: i32,
    mode: DiskMode,
    thin: bool,
}

fn plug(vm: &mut Vm, slot: Slot, store: Arc<DiskStore>, label: Option<&str>) {
    let Slot { key, controller, unit, mode, thin } = slot;
    let number = vm.settings.disks.len() + 1;
    let label = label.map_or_else(|| format!("Hard disk {number}"), str::to_owned);
    if vm.settings.tracking && mode == DiskMode::Persistent {
        store.set_tracking(true);
    }
    vm.settings
        .disks
        .insert(key, VmDisk { key, label, controller, unit, mode, thin, backing: DiskShape::default(), store });
}

fn new_store(
    world: &World,
    vm: &mut Vm,
    source: &DiskSource,
    options: &DiskOptions,
) -> crate::storage::Result<Arc<DiskStore>> {
    let store = world.datastore.create_disk(&vm.folder, vm.disks_created, source, options)?;
    vm.disks_created += 1;
    Ok(store)
}

/// Creates a disk and attaches it to the first controller that has room; returns its key, or `None` where none has.
pub(crate) fn attach(
    world: &World,
    vm: &mut Vm,
    source: &DiskSource,
    options: &DiskOptions,
    mode: DiskMode,
    label: Option<&str>,
) -> crate::storage::Result<Option<i32>> {
    let controller = first_controller(&mut vm.settings);
    let (units, first_key) = devices::places(&vm.settings, controller).unwrap_or_default();
    let Some(unit) = (0..units).find(|unit| !devices::taken(&vm.settings, controller, *unit)) else {
        return Ok(None);
    };
    let store = new_store(world, vm, source, options)?;
    let slot = Slot { key: first_key + unit, controller, unit, mode, thin: true };
    let key = slot.key;
    plug(vm, slot, store, label);
    Ok(Some(key))
}

/// The capacity that a specification asks for, in bytes.
fn capacity(disk: &VirtualDisk) -> Option<u64> {
    let kib = u64::try_from(disk.capacity_in_kb).ok().filter(|kib| *kib > 0).and_then(|kib| kib.checked_mul(1024));
    let bytes = disk.capacity_in_bytes.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
    bytes.or(kib).filter(|bytes| *bytes <= MAX_CAPACITY).map(|bytes| bytes.div_ceil(512) * 512)
}
