//! Directories and tables of 32-bit sector numbers, read as they are: nothing here trusts what they say.

use std::ops::Range;

use super::space::Bits;
use crate::{
    SECTOR,
    error::Result,
    extent::Backing,
    layout::{ENTRIES_PER_TABLE, SparseHeader},
    source::SourceMap,
};

/// The sizes of an extent with directory and tables: hosted sparse files and redo logs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Entries of the directory, one for each table.
    pub(crate) tables: u64,
    /// Entries of a table, one for each grain.
    pub(crate) entries: u64,
    pub(crate) grain_sectors: u64,
    pub(crate) capacity_sectors: u64,
    /// Grains are compressed: how long each is, is known at its place only.
    pub(crate) is_packed: bool,
}

/// What a table says about a grain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Nothing is stored.
    Absent,
    /// The sectors of the file that hold the grain, as far as they are in the file.
    At(Range32),
    /// The sectors of the grain are not all in the file.
    Outside(u32),
}

/// Sectors of a file; `Range` is not `Copy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range32 {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Shape {
    pub(crate) fn of(header: &SparseHeader) -> Self {
        Self {
            tables: header.directory_entries(),
            entries: u64::from(ENTRIES_PER_TABLE),
            grain_sectors: header.grain_sectors,
            capacity_sectors: header.capacity_sectors,
            is_packed: false,
        }
    }

    pub(crate) fn table_bytes(&self) -> u64 {
        self.entries * 4
    }

    pub(crate) fn table_sectors(&self) -> u64 {
        self.table_bytes() / SECTOR
    }

    /// Number of grains, the short last one included.
    pub(crate) fn grains(&self) -> u64 {
        self.capacity_sectors.div_ceil(self.grain_sectors)
    }

    /// Understands the entry of `grain` in a file of `file_len` bytes. Entry 1 is a grain of zeros: sector 1 holds
    /// metadata always.
    pub(crate) fn entry(&self, value: u32, grain: u64, file_len: u64) -> Entry {
        if value <= 1 {
            return Entry::Absent;
        }
        let start = u64::from(value);
        let file_sectors = file_len / SECTOR;
        // Behind the disk's end nothing need be stored.
        let needed = match self.is_packed {
            true => 1,
            false => self.grain_sectors.min(self.capacity_sectors.saturating_sub(grain * self.grain_sectors)),
        };
        if start + needed > file_sectors {
            return Entry::Outside(value);
        }
        let taken = if self.is_packed { 1 } else { self.grain_sectors };
        Entry::At(Range32 { start, end: (start + taken).min(file_sectors) })
    }
}

impl Range32 {
    pub(crate) fn range(self) -> Range<u64> {
        self.start..self.end
    }
}

/// A file with tables.
#[derive(Debug)]
pub(crate) struct TableFile {
    pub(crate) backing: Backing,
    pub(crate) len: u64,
    pub(crate) shape: Shape,
    /// The file as it is; a repair that is planned may make it longer.
    real_len: u64,
    /// The last two holes that were found: tables and their copies are read in turn.
    holes: [Range<u64>; 2],
    /// The last table was empty: worth asking for a hole.
    worth_asking: bool,
    bytes: Vec<u8>,
}

impl TableFile {
    pub(crate) fn new(backing: Backing, shape: Shape) -> Result<Self> {
        let len = backing.len()?;
        let bytes = vec![0; shape.table_bytes() as usize];
        Ok(Self { backing, len, shape, real_len: len, holes: [0..0, 0..0], worth_asking: false, bytes })
    }

    /// The file has become longer.
    pub(crate) fn has_grown(&mut self) -> Result<()> {
        self.real_len = self.backing.len()?;
        self.len = self.len.max(self.real_len);
        // What was a hole may be a table now.
        self.holes = [0..0, 0..0];
        Ok(())
    }

    /// Sectors of the file; a last part of one does not count.
    pub(crate) fn sectors(&self) -> u64 {
        self.len / SECTOR
    }

    /// Whether a table at `sector` lies inside the file.
    pub(crate) fn holds_table(&self, sector: u32) -> bool {
        u64::from(sector) * SECTOR + self.shape.table_bytes() <= self.real_len
    }

    /// Reads the table at `sector`, which lies inside the file; false when it has no entry.
    pub(crate) fn read_table(&mut self, sector: u32, entries: &mut Vec<u32>) -> Result<bool> {
        let start = u64::from(sector) * SECTOR;
        entries.clear();
        if self.is_hole(start..start + self.shape.table_bytes())? {
            entries.resize(self.shape.entries as usize, 0);
            return Ok(false);
        }
        self.backing.read(start, &mut self.bytes)?;
        entries.extend(words(&self.bytes));
        self.worth_asking = entries.iter().all(|entry| *entry == 0);
        Ok(!self.worth_asking)
    }

    /// New disks have all tables in one hole: 62 TB would be gigabytes of zeros to read.
    fn is_hole(&mut self, table: Range<u64>) -> Result<bool> {
        const AHEAD: u64 = 1 << 30;
        let inside = |hole: &Range<u64>| hole.start <= table.start && table.end <= hole.end;
        if self.worth_asking && !self.holes.iter().any(inside) {
            self.worth_asking = false;
            if let SourceMap::Runs(runs) = self.backing.map(table.start..self.real_len.min(table.start + AHEAD))?
                && let Some(first) = runs.first().filter(|run| run.hole && run.range.start == table.start)
            {
                self.holes.swap(0, 1);
                self.holes[0] = first.range.clone();
            }
        }
        let hole = self.holes.iter().any(inside);
        self.worth_asking |= hole;
        Ok(hole)
    }
}

/// A directory, read block by block.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    /// Where it starts, in bytes.
    pub(crate) offset: u64,
    entries: u64,
    first: u64,
    block: Vec<u32>,
    /// It is planned, and not in the file.
    is_blank: bool,
}

impl Directory {
    /// A directory of `entries` at `sector`; `None` when it does not lie inside a file of `file_len` bytes.
    pub(crate) fn locate(sector: u64, entries: u64, file_len: u64) -> Option<Self> {
        let offset = sector.checked_mul(SECTOR).filter(|_| sector != 0)?;
        let end = offset.checked_add(entries.checked_mul(4)?)?;
        (end <= file_len).then_some(Self { offset, entries, first: 0, block: Vec::new(), is_blank: false })
    }

    /// A directory of `entries` at `sector` that has no table yet, nor perhaps a file to read it from.
    pub(crate) fn blank(sector: u64, entries: u64, is_in_file: bool) -> Self {
        Self { offset: sector * SECTOR, entries, first: 0, block: Vec::new(), is_blank: !is_in_file }
    }

    /// Remembers that an entry was changed in the file.
    pub(crate) fn set(&mut self, number: u64, sector: u32) {
        let index = number.checked_sub(self.first);
        if let Some(entry) = index.and_then(|index| self.block.get_mut(index as usize)) {
            *entry = sector;
        }
    }

    /// The sectors that it takes.
    pub(crate) fn sectors(&self) -> Range<u64> {
        self.offset / SECTOR..(self.offset + self.entries * 4).div_ceil(SECTOR)
    }

    /// The entry with this number, which is one of the directory.
    pub(crate) fn get(&mut self, backing: &Backing, number: u64) -> Result<u32> {
        const BLOCK: u64 = 16 * 1024;
        let known = number.checked_sub(self.first).and_then(|index| self.block.get(index as usize));
        if let Some(entry) = known {
            return Ok(*entry);
        }
        let first = number / BLOCK * BLOCK;
        let mut bytes = vec![0; (self.entries.saturating_sub(first).min(BLOCK) * 4) as usize];
        if !self.is_blank {
            backing.read(self.offset + first * 4, &mut bytes)?;
        }
        self.block = words(&bytes).collect();
        self.first = first;
        Ok(self.block.get((number - first) as usize).copied().unwrap_or(0))
    }
}

/// Looks entries up, one table in memory.
#[derive(Debug)]
pub(crate) struct TableLookup {
    file: TableFile,
    directory: Directory,
    lost: Bits,
    table: Vec<u32>,
    number: Option<u64>,
}

impl TableLookup {
    /// `lost` are the tables that cannot be read.
    pub(crate) fn new(file: TableFile, directory: Directory, lost: Bits) -> Self {
        Self { file, directory, lost, table: Vec::new(), number: None }
    }

    /// Whether there is a table with this number that can be read.
    pub(crate) fn has_table(&mut self, number: u64) -> Result<bool> {
        Ok(!self.lost.get(number as usize) && self.directory.get(&self.file.backing, number)? != 0)
    }

    /// The entry of a grain of the disk; `None` when its table is lost.
    pub(crate) fn entry(&mut self, grain: u64) -> Result<Option<u32>> {
        let number = grain / self.file.shape.entries;
        if self.lost.get(number as usize) {
            return Ok(None);
        }
        if self.number != Some(number) {
            self.number = None;
            match self.directory.get(&self.file.backing, number)? {
                0 => {
                    self.table.clear();
                    self.table.resize(self.file.shape.entries as usize, 0);
                }
                sector => {
                    self.file.read_table(sector, &mut self.table)?;
                }
            }
            self.number = Some(number);
        }
        Ok(self.table.get((grain % self.file.shape.entries) as usize).copied())
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}
