//! What a new disk is to be.

use std::path::Path;

use super::{MAX_CAPACITY, layout::ExtentFiles};
use crate::{
    SECTOR,
    descriptor::{AdapterType, Cid, CreateType, Descriptor, DiskUuid, ExtentLine, NewDescriptor},
    error::{Error, Result},
    image::Image,
};

/// What kind of disk [`create`](super::create()) makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CreateKind {
    /// `monolithicFlat`: a descriptor and a `-flat` file of holes.
    Flat,
    /// The same as ESXi lays it out (`vmfs`).
    Vmfs,
    /// One file that grows with what is written.
    MonolithicSparse,
    /// A descriptor and flat files of less than 2 GiB each.
    TwoGbMaxExtentFlat,
    /// A descriptor and sparse files for less than 2 GiB each.
    TwoGbMaxExtentSparse,
    /// The bytes alone.
    Raw,
}

impl CreateKind {
    /// Whether grains are stored only where they were written.
    pub fn is_sparse(self) -> bool {
        matches!(self, Self::MonolithicSparse | Self::TwoGbMaxExtentSparse)
    }

    fn create_type(self) -> CreateType {
        match self {
            Self::Flat => CreateType::MonolithicFlat,
            Self::Vmfs => CreateType::Vmfs,
            Self::MonolithicSparse => CreateType::MonolithicSparse,
            Self::TwoGbMaxExtentFlat => CreateType::TwoGbMaxExtentFlat,
            Self::TwoGbMaxExtentSparse => CreateType::TwoGbMaxExtentSparse,
            Self::Raw => CreateType::Custom,
        }
    }
}

/// What [`create`](super::create()) makes. Size and kind must be said, the rest has defaults.
#[derive(Debug, Clone)]
#[must_use]
pub struct CreateSpec {
    pub(super) capacity: u64,
    pub(super) kind: CreateKind,
    pub(super) grain_bytes: u64,
    pub(super) zeroed_grains: bool,
    adapter: Option<AdapterType>,
    hardware_version: Option<u32>,
    thin: bool,
    cid: Option<Cid>,
    uuid: Option<DiskUuid>,
    model: Option<Descriptor>,
}

impl CreateSpec {
    /// A disk of `capacity` bytes for an LSI Logic adapter.
    pub fn new(capacity: u64, kind: CreateKind) -> Self {
        Self {
            capacity,
            kind,
            grain_bytes: DEFAULT_GRAIN_BYTES,
            zeroed_grains: false,
            adapter: None,
            hardware_version: None,
            thin: true,
            cid: None,
            uuid: None,
            model: None,
        }
    }

    /// Takes what a descriptor says beyond size, kind and chain from `model`: adapter, geometry, uuid, tools, comments
    /// and every line that this crate does not know. Change tracking is left out. This is how a restored disk keeps
    /// its identity; what other setters say goes before the model.
    pub fn like(mut self, model: Descriptor) -> Self {
        self.model = Some(model);
        self
    }

    /// Sets the adapter that the geometry is made for.
    pub fn adapter_type(mut self, adapter: AdapterType) -> Self {
        self.adapter = Some(adapter);
        self
    }

    /// Sets the virtual hardware version.
    pub fn hardware_version(mut self, version: u32) -> Self {
        self.hardware_version = Some(version);
        self
    }

    /// Whether a `vmfs` disk is marked as thin (default: yes). Here its file is made of holes either way.
    pub fn thin(mut self, thin: bool) -> Self {
        self.thin = thin;
        self
    }

    /// Sets the content id; a random one by default.
    pub fn cid(mut self, cid: Cid) -> Self {
        self.cid = Some(cid);
        self
    }

    /// Sets the uuid that guests see as the disk's serial number (with `disk.EnableUUID`). None by default.
    pub fn uuid(mut self, uuid: DiskUuid) -> Self {
        self.uuid = Some(uuid);
        self
    }

    /// Sets the grain size of sparse files in bytes, a power of two from 4 KiB to 32 MiB (default: 64 KiB, which is
    /// the only one that VMware's tools write).
    pub fn grain_bytes(mut self, bytes: u64) -> Self {
        self.grain_bytes = bytes;
        self
    }

    /// Lets sparse files say that a grain is zero without storing it (header version 2), so that zeroing what a
    /// parent holds takes no space (default: no, for the oldest readers).
    pub fn zeroed_grains(mut self, zeroed: bool) -> Self {
        self.zeroed_grains = zeroed;
        self
    }

    /// The descriptor of such a disk called `name`, for a disk whose bytes are written elsewhere: a restore to a
    /// datastore takes the text from here and the file `NAME-flat.vmdk` from its own writer.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a size, option or name that the format does not allow, and for
    /// [`CreateKind::Raw`], which has no descriptor.
    pub fn to_descriptor(&self, name: &str) -> Result<Descriptor> {
        self.check()?;
        if self.kind == CreateKind::Raw {
            return Err(Error::invalid("kind", "a raw disk has no descriptor"));
        }
        let extents = ExtentFiles::plan(Path::new(name), self)?;
        self.build_descriptor(&extents.lines, None)
    }

    /// Size in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// This spec with the virtual hardware of `source` where it says nothing of its own.
    pub(crate) fn inheriting(&self, source: &dyn Image) -> Result<Self> {
        if self.model.is_some() {
            return Ok(self.clone());
        }
        let mut model = NewDescriptor::template()?;
        for key in HARDWARE_KEYS {
            if let Some(value) = source.ddb_get(key) {
                model.ddb_set(key, &value)?;
            }
        }
        Ok(self.clone().like(model))
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.kind == CreateKind::Raw {
            return Ok(());
        }
        if !self.capacity.is_multiple_of(SECTOR) || self.capacity == 0 || self.capacity > MAX_CAPACITY {
            let problem = format!("{} bytes; it must be whole sectors of {SECTOR}, up to 62 TB", self.capacity);
            return Err(Error::invalid("capacity", problem));
        }
        if !self.grain_bytes.is_power_of_two() || !GRAIN_BYTES.contains(&self.grain_bytes) {
            let problem = format!("{} bytes; it must be a power of two from 4 KiB to 32 MiB", self.grain_bytes);
            return Err(Error::invalid("grain size", problem));
        }
        Ok(())
    }

    pub(super) fn build_descriptor(&self, extents: &[ExtentLine], parent: Option<(Cid, String)>) -> Result<Descriptor> {
        let mut new = NewDescriptor::new(self.kind.create_type(), extents.to_vec());
        new = new.thin(self.thin && self.kind == CreateKind::Vmfs);
        if let Some(model) = &self.model {
            new = new.like(model.clone());
        }
        if let Some(cid) = self.cid {
            new = new.cid(cid);
        }
        if let Some(adapter) = &self.adapter {
            new = new.adapter(adapter.clone());
        }
        if let Some(version) = self.hardware_version {
            new = new.hardware_version(version);
        }
        if let Some(uuid) = self.uuid {
            new = new.uuid(uuid);
        }
        if let Some((cid, hint)) = parent {
            new = new.parent(cid, hint);
        }
        new.build()
    }
}

/// Grain size when nobody sets one.
const DEFAULT_GRAIN_BYTES: u64 = 64 << 10;

/// Grain sizes that the header's reader accepts.
const GRAIN_BYTES: std::ops::RangeInclusive<u64> = 4 << 10..=32 << 20;

/// What of the disk data base describes the virtual hardware. Not the uuid: two disks of one machine would share it.
const HARDWARE_KEYS: [&str; 10] = [
    "adapterType",
    "geometry.cylinders",
    "geometry.heads",
    "geometry.sectors",
    "geometry.biosCylinders",
    "geometry.biosHeads",
    "geometry.biosSectors",
    "virtualHWVersion",
    "toolsVersion",
    "toolsInstallType",
];
