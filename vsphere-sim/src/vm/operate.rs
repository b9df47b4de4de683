//! Power operations and changed-area queries.

use vsphere_vim_types::{DateTime, DiskChangeExtent, DiskChangeInfo};

use crate::Fault;
use crate::storage::{DiskStore, Point, TrackingError};
use crate::world::World;

use super::snapshot::gone;
use super::{Power, Vm};

/// What to do with a VM's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PowerOperation {
    On,
    Off,
    Suspend,
    Reset,
}

/// Carries out a power operation.
pub(crate) fn power(world: &World, vm_id: &str, operation: PowerOperation) -> Result<(), Fault> {
    let mut state = world.lock();
    let vm = state.vms.get_mut(vm_id).ok_or_else(|| gone(vm_id))?;
    let (allowed, target) = match operation {
        PowerOperation::On => (vm.power != Power::On, Power::On),
        PowerOperation::Off => (vm.power != Power::Off, Power::Off),
        PowerOperation::Suspend => (vm.power == Power::On, Power::Suspended),
        PowerOperation::Reset => (vm.power == Power::On, Power::On),
    };
    if !allowed {
        return Err(Fault::power_state(Some(target.as_str()), vm.power.as_str()));
    }
    if vm.template {
        return Err(Fault::not_supported("a template has no power"));
    }
    if operation == PowerOperation::On {
        if let Some(disk) = vm.settings.disks.values().find(|disk| disk.store.open_writers() > 0) {
            return Err(Fault::file_locked(disk.store.paths(disk.store.current()).first().map_or("", String::as_str)));
        }
        // Disks are opened anew: change tracking becomes what the configuration says.
        vm.settings.disks.values().for_each(|disk| disk.store.stun());
    }
    if target == Power::On {
        vm.booted = DateTime::now();
    }
    vm.power = target;
    Ok(())
}

/// `QueryChangedDiskAreas`. Reads allocation maps, so it blocks.
pub(crate) fn changed_areas(
    world: &World,
    vm_id: &str,
    snapshot: Option<&str>,
    key: i32,
    start: i64,
    since: &str,
) -> Result<DiskChangeInfo, Fault> {
    let (store, point) = {
        let state = world.lock();
        let vm = state.vms.get(vm_id).ok_or_else(|| gone(vm_id))?;
        locate(vm, snapshot, key)?
    };
    areas_of(&store, &point, since, start)
}

/// The answer about one disk between `since` and a snapshot of it. Reads allocation maps, so it blocks.
pub(crate) fn areas_of(store: &DiskStore, point: &Point, since: &str, start: i64) -> Result<DiskChangeInfo, Fault> {
    let page = store.changed_areas(point, since, start).map_err(|error| match error {
        TrackingError::Stale { disk, reason } => Fault::file_fault(&disk, &reason),
        TrackingError::StartOffset { .. } => Fault::invalid_argument("startOffset"),
        TrackingError::Storage(reason) => Fault::file_fault("", &reason),
    })?;
    let areas = page.areas.iter().map(|area| DiskChangeExtent {
        start: area.start as i64,
        length: (area.end - area.start) as i64,
        ..Default::default()
    });
    Ok(DiskChangeInfo {
        start_offset: page.start as i64,
        length: page.length as i64,
        changed_area: areas.collect(),
        ..Default::default()
    })
}

fn locate(
    vm: &Vm,
    snapshot: Option<&str>,
    key: i32,
) -> Result<(std::sync::Arc<crate::storage::DiskStore>, crate::storage::Point), Fault> {
    let Some(id) = snapshot else {
        // Against the present state the question can be asked of a VM that is off only.
        if vm.power != Power::Off {
            return Err(Fault::power_state(None, vm.power.as_str()));
        }
        let disk = vm.settings.disks.get(&key).ok_or_else(|| Fault::invalid_argument("deviceKey"))?;
        return Ok((disk.store.clone(), disk.store.present()));
    };
    let snapshot = vm.snapshots.get(id).ok_or_else(|| Fault::invalid_argument("snapshot"))?;
    let disk = snapshot.settings.disks.get(&key).ok_or_else(|| Fault::invalid_argument("deviceKey"))?;
    let path = || disk.store.paths(disk.store.current()).first().cloned().unwrap_or_default();
    let point =
        snapshot.points.get(&key).ok_or_else(|| Fault::file_fault(&path(), "the disk is not part of the snapshot"))?;
    Ok((disk.store.clone(), point.clone()))
}
