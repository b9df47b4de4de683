//! What lies behind a virtual disk, for every kind of backing that the API knows.

use std::fmt;

use vsphere_vim_types::{
    DataObject, MoRef, Poly, VirtualDeviceBackingInfo, VirtualDeviceFileBackingInfo, VirtualDiskFlatVer1BackingInfo,
    VirtualDiskFlatVer2BackingInfo, VirtualDiskLocalPMemBackingInfo, VirtualDiskPartitionedRawDiskVer2BackingInfo,
    VirtualDiskRawDiskMappingVer1BackingInfo, VirtualDiskRawDiskVer2BackingInfo, VirtualDiskSeSparseBackingInfo,
    VirtualDiskSparseVer1BackingInfo, VirtualDiskSparseVer2BackingInfo, mo,
};

/// The kind of a disk's backing. A restore has to create the same kind again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackingKind {
    /// Flat, of ESX 2 and GSX.
    #[doc(alias = "VirtualDiskFlatVer1BackingInfo")]
    FlatVer1,
    /// Flat: thick or thin on VMFS, NFS and vSAN. The usual kind.
    #[doc(alias = "VirtualDiskFlatVer2BackingInfo")]
    FlatVer2,
    /// Sparse, of ESX 2 and GSX.
    #[doc(alias = "VirtualDiskSparseVer1BackingInfo")]
    SparseVer1,
    /// Sparse, of hosted products.
    #[doc(alias = "VirtualDiskSparseVer2BackingInfo")]
    SparseVer2,
    /// Space-efficient sparse: snapshots on VMFS 6, linked clones.
    #[doc(alias = "VirtualDiskSeSparseBackingInfo")]
    SeSparse,
    /// A mapping to a raw device (RDM), in virtual or physical compatibility.
    #[doc(alias = "VirtualDiskRawDiskMappingVer1BackingInfo")]
    RawDiskMapping,
    /// A host's whole raw disk, of hosted products.
    #[doc(alias = "VirtualDiskRawDiskVer2BackingInfo")]
    RawDisk,
    /// Partitions of a host's raw disk, of hosted products.
    #[doc(alias = "VirtualDiskPartitionedRawDiskVer2BackingInfo")]
    PartitionedRawDisk,
    /// Persistent memory of a host.
    #[doc(alias = "VirtualDiskLocalPMemBackingInfo")]
    LocalPMem,
    /// A kind of a newer server, by its wire name.
    Other(Box<str>),
}

/// How a disk takes writes, and whether snapshots hold it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DiskMode {
    /// Writes last; snapshots hold it.
    Persistent,
    /// Writes last; snapshots leave it out.
    IndependentPersistent,
    /// Writes are dropped at power-off; snapshots leave it out.
    IndependentNonpersistent,
    /// Any other mode, by its wire name: `nonpersistent`, `undoable`, `append` of old products.
    Other(Box<str>),
}

impl DiskMode {
    /// True when snapshots leave the disk out.
    pub fn is_independent(&self) -> bool {
        matches!(self, Self::IndependentPersistent | Self::IndependentNonpersistent)
    }
}

impl From<&str> for DiskMode {
    fn from(mode: &str) -> Self {
        match mode {
            "persistent" => Self::Persistent,
            "independent_persistent" => Self::IndependentPersistent,
            "independent_nonpersistent" => Self::IndependentNonpersistent,
            other => Self::Other(other.into()),
        }
    }
}

impl fmt::Display for DiskMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Persistent => "persistent",
            Self::IndependentPersistent => "independent_persistent",
            Self::IndependentNonpersistent => "independent_nonpersistent",
            Self::Other(mode) => mode,
        })
    }
}

/// What lies behind a disk.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DiskBacking {
    /// The kind.
    pub kind: BackingKind,
    /// The descriptor's datastore path: `[datastore] folder/name.vmdk`. `None` only for kinds without a file.
    pub file_name: Option<String>,
    /// The files that this one builds upon, nearest first; the last is the base disk.
    pub parents: Vec<String>,
    /// The datastore of the file.
    pub datastore: Option<MoRef<mo::Datastore>>,
    /// How it takes writes.
    pub mode: Option<DiskMode>,
    /// The disk's own id, which the guest sees too.
    pub uuid: Option<String>,
    /// Changes whenever the content changes while the machine is off.
    pub content_id: Option<String>,
    /// The point in time for changed block tracking; empty or absent when the disk is not tracked.
    pub change_id: Option<String>,
    /// Whether blocks are allocated on first write.
    pub thin: Option<bool>,
    /// True when the disk is encrypted by vSphere.
    pub encrypted: bool,
    /// `sharingNone` or `sharingMultiWriter`.
    pub sharing: Option<String>,
    /// For raw device mappings: `virtualMode` or `physicalMode`.
    pub compatibility: Option<String>,
    /// For raw device mappings: the LUN's id.
    pub lun_uuid: Option<String>,
    /// For raw disks: the device on the host.
    pub device_name: Option<String>,
}

impl DiskBacking {
    /// Reads a backing of any kind; what a kind does not have stays `None`.
    pub fn of(backing: &Poly<VirtualDeviceBackingInfo>) -> Self {
        let file = backing.downcast_ref::<VirtualDeviceFileBackingInfo>();
        let empty = Self {
            kind: BackingKind::Other(backing.type_name().into()),
            file_name: file.map(|file| file.file_name.clone()),
            parents: Vec::new(),
            datastore: file.and_then(|file| file.datastore.clone()),
            mode: None,
            uuid: None,
            content_id: None,
            change_id: None,
            thin: None,
            encrypted: false,
            sharing: None,
            compatibility: None,
            lun_uuid: None,
            device_name: None,
        };
        // Most frequent first.
        if let Some(disk) = backing.downcast_ref::<VirtualDiskFlatVer2BackingInfo>() {
            return Self {
                kind: BackingKind::FlatVer2,
                parents: chain(disk.parent.as_deref(), |disk| disk.parent.as_deref(), |disk| &disk.file_name),
                mode: Some(DiskMode::from(disk.disk_mode.as_str())),
                uuid: disk.uuid.clone(),
                content_id: disk.content_id.clone(),
                change_id: tracked(&disk.change_id),
                thin: disk.thin_provisioned,
                encrypted: disk.key_id.is_some(),
                sharing: disk.sharing.clone(),
                ..empty
            };
        }
        if let Some(disk) = backing.downcast_ref::<VirtualDiskSeSparseBackingInfo>() {
            return Self {
                kind: BackingKind::SeSparse,
                parents: chain(disk.parent.as_deref(), |disk| disk.parent.as_deref(), |disk| &disk.file_name),
                mode: Some(DiskMode::from(disk.disk_mode.as_str())),
                uuid: disk.uuid.clone(),
                content_id: disk.content_id.clone(),
                change_id: tracked(&disk.change_id),
                thin: Some(true),
                encrypted: disk.key_id.is_some(),
                ..empty
            };
        }
        if let Some(disk) = backing.downcast_ref::<VirtualDiskRawDiskMappingVer1BackingInfo>() {
            return Self {
                kind: BackingKind::RawDiskMapping,
                parents: chain(disk.parent.as_deref(), |disk| disk.parent.as_deref(), |disk| &disk.file_name),
                mode: disk.disk_mode.as_deref().map(DiskMode::from),
                uuid: disk.uuid.clone(),
                content_id: disk.content_id.clone(),
                change_id: tracked(&disk.change_id),
                sharing: disk.sharing.clone(),
                compatibility: disk.compatibility_mode.clone(),
                lun_uuid: disk.lun_uuid.clone(),
                device_name: disk.device_name.clone(),
                ..empty
            };
        }
        if let Some(disk) = backing.downcast_ref::<VirtualDiskSparseVer2BackingInfo>() {
            return Self {
                kind: BackingKind::SparseVer2,
                parents: chain(disk.parent.as_deref(), |disk| disk.parent.as_deref(), |disk| &disk.file_name),
                mode: Some(DiskMode::from(disk.disk_mode.as_str())),
                uuid: disk.uuid.clone(),
                content_id: disk.content_id.clone(),
                change_id: tracked(&disk.change_id),
                thin: Some(true),
                encrypted: disk.key_id.is_some(),
                ..empty
            };
        }
        if let Some(disk) = backing.downcast_ref::<VirtualDiskSparseVer1BackingInfo>() {
            return Self {
                kind: BackingKind::SparseVer1,
                parents: chain(disk.parent.as_deref(), |disk| disk.parent.as_deref(), |disk| &disk.file_name),
                mode: Some(DiskMode::from(disk.disk_mode.as_str())),
                content_id: disk.content_id.clone(),
                thin: Some(true),
                ..empty
            };
        }
        if let Some(disk) = backing.downcast_ref::<VirtualDiskFlatVer1BackingInfo>() {
            return Self {
                kind: BackingKind::FlatVer1,
                parents: chain(disk.parent.as_deref(), |disk| disk.parent.as_deref(), |disk| &disk.file_name),
                mode: Some(DiskMode::from(disk.disk_mode.as_str())),
                content_id: disk.content_id.clone(),
                thin: Some(false),
                ..empty
            };
        }
        if let Some(disk) = backing.downcast_ref::<VirtualDiskLocalPMemBackingInfo>() {
            return Self {
                kind: BackingKind::LocalPMem,
                mode: Some(DiskMode::from(disk.disk_mode.as_str())),
                uuid: disk.uuid.clone(),
                content_id: disk.content_id.clone(),
                ..empty
            };
        }
        if let Some(disk) = backing.downcast_ref::<VirtualDiskRawDiskVer2BackingInfo>() {
            let parts = backing.downcast_ref::<VirtualDiskPartitionedRawDiskVer2BackingInfo>().is_some();
            return Self {
                kind: if parts { BackingKind::PartitionedRawDisk } else { BackingKind::RawDisk },
                file_name: Some(disk.descriptor_file_name.clone()),
                uuid: disk.uuid.clone(),
                change_id: tracked(&disk.change_id),
                sharing: disk.sharing.clone(),
                device_name: Some(disk.device_name.clone()),
                ..empty
            };
        }
        empty
    }
}

/// The files of a chain of parents.
fn chain<'a, B: DataObject>(
    first: Option<&'a B>,
    next: impl Fn(&'a B) -> Option<&'a B>,
    file: impl Fn(&'a B) -> &'a String,
) -> Vec<String> {
    std::iter::successors(first, |backing| next(backing)).map(|backing| file(backing).clone()).collect()
}

/// An empty change id means the same as none: the disk is not tracked.
fn tracked(change_id: &Option<String>) -> Option<String> {
    change_id.clone().filter(|id| !id.trim().is_empty())
}
