//! The chunk index: which chunk lies where.
//!
//! Stored as segments, each of which names some packs and what they hold; a segment is written
//! after its packs. In memory a chunk takes 44 bytes once it is sorted in, about 90 before: some
//! 190 MB for each TiB of unique data in chunks of 256 KiB.

mod load;
mod segment;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem,
    ops::Range,
};

pub(crate) use self::{
    load::load,
    segment::{ENOUGH, by_len, key, len_of, named, read_segment, write_segment, write_segments},
};
use super::{
    damage, frame,
    gc::Condemned,
    id::{ChunkId, PackId, SegmentId},
    pack::{PackEntries, PackSeal},
    storage::Key,
};

/// Where a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The pack's number within this index.
    pack: u32,
    /// Where the frame begins within the pack.
    pub(crate) offset: u32,
    /// Bytes behind the frame's header.
    stored: u32,
}

impl Place {
    /// Returns the length of the whole frame in bytes.
    pub(crate) fn frame_len(self) -> u64 {
        frame::HEAD as u64 + u64::from(self.stored)
    }
}

/// The chunks that the repository holds, as far as this process knows.
#[derive(Debug, Default)]
pub(crate) struct Index {
    packs: Vec<(PackId, PackSeal)>,
    /// Each pack's number and its size in bytes.
    numbers: HashMap<PackId, (u32, u64)>,
    segments: HashSet<SegmentId>,
    /// Sorted by id.
    sorted: Vec<(ChunkId, Place)>,
    fresh: HashMap<ChunkId, Place>,
    /// Places of chunks that are in several packs, but for those above.
    spare: HashMap<ChunkId, Vec<Place>>,
    /// Places that hold damaged frames.
    damaged: HashSet<damage::Place>,
    /// The marks that say so, as far as they were read.
    marks: HashSet<Key>,
    /// Packs that may go: to be read from, not to be relied on by what is written.
    condemned: Condemned,
    /// What writers of this process stored since a load began, which it may not have listed.
    stored_meanwhile: Option<Vec<(SegmentId, Vec<PackEntries>)>>,
}

impl Index {
    pub(crate) fn contains(&self, id: &ChunkId) -> bool {
        self.find(id).is_some_and(|(pack, _)| !self.is_damaged(pack, *id))
    }

    /// Tells whether a chunk is found only where its frame is damaged.
    fn is_known_damaged(&self, id: &ChunkId) -> bool {
        !self.damaged.is_empty() && !self.contains(id)
    }

    /// Tells whether a chunk lies in a pack that stays, so that a new point may refer to it.
    pub(crate) fn may_reuse(&self, id: &ChunkId) -> bool {
        self.find(id).is_some_and(|(pack, _)| {
            !self.is_damaged(pack, *id) && (self.condemned.is_empty() || !self.condemned.contains(&pack))
        })
    }

    /// Replaces what is known of packs that may go.
    pub(crate) fn condemn(&mut self, condemned: Condemned) {
        self.condemned = condemned;
    }

    /// Tells whether anything was condemned when this was last asked of the storage.
    pub(crate) fn has_condemned(&self) -> bool {
        !self.condemned.is_empty()
    }

    /// Forgets all but which packs may go, and which places are damaged.
    fn clear(&mut self) {
        let old = mem::take(self);
        *self = Self { condemned: old.condemned, damaged: old.damaged, marks: old.marks, ..Self::default() };
    }

    /// Relies no more on chunks in a pack: their frames there are damaged. Another pack that holds one takes its place;
    /// where there is none the chunk can still be tried to be read, and counts as unknown.
    pub(crate) fn distrust(&mut self, pack: PackId, chunks: &[ChunkId]) {
        self.damaged.extend(chunks.iter().map(|&chunk| (pack, chunk)));
        let Some(&(number, _)) = self.numbers.get(&pack) else { return };
        for id in chunks {
            if self.place(id).is_none_or(|place| place.pack != number) {
                continue;
            }
            let spare = self.spare.get(id).map_or(&[][..], Vec::as_slice);
            if let Some(&sound) = spare.iter().find(|place| !self.is_damaged(self.packs[place.pack as usize].0, *id)) {
                self.set(*id, sound);
            }
        }
    }

    /// Tells whether a pack holds a damaged frame of a chunk.
    pub(crate) fn is_damaged(&self, pack: PackId, chunk: ChunkId) -> bool {
        !self.damaged.is_empty() && self.damaged.contains(&(pack, chunk))
    }

    /// Returns the marks of damage that were read.
    pub(crate) fn marks(&self) -> &HashSet<Key> {
        &self.marks
    }

    /// Takes marks of damage.
    pub(crate) fn take_marks(&mut self, marks: BTreeMap<Key, Vec<damage::Place>>) {
        for (pack, chunks) in damage::by_pack(marks.values().flatten().copied()) {
            self.distrust(pack, &chunks);
        }
        self.marks.extend(marks.into_keys());
    }

    /// Tells whether anything is known to be damaged.
    pub(crate) fn has_damage(&self) -> bool {
        !self.damaged.is_empty()
    }

    fn place(&self, id: &ChunkId) -> Option<Place> {
        match self.sorted.binary_search_by(|(known, _)| known.cmp(id)) {
            Ok(at) => Some(self.sorted[at].1),
            Err(_) => self.fresh.get(id).copied(),
        }
    }

    fn set(&mut self, id: ChunkId, place: Place) {
        match self.sorted.binary_search_by(|(known, _)| known.cmp(&id)) {
            Ok(at) => self.sorted[at].1 = place,
            Err(_) => drop(self.fresh.insert(id, place)),
        }
    }

    /// Returns where a chunk lies, be it in a damaged frame.
    pub(crate) fn find(&self, id: &ChunkId) -> Option<(PackId, Place)> {
        let place = self.place(id)?;
        Some((self.packs[place.pack as usize].0, place))
    }

    /// Returns by which key a pack is sealed.
    pub(crate) fn seal(&self, pack: PackId) -> Option<PackSeal> {
        self.numbers.get(&pack).map(|&(number, _)| self.packs[number as usize].1)
    }

    /// Returns the chunks of one pack and the bytes of their frames. Looks at every chunk.
    pub(crate) fn frames_in(&self, pack: PackId) -> Vec<(ChunkId, Range<u64>)> {
        let Some(&(number, _)) = self.numbers.get(&pack) else { return Vec::new() };
        let sorted = self.sorted.iter().map(|(id, place)| (*id, *place));
        let fresh = self.fresh.iter().map(|(id, place)| (*id, *place));
        let spare = self.spare.iter().flat_map(|(id, places)| places.iter().map(|place| (*id, *place)));
        sorted
            .chain(fresh)
            .chain(spare)
            .filter(|(_, place)| place.pack == number)
            .map(|(id, place)| {
                let start = u64::from(place.offset);
                (id, start..start + place.frame_len())
            })
            .collect()
    }

    /// Returns the number of chunks.
    pub(crate) fn len(&self) -> usize {
        self.sorted.len() + self.fresh.len()
    }

    /// Adds what a pack holds. A chunk that is known already keeps its place, unless that is in a pack that may go.
    pub(crate) fn add(&mut self, entries: &PackEntries) {
        if self.numbers.contains_key(&entries.id) {
            return;
        }
        let Ok(number) = u32::try_from(self.packs.len()) else { return };
        self.packs.push((entries.id, entries.seal));
        self.numbers.insert(entries.id, (number, entries.size));
        for entry in &entries.entries {
            // Offsets of a checked pack are below its largest size, which fits into 32 bits.
            let place = Place { pack: number, offset: entry.offset as u32, stored: entry.stored };
            let Some(known) = self.place(&entry.id) else {
                self.set(entry.id, place);
                continue;
            };
            let better = self.is_known_damaged(&entry.id) || (!self.condemned.is_empty() && !self.may_reuse(&entry.id));
            let spare = if better && !self.is_damaged(entries.id, entry.id) {
                self.set(entry.id, place);
                known
            } else {
                place
            };
            self.spare.entry(entry.id).or_default().push(spare);
        }
        if self.fresh.len() > 1 << 16 && self.fresh.len() > self.sorted.len() / 4 {
            self.sort();
        }
    }

    /// Moves all chunks to the compact form.
    fn sort(&mut self) {
        self.sorted.reserve_exact(self.fresh.len());
        self.sorted.extend(self.fresh.drain());
        self.fresh.shrink_to_fit();
        self.sorted.sort_unstable_by_key(|&(id, _)| id);
    }

    /// Tells whether a segment was read.
    pub(crate) fn has_segment(&self, id: &SegmentId) -> bool {
        self.segments.contains(id)
    }

    /// Adds what a writer of this process stored.
    pub(crate) fn add_stored(&mut self, segment: SegmentId, packs: &[PackEntries]) {
        packs.iter().for_each(|pack| self.add(pack));
        self.segments.insert(segment);
        if let Some(stored) = &mut self.stored_meanwhile {
            stored.push((segment, packs.to_vec()));
        }
    }

    /// Remembers from now on what writers of this process store.
    pub(crate) fn begin_load(&mut self) {
        self.stored_meanwhile = Some(Vec::new());
    }

    /// Ends what [`begin_load`](Self::begin_load) began and, where everything is loaded `afresh`, forgets all but what was
    /// stored meanwhile: who stored it relies on it.
    pub(crate) fn end_load(&mut self, afresh: bool) {
        let stored = self.stored_meanwhile.take().unwrap_or_default();
        if afresh {
            self.clear();
            stored.iter().for_each(|(segment, packs)| self.add_stored(*segment, packs));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{segment::pack_of, *};

    #[test]
    fn finds_what_was_added_in_both_forms() {
        let mut index = Index::default();
        index.add(&pack_of(1, 10));
        index.add(&pack_of(1, 10));
        index.sort();
        index.add(&pack_of(2, 10));
        assert_eq!(index.len(), 20);
        let (in_pack, place) = index.find(&ChunkId([34; 32])).unwrap();
        assert_eq!((in_pack, place.offset, place.frame_len()), (PackId([1; 32]), 664, 156));
        assert!(index.contains(&ChunkId([62; 32])) && !index.contains(&ChunkId([200; 32])));
    }

    #[test]
    fn what_a_writer_stores_while_all_is_loaded_afresh_stays_known() {
        let mut index = Index::default();
        index.add_stored(SegmentId([1; 32]), &[pack_of(1, 3)]);
        // The listing is over by then.
        index.begin_load();
        index.add_stored(SegmentId([2; 32]), &[pack_of(2, 3)]);
        index.end_load(true);
        assert!(index.contains(&ChunkId([62; 32])) && !index.contains(&ChunkId([31; 32])));
        assert!(index.has_segment(&SegmentId([2; 32])) && !index.has_segment(&SegmentId([1; 32])));
        index.begin_load();
        index.end_load(false);
        assert_eq!(index.len(), 3);
    }
}
