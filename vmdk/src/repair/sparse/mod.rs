//! Hosted sparse extents: both directories and their tables made sound, and each grain given a place of its own.
//!
//! Order of writes: copies of grains and new tables go behind the end of the file and are synced; then entries are
//! changed, each of which led nowhere or to the same bytes before; then directory entries; the header last. So an
//! interrupted repair leaves a file in which every grain reads as before or better, and a second repair ends the work.

mod conflicts;
mod merge;
mod store;

pub(super) use self::merge::Scanned;
use super::{action::ActionKind, medium::Medium};
use crate::{
    check::{
        Place,
        internal::{Bits, Inspection, Packed, Space},
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
}
