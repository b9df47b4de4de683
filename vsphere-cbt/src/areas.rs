//! Sets of bytes as ascending ranges, and the algebra on them.
//!
//! ```
//! use vsphere_cbt::Areas;
//! let changed: Areas = [0..4096, 65536..131072].into_iter().collect();
//! let allocated: Areas = [0..65536, 98304..1 << 20].into_iter().collect();
//! assert_eq!(changed.intersect(&allocated).as_slice(), [0..4096, 98304..131072]);
//! ```

mod joiner;

use std::{fmt, iter::FusedIterator, num::NonZeroU64, ops::Range};

pub use self::joiner::Joiner;

/// A set of byte offsets, kept as ascending ranges that neither overlap nor touch nor are empty.
///
/// It holds 16 bytes a range in memory. For disks with millions of changed areas, work on the stream of
/// [`changed_areas`](crate::changed_areas) with a [`Joiner`] instead.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Areas {
    ranges: Vec<Range<u64>>,
}

impl Areas {
    /// The empty set.
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// The bytes of one range.
    pub fn of(range: Range<u64>) -> Self {
        [range].into_iter().collect()
    }

    /// The ranges, ascending.
    pub fn as_slice(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// The ranges, ascending.
    pub fn into_vec(self) -> Vec<Range<u64>> {
        self.ranges
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Range<u64>> + DoubleEndedIterator + FusedIterator + '_ {
        self.ranges.iter().cloned()
    }

    /// The number of ranges.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// True when there is no byte in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The number of bytes in the set. The whole of `u64` counts as `u64::MAX`, which is all that a range can hold.
    pub fn total(&self) -> u64 {
        // Cannot overflow: the ranges are disjoint parts of 0..u64::MAX.
        self.ranges.iter().map(len).sum()
    }

    /// From the first byte in the set to the last; empty at 0 for the empty set.
    pub fn span(&self) -> Range<u64> {
        match (self.ranges.first(), self.ranges.last()) {
            (Some(first), Some(last)) => first.start..last.end,
            _ => 0..0,
        }
    }

    /// True when `offset` is in the set.
    pub fn contains(&self, offset: u64) -> bool {
        self.ranges.get(self.first_ending_after(offset)).is_some_and(|range| range.start <= offset)
    }

    /// True when at least one byte of `range` is in the set.
    pub fn overlaps(&self, range: &Range<u64>) -> bool {
        !range.is_empty()
            && self.ranges.get(self.first_ending_after(range.start)).is_some_and(|found| found.start < range.end)
    }

    /// True when every byte of `range` is in the set.
    pub fn covers(&self, range: &Range<u64>) -> bool {
        let holds = |found: &Range<u64>| found.start <= range.start && range.end <= found.end;
        range.is_empty() || self.ranges.get(self.first_ending_after(range.start)).is_some_and(holds)
    }

    /// Adds the bytes of `range`. Cheap at the end of the set, linear in the ranges behind it elsewhere.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        // Everything that overlaps or touches the new range becomes one with it.
        let first = self.ranges.partition_point(|found| found.end < range.start);
        let last = first + self.ranges[first..].partition_point(|found| found.start <= range.end);
        let start = self.ranges[first..last].first().map_or(range.start, |found| found.start.min(range.start));
        let end = self.ranges[first..last].last().map_or(range.end, |found| found.end.max(range.end));
        self.ranges.splice(first..last, std::iter::once(start..end));
    }

    /// The bytes in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        let merged = std::iter::from_fn(|| match (left.peek(), right.peek()) {
            (Some(a), Some(b)) if a.start <= b.start => left.next(),
            (_, Some(_)) => right.next(),
            _ => left.next(),
        });
        Joiner::new().join(merged.cloned()).collect_ascending()
    }

    /// The bytes in both sets.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let (mut left, mut right) = (&self.ranges[..], &other.ranges[..]);
        let mut ranges = Vec::new();
        while let ([a, after_a @ ..], [b, after_b @ ..]) = (left, right) {
            let common = a.start.max(b.start)..a.end.min(b.end);
            if !common.is_empty() {
                ranges.push(common);
            }
            if a.end <= b.end {
                left = after_a;
            } else {
                right = after_b;
            }
        }
        Self { ranges }
    }

    /// The bytes of this set that are not in `other`.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        let mut ranges = Vec::new();
        let mut holes = &other.ranges[..];
        for range in &self.ranges {
            let mut start = range.start;
            while let [hole, rest @ ..] = holes {
                if hole.start >= range.end {
                    break;
                }
                if start < hole.start {
                    ranges.push(start..hole.start);
                }
                start = start.max(hole.end);
                if hole.end > range.end {
                    break; // It also reaches into ranges that come.
                }
                holes = rest;
            }
            if start < range.end {
                ranges.push(start..range.end);
            }
        }
        Self { ranges }
    }

    /// The bytes of `whole` that are not in the set.
    #[must_use]
    pub fn complement(&self, whole: Range<u64>) -> Self {
        Self::of(whole).subtract(self)
    }

    /// The bytes of the set inside `window`.
    #[must_use]
    pub fn clip(&self, window: Range<u64>) -> Self {
        self.intersect(&Self::of(window))
    }

    /// Joins ranges that are at most `max_gap` bytes apart; the bytes between them become part of the set.
    ///
    /// Fewer, longer reads in exchange for bytes that nobody asked for.
    #[must_use]
    pub fn coalesce(&self, max_gap: u64) -> Self {
        Joiner::new().gap(max_gap).join(self.iter()).collect_ascending()
    }

    /// Grows every range to whole cells of `grid` bytes, but not beyond `limit`, the disk's capacity.
    ///
    /// What already lies at or beyond `limit` is dropped.
    #[must_use]
    pub fn align(&self, grid: NonZeroU64, limit: u64) -> Self {
        Joiner::new().grid(grid, limit).join(self.iter()).collect_ascending()
    }

    /// The set cut at the multiples of `cell`: ascending pieces, none of which crosses one.
    pub fn pieces(&self, cell: NonZeroU64) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().flat_map(move |range| pieces(range.clone(), cell))
    }

    fn first_ending_after(&self, offset: u64) -> usize {
        self.ranges.partition_point(|range| range.end <= offset)
    }
}

/// Cuts `range` at the multiples of `cell`: ascending pieces, none of which crosses one.
pub fn pieces(range: Range<u64>, cell: NonZeroU64) -> impl Iterator<Item = Range<u64>> {
    let mut rest = range;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let border = (rest.start / cell).checked_add(1).and_then(|next| next.checked_mul(cell.get()));
        let piece = rest.start..border.unwrap_or(u64::MAX).min(rest.end);
        rest.start = piece.end;
        Some(piece)
    })
}

/// Any ranges in any order; empty ones are left out, the rest is sorted and merged.
impl FromIterator<Range<u64>> for Areas {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        // Answers of servers and our own results come sorted; then this is one pass.
        ranges.sort_by_key(|range| range.start);
        Joiner::new().join(ranges.into_iter()).collect_ascending()
    }
}

impl Extend<Range<u64>> for Areas {
    fn extend<I: IntoIterator<Item = Range<u64>>>(&mut self, ranges: I) {
        let more: Self = ranges.into_iter().collect();
        *self = self.union(&more);
    }
}

impl IntoIterator for Areas {
    type Item = Range<u64>;
    type IntoIter = std::vec::IntoIter<Range<u64>>;

    fn into_iter(self) -> Self::IntoIter {
        self.ranges.into_iter()
    }
}

impl fmt::Debug for Areas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(&self.ranges).finish()
    }
}

/// The end of a chain of iterators that is known to keep the invariant.
trait CollectAscending: Iterator<Item = Range<u64>> + Sized {
    fn collect_ascending(self) -> Areas {
        Areas { ranges: self.collect() }
    }
}

impl<I: Iterator<Item = Range<u64>>> CollectAscending for joiner::Join<I> {}

fn len(range: &Range<u64>) -> u64 {
    range.end - range.start
}

#[cfg(test)]
mod tests {
    use super::*;

    fn areas<const N: usize>(ranges: [Range<u64>; N]) -> Areas {
        ranges.into_iter().collect()
    }

    #[test]
    fn unsorted_overlapping_and_empty_ranges_become_a_set() {
        let set = areas([50..60, 0..10, 5..20, 30..30, 20..25]);
        assert_eq!(set.as_slice(), [0..25, 50..60]);
        assert_eq!((set.len(), set.total(), set.span()), (2, 35, 0..60));
    }

    #[test]
    fn insert_joins_what_it_touches() {
        let mut set = areas([0..10, 20..30, 40..50]);
        set.insert(10..20);
        assert_eq!(set.as_slice(), [0..30, 40..50]);
        set.insert(35..36);
        set.insert(7..7);
        assert_eq!(set.as_slice(), [0..30, 35..36, 40..50]);
    }

    #[test]
    fn coalesce_keeps_gaps_that_are_larger() {
        let set = areas([0..10, 14..20, 25..30]);
        assert_eq!(set.coalesce(4).as_slice(), [0..20, 25..30]);
        assert_eq!(set.coalesce(5).as_slice(), [0..30]);
    }

    #[test]
    fn align_stops_at_the_end_of_the_disk() {
        let grid = NonZeroU64::new(64).unwrap();
        assert_eq!(areas([1..2, 63..65, 200..210]).align(grid, 215).as_slice(), [0..128, 192..215]);
        assert_eq!(areas([10..20, 300..310]).align(grid, 215).as_slice(), [0..64]);
    }

    #[test]
    fn the_largest_offsets_do_not_overflow() {
        let end = areas([u64::MAX - 3..u64::MAX]);
        let grid = NonZeroU64::new(1 << 20).unwrap();
        assert_eq!(end.align(grid, u64::MAX).span().end, u64::MAX);
        assert_eq!(end.coalesce(u64::MAX), end);
        assert_eq!(pieces(u64::MAX - 3..u64::MAX, grid).count(), 1);
        assert_eq!(Areas::of(0..u64::MAX).total(), u64::MAX);
    }
}
