//! The manifest: the only object that makes a recovery point visible.
//!
//! JSON in an envelope, described in `FORMAT.md`, "Manifests". Created last and exclusively.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

use super::{
    copy::Origin,
    id::{MetaId, PointId, RepositoryId, VmId},
    set::SetRecord,
    tree::TreeRoot,
};

/// What a recovery point is: the machine, its disks, and how they were captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Manifest {
    /// The point's identity; the object's name says the same.
    pub id: PointId,
    /// The repository that it belongs to.
    pub repository: RepositoryId,
    /// Features without which this point must not be read.
    #[serde(default)]
    pub incompatible_features: Vec<String>,
    /// The virtual machine.
    pub vm: VmRecord,
    /// When the snapshot was taken, seconds since 1970 in UTC, by this computer's clock.
    pub created: u64,
    /// When the point was committed.
    pub committed: u64,
    /// In which state the guest's data is.
    pub consistency: Consistency,
    /// The ways to quiesce the guest that were given up before that, and why.
    #[serde(default)]
    pub fallbacks: Vec<Fallback>,
    /// The point whose indexes the incremental disks began with.
    #[serde(default)]
    pub parent: Option<PointId>,
    /// The set of machines that it was captured with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<SetRecord>,
    /// The disks.
    pub disks: Vec<DiskRecord>,
    /// Disks that are not in this point, and why.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// Small objects, by name: `config.json`, ...
    #[serde(default)]
    pub objects: BTreeMap<String, MetaId>,
    /// Small objects that the machine has and this point has not, by name, and why.
    #[serde(default)]
    pub objects_left_out: BTreeMap<String, String>,
    /// What this point is a copy of; `None` when it was made of a machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_of: Option<Origin>,
    /// The program that wrote it.
    #[serde(default)]
    pub software: String,
}

/// The virtual machine of a point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VmRecord {
    /// Its `instanceUuid`.
    pub instance_uuid: VmId,
    /// Its managed object id at that time, such as `vm-42`.
    #[serde(default)]
    pub mo_ref: String,
    /// Its name at that time.
    #[serde(default)]
    pub name: String,
}

/// The state of the guest's data in a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Consistency {
    /// As after a power cut: the disks are of one moment.
    Crash,
    /// File systems were flushed and held by VMware Tools.
    FileSystem,
    /// Applications took part (VSS or scripts).
    Application,
    /// The machine was off.
    PoweredOff,
}

/// A way to quiesce the guest that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// Its name: `vss`, `quiesce`.
    pub way: String,
    /// Why.
    pub reason: String,
}

/// One disk of a point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskRecord {
    /// The device key within the machine.
    pub key: i32,
    /// The label, such as `Hard disk 1`.
    #[serde(default)]
    pub label: String,
    /// The backing's uuid, which together with the machine and the key is the disk's identity.
    #[serde(default)]
    pub backing_uuid: Option<String>,
    /// The path of the base disk at that time, such as `[ds1] web/web.vmdk`.
    #[serde(default)]
    pub path: String,
    /// In bytes.
    pub capacity: u64,
    /// The change id of the snapshot, when changes are tracked.
    #[serde(default)]
    pub change_id: Option<String>,
    /// The root of the disk's index.
    pub root: TreeRoot,
    /// Whether all of the disk or only changes were read.
    pub mode: BackupMode,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Figures.
    #[serde(default)]
    pub bytes: DiskBytes,
    /// Why change tracking of this disk is not believed, since it was found wrong: the next backup reads all of the
    /// disk. `None` when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distrust: Option<String>,
    /// The disk database (`ddb.*`) and other small metadata.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// Whether a disk was read whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BackupMode {
    /// All allocated areas were read.
    Full,
    /// The areas changed since the parent were read; the rest is the parent's.
    Incremental,
}

/// The figures of one disk's backup, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DiskBytes {
    /// In the areas that were to be read: changed, or allocated.
    pub changed: u64,
    /// Read from the source: the areas on the chunk grid.
    pub read: u64,
    /// Read and zero.
    pub zero: u64,
    /// In chunks that areas touch and that were not read, because nothing is allocated there.
    pub unallocated: u64,
    /// In chunks that change tracking calls unchanged, read and compared with the parent.
    pub audited: u64,
    /// In chunks that the repository did not have.
    pub new: u64,
    /// What those take in packs.
    pub stored: u64,
    /// Written for the disk's index.
    pub index: u64,
}

impl DiskBytes {
    /// Adds up.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        Self {
            changed: self.changed.saturating_add(other.changed),
            read: self.read.saturating_add(other.read),
            zero: self.zero.saturating_add(other.zero),
            new: self.new.saturating_add(other.new),
            stored: self.stored.saturating_add(other.stored),
            index: self.index.saturating_add(other.index),
            audited: self.audited.saturating_add(other.audited),
            unallocated: self.unallocated.saturating_add(other.unallocated),
        }
    }
}

/// A disk that a point does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// The device key.
    pub key: i32,
    /// The label.
    #[serde(default)]
    pub label: String,
    /// Why it is not here.
    pub reason: String,
}

impl Manifest {
    /// Begins a manifest without disks.
    pub(crate) fn new(
        id: PointId,
        repository: RepositoryId,
        vm: VmRecord,
        created: u64,
        consistency: Consistency,
    ) -> Self {
        Self {
            id,
            repository,
            incompatible_features: Vec::new(),
            vm,
            created,
            committed: created,
            consistency,
            fallbacks: Vec::new(),
            parent: None,
            set: None,
            disks: Vec::new(),
            left_out: Vec::new(),
            objects: BTreeMap::new(),
            objects_left_out: BTreeMap::new(),
            copy_of: None,
            software: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).into(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a struct of plain fields is valid JSON")
    }

    /// Decodes and checks the body of the manifest of point `id`.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::UnsupportedFeature`].
    pub(crate) fn decode(body: &[u8], id: &PointId, repository: RepositoryId) -> Result<Self> {
        let key = id.key();
        let damaged = |reason: String| Error::damaged(&key, reason);
        let manifest: Self =
            serde_json::from_slice(body).map_err(|error| damaged(format!("its content is not valid: {error}")))?;
        if let Some(feature) = manifest.incompatible_features.into_iter().next() {
            return Err(Error::UnsupportedFeature { object: key.to_string(), feature });
        }
        let manifest = Self { incompatible_features: Vec::new(), ..manifest };
        if manifest.id != *id || manifest.vm.instance_uuid != *id.vm() {
            return Err(damaged(format!("it is the manifest of {}", manifest.id)));
        }
        if manifest.repository != repository {
            return Err(damaged(format!("it belongs to repository {}", manifest.repository)));
        }
        for (at, disk) in manifest.disks.iter().enumerate() {
            if manifest.disks[..at].iter().any(|other| other.key == disk.key) {
                return Err(damaged(format!("it lists disk {} twice", disk.key)));
            }
            if disk.capacity > MAX_CAPACITY {
                return Err(damaged(format!("disk {} has {} bytes", disk.key, disk.capacity)));
            }
        }
        Ok(manifest)
    }
}

/// Far above what vSphere allows (62 TiB); keeps arithmetic on offsets within 64 bits.
pub(crate) const MAX_CAPACITY: u64 = 1 << 60;
