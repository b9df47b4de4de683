//! A set of block numbers that stays small on huge, sparse disks.
//!
//! Copy-on-write layers and change tracking both ask "which blocks of this disk". A flat bitmap of a
//! 62 TB disk costs 124 MiB each, and a simulator keeps one per snapshot and per tracking sequence, so the
//! bits live in pages that exist only where something was set.

use std::collections::BTreeMap;
use std::ops::Range;

/// Blocks covered by one page: 4 KiB of bits, 2 GiB of disk with 64 KiB blocks.
const PAGE_BLOCKS: u64 = 1 << 15;
const WORDS: usize = (PAGE_BLOCKS / 64) as usize;

/// A set of block numbers in sparse pages.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct BlockSet {
    pages: BTreeMap<u64, Page>,
}

#[derive(Clone, PartialEq, Eq)]
enum Page {
    Full,
    Bits(Box<[u64; WORDS]>),
}

impl BlockSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds every block of `blocks`.
    pub fn insert(&mut self, blocks: Range<u64>) {
        for (number, bits) in pages_of(blocks) {
            if bits == (0..PAGE_BLOCKS) {
                self.pages.insert(number, Page::Full);
                continue;
            }
            let page = self.pages.entry(number).or_insert_with(Page::empty);
            page.set(bits);
            if page.is_full() {
                *page = Page::Full;
            }
        }
    }

    /// Adds every block of `other`.
    pub fn union_with(&mut self, other: &BlockSet) {
        for (number, page) in &other.pages {
            match self.pages.entry(*number) {
                std::collections::btree_map::Entry::Vacant(slot) => {
                    slot.insert(page.clone());
                }
                std::collections::btree_map::Entry::Occupied(mut slot) => slot.get_mut().union_with(page),
            }
        }
    }

    /// Whether `block` is in the set.
    pub fn contains(&self, block: u64) -> bool {
        self.pages
            .get(&(block / PAGE_BLOCKS))
            .is_some_and(|page| page.next_set(block % PAGE_BLOCKS) == Some(block % PAGE_BLOCKS))
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.next_set(0).is_none()
    }

    /// The first block in the set at or after `from`.
    pub fn next_set(&self, from: u64) -> Option<u64> {
        let first = from / PAGE_BLOCKS;
        self.pages.range(first..).find_map(|(&number, page)| {
            let start = if number == first { from % PAGE_BLOCKS } else { 0 };
            page.next_set(start).map(|bit| number * PAGE_BLOCKS + bit)
        })
    }

    /// The first block not in the set at or after `from`.
    pub fn next_clear(&self, from: u64) -> u64 {
        let (mut number, mut start) = (from / PAGE_BLOCKS, from % PAGE_BLOCKS);
        while let Some(page) = self.pages.get(&number) {
            if let Some(bit) = page.next_clear(start) {
                return number * PAGE_BLOCKS + bit;
            }
            (number, start) = (number + 1, 0);
        }
        number * PAGE_BLOCKS + start
    }

    /// The maximal runs of set blocks that meet `within`, ascending, cut to `within`.
    pub fn runs(&self, within: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut at = within.start;
        std::iter::from_fn(move || {
            let start = self.next_set(at).filter(|start| *start < within.end)?;
            let end = self.next_clear(start).min(within.end);
            at = end;
            Some(start..end)
        })
    }

    /// How many blocks are in the set.
    pub fn len(&self) -> u64 {
        self.pages.values().map(Page::len).sum()
    }
}

impl std::fmt::Debug for BlockSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlockSet({} blocks, {} pages)", self.len(), self.pages.len())
    }
}

impl Page {
    fn empty() -> Self {
        Page::Bits(Box::new([0; WORDS]))
    }

    fn set(&mut self, bits: Range<u64>) {
        let Page::Bits(words) = self else { return };
        for (index, word) in words.iter_mut().enumerate() {
            let low = index as u64 * 64;
            let from = bits.start.clamp(low, low + 64) - low;
            let to = bits.end.clamp(low, low + 64) - low;
            if from < to {
                let ones = if to - from == 64 { u64::MAX } else { (1 << (to - from)) - 1 };
                *word |= ones << from;
            }
        }
    }

    fn is_full(&self) -> bool {
        match self {
            Page::Full => true,
            Page::Bits(words) => words.iter().all(|word| *word == u64::MAX),
        }
    }

    fn union_with(&mut self, other: &Page) {
        match (&mut *self, other) {
            (Page::Full, _) => {}
            (slot, Page::Full) => *slot = Page::Full,
            (Page::Bits(mine), Page::Bits(theirs)) => mine.iter_mut().zip(theirs.iter()).for_each(|(a, b)| *a |= b),
        }
        if self.is_full() {
            *self = Page::Full;
        }
    }

    fn len(&self) -> u64 {
        match self {
            Page::Full => PAGE_BLOCKS,
            Page::Bits(words) => words.iter().map(|word| u64::from(word.count_ones())).sum(),
        }
    }

    fn next_set(&self, from: u64) -> Option<u64> {
        match self {
            Page::Full => Some(from),
            Page::Bits(words) => scan(words, from, |word| word),
        }
    }

    fn next_clear(&self, from: u64) -> Option<u64> {
        match self {
            Page::Full => None,
            Page::Bits(words) => scan(words, from, |word| !word),
        }
    }
}

/// The first bit at or after `from` that is one in `view(word)`.
fn scan(words: &[u64; WORDS], from: u64, view: impl Fn(u64) -> u64) -> Option<u64> {
    let mut index = (from / 64) as usize;
    let mut mask = u64::MAX << (from % 64);
    while let Some(word) = words.get(index) {
        let hit = view(*word) & mask;
        if hit != 0 {
            return Some(index as u64 * 64 + u64::from(hit.trailing_zeros()));
        }
        (index, mask) = (index + 1, u64::MAX);
    }
    None
}

/// The pages that `blocks` touches, each with the bits touched in it.
fn pages_of(blocks: Range<u64>) -> impl Iterator<Item = (u64, Range<u64>)> {
    let mut at = blocks.start;
    std::iter::from_fn(move || {
        if at >= blocks.end {
            return None;
        }
        let number = at / PAGE_BLOCKS;
        let first = number * PAGE_BLOCKS;
        let end = blocks.end.min(first + PAGE_BLOCKS);
        let bits = at - first..end - first;
        at = end;
        Some((number, bits))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn agrees_with_a_set_of_numbers(ranges in proptest::collection::vec((0u64..200_000, 0u64..40_000), 0..8), from in 0u64..200_000) {
            let mut set = BlockSet::new();
            let mut model = BTreeSet::new();
            for (start, len) in ranges {
                set.insert(start..start + len);
                model.extend(start..start + len);
            }
            prop_assert_eq!(set.len(), model.len() as u64);
            prop_assert_eq!(set.next_set(from), model.range(from..).next().copied());
            prop_assert_eq!(set.next_clear(from), (from..).find(|n| !model.contains(n)).unwrap());
            prop_assert_eq!(set.contains(from), model.contains(&from));
            let listed: Vec<u64> = set.runs(1000..150_000).flatten().collect();
            prop_assert_eq!(listed, model.range(1000..150_000).copied().collect::<Vec<_>>());
        }

        #[test]
        fn union_is_union(a in proptest::collection::vec((0u64..100_000, 0u64..40_000), 0..4), b in proptest::collection::vec((0u64..100_000, 0u64..40_000), 0..4)) {
            let (mut left, mut right, mut both) = (BlockSet::new(), BlockSet::new(), BlockSet::new());
            for (start, len) in a { left.insert(start..start + len); both.insert(start..start + len); }
            for (start, len) in b { right.insert(start..start + len); both.insert(start..start + len); }
            left.union_with(&right);
            prop_assert!(left == both);
        }
    }

    #[test]
    fn a_whole_62_tb_disk_costs_no_bitmap() {
        let mut set = BlockSet::new();
        set.insert(0..(62u64 << 40) / 65536);
        assert!(set.pages.values().all(|page| matches!(page, Page::Full)));
        assert_eq!(set.runs(0..u64::MAX).count(), 1);
    }
}
