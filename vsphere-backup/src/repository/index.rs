//! The chunk index: which chunk lies where.
//!
//! Stored as segments, each of which names some packs and what they hold; a segment is written
//! after its packs. In memory a chunk takes 44 bytes once it is sorted in, about 90 before: some
//! 190 MB for each TiB of unique data in chunks of 256 KiB.
//!
//! Byte layout of segments: `FORMAT.md`, "Index segments".

use std::{
    collections::{HashMap, HashSet},
    mem,
    ops::Range,
    str::FromStr,
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::error::{Error, Result};

use super::{
    envelope::Kind,
    frame::{self, PackEntry},
    gc::Condemned,
    id::{ChunkId, PackId, SegmentId, random},
    object::{Objects, is_absent},
    pack::{self, PackEntries, PackSeal},
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
    /// Packs that may go: to be read from, not to be relied on by what is written.
    condemned: Condemned,
}

impl Index {
    pub(crate) fn contains(&self, id: &ChunkId) -> bool {
        self.find(id).is_some()
    }

    /// Tells whether a chunk lies in a pack that stays, so that a new point may refer to it.
    pub(crate) fn may_reuse(&self, id: &ChunkId) -> bool {
        self.find(id).is_some_and(|(pack, _)| self.condemned.is_empty() || !self.condemned.contains(&pack))
    }

    /// Replaces what is known of packs that may go.
    pub(crate) fn condemn(&mut self, condemned: Condemned) {
        self.condemned = condemned;
    }

    /// Tells whether anything was condemned when this was last asked of the storage.
    pub(crate) fn has_condemned(&self) -> bool {
        !self.condemned.is_empty()
    }

    /// Forgets all but which packs may go.
    pub(crate) fn clear(&mut self) {
        *self = Self { condemned: mem::take(&mut self.condemned), ..Self::default() };
    }

    /// Returns where a chunk lies.
    pub(crate) fn find(&self, id: &ChunkId) -> Option<(PackId, Place)> {
        let place = match self.sorted.binary_search_by(|(known, _)| known.cmp(id)) {
            Ok(at) => self.sorted[at].1,
            Err(_) => *self.fresh.get(id)?,
        };
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
        sorted
            .chain(fresh)
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
            if !self.contains(&entry.id) {
                self.fresh.insert(entry.id, place);
            } else if !self.condemned.is_empty() && !self.may_reuse(&entry.id) {
                match self.sorted.binary_search_by(|(known, _)| known.cmp(&entry.id)) {
                    Ok(at) => self.sorted[at].1 = place,
                    Err(_) => drop(self.fresh.insert(entry.id, place)),
                }
            }
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

    pub(crate) fn note_segment(&mut self, id: SegmentId) {
        self.segments.insert(id);
    }

    /// Returns what need not be loaded again.
    pub(crate) fn known(&self) -> Known {
        Known {
            segments: self.segments.clone(),
            packs: self.numbers.iter().map(|(&id, &(_, size))| (id, size)).collect(),
        }
    }
}

/// What of the stored index is in memory already.
#[derive(Debug, Default)]
pub(crate) struct Known {
    segments: HashSet<SegmentId>,
    /// With their sizes in bytes.
    packs: HashMap<PackId, u64>,
}

/// What loading the index found, to be merged into an [`Index`].
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    segments: Vec<SegmentId>,
    packs: Vec<PackEntries>,
    /// Damaged segments and packs; their sound parts are in `packs` where that was possible.
    pub(crate) damage: Vec<Error>,
    /// How many packs that were known are gone or have another size now: what is in memory is not to be believed then.
    pub(crate) lost: usize,
}

impl Loaded {
    pub(crate) fn merge_into(self, index: &mut Index) {
        for entries in &self.packs {
            index.add(entries);
        }
        index.sort();
        index.segments.extend(self.segments);
    }
}

/// Loads all segments that are not loaded yet.
///
/// A segment counts only for packs that are there with the stated size. Packs that no sound
/// segment names (their writer crashed, or the segment is damaged) are read by their footers, so
/// that a lost segment costs time and no data.
///
/// # Errors
/// [`Error::Storage`]; [`Error::UnsupportedVersion`] and [`Error::UnsupportedFeature`] of any
/// segment. Damage is not an error here, see [`Loaded::damage`].
pub(crate) async fn load(objects: &Objects, known: &Known) -> Result<Loaded> {
    let storage = &**objects.storage();
    let mut loaded = Loaded::default();
    // Segments first: a pack that appears between the two lists is found by its footer.
    let mut new_segments = Vec::new();
    let mut listing = storage.list("index");
    while let Some(object) = listing.try_next().await? {
        match named::<SegmentId>(&object.key) {
            Some(id) if known.segments.contains(&id) => {}
            Some(id) => new_segments.push(id),
            None => loaded.damage.push(stray(&object.key)),
        }
    }
    drop(listing);
    let mut waiting = HashMap::new();
    let mut still_there = 0;
    let mut listing = storage.list("packs");
    while let Some(object) = listing.try_next().await? {
        match named::<PackId>(&object.key) {
            Some(id) if known.packs.get(&id) == Some(&object.size) => still_there += 1,
            Some(id) => drop(waiting.insert(id, object.size)),
            None => loaded.damage.push(stray(&object.key)),
        }
    }
    drop(listing);
    loaded.lost = known.packs.len().saturating_sub(still_there);

    let mut segments = stream::iter(new_segments)
        .map(|id| async move { (id, read_segment(objects, id).await) })
        .buffer_unordered(PARALLEL);
    while let Some((id, segment)) = segments.next().await {
        match segment {
            Ok(packs) => {
                loaded.segments.push(id);
                for entries in packs {
                    if waiting.get(&entries.id) == Some(&entries.size) {
                        waiting.remove(&entries.id);
                        loaded.packs.push(entries);
                    }
                }
            }
            Err(error) if error.is_damage() => loaded.damage.push(error),
            // Replaced since it was listed: its packs are read by their footers.
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    drop(segments);

    let mut footers =
        stream::iter(waiting).map(|(id, size)| pack::read_footer(storage, id, size)).buffer_unordered(PARALLEL);
    while let Some(entries) = footers.next().await {
        match entries {
            Ok(entries) => loaded.packs.push(entries),
            Err(error) if error.is_damage() => loaded.damage.push(error),
            // Collected since it was listed.
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(loaded)
}

/// Writes a segment for packs that are stored.
///
/// # Errors
/// [`Error::Storage`].
pub(crate) async fn write_segment(objects: &Objects, packs: &[PackEntries]) -> Result<SegmentId> {
    let body = encode(packs, random()?);
    let id = SegmentId(*blake3::hash(&body).as_bytes());
    objects.put(Kind::Index, &key(id), body).await?;
    Ok(id)
}

/// Reads one segment.
///
/// # Errors
/// [`Error::Damaged`], [`Error::UnsupportedVersion`], [`Error::Storage`].
pub(crate) async fn read_segment(objects: &Objects, id: SegmentId) -> Result<Vec<PackEntries>> {
    let key = key(id);
    let body = objects.read(Kind::Index, &key).await?;
    if *blake3::hash(&body).as_bytes() != id.0 {
        return Err(Error::damaged(&key, "its content does not match its name"));
    }
    parse(&body).map_err(|reason| Error::damaged(&key, reason))
}

/// Encodes a segment; its salt makes it one of its kind.
fn encode(packs: &[PackEntries], salt: [u8; SALT]) -> Bytes {
    let entries: usize = packs.iter().map(|pack| pack.entries.len()).sum();
    let mut body = Vec::with_capacity(HEAD + packs.len() * PACK_HEAD + entries * PackEntry::LEN);
    body.extend_from_slice(&(packs.len() as u32).to_le_bytes());
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(&salt);
    for pack in packs {
        body.extend_from_slice(&pack.id.0);
        body.extend_from_slice(&pack.size.to_le_bytes());
        body.extend_from_slice(&(pack.entries.len() as u32).to_le_bytes());
        pack.seal.encode(&mut body);
        pack.entries.iter().for_each(|entry| entry.encode(&mut body));
    }
    body.into()
}

fn parse(body: &[u8]) -> Result<Vec<PackEntries>, String> {
    let short = || "it is cut short".to_owned();
    let (head, mut rest) = body.split_at_checked(HEAD).ok_or_else(short)?;
    let count = u32::from_le_bytes(head[..4].try_into().expect("4 bytes"));
    // No room is set aside by a count that was read: each pack must be there to be added.
    let mut packs = Vec::new();
    for _ in 0..count {
        let (head, after) = rest.split_at_checked(PACK_HEAD).ok_or_else(short)?;
        let entries = u32::from_le_bytes(head[40..44].try_into().expect("4 bytes")) as usize;
        let len = entries.checked_mul(PackEntry::LEN).ok_or_else(short)?;
        let (entries, after) = after.split_at_checked(len).ok_or_else(short)?;
        let pack = PackEntries {
            id: PackId(head[..32].try_into().expect("32 bytes")),
            size: u64::from_le_bytes(head[32..40].try_into().expect("8 bytes")),
            seal: PackSeal::decode(head[44..].try_into().expect("36 bytes")),
            entries: entries
                .chunks_exact(PackEntry::LEN)
                .map(|bytes| PackEntry::decode(bytes.try_into().expect("exact chunks")))
                .collect(),
        };
        pack.check()?;
        packs.push(pack);
        rest = after;
    }
    if rest.is_empty() { Ok(packs) } else { Err("bytes follow its last pack".into()) }
}

/// Parses the last segment of an object's name.
pub(crate) fn named<T: FromStr>(key: &Key) -> Option<T> {
    key.file_name().parse().ok()
}

fn stray(key: &Key) -> Error {
    Error::damaged(key, "its name is not one of this format")
}

pub(crate) fn key(id: SegmentId) -> Key {
    Key::of(&["index", &id.to_string()])
}

const SALT: usize = 16;
const HEAD: usize = 8 + SALT;
const PACK_HEAD: usize = 44 + PackSeal::LEN;
const PARALLEL: usize = 8;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::repository::storage::{MemoryStorage, Storage};

    fn pack(number: u8, chunks: u8) -> PackEntries {
        let entries = (0..chunks)
            .map(|at| PackEntry {
                id: ChunkId([number.wrapping_mul(31).wrapping_add(at); 32]),
                offset: 64 + u64::from(at) * 200,
                stored: 100,
                plain: 200,
            })
            .collect();
        let seal = PackSeal { generation: number.into(), salt: [number ^ 0xff; 32] };
        PackEntries { id: PackId([number; 32]), size: 60_000, seal, entries }
    }

    #[test]
    fn finds_what_was_added_in_both_forms() {
        let mut index = Index::default();
        index.add(&pack(1, 10));
        index.add(&pack(1, 10));
        index.sort();
        index.add(&pack(2, 10));
        assert_eq!(index.len(), 20);
        let (in_pack, place) = index.find(&ChunkId([34; 32])).unwrap();
        assert_eq!((in_pack, place.offset, place.frame_len()), (PackId([1; 32]), 664, 156));
        assert!(index.contains(&ChunkId([62; 32])) && !index.contains(&ChunkId([200; 32])));
    }

    #[tokio::test]
    async fn a_segment_counts_only_for_packs_that_are_there() {
        let storage = Arc::new(MemoryStorage::new());
        let objects = Objects::plain(storage.clone());
        write_segment(&objects, &[pack(1, 3), pack(2, 3)]).await.unwrap();
        storage.put(&pack::key(PackId([1; 32])), vec![vec![0; 60_000].into()]).await.unwrap();
        let loaded = load(&objects, &Known::default()).await.unwrap();
        let mut index = Index::default();
        assert!(loaded.damage.is_empty());
        loaded.merge_into(&mut index);
        assert_eq!(index.len(), 3);
    }

    #[test]
    fn a_segment_survives_a_round_trip() {
        let packs = vec![pack(1, 3), pack(9, 0), pack(2, 200)];
        let body = encode(&packs, [6; 16]);
        assert_eq!(parse(&body).unwrap(), packs);
        for len in 0..body.len() {
            assert!(parse(&body[..len]).is_err());
        }
    }

    proptest! {
        #[test]
        fn hostile_segments_never_panic(body in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&body);
        }
    }
}
