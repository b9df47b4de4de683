//! One disk into a store.

use std::{
    ops::Range,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::TryStreamExt;

use super::{DiskRef, DiskWriter, Token};
use crate::{
    cancel::CancelToken,
    engine::{
        Budget, DiskSource, Grid, IN_FLIGHT, Progress, Rules, Task, behind, disk_error, longest_run, pieces, runs,
        with_tail,
    },
    error::{DiskError, Error, Result},
    repository::storage::BoxFuture,
};

/// The copy of one disk into a store, by way of a [`DiskWriter`] that was begun for it.
///
/// Areas (in bytes, ascending, not overlapping) come as a stream: the changed ones when the writer
/// has a parent, the allocated ones or the whole disk when not. They are widened to the store's
/// alignment and read from the source, several at once; zeros among them are told as such.
#[must_use]
pub struct DiskCopy<'a> {
    key: i32,
    source: &'a dyn DiskSource,
    alignment: u64,
    allocated: Option<Arc<Vec<Range<u64>>>>,
    grown_from: Option<u64>,
    from: (u64, Told),
    checkpoints: Option<Duration>,
    keep: Option<&'a KeepToken<'a>>,
    /// Since when the last checkpoint, at the end of the disk, is to be worth it.
    last: Option<Instant>,
    budget: Budget,
    cancel: CancelToken,
    progress: Option<&'a (dyn Fn(Progress) + Send + Sync)>,
}

/// Makes a token durable, with what was told by then.
pub(crate) type KeepToken<'a> = dyn Fn(Token, Told) -> BoxFuture<'a, Result<()>> + Send + Sync + 'a;

/// What a copy did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopiedDisk {
    /// The finished disk.
    pub disk: DiskRef,
    /// Bytes of the areas.
    pub changed: u64,
    /// Bytes read from the source.
    pub read: u64,
    /// Bytes of those that were zero, and told as such.
    pub zero: u64,
    /// Bytes that were not read, because nothing is allocated there.
    pub unallocated: u64,
    /// Bytes of those that the store was given.
    pub written: u64,
    /// The checkpoint at the end of the disk, where one was asked for.
    pub(crate) token: Option<Token>,
}

impl<'a> DiskCopy<'a> {
    /// Prepares the copy of the disk with device key `key` into a store of the given
    /// [`alignment`](super::Sink::alignment).
    pub fn new(key: i32, source: &'a dyn DiskSource, alignment: u64) -> Self {
        let (budget, cancel) = (Budget::default(), CancelToken::new());
        let (from, alignment) = ((0, Told::default()), alignment.max(1));
        let (allocated, grown_from, checkpoints, keep, last, progress) = (None, None, None, None, None, None);
        Self { key, source, alignment, allocated, grown_from, from, checkpoints, keep, last, budget, cancel, progress }
    }

    /// States where the source has anything: the rest reads as zeros, surely. Ascending ranges in bytes that do not
    /// touch. What areas name beside them is told as unallocated and not read.
    pub fn allocated(mut self, areas: Option<Vec<Range<u64>>>) -> Self {
        self.allocated = areas.map(Arc::new);
        self
    }

    /// States that the disk is larger than its parent, and where that ends, at a multiple of the alignment: what is
    /// behind is read whatever the areas say.
    pub fn grown_from(mut self, end: u64) -> Self {
        self.grown_from = Some(end);
        self
    }

    /// Has the writer make durable what it was told, this often.
    pub fn checkpoints(mut self, every: Duration) -> Self {
        self.checkpoints = Some(every);
        self
    }

    /// Has each token kept before more is told; at the end of the disk too, when a checkpoint's time has passed since
    /// `begun`.
    pub(crate) fn keep_tokens(mut self, begun: Instant, keep: &'a KeepToken<'a>) -> Self {
        (self.keep, self.last) = (Some(keep), Some(begun));
        self
    }

    /// Goes on behind a byte, with a writer that was told of what is before it.
    pub(crate) fn resume(mut self, position: u64, told: Told) -> Self {
        self.from = (position, told);
        self
    }

    /// Shares a memory budget with other disks.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.budget = budget.clone();
        self
    }

    /// Lets a token cancel the copy.
    pub fn cancel(mut self, cancel: &CancelToken) -> Self {
        self.cancel = cancel.clone();
        self
    }

    /// Reports progress after each run of up to 4 MiB.
    pub fn on_progress(mut self, progress: &'a (dyn Fn(Progress) + Send + Sync)) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Reads the areas, tells the writer of them and finishes the disk. When anything fails the writer is aborted, unless
    /// the copy is [abandoned](CancelToken::abandon).
    ///
    /// # Errors
    /// [`Error::Disk`] when the source fails, [`Error::Sink`] when the store does, [`Error::Areas`] when the areas do,
    /// [`Error::Cancelled`].
    ///
    /// # Cancel safety
    /// When dropped, the writer is dropped: nothing of the disk is visible.
    pub async fn run(
        self,
        mut writer: Box<dyn DiskWriter>,
        areas: impl Stream<Item = Result<Range<u64>, DiskError>> + Send,
    ) -> Result<CopiedDisk> {
        match self.transfer(&mut *writer, areas).await {
            Ok((told, token)) => {
                let finish = async { writer.finish().await.map_err(failed("the end of a disk")) };
                let disk = self.cancel.run(finish).await?;
                let Told { changed, read, zero, unallocated } = told;
                Ok(CopiedDisk { disk, changed, read, zero, unallocated, written: read - zero, token })
            }
            Err(error) => {
                let given_up = tokio::select! {
                    biased;
                    // As if the process had died: what is kept of the disk is for the next run.
                    () = self.cancel.abandoned() => Ok(()),
                    done = writer.abort() => done,
                };
                if let Err(error) = given_up {
                    tracing::warn!(disk = self.key, %error, "a disk that was given up could not be removed");
                }
                Err(error)
            }
        }
    }

    async fn transfer(
        &self,
        writer: &mut dyn DiskWriter,
        areas: impl Stream<Item = Result<Range<u64>, DiskError>> + Send,
    ) -> Result<(Told, Option<Token>)> {
        let (capacity, alignment) = (self.source.capacity(), self.alignment);
        let grid = Grid { disk: self.key, capacity, chunk_size: alignment, run: longest_run(alignment) };
        let (from, mut told) = self.from;
        let areas = behind(from, with_tail(areas, self.grown_from.unwrap_or(capacity), capacity));
        let rules = Rules::new(self.key, alignment, self.allocated.clone())?;
        let data = pieces(rules, runs(grid, Box::pin(areas)))
            .map_ok(|piece| async move {
                let data = match piece.task {
                    Task::Unallocated => None,
                    _ => {
                        let hold = self.budget.take(piece.range.end - piece.range.start).await;
                        Some((self.read(piece.range.clone()).await?, hold))
                    }
                };
                Ok((piece, data))
            })
            .try_buffered(IN_FLIGHT);
        let mut data = pin!(data);
        let mut kept = Instant::now();
        while let Some((piece, data)) = self.cancel.run(data.try_next()).await? {
            told.changed += piece.areas;
            let run = piece.range;
            if let Some((data, _hold)) = data {
                told.read += data.len() as u64;
                for (range, is_zero) in stretches(&data, alignment as usize) {
                    let at = run.start + range.start as u64..run.start + range.end as u64;
                    let done = if is_zero {
                        told.zero += range.len() as u64;
                        writer.zero(at)
                    } else {
                        writer.write(at.start, data.slice(range))
                    };
                    self.cancel.run(async { done.await.map_err(failed("the write of a range")) }).await?;
                }
            } else {
                told.unallocated += run.end - run.start;
                let tell = writer.unallocated(run.clone());
                self.cancel.run(async { tell.await.map_err(failed("the write of a range")) }).await?;
            }
            if self.checkpoints.is_some_and(|every| kept.elapsed() >= every) {
                let token = self.checkpoint(writer).await?;
                if let Some(keep) = self.keep {
                    keep(token, told).await?;
                }
                kept = Instant::now();
            }
            if let Some(progress) = self.progress {
                let (read, written) = (told.read, told.read - told.zero);
                progress(Progress { position: run.end, capacity, read, written });
            }
        }
        let is_worth_it = |begun: Instant| self.checkpoints.is_some_and(|every| begun.elapsed() >= every);
        let token = match self.last.is_some_and(is_worth_it) {
            true => Some(self.checkpoint(writer).await?),
            false => None,
        };
        Ok((told, token))
    }

    async fn checkpoint(&self, writer: &mut dyn DiskWriter) -> Result<Token> {
        self.cancel.run(async { writer.checkpoint().await.map_err(failed("a checkpoint")) }).await
    }

    async fn read(&self, run: Range<u64>) -> Result<Bytes> {
        let len = run.end - run.start;
        let failed = |source| Error::Disk { operation: "reading", disk: self.key, offset: run.start, len, source };
        let data = self.source.read_at(run.start, len as usize).await.map_err(failed)?;
        if data.len() as u64 != len {
            return Err(failed(disk_error(format!("the disk gave {} bytes", data.len()))));
        }
        Ok(data)
    }
}

/// The store failed.
fn failed(operation: &'static str) -> impl FnOnce(DiskError) -> Error {
    move |source| Error::Sink { operation, source }
}

/// What a writer was told so far, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    pub(crate) changed: u64,
    pub(crate) read: u64,
    pub(crate) zero: u64,
    pub(crate) unallocated: u64,
}

/// Cuts bytes into stretches of whole steps that are all zero or all not.
fn stretches(data: &[u8], step: usize) -> Vec<(Range<usize>, bool)> {
    let mut found: Vec<(Range<usize>, bool)> = Vec::new();
    let mut at = 0;
    for part in data.chunks(step) {
        let (is_zero, end) = (crate::repository::is_zero(part), at + part.len());
        match found.last_mut() {
            Some((range, last)) if *last == is_zero => range.end = end,
            _ => found.push((at..end, is_zero)),
        }
        at = end;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_told_apart_by_whole_steps() {
        assert_eq!(
            stretches(&[0, 0, 0, 1, 0, 0, 0, 0, 5], 2),
            [(0..2, true), (2..4, false), (4..8, true), (8..9, false)]
        );
        assert_eq!(stretches(&[], 2), []);
    }
}
