//! Writing tables and directories, in the order that leaves the file readable at every moment.

use super::{Mender, Places};
use crate::{
    SECTOR,
    check::{Place, internal::Directory},
    error::Result,
    layout::{Marker, MetadataKind},
    repair::action::ActionKind,
};

impl Mender<'_> {
    /// Writes a table and its copy: to their places, or to new ones where they have none.
    pub(super) fn store(
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
            let kind = MetadataKind::Table;
            let marker = Marker::Metadata { kind, sectors: bytes.len() as u64 / SECTOR };
            self.medium.append(&marker.encode(), SECTOR)?;
        }
        self.medium.append(bytes, SECTOR)
    }

    pub(super) fn set_directories(&mut self, number: u64, first: Option<u32>, redundant: Option<u32>) -> Result<()> {
        let directories = [(&mut self.found.first, first), (&mut self.found.redundant, redundant)];
        for (directory, sector) in directories {
            if let Some((directory, sector)) = directory.as_mut().zip(sector) {
                self.medium.write(directory.offset + number * 4, &sector.to_le_bytes())?;
                directory.set(number, sector);
            }
        }
        Ok(())
    }

    /// An empty directory behind the end of the file. The header will name it when it is complete.
    pub(super) fn make_directory(&mut self, kind: ActionKind, entries: u64) -> Result<Directory> {
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
