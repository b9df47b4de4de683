//! Which parts of a disk have storage behind them.

use std::ops::Range;

/// Where data may be; everything else of the range that was asked about is a hole.
#[doc(alias = "VixDiskLibBlockList")]
#[doc(alias = "VixDiskLib_FreeBlockList")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Allocation {
    /// Ascending ranges that neither overlap nor touch, inside the range that was asked about.
    pub areas: Vec<Range<u64>>,
    /// Whether that is known.
    pub basis: AllocationBasis,
    /// What the rest of the range is.
    pub holes: Holes,
}

/// What is where an [`Allocation`] has no area.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Holes {
    /// Zeros.
    ReadAsZeros,
    /// Whatever the parent has: the disk was opened [alone](crate::OpenOptions::single_link). Reading gives zeros.
    AskParent,
}

/// How an [`Allocation`] came about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllocationBasis {
    /// The storage said it.
    Known,
    /// Nothing is known, so everything counts as allocated; and why.
    Assumed(String),
}

impl Allocation {
    pub(crate) fn known(areas: Vec<Range<u64>>) -> Self {
        Self { areas, basis: AllocationBasis::Known, holes: Holes::ReadAsZeros }
    }

    pub(crate) fn assumed(range: Range<u64>, reason: impl Into<String>) -> Self {
        let areas = if range.is_empty() { Vec::new() } else { vec![range] };
        Self { areas, basis: AllocationBasis::Assumed(reason.into()), holes: Holes::ReadAsZeros }
    }

    /// The same for a disk that was opened without its parents.
    pub(crate) fn of_single_link(self, single_link: bool) -> Self {
        let holes = if single_link { Holes::AskParent } else { Holes::ReadAsZeros };
        Self { holes, ..self }
    }

    /// True when all of it counts as allocated because nothing is known.
    pub fn is_assumed(&self) -> bool {
        matches!(self.basis, AllocationBasis::Assumed(_))
    }

    /// The number of bytes in [`areas`](Self::areas).
    pub fn total(&self) -> u64 {
        self.areas.iter().map(|range| range.end - range.start).sum()
    }
}

/// The chunk to ask with, in bytes: the finest that keeps the answer for `len` bytes within [`MAX_CHUNKS`].
pub(crate) fn chunk_for(len: u64) -> u64 {
    let least = len.div_ceil(MAX_CHUNKS).max(MIN_CHUNK);
    least.checked_next_power_of_two().unwrap_or(1 << 63)
}

/// Joins ascending runs on the grid of `chunk` bytes, clipped to `range`.
pub(crate) struct Chunks {
    chunk: u64,
    range: Range<u64>,
    areas: Vec<Range<u64>>,
}

impl Chunks {
    pub(crate) fn new(chunk: u64, range: Range<u64>) -> Self {
        Self { chunk: chunk.max(1), range, areas: Vec::new() }
    }

    pub(crate) fn push(&mut self, run: &Range<u64>) {
        if run.is_empty() {
            return;
        }
        let start = (run.start - run.start % self.chunk).max(self.range.start);
        let end = run.end.checked_next_multiple_of(self.chunk).unwrap_or(u64::MAX).min(self.range.end);
        if start >= end {
            return;
        }
        match self.areas.last_mut() {
            Some(last) if start <= last.end => last.end = last.end.max(end),
            _ => self.areas.push(start..end),
        }
    }

    pub(crate) fn finish(self) -> Vec<Range<u64>> {
        self.areas
    }
}

/// The finest chunk that hosts answer for: 128 sectors, as documented for `VixDiskLib_QueryAllocatedBlocks`.
pub(crate) const MIN_CHUNK: u64 = 64 << 10;

/// Bounds one answer to half as many ranges, 8 MiB of memory. 64 GiB at the finest chunk.
const MAX_CHUNKS: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_grow_with_what_is_asked_for() {
        assert_eq!(chunk_for(0), 64 << 10);
        assert_eq!(chunk_for(64 << 30), 64 << 10);
        assert_eq!(chunk_for((64 << 30) + 1), 128 << 10);
        assert_eq!(chunk_for(62 << 40), 64 << 20);
        assert_eq!(chunk_for(u64::MAX), 1 << 44);
    }

    #[test]
    fn runs_grow_to_chunks_join_and_stay_in_the_range() {
        let mut chunks = Chunks::new(100, 50..1030);
        for run in [0..1, 60..70, 150..160, 150..150, 300..301, 1010..2000] {
            chunks.push(&run);
        }
        assert_eq!(chunks.finish(), [50..200, 300..400, 1000..1030]);
    }

    #[test]
    fn an_assumption_says_why_and_covers_everything() {
        let all = Allocation::assumed(10..20, "no idea");
        assert!(all.is_assumed());
        assert_eq!((all.total(), &all.areas[..]), (10, &[10..20][..]));
        assert!(Allocation::assumed(5..5, "").areas.is_empty());
    }
}
