//! Snapshots of First Class Disks as plain values.

use vsphere_vim_types::{DateTime, VStorageObjectSnapshotDetails, VStorageObjectSnapshotInfo};

use super::FcdSnapshotId;

/// A snapshot of a First Class Disk.
#[doc(alias = "VStorageObjectSnapshotInfoVStorageObjectSnapshot")]
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FcdSnapshot {
    /// What names it. Servers leave it out for snapshots that are none of the disk's own: those of a virtual machine.
    pub id: Option<FcdSnapshotId>,
    /// The id of the file that holds its data.
    pub backing_object_id: Option<String>,
    /// When it was taken, by the server's clock.
    pub created_at: DateTime,
    /// What its creator said of it.
    pub description: String,
}

/// What a backup needs of a snapshot.
#[doc(alias = "VStorageObjectSnapshotDetails")]
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FcdSnapshotDetails {
    /// The datastore path of the file that holds the data.
    pub path: Option<String>,
    /// The change id: what changed since can be asked for later. `None` when changes are not tracked.
    #[doc(alias = "changedBlockTrackingId")]
    pub change_id: Option<String>,
}

pub(super) fn from_wire(wire: VStorageObjectSnapshotInfo) -> Vec<FcdSnapshot> {
    let snapshots = wire.snapshots.into_iter().map(|snapshot| FcdSnapshot {
        id: snapshot.id.map(FcdSnapshotId::from),
        backing_object_id: snapshot.backing_object_id,
        created_at: snapshot.create_time,
        description: snapshot.description,
    });
    snapshots.collect()
}

impl From<VStorageObjectSnapshotDetails> for FcdSnapshotDetails {
    fn from(wire: VStorageObjectSnapshotDetails) -> Self {
        let set = |text: Option<String>| text.filter(|text| !text.is_empty());
        Self { path: set(wire.path), change_id: set(wire.changed_block_tracking_id) }
    }
}
