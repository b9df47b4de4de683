//! What a salvage found, and what it did not.

use std::ops::Range;

/// What is known about a stream after its salvage.
///
/// A stream says where grains are, not where none are. So what no grain covers is one of three: a hole, where the
/// stream is whole around it; [lost](Self::lost), where a grain table that survived names a grain that did not; or
/// [unknown](Self::unknown), where the stream is damaged or cut and no table tells. What is unknown may have been
/// data or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Size of the disk in bytes; `None` when neither the header nor the caller says it.
    pub capacity: Option<u64>,
    /// The header cannot be read.
    pub header_is_damaged: bool,
    /// Grains that are whole: their checksums agree.
    pub grains: u64,
    /// Places of the stream that are no part of it: where damage begins, not how far it goes.
    pub damages: u64,
    /// Areas of the disk that had data and have none now, ascending.
    pub lost: Vec<Range<u64>>,
    /// Areas of the disk of which nothing is known, ascending. Where [`is_ordered`](Self::is_ordered) does not hold,
    /// this is all that no grain covers, and not listed.
    pub unknown: Vec<Range<u64>>,
    /// Grains that a table places elsewhere than their markers: their data are whole, their place is not sure.
    pub misplaced: Vec<Misplaced>,
    /// Grains came in ascending order. Where they did not, nothing follows from a gap between two of them.
    pub is_ordered: bool,
    /// The stream's end was reached: nothing is missing behind the last grain.
    pub is_ended: bool,
    /// So much looked like grains and was none that some of the stream was not tried.
    pub is_exhausted: bool,
}

/// A grain whose marker and table disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misplaced {
    /// The offset in the disk at which it was given out.
    pub given: u64,
    /// The offset in the disk at which the table has it.
    pub named: u64,
}

impl SalvageReport {
    /// Whether the stream is whole, as far as one reading can say.
    pub fn is_whole(&self) -> bool {
        self.damages == 0
            && self.is_ended
            && !self.header_is_damaged
            && self.lost.is_empty()
            && self.unknown.is_empty()
            && self.misplaced.is_empty()
    }
}

/// Adds a range behind the others. Lists are bounded: when one is full, its last range grows over what it has not.
pub(super) fn add(list: &mut Vec<Range<u64>>, range: Range<u64>) {
    if range.is_empty() {
        return;
    }
    let is_full = list.len() >= MOST_ENTRIES;
    match list.last_mut() {
        Some(last) if last.end >= range.start || is_full => last.end = last.end.max(range.end),
        _ => list.push(range),
    }
}

/// Adds ascending ranges wherever they belong among the others.
pub(super) fn insert(list: &mut Vec<Range<u64>>, ranges: Vec<Range<u64>>) {
    let goes_back = list.last().zip(ranges.first()).is_some_and(|(last, first)| first.start < last.start);
    if !goes_back {
        ranges.into_iter().for_each(|range| add(list, range));
        return;
    }
    let mut all = std::mem::take(list);
    all.extend(ranges);
    // Two runs that ascend: sorting them only merges.
    all.sort_by_key(|range| range.start);
    all.into_iter().for_each(|range| add(list, range));
}

/// Takes `range` out of ascending ranges, at whose end it lies.
pub(super) fn remove(list: &mut Vec<Range<u64>>, range: &Range<u64>) {
    let mut behind = Vec::new();
    while let Some(last) = list.pop_if(|last| last.end > range.start) {
        if last.end > range.end {
            behind.push(range.end.max(last.start)..last.end);
        }
        if last.start < range.start {
            list.push(last.start..range.start);
            break;
        }
    }
    list.extend(behind.into_iter().rev());
}

/// Entries of a list in the report.
pub(super) const MOST_ENTRIES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_joined_and_cut() {
        let mut list = Vec::new();
        for range in [0..5, 5..7, 9..9, 10..20, 30..40] {
            add(&mut list, range);
        }
        assert_eq!(list, [0..7, 10..20, 30..40]);
        remove(&mut list, &(15..35));
        assert_eq!(list, [0..7, 10..15, 35..40]);
        remove(&mut list, &(36..37));
        assert_eq!(list, [0..7, 10..15, 35..36, 37..40]);
        remove(&mut list, &(0..100));
        assert_eq!(list, []);
    }

    #[test]
    fn ranges_of_a_table_that_comes_late_are_kept() {
        let mut list = Vec::new();
        insert(&mut list, vec![50..60, 70..80]);
        insert(&mut list, vec![0..5, 10..20]);
        assert_eq!(list, [0..5, 10..20, 50..60, 70..80]);
        insert(&mut list, vec![55..65, 80..90]);
        assert_eq!(list, [0..5, 10..20, 50..65, 70..90]);
        insert(&mut list, vec![]);
        assert_eq!(list.len(), 4);
    }
}
