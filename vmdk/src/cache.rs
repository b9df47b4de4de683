//! Grain tables in memory, bounded in bytes, shared by all extents of a disk.
//!
//! Sixteen shards, each with its own lock, so that readers on many threads seldom meet. Inside a shard the
//! clock algorithm picks the victim: near LRU, without a write to shared lists on every hit.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

/// A grain table. Entries are atomic so that the writer can update a table that readers hold.
pub(crate) type Table = Arc<[AtomicU32]>;

/// Which table of which extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TableKey {
    pub(crate) extent: u32,
    pub(crate) table: u32,
}

/// The cache.
#[derive(Debug)]
pub(crate) struct TableCache {
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    slots: Vec<Slot>,
    limit: usize,
    index: HashMap<TableKey, usize>,
    hand: usize,
}

#[derive(Debug)]
struct Slot {
    key: TableKey,
    table: Table,
    used: AtomicBool,
}

const SHARDS: usize = 16;

/// What one cached table costs: 512 entries of four bytes, and the book-keeping around them.
const TABLE_BYTES: usize = 512 * 4 + 128;

impl TableCache {
    /// A cache of about `bytes` bytes, at least one table a shard.
    pub(crate) fn new(bytes: usize) -> Self {
        let limit = (bytes / TABLE_BYTES / SHARDS).max(1);
        Self { shards: std::array::from_fn(|_| Mutex::new(Shard { limit, ..Shard::default() })) }
    }

    pub(crate) fn get(&self, key: TableKey) -> Option<Table> {
        let shard = self.shard(key);
        let slot = &shard.slots[*shard.index.get(&key)?];
        slot.used.store(true, Ordering::Relaxed);
        Some(Arc::clone(&slot.table))
    }

    /// Adds a table that is not in the cache.
    pub(crate) fn insert(&self, key: TableKey, table: Table) {
        let mut shard = self.shard(key);
        let slot = Slot { key, table, used: AtomicBool::new(true) };
        if shard.slots.len() < shard.limit {
            let at = shard.slots.len();
            shard.slots.push(slot);
            shard.index.insert(key, at);
            return;
        }
        let at = shard.victim();
        let old = std::mem::replace(&mut shard.slots[at], slot);
        shard.index.remove(&old.key);
        shard.index.insert(key, at);
    }

    fn shard(&self, key: TableKey) -> MutexGuard<'_, Shard> {
        // Neighbouring tables go to different shards.
        let shard = (key.table as usize ^ (key.extent as usize).wrapping_mul(7)) % SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    /// The first slot under the hand that was not used since the hand last passed. Ends after two rounds.
    fn victim(&mut self) -> usize {
        loop {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            if !self.slots[at].used.swap(false, Ordering::Relaxed) {
                return at;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(value: u32) -> Table {
        Arc::from([AtomicU32::new(value)])
    }

    #[test]
    fn stays_within_its_bound_and_keeps_what_is_used() {
        let cache = TableCache::new(4 * SHARDS * TABLE_BYTES);
        let key = |table| TableKey { extent: 0, table };
        for number in 0..4 * SHARDS as u32 {
            cache.insert(key(number), table(number));
        }
        assert!((0..4 * SHARDS as u32).all(|number| cache.get(key(number)).is_some()));
        for number in 1000..2000 {
            cache.insert(key(number), table(number));
            assert_eq!(cache.get(key(number)).unwrap()[0].load(Ordering::Relaxed), number);
        }
        let held: usize = cache.shards.iter().map(|shard| shard.lock().unwrap().slots.len()).sum();
        let indexed: usize = cache.shards.iter().map(|shard| shard.lock().unwrap().index.len()).sum();
        assert_eq!((held, indexed), (4 * SHARDS, 4 * SHARDS));
    }
}
