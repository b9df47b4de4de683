//! One disk out of the repository.

use std::{ops::Range, pin::pin};

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;

use crate::{
    cancel::CancelToken,
    error::{Error, Result},
    repository::DiskReader,
};

use super::{
    Budget, DiskTarget, IN_FLIGHT, Progress, RUN,
    compare::differing,
    stored::{Content, Piece, failed, pieces},
};

/// What a restore writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestoreMode {
    /// Everything: stored chunks are written, all else is zeroed.
    #[default]
    Full,
    /// Only what differs now: the target is read and compared by hash; chunks that are the same
    /// are neither fetched from the repository nor written.
    OnlyDifferences,
}

/// The restore of one disk.
///
/// Each chunk is checked before it is written; for a damaged one nothing is written and the
/// restore ends with [`Error::DamagedChunk`]. A restore that ended early can be run again.
#[must_use]
pub struct DiskRestore<'a> {
    disk: &'a DiskReader,
    target: &'a dyn DiskTarget,
    mode: RestoreMode,
    target_is_zero: bool,
    areas: Vec<Range<u64>>,
    holes: Vec<Range<u64>>,
    compared_below: u64,
    budget: Budget,
    cancel: CancelToken,
    progress: Option<&'a (dyn Fn(Progress) + Send + Sync)>,
}

/// What a disk's restore did, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoredDisk {
    /// Read from the target to compare.
    pub compared: u64,
    /// Written from stored chunks.
    pub written: u64,
    /// Zeroed.
    pub zeroed: u64,
    /// Found to be right already.
    pub unchanged: u64,
}

impl<'a> DiskRestore<'a> {
    /// Prepares the restore of a stored disk to `target`.
    pub fn new(disk: &'a DiskReader, target: &'a dyn DiskTarget) -> Self {
        Self {
            disk,
            target,
            mode: RestoreMode::default(),
            target_is_zero: false,
            areas: std::iter::once(0..disk.capacity()).collect(),
            holes: Vec::new(),
            compared_below: 0,
            budget: Budget::default(),
            cancel: CancelToken::new(),
            progress: None,
        }
    }

    /// Sets what is written.
    pub fn mode(mut self, mode: RestoreMode) -> Self {
        self.mode = mode;
        self
    }

    /// States that the target reads as zeros now, as a new file does: zeros are not written then.
    pub fn target_is_zero(mut self, yes: bool) -> Self {
        self.target_is_zero = yes;
        self
    }

    /// Restricts the restore to areas, in bytes, ascending and not overlapping: those of which it is known that all
    /// else is right. Chunks that an area touches count as a whole.
    pub fn only(mut self, areas: Vec<Range<u64>>) -> Self {
        self.areas = areas;
        self
    }

    /// States where the target reads as zeros now, ascending and not overlapping: no zeros are written there, and none
    /// read to compare.
    pub fn target_holes(mut self, holes: Vec<Range<u64>>) -> Self {
        self.holes = holes;
        self
    }

    /// States that a restore of the same point ended early and had written up to there: what lies below is compared,
    /// whatever the mode, and written only where it differs.
    pub fn resume_at(mut self, position: u64) -> Self {
        self.compared_below = position;
        self
    }

    /// Shares a memory budget with other disks.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.budget = budget.clone();
        self
    }

    /// Lets a token cancel the restore.
    pub fn cancel(mut self, cancel: &CancelToken) -> Self {
        self.cancel = cancel.clone();
        self
    }

    /// Reports progress after each run.
    pub fn on_progress(mut self, progress: &'a (dyn Fn(Progress) + Send + Sync)) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Writes the disk and flushes the target.
    ///
    /// A target that is larger keeps its bytes behind the stored disk's end.
    ///
    /// # Errors
    /// [`Error::DamagedChunk`], [`Error::DamagedPage`], [`Error::Storage`]; [`Error::Disk`] when
    /// the target fails; [`Error::Invalid`] when it is too small; [`Error::Cancelled`].
    ///
    /// # Cancel safety
    /// When dropped, any part of the target may be written; run it again.
    pub async fn run(self) -> Result<RestoredDisk> {
        let capacity = self.disk.capacity();
        if self.target.capacity() < capacity {
            return Err(Error::invalid(format!(
                "disk {} of {capacity} bytes cannot be restored to one of {} bytes",
                self.disk.record().key,
                self.target.capacity()
            )));
        }
        // Zeros that need no look at the target are written in long pieces.
        let zeros = match self.mode {
            RestoreMode::Full if self.compared_below == 0 => ZERO_RUN,
            _ => RUN,
        };
        let (restore, cancel) = (&self, self.cancel.clone());
        // In order, so that a position means that all below it is done.
        let done = pieces(self.disk, zeros, self.areas.clone())
            .map_ok(|piece| async move {
                let end = piece.range.end;
                Ok((end, restore.write(piece).await?))
            })
            .try_buffered(IN_FLIGHT);
        let mut done = pin!(done);
        let mut total = RestoredDisk::default();
        while let Some((position, one)) = cancel.run(done.try_next()).await? {
            total.compared += one.compared;
            total.written += one.written;
            total.zeroed += one.zeroed;
            total.unchanged += one.unchanged;
            if let Some(progress) = self.progress {
                let (read, written) = (total.compared, total.written + total.zeroed);
                progress(Progress { position, capacity, read, written });
            }
        }
        let flushed = self.target.flush().await;
        flushed.map_err(|source| failed(self.disk, "flushing", &(0..capacity), source))?;
        Ok(total)
    }

    async fn write(&self, piece: Piece) -> Result<RestoredDisk> {
        let mut done = RestoredDisk::default();
        let mode = if piece.range.end <= self.compared_below { RestoreMode::OnlyDifferences } else { self.mode };
        let mut differing = Vec::new();
        for piece in self.outside_holes(piece, &mut done) {
            match mode {
                RestoreMode::Full => differing.push(piece),
                RestoreMode::OnlyDifferences => {
                    let len = piece.len();
                    let found = self::differing(self.disk, self.target, piece, &self.budget).await?;
                    done.compared += len;
                    done.unchanged += len - found.iter().map(Piece::len).sum::<u64>();
                    differing.extend(found);
                }
            }
        }
        for piece in differing {
            if let Content::Zero = piece.content {
                if self.target_is_zero && mode == RestoreMode::Full {
                    done.unchanged += piece.len();
                } else {
                    let zeroed = self.target.zero(piece.range.clone()).await;
                    zeroed.map_err(|error| failed(self.disk, "zeroing", &piece.range, error))?;
                    done.zeroed += piece.len();
                }
            } else {
                self.write_chunks(&piece).await?;
                done.written += piece.len();
            }
        }
        Ok(done)
    }

    /// Takes out of zeros what the target has as zeros already.
    fn outside_holes(&self, piece: Piece, done: &mut RestoredDisk) -> Vec<Piece> {
        let Content::Zero = piece.content else { return vec![piece] };
        let mut left = Vec::new();
        let mut at = piece.range.start;
        let first = self.holes.partition_point(|hole| hole.end <= at);
        for hole in self.holes[first..].iter().take_while(|hole| hole.start < piece.range.end) {
            if at < hole.start {
                left.push(Piece { range: at..hole.start, content: Content::Zero });
            }
            at = hole.end.min(piece.range.end);
        }
        if at < piece.range.end {
            left.push(Piece { range: at..piece.range.end, content: Content::Zero });
        }
        done.unchanged += piece.len() - left.iter().map(Piece::len).sum::<u64>();
        left
    }

    async fn write_chunks(&self, piece: &Piece) -> Result<()> {
        // The chunks, and the one buffer that they are joined in.
        let _hold = self.budget.take(piece.len() * 2).await;
        let Content::Chunks(chunks) = &piece.content else { return Ok(()) };
        // Nothing of the run is written when one of its chunks is damaged.
        let chunks: Vec<Bytes> = self.disk.fetch(chunks).await.into_iter().collect::<Result<_>>()?;
        let data = match <[Bytes; 1]>::try_from(chunks) {
            Ok([one]) => one,
            Err(many) => {
                let mut joined = BytesMut::with_capacity(piece.len() as usize);
                many.iter().for_each(|chunk| joined.extend_from_slice(chunk));
                joined.freeze()
            }
        };
        let written = self.target.write_at(piece.range.start, data).await;
        written.map_err(|error| failed(self.disk, "writing", &piece.range, error))
    }
}

/// The longest range that is zeroed in one go, in bytes: keeps progress and cancelling alive.
const ZERO_RUN: u64 = 256 << 20;
