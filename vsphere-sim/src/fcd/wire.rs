//! First Class Disks as the API shows them.

use vsphere_vim_types::{
    BaseConfigInfo, BaseConfigInfoBackingInfo, BaseConfigInfoDiskFileBackingInfo, BaseConfigInfoFileBackingInfo, ID,
    Poly, VStorageObject, VStorageObjectConfigInfo, VStorageObjectSnapshotDetails, VStorageObjectSnapshotInfo,
    VStorageObjectSnapshotInfoVStorageObjectSnapshot, VslmVsoVStorageObjectResult,
};

use crate::Fault;
use crate::personality::Fixed;
use crate::world::{State, World};

use super::Fcd;

/// `VStorageObject`: a disk in full.
pub(crate) fn storage_object(world: &World, state: &State, disk: &Fcd) -> VStorageObject {
    let datastore = BaseConfigInfoBackingInfo { datastore: world.fixed(Fixed::Datastore).cast(), ..Default::default() };
    let path = disk.path();
    let file = BaseConfigInfoFileBackingInfo {
        backing_object_id: Some(object_id(&path)),
        file_path: path,
        base: datastore,
        ..Default::default()
    };
    let backing = BaseConfigInfoDiskFileBackingInfo { provisioning_type: disk.provisioning.clone(), base: file };
    let base = BaseConfigInfo {
        id: id(&disk.id),
        name: disk.name.clone(),
        create_time: disk.created,
        keep_after_delete_vm: Some(disk.keep_after_delete_vm),
        relocation_disabled: Some(false),
        native_snapshot_supported: Some(false),
        changed_block_tracking_enabled: Some(disk.tracking),
        backing: Poly::new(backing),
        ..Default::default()
    };
    let config = VStorageObjectConfigInfo {
        capacity_in_mb: megabytes(disk),
        consumption_type: vec!["disk".into()],
        consumer_id: disk.consumers(state).map(|(vm, _)| id(&vm.instance_uuid)).collect(),
        base,
        ..Default::default()
    };
    VStorageObject { config, ..Default::default() }
}

/// A disk as the storage lifecycle service lists it.
pub(crate) fn result(disk: &Fcd) -> VslmVsoVStorageObjectResult {
    VslmVsoVStorageObjectResult {
        id: id(&disk.id),
        name: Some(disk.name.clone()),
        capacity_in_mb: megabytes(disk),
        create_time: Some(disk.created),
        disk_path: Some(disk.path()),
        ..Default::default()
    }
}

/// Every snapshot of a disk.
pub(crate) fn snapshot_info(disk: &Fcd) -> VStorageObjectSnapshotInfo {
    let shown = disk.snapshots.iter().map(|snapshot| VStorageObjectSnapshotInfoVStorageObjectSnapshot {
        id: Some(id(&snapshot.id)),
        backing_object_id: disk.store.paths(snapshot.point.node()).first().map(|path| object_id(path)),
        create_time: snapshot.created,
        description: snapshot.description.clone(),
        ..Default::default()
    });
    VStorageObjectSnapshotInfo { snapshots: shown.collect(), ..Default::default() }
}

/// The file and the change id of a snapshot.
pub(crate) fn details(disk: &Fcd, snapshot: &str) -> Result<VStorageObjectSnapshotDetails, Fault> {
    let snapshot = disk.snapshot(snapshot)?;
    Ok(VStorageObjectSnapshotDetails {
        path: disk.store.paths(snapshot.point.node()).into_iter().next(),
        changed_block_tracking_id: snapshot.point.change_id(),
        ..Default::default()
    })
}

fn id(id: &str) -> ID {
    ID { id: id.into(), ..Default::default() }
}

/// A file keeps its id for as long as it has its name.
fn object_id(path: &str) -> String {
    crate::ids::uuid_of(&format!("backing {path}"))
}

fn megabytes(disk: &Fcd) -> i64 {
    (disk.store.capacity() >> 20).cast_signed()
}
