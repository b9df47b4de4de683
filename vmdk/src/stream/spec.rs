//! What a new stream is to be.

use crate::{
    SECTOR,
    create::MAX_CAPACITY,
    descriptor::{
        AdapterType, Cid, CreateType, Descriptor, ExtentLine, ExtentType, MAX_DESCRIPTOR_BYTES, NewDescriptor,
    },
    error::{Error, Result},
    layout::{SparseFlags, SparseHeader},
};

/// What the stream's disk is. The same specification and the same data give the same stream, byte for byte, once
/// the content id is [set](Self::cid): a new disk has a random one.
#[derive(Debug, Clone)]
#[must_use]
pub struct StreamSpec {
    capacity: u64,
    grain: u64,
    adapter: AdapterType,
    hardware_version: u32,
    name: String,
    level: u32,
    cid: Option<Cid>,
    descriptor: Option<Descriptor>,
}

impl StreamSpec {
    /// A disk of `capacity` bytes for an LSI Logic adapter.
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            grain: DEFAULT_GRAIN,
            adapter: AdapterType::LsiLogic,
            hardware_version: NewDescriptor::DEFAULT_HARDWARE_VERSION,
            name: "call-me-stream.vmdk".to_owned(),
            level: DEFAULT_LEVEL,
            cid: None,
            descriptor: None,
        }
    }

    /// Sets the adapter that the geometry is made for.
    pub fn adapter_type(mut self, adapter: AdapterType) -> Self {
        self.adapter = adapter;
        self
    }

    /// Sets the virtual hardware version.
    pub fn hardware_version(mut self, version: u32) -> Self {
        self.hardware_version = version;
        self
    }

    /// Sets the file name in the descriptor's extent line, and the stream's name in errors. It means nothing to
    /// readers of a stream.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets deflate's level, 0 (stored) to 12. 1 unless set: the network is seldom faster than level 1 on one core.
    pub fn level(mut self, level: u32) -> Self {
        self.level = level;
        self
    }

    /// Sets the bytes of a grain: a power of two from 8 KiB to 1 MiB. 64 KiB unless set, which is what vSphere
    /// writes and the only size that every program reads.
    pub fn grain_bytes(mut self, bytes: u64) -> Self {
        self.grain = bytes;
        self
    }

    /// Sets the content id, instead of a random one or that of the [given descriptor](Self::descriptor).
    pub fn cid(mut self, cid: Cid) -> Self {
        self.cid = Some(cid);
        self
    }

    /// Takes this descriptor instead of a new one. Its `createType` and extent line are set to what the stream is.
    pub fn descriptor(mut self, descriptor: Descriptor) -> Self {
        self.descriptor = Some(descriptor);
        self
    }

    /// Chooses the content id now, so that this specification gives the same stream each time.
    #[cfg(feature = "ova")]
    pub(crate) fn with_chosen_cid(mut self) -> Self {
        if self.descriptor.is_none() {
            self.cid = self.cid.or_else(|| Some(Cid::random()));
        }
        self
    }

    pub(super) fn packing(&self) -> Packing {
        Packing { capacity: self.capacity, grain: self.grain, level: self.level }
    }

    pub(super) fn stream_name(&self) -> &str {
        &self.name
    }

    /// The checked header and the descriptor's text.
    pub(super) fn head(&self) -> Result<(SparseHeader, Vec<u8>)> {
        if self.capacity == 0 || !self.capacity.is_multiple_of(SECTOR) || self.capacity > MAX_CAPACITY {
            return Err(Error::invalid("capacity", format!("{} bytes", self.capacity)));
        }
        if !self.grain.is_power_of_two() || !(MIN_GRAIN..=MAX_GRAIN).contains(&self.grain) {
            let problem = format!("{} bytes are no power of two from {MIN_GRAIN} to {MAX_GRAIN}", self.grain);
            return Err(Error::invalid("grain size", problem));
        }
        let descriptor = self.build_descriptor()?.to_bytes();
        if descriptor.len() > MAX_DESCRIPTOR_BYTES {
            return Err(Error::invalid("descriptor", format!("{} bytes", descriptor.len())));
        }
        let descriptor_sectors = (descriptor.len() as u64).div_ceil(SECTOR).max(DESCRIPTOR_SECTORS);
        let header = SparseHeader {
            // Some releases of ESXi refuse streams with an older header.
            version: 3,
            flags: SparseFlags(SparseFlags::NEWLINE_TEST | SparseFlags::COMPRESSED | SparseFlags::MARKERS),
            capacity_sectors: self.capacity / SECTOR,
            grain_sectors: self.grain / SECTOR,
            descriptor_sector: 1,
            descriptor_sectors,
            redundant_directory_sector: 0,
            directory_sector: SparseHeader::DIRECTORY_AT_END,
            overhead_sectors: (1 + descriptor_sectors).next_multiple_of(self.grain / SECTOR),
            unclean_shutdown: false,
            compression: 1,
        };
        Ok((header, descriptor))
    }

    fn build_descriptor(&self) -> Result<Descriptor> {
        let extent = ExtentLine::new(ExtentType::Sparse, self.capacity / SECTOR, self.name.clone());
        let mut descriptor = match &self.descriptor {
            Some(given) => {
                let mut descriptor = given.clone();
                descriptor.set_value("createType", CreateType::StreamOptimized.name())?;
                descriptor.set_extents(&[extent])?;
                descriptor
            }
            None => NewDescriptor::new(CreateType::StreamOptimized, vec![extent])
                .adapter(self.adapter.clone())
                .hardware_version(self.hardware_version)
                .build()?,
        };
        if let Some(cid) = self.cid {
            descriptor.set_value("CID", &cid.to_string())?;
            // It would have to agree with the CID in its last digits, and to be random in the others.
            descriptor.ddb_remove("longContentID");
        }
        Ok(descriptor)
    }
}

/// What packing grains depends on: the checked part of a [`StreamSpec`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Packing {
    pub(super) capacity: u64,
    /// Bytes of a grain.
    pub(super) grain: u64,
    pub(super) level: u32,
}

/// Bytes of a grain when nobody sets it.
const DEFAULT_GRAIN: u64 = 64 << 10;
/// The technical note wants more than 8 sectors.
const MIN_GRAIN: u64 = 8 << 10;
/// Bounds the memory of writers; nothing gains from larger grains.
const MAX_GRAIN: u64 = 1 << 20;

/// Deflate's level when nobody sets one.
const DEFAULT_LEVEL: u32 = 1;

/// Room for the descriptor that every program leaves.
const DESCRIPTOR_SECTORS: u64 = 20;
