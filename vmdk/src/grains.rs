//! The sans-IO heart of sparse extents: which table and entry a byte belongs to, and what a table says about
//! a range. A driver (blocking here, asynchronous elsewhere) brings the tables.

use std::{
    ops::Range,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    SECTOR,
    layout::{ENTRIES_PER_TABLE, SparseHeader},
};

/// Entry of a grain that is not stored.
pub(crate) const UNALLOCATED: u32 = 0;
/// Entry of a grain of zeros. VMware reads it so whether or not the header has the flag, and no grain can be
/// at sector 1: the header or the descriptor is there.
pub(crate) const ZERO_GRAIN: u32 = 1;

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
}

impl Run {
    /// Appends `next` when the two are one run.
    pub(crate) fn join(&mut self, next: Run) -> bool {
        let joins = match (self.place, next.place) {
            (Place::At(first), Place::At(second)) => first.checked_add(self.len) == Some(second),
            (first, second) => first == second,
        };
        if joins {
            self.len += next.len;
        }
        joins
    }
}

/// Sizes that place a byte in the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grains {
    /// Size of the extent in bytes.
    pub(crate) capacity: u64,
    shift: u32,
}

impl Grains {
    pub(crate) fn new(header: &SparseHeader) -> Self {
        // The header is checked: the product fits in 63 bits, the grain is a power of two.
        Self { capacity: header.capacity_sectors * SECTOR, shift: (header.grain_sectors * SECTOR).trailing_zeros() }
    }

    /// Size of a grain in bytes.
    pub(crate) fn grain_bytes(self) -> u64 {
        1 << self.shift
    }

    /// Number of the grain with the byte at `offset`.
    pub(crate) fn grain(self, offset: u64) -> u64 {
        offset >> self.shift
    }

    /// The bytes of a grain; the last one may be short.
    pub(crate) fn grain_range(self, grain: u64) -> Range<u64> {
        let start = grain << self.shift;
        start..(start + self.grain_bytes()).min(self.capacity)
    }

    /// Table and entry of a grain.
    pub(crate) fn entry(self, grain: u64) -> (u32, usize) {
        // The directory's length is checked to fit in 32 bits.
        ((grain / u64::from(ENTRIES_PER_TABLE)) as u32, (grain % u64::from(ENTRIES_PER_TABLE)) as usize)
    }

    /// Table of the byte at `offset`, and where that table's bytes end.
    pub(crate) fn table(self, offset: u64) -> (u32, u64) {
        let (table, _) = self.entry(self.grain(offset));
        let span = self.grain_bytes() * u64::from(ENTRIES_PER_TABLE);
        (table, (u64::from(table) + 1).saturating_mul(span).min(self.capacity))
    }

    /// The first run of `range`, which is not empty and lies in one table.
    pub(crate) fn first_run(self, table: &[AtomicU32], range: Range<u64>) -> Run {
        let mut grain = self.grain(range.start);
        let mut run = self.one(table, grain, range.start, range.end);
        loop {
            grain += 1;
            let start = grain << self.shift;
            if start >= range.end || !run.join(self.one(table, grain, start, range.end)) {
                return run;
            }
        }
    }

    fn one(self, table: &[AtomicU32], grain: u64, start: u64, end: u64) -> Run {
        let (_, entry) = self.entry(grain);
        let begin = grain << self.shift;
        let len = (begin + self.grain_bytes()).min(end) - start;
        let place = match table[entry].load(Ordering::Acquire) {
            UNALLOCATED => Place::Unallocated,
            ZERO_GRAIN => Place::Zero,
            sector => Place::At(u64::from(sector) * SECTOR + (start - begin)),
        };
        Run { place, len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grains() -> Grains {
        Grains { capacity: 100 * 65536 + 512, shift: 16 }
    }

    fn table(entries: &[u32]) -> Vec<AtomicU32> {
        (0..512).map(|index| AtomicU32::new(entries.get(index).copied().unwrap_or(0))).collect()
    }

    #[test]
    fn neighbours_in_the_file_are_one_run() {
        let table = table(&[0, 0, 256, 384, 1024, 1, 1]);
        let run = |start, end| {
            let run = grains().first_run(&table, start..end);
            (run.place, run.len)
        };
        assert_eq!(run(0, 1 << 20), (Place::Unallocated, 2 << 16));
        assert_eq!(run((2 << 16) + 100, 1 << 20), (Place::At(256 * 512 + 100), (2 << 16) - 100));
        assert_eq!(run(4 << 16, 1 << 20), (Place::At(1024 * 512), 1 << 16));
        assert_eq!(run((5 << 16) + 1, (6 << 16) + 7), (Place::Zero, (1 << 16) + 6));
    }

    #[test]
    fn the_last_grain_may_be_short() {
        assert_eq!(grains().grain_range(100), 100 * 65536..100 * 65536 + 512);
        assert_eq!(grains().table(0), (0, grains().capacity));
    }
}
