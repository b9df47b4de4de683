//! A storage that fails on purpose.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future;

use super::{
    BoxFuture, Key, Storage, StorageError, StorageErrorKind,
    around::{Answer, Around, Kind, Operation, decorate},
    timer::Timer,
};

/// A decorator that makes operation number `k` of another storage fail.
///
/// Operations are counted from 0 over all methods, so that a test can fail each of them in turn.
///
/// ```
/// use std::sync::Arc;
/// use vsphere_backup::repository::storage::{Fault, Faulty, MemoryStorage};
///
/// let memory = Arc::new(MemoryStorage::new());
/// let cut_at_the_third = Faulty::new(memory, 2, Fault::Cut);
/// assert_eq!(cut_at_the_third.operations(), 0);
/// ```
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Storage>,
    at: u64,
    fault: Fault,
    count: AtomicU64,
    written: AtomicU64,
    /// The last writes that were acknowledged, with what was there before.
    unsynced: Mutex<Vec<Undo>>,
    timer: Timer,
}

/// What [`Faulty`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Operation `k` fails and changes nothing; the rest succeed.
    Error,
    /// Operation `k` is carried out but its answer is an error; the rest succeed.
    LostAnswer,
    /// Operation `k` and all later ones fail and change nothing, as after a power cut.
    Cut,
    /// Operation `k` is carried out, but its answer is lost and all later ones fail.
    CutAfter,
    /// As [`Cut`](Self::Cut), and the last so many changes that were acknowledged before are gone, newest first: a
    /// store that does not keep what it promised.
    CutLosing(usize),
    /// Operation `k` never ends; the rest succeed.
    Hang,
    /// So many operations from number `k` on are turned away, as by a store that is overloaded (503).
    Throttled(u64),
    /// Operation `k` and all later ones take so much longer.
    Slow(Duration),
    /// From operation `k` on there is room for so many bytes; a write that does not fit fails with
    /// [`StorageErrorKind::Full`] and changes nothing.
    Full(u64),
}

#[derive(Debug)]
struct Undo {
    key: Key,
    before: Option<Bytes>,
}

impl Faulty {
    /// Wraps `inner`: operation number `at` (from 0) meets `fault`.
    pub fn new(inner: Arc<dyn Storage>, at: u64, fault: Fault) -> Self {
        Self {
            inner,
            at,
            fault,
            count: AtomicU64::new(0),
            written: AtomicU64::new(0),
            unsynced: Mutex::default(),
            timer: Timer::default(),
        }
    }

    /// Takes the time from `timer`, for [`Fault::Slow`].
    #[must_use]
    pub fn timer(mut self, timer: &Timer) -> Self {
        self.timer = timer.clone();
        self
    }

    /// Returns how many operations were asked for so far.
    pub fn operations(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn next(&self, kind: Kind) -> Step {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let reached = number >= self.at;
        match self.fault {
            Fault::Error if number == self.at => Step::Fail,
            Fault::Cut if reached => Step::Fail,
            Fault::CutLosing(_) if reached => Step::Lose,
            Fault::LostAnswer | Fault::CutAfter if number == self.at => Step::DoAndFail,
            Fault::CutAfter if reached => Step::Fail,
            Fault::Hang if number == self.at => Step::Hang,
            Fault::Throttled(count) if reached && number - self.at < count => Step::Fail,
            Fault::Slow(by) if reached => Step::Wait(by),
            Fault::Full(room) if reached => match kind {
                Kind::Write(bytes) if self.takes(bytes, room) => Step::Do,
                Kind::Write(_) => Step::Refuse,
                _ => Step::Do,
            },
            _ => Step::Do,
        }
    }

    /// Takes room for a write when there is as much.
    fn takes(&self, bytes: u64, room: u64) -> bool {
        let fits = |written: u64| written.checked_add(bytes).filter(|&sum| sum <= room);
        self.written.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// Remembers what a change is about to replace.
    async fn remember(&self, operation: &Operation<'_>) -> Result<(), StorageError> {
        let Fault::CutLosing(last) = self.fault else { return Ok(()) };
        let Some(key) = Key::parse(operation.key).ok().filter(|_| operation.changes()) else { return Ok(()) };
        let before = match self.inner.get(&key, u64::MAX).await {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind == StorageErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        unsynced.push(Undo { key, before });
        let old = unsynced.len().saturating_sub(last);
        unsynced.drain(..old);
        Ok(())
    }

    /// Undoes the last changes, newest first.
    async fn lose(&self) -> Result<(), StorageError> {
        let undone = std::mem::take(&mut *self.unsynced.lock().unwrap_or_else(PoisonError::into_inner));
        for Undo { key, before } in undone.into_iter().rev() {
            match before {
                Some(bytes) => self.inner.put(&key, vec![bytes]).await?,
                None => self.inner.delete(&key).await?,
            }
        }
        Ok(())
    }
}

enum Step {
    Do,
    DoAndFail,
    Fail,
    Lose,
    Hang,
    Wait(Duration),
    Refuse,
}

impl Around for Faulty {
    fn inner(&self) -> &dyn Storage {
        &*self.inner
    }

    async fn around<'a, T: Answer>(
        &'a self,
        operation: Operation<'a>,
        mut attempt: impl FnMut() -> BoxFuture<'a, Result<T, StorageError>> + Send + 'a,
    ) -> Result<T, StorageError> {
        let failure = || operation.failed(StorageErrorKind::Unavailable).because("a fault of a test");
        match self.next(operation.kind) {
            Step::Do => {
                self.remember(&operation).await?;
                attempt().await
            }
            Step::DoAndFail => {
                attempt().await?;
                Err(failure())
            }
            Step::Fail => Err(failure()),
            Step::Lose => {
                self.lose().await?;
                Err(failure())
            }
            Step::Hang => future::pending().await,
            Step::Wait(by) => {
                self.timer.sleep(by).await;
                attempt().await
            }
            Step::Refuse => Err(operation.failed(StorageErrorKind::Full)),
        }
    }
}

decorate!(Faulty);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::storage::MemoryStorage;

    fn key(name: &str) -> Key {
        Key::parse(name).unwrap()
    }

    async fn put(storage: &Faulty, name: &str) -> Result<(), StorageErrorKind> {
        storage.put(&key(name), vec![Bytes::from("12345678")]).await.map_err(|error| error.kind)
    }

    #[tokio::test]
    async fn what_was_not_synced_is_gone_after_the_cut() {
        let memory = Arc::new(MemoryStorage::new());
        memory.put(&key("b"), vec![Bytes::from("old")]).await.unwrap();
        let faulty = Faulty::new(memory.clone(), 3, Fault::CutLosing(2));
        for name in ["a", "b", "c"] {
            put(&faulty, name).await.unwrap();
        }
        assert_eq!(put(&faulty, "d").await, Err(StorageErrorKind::Unavailable));
        assert_eq!(memory.keys(), [key("a"), key("b")]);
        assert_eq!(memory.object(&key("b")).unwrap(), "old");
    }

    #[tokio::test]
    async fn a_full_disk_takes_what_still_fits_and_deletes() {
        let faulty = Faulty::new(Arc::new(MemoryStorage::new()), 1, Fault::Full(9));
        put(&faulty, "a").await.unwrap();
        put(&faulty, "b").await.unwrap();
        assert_eq!(put(&faulty, "c").await, Err(StorageErrorKind::Full));
        faulty.delete(&key("a")).await.unwrap();
        faulty.put(&key("d"), vec![Bytes::from("1")]).await.unwrap();
    }

    #[tokio::test]
    async fn throttling_ends_and_a_cut_does_not() {
        let throttled = Faulty::new(Arc::new(MemoryStorage::new()), 1, Fault::Throttled(2));
        let cut = Faulty::new(Arc::new(MemoryStorage::new()), 1, Fault::CutAfter);
        let (mut passing, mut final_) = (Vec::new(), Vec::new());
        for name in ["a", "b", "c", "d"] {
            passing.push(put(&throttled, name).await.is_ok());
            final_.push(put(&cut, name).await.is_ok());
        }
        assert_eq!((passing, final_), (vec![true, false, false, true], vec![true, false, false, false]));
        let done = cut.inner.get(&key("b"), 10).await;
        assert_eq!(done.unwrap(), "12345678", "the cut came after it was carried out");
    }

    #[tokio::test]
    async fn slow_and_hanging_operations_take_their_time() {
        let timer = Timer::by_hand();
        let slow = Faulty::new(Arc::new(MemoryStorage::new()), 1, Fault::Slow(Duration::from_secs(7))).timer(&timer);
        put(&slow, "a").await.unwrap();
        assert_eq!(timer.now(), Duration::ZERO);
        put(&slow, "b").await.unwrap();
        assert_eq!(timer.now(), Duration::from_secs(7));
        let hanging = Faulty::new(Arc::new(MemoryStorage::new()), 0, Fault::Hang);
        tokio::time::timeout(Duration::from_millis(20), put(&hanging, "a")).await.unwrap_err();
        put(&hanging, "a").await.unwrap();
    }
}
