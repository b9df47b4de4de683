//! How much memory the disks of a job may take, and the memory itself: what one read had is the next one's.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many bytes of disks may be in memory at once. Clones share the budget.
#[derive(Clone, Debug)]
pub struct Budget {
    permits: Arc<Semaphore>,
    total: u32,
    spare: Arc<Mutex<Spare>>,
}

/// Memory of reads that are done with.
#[derive(Debug, Default)]
struct Spare {
    kept: Vec<BytesMut>,
    /// Bytes of `kept`.
    idle: u64,
    /// Bytes in use by reads.
    busy: u64,
}

impl Default for Budget {
    /// 32 MiB.
    fn default() -> Self {
        Self::new(32 << 20)
    }
}

impl Budget {
    /// Makes a budget of `bytes`, at least 8 MiB.
    pub fn new(bytes: u64) -> Self {
        let total = u32::try_from(bytes.max(8 << 20) / UNIT).unwrap_or(u32::MAX >> 3);
        let total = total.min(u32::MAX >> 3);
        Self { permits: Arc::new(Semaphore::new(total as usize)), total, spare: Arc::default() }
    }

    /// Waits until `bytes` may be held.
    pub(crate) async fn take(&self, bytes: u64) -> OwnedSemaphorePermit {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.total);
        let permit = self.permits.clone().acquire_many_owned(units).await;
        permit.expect("the semaphore is never closed")
    }

    /// Waits until a read of `bytes` may be held, and gives it memory when some is left over.
    pub(crate) async fn room(&self, bytes: u64) -> Room {
        let permit = self.take(bytes).await;
        let (memory, bytes) = self.spare().take(bytes, u64::from(self.total) * UNIT);
        Room { budget: self.clone(), memory, bytes, _permit: permit }
    }

    fn spare(&self) -> MutexGuard<'_, Spare> {
        // After a panic some memory may count that is gone: less is kept then.
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spare {
    /// Takes memory for a read, which may be empty; how many bytes it counts for.
    fn take(&mut self, bytes: u64, total: u64) -> (BytesMut, u64) {
        // Never much more than is needed: the budget counts what is read.
        let fits = |memory: &BytesMut| (bytes..=bytes.saturating_mul(2)).contains(&(memory.capacity() as u64));
        let memory = match self.kept.iter().rposition(fits) {
            Some(at) => self.kept.swap_remove(at),
            None => BytesMut::new(),
        };
        self.idle -= memory.capacity() as u64;
        let bytes = bytes.max(memory.capacity() as u64);
        self.busy += bytes;
        while self.idle + self.busy > total
            && let Some(useless) = self.kept.pop()
        {
            self.idle -= useless.capacity() as u64;
        }
        (memory, bytes)
    }

    fn keep(&mut self, memory: BytesMut, total: u64) {
        let len = memory.capacity() as u64;
        if self.idle + self.busy + len <= total {
            self.idle += len;
            self.kept.push(memory);
        }
    }
}

/// The right to hold the bytes of one read. Dropping it gives it up.
#[derive(Debug)]
pub(crate) struct Room {
    budget: Budget,
    memory: BytesMut,
    bytes: u64,
    _permit: OwnedSemaphorePermit,
}

impl Room {
    /// Returns memory from an earlier read, if any.
    pub(crate) fn memory(&mut self) -> BytesMut {
        mem::take(&mut self.memory)
    }

    /// Returns what was read as bytes that give up the room when they are dropped, and their memory with it.
    pub(crate) fn hold(self, read: Bytes) -> Bytes {
        Bytes::from_owner(Held { read, room: self })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut spare = self.budget.spare();
        spare.busy = spare.busy.saturating_sub(self.bytes);
        if self.memory.capacity() > 0 {
            spare.keep(mem::take(&mut self.memory), u64::from(self.budget.total) * UNIT);
        }
    }
}

struct Held {
    read: Bytes,
    room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.read
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Sources may keep what they gave: it is theirs then.
        if let Ok(memory) = mem::take(&mut self.read).try_into_mut() {
            self.room.memory = memory;
        }
    }
}

const UNIT: u64 = 4096;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// Reads into what the room has.
    fn read(budget: &Budget, len: u64) -> (Bytes, bool) {
        let mut room = budget.room(len).now_or_never().unwrap();
        let mut memory = room.memory();
        let again = memory.capacity() as u64 >= len;
        memory.resize(len as usize, 7);
        (room.hold(memory.freeze()), again)
    }

    #[test]
    fn memory_is_used_again_and_never_for_much_less_than_it_holds() {
        let budget = Budget::new(8 * MIB);
        drop(read(&budget, 4 * MIB));
        assert!(read(&budget, 4 * MIB).1);
        assert!(read(&budget, 3 * MIB).1);
        assert!(!read(&budget, MIB).1, "the budget would count a quarter of it");
    }

    #[test]
    fn what_is_kept_and_what_is_in_use_stay_within_the_budget() {
        let budget = Budget::new(8 * MIB);
        let two = [read(&budget, 4 * MIB), read(&budget, 4 * MIB)];
        drop(two);
        let total = |budget: &Budget| {
            let spare = budget.spare();
            spare.idle + spare.busy
        };
        assert_eq!(total(&budget), 8 * MIB);
        let small: Vec<_> = (0..4).map(|_| read(&budget, MIB).0).collect();
        assert_eq!(total(&budget), 8 * MIB, "memory that does not fit made room");
        drop(small);
        assert_eq!(total(&budget), 8 * MIB);
        assert!(read(&budget, 9 * MIB).0.len() == 9 << 20, "a read above the budget is alone and keeps nothing");
        assert_eq!(budget.spare().busy, 0);
    }

    #[test]
    fn memory_that_somebody_else_holds_is_left_to_him() {
        let budget = Budget::new(8 * MIB);
        let room = budget.room(MIB).now_or_never().unwrap();
        let theirs = Bytes::from(vec![1; MIB as usize]);
        drop(room.hold(theirs.clone()));
        assert_eq!((theirs[0], budget.spare().idle), (1, 0));
    }
}
