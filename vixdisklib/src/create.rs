//! New disks: what they are to be, and making them.

use vmdk::AdapterType;

/// The layout of a disk's files, by VMware's list.
#[doc(alias = "VixDiskLibDiskType")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DiskKind {
    /// One file that grows with what is written.
    #[doc(alias = "VIXDISKLIB_DISK_MONOLITHIC_SPARSE")]
    MonolithicSparse,
    /// A descriptor and one file of the disk's size, made of holes.
    #[doc(alias = "VIXDISKLIB_DISK_MONOLITHIC_FLAT")]
    MonolithicFlat,
    /// As [`MonolithicSparse`](Self::MonolithicSparse), in files for less than 2 GiB each.
    #[doc(alias = "VIXDISKLIB_DISK_SPLIT_SPARSE")]
    SplitSparse,
    /// As [`MonolithicFlat`](Self::MonolithicFlat), in files of less than 2 GiB each.
    #[doc(alias = "VIXDISKLIB_DISK_SPLIT_FLAT")]
    SplitFlat,
    /// What ESXi makes: a descriptor and a thick `-flat` file.
    #[doc(alias = "VIXDISKLIB_DISK_VMFS_FLAT")]
    VmfsFlat,
    /// Compressed, for transport; written once, in order, by a clone.
    #[doc(alias = "VIXDISKLIB_DISK_STREAM_OPTIMIZED")]
    StreamOptimized,
    /// What ESXi makes: a descriptor and a `-flat` file that grows with what is written.
    #[doc(alias = "VIXDISKLIB_DISK_VMFS_THIN")]
    VmfsThin,
    /// The redo log of ESXi. Read everywhere, made by ESXi alone.
    #[doc(alias = "VIXDISKLIB_DISK_VMFS_SPARSE")]
    VmfsSparse,
}

impl DiskKind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::MonolithicSparse,
        Self::MonolithicFlat,
        Self::SplitSparse,
        Self::SplitFlat,
        Self::VmfsFlat,
        Self::StreamOptimized,
        Self::VmfsThin,
        Self::VmfsSparse,
    ];

    /// How the crate `vmdk` calls it; `None` for what is not made by opening and writing.
    pub(crate) fn create_kind(self) -> Option<vmdk::CreateKind> {
        Some(match self {
            Self::MonolithicSparse => vmdk::CreateKind::MonolithicSparse,
            Self::MonolithicFlat => vmdk::CreateKind::Flat,
            Self::SplitSparse => vmdk::CreateKind::TwoGbMaxExtentSparse,
            Self::SplitFlat => vmdk::CreateKind::TwoGbMaxExtentFlat,
            Self::VmfsFlat | Self::VmfsThin => vmdk::CreateKind::Vmfs,
            Self::StreamOptimized | Self::VmfsSparse => return None,
        })
    }
}

/// What [`Connection::create`](crate::Connection::create) makes.
#[doc(alias = "VixDiskLibCreateParams")]
#[derive(Debug, Clone)]
#[must_use]
pub struct CreateSpec {
    pub(crate) kind: DiskKind,
    pub(crate) capacity: u64,
    pub(crate) adapter: Option<AdapterType>,
    pub(crate) hardware_version: Option<u32>,
}

impl CreateSpec {
    /// A disk of `capacity` bytes for an LSI Logic adapter.
    pub fn new(kind: DiskKind, capacity: u64) -> Self {
        Self { kind, capacity, adapter: None, hardware_version: None }
    }

    /// Sets the adapter that the geometry is made for.
    #[doc(alias = "VixDiskLibAdapterType")]
    pub fn adapter(self, adapter: AdapterType) -> Self {
        Self { adapter: Some(adapter), ..self }
    }

    /// Sets the virtual hardware version.
    #[doc(alias = "VIXDISKLIB_HWVERSION_CURRENT")]
    pub fn hardware_version(self, version: u32) -> Self {
        Self { hardware_version: Some(version), ..self }
    }

    /// The kind of disk.
    pub fn kind(&self) -> DiskKind {
        self.kind
    }

    /// Size in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The same for the crate `vmdk`; `None` for kinds that it does not make in this way.
    pub(crate) fn for_vmdk(&self) -> Option<vmdk::CreateSpec> {
        let mut spec = vmdk::CreateSpec::new(self.capacity, self.kind.create_kind()?);
        spec = spec.thin(self.kind == DiskKind::VmfsThin);
        if let Some(adapter) = &self.adapter {
            spec = spec.adapter_type(adapter.clone());
        }
        if let Some(version) = self.hardware_version {
            spec = spec.hardware_version(version);
        }
        Some(spec)
    }
}
