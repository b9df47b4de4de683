//! Who uses which sectors of a file: finds two users of one place in bounded memory.
//!
//! A file is looked at in windows, each with two bits a sector. All users claim their sectors in every window;
//! the larger the file, the more passes, never the more memory.

use std::ops::Range;

/// What claims sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Header, descriptor, directories, tables.
    Metadata,
    /// A grain.
    Grain,
}

/// The sectors of one window and who has claimed them.
#[derive(Debug)]
pub(crate) struct Space {
    window: Range<u64>,
    metadata: Bits,
    grains: Bits,
}

impl Space {
    /// The windows of a file of `sectors`, for at most `memory` bytes each.
    pub(crate) fn windows(sectors: u64, memory: usize) -> impl Iterator<Item = Range<u64>> {
        let width = (memory as u64).max(MIN_MEMORY).saturating_mul(8 / 2);
        (0..sectors.div_ceil(width)).map(move |index| index * width..(index + 1).saturating_mul(width).min(sectors))
    }

    /// An empty window.
    pub(crate) fn new(window: Range<u64>) -> Self {
        let bits = || Bits::new((window.end - window.start) as usize);
        Self { metadata: bits(), grains: bits(), window }
    }

    /// Claims `sectors`, as far as they are in the window; tells whose place they are already.
    pub(crate) fn claim(&mut self, sectors: Range<u64>, by: Use) -> Option<Use> {
        let range = self.clip(sectors)?;
        let taken = if self.metadata.any(range.clone()) {
            Some(Use::Metadata)
        } else if self.grains.any(range.clone()) {
            Some(Use::Grain)
        } else {
            None
        };
        match by {
            Use::Metadata => self.metadata.set(range),
            Use::Grain => self.grains.set(range),
        }
        taken
    }

    /// Whether a grain has claimed one of `sectors`.
    pub(crate) fn has_grain(&self, sectors: Range<u64>) -> bool {
        self.clip(sectors).is_some_and(|range| self.grains.any(range))
    }

    /// Runs of sectors that nobody has claimed, in ascending order; those at the window's edges may go on beyond.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = Range<u64>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let used = |index: usize| self.metadata.word(index) | self.grains.word(index);
            let start = next_bit(at, self.metadata.len, |index| !used(index))?;
            let end = next_bit(start, self.metadata.len, used).unwrap_or(self.metadata.len);
            at = end;
            Some(self.window.start + start as u64..self.window.start + end as u64)
        })
    }

    fn clip(&self, sectors: Range<u64>) -> Option<Range<usize>> {
        let start = sectors.start.max(self.window.start);
        let end = sectors.end.min(self.window.end);
        (start < end).then(|| (start - self.window.start) as usize..(end - self.window.start) as usize)
    }
}

/// A set of small numbers.
#[derive(Debug)]
pub(crate) struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Bits {
    pub(crate) fn new(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len }
    }

    pub(crate) fn get(&self, index: usize) -> bool {
        self.word(index / 64) >> (index % 64) & 1 != 0
    }

    /// Whether one of `range` is in the set.
    pub(crate) fn any(&self, range: Range<usize>) -> bool {
        masks(range).any(|(index, mask)| self.word(index) & mask != 0)
    }

    /// Adds all of `range`, which is below the length.
    pub(crate) fn set(&mut self, range: Range<usize>) {
        for (index, mask) in masks(range) {
            self.words[index] |= mask;
        }
    }

    /// Takes one out.
    pub(crate) fn clear(&mut self, index: usize) {
        if let Some(word) = self.words.get_mut(index / 64) {
            *word &= !(1 << (index % 64));
        }
    }

    fn word(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or(0)
    }
}

/// The words that `range` touches, each with the bits in it.
fn masks(range: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    (range.start / 64..range.end.div_ceil(64)).map(move |index| {
        let low = range.start.saturating_sub(index * 64);
        let high = (range.end - index * 64).min(64);
        (index, (u64::MAX >> (64 - (high - low))) << low)
    })
}

/// The first bit at or after `at` that is set in `word`.
fn next_bit(at: usize, len: usize, word: impl Fn(usize) -> u64) -> Option<usize> {
    let mut index = at / 64;
    let mut bits = word(index) & (u64::MAX << (at % 64));
    while index * 64 < len {
        if bits != 0 {
            return Some(index * 64 + bits.trailing_zeros() as usize).filter(|found| *found < len);
        }
        index += 1;
        bits = word(index);
    }
    None
}

/// Smallest window, in bytes: less would mean thousands of passes.
const MIN_MEMORY: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_who_was_there_first_and_what_is_left() {
        let mut space = Space::new(1000..1300);
        assert_eq!(space.claim(0..1001, Use::Metadata), None);
        assert_eq!(space.claim(1064..1192, Use::Grain), None);
        assert_eq!(space.claim(1192..1200, Use::Grain), None);
        assert_eq!(space.claim(1191..1193, Use::Metadata), Some(Use::Grain));
        assert_eq!(space.claim(1191..1300, Use::Grain), Some(Use::Metadata));
        assert_eq!(space.claim(1300..1400, Use::Grain), None);
        assert!(space.gaps().eq(std::iter::once(1001..1064)));
        assert!(Space::new(5..8).gaps().eq(std::iter::once(5..8)));
    }

    #[test]
    fn windows_cover_the_file_once() {
        let windows: Vec<_> = Space::windows(10 << 20, 0).collect();
        assert_eq!(windows, [0..4 << 20, 4 << 20..8 << 20, 8 << 20..10 << 20]);
        assert_eq!(Space::windows(0, 1 << 20).count(), 0);
    }

    proptest::proptest! {
        #[test]
        fn agrees_with_a_model(claims in proptest::collection::vec((0_u64..400, 0_u64..200), 0..20)) {
            let mut space = Space::new(50..333);
            let mut model = [false; 400];
            for (start, len) in claims {
                let range = start..(start + len).min(400);
                let inside = || range.clone().filter(|sector| (50..333).contains(sector));
                let taken = inside().any(|sector| model[sector as usize]);
                assert_eq!(space.claim(range.clone(), Use::Grain).is_some(), taken);
                inside().for_each(|sector| model[sector as usize] = true);
            }
            let free: Vec<u64> = space.gaps().flatten().collect();
            let expected: Vec<u64> = (50..333).filter(|sector| !model[*sector as usize]).collect();
            assert_eq!(free, expected);
        }
    }
}
