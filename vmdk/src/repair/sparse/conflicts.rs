//! What lies where something else lies, or beyond the end: found before anything is written.

use super::Mender;
use crate::{
    SECTOR,
    check::{
        Place,
        internal::{Entry, Space, Use},
    },
    error::Result,
    repair::action::ActionKind,
};

impl Mender<'_> {
    /// Finds the tables that are where a table lies that was found to overlap: either may be the wrong one.
    pub(super) fn find_shared(&mut self) -> Result<()> {
        for window in Space::windows(self.found.sectors(), self.memory) {
            let mut space = Space::new(window);
            for is_lost in [true, false] {
                for number in 0..self.found.file.shape.tables {
                    let (first, copy) = (self.found.first_entry(number)?, self.found.redundant_entry(number)?);
                    let lost = (self.found.lost.is_first(number), self.found.lost.is_redundant(number));
                    // One table for both is no overlap, and simply has no copy.
                    let copy = copy.filter(|_| first != copy);
                    let places = [(first, lost.0, &mut self.unsafe_first), (copy, lost.1, &mut self.unsafe_copy)];
                    for (sector, table_is_lost, bits) in places {
                        let Some(sector) = sector.filter(|sector| self.found.file.holds_table(*sector)) else {
                            continue;
                        };
                        if table_is_lost == is_lost
                            && space.claim(self.found.table_sectors(sector), Use::Metadata).is_some()
                        {
                            bits.set(number as usize..number as usize + 1);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Finds the tables that lie where a grain is, among the data: a write to them could destroy some. Of a grain among
    /// the metadata it is the grain that is wrong.
    pub(super) fn find_tables_on_grains(&mut self) -> Result<()> {
        let mut entries = Vec::new();
        for window in Space::windows(self.found.sectors(), self.memory) {
            let mut space = Space::new(window);
            for number in 0..self.found.file.shape.tables {
                for sector in [self.found.first_entry(number)?, self.found.redundant_entry(number)?] {
                    let Some(sector) = sector.filter(|sector| self.found.file.holds_table(*sector)) else { continue };
                    if !self.found.file.read_table(sector, &mut entries)? {
                        continue;
                    }
                    for (index, entry) in entries.iter().enumerate() {
                        let grain = number * self.found.file.shape.entries + index as u64;
                        if let Entry::At(sectors) = self.found.entry(*entry, grain)
                            && grain < self.found.file.shape.grains()
                            && sectors.start >= self.found.data_sector
                        {
                            space.claim(sectors.range(), Use::Grain);
                        }
                    }
                }
            }
            for number in 0..self.found.file.shape.tables {
                let (first, copy) = (self.found.first_entry(number)?, self.found.redundant_entry(number)?);
                let places = [(first, &mut self.unsafe_first), (copy, &mut self.unsafe_copy)];
                for (sector, bits) in places {
                    let sectors = sector.map(|sector| self.found.table_sectors(sector));
                    if sectors.is_some_and(|sectors| space.has_grain(sectors)) {
                        bits.set(number as usize..number as usize + 1);
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn claim_metadata(&mut self, space: &mut Space) -> Result<()> {
        for (sectors, _) in self.found.fixed() {
            space.claim(sectors, Use::Metadata);
        }
        for number in 0..self.found.file.shape.tables {
            let index = number as usize;
            let first = self.found.first_entry(number)?.filter(|_| !self.found.lost.is_first(number));
            let redundant = self.found.redundant_entry(number)?.filter(|_| !self.found.lost.is_redundant(number));
            // Those that must move leave their place to the grains.
            let first = first.filter(|_| !self.unsafe_first.get(index));
            let redundant = redundant.filter(|_| !self.unsafe_copy.get(index));
            for sector in [first, redundant].into_iter().flatten() {
                space.claim(self.found.table_sectors(sector), Use::Metadata);
            }
        }
        Ok(())
    }

    /// Makes the file long enough for grains that begin inside of it; what is missing of them reads as zero.
    pub(super) fn complete_grains(&mut self) -> Result<()> {
        let (shape, len) = (self.found.file.shape, self.found.file.len);
        let grain_bytes = shape.grain_sectors * SECTOR;
        let mut end = len;
        let mut entries = Vec::new();
        for number in 0..shape.tables {
            let first = self.found.first_entry(number)?.filter(|_| !self.found.lost.is_first(number));
            let redundant = self.found.redundant_entry(number)?.filter(|_| !self.found.lost.is_redundant(number));
            let Some(sector) = first.or(redundant) else { continue };
            if !self.found.file.read_table(sector, &mut entries)? {
                continue;
            }
            for (index, entry) in entries.iter().enumerate() {
                let grain = number * shape.entries + index as u64;
                if grain < shape.grains()
                    && let Entry::Outside(start) = shape.entry(*entry, grain, len)
                    && u64::from(start) * SECTOR < len
                    && u64::from(start) >= self.found.data_sector
                {
                    let place = Place { table: Some(number), ..Place::grain(grain).at(start.into()) };
                    self.medium.note(ActionKind::CompleteGrains, place);
                    end = end.max(u64::from(start) * SECTOR + grain_bytes);
                }
            }
        }
        if end > len {
            self.medium.set_len(end)?;
            self.found.file.len = end;
        }
        // The last grain of the disk may be short: what would be its rest is kept free.
        let rest = if end.is_multiple_of(grain_bytes) { 0 } else { grain_bytes - SECTOR };
        self.medium.set_end(end + rest);
        Ok(())
    }
}
