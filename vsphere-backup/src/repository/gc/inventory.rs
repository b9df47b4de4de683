//! What the storage holds, listed before anything is marked: only what is in here can be condemned.
//!
//! Memory: about 120 bytes a pack, 56 a page and small object. Chunks are not in here but in
//! [`ChunkTable`](super::chunks::ChunkTable), and one bit each in [`Packs`].

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::SystemTime,
};

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::error::{Error, Result};

use super::super::{
    damage,
    id::{PackId, SegmentId},
    index,
    object::{Objects, is_absent},
    pack::{self, PackEntries},
    storage::Key,
};

/// A pack as it was listed.
#[derive(Debug)]
pub(super) struct Pack {
    pub(super) id: PackId,
    pub(super) size: u64,
    pub(super) modified: Option<SystemTime>,
    /// The number of its first entry among all entries of all packs; `None` when what it holds cannot be read.
    pub(super) base: Option<u64>,
    pub(super) entries: u32,
    /// Bytes of its chunks.
    pub(super) bytes: u64,
    /// Entries that a reachable chunk is taken from.
    pub(super) live: u32,
    /// Their bytes.
    pub(super) live_bytes: u64,
    /// One of them is damaged.
    pub(super) hurt: bool,
}

/// All packs, and which of their entries are needed.
#[derive(Debug, Default)]
pub(super) struct Packs {
    pub(super) list: Vec<Pack>,
    numbers: HashMap<PackId, u32>,
    /// A bit for each entry, by its number.
    live: Vec<u64>,
    entries: u64,
    /// Segments as they were listed, with the packs that they name.
    pub(super) segments: BTreeMap<SegmentId, Vec<PackId>>,
    segment_bytes: u64,
    /// Chunks, by the first half of their ids, whose frames in a pack are damaged.
    damaged: HashSet<(u32, [u8; 16])>,
    /// Marks of damage, each with whether a pack that it names is there.
    pub(super) marks: Vec<(Key, bool)>,
}

/// Page or small objects, by id.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Sorted.
    objects: Vec<([u8; 32], u64, Option<SystemTime>)>,
    reached: Vec<bool>,
}

impl Listed {
    /// Lists what lies below a prefix.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(super) async fn read(objects: &Objects, prefix: &str) -> Result<Self> {
        let mut found = Vec::new();
        let mut listing = objects.storage().list(prefix);
        while let Some(object) = listing.try_next().await? {
            // Pages and small objects have ids of the same form as packs.
            if let Some(PackId(id)) = index::named(&object.key) {
                found.push((id, object.size, object.modified));
            }
        }
        found.sort_unstable_by_key(|(id, ..)| *id);
        let reached = vec![false; found.len()];
        Ok(Self { objects: found, reached })
    }

    /// Notes that an object is reachable. Returns whether that was known before; `None` for one that is not listed.
    pub(super) fn reach(&mut self, id: &[u8; 32]) -> Option<bool> {
        let at = self.objects.binary_search_by_key(id, |(id, ..)| *id).ok()?;
        Some(std::mem::replace(&mut self.reached[at], true))
    }

    pub(super) fn is_listed(&self, id: &[u8; 32]) -> Option<u64> {
        let at = self.objects.binary_search_by_key(id, |(id, ..)| *id).ok()?;
        Some(self.objects[at].1)
    }

    pub(super) fn is_reached(&self, id: &[u8; 32]) -> bool {
        self.objects.binary_search_by_key(id, |(id, ..)| *id).is_ok_and(|at| self.reached[at])
    }

    pub(super) fn forget_reached(&mut self) {
        self.reached.fill(false);
    }

    /// Returns what is not reachable.
    pub(super) fn unreached(&self) -> impl Iterator<Item = &([u8; 32], u64, Option<SystemTime>)> {
        self.objects.iter().zip(&self.reached).filter(|(_, reached)| !**reached).map(|(object, _)| object)
    }
}

impl Packs {
    /// Lists segments and packs. In this order: a pack that a listed segment names and that is not listed is gone.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(super) async fn list(objects: &Objects) -> Result<Self> {
        let mut packs = Self::default();
        let mut listing = objects.storage().list("index");
        while let Some(object) = listing.try_next().await? {
            if let Some(id) = index::named::<SegmentId>(&object.key) {
                packs.segments.insert(id, Vec::new());
                packs.segment_bytes += object.size;
            }
        }
        drop(listing);
        let mut listing = objects.storage().list("packs");
        while let Some(object) = listing.try_next().await? {
            let Some(id) = index::named::<PackId>(&object.key) else { continue };
            let number = u32::try_from(packs.list.len()).map_err(|_| Error::invalid("there are too many packs"))?;
            packs.numbers.insert(id, number);
            let (size, modified) = (object.size, object.modified);
            packs.list.push(Pack {
                id,
                size,
                modified,
                base: None,
                entries: 0,
                bytes: 0,
                live: 0,
                live_bytes: 0,
                hurt: false,
            });
        }
        drop(listing);
        for (key, places) in damage::read(objects, &HashSet::new()).await? {
            let mut holds = false;
            for (pack, chunk) in places {
                let Some(&number) = packs.numbers.get(&pack) else { continue };
                let half = chunk.0[..16].try_into().expect("half of 32 bytes");
                packs.damaged.insert((number, half));
                holds = true;
            }
            packs.marks.push((key, holds));
        }
        Ok(packs)
    }

    /// Tells whether a chunk, named by the first half of its id, has a damaged frame in a pack.
    pub(super) fn is_damaged(&self, pack: u32, half: [u8; 16]) -> bool {
        self.damaged.contains(&(pack, half))
    }

    /// Returns the packs that hold damaged frames.
    pub(super) fn damaged(&self) -> HashSet<u32> {
        self.damaged.iter().map(|(pack, _)| *pack).collect()
    }

    /// Estimates how many entries all packs have together, from the size of the segments.
    pub(super) fn estimate(&self) -> u64 {
        self.segment_bytes / 48 + self.list.len() as u64
    }

    pub(super) fn number(&self, id: &PackId) -> Option<u32> {
        self.numbers.get(id).copied()
    }

    /// Calls `each` with every pack whose content can be read, its number and the number of its first entry.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::UnsupportedVersion`]. Damaged packs are passed over.
    pub(super) async fn read(&mut self, objects: &Objects, mut each: impl FnMut(u32, u64, &PackEntries)) -> Result<()> {
        let mut done = vec![false; self.list.len()];
        let ids: Vec<_> = self.segments.keys().copied().collect();
        let mut segments =
            stream::iter(ids).map(|id| async move { (id, index::read_segment(objects, id).await) }).buffered(PARALLEL);
        while let Some((id, segment)) = segments.next().await {
            let segment = match segment {
                Ok(segment) => segment,
                // Its packs are read by their footers.
                Err(error) if error.is_damage() || is_absent(&error) => continue,
                Err(error) => return Err(error),
            };
            self.segments.insert(id, segment.iter().map(|pack| pack.id).collect());
            for entries in &segment {
                if let Some(number) = self.number(&entries.id)
                    && self.list[number as usize].size == entries.size
                    && !std::mem::replace(&mut done[number as usize], true)
                {
                    let base = self.base(number, entries);
                    each(number, base, entries);
                }
            }
        }
        drop(segments);
        let rest: Vec<_> =
            done.iter().zip(&self.list).filter(|(done, _)| !**done).map(|(_, pack)| (pack.id, pack.size)).collect();
        let mut footers = stream::iter(rest)
            .map(|(id, size)| async move { pack::read_footer(&**objects.storage(), id, size).await })
            .buffered(PARALLEL);
        while let Some(entries) = footers.next().await {
            match entries {
                Ok(entries) => {
                    let number = self.number(&entries.id).expect("it was asked for by its number");
                    let base = self.base(number, &entries);
                    each(number, base, &entries);
                }
                Err(error) if error.is_damage() || is_absent(&error) => {
                    tracing::warn!(%error, "a pack that cannot be read is left alone");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Returns the number of a pack's first entry, which it gets when it is read first.
    fn base(&mut self, number: u32, entries: &PackEntries) -> u64 {
        let pack = &mut self.list[number as usize];
        if let Some(base) = pack.base {
            return base;
        }
        let base = self.entries;
        pack.base = Some(base);
        pack.entries = entries.entries.len() as u32;
        pack.bytes = entries.entries.iter().map(|entry| u64::from(entry.stored)).sum();
        self.entries += u64::from(pack.entries);
        self.live.resize(self.entries.div_ceil(64) as usize, 0);
        base
    }

    /// Notes that a reachable chunk is taken from an entry.
    pub(super) fn need(&mut self, pack: u32, entry: u64, stored: u32) {
        let (word, bit) = ((entry / 64) as usize, 1 << (entry % 64));
        if self.live[word] & bit == 0 {
            self.live[word] |= bit;
            let pack = &mut self.list[pack as usize];
            pack.live += 1;
            pack.live_bytes += u64::from(stored);
        }
    }

    /// Tells whether a reachable chunk is taken from an entry.
    pub(super) fn is_needed(&self, entry: u64) -> bool {
        self.live[(entry / 64) as usize] & 1 << (entry % 64) != 0
    }
}

impl Pack {
    /// Tells whether the pack must stay: something is taken from it, or what it holds is not known.
    pub(super) fn is_needed(&self) -> bool {
        self.live > 0 || self.base.is_none()
    }
}

const PARALLEL: usize = 8;
