//! First Class Disks: disks with an identity and snapshots of their own.
//!
//! They are stored and tracked by the same code as virtual machines' disks. One that was registered *is* the machine's
//! disk: both see the same bytes.

mod handle;
mod wire;

use std::sync::Arc;

use vsphere_vim_types::{DateTime, ManagedObjectReference};

use crate::Fault;
use crate::personality::Fixed;
use crate::storage::{DiskOptions, DiskSource, DiskStore, Point};
use crate::vm::Vm;
use crate::world::{State, World};

pub use handle::FcdHandle;
pub(crate) use wire::{details, result, snapshot_info, storage_object};

/// A First Class Disk.
pub(crate) struct Fcd {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) created: DateTime,
    pub(crate) keep_after_delete_vm: bool,
    pub(crate) provisioning: String,
    pub(crate) tracking: bool,
    pub(crate) store: Arc<DiskStore>,
    pub(crate) snapshots: Vec<FcdSnapshot>,
    /// Keeps operations on the disk apart.
    pub(crate) gate: Arc<tokio::sync::Mutex<()>>,
}

/// A snapshot of one.
pub(crate) struct FcdSnapshot {
    pub(crate) id: String,
    pub(crate) description: String,
    pub(crate) created: DateTime,
    pub(crate) point: Point,
}

/// What a new disk is to be.
pub(crate) struct NewFcd {
    pub(crate) name: String,
    pub(crate) capacity: u64,
    pub(crate) folder: String,
    pub(crate) provisioning: String,
    pub(crate) keep_after_delete_vm: bool,
}

/// A disk as a caller names it: by its id, and by its datastore where the manager wants that.
#[derive(Clone)]
pub(crate) struct Named {
    pub(crate) id: String,
    pub(crate) datastore: Option<ManagedObjectReference>,
}

impl Fcd {
    fn new(id: String, name: String, store: Arc<DiskStore>) -> Self {
        Self {
            id,
            name,
            created: DateTime::now(),
            keep_after_delete_vm: false,
            provisioning: "thin".into(),
            tracking: false,
            store,
            snapshots: Vec::new(),
            gate: Arc::default(),
        }
    }

    /// The datastore path of the file that is written to now.
    pub(crate) fn path(&self) -> String {
        self.store.paths(self.store.current()).into_iter().next().unwrap_or_default()
    }

    /// The snapshot of that id.
    pub(crate) fn snapshot(&self, id: &str) -> Result<&FcdSnapshot, Fault> {
        self.snapshots.iter().find(|snapshot| snapshot.id == id).ok_or_else(|| not_found("snapshot", id))
    }

    /// The virtual machines that use the disk, with its key in each.
    pub(crate) fn consumers<'a>(&'a self, state: &'a State) -> impl Iterator<Item = (&'a Vm, i32)> {
        let attached = |vm: &'a Vm| {
            let own = vm.settings.disks.values().find(|disk| Arc::ptr_eq(&disk.store, &self.store));
            own.map(|disk| (vm, disk.key))
        };
        state.vms.values().filter_map(attached)
    }
}

/// Finds a disk as the caller named it.
pub(crate) fn find<'a>(world: &World, state: &'a State, named: &Named) -> Result<&'a Fcd, Fault> {
    check_datastore(world, named.datastore.as_ref())?;
    state.fcds.get(&named.id).ok_or_else(|| not_found("virtual storage object", &named.id))
}

fn find_mut<'a>(world: &World, state: &'a mut State, named: &Named) -> Result<&'a mut Fcd, Fault> {
    check_datastore(world, named.datastore.as_ref())?;
    state.fcds.get_mut(&named.id).ok_or_else(|| not_found("virtual storage object", &named.id))
}

/// Refuses a datastore that there is none of.
pub(crate) fn check_datastore(world: &World, datastore: Option<&ManagedObjectReference>) -> Result<(), Fault> {
    match datastore {
        Some(other) if *other != world.fixed(Fixed::Datastore) => Err(Fault::not_found(other)),
        _ => Ok(()),
    }
}

/// `CreateDisk_Task` and its kin; returns the disk's id.
pub(crate) fn create(world: &World, new: &NewFcd) -> Result<String, Fault> {
    let id = crate::ids::uuid();
    let options = DiskOptions { write_through: false, tracking: world.settings.tracking.clone() };
    let source = DiskSource::Empty(new.capacity);
    let store = world.datastore.create_disk_file(&new.folder, &id, &source, &options);
    let store = store.map_err(|error| Fault::file_fault(&new.folder, &error.to_string()))?;
    let disk = Fcd {
        provisioning: new.provisioning.clone(),
        keep_after_delete_vm: new.keep_after_delete_vm,
        ..Fcd::new(id.clone(), new.name.clone(), store)
    };
    world.lock().fcds.insert(id.clone(), disk);
    world.touch();
    Ok(id)
}

/// `RegisterDisk` and its kin: the disk of a virtual machine becomes a First Class Disk. Other files are unknown here.
pub(crate) fn register(world: &World, path: &str, name: Option<&str>) -> Result<String, Fault> {
    let mut state = world.lock();
    let stores = state.vms.values().flat_map(|vm| vm.settings.disks.values().map(|disk| &disk.store));
    let mut stores = stores.filter(|store| store.find(path).is_some());
    let missing = || Fault::new("FileNotFound", &format!("File {path} was not found")).field("file", path);
    let store = stores.next().cloned().ok_or_else(missing)?;
    if let Some(other) = state.fcds.values().find(|disk| Arc::ptr_eq(&disk.store, &store)) {
        let text = "The disk is a first class disk already";
        return Err(Fault::new("AlreadyExists", text).field("name", &other.id));
    }
    let id = crate::ids::uuid();
    let disk = Fcd::new(id.clone(), name.unwrap_or(path).to_owned(), store);
    state.fcds.insert(id.clone(), disk);
    drop(state);
    world.touch();
    Ok(id)
}

/// `DeleteVStorageObject_Task` and its kin.
pub(crate) fn delete(world: &World, named: &Named) -> Result<(), Fault> {
    let disk = {
        let mut state = world.lock();
        let disk = find(world, &state, named)?;
        if disk.consumers(&state).next().is_some() {
            return Err(Fault::new("InvalidState", "The virtual storage object is attached to a virtual machine."));
        }
        let id = disk.id.clone();
        state.fcds.remove(&id)
    };
    world.touch();
    disk.map_or(Ok(()), |disk| disk.store.delete()).map_err(|error| Fault::storage(&error))
}

/// Switches change tracking; it is on or off in truth from the next snapshot on.
pub(crate) fn set_tracking(world: &World, named: &Named, on: bool) -> Result<(), Fault> {
    let mut state = world.lock();
    let disk = find_mut(world, &mut state, named)?;
    disk.tracking = on;
    disk.store.set_tracking(on);
    Ok(())
}

/// `VStorageObjectCreateSnapshot_Task` and its kin; returns the snapshot's id.
pub(crate) fn create_snapshot(world: &World, named: &Named, description: &str) -> Result<String, Fault> {
    let mut state = world.lock();
    let disk = find_mut(world, &mut state, named)?;
    let point = disk.store.freeze().map_err(|error| Fault::storage(&error))?;
    let id = crate::ids::uuid();
    let snapshot = FcdSnapshot { id: id.clone(), description: description.into(), created: DateTime::now(), point };
    disk.snapshots.push(snapshot);
    Ok(id)
}

/// `DeleteSnapshot_Task` and its kin. Copies data, so the state is not locked meanwhile.
pub(crate) fn delete_snapshot(world: &World, named: &Named, id: &str) -> Result<(), Fault> {
    let (store, snapshot) = {
        let mut state = world.lock();
        let disk = find_mut(world, &mut state, named)?;
        let at = disk.snapshots.iter().position(|snapshot| snapshot.id == id);
        let at = at.ok_or_else(|| not_found("snapshot", id))?;
        (disk.store.clone(), disk.snapshots.remove(at))
    };
    let done = store.release(&snapshot.point).and_then(|()| store.consolidate());
    done.map(drop).map_err(|error| Fault::storage(&error))
}

/// `RevertVStorageObject_Task` and its kin.
pub(crate) fn revert(world: &World, named: &Named, id: &str) -> Result<(), Fault> {
    let (store, point) = {
        let state = world.lock();
        let disk = find(world, &state, named)?;
        if disk.consumers(&state).next().is_some() {
            return Err(Fault::new("InvalidState", "The virtual storage object is attached to a virtual machine."));
        }
        (disk.store.clone(), disk.snapshot(id)?.point.clone())
    };
    store.revert(&point).map_err(|error| Fault::storage(&error))
}

pub(crate) fn not_found(what: &str, id: &str) -> Fault {
    Fault::new("NotFound", &format!("The {what} {id} was not found."))
}
