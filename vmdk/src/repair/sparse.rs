//! Hosted sparse extents: both directories and their tables made sound, and each grain given a place of its own.
//!
//! Order of writes: copies of grains and new tables go behind the end of the file and are synced; then entries are
//! changed, each of which led nowhere or to the same bytes before; then directory entries; the header last. So an
//! interrupted repair leaves a file in which every grain reads as before or better, and a second repair ends the work.

use std::ops::Range;

use super::{action::ActionKind, medium::Medium};
use crate::{
    SECTOR,
    check::{
        Place,
        internal::{Bits, Directory, Entry, Inspection, Packed, Space, Use, Verdict},
    },
    error::Result,
    layout::SparseHeader,
};

/// A repair of directories and tables.
pub(super) struct Mender<'a> {
    pub(super) medium: &'a mut Medium,
    pub(super) header: SparseHeader,
    pub(super) found: Inspection,
    /// Entries by markers, for the tables of a window; a stream's only.
    pub(super) scanned: Scanned,
    pub(super) packed: Option<Packed>,
    pub(super) memory: usize,
    /// Tables that must not be written where they are, by number.
    unsafe_first: Bits,
    unsafe_copy: Bits,
    /// The first directory is a new one.
    made_first: bool,
    /// Header fields to change when everything else is in its place.
    header_fields: Vec<(u64, u64)>,
}

/// Places of grains that a scan of markers found: the entries of some tables.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub(super) tables: Range<u64>,
    pub(super) entries: Vec<u32>,
}

impl Scanned {
    fn entry(&self, shape_entries: u64, grain: u64) -> u32 {
        let index = grain.checked_sub(self.tables.start * shape_entries);
        index.and_then(|index| self.entries.get(index as usize)).copied().unwrap_or(0)
    }
}

/// Where a table and its copy are, and what to do when they have no place.
#[derive(Debug, Clone, Copy, Default)]
struct Places {
    first: Option<u32>,
    redundant: Option<u32>,
}

impl<'a> Mender<'a> {
    pub(super) fn new(
        medium: &'a mut Medium,
        header: SparseHeader,
        found: Inspection,
        packed: Option<Packed>,
        memory: usize,
    ) -> Self {
        let tables = || Bits::new(found.file.shape.tables as usize);
        let (unsafe_first, unsafe_copy) = (tables(), tables());
        let (scanned, header_fields) = (Scanned::default(), Vec::new());
        Self {
            medium,
            header,
            found,
            scanned,
            packed,
            memory,
            unsafe_first,
            unsafe_copy,
            made_first: false,
            header_fields,
        }
    }

    /// Makes missing directories, and finds what the tables need to be merged.
    pub(super) fn prepare(&mut self) -> Result<()> {
        if self.packed.is_none() {
            self.complete_grains()?;
        }
        self.find_shared()?;
        if self.packed.is_none() {
            self.find_tables_on_grains()?;
        }
        let entries = self.found.file.shape.tables;
        if self.found.first.is_none() {
            self.found.first = Some(self.make_directory(ActionKind::RestoreDirectory, entries)?);
            self.made_first = true;
        }
        if self.found.redundant.is_none() && self.found.keeps_redundant {
            self.found.redundant = Some(self.make_directory(ActionKind::MakeRedundantDirectory, entries)?);
        }
        Ok(())
    }

    /// Repairs all tables of a file whose grains have one size.
    pub(super) fn mend_plain(&mut self) -> Result<()> {
        for window in Space::windows(self.found.sectors(), self.memory) {
            let is_first = window.start == 0;
            if !is_first && !self.medium.is_dry {
                // With what was moved behind its end for the windows before.
                self.found.file.has_grown()?;
            }
            let mut space = Space::new(window);
            self.claim_metadata(&mut space)?;
            for number in 0..self.found.file.shape.tables {
                self.mend_table(number, Some(&mut space), is_first)?;
            }
        }
        self.finish()
    }

    /// Repairs one table and its copy. Grains that share their place are found with `space`.
    pub(super) fn mend_table(&mut self, number: u64, space: Option<&mut Space>, is_first: bool) -> Result<()> {
        let first = self.found.first_entry(number)?;
        let redundant = self.found.redundant_entry(number)?;
        let index = number as usize;
        let copy = redundant.filter(|_| !self.found.lost.is_redundant(number));
        let inside = first.filter(|sector| self.found.file.holds_table(*sector));
        let is_doubtful = self.found.lost.is_first(number) || self.unsafe_first.get(index);
        let is_copy_doubtful = self.unsafe_copy.get(index);
        // A table that shares its place is not believed where there is a copy that does not.
        let source = inside.filter(|_| !is_doubtful || copy.is_none() || is_copy_doubtful);
        let places = Places { first: inside.filter(|_| !is_doubtful), redundant: copy.filter(|_| !is_copy_doubtful) };
        let mut entries = Vec::new();
        let mut copied = Vec::new();
        let place = Place::table(number);
        if let Some(sector) = source {
            self.found.file.read_table(sector, &mut entries)?;
        }
        if let Some(sector) = copy {
            self.found.file.read_table(sector, &mut copied)?;
        }
        let old = entries.clone();
        if source.is_none() && copy.is_none() {
            entries.resize(self.found.file.shape.entries as usize, 0);
        } else if source.is_none() {
            entries.clone_from(&copied);
        }
        let fills = !is_copy_doubtful && self.is_superset(number, &entries, &copied)?;
        self.merge(number, &mut entries, &copied, fills, is_first)?;
        if let Some(space) = space {
            self.separate(number, &mut entries, space)?;
        }
        let is_empty = entries.iter().all(|entry| *entry == 0);
        if source.is_none() && copy.is_none() && is_empty {
            if is_first && first.or(redundant).is_some() {
                self.medium.note(ActionKind::DropTables, place);
                self.set_directories(number, Some(0), redundant.map(|_| 0))?;
            }
            return Ok(());
        }
        // Writers make tables when they need them, but expect a new directory to have those that the other has.
        if first.is_none() && is_empty && !(self.made_first && copy.is_some()) {
            return Ok(());
        }
        self.store(number, places, &entries, (&old, &copied), source.is_some(), is_first)
    }

    /// Clears the mark of an unclean shutdown, when asked to, and waits for stable storage.
    pub(super) fn finish(&mut self) -> Result<()> {
        if !self.header_fields.is_empty() {
            self.medium.sync()?;
        }
        for (field, sector) in std::mem::take(&mut self.header_fields) {
            self.medium.write(field, &sector.to_le_bytes())?;
        }
        if self.header.unclean_shutdown && self.packed.is_none() {
            self.medium.note(ActionKind::ClearUnclean, Place::sector(0));
            self.medium.sync()?;
            self.medium.write(SparseHeader::UNCLEAN_OFFSET, &[0])?;
        }
        self.medium.sync()
    }

    /// Writes a table and its copy: to their places, or to new ones where they have none.
    fn store(
        &mut self,
        number: u64,
        places: Places,
        entries: &[u32],
        (old, copied): (&[u32], &[u32]),
        had_source: bool,
        is_first: bool,
    ) -> Result<()> {
        let place = Place::table(number);
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        let keeps_copy = self.found.redundant.is_some();
        let (mut new_first, mut new_copy) = (None, None);
        if places.first.is_none() && is_first {
            let kind = if had_source { ActionKind::MoveTables } else { ActionKind::RestoreTables };
            self.medium.note(kind, place);
            new_first = Some(self.append_table(&bytes)?);
        }
        if keeps_copy && places.redundant.is_none() && is_first {
            self.medium.note(ActionKind::MakeCopies, place);
            new_copy = Some(self.append_table(&bytes)?);
        }
        if let Some(sector) = places.redundant.filter(|_| copied != entries) {
            if is_first && places.first.is_some() && copied != old {
                self.medium.note(ActionKind::MatchCopies, place.at(sector.into()));
            }
            self.medium.write(u64::from(sector) * SECTOR, &bytes)?;
        }
        if let Some(sector) = places.first.filter(|_| old != entries) {
            self.medium.write(u64::from(sector) * SECTOR, &bytes)?;
        }
        self.set_directories(number, new_first, new_copy)?;
        if !self.medium.is_dry {
            // In the windows to come they are tables like others.
            if new_first.is_some() {
                self.found.lost.found_first(number);
                self.unsafe_first.clear(number as usize);
            }
            if new_copy.is_some() {
                self.found.lost.found_redundant(number);
                self.unsafe_copy.clear(number as usize);
            }
        }
        Ok(())
    }

    fn append_table(&mut self, bytes: &[u8]) -> Result<u32> {
        // Streams have a marker before each table.
        if self.packed.is_some() {
            let kind = crate::layout::MetadataKind::Table;
            let marker = crate::layout::Marker::Metadata { kind, sectors: bytes.len() as u64 / SECTOR };
            self.medium.append(&marker.encode(), SECTOR)?;
        }
        self.medium.append(bytes, SECTOR)
    }

    fn set_directories(&mut self, number: u64, first: Option<u32>, redundant: Option<u32>) -> Result<()> {
        let directories = [(&mut self.found.first, first), (&mut self.found.redundant, redundant)];
        for (directory, sector) in directories {
            if let Some((directory, sector)) = directory.as_mut().zip(sector) {
                self.medium.write(directory.offset + number * 4, &sector.to_le_bytes())?;
                directory.set(number, sector);
            }
        }
        Ok(())
    }

    /// Whether a copy may know more than the table: all that it says is possible, and it differs from the table only
    /// where that has nothing, or nothing possible.
    fn is_superset(&mut self, number: u64, entries: &[u32], copied: &[u32]) -> Result<bool> {
        let entries_per_table = self.found.file.shape.entries;
        for (index, (entry, other)) in entries.iter().zip(copied).enumerate() {
            let grain = number * entries_per_table + index as u64;
            if entry != other
                && (!(*other <= 1 || self.is_sound(*other, grain)?) || *entry == 1 || self.is_sound(*entry, grain)?)
            {
                return Ok(false);
            }
        }
        Ok(!copied.is_empty())
    }

    /// The best of a table, its copy and the markers: what can be right in the first stays; what cannot is taken from
    /// the others, and what is empty too where the copy `fills` it; what is nowhere right, and outside of the file, is
    /// dropped.
    fn merge(&mut self, number: u64, entries: &mut [u32], copied: &[u32], fills: bool, is_first: bool) -> Result<()> {
        let shape = self.found.file.shape;
        for (index, entry) in entries.iter_mut().enumerate() {
            let grain = number * shape.entries + index as u64;
            // 1 is a grain of zeros, and no place.
            if grain >= shape.grains() || *entry == 1 || self.is_sound(*entry, grain)? {
                continue;
            }
            let copy = copied.get(index).copied().filter(|_| fills || *entry != 0).unwrap_or(0);
            let others = [copy, self.scanned.entry(shape.entries, grain)];
            let mut better = None;
            for other in others {
                if better.is_none() && self.is_sound(other, grain)? {
                    better = Some(other);
                }
            }
            let is_readable = self.packed.is_none() && matches!(self.found.entry(*entry, grain), Entry::At(_));
            let place = Place { table: Some(number), ..Place::grain(grain) };
            if let Some(better) = better {
                if is_first {
                    self.medium.note(ActionKind::RestoreEntries, place.at(better.into()));
                }
                *entry = better;
            } else if *entry != 0 && !is_readable {
                if is_first {
                    self.medium.note(ActionKind::DropEntries, place.at((*entry).into()));
                }
                *entry = 0;
            }
        }
        Ok(())
    }

    /// Whether an entry leads to where its grain can be.
    fn is_sound(&mut self, entry: u32, grain: u64) -> Result<bool> {
        let Entry::At(sectors) = self.found.entry(entry, grain) else { return Ok(false) };
        match &mut self.packed {
            None => Ok(sectors.start >= self.found.data_sector),
            Some(packed) => {
                let disk_sector = grain * self.found.file.shape.grain_sectors;
                Ok(matches!(packed.judge(sectors.start, disk_sector)?, Verdict::Sound(_)))
            }
        }
    }

    /// Gives grains that lie on metadata or on a grain before them a copy of what they read now.
    fn separate(&mut self, number: u64, entries: &mut [u32], space: &mut Space) -> Result<()> {
        let shape = self.found.file.shape;
        let grain_bytes = shape.grain_sectors * SECTOR;
        for (index, entry) in entries.iter_mut().enumerate() {
            let grain = number * shape.entries + index as u64;
            let Entry::At(sectors) = self.found.entry(*entry, grain) else { continue };
            if grain >= shape.grains() || space.claim(sectors.range(), Use::Grain).is_none() {
                continue;
            }
            let place = Place { table: Some(number), ..Place::grain(grain).at((*entry).into()) };
            self.medium.note(ActionKind::MoveGrains, place);
            if self.medium.is_dry {
                *entry = self.medium.reserve(grain_bytes, grain_bytes)?;
                continue;
            }
            let mut bytes = vec![0; grain_bytes as usize];
            let len = ((sectors.end - sectors.start) * SECTOR) as usize;
            self.medium.backing.read(sectors.start * SECTOR, &mut bytes[..len])?;
            *entry = self.medium.append(&bytes, grain_bytes)?;
        }
        Ok(())
    }

    /// Finds the tables that are where a table lies that was found to overlap: either may be the wrong one.
    fn find_shared(&mut self) -> Result<()> {
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
    fn find_tables_on_grains(&mut self) -> Result<()> {
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

    fn claim_metadata(&mut self, space: &mut Space) -> Result<()> {
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
    fn complete_grains(&mut self) -> Result<()> {
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

    /// An empty directory behind the end of the file. The header will name it when it is complete.
    fn make_directory(&mut self, kind: ActionKind, entries: u64) -> Result<Directory> {
        let bytes = (entries * 4).next_multiple_of(SECTOR);
        let sector = self.medium.reserve(bytes, SECTOR)?;
        let field = if kind == ActionKind::RestoreDirectory { GD_FIELD } else { RGD_FIELD };
        self.medium.note(kind, Place::sector(sector.into()));
        self.medium.set_len(self.medium.end())?;
        self.header_fields.push((field, sector.into()));
        Ok(Directory::blank(sector.into(), entries, !self.medium.is_dry))
    }
}

/// Where the header has the sectors of the two directories.
const GD_FIELD: u64 = 56;
const RGD_FIELD: u64 = 48;
