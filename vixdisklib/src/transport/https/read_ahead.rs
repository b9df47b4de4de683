//! Reading in advance for whoever reads a disk from front to back.
//!
//! Windows of the disk are fetched by tasks of their own while the reader is busy with those before them. A window is
//! kept until it was read to its end. Somebody who reads here and there is never read ahead of: what was not asked for
//! does not travel.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use crate::{error::Result, transport::BoxFuture};

/// What is read: `len` bytes from `offset`.
pub(super) trait Source: Send + Sync + 'static {
    fn read(self: Arc<Self>, offset: u64, len: usize) -> BoxFuture<'static, Result<Bytes>>;
}

/// The windows of one disk.
pub(super) struct ReadAhead {
    /// Bytes kept in advance; 0 switches it off.
    budget: u64,
    capacity: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Where the last read ended.
    end: u64,
    /// How many reads in a row began there.
    streak: u32,
    /// Ascending. A read that went beyond the last of them leaves a gap before the next.
    windows: VecDeque<Window>,
    tasks: JoinSet<()>,
}

/// A part of the disk that is being fetched, or is there.
struct Window {
    range: Range<u64>,
    bytes: watch::Receiver<Fetched>,
    task: AbortHandle,
}

/// What became of a window.
#[derive(Clone)]
enum Fetched {
    Running,
    Done(Bytes),
    /// The reader asks for itself, and gets the error.
    Failed,
}

impl ReadAhead {
    pub(super) fn new(budget: u64, capacity: u64) -> Self {
        Self { budget, capacity, state: Mutex::default() }
    }

    /// Reads `len` bytes, from windows as far as there are any.
    pub(super) async fn read<S: Source>(&self, source: &Arc<S>, offset: u64, len: usize) -> Result<Bytes> {
        let wanted = offset..offset + len as u64;
        let windows = self.note(source, &wanted);
        let mut whole = BytesMut::new();
        let mut at = offset;
        for (range, mut bytes) in windows {
            if range.start > at {
                break;
            }
            let fetched = bytes.wait_for(|fetched| !matches!(fetched, Fetched::Running)).await;
            let Ok(Fetched::Done(bytes)) = fetched.map(|fetched| fetched.clone()) else { break };
            let end = wanted.end.min(range.end);
            let part = bytes.slice((at - range.start) as usize..(end - range.start) as usize);
            if at == wanted.start && end == wanted.end {
                return Ok(part);
            }
            whole.extend_from_slice(&part);
            at = end;
        }
        if at == wanted.start {
            return Arc::clone(source).read(offset, len).await;
        }
        if at < wanted.end {
            let rest = Arc::clone(source).read(at, (wanted.end - at) as usize).await?;
            whole.extend_from_slice(&rest);
        }
        Ok(whole.freeze())
    }

    /// Notes a read, starts windows before it, and returns those that hold its beginning and what follows.
    fn note<S: Source>(&self, source: &Arc<S>, wanted: &Range<u64>) -> Vec<(Range<u64>, watch::Receiver<Fetched>)> {
        let mut state = self.lock();
        let near = wanted.start >= state.end.saturating_sub(SLACK) && wanted.start <= state.end.saturating_add(SLACK);
        state.streak = if near { state.streak.saturating_add(1) } else { 0 };
        state.end = if near { state.end.max(wanted.end) } else { wanted.end };
        if state.streak < SEQUENTIAL || self.budget == 0 {
            if !near {
                state.drop_windows(u64::MAX);
            }
            return Vec::new();
        }
        let held = |window: &&Window| window.range.end > wanted.start && window.range.start < wanted.end;
        let found: Vec<_> =
            state.windows.iter().filter(held).map(|window| (window.range.clone(), window.bytes.clone())).collect();
        let found =
            if found.first().is_some_and(|(range, _)| range.start <= wanted.start) { found } else { Vec::new() };
        // Others may still read a little behind.
        state.drop_windows(wanted.start.saturating_sub(SLACK));
        self.fill(&mut state, source, wanted);
        found
    }

    fn fill<S: Source>(&self, state: &mut State, source: &Arc<S>, wanted: &Range<u64>) {
        let size = (self.budget / 4).clamp(64 << 10, 4 << 20);
        let mut next = state.windows.back().map_or(wanted.end, |last| last.range.end).max(wanted.end);
        while state.tasks.try_join_next().is_some() {}
        while next < self.capacity && next.saturating_add(size) <= wanted.end.saturating_add(self.budget) {
            let range = next..self.capacity.min(next + size);
            next = range.end;
            let (sender, bytes) = watch::channel(Fetched::Running);
            let (source, window) = (Arc::clone(source), range.clone());
            let task = state.tasks.spawn(async move {
                let read = source.read(window.start, (window.end - window.start) as usize).await;
                let _ = sender.send(read.map_or(Fetched::Failed, Fetched::Done));
            });
            state.windows.push_back(Window { range, bytes, task });
        }
    }

    /// Ends what is under way.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.drop_windows(u64::MAX);
        state.streak = 0;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets the windows that end before `until`.
    fn drop_windows(&mut self, until: u64) {
        while self.windows.front().is_some_and(|window| window.range.end <= until) {
            self.windows.pop_front();
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// So many reads in a row have to begin where the one before ended.
const SEQUENTIAL: u32 = 3;

/// How far the beginning of a read may lie from the end of the last one: readers with several requests under way send
/// them a little out of order.
const SLACK: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Bytes that tell their offset; counts what is read.
    #[derive(Default)]
    struct Counted {
        bytes: AtomicU64,
        reads: AtomicU64,
    }

    fn byte(at: u64) -> u8 {
        (at / 251) as u8
    }

    impl Source for Counted {
        fn read(self: Arc<Self>, offset: u64, len: usize) -> BoxFuture<'static, Result<Bytes>> {
            Box::pin(async move {
                self.bytes.fetch_add(len as u64, Ordering::Relaxed);
                self.reads.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok((offset..offset + len as u64).map(byte).collect())
            })
        }
    }

    async fn check(ahead: &ReadAhead, source: &Arc<Counted>, offset: u64, len: usize) {
        let read = ahead.read(source, offset, len).await.unwrap();
        assert!(read.iter().copied().eq((offset..offset + len as u64).map(byte)), "{len} bytes at {offset}");
    }

    const MIB: u64 = 1 << 20;

    #[tokio::test]
    async fn from_front_to_back_every_byte_travels_once() {
        for len in [64 << 10, 100_001, 3 << 20] {
            let capacity = 40 * MIB + 512;
            let (ahead, source) = (ReadAhead::new(8 * MIB, capacity), Arc::new(Counted::default()));
            let mut at = 0;
            while at < capacity {
                let len = len.min((capacity - at) as usize);
                check(&ahead, &source, at, len).await;
                at += len as u64;
            }
            let bytes = source.bytes.load(Ordering::Relaxed);
            assert_eq!(bytes, capacity, "reads of {len}");
        }
    }

    #[tokio::test]
    async fn here_and_there_nothing_travels_but_what_is_asked_for() {
        let (ahead, source) = (ReadAhead::new(8 * MIB, 1 << 40), Arc::new(Counted::default()));
        let mut at = 5;
        for _ in 0..200 {
            at = u64::wrapping_mul(at, 6_364_136_223_846_793_005).wrapping_add(1_442_695) % (1 << 39);
            check(&ahead, &source, at, 4096).await;
        }
        assert_eq!(source.bytes.load(Ordering::Relaxed), 200 * 4096);
    }

    #[tokio::test]
    async fn reads_out_of_order_over_a_gap_between_windows_get_their_bytes() {
        for (budget, overshoot) in [(64 << 10, MIB), (MIB, 3 * MIB / 2)] {
            let (ahead, source) = (ReadAhead::new(budget, 1 << 40), Arc::new(Counted::default()));
            let mut at = 0;
            for len in [4096, 4096, 4096, 4096, overshoot] {
                check(&ahead, &source, at, len as usize).await;
                at += len;
            }
            // Those behind come late, and begin in what was read before.
            for back in [SLACK, SLACK / 2, 1] {
                let start = ahead.lock().end - back;
                check(&ahead, &source, start, MIB as usize + 7).await;
            }
        }
    }

    #[tokio::test]
    async fn readers_that_jump_about_get_their_bytes() {
        let mut state = 7_u64;
        let mut below = |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
            (state >> 33) % limit
        };
        for budget in [64 << 10, 100 << 10, 256 << 10] {
            let (ahead, source) = (ReadAhead::new(budget, 1 << 40), Arc::new(Counted::default()));
            let mut at = 1 << 30;
            for _ in 0..60 {
                let len = 1 + below(3 << 16);
                check(&ahead, &source, at, len as usize).await;
                at = (at + len + below(SLACK / 8)).saturating_sub(below(SLACK / 8));
            }
        }
    }

    #[tokio::test]
    async fn a_budget_of_nothing_reads_nothing_ahead() {
        let (ahead, source) = (ReadAhead::new(0, 8 * MIB), Arc::new(Counted::default()));
        for at in 0..8 {
            check(&ahead, &source, at * MIB, MIB as usize).await;
        }
        assert_eq!(source.reads.load(Ordering::Relaxed), 8);
    }
}
