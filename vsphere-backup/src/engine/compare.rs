//! Comparing a disk with a stored one.

use std::{ops::Range, pin::pin};

use futures_util::TryStreamExt;

use crate::{
    cancel::CancelToken,
    error::{Error, Result},
    repository::{DiskReader, is_zero},
    thread,
};

use super::{
    Budget, DiskSource, IN_FLIGHT, Progress, RUN,
    stored::{Content, Piece, failed, pieces},
};

/// A part of a disk that differs from the stored one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// In bytes, on the chunk grid.
    pub range: Range<u64>,
}

/// Reads a disk and returns where it differs from a stored one: the proof of a restore.
///
/// At most 10 000 differences are returned, which is enough to say that it went wrong.
///
/// # Errors
/// [`Error::Disk`] when `source` fails, [`Error::DamagedPage`], [`Error::Storage`],
/// [`Error::Cancelled`]; [`Error::Invalid`] when `source` is too small.
///
/// # Cancel safety
/// Changes nothing.
pub async fn compare_disk(
    disk: &DiskReader,
    source: &dyn DiskSource,
    budget: &Budget,
    cancel: &CancelToken,
    progress: Option<&(dyn Fn(Progress) + Send + Sync)>,
) -> Result<Vec<Difference>> {
    let whole = std::iter::once(0..disk.capacity()).collect();
    compare_areas(disk, source, whole, budget, cancel, progress).await
}

/// The same for parts of the disk, in bytes, ascending and not overlapping. Chunks that an area touches count as a
/// whole.
///
/// # Errors
/// As [`compare_disk`].
///
/// # Cancel safety
/// Changes nothing.
pub async fn compare_areas(
    disk: &DiskReader,
    source: &dyn DiskSource,
    areas: Vec<Range<u64>>,
    budget: &Budget,
    cancel: &CancelToken,
    progress: Option<&(dyn Fn(Progress) + Send + Sync)>,
) -> Result<Vec<Difference>> {
    let capacity = disk.capacity();
    if source.capacity() < capacity {
        return Err(Error::invalid(format!(
            "a disk of {} bytes cannot equal disk {} of {capacity} bytes",
            source.capacity(),
            disk.record().key
        )));
    }
    let mut found: Vec<Difference> = Vec::new();
    let compared = pieces(disk, RUN, areas)
        .map_ok(|piece| async move {
            let end = piece.range.end;
            Ok((end, differing(disk, source, piece, budget).await?))
        })
        .try_buffered(IN_FLIGHT);
    let mut compared = pin!(compared);
    while let Some((position, pieces)) = cancel.run(compared.try_next()).await? {
        found.extend(pieces.into_iter().map(|piece| Difference { range: piece.range }));
        if found.len() >= MAX_DIFFERENCES {
            found.truncate(MAX_DIFFERENCES);
            break;
        }
        if let Some(progress) = progress {
            progress(Progress { position, capacity, read: position, written: 0 });
        }
    }
    Ok(found)
}

/// Reads a piece of a disk and returns those parts of it that differ from the stored one.
pub(super) async fn differing(
    disk: &DiskReader,
    other: &(impl DiskSource + ?Sized),
    piece: Piece,
    budget: &Budget,
) -> Result<Vec<Piece>> {
    let hold = budget.take(piece.len()).await;
    let (start, len) = (piece.range.start, piece.len() as usize);
    let wrong = |error| failed(disk, "reading", &piece.range, error);
    let data = other.read_at(start, len).await.map_err(wrong)?;
    if data.len() != len {
        let short = format!("the disk gave {} bytes", data.len());
        return Err(wrong(super::disk_error(short)));
    }
    let repository = disk.repository().clone();
    let size = disk.tree().shape().chunk_size as usize;
    let found = thread::run("comparing", move || {
        let mut found: Vec<Piece> = Vec::new();
        for (at, bytes) in data.chunks(size).enumerate() {
            let from = start + (at * size) as u64;
            let range = from..from + bytes.len() as u64;
            let (same, wanted) = match &piece.content {
                Content::Zero => (is_zero(bytes), None),
                Content::Chunks(chunks) => (repository.chunk_id(bytes) == chunks[at].1, Some(chunks[at])),
            };
            if same {
                continue;
            }
            match (found.last_mut(), wanted) {
                (Some(last), _) if last.range.end == range.start => {
                    last.range.end = range.end;
                    if let Content::Chunks(chunks) = &mut last.content {
                        chunks.extend(wanted);
                    }
                }
                (_, Some(chunk)) => {
                    found.push(Piece { range, content: Content::Chunks(vec![chunk]) });
                }
                (_, None) => found.push(Piece { range, content: Content::Zero }),
            }
        }
        drop((data, hold));
        found
    });
    found.await
}

const MAX_DIFFERENCES: usize = 10_000;
