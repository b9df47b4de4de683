//! Names of the model, found fast.

/// A hash table with open addressing, for names that are known from the beginning.
///
/// Every element with an `xsi:type` is looked up, so it is made for that alone. Nothing is added later: what a server
/// sends can make no search longer than the names themselves do.
pub(super) struct Names<T> {
    /// A power of two of places, at most half of them taken.
    places: Vec<Option<(&'static str, T)>>,
}

impl<T: Copy> Names<T> {
    /// The names with what they mean; of the same name twice the first counts.
    pub(super) fn new(all: Vec<(&'static str, T)>) -> Self {
        let mut table = Self { places: vec![None; (all.len() * 2).next_power_of_two()] };
        for (name, meaning) in all {
            let free = table.search(name).find(|at| table.places[*at].is_none()).expect("half of the places are free");
            table.places[free] = Some((name, meaning));
        }
        table
    }

    /// What the name means.
    #[inline]
    pub(super) fn get(&self, name: &str) -> Option<T> {
        for at in self.search(name) {
            let (own, meaning) = self.places[at]?;
            if own == name {
                return Some(meaning);
            }
        }
        None
    }

    /// The places where `name` may stand, in order; it stands before the first free one.
    fn search(&self, name: &str) -> impl Iterator<Item = usize> + use<T> {
        let len = self.places.len();
        let begin = (hash(name.as_bytes()) >> 32) as usize;
        (0..len).map(move |step| begin.wrapping_add(step) & (len - 1))
    }
}

/// A word at a time; the product's upper half depends on every bit.
fn hash(name: &[u8]) -> u64 {
    let (words, tail) = name.as_chunks::<8>();
    let tail = tail.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(MULTIPLIER);
    let hash = words.iter().fold(name.len() as u64, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    mix(hash, tail)
}

/// Odd, and its bits have no pattern: 2^64 divided by the golden ratio.
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_among_the_names_of_the_model_are_short() {
        let all = crate::generated::REGISTRY.iter().map(|row| (row.info.name, ())).collect::<Vec<_>>();
        let table = Names::new(all.clone());
        let place = |name| table.search(name).position(|at| table.places[at].is_some_and(|(own, ())| own == name));
        assert!(all.iter().all(|(name, ())| place(name).is_some_and(|steps| steps < 32)));
        assert!(table.get("VirtualDisk").is_some() && table.get("").is_none() && table.get("VirtualDis").is_none());
    }
}
