//! Whether the grains that passed are those that the tables name.
//!
//! A forward reader meets every grain and every table once, in an order that differs from writer to writer, and cannot
//! keep them: a disk of 62 TB has a thousand million grains. It keeps sums instead, of which both sides must have the
//! same: of the grains' number, of their sectors, and of their sectors weighed by their places. A grain that is
//! missing, doubled or was moved by a damaged marker changes them.

use crate::layout::ENTRIES_PER_TABLE;

/// Sums over the grains of a stream and over its tables.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    passed: Sum,
    named: Sum,
    /// Tables by their sectors, which ascend, when the directory comes after them.
    tables: Vec<(u32, Sum)>,
    /// Whether there was a directory.
    is_known: bool,
    problem: Option<String>,
}

impl Ledger {
    /// A grain passed: its number on the disk, and the sector of its marker in the stream.
    pub(super) fn grain(&mut self, number: u64, sector: u64) {
        self.passed.add(number, sector);
    }

    /// A sector of a table passed, with the entries from `first` on; the table began at `sector`.
    pub(super) fn table(&mut self, sector: u64, first: u64, entries: impl Iterator<Item = u32>) {
        // Behind 2 TiB no directory can name it.
        let Ok(sector) = u32::try_from(sector) else { return };
        if first == 0 {
            self.tables.push((sector, Sum::default()));
        }
        if let Some((_, sum)) = self.tables.last_mut() {
            sum.add_entries(first, entries);
        }
    }

    /// A sector of the directory passed, with the entries from `first` on; its tables came before it.
    pub(super) fn directory(&mut self, first: u64, entries: impl Iterator<Item = u32>) {
        if first == 0 {
            (self.named, self.is_known, self.problem) = (Sum::default(), true, None);
        }
        for (number, sector) in (first..).zip(entries).filter(|(_, sector)| *sector != 0) {
            match self.tables.binary_search_by_key(&sector, |(sector, _)| *sector) {
                Ok(at) => self.named.add_table(number, &self.tables[at].1),
                Err(_) => {
                    self.problem = Some(format!("the grain directory names a table at sector {sector}, which is none"));
                }
            }
        }
    }

    /// A sector of table `number` passed, whose place was known before.
    pub(super) fn numbered_table(&mut self, number: u64, first: u64, entries: impl Iterator<Item = u32>) {
        let mut sum = Sum::default();
        sum.add_entries(first, entries);
        self.named.add_table(number, &sum);
    }

    /// All numbered tables have passed.
    pub(super) fn complete(&mut self) {
        self.is_known = true;
    }

    /// At the stream's end: says what does not agree. Where there were no tables, nothing is known to be wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        match &self.problem {
            Some(problem) => Err(problem.clone()),
            None if self.is_known && self.passed != self.named => Err(format!(
                "its tables name {} grains, not the {} that it has: some are missing or misplaced",
                self.named.grains, self.passed.grains
            )),
            None => Ok(()),
        }
    }
}

/// What is kept of a set of grains and their sectors; all sums wrap.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    grains: u64,
    sectors: u64,
    /// Each sector times the grain's number. Linear in the number, so that a table whose place is learnt later can be
    /// moved there.
    places: u64,
}

impl Sum {
    fn add(&mut self, number: u64, sector: u64) {
        let sector = scatter(sector);
        self.grains += 1;
        self.sectors = self.sectors.wrapping_add(sector);
        self.places = self.places.wrapping_add(sector.wrapping_mul(number));
    }

    fn add_entries(&mut self, first: u64, entries: impl Iterator<Item = u32>) {
        // 0 is no grain, 1 a grain of zeros that is not stored.
        for (number, sector) in (first..).zip(entries).filter(|(_, sector)| *sector > 1) {
            self.add(number, u64::from(sector));
        }
    }

    fn add_table(&mut self, number: u64, table: &Sum) {
        let first = number.wrapping_mul(u64::from(ENTRIES_PER_TABLE));
        self.grains += table.grains;
        self.sectors = self.sectors.wrapping_add(table.sectors);
        self.places = self.places.wrapping_add(table.places).wrapping_add(table.sectors.wrapping_mul(first));
    }
}

/// Spreads neighbouring sectors over all 64 bits (the finalizer of SplitMix64), so that errors do not cancel out.
fn scatter(sector: u64) -> u64 {
    let mixed = (sector ^ sector >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Grains 0, 3 and 1000 in two tables, whose directory comes last.
    fn ledger(grains: &[(u64, u64)]) -> Ledger {
        let mut ledger = Ledger::default();
        grains.iter().for_each(|(number, sector)| ledger.grain(*number, *sector));
        ledger.table(40, 0, [10, 0, 1, 20].into_iter());
        ledger.table(50, 0, std::iter::repeat_n(0, 128));
        ledger.table(50, 384, (384..512).map(|entry| if entry == 1000 - 512 { 30 } else { 0 }));
        ledger.directory(0, [40, 50, 0].into_iter());
        ledger
    }

    #[test]
    fn agrees_when_every_grain_is_where_the_tables_say() {
        assert_eq!(ledger(&[(0, 10), (3, 20), (1000, 30)]).check(), Ok(()));
        assert_eq!(ledger(&[(1000, 30), (0, 10), (3, 20)]).check(), Ok(()));
    }

    #[test]
    fn a_missing_doubled_moved_or_exchanged_grain_shows() {
        for grains in [
            &[(0, 10), (3, 20)][..],
            &[(0, 10), (3, 20), (1000, 30), (1000, 30)],
            &[(0, 10), (4, 20), (1000, 30)],
            &[(0, 20), (3, 10), (1000, 30)],
            &[(0, 10), (3, 21), (1000, 30)],
        ] {
            assert!(ledger(grains).check().is_err(), "{grains:?}");
        }
    }

    #[test]
    fn tables_may_be_numbered_before_they_pass() {
        let mut ledger = Ledger::default();
        ledger.numbered_table(1, 384, (384..512).map(|entry| if entry == 1000 - 512 { 30 } else { 0 }));
        assert_eq!(ledger.check(), Ok(()), "more may come");
        ledger.complete();
        assert!(ledger.check().is_err());
        ledger.grain(1000, 30);
        assert_eq!(ledger.check(), Ok(()));
    }

    #[test]
    fn a_table_that_is_none_shows_and_no_table_is_no_fault() {
        let mut ledger = Ledger::default();
        ledger.grain(5, 5);
        assert_eq!(ledger.check(), Ok(()));
        ledger.directory(0, [9].into_iter());
        assert!(ledger.check().unwrap_err().contains("sector 9"));
    }
}
