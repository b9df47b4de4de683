//! New virtual machines: from a builder's specification or through `CreateVM_Task`.

use std::collections::BTreeMap;
use std::sync::Arc;

use vsphere_vim_types::{DateTime, ManagedEntityStatus, ManagedObjectReference, VirtualMachineConfigSpec};

use crate::Fault;
use crate::inventory::container::check_name;
use crate::personality::{Fixed, Personality};
use crate::world::{State, World};

use super::config::vmx_path;
use super::reconfigure::invalid_path;
use super::snapshot::gone;
use super::{GuestBehaviour, Power, Settings, Vm};

/// The hardware version of a VM whose creator names none.
pub(crate) const DEFAULT_HARDWARE: u32 = 19;

/// What a VM is to be, disks apart.
pub(crate) struct NewVm {
    pub(crate) name: String,
    pub(crate) annotation: String,
    pub(crate) guest_id: String,
    pub(crate) memory_mb: i32,
    pub(crate) cpus: i32,
    pub(crate) hardware_version: u32,
    pub(crate) power: Power,
    pub(crate) tracking: bool,
    /// Whether a folder of that name that no VM uses may be taken over, as after a restart in the same directory.
    pub(crate) reuse_folder: bool,
}

/// Makes a VM with an id and a folder of its own; the caller puts it into the inventory.
pub(crate) fn new(world: &World, state: &mut State, new: NewVm) -> Vm {
    let id = new_id(world, state);
    let taken = |folder: &str| {
        let left_by_another = !new.reuse_folder && world.datastore.root().join(folder).exists();
        left_by_another || state.vms.values().chain(state.shelved.values()).any(|vm| vm.folder == folder)
    };
    let now = DateTime::now();
    let folder = folder_name(&new.name, taken);
    Vm {
        id,
        parent: world.fixed(Fixed::VmFolder),
        template: false,
        guest: GuestBehaviour::default(),
        file_name: folder.clone(),
        folder,
        instance_uuid: crate::ids::uuid_of(&format!("instance {}", new.name)),
        bios_uuid: crate::ids::uuid_of(&format!("bios {}", new.name)),
        hardware_version: new.hardware_version,
        power: new.power,
        created: now,
        booted: now,
        modified: now,
        revision: 0,
        settings: Settings {
            name: new.name,
            annotation: new.annotation,
            guest_id: new.guest_id,
            memory_mb: new.memory_mb,
            cpus: new.cpus,
            tracking: new.tracking,
            extra: BTreeMap::from([("svga.present".to_owned(), "TRUE".to_owned())]),
            devices: BTreeMap::new(),
            disks: BTreeMap::new(),
            nvram: None,
            key: None,
        },
        snapshots: BTreeMap::new(),
        current_snapshot: None,
        snapshot_count: 0,
        health: ManagedEntityStatus::Green,
        disabled: BTreeMap::new(),
        gate: Arc::default(),
        disks_created: 0,
    }
}

fn new_id(world: &World, state: &mut State) -> String {
    let serial = state.next_serial();
    match world.personality() {
        Personality::VCenter => format!("vm-{serial}"),
        Personality::Esxi => {
            let highest = state.vms.keys().filter_map(|id| id.parse::<u32>().ok()).max();
            (highest.unwrap_or(0) + 1).to_string()
        }
    }
}

/// `CreateVM_Task` and `CreateChildVM_Task`: a VM in a folder or vApp; returns its id.
pub(crate) fn create(
    world: &World,
    parent: ManagedObjectReference,
    spec: &VirtualMachineConfigSpec,
) -> Result<String, Fault> {
    let name = spec.name.clone().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Fault::invalid_argument("configSpec.name"))?;
    let hardware = match &spec.version {
        None => DEFAULT_HARDWARE,
        Some(version) => hardware_number(version).ok_or_else(|| Fault::invalid_argument("configSpec.version"))?,
    };
    let home = home(world, spec)?;
    let id = {
        let mut state = world.lock();
        check_name(&state, &parent, &name, None)?;
        let made = NewVm {
            name,
            annotation: String::new(),
            guest_id: "otherGuest64".into(),
            memory_mb: 32,
            cpus: 1,
            hardware_version: hardware,
            power: Power::Off,
            tracking: false,
            // The files of a VM that was unregistered must stay what they are.
            reuse_folder: false,
        };
        let mut vm = new(world, &mut state, made);
        vm.parent = parent;
        if let Some((folder, file)) = home {
            (vm.folder, vm.file_name) = (folder, file);
            let path = vmx_path(world, &vm);
            let exists =
                state.shelved.contains_key(&path) || state.vms.values().any(|other| vmx_path(world, other) == path);
            if exists {
                return Err(
                    Fault::new("FileAlreadyExists", &format!("The file {path} already exists")).field("file", &path)
                );
            }
        }
        // Somebody's identity (a restored VM's) or a fresh one: two VMs of one name may have existed.
        vm.instance_uuid = spec.instance_uuid.clone().unwrap_or_else(crate::ids::uuid);
        vm.bios_uuid = spec.uuid.clone().unwrap_or_else(crate::ids::uuid);
        let id = vm.id.clone();
        state.vms.insert(id.clone(), vm);
        id
    };
    if let Err(fault) = super::reconfigure::reconfigure(world, &id, spec) {
        delete_files(world.lock().vms.remove(&id))?;
        return Err(fault);
    }
    Ok(id)
}

/// The folder and the file that a specification names for the configuration; `None` where the server chooses.
fn home(world: &World, spec: &VirtualMachineConfigSpec) -> Result<Option<(String, String)>, Fault> {
    let path = spec.files.as_ref().and_then(|files| files.vm_path_name.as_deref()).unwrap_or_default();
    if path.is_empty() {
        return Ok(None);
    }
    let invalid = || invalid_path(path);
    let (datastore, rest) = path.strip_prefix('[').and_then(|path| path.split_once(']')).ok_or_else(invalid)?;
    if datastore != world.datastore.name() {
        return Err(invalid());
    }
    let rest = rest.trim();
    if rest.is_empty() {
        return Ok(None);
    }
    let (folder, file) = rest.split_once('/').ok_or_else(invalid)?;
    let file = file.strip_suffix(".vmx").filter(|file| !file.is_empty() && !file.contains('/')).ok_or_else(invalid)?;
    if folder.is_empty() || folder.starts_with('.') || folder.contains(['\\', '\0']) {
        return Err(invalid());
    }
    Ok(Some((folder.to_owned(), file.to_owned())))
}

/// The number in `vmx-19`.
pub(crate) fn hardware_number(version: &str) -> Option<u32> {
    version.strip_prefix("vmx-")?.parse().ok()
}

/// `RegisterVM_Task`: a VM whose files are there comes into the inventory under a new id.
pub(crate) fn register(
    world: &World,
    parent: ManagedObjectReference,
    path: &str,
    name: Option<&str>,
    as_template: bool,
) -> Result<String, Fault> {
    let mut state = world.lock();
    if let Some(known) = state.vms.values().find(|vm| vmx_path(world, vm) == path) {
        return Err(
            Fault::new("AlreadyExists", "The virtual machine is in the inventory already").field("name", known.name())
        );
    }
    if !path.starts_with(&format!("[{}] ", world.datastore.name())) {
        return Err(invalid_path(path));
    }
    let shelved = state.shelved.get(path).ok_or_else(|| Fault::new("NotFound", &format!("{path} was not found")))?;
    if shelved.template != as_template {
        return Err(Fault::invalid_argument("asTemplate"));
    }
    let name = name.unwrap_or(shelved.name()).to_owned();
    check_name(&state, &parent, &name, None)?;
    let mut vm = state.shelved.remove(path).ok_or_else(|| Fault::new("NotFound", path))?;
    vm.id = new_id(world, &mut state);
    vm.parent = parent;
    vm.settings.name = name;
    vm.disabled.clear();
    vm.gate = Arc::default();
    vm.revise();
    let id = vm.id.clone();
    state.vms.insert(id.clone(), vm);
    Ok(id)
}

/// `Destroy_Task`: the VM and its files.
pub(crate) fn destroy(world: &World, id: &str) -> Result<(), Fault> {
    delete_files(Some(take(world, id)?))
}

/// `UnregisterVM`: out of the inventory; the files stay.
pub(crate) fn unregister(world: &World, id: &str) -> Result<(), Fault> {
    let vm = take(world, id)?;
    shelve(world, vm);
    Ok(())
}

/// Remembers a VM that only its files tell of.
pub(crate) fn shelve(world: &World, vm: Vm) {
    let path = vmx_path(world, &vm);
    world.lock().shelved.insert(path, vm);
}

fn take(world: &World, id: &str) -> Result<Vm, Fault> {
    let mut state = world.lock();
    let vm = state.vms.get(id).ok_or_else(|| gone(id))?;
    if vm.power != Power::Off {
        return Err(Fault::power_state(Some("poweredOff"), vm.power.as_str()));
    }
    state.vms.remove(id).ok_or_else(|| gone(id))
}

fn delete_files(vm: Option<Vm>) -> Result<(), Fault> {
    let stores = vm.map(|vm| vm.all_stores()).unwrap_or_default();
    stores.iter().try_for_each(|store| store.delete()).map_err(|error| Fault::storage(&error))
}

/// A folder name for a VM: what a path cannot hold is replaced, and a name that is taken gets a number.
fn folder_name(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let safe = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_' | ' ' | '.') { c } else { '_' };
    let mut base: String = name.chars().take(60).map(safe).collect();
    if base.is_empty() || base.starts_with('.') {
        base.insert(0, '_');
    }
    let mut folder = base.clone();
    let mut number = 1;
    while taken(&folder) {
        folder = format!("{base}_{number}");
        number += 1;
    }
    folder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_names_cannot_leave_the_datastore() {
        let free = |_: &str| false;
        assert_eq!(folder_name("web", free), "web");
        assert_eq!(folder_name("../etc", free), "_.._etc");
        assert_eq!(folder_name("", free), "_");
        assert_eq!(folder_name("web", |folder| folder == "web"), "web_1");
    }
}
