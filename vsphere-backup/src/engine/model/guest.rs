//! A disk as its guest and its host see it.

use std::ops::Range;

/// A guest's disk, and what its host knows of changes.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    pub(super) bytes: Vec<u8>,
    pub(super) allocated: Vec<Range<u64>>,
    /// Each with the moment at which it was made.
    changes: Vec<(u64, Range<u64>)>,
    pub(super) change: ChangeId,
}

/// Moments of one epoch can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChangeId {
    pub(super) epoch: u32,
    pub(super) moment: u64,
}

impl Guest {
    pub(super) fn new() -> Self {
        let change = ChangeId { epoch: 0, moment: 0 };
        Self { bytes: vec![0; CAPACITY as usize], allocated: vec![], changes: vec![], change }
    }

    pub(super) fn range(&self, at: u64, sectors: u64) -> Range<u64> {
        let end = self.bytes.len() as u64;
        at * SECTOR..((at + sectors) * SECTOR).min(end)
    }

    fn touch(&mut self, range: Range<u64>) {
        self.changes.push((self.change.moment, range));
    }

    pub(super) fn write(&mut self, range: Range<u64>, fill: u8) {
        // The same bytes at the same place within a chunk, whichever chunk it is.
        for at in range.clone() {
            self.bytes[at as usize] = if fill == 0 { 0 } else { (at % CHUNK / 7) as u8 ^ fill };
        }
        self.touch(range.clone());
        self.allocated.push(range);
        self.allocated = union(std::mem::take(&mut self.allocated));
    }

    pub(super) fn trim(&mut self, range: Range<u64>) {
        self.bytes[range.start as usize..range.end as usize].fill(0);
        self.touch(range.clone());
        let outside = |area: &Range<u64>| [area.start..area.end.min(range.start), area.start.max(range.end)..area.end];
        self.allocated = self.allocated.iter().flat_map(outside).filter(|area| area.start < area.end).collect();
    }

    pub(super) fn grow(&mut self, sectors: u64) {
        let len = self.bytes.len() as u64 + sectors * SECTOR;
        if len <= 2 * CAPACITY {
            self.bytes.resize(len as usize, 0);
        }
    }

    /// Returns the disk as it stands. What is written later is of a later moment.
    pub(super) fn snapshot(&mut self) -> Self {
        let now = self.clone();
        self.change.moment += 1;
        now
    }

    pub(super) fn changes_since(&self, then: ChangeId) -> Option<Vec<Range<u64>>> {
        let known = then.epoch == self.change.epoch;
        let later = self.changes.iter().filter(|(moment, _)| *moment > then.moment);
        known.then(|| union(later.map(|(_, range)| range.clone()).collect()))
    }
}

/// Puts ranges in order, those that overlap or touch as one.
fn union(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut found: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match found.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => found.push(range),
        }
    }
    found
}

pub(super) const SECTOR: u64 = 512;
pub(super) const CHUNK: u64 = 64 << 10;
/// At the begin; it ends within a chunk.
pub(super) const CAPACITY: u64 = 12 * CHUNK + 3 * SECTOR;
