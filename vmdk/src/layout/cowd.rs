//! The header of ESXi redo logs (`COWD`, `vmfsSparse`), little endian, all sizes in sectors.
//!
//! A directory of 32-bit sector numbers follows the header; each entry points to a table of 4096 entries; tables and
//! grains are appended as they are first written. There is no second directory, and 0 is the only special entry:
//! the grain is the parent's. Facts: VMware's "Virtual Disk Format 5.0" technical note.

use std::ops::Range;

use super::field::u32_at;
use crate::{
    SECTOR,
    error::{Error, Result},
};

/// Size of the encoded header: four sectors.
pub const COWD_HEADER_BYTES: usize = 2048;

/// Entries of a grain table; the format allows no other number.
pub const COWD_ENTRIES_PER_TABLE: u32 = 4096;

/// Largest grain of the format, in sectors (1 MiB).
const MAX_GRAIN_SECTORS: u32 = 2048;

/// First sector that is not of the header. No directory, table or grain is before it.
const HEADER_SECTORS: u32 = (COWD_HEADER_BYTES as u64 / SECTOR) as u32;

const VERSION: u32 = 1;

/// A checked header.
///
/// `flags` is 3 in every known image; what its bits mean is not public, so it is kept and not judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CowdHeader {
    /// Flag bits.
    pub flags: u32,
    /// Size of the extent in sectors.
    pub capacity_sectors: u32,
    /// Size of a grain in sectors, a power of two; 1 in what ESXi writes.
    pub grain_sectors: u32,
    /// Where the grain directory starts, in sectors.
    pub directory_sector: u32,
    /// Room of the grain directory, in entries; may be more than the capacity needs.
    pub directory_capacity: u32,
    /// The sector after the last one in use: where the next table or grain goes.
    pub free_sector: u32,
    /// Name of the parent as written by old hosts; empty today, the descriptor names the parent.
    pub parent_file_name: Vec<u8>,
    /// Generation of the redo log, kept and not judged.
    pub generation: u32,
    /// The extent was not closed after the last write.
    pub unclean_shutdown: bool,
}

impl CowdHeader {
    /// Reads and checks a header; `object` names the file in errors.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a field that contradicts the format, [`Error::NotSupported`] for another version.
    pub fn parse(bytes: &[u8; COWD_HEADER_BYTES], object: &str) -> Result<Self> {
        let bad = |problem: String| Err(Error::malformed(object, format!("COWD header: {problem}")));
        if !bytes.starts_with(b"COWD") {
            return bad("no COWD magic".to_owned());
        }
        let version = u32_at(bytes, 4);
        if version != VERSION {
            let format = format!("COWD header version {version}");
            return Err(Error::not_supported(object, format, "only version 1 is known"));
        }
        let name = &bytes[PARENT_NAME];
        let header = Self {
            flags: u32_at(bytes, 8),
            capacity_sectors: u32_at(bytes, 12),
            grain_sectors: u32_at(bytes, 16),
            directory_sector: u32_at(bytes, 20),
            directory_capacity: u32_at(bytes, 24),
            free_sector: u32_at(bytes, 28),
            // A disk without a parent has its geometry there, binary: that is no text. A name ends with a NUL.
            parent_file_name: text_before_nul(name).unwrap_or_default().to_vec(),
            generation: u32_at(bytes, GENERATION),
            unclean_shutdown: u32_at(bytes, UNCLEAN) != 0,
        };
        if !header.grain_sectors.is_power_of_two() || header.grain_sectors > MAX_GRAIN_SECTORS {
            return bad(format!("a grain size of {} sectors", header.grain_sectors));
        }
        if header.directory_sector < HEADER_SECTORS {
            return bad(format!("a grain directory at sector {}, inside of the header", header.directory_sector));
        }
        if u64::from(header.directory_capacity) < header.directory_entries() {
            let problem = format!(
                "{} directory entries where a capacity of {} sectors needs {}",
                header.directory_capacity,
                header.capacity_sectors,
                header.directory_entries()
            );
            return bad(problem);
        }
        Ok(header)
    }

    /// Writes the header.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a parent's name that does not fit.
    pub fn encode(&self) -> Result<[u8; COWD_HEADER_BYTES]> {
        let mut bytes = [0; COWD_HEADER_BYTES];
        bytes[..4].copy_from_slice(b"COWD");
        let words = [
            (4, VERSION),
            (8, self.flags),
            (12, self.capacity_sectors),
            (16, self.grain_sectors),
            (20, self.directory_sector),
            (24, self.directory_capacity),
            (28, self.free_sector),
            (GENERATION, self.generation),
            (UNCLEAN, u32::from(self.unclean_shutdown)),
        ];
        for (at, value) in words {
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let name = &self.parent_file_name;
        // One byte stays NUL.
        if name.len() >= PARENT_NAME.len() || !is_text(name) {
            return Err(Error::invalid("name of a COWD parent", String::from_utf8_lossy(name)));
        }
        bytes[PARENT_NAME][..name.len()].copy_from_slice(name);
        Ok(bytes)
    }

    /// Size in bytes.
    pub fn capacity(&self) -> u64 {
        u64::from(self.capacity_sectors) * SECTOR
    }

    /// Number of entries of the grain directory that the capacity needs: one for each table.
    pub fn directory_entries(&self) -> u64 {
        u64::from(self.capacity_sectors).div_ceil(u64::from(self.grain_sectors) * u64::from(COWD_ENTRIES_PER_TABLE))
    }

    /// Where the used part of the grain directory is, in bytes.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it does not lie inside a file of `file_len` bytes.
    pub fn directory_range(&self, file_len: u64, object: &str) -> Result<Range<u64>> {
        let start = u64::from(self.directory_sector) * SECTOR;
        let end = start + self.directory_entries() * 4;
        if end > file_len {
            let problem = format!(
                "COWD header: {} directory entries at sector {} do not fit in {file_len} bytes",
                self.directory_entries(),
                self.directory_sector
            );
            return Err(Error::malformed(object, problem));
        }
        Ok(start..end)
    }

    /// Whether a directory or table entry that is not 0 points behind the header.
    pub fn is_possible_sector(sector: u32) -> bool {
        sector >= HEADER_SECTORS
    }
}

const PARENT_NAME: Range<usize> = 32..32 + 1024;
const GENERATION: usize = 1060;
const UNCLEAN: usize = 1648;

fn text_before_nul(field: &[u8]) -> Option<&[u8]> {
    let end = field.iter().position(|&byte| byte == 0)?;
    Some(&field[..end]).filter(|name| is_text(name))
}

fn is_text(name: &[u8]) -> bool {
    name.iter().all(|&byte| byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> CowdHeader {
        CowdHeader {
            flags: 3,
            capacity_sectors: 3 * 4096 + 1,
            grain_sectors: 1,
            directory_sector: 4,
            directory_capacity: 128,
            free_sector: 5,
            parent_file_name: b"base.vmdk".to_vec(),
            generation: 7,
            unclean_shutdown: true,
        }
    }

    #[test]
    fn encode_and_parse_are_inverse() {
        let header = header();
        let bytes = header.encode().unwrap();
        assert_eq!(CowdHeader::parse(&bytes, "x").unwrap(), header);
        assert_eq!((header.directory_entries(), header.capacity()), (4, (3 * 4096 + 1) * 512));
        let root = CowdHeader { parent_file_name: Vec::new(), ..header };
        assert_eq!(CowdHeader::parse(&root.encode().unwrap(), "x").unwrap(), root);
    }

    #[test]
    fn the_geometry_of_a_base_disk_is_no_name() {
        let mut bytes = CowdHeader { parent_file_name: Vec::new(), ..header() }.encode().unwrap();
        bytes[32] = 10;
        bytes[36] = 255;
        assert!(CowdHeader::parse(&bytes, "x").unwrap().parent_file_name.is_empty());
    }

    #[test]
    fn a_name_without_an_end_is_no_name() {
        let mut bytes = header().encode().unwrap();
        bytes[PARENT_NAME].fill(b'-');
        let read = CowdHeader::parse(&bytes, "x").unwrap();
        assert!(read.parent_file_name.is_empty());
        assert_eq!(CowdHeader::parse(&read.encode().unwrap(), "x").unwrap(), read);
    }

    #[test]
    fn every_bad_field_is_refused() {
        let refuse = |at: usize, value: u32| {
            let mut bytes = header().encode().unwrap();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            assert!(CowdHeader::parse(&bytes, "x").is_err(), "{value:#x} at {at}");
        };
        refuse(0, 0x4457_4f44);
        refuse(4, 0);
        refuse(4, 2);
        for grain in [0, 3, 4096, u32::MAX] {
            refuse(16, grain);
        }
        refuse(12, u32::MAX);
        refuse(20, 3);
        refuse(24, 3);
    }

    #[test]
    fn the_directory_must_lie_inside_the_file() {
        let header = header();
        assert_eq!(header.directory_range(2064, "x").unwrap(), 2048..2064);
        assert!(header.directory_range(2063, "x").is_err());
        let far = CowdHeader { directory_sector: u32::MAX, ..header };
        assert!(far.directory_range(1 << 40, "x").is_err());
    }

    #[test]
    fn a_name_that_does_not_fit_is_not_written() {
        for name in [vec![b'a'; 1024], b"a\nb".to_vec(), b"a\0b".to_vec()] {
            assert!(CowdHeader { parent_file_name: name, ..header() }.encode().is_err());
        }
    }
}
