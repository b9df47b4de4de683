//! One disk into a store.

use std::{ops::Range, pin::pin};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::TryStreamExt;

use super::{DiskRef, DiskWriter};
use crate::{
    cancel::CancelToken,
    engine::{Budget, DiskSource, Grid, IN_FLIGHT, Progress, RUN, disk_error, runs},
    error::{DiskError, Error, Result},
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
    budget: Budget,
    cancel: CancelToken,
    progress: Option<&'a (dyn Fn(Progress) + Send + Sync)>,
}

/// What a copy did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopiedDisk {
    /// The finished disk.
    pub disk: DiskRef,
    /// Bytes read from the source.
    pub read: u64,
    /// Bytes of those that the store was given.
    pub written: u64,
}

impl<'a> DiskCopy<'a> {
    /// Prepares the copy of the disk with device key `key` into a store of the given
    /// [`alignment`](super::Sink::alignment).
    pub fn new(key: i32, source: &'a dyn DiskSource, alignment: u64) -> Self {
        let (budget, cancel) = (Budget::default(), CancelToken::new());
        Self { key, source, alignment: alignment.max(1), budget, cancel, progress: None }
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

    /// Reads the areas, tells the writer of them and finishes the disk. When anything fails the writer is aborted.
    ///
    /// # Errors
    /// [`Error::Disk`] when the source fails or the store does, [`Error::Areas`] when the areas do,
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
            Ok((read, written)) => {
                let stored = |source| self.failed("finishing", 0..self.source.capacity(), source);
                let disk = self.cancel.run(async { writer.finish().await.map_err(stored) }).await?;
                Ok(CopiedDisk { disk, read, written })
            }
            Err(error) => {
                if let Err(error) = writer.abort().await {
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
    ) -> Result<(u64, u64)> {
        let (capacity, alignment) = (self.source.capacity(), self.alignment);
        let run = RUN.max(alignment) / alignment * alignment;
        let grid = Grid { disk: self.key, capacity, chunk_size: alignment, run };
        let data = runs(grid, Box::pin(areas))
            .map_ok(|(run, _)| async move {
                let hold = self.budget.take(run.end - run.start).await;
                Ok((run.clone(), self.read(run).await?, hold))
            })
            .try_buffered(IN_FLIGHT);
        let mut data = pin!(data);
        let (mut read, mut written) = (0, 0);
        while let Some((run, data, _hold)) = self.cancel.run(data.try_next()).await? {
            read += data.len() as u64;
            for (range, is_zero) in stretches(&data, alignment as usize) {
                let at = run.start + range.start as u64..run.start + range.end as u64;
                let told = if is_zero {
                    writer.zero(at.clone())
                } else {
                    written += range.len() as u64;
                    writer.write(at.start, data.slice(range))
                };
                let failed = |source| self.failed("storing", at, source);
                self.cancel.run(async { told.await.map_err(failed) }).await?;
            }
            if let Some(progress) = self.progress {
                progress(Progress { position: run.end, capacity, read, written });
            }
        }
        Ok((read, written))
    }

    async fn read(&self, run: Range<u64>) -> Result<Bytes> {
        let len = run.end - run.start;
        let failed = |source| self.failed("reading", run.clone(), source);
        let data = self.source.read_at(run.start, len as usize).await.map_err(failed)?;
        if data.len() as u64 != len {
            return Err(failed(disk_error(format!("the disk gave {} bytes", data.len()))));
        }
        Ok(data)
    }

    fn failed(&self, operation: &'static str, range: Range<u64>, source: DiskError) -> Error {
        Error::Disk { operation, disk: self.key, offset: range.start, len: range.end - range.start, source }
    }
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
