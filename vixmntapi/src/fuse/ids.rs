//! The numbers by which the kernel knows files.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    error::{Error, Result},
    fs::NodeId,
};

/// What a number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// The folder with a folder for each volume.
    Top,
    /// A file of a volume.
    In { volume: usize, node: NodeId },
}

/// Numbers files: the same file always has the same number, and no two files share one.
///
/// Nearly all numbers are made of what they stand for, and need no memory: those of the tree that a volume's root is in
/// are the guest's own numbers. What does not fit into 64 bits gets a digest of itself, which is kept while the kernel
/// uses it. From the highest bit on:
///
/// | bits | |
/// |---|---|
/// | `0`, volume, number | a file of the root's tree |
/// | `10`, volume, tree, number | a file of another subvolume |
/// | `11`, digest | anything else |
pub(super) struct Ids {
    roots: Vec<NodeId>,
    /// Whether number 1 is [`Place::Top`], not the root of the one volume.
    is_set: bool,
    volume_bits: u32,
    held: Mutex<Held>,
}

/// Numbers that are digests, as often as the kernel was told of them.
#[derive(Default)]
struct Held {
    places: HashMap<u64, (Place, u64)>,
    ids: HashMap<Place, u64>,
}

/// The number of the folder that is mounted, as the kernel has it.
pub(super) const ROOT: u64 = 1;

impl Ids {
    /// For volumes with these roots, either one or a set.
    pub(super) fn new(roots: Vec<NodeId>, is_set: bool) -> Result<Self> {
        let volume_bits = if is_set { roots.len().next_power_of_two().trailing_zeros() } else { 0 };
        if volume_bits > MAX_VOLUME_BITS {
            return Err(Error::Invalid(format!("{} volumes are too many for one mount", roots.len())));
        }
        Ok(Self { roots, is_set, volume_bits, held: Mutex::default() })
    }

    /// The number of a file that the kernel is not told to remember.
    pub(super) fn id(&self, place: Place) -> u64 {
        self.fitting(place).unwrap_or_else(|| match self.held().ids.get(&place) {
            Some(id) => *id,
            None => digest(place, 0),
        })
    }

    /// The number of a file that the kernel remembers until it [forgets](Ids::forget) it.
    pub(super) fn remember(&self, place: Place) -> Result<u64> {
        if let Some(id) = self.fitting(place) {
            return Ok(id);
        }
        let mut held = self.held();
        if let Some(id) = held.ids.get(&place).copied() {
            if let Some((_, count)) = held.places.get_mut(&id) {
                *count += 1;
            }
            return Ok(id);
        }
        if held.places.len() >= MAX_HELD {
            return Err(Error::Invalid(format!("more than {MAX_HELD} files with numbers beyond 64 bits are in use")));
        }
        let free = (0..MAX_TRIES).map(|again| digest(place, again)).find(|id| !held.places.contains_key(id));
        let id = free.ok_or_else(|| Error::Invalid("no number is left for a file".into()))?;
        held.places.insert(id, (place, 1));
        held.ids.insert(place, id);
        Ok(id)
    }

    /// The kernel has forgotten a number so many times.
    pub(super) fn forget(&self, id: u64, times: u64) {
        if id >> 62 != DIGEST {
            return;
        }
        let mut held = self.held();
        let Some((place, count)) = held.places.get_mut(&id) else { return };
        *count = count.saturating_sub(times);
        if *count == 0 {
            let place = *place;
            held.places.remove(&id);
            held.ids.remove(&place);
        }
    }

    /// What a number stands for; `None` when it was never given out.
    pub(super) fn place(&self, id: u64) -> Option<Place> {
        if id == ROOT {
            let first = || self.roots.first().map(|root| Place::In { volume: 0, node: *root });
            return if self.is_set { Some(Place::Top) } else { first() };
        }
        let bits = self.volume_bits;
        let (volume, tree, number) = match id >> 62 {
            DIGEST => return self.held().places.get(&id).map(|(place, _)| *place),
            SUBVOLUME => {
                let number_bits = TREE_NUMBER_BITS - bits;
                let volume = low(id >> (TREE_NUMBER_BITS + TREE_BITS - bits), bits);
                (volume, Some(low(id >> number_bits, TREE_BITS)), low(id, number_bits))
            }
            _ => (low(id >> (63 - bits), bits), None, low(id, 63 - bits)),
        };
        let root = self.roots.get(volume as usize)?;
        let node = NodeId { tree: tree.unwrap_or(root.tree), number };
        Some(Place::In { volume: volume as usize, node })
    }

    /// The guest's own number of the root of the one volume, where there is one.
    pub(super) fn shown_root(&self) -> u64 {
        match self.roots.first() {
            Some(root) if !self.is_set => self.plain(0, *root).unwrap_or(ROOT),
            _ => ROOT,
        }
    }

    fn fitting(&self, place: Place) -> Option<u64> {
        let Place::In { volume, node } = place else { return Some(ROOT) };
        if !self.is_set && self.roots.first() == Some(&node) {
            return Some(ROOT);
        }
        self.plain(volume, node).or_else(|| self.subvolume(volume, node))
    }

    fn plain(&self, volume: usize, node: NodeId) -> Option<u64> {
        let bits = 63 - self.volume_bits;
        let fits = node.tree == self.roots.get(volume)?.tree && low(node.number, bits) == node.number;
        let id = node.number | (volume as u64).checked_shl(bits).unwrap_or(0);
        // 0 is no file, and 1 is the folder that is mounted.
        (fits && id > ROOT).then_some(id)
    }

    fn subvolume(&self, volume: usize, node: NodeId) -> Option<u64> {
        let bits = TREE_NUMBER_BITS - self.volume_bits;
        let fits = low(node.tree, TREE_BITS) == node.tree && low(node.number, bits) == node.number;
        let volume = (volume as u64) << (TREE_NUMBER_BITS + TREE_BITS - self.volume_bits);
        (fits && node.tree != self.roots.get(volume as usize).map_or(u64::MAX, |root| root.tree))
            .then_some(SUBVOLUME << 62 | volume | node.tree << bits | node.number)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lowest bits of a number; all of them for 64 and more.
fn low(number: u64, bits: u32) -> u64 {
    1_u64.checked_shl(bits).map_or(number, |end| number & (end - 1))
}

/// The same in each mount of the same disks, but for files that a hostile disk chose to collide.
fn digest(place: Place, again: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    if let Place::In { volume, node } = place {
        for part in [volume as u64, node.tree, node.number, again] {
            hasher.update(&part.to_le_bytes());
        }
    }
    let first = hasher.finalize().as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    DIGEST << 62 | low(first, 62)
}

/// The highest two bits.
const SUBVOLUME: u64 = 0b10;
const DIGEST: u64 = 0b11;
/// More subvolumes and snapshots than any Btrfs has.
const TREE_BITS: u32 = 20;
/// Of the volume and the number of a file of a subvolume together.
const TREE_NUMBER_BITS: u32 = 42;
const MAX_VOLUME_BITS: u32 = 12;
/// Some 150 MB. The kernel forgets numbers when memory gets short.
const MAX_HELD: usize = 1 << 20;
/// More collisions than anybody can find in a digest of 62 bits.
const MAX_TRIES: u64 = 64;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const fn node(tree: u64, number: u64) -> NodeId {
        NodeId { tree, number }
    }

    #[test]
    fn files_of_the_roots_tree_have_the_guests_numbers() {
        let ids = Ids::new(vec![node(5, 256)], false).unwrap();
        let file = |tree, number| ids.id(Place::In { volume: 0, node: node(tree, number) });
        assert_eq!((file(5, 256), ids.shown_root(), file(5, 257)), (ROOT, 256, 257));
        assert_eq!(file(5, u64::MAX >> 1), u64::MAX >> 1);
        assert!(file(256, 257) >> 62 == SUBVOLUME && file(256, 257) != file(257, 257));
        // No file has the number of the root, and none the number 0.
        assert!(file(5, 0) >> 62 != 0 && file(5, 1) >> 62 != 0);
    }

    #[test]
    fn what_is_forgotten_takes_no_memory() {
        let ids = Ids::new(vec![node(0, 2)], false).unwrap();
        let place = Place::In { volume: 0, node: node(u64::MAX, u64::MAX) };
        let id = ids.remember(place).unwrap();
        assert_eq!((ids.remember(place).unwrap(), ids.id(place)), (id, id));
        ids.forget(id, 1);
        assert_eq!(ids.place(id), Some(place));
        ids.forget(id, 1);
        assert_eq!(ids.place(id), None);
        assert!(ids.held().ids.is_empty());
        assert!(ids.held().places.is_empty());
        // It will have the same number again.
        assert_eq!(ids.remember(place).unwrap(), id);
        ids.forget(7, 1);
    }

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![
            0..300_u64,
            any::<u64>(),
            (0..64_u32).prop_map(|bit| 1 << bit),
            any::<u64>().prop_map(|all| all >> 24)
        ]
    }

    proptest! {
        #[test]
        fn numbers_lead_back_to_what_they_stand_for_and_no_two_are_the_same(
            roots in proptest::collection::vec((0..7_u64, number()), 1..6),
            is_set: bool,
            files in proptest::collection::hash_set((0..6_usize, prop_oneof![0..7_u64, number()], number()), 1..50),
        ) {
            let roots: Vec<_> = roots.into_iter().map(|(tree, number)| node(tree, number)).collect();
            let roots = if is_set { roots } else { roots[..1].to_vec() };
            let ids = Ids::new(roots.clone(), is_set).unwrap();
            let places: HashSet<_> = files
                .into_iter()
                .map(|(volume, tree, number)| Place::In { volume: volume % roots.len(), node: node(tree, number) })
                .collect();
            let mut seen = HashSet::new();
            for place in &places {
                let id = ids.remember(*place).unwrap();
                prop_assert_eq!(ids.place(id), Some(*place));
                prop_assert!(id != 0 && seen.insert(id), "{} again", id);
            }
        }
    }
}
