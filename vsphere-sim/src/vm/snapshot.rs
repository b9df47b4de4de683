//! The snapshot tree of a VM: taking, removing, going back, showing.

use std::collections::BTreeMap;
use std::sync::Arc;

use vsphere_vim_types::{
    DateTime, ManagedObjectReference, MoRef, VirtualMachineSnapshotInfo, VirtualMachineSnapshotTree,
};

use crate::Fault;
use crate::storage::{DiskStore, Point};
use crate::world::World;

use super::{DiskMode, Power, Snapshot, Vm};

/// The longest chain of snapshots, as on a host.
const MAX_DEPTH: usize = 32;

/// What the caller wants.
pub(crate) struct NewSnapshot {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) quiesce: bool,
    /// With what the VM's memory holds: the snapshot is of a running VM then. No bytes of memory are kept.
    pub(crate) memory: bool,
}

impl Snapshot {
    pub(crate) fn reference(&self) -> ManagedObjectReference {
        ManagedObjectReference::of("VirtualMachineSnapshot", &self.id)
    }
}

/// Takes a snapshot; returns its id.
pub(crate) fn create(world: &World, vm_id: &str, wanted: NewSnapshot) -> Result<String, Fault> {
    let mut state = world.lock();
    let serial = state.next_serial();
    let vm = state.vms.get_mut(vm_id).ok_or_else(|| gone(vm_id))?;
    if depth(vm) >= MAX_DEPTH {
        return Err(Fault::new("SnapshotFault", "The maximum number of snapshots in a chain is reached"));
    }
    if wanted.name.is_empty() || wanted.name.len() > 80 {
        return Err(
            Fault::new("InvalidName", "The name is empty or longer than 80 characters").field("name", &wanted.name)
        );
    }
    if let Some(disk) = vm.settings.disks.values().find(|disk| disk.store.open_writers() > 0) {
        let path = disk.store.paths(disk.store.current()).into_iter().next();
        return Err(Fault::file_locked(&path.unwrap_or_default()));
    }
    let mut points = BTreeMap::new();
    for disk in vm.settings.disks.values().filter(|disk| disk.mode == DiskMode::Persistent) {
        match disk.store.freeze() {
            Ok(point) => {
                points.insert(disk.key, point);
            }
            Err(error) => {
                abandon(&vm.settings.disks, &points);
                return Err(Fault::storage(&error));
            }
        }
    }
    vm.snapshot_count += 1;
    let id = match world.personality() {
        crate::Personality::VCenter => format!("snapshot-{serial}"),
        crate::Personality::Esxi => format!("{vm_id}-snapshot-{}", vm.snapshot_count),
    };
    let snapshot = Snapshot {
        id: id.clone(),
        number: vm.snapshot_count,
        name: wanted.name,
        description: wanted.description,
        created: DateTime::now(),
        // Without memory the snapshot holds a VM that is off, whatever it was.
        power: if wanted.memory { vm.power } else { Power::Off },
        quiesced: wanted.quiesce && vm.power == Power::On,
        manifest: (wanted.quiesce && vm.power == Power::On).then(|| vss_manifest(vm)).flatten(),
        parent: vm.current_snapshot.clone(),
        settings: vm.settings.clone(),
        points,
    };
    vm.snapshots.insert(id.clone(), snapshot);
    vm.current_snapshot = Some(id.clone());
    vm.revise();
    Ok(id)
}

/// Gives up what a snapshot that failed half way had frozen.
fn abandon(disks: &BTreeMap<i32, super::VmDisk>, points: &BTreeMap<i32, Point>) {
    for (key, point) in points {
        if let Some(disk) = disks.get(key) {
            let undone = disk.store.release(point).and_then(|()| disk.store.consolidate());
            if let Err(error) = undone {
                tracing::warn!(%error, disk = key, "layer left behind by a failed snapshot");
            }
        }
    }
}

/// Removes a snapshot, with its descendants if asked; merges layers unless told not to.
pub(crate) fn remove(world: &World, id: &str, children: bool, consolidate: bool) -> Result<(), Fault> {
    let removed = {
        let mut state = world.lock();
        let vm = state.vms.values_mut().find(|vm| vm.snapshots.contains_key(id)).ok_or_else(|| gone_snapshot(id))?;
        take_out(vm, id, children)
    };
    finish(removed, consolidate)
}

/// Removes every snapshot of a VM.
pub(crate) fn remove_all(world: &World, vm_id: &str, consolidate: bool) -> Result<(), Fault> {
    let removed = {
        let mut state = world.lock();
        let vm = state.vms.get_mut(vm_id).ok_or_else(|| gone(vm_id))?;
        vm.current_snapshot = None;
        vm.revise();
        std::mem::take(&mut vm.snapshots).into_values().collect()
    };
    finish(removed, consolidate)
}

/// Detaches a snapshot (and its descendants) from the tree.
fn take_out(vm: &mut Vm, id: &str, children: bool) -> Vec<Snapshot> {
    let mut doomed = vec![id.to_owned()];
    if children {
        // Grows while it is walked: descendants of descendants follow.
        let mut at = 0;
        while let Some(parent) = doomed.get(at).cloned() {
            doomed.extend(
                vm.snapshots
                    .values()
                    .filter(|snapshot| snapshot.parent.as_ref() == Some(&parent))
                    .map(|snapshot| snapshot.id.clone()),
            );
            at += 1;
        }
    }
    let heir = vm.snapshots.get(id).and_then(|snapshot| snapshot.parent.clone());
    for snapshot in vm.snapshots.values_mut() {
        if snapshot.parent.as_deref() == Some(id) {
            snapshot.parent.clone_from(&heir);
        }
    }
    if vm.current_snapshot.as_ref().is_some_and(|current| doomed.contains(current)) {
        vm.current_snapshot = heir;
    }
    vm.revise();
    doomed.iter().filter_map(|id| vm.snapshots.remove(id)).collect()
}

/// Gives up the layers of removed snapshots. Copies data, so the state is not locked meanwhile.
fn finish(removed: Vec<Snapshot>, consolidate: bool) -> Result<(), Fault> {
    let mut stores: Vec<Arc<DiskStore>> = Vec::new();
    for snapshot in &removed {
        for (key, point) in &snapshot.points {
            if let Some(disk) = snapshot.settings.disks.get(key) {
                disk.store.release(point).map_err(|error| Fault::storage(&error))?;
                stores.push(disk.store.clone());
            }
        }
    }
    if consolidate {
        merge(&stores)?;
    }
    Ok(())
}

/// Merges the layers of disks that no snapshot needs; what is open stays for a later try.
pub(crate) fn merge(stores: &[Arc<DiskStore>]) -> Result<(), Fault> {
    for store in stores {
        store.consolidate().map_err(|error| Fault::storage(&error))?;
    }
    Ok(())
}

/// Goes back to a snapshot. The caller holds the VM's gate, so nothing else changes it meanwhile.
///
/// A snapshot of a running VM runs again unless `stay_off`.
pub(crate) fn revert(world: &World, id: &str, stay_off: bool) -> Result<(), Fault> {
    let held: Vec<(Arc<DiskStore>, Point)> = {
        let state = world.lock();
        let snapshot = state.vm_of_snapshot(id).and_then(|vm| vm.snapshots.get(id)).ok_or_else(|| gone_snapshot(id))?;
        let disk =
            |(key, point): (&i32, &Point)| Some((snapshot.settings.disks.get(key)?.store.clone(), point.clone()));
        snapshot.points.iter().filter_map(disk).collect()
    };
    for (store, point) in &held {
        store.revert(point).map_err(|error| Fault::storage(&error))?;
    }
    let mut state = world.lock();
    let vm = state.vms.values_mut().find(|vm| vm.snapshots.contains_key(id)).ok_or_else(|| gone_snapshot(id))?;
    let snapshot = vm.snapshots.get(id).ok_or_else(|| gone_snapshot(id))?;
    // Independent disks keep their present bytes; the rest of the configuration is the snapshot's.
    let independent = vm.settings.disks.iter().filter(|(_, disk)| disk.mode != DiskMode::Persistent);
    let mut settings = snapshot.settings.clone();
    settings.disks.extend(independent.map(|(key, disk)| (*key, disk.clone())));
    settings.tracking = vm.settings.tracking;
    let power = if stay_off { Power::Off } else { snapshot.power };
    vm.settings = settings;
    vm.power = power;
    if power == Power::On {
        vm.booted = DateTime::now();
    }
    vm.current_snapshot = Some(id.into());
    vm.revise();
    Ok(())
}

/// `snapshot`; absent without snapshots.
pub(crate) fn info(vm: &Vm) -> Option<VirtualMachineSnapshotInfo> {
    if vm.snapshots.is_empty() {
        return None;
    }
    Some(VirtualMachineSnapshotInfo {
        current_snapshot: vm.current_snapshot.as_ref().map(|id| MoRef::new(id)),
        root_snapshot_list: tree(vm, None, 0),
        ..Default::default()
    })
}

/// Snapshots directly below `parent` (roots for `None`), oldest first.
pub(crate) fn children<'a>(vm: &'a Vm, parent: Option<&str>) -> Vec<&'a Snapshot> {
    let mut found: Vec<_> = vm.snapshots.values().filter(|snapshot| snapshot.parent.as_deref() == parent).collect();
    found.sort_by_key(|snapshot| snapshot.number);
    found
}

fn tree(vm: &Vm, parent: Option<&str>, depth: usize) -> Vec<VirtualMachineSnapshotTree> {
    if depth > MAX_DEPTH {
        return Vec::new();
    }
    let shown = |snapshot: &Snapshot| VirtualMachineSnapshotTree {
        snapshot: MoRef::new(&snapshot.id),
        vm: MoRef::new(&vm.id),
        name: snapshot.name.clone(),
        description: snapshot.description.clone(),
        id: snapshot.number,
        create_time: snapshot.created,
        state: snapshot.power.to_wire(),
        quiesced: snapshot.quiesced,
        backup_manifest: snapshot.manifest.as_ref().map(|(name, _)| name.clone()),
        child_snapshot_list: tree(vm, Some(&snapshot.id), depth + 1),
        replay_supported: Some(false),
        ..Default::default()
    };
    children(vm, parent).into_iter().map(shown).collect()
}

/// What VMware Tools collect of VSS in a Windows guest; other guests have no such thing. The documents are not real
/// ones: they only say which machine they are of.
fn vss_manifest(vm: &Vm) -> Option<(String, Vec<u8>)> {
    if !vm.settings.guest_id.to_lowercase().starts_with("win") {
        return None;
    }
    let name = format!("{}-vss_manifests{}.zip", vm.folder, vm.snapshot_count);
    let document = format!("<BACKUP_COMPONENTS simulated=\"yes\" machine=\"{}\"/>\n", vm.instance_uuid);
    let writer = "<WRITER_METADATA simulated=\"yes\"/>\n";
    Some((name, crate::files::zip(&[("backup.xml", document.as_bytes()), ("writer0.xml", writer.as_bytes())])))
}

fn depth(vm: &Vm) -> usize {
    let mut depth = 0;
    let mut next = vm.current_snapshot.as_ref();
    while let Some(snapshot) = next.and_then(|id| vm.snapshots.get(id)) {
        depth += 1;
        next = snapshot.parent.as_ref();
    }
    depth
}

pub(super) fn gone(vm: &str) -> Fault {
    Fault::not_found(&ManagedObjectReference::of("VirtualMachine", vm))
}

fn gone_snapshot(id: &str) -> Fault {
    Fault::not_found(&ManagedObjectReference::of("VirtualMachineSnapshot", id))
}
