//! Aligning and joining of ranges that arrive one by one.

use std::{num::NonZeroU64, ops::Range};

/// Joins an ascending sequence of ranges on the fly: a state machine that holds one range.
///
/// It turns what a server reports into what a program wants to read: on a grid, without small gaps, each byte once.
///
/// ```
/// use std::num::NonZeroU64;
/// use vsphere_cbt::areas::Joiner;
/// let mut joiner = Joiner::new().grid(NonZeroU64::new(100).unwrap(), 1000);
/// assert_eq!(joiner.push(10..20), None);
/// assert_eq!(joiner.push(150..160), None); // touches after alignment
/// assert_eq!(joiner.push(900..910), Some(0..200));
/// assert_eq!(joiner.finish(), Some(900..1000));
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Joiner {
    grid: NonZeroU64,
    limit: u64,
    gap: u64,
    pending: Option<Range<u64>>,
}

impl Joiner {
    /// Joins what overlaps or touches.
    pub const fn new() -> Self {
        Self { grid: NonZeroU64::MIN, limit: u64::MAX, gap: 0, pending: None }
    }

    /// Grows ranges to whole cells of `grid` bytes, but not beyond `limit`; what lies beyond it is dropped.
    pub const fn grid(self, grid: NonZeroU64, limit: u64) -> Self {
        Self { grid, limit, ..self }
    }

    /// Joins what is at most `bytes` apart.
    pub const fn gap(self, bytes: u64) -> Self {
        Self { gap: bytes, ..self }
    }

    /// Takes the next range; returns one that is complete, if any.
    ///
    /// Ranges have to come by ascending start. One that starts before its predecessor is joined to it, so that no byte
    /// is lost; results that were handed out before may then overlap.
    pub fn push(&mut self, range: Range<u64>) -> Option<Range<u64>> {
        let range = self.on_grid(range)?;
        match &mut self.pending {
            Some(last) if range.start <= last.end.saturating_add(self.gap) => {
                last.start = last.start.min(range.start);
                last.end = last.end.max(range.end);
                None
            }
            last => last.replace(range),
        }
    }

    /// The last range. The joiner is then as new.
    pub fn finish(&mut self) -> Option<Range<u64>> {
        self.pending.take()
    }

    /// All of it over an iterator.
    pub(super) fn join<I: Iterator<Item = Range<u64>>>(self, ranges: I) -> Join<I> {
        Join { joiner: self, ranges: ranges.fuse() }
    }

    fn on_grid(&self, range: Range<u64>) -> Option<Range<u64>> {
        if range.is_empty() || range.start >= self.limit {
            return None;
        }
        let start = range.start - range.start % self.grid;
        let end = range.end.checked_next_multiple_of(self.grid.get()).unwrap_or(u64::MAX);
        Some(start..end.min(self.limit))
    }
}

impl Default for Joiner {
    fn default() -> Self {
        Self::new()
    }
}

/// The joined ranges of an iterator.
pub(super) struct Join<I> {
    joiner: Joiner,
    ranges: std::iter::Fuse<I>,
}

impl<I: Iterator<Item = Range<u64>>> Iterator for Join<I> {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        let Self { joiner, ranges } = self;
        ranges.find_map(|range| joiner.push(range)).or_else(|| joiner.finish())
    }
}
