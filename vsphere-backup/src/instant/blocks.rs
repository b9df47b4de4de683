//! Sets of blocks of a large disk: memory grows with what is in them, not with the disk.

use std::{collections::BTreeMap, ops::Range};

/// A set of block numbers. A region of 16 384 blocks takes 2 KiB once one of them is in it.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    regions: BTreeMap<u64, Box<[u64; WORDS]>>,
    len: u64,
}

impl Blocks {
    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    #[cfg(test)]
    pub(super) fn contains(&self, block: u64) -> bool {
        let (region, word, bit) = place(block);
        self.regions.get(&region).is_some_and(|words| words[word] & bit != 0)
    }

    pub(super) fn insert(&mut self, block: u64) {
        let (region, word, bit) = place(block);
        let words = self.regions.entry(region).or_insert_with(|| Box::new([0; WORDS]));
        self.len += u64::from(words[word] & bit == 0);
        words[word] |= bit;
    }

    pub(super) fn remove(&mut self, block: u64) {
        let (region, word, bit) = place(block);
        let Some(words) = self.regions.get_mut(&region) else { return };
        self.len -= u64::from(words[word] & bit != 0);
        words[word] &= !bit;
        if words.iter().all(|&word| word == 0) {
            self.regions.remove(&region);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The runs of blocks inside a range, ascending.
    pub(super) fn runs(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        if range.is_empty() {
            return runs;
        }
        for (&region, words) in self.regions.range(range.start / REGION..=(range.end - 1) / REGION) {
            for (at, word) in words.iter().enumerate().filter(|(_, word)| **word != 0) {
                let first = region * REGION + at as u64 * 64;
                for block in (0..64).filter(|bit| word >> bit & 1 == 1).map(|bit| first + bit) {
                    if !range.contains(&block) {
                        continue;
                    }
                    match runs.last_mut() {
                        Some(last) if last.end == block => last.end = block + 1,
                        _ => runs.push(block..block + 1),
                    }
                }
            }
        }
        runs
    }
}

fn place(block: u64) -> (u64, usize, u64) {
    let within = block % REGION;
    (block / REGION, (within / 64) as usize, 1 << (within % 64))
}

const WORDS: usize = 256;
const REGION: u64 = 64 * WORDS as u64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec((any::<bool>(), 0_u64..40_000), 0..200), from in 0_u64..40_000, len in 0_u64..40_000) {
            let (mut blocks, mut model) = (Blocks::default(), BTreeSet::new());
            for (add, block) in steps {
                if add {
                    blocks.insert(block);
                    model.insert(block);
                } else {
                    blocks.remove(block);
                    model.remove(&block);
                }
                prop_assert_eq!(blocks.contains(block), add);
            }
            prop_assert_eq!(blocks.len(), model.len() as u64);
            let runs = blocks.runs(from..from + len);
            prop_assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start));
            let listed: Vec<u64> = runs.into_iter().flatten().collect();
            let expected: Vec<u64> = model.range(from..from + len).copied().collect();
            prop_assert_eq!(listed, expected);
        }
    }
}
