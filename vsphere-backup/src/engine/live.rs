//! The fourth level of a check: a stored disk beside the disk that it was taken of.

use std::ops::Range;

use crate::{
    cancel::CancelToken,
    error::{Error, Result},
    repository::{ChunkId, DiskReader, Slot},
};

use super::{Budget, Difference, DiskSource, RUN, compare_areas};

/// How a stored disk is checked beside a live one.
#[derive(Clone, Debug)]
#[must_use]
pub struct LiveCheck {
    from: u64,
    share: f64,
    budget: Budget,
    cancel: CancelToken,
}

impl Default for LiveCheck {
    fn default() -> Self {
        Self { from: 0, share: 1.0, budget: Budget::default(), cancel: CancelToken::new() }
    }
}

impl LiveCheck {
    /// Begins at a byte of the disk: [`LiveReport::next`] of an earlier check.
    pub fn from(mut self, byte: u64) -> Self {
        self.from = byte;
        self
    }

    /// Looks at a share of the disk: 0.1 is a tenth, ten of which are all.
    pub fn share(mut self, share: f64) -> Self {
        self.share = share.clamp(0.0, 1.0);
        self
    }

    /// Shares a memory budget with other work.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.budget = budget.clone();
        self
    }

    /// Lets a token cancel the check.
    pub fn cancel(mut self, cancel: &CancelToken) -> Self {
        self.cancel = cancel.clone();
        self
    }
}

/// What a check beside a live disk found.
#[derive(Debug)]
#[non_exhaustive]
pub struct LiveReport {
    /// The bytes that were looked at.
    pub range: Range<u64>,
    /// Where the live disk holds other bytes: at most the first 10 000 places. The point holds for all the rest of the
    /// range, but for what is damaged.
    pub differences: Vec<Difference>,
    /// Stored chunks that cannot be read, at most the first 10 000.
    pub damage: Vec<Error>,
    /// Where to go on; `None` at the end of the disk.
    pub next: Option<u64>,
}

impl LiveReport {
    /// Tells whether the point holds for all that was looked at.
    pub fn is_sound(&self) -> bool {
        self.differences.is_empty() && self.damage.is_empty()
    }
}

/// Reads a stored disk and the disk that it was taken of, and returns where they differ and what cannot be read.
///
/// Of a disk in use, the snapshot is given that the point was taken of, as long as it is there; else what the guest wrote
/// since differs. Two disks may differ and a chunk be damaged as well: the source is compared by hash, and then all
/// stored chunks are read.
///
/// # Errors
/// [`Error::Disk`] when `source` fails, [`Error::DamagedPage`], [`Error::Storage`], [`Error::Cancelled`];
/// [`Error::Invalid`] when `source` is smaller than the stored disk.
///
/// # Cancel safety
/// Changes nothing.
pub async fn check_live(disk: &DiskReader, source: &dyn DiskSource, check: &LiveCheck) -> Result<LiveReport> {
    let size = u64::from(disk.tree().shape().chunk_size);
    let capacity = disk.capacity();
    let from = check.from.min(capacity) / size * size;
    let len = ((capacity as f64 * check.share).ceil() as u64).max(1).div_ceil(size).saturating_mul(size);
    let range = from..from.saturating_add(len).min(capacity);
    let areas = vec![range.clone()];
    let differences = compare_areas(disk, source, areas, &check.budget, &check.cancel, None).await?;
    let mut damage = Vec::new();
    let (mut at, behind) = (range.start / size, range.end.div_ceil(size));
    while at < behind {
        check.cancel.check()?;
        let to = behind.min(at + (RUN / size).max(1));
        let slots = disk.slots(at..to).await?;
        let _hold = check.budget.take((to - at) * size).await;
        let wanted: Vec<_> = (at..)
            .zip(slots)
            .filter_map(|(at, slot)| match slot {
                Slot::Ref(id) => Some((at, ChunkId(id))),
                _ => None,
            })
            .collect();
        for error in disk.fetch(&wanted).await.into_iter().filter_map(Result::err) {
            if !error.is_damage() {
                return Err(error);
            }
            if damage.len() < MAX_DAMAGE {
                damage.push(error);
            }
        }
        at = to;
    }
    let next = (range.end < capacity).then_some(range.end);
    Ok(LiveReport { range, differences, damage, next })
}

const MAX_DAMAGE: usize = 10_000;
