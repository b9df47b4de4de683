//! The account of a salvage: which grains came, and what the tables behind them say of that.

use super::{
    Misplaced, Salvager,
    report::{MOST_ENTRIES, add, insert, remove},
};
use crate::{MAX_CAPACITY, SECTOR, layout::ENTRIES_PER_TABLE};

impl Salvager {
    /// Judges grains by the table that follows them: which were lost, which are not where they should be.
    pub(super) fn judge(&mut self, table: &[u32]) {
        let entries = u64::from(ENTRIES_PER_TABLE);
        let named = |sector: u64| table.iter().position(|entry| u64::from(*entry) == sector).map(|entry| entry as u64);
        // A table does not say which it is; the grains that agree with it do.
        let agrees = |(number, sector): &&(u64, u64)| named(*sector) == Some(number % entries);
        let Some((number, _)) = self.recent.iter().rev().find(agrees) else { return };
        let first = number - number % entries;
        let recent = std::mem::take(&mut self.recent);
        // A table has no checksum. It must name all grains that came before it, and none that cannot have.
        let place = self.at / SECTOR;
        let of_it = |number: &u64| (first..first + entries).contains(number);
        let is_sound = table.iter().all(|entry| *entry == 0 || u64::from(*entry) < place)
            && recent.iter().all(|(number, sector)| !of_it(number) || named(*sector).is_some());
        if !is_sound {
            self.report.damages += 1;
            return;
        }
        for (given, sector) in &recent {
            if let Some(entry) = named(*sector).filter(|entry| first + entry != *given)
                && self.report.misplaced.len() < MOST_ENTRIES
            {
                let [given, named] = [*given, first + entry].map(|number| number * self.grain_bytes);
                self.report.misplaced.push(Misplaced { given, named });
            }
        }
        let capacity = self.report.capacity.unwrap_or(MAX_CAPACITY);
        let bytes = |number: u64| (number * self.grain_bytes).min(capacity);
        remove(&mut self.report.unknown, &(bytes(first)..bytes(first + entries)));
        let mut lost = Vec::new();
        for (number, entry) in (first..).zip(table).filter(|(_, entry)| **entry > 1) {
            if !recent.iter().any(|(_, sector)| *sector == u64::from(*entry)) {
                add(&mut lost, bytes(number)..bytes(number + 1));
            }
        }
        insert(&mut self.report.lost, lost);
        // All that the table covers is known now.
        self.gap_from = self.gap_from.max(bytes(first + entries));
        self.is_hurt = false;
    }

    /// Takes note of a whole grain, and of the gap before it where something was not understood.
    pub(super) fn note_grain(&mut self, number: u64, sector: u64) {
        let offset = number * self.grain_bytes;
        if offset < self.gap_from {
            self.report.is_ordered = false;
        } else if self.is_hurt {
            add(&mut self.report.unknown, self.gap_from..offset);
        }
        self.is_hurt = false;
        self.gap_from = self.gap_from.max(offset + self.grain_bytes);
        self.report.grains += 1;
        if self.recent.len() >= ENTRIES_PER_TABLE as usize {
            self.recent.pop_front();
        }
        self.recent.push_back((number, sector));
    }
}
