//! What becomes of each part of a disk: read and stored, noted as unallocated, or read and compared.
//!
//! Runs of changed chunks come in, in the order of the disk. Those of their chunks that hold nothing by an exact
//! answer about allocation are not read. Of the chunks between the runs, which change tracking calls unchanged, a
//! share is compared with the parent.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use futures_core::Stream;
use futures_util::{StreamExt, stream};

use crate::{
    chance::Chance,
    error::{Error, Result},
    repository::storage::BoxStream,
};

use super::RUN;

/// A part of a disk, on the chunk grid and no longer than a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) range: Range<u64>,
    pub(crate) task: Task,
    /// Bytes of the areas that led to it and to pieces before it.
    pub(crate) areas: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Read and stored.
    Store,
    /// Not read: nothing is allocated there.
    Unallocated,
    /// Read and compared with the parent.
    Audit,
}

/// What pieces are made by.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(super) chunk_size: u64,
    /// The longest piece in bytes, a multiple of the chunk size.
    pub(super) run: u64,
    /// What is before this is done.
    pub(super) from: u64,
    /// The end of what was there at the parent's time: behind it nothing is compared.
    pub(super) until: u64,
    /// Ascending and not touching; everything else reads as zeros, surely. `None` when that is not known.
    pub(super) allocated: Option<Arc<Vec<Range<u64>>>>,
    pub(super) audit: Audit,
}

impl Rules {
    /// Of a disk of which nothing is compared yet.
    ///
    /// # Errors
    /// When the allocated areas are out of order.
    pub(crate) fn new(disk: i32, chunk_size: u64, allocated: Option<Arc<Vec<Range<u64>>>>) -> Result<Self> {
        if let Some(areas) = &allocated
            && (areas.iter().any(Range::is_empty) || areas.windows(2).any(|two| two[0].end >= two[1].start))
        {
            return Err(Error::invalid(format!("the allocated areas of disk {disk} are out of order")));
        }
        Ok(Self { chunk_size, run: longest_run(chunk_size), from: 0, until: 0, allocated, audit: Audit::Nothing })
    }
}

/// Which of the unchanged chunks are compared.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Audit {
    Nothing,
    /// Of as many chunks one, chosen by chance.
    OneIn(f64, Chance),
    Everything,
}

impl Audit {
    /// The share is between 0 and 1.
    pub(super) fn share(share: f64, seed: u64) -> Self {
        if share >= 1.0 {
            Self::Everything
        } else if share > 0.0 {
            Self::OneIn(1.0 / share, Chance::new(seed))
        } else {
            Self::Nothing
        }
    }
}

/// Turns runs, each with the bytes of its areas, into pieces.
pub(crate) fn pieces<'a>(
    rules: Rules,
    runs: impl Stream<Item = Result<(Range<u64>, u64)>> + Send + 'a,
) -> impl Stream<Item = Result<Piece>> + Send + 'a {
    let behind = rules.from;
    let state = State {
        rules,
        runs: Box::pin(runs),
        behind,
        gap: 0..0,
        passed_over: None,
        waiting: VecDeque::new(),
        done: false,
        at: 0,
    };
    stream::try_unfold(state, |mut state| async move { Ok(state.next().await?.map(|piece| (piece, state))) })
}

struct State<'a> {
    rules: Rules,
    runs: BoxStream<'a, Result<(Range<u64>, u64)>>,
    /// Where the last run ended.
    behind: u64,
    /// Unchanged, before the pieces that wait, and still to be looked at for chunks to compare.
    gap: Range<u64>,
    /// How many chunks are still passed over until the next one that is compared.
    passed_over: Option<u64>,
    waiting: VecDeque<Piece>,
    done: bool,
    /// The first of the allocated areas that may matter.
    at: usize,
}

impl State<'_> {
    async fn next(&mut self) -> Result<Option<Piece>> {
        loop {
            if let Some(range) = self.audited() {
                return Ok(Some(Piece { range, task: Task::Audit, areas: 0 }));
            }
            self.gap = 0..0;
            if let Some(piece) = self.waiting.pop_front() {
                return Ok(Some(piece));
            }
            if self.done {
                return Ok(None);
            }
            let until = self.rules.until;
            match self.runs.next().await.transpose()? {
                Some((run, areas)) => {
                    self.gap = self.behind..run.start.min(until);
                    self.behind = run.end;
                    self.split(run, areas);
                }
                None => {
                    self.done = true;
                    self.gap = self.behind..until;
                }
            }
        }
    }

    /// Takes the next range to compare out of the gap.
    fn audited(&mut self) -> Option<Range<u64>> {
        let Rules { chunk_size: size, run, .. } = self.rules;
        if self.gap.is_empty() {
            return None;
        }
        let range = match &mut self.rules.audit {
            Audit::Nothing => return None,
            Audit::Everything => self.gap.start..self.gap.end.min(self.gap.start + run),
            Audit::OneIn(mean, chance) => {
                // Chunks are counted over all gaps, so that many short ones get their share.
                let skip = self.passed_over.take().unwrap_or_else(|| chance.skip(*mean));
                let first = self.gap.start / size;
                let chunks = self.gap.end.div_ceil(size) - first;
                if skip >= chunks {
                    self.passed_over = Some(skip - chunks);
                    return None;
                }
                let start = (first + skip) * size;
                start..self.gap.end.min(start + size)
            }
        };
        self.gap.start = range.end;
        Some(range)
    }

    /// Cuts a run where allocated and unallocated chunks meet.
    fn split(&mut self, run: Range<u64>, mut areas: u64) {
        let Some(allocated) = self.rules.allocated.clone() else {
            self.waiting.push_back(Piece { range: run, task: Task::Store, areas });
            return;
        };
        let size = self.rules.chunk_size;
        let mut start = run.start;
        while start < run.end {
            while allocated.get(self.at).is_some_and(|area| area.end <= start) {
                self.at += 1;
            }
            // The next chunk that holds something.
            let next = allocated.get(self.at).map_or(run.end, |area| area.start / size * size).min(run.end);
            let (end, task) = if next > start {
                (next, Task::Unallocated)
            } else {
                // To where a whole chunk holds nothing.
                let mut end = start;
                let mut at = self.at;
                while let Some(area) = allocated.get(at)
                    && end < run.end
                    && area.start < end.max(start + size)
                {
                    end = end.max(area.end.div_ceil(size).saturating_mul(size).min(run.end));
                    at += 1;
                }
                (end, Task::Store)
            };
            match self.waiting.back_mut() {
                Some(last) if last.range.end == start && last.task == task => last.range.end = end,
                _ => self.waiting.push_back(Piece { range: start..end, task, areas: std::mem::take(&mut areas) }),
            }
            start = end;
        }
    }
}

/// The longest run of whole chunks that is read at once.
pub(crate) fn longest_run(chunk_size: u64) -> u64 {
    RUN.max(chunk_size) / chunk_size * chunk_size
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // One run is a list of runs.
mod tests {
    use futures_util::{FutureExt, TryStreamExt};
    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 16;
    const END: u64 = 1600;

    fn cut(runs: &[Range<u64>], allocated: Option<Vec<Range<u64>>>, audit: Audit) -> Vec<Piece> {
        let allocated = allocated.map(Arc::new);
        let rules = Rules { chunk_size: SIZE, run: 64, from: 0, until: END, allocated, audit };
        let runs = stream::iter(runs.to_vec()).map(|run| Ok((run, 1)));
        pieces(rules, runs).try_collect().now_or_never().unwrap().unwrap()
    }

    fn of(pieces: &[Piece], task: Task) -> Vec<Range<u64>> {
        pieces.iter().filter(|piece| piece.task == task).map(|piece| piece.range.clone()).collect()
    }

    #[test]
    fn chunks_without_anything_allocated_are_not_read() {
        let found = cut(&[0..64, 128..192], Some(vec![20..21, 190..400]), Audit::Nothing);
        assert_eq!(of(&found, Task::Store), [16..32, 176..192]);
        assert_eq!(of(&found, Task::Unallocated), [0..16, 32..64, 128..176]);
        assert_eq!(found.iter().map(|piece| piece.areas).sum::<u64>(), 2);
        assert_eq!(of(&cut(&[0..64], None, Audit::Nothing), Task::Store), [0..64]);
        assert_eq!(of(&cut(&[0..64], Some(Vec::new()), Audit::Nothing), Task::Unallocated), [0..64]);
    }

    #[test]
    fn everything_between_the_runs_is_compared_when_all_is() {
        let found = cut(&[0..16, 96..112], None, Audit::Everything);
        let audited = of(&found, Task::Audit);
        assert_eq!(audited[..3], [16..80, 80..96, 112..176]);
        assert_eq!(audited.iter().map(|range| range.end - range.start).sum::<u64>(), END - 32);
        assert!(found.windows(2).all(|two| two[0].range.end == two[1].range.start));
    }

    #[test]
    fn a_share_is_compared_by_chance() {
        let one_run_in_ten: Vec<_> = (0..10).map(|at| at * 160..at * 160 + 16).collect();
        let counts: Vec<_> =
            (1..200).map(|seed| of(&cut(&one_run_in_ten, None, Audit::share(0.1, seed)), Task::Audit).len()).collect();
        let mean = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
        assert!((8.0..10.0).contains(&mean), "{mean} of 90");
        assert!(of(&cut(&one_run_in_ten, None, Audit::share(0.0, 1)), Task::Audit).is_empty());
    }

    proptest! {
        #[test]
        fn every_changed_chunk_is_read_or_surely_unallocated(
            changed in proptest::collection::vec(any::<bool>(), 100),
            holds in proptest::collection::vec((any::<bool>(), 0..8u64, 9..16u64), 100),
            seed: u64,
            share in 0.0..1.2f64,
        ) {
            let runs: Vec<_> =
                (0..100).filter(|&at| changed[at as usize]).map(|at| at * SIZE..(at + 1) * SIZE).collect();
            let allocated: Vec<_> = (0..100)
                .filter(|&at| holds[at as usize].0)
                .map(|at| at * SIZE + holds[at as usize].1..at * SIZE + holds[at as usize].2)
                .collect();
            let found = cut(&runs, Some(allocated), Audit::share(share, seed));
            prop_assert!(found.windows(2).all(|two| two[0].range.end <= two[1].range.start));
            for at in 0..100 {
                let tasks: Vec<_> =
                    found.iter().filter(|piece| piece.range.contains(&(at * SIZE))).map(|piece| piece.task).collect();
                match (changed[at as usize], holds[at as usize].0) {
                    (true, true) => prop_assert_eq!(tasks, [Task::Store]),
                    (true, false) => prop_assert_eq!(tasks, [Task::Unallocated]),
                    (false, _) => prop_assert!(tasks.is_empty() || tasks == [Task::Audit]),
                }
            }
            prop_assert!(found.iter().all(|piece| piece.range.start % SIZE == 0 && piece.range.end % SIZE == 0));
        }
    }
}
