//! Changed block tracking, exactly as far as a backup program can see it.
//!
//! The tracker keeps one block map per *sequence*: map `k` holds what was written after landmark `k - 1` and up
//! to landmark `k`. A landmark is a snapshot. The changes between two landmarks are the union of the maps
//! between them, so an answer never misses a block, and never invents one beyond the granularity.

use std::collections::VecDeque;
use std::ops::Range;

use super::BlockSet;

/// Sequences kept apart. Beyond it the two oldest are joined: answers to the oldest ids become supersets.
const MAX_EPOCHS: usize = 512;

/// How the UUID half of a change id is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum UuidStyle {
    /// `52 3c ec 11 9e 2c 4c 3d-87 4a c3 4e 85 f2 ea 95`, as vSphere writes it.
    #[default]
    Spaced,
    /// `523cec11-9e2c-4c3d-874a-c34e85f2ea95`.
    Dashed,
}

/// Switches of change tracking where servers differ or nobody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrackingOptions {
    /// Bytes per tracked block.
    pub granularity: u64,
    /// Most areas in one answer; the rest needs another call.
    pub max_areas: usize,
    /// Whether the snapshot whose creation switches tracking on already carries a change id.
    pub first_snapshot_has_id: bool,
    /// Whether reverting to a snapshot starts tracking anew (a new UUID).
    pub revert_resets: bool,
    /// Whether the tail of a grown disk counts as changed.
    pub growth_is_change: bool,
    /// How change ids look.
    pub uuid_style: UuidStyle,
}

impl Default for TrackingOptions {
    fn default() -> Self {
        Self {
            granularity: 64 * 1024,
            max_areas: 2000,
            first_snapshot_has_id: false,
            revert_resets: false,
            growth_is_change: true,
            uuid_style: UuidStyle::default(),
        }
    }
}

/// Why a query for changed areas was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrackingError {
    /// The change id (or the snapshot) does not belong to what is tracked now: a `FileFault` on the wire.
    #[error("change tracking of {disk}: {reason}")]
    Stale {
        /// The disk's datastore path.
        disk: String,
        /// Why.
        reason: String,
    },
    /// `startOffset` is at or past the end of the disk: `InvalidArgument` on the wire.
    #[error("start offset {start} is not below the capacity {capacity}")]
    StartOffset {
        /// The offset asked for, bytes.
        start: i64,
        /// The size of the disk in the snapshot, bytes.
        capacity: u64,
    },
    /// The host could not read the allocation map.
    #[error("allocation map: {0}")]
    Storage(String),
}

/// One page of changed areas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Echo of the start asked for, bytes.
    pub start: u64,
    /// Bytes from `start` that this page speaks for.
    pub length: u64,
    /// Changed areas in bytes: ascending, apart, inside the page.
    pub areas: Vec<Range<u64>>,
}

impl Page {
    /// Cuts a stream of ascending areas that begin at or after `start` into one page.
    pub(super) fn cut(start: u64, capacity: u64, max: usize, mut areas: impl Iterator<Item = Range<u64>>) -> Self {
        let page: Vec<_> = areas.by_ref().take(max.max(1)).collect();
        let end = match (areas.next(), page.last()) {
            (Some(_), Some(last)) => last.end,
            _ => capacity,
        };
        Page { start, length: end - start, areas: page }
    }
}

/// A landmark: what a snapshot remembers of tracking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Landmark {
    pub(super) uuid: String,
    pub(super) sequence: u64,
}

impl Landmark {
    pub(super) fn id(&self) -> String {
        format!("{}/{}", self.uuid, self.sequence)
    }
}

/// The tracking state of one disk.
#[derive(Debug)]
pub(super) struct Tracker {
    wanted: bool,
    active: Option<Active>,
    options: TrackingOptions,
}

#[derive(Debug)]
struct Active {
    uuid: String,
    /// The sequence of the map that collects now.
    current: u64,
    /// Maps by sequence, ascending; the last one is `current`.
    epochs: VecDeque<(u64, BlockSet)>,
}

impl Active {
    fn new(style: UuidStyle) -> Self {
        Self { uuid: new_uuid(style), current: 1, epochs: VecDeque::from([(1, BlockSet::new())]) }
    }

    fn collecting(&mut self) -> &mut BlockSet {
        if self.epochs.is_empty() {
            self.epochs.push_back((self.current, BlockSet::new()));
        }
        &mut self.epochs.back_mut().expect("an empty list was filled above").1
    }

    fn next(&mut self) {
        self.current += 1;
        self.epochs.push_back((self.current, BlockSet::new()));
        if self.epochs.len() > MAX_EPOCHS
            && let Some((_, oldest)) = self.epochs.pop_front()
            && let Some((_, second)) = self.epochs.front_mut()
        {
            second.union_with(&oldest);
        }
    }
}

impl Tracker {
    pub(super) fn new(options: TrackingOptions) -> Self {
        Self { wanted: false, active: None, options }
    }

    pub(super) fn options(&self) -> &TrackingOptions {
        &self.options
    }

    /// What the configuration says. Takes effect at the next [`stun`](Self::stun).
    pub(super) fn set_wanted(&mut self, wanted: bool) {
        self.wanted = wanted;
    }

    /// The disk is closed and opened again: the configuration takes effect.
    pub(super) fn stun(&mut self) {
        match (self.wanted, &self.active) {
            (true, None) => self.active = Some(Active::new(self.options.uuid_style)),
            (false, Some(_)) => self.active = None,
            _ => {}
        }
    }

    /// Forgets everything; ids handed out before become stale.
    pub(super) fn reset(&mut self) {
        if self.active.is_some() {
            self.active = Some(Active::new(self.options.uuid_style));
        }
    }

    /// The id of the running state.
    pub(super) fn current_id(&self) -> Option<String> {
        self.now().map(|landmark| landmark.id())
    }

    /// The running state as a landmark.
    pub(super) fn now(&self) -> Option<Landmark> {
        self.active.as_ref().map(|active| Landmark { uuid: active.uuid.clone(), sequence: active.current })
    }

    /// A snapshot is taken: what it will remember.
    pub(super) fn landmark(&mut self) -> Option<Landmark> {
        let was_active = self.active.is_some();
        self.stun();
        let active = self.active.as_mut()?;
        let landmark = Landmark { uuid: active.uuid.clone(), sequence: active.current };
        active.next();
        (was_active || self.options.first_snapshot_has_id).then_some(landmark)
    }

    /// Bytes were written.
    pub(super) fn record(&mut self, bytes: Range<u64>) {
        let unit = self.options.granularity.max(512);
        if let Some(active) = &mut self.active
            && bytes.start < bytes.end
        {
            active.collecting().insert(bytes.start / unit..bytes.end.div_ceil(unit));
        }
    }

    /// The disk went back to `landmark`: all that changed since then changes again.
    pub(super) fn reverted(&mut self, landmark: Option<&Landmark>) {
        let Some(active) = &mut self.active else { return };
        let known = landmark.filter(|landmark| landmark.uuid == active.uuid);
        let Some(landmark) = known.filter(|_| !self.options.revert_resets) else {
            // The state before tracking began (or another epoch's) came back: nothing known holds any more.
            self.reset();
            return;
        };
        let mut changed = BlockSet::new();
        for (sequence, map) in &active.epochs {
            if *sequence > landmark.sequence {
                changed.union_with(map);
            }
        }
        active.collecting().union_with(&changed);
    }

    /// The blocks written after `since` and up to `landmark`.
    pub(super) fn changes(&self, landmark: &Landmark, since: &str) -> Result<BlockSet, String> {
        let active = self.active.as_ref().ok_or("change tracking is off")?;
        if landmark.uuid != active.uuid {
            return Err("tracking was reset after the snapshot was taken".into());
        }
        let (uuid, sequence) = since.rsplit_once('/').ok_or("the change id has no sequence number")?;
        let sequence: u64 = sequence.parse().map_err(|_| "the change id's sequence number is not a number")?;
        if uuid != active.uuid {
            return Err("the change id belongs to another tracking period".into());
        }
        if sequence > landmark.sequence {
            return Err("the change id is newer than the snapshot".into());
        }
        let mut changed = BlockSet::new();
        for (number, map) in &active.epochs {
            if *number > sequence && *number <= landmark.sequence {
                changed.union_with(map);
            }
        }
        Ok(changed)
    }
}

fn new_uuid(style: UuidStyle) -> String {
    let bytes = crate::ids::random_bytes::<16>();
    let hex = |part: &[u8], gap: &str| part.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(gap);
    match style {
        UuidStyle::Spaced => format!("{}-{}", hex(&bytes[..8], " "), hex(&bytes[8..], " ")),
        UuidStyle::Dashed => crate::ids::uuid_from(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracker() -> Tracker {
        let mut tracker = Tracker::new(TrackingOptions::default());
        tracker.set_wanted(true);
        tracker.stun();
        tracker
    }

    fn blocks(set: &BlockSet) -> Vec<u64> {
        set.runs(0..u64::MAX).flatten().collect()
    }

    #[test]
    fn changes_between_landmarks_are_exact() {
        let mut t = tracker();
        t.record(0..1);
        let one = t.landmark().unwrap();
        t.record(65536..65537);
        let two = t.landmark().unwrap();
        t.record(131072..131073);
        let three = t.landmark().unwrap();
        assert_eq!(blocks(&t.changes(&three, &one.id()).unwrap()), [1, 2]);
        assert_eq!(blocks(&t.changes(&two, &one.id()).unwrap()), [1]);
        assert_eq!(blocks(&t.changes(&three, &three.id()).unwrap()), [] as [u64; 0]);
        assert!(t.changes(&one, &two.id()).is_err(), "a newer id than the snapshot");
    }

    #[test]
    fn a_reset_makes_every_older_id_stale() {
        let mut t = tracker();
        let one = t.landmark().unwrap();
        t.reset();
        let two = t.landmark().unwrap();
        assert!(t.changes(&two, &one.id()).is_err());
        assert!(t.changes(&one, &one.id()).is_err());
    }

    #[test]
    fn enabling_needs_a_stun() {
        let mut t = Tracker::new(TrackingOptions::default());
        t.set_wanted(true);
        t.record(0..1);
        assert_eq!(t.current_id(), None);
        assert_eq!(t.landmark(), None, "the first snapshot switches tracking on and has no id itself");
        assert!(t.current_id().is_some());
        assert!(t.landmark().is_some());
    }

    #[test]
    fn a_revert_counts_as_a_change_of_what_it_undoes() {
        let mut t = tracker();
        let one = t.landmark().unwrap();
        t.record(65536..65537);
        let two = t.landmark().unwrap();
        t.record(131072..131073);
        t.reverted(Some(&one));
        t.record(196608..196609);
        let three = t.landmark().unwrap();
        assert_eq!(blocks(&t.changes(&three, &two.id()).unwrap()), [1, 2, 3]);
    }

    #[test]
    fn joining_old_sequences_only_widens_answers() {
        let mut t = tracker();
        let mut ids = Vec::new();
        for n in 0..MAX_EPOCHS as u64 + 20 {
            t.record(n * 65536..n * 65536 + 1);
            ids.push(t.landmark().unwrap());
        }
        let last = ids.last().unwrap();
        for (n, id) in ids.iter().enumerate() {
            let changed = t.changes(last, &id.id()).unwrap();
            assert!((n as u64 + 1..ids.len() as u64).all(|block| changed.contains(block)));
        }
    }

    #[test]
    fn a_page_ends_with_its_last_area_when_more_follow() {
        let areas = vec![0..10, 20..30, 40..50];
        let page = Page::cut(0, 100, 2, areas.clone().into_iter());
        assert_eq!((page.start, page.length, page.areas.len()), (0, 30, 2));
        let page = Page::cut(30, 100, 2, areas.into_iter().skip(2));
        assert_eq!((page.start, page.length, page.areas.len()), (30, 70, 1));
    }
}
