//! Writing a stream, front to back.

use std::io::Write;

use flate2::{Compress, Compression, FlushCompress, Status};

use super::GRAIN;
use crate::{
    SECTOR,
    create::MAX_CAPACITY,
    descriptor::{AdapterType, CreateType, Descriptor, ExtentLine, ExtentType, NewDescriptor},
    error::{Error, Result},
    layout::{ENTRIES_PER_TABLE, Marker, MetadataKind, SparseFlags, SparseHeader, TABLE_BYTES},
};

/// What the stream's disk is.
#[derive(Debug, Clone)]
#[must_use]
pub struct StreamSpec {
    capacity: u64,
    adapter: AdapterType,
    hardware_version: u32,
    name: String,
    level: u32,
    descriptor: Option<Descriptor>,
}

impl StreamSpec {
    /// A disk of `capacity` bytes for an LSI Logic adapter.
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            adapter: AdapterType::LsiLogic,
            hardware_version: NewDescriptor::DEFAULT_HARDWARE_VERSION,
            name: "call-me-stream.vmdk".to_owned(),
            level: DEFAULT_LEVEL,
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

    /// Sets the file name in the descriptor's extent line. It means nothing to readers of a stream.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets deflate's level, 0 (stored) to 9. 1: the network is seldom faster than level 1 on one core.
    pub fn level(mut self, level: u32) -> Self {
        self.level = level.min(9);
        self
    }

    /// Takes this descriptor instead of a new one. Its `createType` and extent line are set to what the stream is.
    pub fn descriptor(mut self, descriptor: Descriptor) -> Self {
        self.descriptor = Some(descriptor);
        self
    }

    fn build_descriptor(&self) -> Result<Vec<u8>> {
        let extent = ExtentLine::new(ExtentType::Sparse, self.capacity / SECTOR, self.name.clone());
        let descriptor = match &self.descriptor {
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
        Ok(descriptor.to_bytes())
    }
}

/// Writes a `streamOptimized` disk to a sink that cannot seek.
///
/// Data are given in ascending order; what is left out reads as zero, and grains of zeros take no space. Memory: one
/// grain, one table, and 4 bytes for each 32 MiB of disk.
#[derive(Debug)]
pub struct StreamWriter<W> {
    sink: Sink<W>,
    header: SparseHeader,
    deflate: Compress,
    stored: Compress,
    packed: Vec<u8>,
    /// The grain being filled, by its number.
    grain: Vec<u8>,
    number: u64,
    /// Nothing below this offset may come any more.
    next: u64,
    table: Vec<u32>,
    directory: Vec<u32>,
}

impl<W: Write> StreamWriter<W> {
    /// Begins a stream: writes its header and descriptor.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a capacity that is no multiple of 512 or larger than
    /// [`MAX_CAPACITY`], and for a descriptor of more than 4 MiB; the sink's errors.
    pub fn new(sink: W, spec: &StreamSpec) -> Result<Self> {
        if spec.capacity == 0 || !spec.capacity.is_multiple_of(SECTOR) || spec.capacity > MAX_CAPACITY {
            return Err(Error::invalid("capacity", format!("{} bytes", spec.capacity)));
        }
        let descriptor = spec.build_descriptor()?;
        if descriptor.len() > crate::descriptor::MAX_DESCRIPTOR_BYTES {
            return Err(Error::invalid("descriptor", format!("{} bytes", descriptor.len())));
        }
        let descriptor_sectors = (descriptor.len() as u64).div_ceil(SECTOR).max(DESCRIPTOR_SECTORS);
        let header = SparseHeader {
            version: 3,
            flags: SparseFlags(SparseFlags::NEWLINE_TEST | SparseFlags::COMPRESSED | SparseFlags::MARKERS),
            capacity_sectors: spec.capacity / SECTOR,
            grain_sectors: GRAIN / SECTOR,
            descriptor_sector: 1,
            descriptor_sectors,
            redundant_directory_sector: 0,
            directory_sector: SparseHeader::DIRECTORY_AT_END,
            overhead_sectors: (1 + descriptor_sectors).next_multiple_of(GRAIN / SECTOR),
            unclean_shutdown: false,
            compression: 1,
        };
        let mut sink = Sink { inner: sink, name: spec.name.clone(), at: 0 };
        sink.write(&header.encode())?;
        sink.write(&descriptor)?;
        sink.pad_to(header.overhead_sectors * SECTOR)?;
        Ok(Self {
            sink,
            deflate: Compress::new(Compression::new(spec.level), true),
            stored: Compress::new(Compression::none(), true),
            packed: Vec::with_capacity(GRAIN as usize * 2),
            grain: vec![0; GRAIN as usize],
            number: 0,
            next: 0,
            table: vec![0; ENTRIES_PER_TABLE as usize],
            directory: vec![0; header.directory_entries() as usize],
            header,
        })
    }

    /// Writes `data` at `offset` of the disk; offsets must not go back.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] beyond the disk's end, [`Error::InvalidInput`] when `offset` lies before the end of what
    /// was written, [`Error::NotSupported`] when the stream grows beyond 2 TiB, and the sink's errors.
    pub fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        let (capacity, len) = (self.header.capacity_sectors * SECTOR, data.len() as u64);
        let end = offset.checked_add(len).filter(|end| *end <= capacity);
        let Some(end) = end else {
            return Err(Error::OutOfRange { operation: "write", offset, len, capacity });
        };
        if offset < self.next {
            let problem = format!("{offset} lies before {}, and a stream cannot go back", self.next);
            return Err(Error::invalid("offset", problem));
        }
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let number = at / GRAIN;
            if number != self.number {
                self.close_grain(number)?;
            }
            let within = (at % GRAIN) as usize;
            let taken = rest.len().min(GRAIN as usize - within);
            self.grain[within..within + taken].copy_from_slice(&rest[..taken]);
            (at, rest) = (at + taken as u64, &rest[taken..]);
        }
        self.next = end;
        Ok(())
    }

    /// Writes the tables and the end marker, flushes the sink and gives it back.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn finish(mut self) -> Result<W> {
        // A number that lies behind the last table closes that one too.
        let tables = self.directory.len() as u64;
        self.close_grain(tables * u64::from(ENTRIES_PER_TABLE))?;
        let directory: Vec<u8> = self.directory.iter().flat_map(|sector| sector.to_le_bytes()).collect();
        let sector = self.sink.metadata(MetadataKind::Directory, &directory)?;
        let footer = SparseHeader { directory_sector: sector, ..self.header };
        self.sink.metadata(MetadataKind::Footer, &footer.encode())?;
        self.sink.write(&Marker::EndOfStream.encode())?;
        self.sink.inner.flush().map_err(|error| Error::io("flush", &self.sink.name, None, error))?;
        Ok(self.sink.inner)
    }

    /// Size of the disk in bytes.
    pub fn capacity(&self) -> u64 {
        self.header.capacity_sectors * SECTOR
    }

    /// Bytes written to the sink so far.
    pub fn bytes_written(&self) -> u64 {
        self.sink.at
    }

    /// The sink, to take finished pieces out of a `Vec` while the stream grows. Bytes may be taken, not added.
    pub fn sink_mut(&mut self) -> &mut W {
        &mut self.sink.inner
    }

    /// Writes the grain being filled, and with it the table when `next` belongs to another.
    fn close_grain(&mut self, next: u64) -> Result<()> {
        let entries = u64::from(ENTRIES_PER_TABLE);
        if self.grain.iter().any(|byte| *byte != 0) {
            let sector = self.sink.sector()?;
            self.pack()?;
            let marker = Marker::Grain {
                sector: self.number * (GRAIN / SECTOR),
                // At most some bytes above a grain.
                compressed_bytes: self.packed.len() as u32,
            };
            self.sink.write(&marker.encode())?;
            self.sink.write(&self.packed)?;
            self.sink.pad_to(self.sink.at.next_multiple_of(SECTOR))?;
            self.table[(self.number % entries) as usize] = sector;
            self.grain.fill(0);
        }
        if next / entries != self.number / entries {
            if self.table.iter().any(|entry| *entry != 0) {
                let bytes: Vec<u8> = self.table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
                debug_assert_eq!(bytes.len() as u64, TABLE_BYTES);
                let sector = self.sink.metadata(MetadataKind::Table, &bytes)?;
                // Checked when the marker before it was placed.
                self.directory[(self.number / entries) as usize] = sector as u32;
            }
            self.table.fill(0);
        }
        self.number = next;
        Ok(())
    }

    /// Compresses the grain; one that would grow is stored, which every inflater reads alike.
    fn pack(&mut self) -> Result<()> {
        for deflate in [&mut self.deflate, &mut self.stored] {
            self.packed.clear();
            deflate.reset();
            let status = deflate.compress_vec(&self.grain, &mut self.packed, FlushCompress::Finish);
            match status {
                Ok(Status::StreamEnd) if self.packed.len() <= self.grain.len() => return Ok(()),
                // The last try is the one that stores: a few bytes more than a grain.
                Ok(Status::StreamEnd) => {}
                Ok(_) | Err(_) => {
                    let refused = std::io::Error::other("deflate did not finish a grain");
                    return Err(Error::io("compress", &self.sink.name, Some(self.number * GRAIN), refused));
                }
            }
        }
        Ok(())
    }
}

/// Counts what goes out.
#[derive(Debug)]
struct Sink<W> {
    inner: W,
    name: String,
    at: u64,
}

impl<W: Write> Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner.write_all(bytes).map_err(|error| Error::io("write", &self.name, Some(self.at), error))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn pad_to(&mut self, end: u64) -> Result<()> {
        let zeros = [0; SECTOR as usize];
        while self.at < end {
            let len = (end - self.at).min(SECTOR) as usize;
            self.write(&zeros[..len])?;
        }
        Ok(())
    }

    /// Writes a marker and what it announces; returns the sector of the latter.
    fn metadata(&mut self, kind: MetadataKind, bytes: &[u8]) -> Result<u64> {
        let sectors = (bytes.len() as u64).div_ceil(SECTOR);
        self.write(&Marker::Metadata { kind, sectors }.encode())?;
        let sector = self.sector()?;
        self.write(bytes)?;
        self.pad_to(self.at.next_multiple_of(SECTOR))?;
        Ok(u64::from(sector))
    }

    /// The present sector: tables have 32 bits for it.
    fn sector(&self) -> Result<u32> {
        u32::try_from(self.at / SECTOR).map_err(|_| {
            Error::not_supported(&self.name, "a stream above 2 TiB", "sector numbers of its tables have 32 bits")
        })
    }
}

/// Deflate's level when nobody sets one.
const DEFAULT_LEVEL: u32 = 1;

/// Room for the descriptor that every program leaves.
const DESCRIPTOR_SECTORS: u64 = 20;
