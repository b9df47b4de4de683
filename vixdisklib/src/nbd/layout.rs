//! Where an export has data, remembered as long as nobody can change it.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OnceCell;

use super::device::{AnyDevice, DeviceError};

/// Asks the device for its allocation in segments. Answers of devices that nobody can write are kept.
pub(super) struct Layout {
    kept: Option<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    clock: u64,
    segments: HashMap<u64, (u64, Segment)>,
}

/// Shared by all that wait for the same answer.
type Segment = Arc<OnceCell<Arc<[Range<u64>]>>>;

impl Layout {
    pub(super) fn new(constant: bool) -> Self {
        Self { kept: constant.then(Mutex::default) }
    }

    /// Whether asking costs nothing most of the time.
    pub(super) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// The parts of `range` that may have data, ascending; touching ones are joined. `range` lies within one segment
    /// ([`segment_of`]).
    pub(super) async fn areas(&self, device: &dyn AnyDevice, range: Range<u64>) -> Vec<Range<u64>> {
        let Some(kept) = &self.kept else {
            let asked = outward(&range, device);
            return clipped(&or_everything(device.allocated(asked.clone()).await, &asked), &range);
        };
        let segment = segment_of(range.start);
        let whole = segment.start..segment.end.min(device.capacity());
        let cell = kept.lock().unwrap_or_else(PoisonError::into_inner).look_up(segment.start);
        let asked =
            cell.get_or_try_init(|| async { Ok(told(device.allocated(whole.clone()).await?, &whole).into()) }).await;
        match asked {
            Ok(areas) => clipped(areas, &range),
            // Not kept: the next one asks again.
            Err(error) => clipped(&or_everything(Err(error), &whole), &range),
        }
    }
}

impl Kept {
    fn look_up(&mut self, start: u64) -> Segment {
        self.clock += 1;
        if self.segments.len() >= MAX_SEGMENTS && !self.segments.contains_key(&start) {
            let oldest = self.segments.iter().min_by_key(|(_, (used, _))| *used).map(|(start, _)| *start);
            oldest.map(|oldest| self.segments.remove(&oldest));
        }
        let (used, segment) = self.segments.entry(start).or_default();
        *used = self.clock;
        Arc::clone(segment)
    }
}

/// The segment that `offset` lies in; the last one may go beyond the end of the device.
pub(super) fn segment_of(offset: u64) -> Range<u64> {
    let start = offset - offset % SEGMENT;
    start..start.saturating_add(SEGMENT)
}

fn or_everything(answer: Result<Vec<Range<u64>>, DeviceError>, range: &Range<u64>) -> Vec<Range<u64>> {
    answer.map(|areas| told(areas, range)).unwrap_or_else(|error| {
        tracing::debug!(%error, "allocation is unknown; everything counts as data");
        vec![range.clone()]
    })
}

/// What the device has told of `range`, if it can be true: what is taken for a hole is not read.
fn told(areas: Vec<Range<u64>>, range: &Range<u64>) -> Vec<Range<u64>> {
    let is_ascending = areas.windows(2).all(|pair| pair[0].end <= pair[1].start);
    if is_ascending && areas.iter().all(|area| area.start <= area.end) {
        return areas;
    }
    tracing::warn!("a device tells its areas in no order; everything counts as data");
    vec![range.clone()]
}

/// The whole blocks around `range`.
fn outward(range: &Range<u64>, device: &dyn AnyDevice) -> Range<u64> {
    let alignment = u64::from(device.alignment());
    let end = range.end.checked_next_multiple_of(alignment).unwrap_or(range.end);
    range.start - range.start % alignment..end.min(device.capacity())
}

fn clipped(areas: &[Range<u64>], range: &Range<u64>) -> Vec<Range<u64>> {
    let first = areas.partition_point(|area| area.end <= range.start);
    let inside = areas[first..].iter().take_while(|area| area.start < range.end);
    let mut out: Vec<Range<u64>> = Vec::new();
    for area in inside {
        let area = area.start.max(range.start)..area.end.min(range.end);
        match out.last_mut() {
            Some(last) if last.end >= area.start => last.end = last.end.max(area.end),
            _ if area.is_empty() => {}
            _ => out.push(area),
        }
    }
    out
}

/// Bytes that are asked about at once: 16384 chunks of 64 KiB, one page of a host.
const SEGMENT: u64 = 1 << 30;

/// With at most 8192 areas in each, 32 MiB in the worst case.
const MAX_SEGMENTS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_cut_to_the_range_and_joined() {
        let areas = [0..10, 20..30, 30..40, 60..70];
        assert_eq!(clipped(&areas, &(5..65)), [5..10, 20..40, 60..65]);
        assert_eq!(clipped(&areas, &(10..20)), []);
        assert_eq!(clipped(&areas, &(25..26)), [25..26]);
    }

    #[test]
    fn areas_in_no_order_and_unknown_ones_count_as_data() {
        let everything = vec![0..30];
        for areas in [vec![20..30, 0..10], vec![0..20, 10..30], vec![Range { start: 9, end: 3 }]] {
            assert_eq!(or_everything(Ok(areas), &(0..30)), everything);
        }
        let unknown = DeviceError::new(super::super::DeviceErrorKind::Io, "no");
        assert_eq!(or_everything(Err(unknown), &(0..30)), everything);
        assert_eq!(or_everything(Ok(vec![0..10, 10..20]), &(0..30)), [0..10, 10..20]);
    }

    #[test]
    fn the_segment_that_was_not_used_for_longest_is_forgotten() {
        let mut kept = Kept::default();
        for start in 0..MAX_SEGMENTS as u64 {
            kept.look_up(start);
        }
        kept.look_up(0);
        kept.look_up(MAX_SEGMENTS as u64);
        assert!(kept.segments.contains_key(&0) && !kept.segments.contains_key(&1));
        assert_eq!(kept.segments.len(), MAX_SEGMENTS);
    }
}
