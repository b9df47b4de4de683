//! The header of hosted sparse extents (`KDMV`), little endian, all sizes in sectors.
//!
//! Facts: VMware's "Virtual Disk Format 5.0" technical note; the flag of zeroed grains and the split of the
//! flags into compatible (low) and incompatible (high) halves are from QEMU and open-vmdk.

use super::field::{u32_at, u64_at};
use crate::{
    SECTOR,
    error::{Error, Result},
};

/// Size of the encoded header.
pub const HEADER_BYTES: usize = 512;

/// Entries of a grain table; the format allows no other number.
pub const ENTRIES_PER_TABLE: u32 = 512;

/// Size of a grain table in the file.
pub const TABLE_BYTES: u64 = ENTRIES_PER_TABLE as u64 * 4;

/// Largest grain directory that is read, in entries (64 MiB): 62 TB with grains of 8 KiB need 15.5 million.
pub const MAX_DIRECTORY_ENTRIES: u64 = 16 << 20;

/// Largest grain that is accepted, in sectors (32 MiB); bounds the buffer of a partial grain write.
const MAX_GRAIN_SECTORS: u64 = 1 << 16;

/// Smallest grain that is accepted, in sectors. The technical note wants more than 8.
const MIN_GRAIN_SECTORS: u64 = 8;

const NEWLINES: [u8; 4] = *b"\n \r\n";

/// Flag bits of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SparseFlags(pub u32);

impl SparseFlags {
    /// The newline bytes of the header can be tested.
    pub const NEWLINE_TEST: u32 = 1;
    /// The redundant grain directory is kept.
    pub const REDUNDANT_DIRECTORY: u32 = 1 << 1;
    /// Table entry 1 means a grain of zeros.
    pub const ZEROED_GRAINS: u32 = 1 << 2;
    /// Grains are compressed.
    pub const COMPRESSED: u32 = 1 << 16;
    /// Grains and metadata are preceded by markers.
    pub const MARKERS: u32 = 1 << 17;

    /// Whether all bits of `mask` are set.
    pub fn has(self, mask: u32) -> bool {
        self.0 & mask == mask
    }
}

/// A checked header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SparseHeader {
    /// Header version, 1 to 3.
    pub version: u32,
    /// Flag bits.
    pub flags: SparseFlags,
    /// Size of the extent in sectors.
    pub capacity_sectors: u64,
    /// Size of a grain in sectors, a power of two.
    pub grain_sectors: u64,
    /// Where the embedded descriptor starts, in sectors; 0 when there is none.
    pub descriptor_sector: u64,
    /// Room for the embedded descriptor in sectors.
    pub descriptor_sectors: u64,
    /// Where the redundant grain directory starts, in sectors.
    pub redundant_directory_sector: u64,
    /// Where the grain directory starts, in sectors.
    pub directory_sector: u64,
    /// Sectors of metadata before the first grain.
    pub overhead_sectors: u64,
    /// The extent was not closed after the last write.
    pub unclean_shutdown: bool,
    /// 0 for none, 1 for deflate.
    pub compression: u16,
}

impl SparseHeader {
    /// `gdOffset` of streams, whose directory is known only at their end.
    pub const DIRECTORY_AT_END: u64 = u64::MAX;

    /// Bytes of the encoded header that have a meaning; the rest is padding.
    pub const FIELD_BYTES: usize = 79;

    /// Offset of the unclean-shutdown byte in the header.
    pub const UNCLEAN_OFFSET: u64 = 72;

    /// Reads and checks a header; `object` names the file in errors.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a field that contradicts the format, [`Error::NotSupported`] for newer
    /// versions and unknown incompatible flags.
    pub fn parse(bytes: &[u8; HEADER_BYTES], object: &str) -> Result<Self> {
        let bad = |problem: String| Err(Error::malformed(object, format!("sparse header: {problem}")));
        if !bytes.starts_with(b"KDMV") {
            return bad("no KDMV magic".to_owned());
        }
        let header = Self {
            version: u32_at(bytes, 4),
            flags: SparseFlags(u32_at(bytes, 8)),
            capacity_sectors: u64_at(bytes, 12),
            grain_sectors: u64_at(bytes, 20),
            descriptor_sector: u64_at(bytes, 28),
            descriptor_sectors: u64_at(bytes, 36),
            redundant_directory_sector: u64_at(bytes, 48),
            directory_sector: u64_at(bytes, 56),
            overhead_sectors: u64_at(bytes, 64),
            unclean_shutdown: bytes[72] != 0,
            compression: u16::from_le_bytes([bytes[77], bytes[78]]),
        };
        if !(1..=3).contains(&header.version) {
            let format = format!("sparse header version {}", header.version);
            return Err(Error::not_supported(object, format, "only versions 1 to 3 are known"));
        }
        const KNOWN_INCOMPATIBLE: u32 = SparseFlags::COMPRESSED | SparseFlags::MARKERS;
        let unknown = header.flags.0 & 0xffff_0000 & !KNOWN_INCOMPATIBLE;
        if unknown != 0 {
            let format = format!("sparse header with flags {unknown:#010x}");
            return Err(Error::not_supported(object, format, "unknown incompatible flags"));
        }
        if !Self::kept_newlines(bytes) {
            return bad("the newline bytes are changed: the file went through a text-mode transfer".to_owned());
        }
        let entries = u32_at(bytes, 44);
        if entries != ENTRIES_PER_TABLE {
            return bad(format!("{entries} entries a grain table instead of {ENTRIES_PER_TABLE}"));
        }
        if !header.grain_sectors.is_power_of_two()
            || !(MIN_GRAIN_SECTORS..=MAX_GRAIN_SECTORS).contains(&header.grain_sectors)
        {
            return bad(format!("a grain size of {} sectors", header.grain_sectors));
        }
        if header.capacity_sectors > i64::MAX as u64 / SECTOR {
            return bad(format!("a capacity of {} sectors", header.capacity_sectors));
        }
        if header.compression > 1 {
            let format = format!("compression {}", header.compression);
            return Err(Error::not_supported(object, format, "only deflate is known"));
        }
        Ok(header)
    }

    /// Whether the bytes that a text-mode transfer would change are as written, or were never there to test.
    pub fn kept_newlines(bytes: &[u8; HEADER_BYTES]) -> bool {
        !SparseFlags(u32_at(bytes, 8)).has(SparseFlags::NEWLINE_TEST) || bytes[73..77] == NEWLINES
    }

    /// Writes the header.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(b"KDMV");
        bytes[4..8].copy_from_slice(&self.version.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.flags.0.to_le_bytes());
        bytes[44..48].copy_from_slice(&ENTRIES_PER_TABLE.to_le_bytes());
        let wide = [
            (12, self.capacity_sectors),
            (20, self.grain_sectors),
            (28, self.descriptor_sector),
            (36, self.descriptor_sectors),
            (48, self.redundant_directory_sector),
            (56, self.directory_sector),
            (64, self.overhead_sectors),
        ];
        for (at, value) in wide {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        bytes[72] = u8::from(self.unclean_shutdown);
        bytes[73..77].copy_from_slice(&NEWLINES);
        bytes[77..79].copy_from_slice(&self.compression.to_le_bytes());
        bytes
    }

    /// Whether grains are compressed or preceded by markers.
    pub fn is_stream_optimized(&self) -> bool {
        self.flags.0 & (SparseFlags::COMPRESSED | SparseFlags::MARKERS) != 0
            || self.compression != 0
            || self.directory_sector == Self::DIRECTORY_AT_END
    }

    /// Number of grains of the disk, the last one perhaps cut by its end.
    pub fn grain_count(&self) -> u64 {
        self.capacity_sectors.div_ceil(self.grain_sectors)
    }

    /// Number of entries of the grain directory: one for each table.
    pub fn directory_entries(&self) -> u64 {
        self.capacity_sectors.div_ceil(self.grain_sectors * u64::from(ENTRIES_PER_TABLE))
    }

    /// Checks a directory that starts at `sector` against the size of the file and returns where it is, in
    /// bytes.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it does not lie inside the file, [`Error::NotSupported`] when it is larger
    /// than [`MAX_DIRECTORY_ENTRIES`].
    pub fn directory_offset(&self, sector: u64, file_len: u64, object: &str) -> Result<u64> {
        let entries = self.directory_entries();
        if entries > MAX_DIRECTORY_ENTRIES {
            return Err(Error::not_supported(
                object,
                "a grain directory of this size",
                "more than 16 million grain tables",
            ));
        }
        sector
            .checked_mul(SECTOR)
            .filter(|offset| sector != 0 && offset.checked_add(entries * 4).is_some_and(|end| end <= file_len))
            .ok_or_else(|| {
                let problem = format!(
                    "sparse header: {entries} directory entries at sector {sector} do not fit in {file_len} bytes"
                );
                Error::malformed(object, problem)
            })
    }

    /// Where the embedded descriptor is, in bytes; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it does not lie inside the file or is absurdly large.
    pub fn descriptor_range(&self, file_len: u64, object: &str) -> Result<Option<std::ops::Range<u64>>> {
        if self.descriptor_sector == 0 || self.descriptor_sectors == 0 {
            return Ok(None);
        }
        let range = self.descriptor_sector.checked_mul(SECTOR).and_then(|start| {
            let len = self.descriptor_sectors.checked_mul(SECTOR)?;
            let end = start.checked_add(len)?;
            (len <= crate::descriptor::MAX_DESCRIPTOR_BYTES as u64 && end <= file_len).then_some(start..end)
        });
        range.map(Some).ok_or_else(|| {
            let problem = format!(
                "sparse header: {} sectors of descriptor at sector {} do not fit",
                self.descriptor_sectors, self.descriptor_sector
            );
            Error::malformed(object, problem)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SparseHeader {
        SparseHeader {
            version: 1,
            flags: SparseFlags(SparseFlags::NEWLINE_TEST | SparseFlags::REDUNDANT_DIRECTORY),
            capacity_sectors: 131_073,
            grain_sectors: 128,
            descriptor_sector: 1,
            descriptor_sectors: 20,
            redundant_directory_sector: 21,
            directory_sector: 34,
            overhead_sectors: 128,
            unclean_shutdown: false,
            compression: 0,
        }
    }

    #[test]
    fn encode_and_parse_are_inverse() {
        let header = header();
        assert_eq!(SparseHeader::parse(&header.encode(), "x").unwrap(), header);
        assert_eq!(header.directory_entries(), 3);
    }

    #[test]
    fn every_bad_field_is_refused() {
        let refuse = |change: &dyn Fn(&mut [u8; HEADER_BYTES])| {
            let mut bytes = header().encode();
            change(&mut bytes);
            assert!(SparseHeader::parse(&bytes, "x").is_err());
        };
        refuse(&|bytes| bytes[0] = b'k');
        refuse(&|bytes| bytes[4] = 4);
        refuse(&|bytes| bytes[10] = 4);
        refuse(&|bytes| bytes[20] = 127);
        refuse(&|bytes| bytes[20..28].fill(0));
        refuse(&|bytes| bytes[22] = 2);
        refuse(&|bytes| bytes[12..20].fill(0xff));
        refuse(&|bytes| bytes[45] = 1);
        refuse(&|bytes| bytes[75] = b'\n');
        refuse(&|bytes| bytes[77] = 2);
    }

    #[test]
    fn directories_and_descriptors_must_lie_inside_the_file() {
        let header = header();
        assert_eq!(header.directory_offset(34, 65536, "x").unwrap(), 34 * 512);
        for sector in [0, 200, u64::MAX, u64::MAX / 512] {
            assert!(header.directory_offset(sector, 65536, "x").is_err(), "{sector}");
        }
        assert_eq!(header.descriptor_range(65536, "x").unwrap(), Some(512..21 * 512));
        assert!(header.descriptor_range(1024, "x").is_err());
        let huge = SparseHeader { descriptor_sectors: u64::MAX / 2, ..header.clone() };
        assert!(huge.descriptor_range(u64::MAX, "x").is_err());
        let wide = SparseHeader { capacity_sectors: u64::MAX >> 10, ..header };
        assert!(matches!(wide.directory_offset(34, u64::MAX, "x"), Err(Error::NotSupported { .. })));
    }
}
