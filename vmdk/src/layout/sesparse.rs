//! Space-efficient sparse extents (`seSparse`) of VMFS-6, little endian, all sizes in sectors.
//!
//! VMware has not published the format. Facts: QEMU's and Xen Orchestra's readers, which agree. A constant header
//! in sector 0 places everything; a volatile header says whether a journal must be replayed. The directory has
//! one 64-bit entry for each table, each table 4096 64-bit entries for grains of 4 KiB. Directory and table
//! entries hold indices into areas, not sectors.

use std::ops::Range;

use super::field::u64_at;
use crate::{
    SECTOR,
    error::{Error, Result},
};

/// Size of the constant header, and of the volatile one.
pub const SESPARSE_HEADER_BYTES: usize = 512;

/// Entries of a grain table.
pub const SESPARSE_ENTRIES_PER_TABLE: u32 = 4096;

/// Size of a grain in sectors (4 KiB). VMware's API names other sizes; none was ever seen.
pub const SESPARSE_GRAIN_SECTORS: u64 = 8;

/// Size of a grain table in sectors.
const TABLE_SECTORS: u64 = SESPARSE_ENTRIES_PER_TABLE as u64 * ENTRY_BYTES / SECTOR;

const ENTRY_BYTES: u64 = 8;

/// Sectors of the disk under one grain table (16 MiB).
const TABLE_SPAN_SECTORS: u64 = SESPARSE_ENTRIES_PER_TABLE as u64 * SESPARSE_GRAIN_SECTORS;

const MAGIC: u64 = 0xcafe_babe;
const VOLATILE_MAGIC: u64 = 0xcafe_cafe;
const VERSION: u64 = 0x2_0000_0001;

/// Largest file, in sectors.
const MAX_SECTORS: u64 = i64::MAX as u64 / SECTOR;

/// Largest capacity: directory entries number tables with 32 bits.
const MAX_CAPACITY_SECTORS: u64 = TABLE_SPAN_SECTORS << 32;

/// A part of the file, in sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// First sector.
    pub sector: u64,
    /// Number of sectors.
    pub sectors: u64,
}

/// The checked constant header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeSparseHeader {
    /// Size of the extent in sectors.
    pub capacity_sectors: u64,
    /// The volatile header.
    pub volatile_header: Area,
    /// The journal's header.
    pub journal_header: Area,
    /// The journal.
    pub journal: Area,
    /// The grain directory.
    pub directory: Area,
    /// All grain tables.
    pub tables: Area,
    /// Which grains are free.
    pub free_bitmap: Area,
    /// Which entry owns a grain.
    pub backmap: Area,
    /// All grains.
    pub grains: Area,
}

impl SeSparseHeader {
    /// Reads and checks the constant header; `object` names the file in errors.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a field that contradicts the format, [`Error::NotSupported`] for versions, sizes
    /// and flags that nobody has described.
    pub fn parse(bytes: &[u8; SESPARSE_HEADER_BYTES], object: &str) -> Result<Self> {
        let bad = |problem: String| Err(Error::malformed(object, format!("seSparse header: {problem}")));
        let unknown = |what: &str, value: u64| {
            let format = format!("a seSparse extent with {what} {value:#x}");
            Err(Error::not_supported(object, format, "nothing is known about it"))
        };
        if u64_at(bytes, 0) != MAGIC {
            return bad("no seSparse magic".to_owned());
        }
        for (at, known, what) in [
            (8, VERSION, "version"),
            (24, SESPARSE_GRAIN_SECTORS, "a grain size in sectors of"),
            (32, TABLE_SECTORS, "a table size in sectors of"),
            (40, 0, "flags"),
            (48, 0, "reserved field 1"),
            (56, 0, "reserved field 2"),
            (64, 0, "reserved field 3"),
            (72, 0, "reserved field 4"),
        ] {
            let value = u64_at(bytes, at);
            if value != known {
                return unknown(what, value);
            }
        }
        let area = |at| Area { sector: u64_at(bytes, at), sectors: u64_at(bytes, at + 8) };
        let header = Self {
            capacity_sectors: u64_at(bytes, 16),
            volatile_header: area(80),
            journal_header: area(96),
            journal: area(112),
            directory: area(128),
            tables: area(144),
            free_bitmap: area(160),
            backmap: area(176),
            grains: area(192),
        };
        if header.capacity_sectors > MAX_CAPACITY_SECTORS {
            return bad(format!("a capacity of {} sectors", header.capacity_sectors));
        }
        if let Some((name, area)) = header.areas().into_iter().find(|(_, area)| area.end().is_none()) {
            return bad(format!("the {name} has {} sectors at sector {}", area.sectors, area.sector));
        }
        // Of the journal, the bitmap and the back map a reader needs nothing; the others must not share a sector.
        let constant_header = Area { sector: 0, sectors: 1 };
        let mut used = [constant_header, header.volatile_header, header.directory, header.tables, header.grains];
        used.sort_unstable_by_key(|area| (area.sector, area.sectors));
        if let Some(pair) = used.windows(2).find(|pair| pair[0].end() > Some(pair[1].sector)) {
            return bad(format!("{:?} and {:?} overlap", pair[0], pair[1]));
        }
        if header.volatile_header.sectors == 0 {
            return bad("there is no volatile header".to_owned());
        }
        let room = header.directory.sectors.saturating_mul(SECTOR / ENTRY_BYTES);
        if room < header.directory_entries() {
            let needed = header.directory_entries();
            return bad(format!("room for {room} directory entries where the capacity needs {needed}"));
        }
        Ok(header)
    }

    /// Size in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity_sectors * SECTOR
    }

    /// Number of entries of the grain directory that the capacity needs: one for each table.
    pub fn directory_entries(&self) -> u64 {
        self.capacity_sectors.div_ceil(TABLE_SPAN_SECTORS)
    }

    /// Where the used part of the grain directory is, in bytes.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it does not lie inside a file of `file_len` bytes.
    pub fn directory_range(&self, file_len: u64, object: &str) -> Result<Range<u64>> {
        let start = self.directory.sector * SECTOR;
        let end = start.saturating_add(self.directory_entries() * ENTRY_BYTES);
        if end > file_len {
            let problem = format!(
                "seSparse header: {} directory entries at sector {} do not fit in {file_len} bytes",
                self.directory_entries(),
                self.directory.sector
            );
            return Err(Error::malformed(object, problem));
        }
        Ok(start..end)
    }

    /// Where a table starts, in bytes; `None` when it is outside of the area of the tables.
    pub fn table_offset(&self, index: u32) -> Option<u64> {
        let tables = self.tables.sectors / TABLE_SECTORS;
        (u64::from(index) < tables).then(|| (self.tables.sector + u64::from(index) * TABLE_SECTORS) * SECTOR)
    }

    /// Where a grain starts, in bytes; `None` when it is outside of the area of the grains.
    pub fn grain_offset(&self, index: u64) -> Option<u64> {
        let grains = self.grains.sectors.div_ceil(SESPARSE_GRAIN_SECTORS);
        (index < grains).then(|| (self.grains.sector + index * SESPARSE_GRAIN_SECTORS) * SECTOR)
    }

    fn areas(&self) -> [(&'static str, Area); 8] {
        [
            ("volatile header", self.volatile_header),
            ("journal header", self.journal_header),
            ("journal", self.journal),
            ("grain directory", self.directory),
            ("area of the grain tables", self.tables),
            ("free bitmap", self.free_bitmap),
            ("back map", self.backmap),
            ("area of the grains", self.grains),
        ]
    }
}

impl Area {
    /// First sector after the area; `None` when that is beyond any file.
    fn end(self) -> Option<u64> {
        self.sector.checked_add(self.sectors).filter(|&end| end <= MAX_SECTORS)
    }
}

/// The volatile header: what changes while the extent is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeSparseVolatileHeader {
    /// Number of the next table that is free.
    pub free_table: u64,
    /// Number of the next transaction.
    pub next_transaction: u64,
    /// The journal holds changes that directory and tables lack: the extent is in use, or its host died.
    pub replay_journal: bool,
}

impl SeSparseVolatileHeader {
    /// Reads the volatile header; `object` names the file in errors.
    ///
    /// # Errors
    /// [`Error::Malformed`] without its magic.
    pub fn parse(bytes: &[u8; SESPARSE_HEADER_BYTES], object: &str) -> Result<Self> {
        if u64_at(bytes, 0) != VOLATILE_MAGIC {
            return Err(Error::malformed(object, "seSparse volatile header: no magic"));
        }
        Ok(Self {
            free_table: u64_at(bytes, 8),
            next_transaction: u64_at(bytes, 16),
            replay_journal: u64_at(bytes, 24) != 0,
        })
    }
}

/// An entry of the grain directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeSparseDirectoryEntry {
    /// There is no table: all its grains are the parent's.
    None,
    /// The table with this index in the area of the tables.
    Table(u32),
}

impl SeSparseDirectoryEntry {
    /// Reads an entry; `None` for what the format does not allow.
    pub fn decode(entry: u64) -> Option<Self> {
        match (entry, entry >> 32) {
            (0, _) => Some(Self::None),
            (_, 0x1000_0000) => Some(Self::Table(entry as u32)),
            _ => None,
        }
    }
}

/// An entry of a grain table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeSparseEntry {
    /// Not stored: the parent's.
    Unallocated,
    /// The guest gave it back (SCSI UNMAP): reads as **zero**, whatever the parent has. The rest of the entry
    /// remembers the old grain.
    Unmapped,
    /// Zero.
    Zero,
    /// The grain with this index in the area of the grains.
    Grain(u64),
}

impl SeSparseEntry {
    /// Reads an entry; `None` for what the format does not allow.
    pub fn decode(entry: u64) -> Option<Self> {
        match entry >> 60 {
            0 if entry == 0 => Some(Self::Unallocated),
            1 => Some(Self::Unmapped),
            2 => Some(Self::Zero),
            // The low twelve bits of the index stand above the others.
            3 => Some(Self::Grain((entry >> 48 & 0xfff) | (entry & 0xffff_ffff_ffff) << 12)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As hostd logs it for a disk of 100 MiB.
    fn words() -> [u64; 64] {
        let mut words = [0; 64];
        let areas = [1, 1, 2, 2, 2048, 2048, 4096, 2048, 6144, 2048, 8192, 2048, 10240, 2048, 12288, 204_800];
        words[..5].copy_from_slice(&[MAGIC, VERSION, 204_800, 8, 64]);
        words[10..26].copy_from_slice(&areas);
        words
    }

    fn encode(words: &[u64; 64]) -> [u8; SESPARSE_HEADER_BYTES] {
        let mut bytes = [0; SESPARSE_HEADER_BYTES];
        bytes.chunks_exact_mut(8).zip(words).for_each(|(to, word)| to.copy_from_slice(&word.to_le_bytes()));
        bytes
    }

    fn parse(words: &[u64; 64]) -> Result<SeSparseHeader> {
        SeSparseHeader::parse(&encode(words), "x")
    }

    #[test]
    fn a_header_as_hosts_write_it_is_read() {
        let header = parse(&words()).unwrap();
        assert_eq!((header.capacity(), header.directory_entries()), (100 << 20, 7));
        assert_eq!(header.directory, Area { sector: 4096, sectors: 2048 });
        assert_eq!(header.directory_range(4096 * 512 + 56, "x").unwrap(), 4096 * 512..4096 * 512 + 56);
        assert!(header.directory_range(4096 * 512 + 55, "x").is_err());
        assert_eq!(header.table_offset(31), Some((6144 + 31 * 64) * 512));
        assert_eq!(header.table_offset(32), None);
        assert_eq!(header.grain_offset(25_599), Some((12288 + 25_599 * 8) * 512));
        assert_eq!(header.grain_offset(25_600), None);
        assert_eq!(header.grain_offset(u64::MAX), None);
    }

    #[test]
    fn every_bad_field_is_refused() {
        let refuse = |word: usize, value: u64| {
            let mut words = words();
            words[word] = value;
            assert!(parse(&words).is_err(), "{value:#x} as word {word}");
        };
        refuse(0, MAGIC | 1 << 32);
        refuse(1, 0x2_0000_0002);
        refuse(2, u64::MAX);
        refuse(2, 2048 * 64 * TABLE_SPAN_SECTORS + 1); // One table more than the directory has room for.
        refuse(3, 16);
        refuse(4, 32);
        for word in 5..10 {
            refuse(word, 1);
        }
        refuse(10, 0); // The volatile header in the constant one.
        refuse(11, 0);
        refuse(16, 1);
        refuse(17, 2049); // The directory reaches into the tables.
        refuse(18, 12288);
        for word in (11..26).step_by(2) {
            refuse(word, u64::MAX);
        }
    }

    #[test]
    fn entries_mean_what_qemu_and_xen_orchestra_read() {
        assert_eq!(SeSparseDirectoryEntry::decode(0), Some(SeSparseDirectoryEntry::None));
        assert_eq!(SeSparseDirectoryEntry::decode(0x1000_0000_0000_0005), Some(SeSparseDirectoryEntry::Table(5)));
        for entry in [5, 0x2000_0000_0000_0005, 0x1000_0001_0000_0005, u64::MAX] {
            assert_eq!(SeSparseDirectoryEntry::decode(entry), None, "{entry:#x}");
        }
        assert_eq!(SeSparseEntry::decode(0), Some(SeSparseEntry::Unallocated));
        assert_eq!(SeSparseEntry::decode(0x1123_4567_89ab_cdef), Some(SeSparseEntry::Unmapped));
        assert_eq!(SeSparseEntry::decode(0x2000_0000_0000_0000), Some(SeSparseEntry::Zero));
        assert_eq!(SeSparseEntry::decode(0x3abc_0000_0000_0012), Some(SeSparseEntry::Grain(0x12abc)));
        for entry in [1, 0x4000_0000_0000_0000, u64::MAX] {
            assert_eq!(SeSparseEntry::decode(entry), None, "{entry:#x}");
        }
    }

    #[test]
    fn the_volatile_header_says_whether_a_journal_waits() {
        let mut words = [0; 64];
        words[..4].copy_from_slice(&[VOLATILE_MAGIC, 3, 4, 0]);
        let clean = SeSparseVolatileHeader { free_table: 3, next_transaction: 4, replay_journal: false };
        assert_eq!(SeSparseVolatileHeader::parse(&encode(&words), "x").unwrap(), clean);
        words[3] = 1;
        assert!(SeSparseVolatileHeader::parse(&encode(&words), "x").unwrap().replay_journal);
        words[0] = MAGIC;
        assert!(SeSparseVolatileHeader::parse(&encode(&words), "x").is_err());
    }
}
