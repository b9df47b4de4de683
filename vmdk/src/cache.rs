//! What a disk keeps of its files in memory, bounded in bytes: blocks of metadata, and decoded grains.
//!
//! Sixteen shards, each with its own lock, so that readers on many threads seldom meet. Inside a shard the
//! clock algorithm picks the victim: near LRU, without a write to shared lists on every hit.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

/// A block of metadata: a grain table or a page of a directory, as little-endian words. They are atomic so that
/// the writer can update a table that readers hold.
pub(crate) type Table = Arc<[AtomicU32]>;

/// Number of an opened file of a disk.
pub(crate) type FileId = u32;

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Block {
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

/// A cache of values made from pieces of files.
#[derive(Debug)]
pub(crate) struct Cache<V> {
    shards: [Mutex<Shard<V>>; SHARDS],
}

/// The cache of metadata: one for all files of a chain.
pub(crate) type TableCache = Cache<Table>;

/// What a value takes of the bound.
pub(crate) trait Weight {
    /// Bytes.
    fn weight(&self) -> usize;
}

#[derive(Debug)]
struct Shard<V> {
    slots: Vec<Slot<V>>,
    index: HashMap<Key, usize, BuildHasherDefault<Mix>>,
    bytes: usize,
    limit: usize,
    hand: usize,
}

#[derive(Debug)]
struct Slot<V> {
    key: Key,
    value: V,
    used: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    file: FileId,
    block: Block,
}

const SHARDS: usize = 16;

/// What a cached value costs besides its own bytes.
const OVERHEAD: usize = 128;

/// The largest table of any format: what a shard can always keep.
const LARGEST_TABLE: usize = 32 << 10;

impl TableCache {
    /// A cache of about `bytes` bytes of tables, at least one of the largest a shard.
    pub(crate) fn of_tables(bytes: usize) -> Self {
        Self::new(bytes.max(SHARDS * (LARGEST_TABLE + OVERHEAD)))
    }
}

impl<V: Clone + Weight> Cache<V> {
    /// A cache of at most `bytes` bytes. Values that are larger than a shard are not kept.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::new(Shard::new(bytes / SHARDS))) }
    }

    pub(crate) fn get(&self, file: FileId, block: Block) -> Option<V> {
        let key = Key { file, block };
        let shard = self.shard(key);
        let slot = &shard.slots[*shard.index.get(&key)?];
        slot.used.store(true, Ordering::Relaxed);
        Some(slot.value.clone())
    }

    /// Adds a value; one that came before stays.
    pub(crate) fn insert(&self, file: FileId, block: Block, value: V) {
        let key = Key { file, block };
        self.shard(key).insert(key, value);
    }

    fn shard(&self, key: Key) -> MutexGuard<'_, Shard<V>> {
        // Neighbouring tables go to different shards.
        let shard = (key.block.offset / 2048) as usize ^ (key.file as usize).wrapping_mul(7);
        self.shards[shard % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: Weight> Shard<V> {
    fn new(limit: usize) -> Self {
        Self { slots: Vec::new(), index: HashMap::default(), bytes: 0, limit, hand: 0 }
    }

    fn insert(&mut self, key: Key, value: V) {
        let cost = value.weight() + OVERHEAD;
        if cost > self.limit || self.index.contains_key(&key) {
            return;
        }
        while self.bytes + cost > self.limit && !self.slots.is_empty() {
            self.evict();
        }
        self.bytes += cost;
        self.index.insert(key, self.slots.len());
        self.slots.push(Slot { key, value, used: AtomicBool::new(true) });
    }

    /// Drops the first slot under the hand that was not used since the hand last passed. Ends after two rounds.
    fn evict(&mut self) {
        let at = loop {
            let at = self.hand % self.slots.len();
            self.hand = at + 1;
            if !self.slots[at].used.swap(false, Ordering::Relaxed) {
                break at;
            }
        };
        let old = self.slots.swap_remove(at);
        self.bytes -= old.value.weight() + OVERHEAD;
        self.index.remove(&old.key);
        if let Some(moved) = self.slots.get(at) {
            self.index.insert(moved.key, at);
        }
    }
}

impl Weight for Table {
    fn weight(&self) -> usize {
        self.len() * 4
    }
}

/// A hash of one multiplication a word. Images choose the keys, but a shard holds few of them whatever they choose.
#[derive(Debug, Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }
    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: usize = 2048;

    fn table(value: u32) -> Table {
        (0..TABLE / 4).map(|_| AtomicU32::new(value)).collect()
    }

    fn block(number: u64) -> Block {
        Block { offset: number * TABLE as u64, len: TABLE as u32 }
    }

    fn held(cache: &TableCache) -> usize {
        cache.shards.iter().map(|shard| shard.lock().unwrap().slots.len()).sum()
    }

    #[test]
    fn stays_within_its_bound_and_keeps_what_is_used() {
        let cache: TableCache = Cache::new(4 * SHARDS * (TABLE + OVERHEAD));
        for number in 0..4 * SHARDS as u32 {
            cache.insert(0, block(number.into()), table(number));
        }
        assert!((0..4 * SHARDS as u64).all(|number| cache.get(0, block(number)).is_some()));
        for number in 1000..2000 {
            cache.insert(0, block(number.into()), table(number));
            assert_eq!(cache.get(0, block(number.into())).unwrap()[0].load(Ordering::Relaxed), number);
        }
        let indexed: usize = cache.shards.iter().map(|shard| shard.lock().unwrap().index.len()).sum();
        assert_eq!((held(&cache), indexed), (4 * SHARDS, 4 * SHARDS));
    }

    #[test]
    fn large_values_push_out_many_small_ones_and_the_largest_are_not_kept() {
        let cache: TableCache = Cache::new(SHARDS * (16 << 10));
        for number in 0..100 {
            cache.insert(0, block(number), table(1));
        }
        let large: Table = (0..3000).map(|_| AtomicU32::new(2)).collect();
        cache.insert(1, Block { offset: 0, len: 12000 }, large);
        assert!(cache.get(1, Block { offset: 0, len: 12000 }).is_some());
        assert!(cache.shards.iter().all(|shard| shard.lock().unwrap().bytes <= 16 << 10));
        let too_large: Table = (0..5000).map(|_| AtomicU32::new(2)).collect();
        cache.insert(1, Block { offset: 64, len: 20000 }, too_large);
        assert!(cache.get(1, Block { offset: 64, len: 20000 }).is_none());
    }

    #[test]
    fn what_came_first_stays_and_files_differ() {
        let cache = TableCache::of_tables(0);
        cache.insert(0, block(1), table(1));
        cache.insert(0, block(1), table(2));
        assert_eq!(cache.get(0, block(1)).unwrap()[0].load(Ordering::Relaxed), 1);
        assert!(cache.get(1, block(1)).is_none());
    }
}
