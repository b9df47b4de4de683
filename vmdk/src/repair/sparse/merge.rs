//! What a table should say: the best of it, its copy and the markers, with a place of its own for each grain.

use std::ops::Range;

use super::Mender;
use crate::{
    SECTOR,
    check::{
        Place,
        internal::{Entry, Space, Use, Verdict},
    },
    error::Result,
    repair::action::ActionKind,
};

/// Places of grains that a scan of markers found: the entries of some tables.
#[derive(Debug, Default)]
pub(in crate::repair) struct Scanned {
    pub(in crate::repair) tables: Range<u64>,
    pub(in crate::repair) entries: Vec<u32>,
}

impl Scanned {
    fn entry(&self, shape_entries: u64, grain: u64) -> u32 {
        let index = grain.checked_sub(self.tables.start * shape_entries);
        index.and_then(|index| self.entries.get(index as usize)).copied().unwrap_or(0)
    }
}

impl Mender<'_> {
    /// Whether a copy may know more than the table: all that it says is possible, and it differs from the table only
    /// where that has nothing, or nothing possible.
    pub(super) fn is_superset(&mut self, number: u64, entries: &[u32], copied: &[u32]) -> Result<bool> {
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
    pub(super) fn merge(
        &mut self,
        number: u64,
        entries: &mut [u32],
        copied: &[u32],
        fills: bool,
        is_first: bool,
    ) -> Result<()> {
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
    pub(super) fn is_sound(&mut self, entry: u32, grain: u64) -> Result<bool> {
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
    pub(super) fn separate(&mut self, number: u64, entries: &mut [u32], space: &mut Space) -> Result<()> {
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
}
