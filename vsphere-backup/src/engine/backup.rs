//! One disk into the repository.

use std::{
    ops::Range,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    cancel::CancelToken,
    error::{DiskError, Error, Result},
    repository::{DiskBytes, DiskReader, Run, Shape, Slot, Tree, TreeRoot, TreeUpdate, Writer, storage::BoxFuture},
};

use super::{
    Budget, DiskSource, IN_FLIGHT, Progress, audit, grid,
    piece::{self, Audit, Piece, Rules, Task, longest_run},
};

/// The disk of an earlier recovery point that an incremental backup begins with.
#[derive(Clone, Debug)]
pub struct Parent {
    disk: DiskReader,
}

impl Parent {
    /// Begins with a disk of an earlier point, of the repository that is written to.
    pub fn new(disk: DiskReader) -> Self {
        Self { disk }
    }
}

/// The backup of one disk.
///
/// Areas (in bytes, ascending, not overlapping) come as a stream: the changed ones for an
/// incremental backup, the allocated ones or the whole disk for a full one. Every chunk that an
/// area touches is read whole from the source, unless nothing is [allocated](Self::allocated) there; no other byte is
/// stored. What is outside of all areas is the parent's, or without a parent unallocated.
#[must_use]
pub struct DiskBackup<'a> {
    key: i32,
    source: &'a dyn DiskSource,
    writer: Writer,
    parent: Option<Parent>,
    allocated: Option<Arc<Vec<Range<u64>>>>,
    trust: Trust,
    budget: Budget,
    cancel: CancelToken,
    progress: Option<&'a (dyn Fn(Progress) + Send + Sync)>,
    resume: Option<Checkpoint>,
    checkpoints: Option<(Duration, &'a KeepCheckpoint<'a>)>,
}

/// How far the backup of a disk was: all before `position` is stored, or will be once the writer was finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// The first byte that is still to be read.
    pub(crate) position: u64,
    /// The root of the disk's index so far.
    pub(crate) root: TreeRoot,
    /// Figures so far.
    pub(crate) bytes: DiskBytes,
}

/// Makes a checkpoint durable.
pub(crate) type KeepCheckpoint<'a> = dyn Fn(Checkpoint) -> BoxFuture<'a, Result<()>> + Send + Sync + 'a;

/// How far change tracking is believed when it calls blocks unchanged.
///
/// Servers are known to have missed changes in silence, and a restore is a bad moment to learn of it. Blocks that are
/// not believed are read and compared by hash with the parent; they are never mixed into the new point: a difference
/// ends the incremental backup with [`Error::MissedChange`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Trust {
    /// Wholly: only changed areas are read.
    #[default]
    Trust,
    /// Of the unchanged chunks this share, chosen by chance, is read and compared: 0.01 is one in a hundred.
    Sample(f64),
    /// Not at all: everything is read, and what is called unchanged is compared.
    VerifyAll,
}

/// What a disk's backup gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackedUpDisk {
    /// The root of the disk's new index.
    pub root: TreeRoot,
    /// The disk's size in bytes.
    pub capacity: u64,
    /// Figures.
    pub bytes: DiskBytes,
}

impl<'a> DiskBackup<'a> {
    /// Prepares the backup of the disk with device key `key`.
    pub fn new(key: i32, source: &'a dyn DiskSource, writer: &Writer) -> Self {
        Self {
            key,
            source,
            writer: writer.clone(),
            parent: None,
            allocated: None,
            trust: Trust::default(),
            budget: Budget::default(),
            cancel: CancelToken::new(),
            progress: None,
            resume: None,
            checkpoints: None,
        }
    }

    /// Begins with the disk of an earlier point.
    pub fn parent(mut self, parent: Option<Parent>) -> Self {
        self.parent = parent;
        self
    }

    /// States where the source has anything: the rest reads as zeros, surely. Ascending ranges in bytes that do not
    /// touch; others are refused. A changed chunk with none of it is noted as unallocated and not read.
    pub fn allocated(mut self, areas: Option<Vec<Range<u64>>>) -> Self {
        self.allocated = areas.map(Arc::new);
        self
    }

    /// States how far the areas of an incremental backup are believed: [`Trust::Trust`] by default.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// Shares a memory budget with other disks.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.budget = budget.clone();
        self
    }

    /// Lets a token cancel the backup.
    pub fn cancel(mut self, cancel: &CancelToken) -> Self {
        self.cancel = cancel.clone();
        self
    }

    /// Reports progress after each run of up to 4 MiB.
    pub fn on_progress(mut self, progress: &'a (dyn Fn(Progress) + Send + Sync)) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Goes on where an earlier backup of the same state of the disk was. Its parent is in the index already.
    pub(crate) fn resume(mut self, from: Option<Checkpoint>) -> Self {
        self.resume = from;
        self
    }

    /// Keeps a checkpoint whenever `every` has passed, while reading goes on.
    pub(crate) fn checkpoints(mut self, every: Duration, keep: &'a KeepCheckpoint<'a>) -> Self {
        self.checkpoints = Some((every, keep));
        self
    }

    /// Reads the areas and stores them.
    ///
    /// A disk that grew since the parent has its new part read, and the parent's last chunk when
    /// that was cut short, whatever the areas say.
    ///
    /// # Errors
    /// [`Error::Disk`] when the source fails, [`Error::Areas`] when the areas do,
    /// [`Error::MissedChange`] when bytes outside of all areas differ from the parent's;
    /// [`Error::DamagedPage`] of the parent's index, [`Error::DamagedChunk`] when a page of it that is written anew
    /// names a chunk that the repository does not have, [`Error::WriterStopped`], [`Error::Storage`],
    /// [`Error::Cancelled`]; [`Error::Invalid`] when the disk is smaller than its parent,
    /// or that is in another repository.
    ///
    /// # Cancel safety
    /// When dropped, chunks may be stored that no recovery point refers to.
    pub async fn run(self, areas: impl Stream<Item = Result<Range<u64>, DiskError>> + Send) -> Result<BackedUpDisk> {
        let repository = self.writer.repository();
        let capacity = self.source.capacity();
        let shape = Shape { disk: self.key, capacity, chunk_size: repository.chunk_size() };
        if capacity > crate::repository::MAX_CAPACITY {
            return Err(Error::invalid(format!("a disk of {capacity} bytes is too large")));
        }
        let mut tree = match (&self.resume, &self.parent) {
            (Some(from), _) => {
                let stored = Tree::new(repository.pages().clone(), shape, from.root);
                TreeUpdate::from_parent(repository.pages().clone(), shape, &stored)?
            }
            (None, Some(parent)) if parent.disk.repository().id() != repository.id() => {
                let what = format!("the parent of disk {} is in another repository", self.key);
                return Err(Error::invalid(what));
            }
            (None, Some(parent)) => {
                self.writer.pin(&parent.disk).await?;
                TreeUpdate::from_parent(repository.pages().clone(), shape, parent.disk.tree())?
            }
            (None, None) => TreeUpdate::new(repository.pages().clone(), shape),
        };
        if self.parent.is_some() {
            tree = tree.checked(self.writer.first_unknown());
        }
        let size = u64::from(shape.chunk_size);
        let grown_from = match &self.parent {
            // The chunk that the old end cut short is another one now.
            Some(parent) if parent.disk.capacity() < capacity => parent.disk.capacity() / size * size,
            _ => capacity,
        };
        let grid = grid::Grid { disk: self.key, capacity, chunk_size: size, run: longest_run(size) };
        let from = self.resume.map_or(0, |from| from.position);
        let areas = behind(from, with_tail(areas, grown_from, capacity));
        let rules = self.rules(size, from, grown_from)?;
        let (reader, cancel) = (&self, self.cancel.clone());
        let stored = piece::pieces(rules, grid::runs(grid, Box::pin(areas)))
            .map_ok(|piece| async move {
                let stored = match piece.task {
                    Task::Store => Some(reader.store(piece.range.clone()).await?),
                    Task::Audit => reader.audit(&piece.range).await.map(|()| None)?,
                    Task::Unallocated => None,
                };
                Ok((piece, stored))
            })
            .try_buffered(IN_FLIGHT);
        let mut stored = pin!(stored);

        let mut bytes = self.resume.map(|from| from.bytes).unwrap_or_default();
        let mut last_kept = Instant::now();
        let mut keeping: Option<BoxFuture<'_, Result<()>>> = None;
        // Results come in the order of the disk, as the tree needs them.
        loop {
            let next = match &mut keeping {
                None => cancel.run(stored.try_next()).await?,
                // Reading goes on: a run that is not polled may hold what the checkpoint waits for.
                Some(kept) => tokio::select! {
                    biased;
                    done = kept => {
                        done?;
                        (keeping, last_kept) = (None, Instant::now());
                        continue;
                    }
                    next = cancel.run(stored.try_next()) => next?,
                },
            };
            let Some((piece, stored)) = next else { break };
            count(&mut bytes, &piece, stored.as_ref());
            let chunks = piece.range.start / size..piece.range.end.div_ceil(size);
            match (piece.task, stored) {
                (Task::Store, Some(stored)) => {
                    for (index, slot) in chunks.zip(stored.slots) {
                        tree.set(index, slot).await?;
                    }
                }
                (Task::Unallocated, _) => {
                    for index in chunks {
                        tree.set(index, Slot::Unallocated).await?;
                    }
                }
                _ => {}
            }
            if let Some(progress) = self.progress {
                let (position, read, written) = (piece.range.end, bytes.read + bytes.audited, bytes.stored);
                progress(Progress { position, capacity, read, written });
            }
            if let Some((every, keep)) = self.checkpoints
                && keeping.is_none()
                && last_kept.elapsed() >= every
            {
                let root = tree.checkpoint().await?;
                keeping = Some(keep(Checkpoint { position: piece.range.end, root, bytes }));
            }
        }
        // What it would have kept is overtaken.
        drop(keeping);
        let (root, totals) = tree.finish().await?;
        tracing::debug!(disk = self.key, pages = totals.pages, "index written");
        bytes.index = totals.bytes;
        Ok(BackedUpDisk { root, capacity, bytes })
    }

    /// Tells what becomes of each part of the disk.
    fn rules(&self, chunk_size: u64, from: u64, until: u64) -> Result<Rules> {
        let audit = match (self.trust, &self.parent) {
            (Trust::Trust, _) | (_, None) => Audit::Nothing,
            (Trust::Sample(share), Some(_)) => Audit::share(share, audit::seed()?),
            (Trust::VerifyAll, Some(_)) => Audit::Everything,
        };
        Ok(Rules { from, until, audit, ..Rules::new(self.key, chunk_size, self.allocated.clone())? })
    }

    /// Compares a part that the areas say is unchanged with the parent.
    async fn audit(&self, range: &Range<u64>) -> Result<()> {
        let Some(parent) = &self.parent else { return Ok(()) };
        audit::compare(&parent.disk, self.source, range, &self.budget).await
    }

    /// Reads one run and stores it.
    async fn store(&self, run: Range<u64>) -> Result<Run> {
        let len = run.end - run.start;
        let mut room = self.budget.room(len).await;
        let failed = |source| super::failed("reading", self.key, &run, source);
        let data = self.source.read_with(run.start, len as usize, room.memory()).await.map_err(failed)?;
        if data.len() as u64 != len {
            let short = format!("the disk gave {} bytes", data.len());
            return Err(failed(super::disk_error(short)));
        }
        self.writer.put_run(room.hold(data), ()).await
    }
}

/// Leaves out what lies before `from`.
pub(crate) fn behind(
    from: u64,
    areas: impl Stream<Item = Result<Range<u64>, DiskError>> + Send,
) -> impl Stream<Item = Result<Range<u64>, DiskError>> + Send {
    areas.try_filter_map(move |area| async move {
        // What is not sound goes on to be refused.
        let sound = area.start < area.end;
        Ok(if sound && area.end <= from {
            None
        } else if sound {
            Some(area.start.max(from)..area.end)
        } else {
            Some(area)
        })
    })
}

fn count(bytes: &mut DiskBytes, piece: &Piece, stored: Option<&Run>) {
    let len = piece.range.end - piece.range.start;
    bytes.changed += piece.areas;
    match piece.task {
        Task::Store => bytes.read += len,
        Task::Unallocated => bytes.unallocated += len,
        Task::Audit => bytes.audited += len,
    }
    if let Some(stored) = stored {
        bytes.zero += stored.zero_bytes;
        bytes.new += stored.new_bytes;
        bytes.stored += stored.stored_bytes;
    }
}

/// Cuts areas at `from` and adds the area from there to the end of the disk.
pub(crate) fn with_tail(
    areas: impl Stream<Item = Result<Range<u64>, DiskError>> + Send,
    from: u64,
    capacity: u64,
) -> impl Stream<Item = Result<Range<u64>, DiskError>> + Send {
    let tail = (from < capacity).then_some(Ok(from..capacity));
    let has_tail = tail.is_some();
    areas
        .try_filter_map(move |area| async move {
            // Only a sound area is cut; others go on to be refused.
            let inside = has_tail && area.start < area.end && area.end <= capacity;
            Ok(match inside {
                true if area.start >= from => None,
                true => Some(area.start..area.end.min(from)),
                false => Some(area),
            })
        })
        .chain(stream::iter(tail))
}
