//! Where the next grain of a hosted file goes, who is writing which, and whether the file is marked as being written.

use std::{
    ops::Range,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::{
    SECTOR,
    error::{Error, Result},
};

/// State of the allocation in one file.
#[derive(Debug)]
pub(super) struct Allocator {
    /// Taken before the lock of the tables.
    state: Mutex<State>,
    /// A claim was given back.
    released: Condvar,
    /// Copy of `State::end` for checks without the lock.
    end: AtomicU64,
    marked_unclean: AtomicBool,
    /// A write failed, or an earlier writer died: the flag must stay set.
    failed: AtomicBool,
}

/// What is decided under the lock.
#[derive(Debug)]
pub(super) struct State {
    /// End of what is used in the file, in bytes.
    end: u64,
    /// Grains that are being written for the first time, at most one range a thread.
    claimed: Vec<Range<u64>>,
}

/// Grains that only the holder may give a place; readers and other writers do not see it yet.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    allocator: &'a Allocator,
    grains: Range<u64>,
}

/// The locked state.
pub(super) type Locked<'a> = MutexGuard<'a, State>;

impl Allocator {
    pub(super) fn new(file_len: u64, grain_bytes: u64, was_unclean: bool) -> Self {
        let end = free_end(file_len, grain_bytes);
        Self {
            state: Mutex::new(State { end, claimed: Vec::new() }),
            released: Condvar::new(),
            end: AtomicU64::new(end),
            marked_unclean: AtomicBool::new(false),
            failed: AtomicBool::new(was_unclean),
        }
    }

    /// Locks the allocation, once nobody else is writing `grain`.
    pub(super) fn lock_for(&self, grain: u64) -> Locked<'_> {
        let locked = self.lock();
        self.released
            .wait_while(locked, |state| state.claimed.iter().any(|claimed| claimed.contains(&grain)))
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The first of `grains`, which was waited for, and those behind it up to the next one that somebody else has.
    pub(super) fn unclaimed(grains: Range<u64>, locked: &Locked<'_>) -> Range<u64> {
        let next = locked.claimed.iter().map(|claimed| claimed.start).filter(|start| grains.contains(start)).min();
        grains.start..next.unwrap_or(grains.end)
    }

    /// Claims [unclaimed](Self::unclaimed) grains. This takes the guard, because a claim is given back under the lock:
    /// whoever failed while holding both would wait for itself.
    pub(super) fn claim(&self, grains: Range<u64>, mut locked: Locked<'_>) -> Claim<'_> {
        locked.claimed.push(grains.clone());
        Claim { allocator: self, grains }
    }

    /// Takes `len` bytes at the end of the file, at a multiple of `unit`; returns where.
    pub(super) fn reserve(&self, len: u64, unit: u64, name: &str, locked: &mut Locked<'_>) -> Result<u64> {
        let at = locked.end.checked_next_multiple_of(unit);
        let taken = at.and_then(|at| Some((at, at.checked_add(len)?)));
        // Sector numbers have 32 bits: an extent's file ends at 2 TiB.
        let (at, end) = taken.filter(|(_, end)| end / SECTOR <= u64::from(u32::MAX)).ok_or_else(|| {
            Error::not_supported(name, "a sparse extent file above 2 TiB", "sector numbers have 32 bits")
        })?;
        locked.end = end;
        self.end.store(end, Ordering::Release);
        Ok(at)
    }

    /// End of what is used in the file, in bytes.
    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Calls `mark` at the first change.
    pub(super) fn mark_unclean(&self, mark: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.is_marked_unclean() {
            return Ok(());
        }
        let _locked = self.lock();
        if !self.is_marked_unclean() {
            mark()?;
            self.marked_unclean.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Calls `mark` if there was a change and none failed.
    pub(super) fn mark_clean(&self, mark: impl FnOnce() -> Result<()>) -> Result<()> {
        let _locked = self.lock();
        if self.is_marked_unclean() && !self.failed.load(Ordering::Acquire) {
            mark()?;
            self.marked_unclean.store(false, Ordering::Release);
        }
        Ok(())
    }

    pub(super) fn is_marked_unclean(&self) -> bool {
        self.marked_unclean.load(Ordering::Acquire)
    }

    pub(super) fn note_failure(&self) {
        self.failed.store(true, Ordering::Release);
    }

    fn lock(&self) -> Locked<'_> {
        // The lock guards the file, and a file half written is what `failed` and the unclean flag are for.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut locked = self.allocator.lock();
        locked.claimed.retain(|claimed| *claimed != self.grains);
        drop(locked);
        self.allocator.released.notify_all();
    }
}

/// Where unused bytes begin in a file of this size. A file that ends inside a grain may have been cut by its writer at
/// the disk's end; the rest of that grain stays free, wherever it starts.
pub(crate) fn free_end(file_len: u64, grain_bytes: u64) -> u64 {
    if file_len.is_multiple_of(grain_bytes) { file_len } else { file_len.saturating_add(grain_bytes - SECTOR) }
}
