//! The sans-IO heart of sparse extents: which table and entry a byte belongs to, and what a table says about
//! a range. Pure functions over metadata that a driver brings: the blocking one reads what is missing on the
//! spot, the asynchronous one notes it, fetches everything that a request misses at once, and asks again.
//!
//! A new format is a new variant of [`Entries`]: what an entry of its directory and of its tables means.

mod entries;

use std::{
    ops::Range,
    sync::{Arc, atomic::AtomicU32},
};

pub(crate) use self::entries::{Entries, ZERO_GRAIN};
use crate::{
    SECTOR,
    cache::{Block, FileId, Table},
    error::{Error, Result},
};

/// Brings blocks of metadata.
pub(crate) trait Blocks {
    /// Why there is no block: a failure, or that it must be fetched first.
    type Stop: From<Error>;

    /// Tables are asked for in parts of so many bytes. Whole, where nothing else is said: those who change tables share
    /// them with those who read.
    const PART_BYTES: u64 = u64::MAX;

    /// The block of `file`. Its length is the one asked for.
    fn block(&self, file: FileId, block: Block) -> Result<Table, Self::Stop>;

    /// How many bytes of `file` from the start of `block` on are known to be zero without being read; 0 where nothing
    /// is known.
    fn known_zeros(&self, _file: FileId, _block: Block) -> u64 {
        0
    }

    /// Whether a walk that met `stop` shall go on behind it, to find out what else is missing; what it then
    /// says about the disk is void. Gives back the failure that ends the walk at once.
    fn go_on(&self, stop: Self::Stop) -> Result<(), Self::Stop> {
        Err(stop)
    }
}

/// A run of bytes of an extent that is kept in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) place: Place,
    pub(crate) len: u64,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Not in this link: the parent's, or zero.
    Unallocated,
    /// Zero, whatever the parent has.
    Zero,
    /// In the file, from this byte offset on.
    At(u64),
    /// Inside of a compressed grain.
    Packed(Packed),
}

/// A run inside of one compressed grain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packed {
    /// Where the grain's marker is in the file.
    pub(crate) marker: u64,
    /// The disk sector that the marker must name.
    pub(crate) sector: u64,
    /// Size of a grain in bytes.
    pub(crate) grain_bytes: u64,
    /// Bytes of the grain that lie in the extent; the last grain may be short.
    pub(crate) grain_len: u64,
    /// Where the run starts inside of the grain.
    pub(crate) within: u64,
    /// Bytes from the marker on that hold the grain, most likely: to the next one in the table, or else as many as
    /// a grain takes that could not be compressed. Not beyond the end of the file.
    pub(crate) room: u64,
    /// Bytes from the marker to the end of the file.
    pub(crate) most: u64,
}

impl Run {
    /// Appends `next` when the two are one run.
    pub(crate) fn join(&mut self, next: Run) -> bool {
        let joins = match (self.place, next.place) {
            (Place::At(first), Place::At(second)) => first.checked_add(self.len) == Some(second),
            (Place::Packed(_), _) => false,
            (first, second) => first == second,
        };
        if joins {
            self.len += next.len;
        }
        joins
    }
}

/// A sparse extent as its header describes it.
#[derive(Debug, Clone)]
pub(crate) struct Grains {
    /// The file, for errors.
    pub(crate) name: Arc<str>,
    /// Size of the extent in bytes.
    pub(crate) capacity: u64,
    /// Size of a grain in bytes; not always a power of two.
    pub(crate) grain_bytes: u64,
    pub(crate) entries_per_table: u64,
    pub(crate) directory: Directory,
    pub(crate) entries: Entries,
}

/// The directory of a sparse extent: one entry for each table, read in pages that the cache bounds. A writer that adds
/// a table changes the page that readers share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Directory {
    /// Where it starts in the file, in bytes.
    pub(crate) offset: u64,
    /// Number of its entries.
    pub(crate) len: u64,
}

impl Grains {
    /// Number of the grain with the byte at `offset`.
    pub(crate) fn grain(&self, offset: u64) -> u64 {
        offset / self.grain_bytes
    }

    /// The bytes of a grain; the last one may be short.
    pub(crate) fn grain_range(&self, grain: u64) -> Range<u64> {
        let start = grain * self.grain_bytes;
        start..(start + self.grain_bytes).min(self.capacity)
    }

    /// Table and entry of a grain.
    pub(crate) fn entry(&self, grain: u64) -> (u64, usize) {
        (grain / self.entries_per_table, (grain % self.entries_per_table) as usize)
    }

    /// Table of the byte at `offset`, and where that table's bytes end.
    pub(crate) fn table(&self, offset: u64) -> (u64, u64) {
        let (table, _) = self.entry(self.grain(offset));
        let span = self.grain_bytes * self.entries_per_table;
        (table, (table + 1).saturating_mul(span).min(self.capacity))
    }

    /// Where the bytes end of which the same part of a table tells as of the byte at `offset`.
    pub(crate) fn part_end<B: Blocks>(&self, offset: u64) -> u64 {
        let (table, index) = self.entry(self.grain(offset));
        let behind = (self.part_start::<B>(index) + self.part_entries::<B>()).min(self.entries_per_table);
        (table * self.entries_per_table + behind).saturating_mul(self.grain_bytes).min(self.capacity)
    }

    /// Entries of a part of a table.
    fn part_entries<B: Blocks>(&self) -> u64 {
        (B::PART_BYTES / self.entries.width()).clamp(1, self.entries_per_table)
    }

    /// The first entry of the part with entry `index` of a table.
    fn part_start<B: Blocks>(&self, index: usize) -> u64 {
        let entries = self.part_entries::<B>();
        index as u64 / entries * entries
    }

    /// Where the first bytes of `range` are: the longest run that tables and file agree to call one.
    pub(crate) fn run<B: Blocks>(&self, file: FileId, blocks: &B, range: Range<u64>) -> Result<Run, B::Stop> {
        let mut found: Option<Run> = None;
        let mut offset = range.start;
        while offset < range.end {
            let (number, table_end) = self.table(offset);
            let mut end = table_end.min(range.end);
            let mut run = match (self.table_run(file, blocks, number, offset..end), &found) {
                (Ok(run), _) => run,
                (Err(stop), None) => return Err(stop),
                // The next call meets it again, at its start.
                (Err(_), Some(_)) => break,
            };
            if run.place == Place::Unallocated && offset + run.len == end && end < range.end {
                end = self.end_of_zeros(file, blocks, number, range.end);
                run.len = end - offset;
            }
            match &mut found {
                None => found = Some(run),
                Some(first) => {
                    if !first.join(run) {
                        break;
                    }
                }
            }
            offset += run.len;
            if offset < end {
                break;
            }
        }
        Ok(found.unwrap_or(Run { place: Place::Unallocated, len: 0 }))
    }

    /// Where the bytes of the tables end that follow empty table `number` in the file, without a gap, and are known to be
    /// zero like it; at most `limit`. The tables of new disks are one hole: 62 TB have two million of them.
    fn end_of_zeros<B: Blocks>(&self, file: FileId, blocks: &B, number: u64, limit: u64) -> u64 {
        let span = self.grain_bytes * self.entries_per_table;
        let mut next = number + 1;
        if let Ok(Some(first)) = self.table_block(file, blocks, number) {
            let len = u64::from(first.len);
            let zeros = blocks.known_zeros(file, first);
            while next * span < limit && (next - number + 1) * len <= zeros {
                let follows = first.offset + (next - number) * len;
                // What is wrong with an entry is told where it is read, not before.
                if !matches!(self.table_block(file, blocks, next), Ok(Some(table)) if table.offset == follows) {
                    break;
                }
                next += 1;
            }
        }
        next.saturating_mul(span).min(limit).min(self.capacity)
    }

    /// Where table `number` is in the file, `None` when it was never allocated.
    pub(crate) fn table_block<B: Blocks>(
        &self,
        file: FileId,
        blocks: &B,
        number: u64,
    ) -> Result<Option<Block>, B::Stop> {
        if number >= self.directory.len {
            return Err(self.no_table(number).into());
        }
        let (page, index) = self.directory.page(number, self.entries.width());
        let entry = self.entries.load(&blocks.block(file, page)?, index);
        let len = self.entries_per_table * self.entries.width();
        let offset = self.entries.table_offset(entry).map_err(|problem| {
            Error::malformed(&*self.name, format!("entry {number} of the grain directory, {entry:#x}, {problem}"))
        })?;
        Ok(offset.map(|offset| Block { offset, len: len as u32 }))
    }

    /// The first run of `range`, which is not empty and lies in table `number`.
    fn table_run<B: Blocks>(&self, file: FileId, blocks: &B, number: u64, range: Range<u64>) -> Result<Run, B::Stop> {
        match self.table_block(file, blocks, number)? {
            Some(table) => {
                let (_, index) = self.entry(self.grain(range.start));
                let (first, width) = (self.part_start::<B>(index), self.entries.width());
                let len = (self.entries_per_table - first).min(self.part_entries::<B>()) * width;
                let part = Block { offset: table.offset + first * width, len: len as u32 };
                let range = range.start..range.end.min(self.part_end::<B>(range.start));
                Ok(self.first_run(&blocks.block(file, part)?, first as usize, range)?)
            }
            None => Ok(Run { place: Place::Unallocated, len: range.end - range.start }),
        }
    }

    /// The first run of `range`, of which `part` tells: a table from entry `first` on.
    fn first_run(&self, part: &[AtomicU32], first: usize, range: Range<u64>) -> Result<Run> {
        let mut grain = self.grain(range.start);
        let mut run = self.one((part, first), grain, range.start, range.end)?;
        if matches!(run.place, Place::Unallocated | Place::Zero) {
            // A map of 62 TB meets two million empty tables.
            let (_, index) = self.entry(grain);
            grain += self.entries.alike(part, index - first);
            run.len = self.grain_range(grain).end.min(range.end) - range.start;
        }
        loop {
            grain += 1;
            let start = grain * self.grain_bytes;
            if start >= range.end {
                return Ok(run);
            }
            // A bad entry fails where it is read, not before.
            match self.one((part, first), grain, start, range.end) {
                Ok(next) if run.join(next) => {}
                _ => return Ok(run),
            }
        }
    }

    fn one(&self, (part, first): (&[AtomicU32], usize), grain: u64, start: u64, end: u64) -> Result<Run> {
        let index = self.entry(grain).1 - first;
        let begin = grain * self.grain_bytes;
        let len = (begin + self.grain_bytes).min(end) - start;
        let entry = self.entries.load(part, index);
        let grain_at = self.entries.grain_place(entry).map_err(|problem| {
            Error::malformed(&*self.name, format!("the table entry of grain {grain}, {entry:#x}, {problem}"))
        })?;
        let place = match grain_at {
            Place::At(at) => match self.entries {
                Entries::Packed { file_len } => {
                    let most = file_len.saturating_sub(at);
                    Place::Packed(Packed {
                        marker: at,
                        sector: begin / SECTOR,
                        grain_bytes: self.grain_bytes,
                        grain_len: (begin + self.grain_bytes).min(self.capacity) - begin,
                        within: start - begin,
                        room: self.room(part, index, entry).min(most),
                        most,
                    })
                }
                _ => Place::At(at + (start - begin)),
            },
            other => other,
        };
        Ok(Run { place, len })
    }

    /// Bytes between a compressed grain and the next stored one of the table, which usually follows it in the file.
    fn room(&self, table: &[AtomicU32], index: usize, entry: u64) -> u64 {
        let stored = self.grain_bytes + SECTOR;
        let mut later = (index + 1..table.len()).map(|next| self.entries.load(table, next));
        let next = later.find(|&next| next > u64::from(ZERO_GRAIN)).and_then(|next| next.checked_sub(entry));
        next.filter(|&sectors| sectors > 0).map_or(stored, |sectors| (sectors * SECTOR).min(stored))
    }

    fn no_table(&self, number: u64) -> Error {
        Error::malformed(&*self.name, format!("there is no grain table {number}"))
    }
}

impl Directory {
    /// The page with entry `number`, which is `width` bytes wide, and the number of the entry there.
    pub(crate) fn page(&self, number: u64, width: u64) -> (Block, usize) {
        let a_page = PAGE_BYTES / width;
        let first = number / a_page * a_page;
        let len = (self.len.saturating_sub(first)).min(a_page) * width;
        (Block { offset: self.offset + first * width, len: len as u32 }, (number - first) as usize)
    }
}

/// Bytes of a directory that are read at once.
const PAGE_BYTES: u64 = 4096;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::layout::{Area, SeSparseHeader};

    /// Metadata by offset.
    struct Given(HashMap<u64, Vec<u32>>);

    impl Blocks for Given {
        type Stop = Error;
        fn block(&self, _file: FileId, block: Block) -> Result<Table> {
            let words = self.0.get(&block.offset).ok_or_else(|| Error::malformed("x", "no such block"))?;
            let word = |index: usize| AtomicU32::new(words.get(index).copied().unwrap_or(0));
            Ok((0..block.len as usize / 4).map(word).collect())
        }
    }

    fn grains(entries: Entries, entries_per_table: u64, grain_bytes: u64) -> Grains {
        let directory = Directory { offset: 512, len: 2 };
        let capacity = (entries_per_table + 100) * grain_bytes + 512;
        Grains { name: "x".into(), capacity, grain_bytes, entries_per_table, directory, entries }
    }

    fn run(grains: &Grains, blocks: &Given, start: u64, end: u64) -> (Place, u64) {
        let run = grains.run(0, blocks, start..end).unwrap();
        (run.place, run.len)
    }

    #[test]
    fn neighbours_in_the_file_are_one_run() {
        let grains = grains(Entries::Hosted, 512, 65536);
        let given = Given([(512, vec![2, 0]), (1024, vec![0, 0, 256, 384, 1024, 1, 1])].into());
        assert_eq!(run(&grains, &given, 0, 1 << 20), (Place::Unallocated, 2 << 16));
        assert_eq!(run(&grains, &given, (2 << 16) + 100, 1 << 20), (Place::At(256 * 512 + 100), (2 << 16) - 100));
        assert_eq!(run(&grains, &given, 4 << 16, 1 << 20), (Place::At(1024 * 512), 1 << 16));
        assert_eq!(run(&grains, &given, (5 << 16) + 1, (6 << 16) + 7), (Place::Zero, (1 << 16) + 6));
        // From the end of the first table into the second, which does not exist.
        let rest = grains.capacity - (7 << 16);
        assert_eq!(run(&grains, &given, 7 << 16, grains.capacity), (Place::Unallocated, rest));
    }

    #[test]
    fn cowd_grains_of_a_sector_join_and_none_is_in_the_header() {
        let grains = grains(Entries::Cowd, 4096, 512);
        let given = Given([(512, vec![4]), (2048, vec![36, 37, 38, 0, 1])].into());
        assert_eq!(run(&grains, &given, 10, 4096), (Place::At(36 * 512 + 10), 3 * 512 - 10));
        assert!(grains.run(0, &given, 4 * 512..5 * 512).is_err());
    }

    #[test]
    fn sesparse_entries_of_every_type() {
        let area = |start: u64, end: u64| Area { sector: start / 512, sectors: (end - start) / 512 };
        let none = area(0, 0);
        let entries = Entries::SeSparse(Box::new(SeSparseHeader {
            capacity_sectors: 4196 * 8,
            volatile_header: none,
            journal_header: none,
            journal: none,
            directory: area(512, 1024),
            tables: area(1 << 20, 2 << 20),
            free_bitmap: none,
            backmap: none,
            grains: area(4 << 20, 5 << 20),
        }));
        let grains = grains(entries, 4096, 4096);
        let wide = |values: &[u64]| values.iter().flat_map(|v| [*v as u32, (*v >> 32) as u32]).collect::<Vec<_>>();
        let stored = |number: u64| 3 << 60 | (number & 0xfff) << 48 | number >> 12;
        let table = [stored(7), stored(8), 1 << 60 | 77, 2 << 60, 0, stored(255), stored(256), 4 << 60, 5];
        let given = Given([(512, wide(&[1 << 60 | 2])), ((1 << 20) + 2 * 32768, wide(&table))].into());
        assert_eq!(run(&grains, &given, 0, 1 << 20), (Place::At((4 << 20) + 7 * 4096), 8192));
        assert_eq!(run(&grains, &given, 8192, 1 << 20), (Place::Zero, 8192));
        assert_eq!(run(&grains, &given, 4 * 4096, 1 << 20), (Place::Unallocated, 4096));
        assert_eq!(run(&grains, &given, 5 * 4096, 1 << 20), (Place::At((5 << 20) - 4096), 4096));
        for bad in 6..9 {
            assert!(grains.run(0, &given, bad * 4096..bad * 4096 + 1).is_err(), "{bad}");
        }
        for directory in [5 << 60, 2 << 60 | 2, 1 << 60 | 32, 2] {
            let given = Given([(512, wide(&[directory]))].into());
            assert!(grains.run(0, &given, 0..1).is_err(), "{directory:#x}");
        }
    }

    #[test]
    fn compressed_grains_stand_alone_and_say_how_much_to_read() {
        let grains = grains(Entries::Packed { file_len: 80_000 }, 512, 65536);
        let given = Given([(512, vec![2, 3]), (1024, vec![100, 0, 150, 90]), (1536, vec![0; 100])].into());
        let packed = |start| match run(&grains, &given, start, 1 << 20) {
            (Place::Packed(packed), len) => (packed.marker, packed.within, packed.room, len),
            other => panic!("{other:?}"),
        };
        assert_eq!(packed(70), (51200, 70, 50 * 512, 65536 - 70));
        // Neighbours that do not follow tell nothing: as much as a grain can take, or the file has.
        assert_eq!(packed(2 << 16), (150 * 512, 0, 80_000 - 150 * 512, 65536));
        assert_eq!(packed(3 << 16), (90 * 512, 0, 80_000 - 90 * 512, 65536));
    }

    #[test]
    fn the_last_grain_may_be_short() {
        let grains = grains(Entries::Hosted, 512, 65536);
        assert_eq!(grains.grain_range(612), 612 * 65536..612 * 65536 + 512);
        assert_eq!(grains.table(513 * 65536), (1, grains.capacity));
    }

    #[test]
    fn directories_are_read_in_pages() {
        let mut grains = grains(Entries::Hosted, 512, 65536);
        grains.directory = Directory { offset: 512, len: 1500 };
        grains.capacity = 1500 * 512 * 65536;
        let given = Given([(512 + 4096, vec![0, 9])].into());
        let table_bytes = 512 * 65536;
        assert_eq!(run(&grains, &given, 1024 * table_bytes, 1025 * table_bytes).0, Place::Unallocated);
        assert_eq!(grains.table_block(0, &given, 1025).unwrap(), Some(Block { offset: 9 * 512, len: 2048 }));
        assert!(grains.table_block(0, &given, 1500).is_err());
    }
}
