//! Keeps writes apart from everything that overlaps them.
//!
//! The order of effects between overlapping requests in flight is unknown, so it must not matter:
//! a write waits for every earlier request on the same bytes, and later ones wait for it. First
//! come, first served; requests on other bytes are not held up.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What a request does to its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Shares the range with other reads.
    Read,
    /// Has the range alone.
    Write,
}

/// Ranges in use and waited for.
#[derive(Debug, Default)]
pub(crate) struct RangeLock {
    queue: Mutex<Queue>,
    released: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    /// In order of arrival.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    range: Range<u64>,
    access: Access,
}

/// A range in use, or waited for; dropping it gives it up.
#[derive(Debug)]
pub(crate) struct RangeGuard {
    lock: Arc<RangeLock>,
    id: u64,
}

impl RangeLock {
    /// Waits until `range` is free for `access`. Dropping the future gives up the place.
    pub(crate) async fn acquire(self: &Arc<Self>, range: Range<u64>, access: Access) -> RangeGuard {
        let guard = self.enqueue(range, access);
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            // Before looking, so that a release in between is not missed.
            released.as_mut().enable();
            if self.is_first(guard.id) {
                return guard;
            }
            released.await;
        }
    }

    fn enqueue(self: &Arc<Self>, range: Range<u64>, access: Access) -> RangeGuard {
        let mut queue = self.queue();
        let id = queue.next;
        queue.next += 1;
        queue.entries.push(Entry { id, range, access });
        RangeGuard { lock: Arc::clone(self), id }
    }

    /// Whether nothing that came before `id` stands in its way.
    fn is_first(&self, id: u64) -> bool {
        let queue = self.queue();
        let Some(at) = queue.entries.iter().position(|entry| entry.id == id) else {
            return true;
        };
        let (before, own) = (&queue.entries[..at], &queue.entries[at]);
        !before.iter().any(|other| {
            (other.access == Access::Write || own.access == Access::Write)
                && other.range.start < own.range.end
                && own.range.start < other.range.end
        })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while the lock is held; if it did, the queue would still be whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RangeGuard {
    fn drop(&mut self) {
        self.lock.queue().entries.retain(|entry| entry.id != self.id);
        self.lock.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn reads_share_and_a_write_waits_for_all_of_them() {
        let lock = Arc::new(RangeLock::default());
        let mut one = pin!(lock.acquire(0..10, Access::Read));
        let mut two = pin!(lock.acquire(5..15, Access::Read));
        let Poll::Ready(one) = poll(one.as_mut()) else { panic!("first read waits") };
        let Poll::Ready(two) = poll(two.as_mut()) else { panic!("second read waits") };
        let mut write = pin!(lock.acquire(9..10, Access::Write));
        assert!(poll(write.as_mut()).is_pending());
        drop(one);
        assert!(poll(write.as_mut()).is_pending());
        drop(two);
        assert!(poll(write.as_mut()).is_ready());
    }

    #[test]
    fn later_read_does_not_overtake_a_waiting_write_but_other_bytes_are_free() {
        let lock = Arc::new(RangeLock::default());
        let mut read = pin!(lock.acquire(0..10, Access::Read));
        let Poll::Ready(held) = poll(read.as_mut()) else { panic!("read waits") };
        let mut write = Box::pin(lock.acquire(0..10, Access::Write));
        assert!(poll(write.as_mut()).is_pending());
        let mut late = pin!(lock.acquire(0..10, Access::Read));
        assert!(poll(late.as_mut()).is_pending());
        let mut elsewhere = pin!(lock.acquire(10..20, Access::Write));
        assert!(poll(elsewhere.as_mut()).is_ready());
        // A cancelled write leaves the queue.
        drop(write);
        assert!(poll(late.as_mut()).is_ready());
        drop(held);
        assert_eq!(lock.queue().entries.len(), 0);
    }
}
