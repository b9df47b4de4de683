//! From areas to reads: areas are widened to the chunk grid, merged where they then touch, and cut
//! into runs of bounded length.

use std::ops::Range;

use futures_core::Stream;
use futures_util::{StreamExt, stream};

use crate::error::{Error, Result};

use super::disk_error;
use crate::error::DiskError;

/// What areas are measured against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub(crate) disk: i32,
    pub(crate) capacity: u64,
    pub(crate) chunk_size: u64,
    /// The longest run in bytes, a multiple of the chunk size.
    pub(crate) run: u64,
}

impl Grid {
    /// Widens an area to whole chunks; the last chunk ends with the disk.
    fn widen(self, area: &Range<u64>) -> Range<u64> {
        let start = area.start / self.chunk_size * self.chunk_size;
        let end = area.end.div_ceil(self.chunk_size).saturating_mul(self.chunk_size);
        start..end.min(self.capacity)
    }
}

/// Turns areas, ascending and not overlapping, into runs on the grid. Returns for each run its
/// range, and the bytes of the areas that came in since the run before.
///
/// # Errors
/// [`Error::Areas`] when the areas' stream fails or an area is empty, out of order or behind the
/// end of the disk: the source of areas is not to be trusted then.
pub(crate) fn runs(
    grid: Grid,
    areas: impl Stream<Item = Result<Range<u64>, DiskError>> + Send + Unpin,
) -> impl Stream<Item = Result<(Range<u64>, u64)>> + Send {
    let state = State { areas, waiting: 0..0, behind: 0, areas_bytes: 0, done: false };
    stream::try_unfold(state, move |mut state| async move {
        loop {
            // A full run, or all that is known when nothing more can touch it.
            let len = state.waiting.end - state.waiting.start;
            if len >= grid.run || (state.done && len > 0) {
                let end = state.waiting.end.min(state.waiting.start + grid.run);
                let run = state.waiting.start..end;
                state.waiting.start = end;
                let bytes = std::mem::take(&mut state.areas_bytes);
                return Ok(Some(((run, bytes), state)));
            }
            if state.done {
                return Ok(None);
            }
            match state.areas.next().await {
                None => state.done = true,
                Some(area) => {
                    let area = area.map_err(|source| Error::Areas { disk: grid.disk, source })?;
                    if area.start < state.behind || area.end <= area.start || area.end > grid.capacity {
                        let what = format!(
                            "the area {}..{} is empty, out of order or behind the end of the disk",
                            area.start, area.end
                        );
                        return Err(Error::Areas { disk: grid.disk, source: disk_error(what) });
                    }
                    state.behind = area.end;
                    state.areas_bytes += area.end - area.start;
                    let wide = grid.widen(&area);
                    if state.waiting.is_empty() {
                        // Its first chunk may have been in the run that was given out last.
                        state.waiting = wide.start.max(state.waiting.end)..wide.end;
                    } else if wide.start <= state.waiting.end {
                        state.waiting.end = state.waiting.end.max(wide.end);
                    } else {
                        let run = std::mem::replace(&mut state.waiting, wide);
                        let bytes = std::mem::take(&mut state.areas_bytes);
                        return Ok(Some(((run, bytes), state)));
                    }
                }
            }
        }
    })
}

struct State<S> {
    areas: S,
    /// On the grid, not given out yet. When empty, its end is that of the last run.
    waiting: Range<u64>,
    /// Where the last area ended.
    behind: u64,
    areas_bytes: u64,
    done: bool,
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, clippy::reversed_empty_ranges)] // Odd areas are what is tested.
mod tests {
    use futures_util::TryStreamExt;
    use proptest::prelude::*;

    use super::*;

    const GRID: Grid = Grid { disk: 1, capacity: 1000, chunk_size: 16, run: 64 };

    fn cut(areas: &[Range<u64>]) -> Result<Vec<Range<u64>>> {
        let areas = stream::iter(areas.to_vec()).map(Ok);
        let runs = runs(GRID, Box::pin(areas)).map_ok(|(run, _)| run);
        futures_util::FutureExt::now_or_never(runs.try_collect()).unwrap()
    }

    #[test]
    fn areas_become_whole_chunks_and_touching_ones_merge() {
        assert_eq!(cut(&[]).unwrap(), []);
        assert_eq!(cut(&[1..2, 3..4, 17..18]).unwrap(), [0..32]);
        assert_eq!(cut(&[1..2, 40..41]).unwrap(), [0..16, 32..48]);
        assert_eq!(cut(&[990..1000]).unwrap(), [976..1000]);
        assert_eq!(cut(&[0..130, 140..150]).unwrap(), [0..64, 64..128, 128..160]);
        assert_eq!(cut(&[0..50, 52..60, 62..63]).unwrap(), [0..64]);
    }

    #[test]
    fn areas_that_cannot_be_are_errors() {
        for bad in [&[5..5][..], &[9..3], &[0..1001], &[10..20, 15..30], &[10..20, 0..5]] {
            assert!(matches!(cut(bad), Err(Error::Areas { disk: 1, .. })), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn runs_cover_exactly_the_touched_chunks_once(bits in proptest::collection::vec(any::<bool>(), 1000)) {
            let mut areas = Vec::new();
            let mut at = 0;
            while at < bits.len() {
                let end = (at..bits.len()).find(|&next| bits[next] != bits[at]).unwrap_or(bits.len());
                if bits[at] {
                    areas.push(at as u64..end as u64);
                }
                at = end;
            }
            let runs = cut(&areas).unwrap();
            for pair in runs.windows(2) {
                prop_assert!(pair[0].end <= pair[1].start);
            }
            let touched = |chunk: u64| (chunk * 16..(chunk * 16 + 16).min(1000)).any(|at| bits[at as usize]);
            for chunk in 0..63 {
                let inside = runs.iter().any(|run| run.contains(&(chunk * 16)));
                prop_assert_eq!(inside, touched(chunk));
            }
            prop_assert!(runs.iter().all(|run| run.end - run.start <= 64));
        }
    }
}
