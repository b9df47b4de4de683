//! Is what change tracking calls unchanged as it was?

use std::ops::Range;

use crate::{
    error::{Error, Result},
    repository::{ChunkId, DiskReader, Slot, is_zero, random},
    thread,
};

use super::{Budget, DiskSource};

/// Makes a seed, so that each backup compares other chunks.
pub(super) fn seed() -> Result<u64> {
    random().map(u64::from_le_bytes)
}

/// Reads a range of chunks and compares each with the parent's by hash.
///
/// # Errors
/// [`Error::MissedChange`] at the first chunk that differs; [`Error::Disk`] when the source fails, and what reading the
/// parent's index returns.
pub(super) async fn compare(
    parent: &DiskReader,
    source: &dyn DiskSource,
    range: &Range<u64>,
    budget: &Budget,
) -> Result<()> {
    let disk = parent.record().key;
    let size = parent.tree().shape().chunk_size as usize;
    let first = range.start / size as u64;
    let slots = parent.slots(first..range.end.div_ceil(size as u64)).await?;
    let len = range.end - range.start;
    let hold = budget.take(len).await;
    let failed = |source| super::failed("reading", disk, range, source);
    let data = source.read_at(range.start, len as usize).await.map_err(failed)?;
    if data.len() as u64 != len {
        return Err(failed(super::disk_error(format!("the disk gave {} bytes", data.len()))));
    }
    let repository = parent.repository().clone();
    let start = range.start;
    let differs = thread::run("comparing", move || {
        let differs = data.chunks(size).zip(&slots).position(|(bytes, slot)| match slot {
            Slot::Ref(id) => repository.chunk_id(bytes) != ChunkId(*id),
            Slot::Zero | Slot::Unallocated => !is_zero(bytes),
        });
        drop((data, hold));
        differs
    });
    match differs.await? {
        None => Ok(()),
        Some(at) => Err(Error::MissedChange { disk, offset: start + (at * size) as u64 }),
    }
}
