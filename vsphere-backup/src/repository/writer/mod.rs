//! Writing chunks: zero test, identity, known?, compress, pack.
//!
//! The order of durability: a pack is stored, then a segment of the index that names it, and only
//! then does the rest of the process count its chunks as known. A recovery point is committed
//! after [`Writer::finish`], so it never refers to what may be lost.

mod options;
mod packing;
mod storing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod without_bytes;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::error::{Error, Result, in_one_line};

pub use self::options::WriterOptions;
use super::{
    Repository,
    frame::Block,
    id::{ChunkId, PointId},
    lease::{Lease, record::Roots},
    manifest::DiskRecord,
    pack::{Enough, Filling, PackEntries, SealedPack, Spare},
    page::Slot,
    reader::DiskReader,
    tree::FirstUnknown,
};

/// Writes chunks into a repository, for one recovery point.
///
/// Clones share one writer; several disks of a virtual machine write through the same one.
#[derive(Clone, Debug)]
pub struct Writer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    repository: Repository,
    options: WriterOptions,
    lease: Option<Arc<Lease>>,
    workers: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    /// Memory of packs.
    spare: Spare,
    filling: Mutex<Filling>,
    state: Mutex<State>,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
    finishing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Closed packs that no task stores yet.
    sealed: Vec<SealedPack>,
    /// Stored packs that no segment names yet.
    stored: Vec<PackEntries>,
    /// Chunks in any of those: known to this writer only.
    claimed: HashSet<ChunkId>,
    failure: Option<String>,
    totals: WriterTotals,
}

/// What a writer wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriterTotals {
    /// Bytes of all objects written, frames and footers included.
    pub bytes_written: u64,
    /// Packs written.
    pub packs: u64,
}

/// What became of a run of bytes.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// One slot for each chunk.
    pub(crate) slots: Vec<Slot>,
    /// Bytes of chunks that were not known before.
    pub(crate) new_bytes: u64,
    /// Bytes that those take in packs.
    pub(crate) stored_bytes: u64,
    /// Bytes that were zero.
    pub(crate) zero_bytes: u64,
}

impl Writer {
    pub(super) fn new(repository: Repository, options: WriterOptions, lease: Option<Arc<Lease>>) -> Self {
        let chunk = repository.chunk_size() as usize;
        let enough = Enough { bytes: options.pack_size, chunks: MAX_CHUNKS, chunk };
        Self {
            inner: Arc::new(Inner {
                // While one pack is stored the next one is filled.
                spare: Spare::new(Block::size_for(chunk), options.pack_size),
                filling: Mutex::new(Filling::new(enough)),
                repository,
                options,
                lease,
                workers: Arc::new(Semaphore::new(options.workers)),
                uploads: Arc::new(Semaphore::new(options.uploads)),
                state: Mutex::default(),
                tasks: tokio::sync::Mutex::default(),
                finishing: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// Returns the repository.
    pub fn repository(&self) -> &Repository {
        &self.inner.repository
    }

    /// Pins the disk of an earlier point: its index stays while this writer works, also when the point is pruned.
    ///
    /// # Errors
    /// [`Error::PointNotFound`] when the point was deleted before; [`Error::Fenced`], [`Error::Storage`].
    pub(crate) async fn pin(&self, disk: &DiskReader) -> Result<()> {
        if !self.pin_tree(disk).await? {
            return Ok(());
        }
        // In this order: what exists behind the lease's renewal is kept by it.
        match self.inner.repository.point(disk.point()).await {
            Err(error) if !error.is_damage() => Err(error),
            _ => Ok(()),
        }
    }

    /// Opens a disk of a point that was never committed, and pins it. Whether all of it is still there is to be asked
    /// afterwards: what exists behind the lease's renewal is kept by it.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::Storage`].
    pub(crate) async fn reopen(&self, point: &PointId, record: DiskRecord) -> Result<DiskReader> {
        let disk = DiskReader::new(self.repository().clone(), point.clone(), record);
        self.pin_tree(&disk).await?;
        Ok(disk)
    }

    async fn pin_tree(&self, disk: &DiskReader) -> Result<bool> {
        let Some(lease) = &self.inner.lease else { return Ok(false) };
        let mut roots = Roots::default();
        roots.add_tree(disk.record().root, disk.capacity());
        lease.pin(roots).await?;
        Ok(true)
    }

    /// Returns a function that tells which of some chunks neither the repository has nor this writer.
    pub(crate) fn first_unknown(&self) -> Box<FirstUnknown> {
        let inner = self.inner.clone();
        Box::new(move |chunks| {
            // In this order: a chunk is added to the index before the claim is taken back.
            let claimed: Vec<bool> = {
                let state = inner.state();
                chunks.iter().map(|id| state.claimed.contains(id)).collect()
            };
            let index = inner.repository.read_index();
            chunks.iter().zip(claimed).position(|(id, claimed)| !claimed && !index.contains(id))
        })
    }

    /// Stores a run of bytes that begins on the chunk grid.
    ///
    /// `hold` is dropped when the bytes are no longer in memory.
    ///
    /// # Errors
    /// [`Error::WriterStopped`] when this or an earlier run failed.
    ///
    /// # Cancel safety
    /// When dropped, the run may or may not be stored; the writer stays usable.
    pub(crate) async fn put_run<H: Send + 'static>(&self, data: Bytes, hold: H) -> Result<Run> {
        self.inner.check()?;
        let permit = self.inner.workers.clone().acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let inner = self.inner.clone();
        let work = tokio::task::spawn_blocking(move || {
            let run = inner.process(&data);
            drop((data, hold, permit));
            run
        });
        let run = work
            .await
            .unwrap_or_else(|_| Err(self.inner.fail("a worker that hashes and compresses panicked".into())))?;
        self.store_sealed().await?;
        Ok(run)
    }

    /// Starts a task for each closed pack, waiting while too many are being stored.
    async fn store_sealed(&self) -> Result<()> {
        while !self.inner.state().sealed.is_empty() {
            let permit = self.inner.uploads.clone().acquire_owned().await;
            let permit = permit.expect("the semaphore is never closed");
            let mut tasks = self.inner.tasks.lock().await;
            // From here to the spawn nothing is awaited: a pack is in `sealed` or in a task.
            let Some(pack) = self.inner.state().sealed.pop() else { break };
            let inner = self.inner.clone();
            tasks.spawn(async move {
                if let Err(error) = inner.store(pack).await {
                    inner.fail(in_one_line(&error));
                }
                drop(permit);
            });
            while let Some(done) = tasks.try_join_next() {
                self.inner.note(done);
            }
        }
        self.inner.check()
    }

    /// Makes everything durable that was put: the last packs and the index.
    ///
    /// The writer can be used again afterwards.
    ///
    /// # Errors
    /// [`Error::WriterStopped`] when anything put was not stored; [`Error::Storage`].
    ///
    /// # Cancel safety
    /// When dropped, it goes on in the background. Call it again: it waits for that.
    pub async fn finish(&self) -> Result<WriterTotals> {
        let writer = self.clone();
        // What is taken out of the state must come to its end although the caller goes away, or chunks would count as
        // stored that no segment names; and who calls meanwhile must not find nothing to do.
        let work = tokio::spawn(async move {
            let _one_at_a_time = writer.inner.finishing.lock().await;
            writer.store_all().await
        });
        work.await.unwrap_or_else(|_| Err(self.inner.fail("a task that stores the last packs ended".into())))
    }

    async fn store_all(&self) -> Result<WriterTotals> {
        // A run whose caller went away may still be on its way: its chunks count as known to this writer and are in
        // no pack yet. Each run holds a permit until it is in one.
        let all = u32::try_from(self.inner.options.workers).unwrap_or(u32::MAX);
        let idle = self.inner.workers.acquire_many(all).await;
        let idle = idle.expect("the semaphore is never closed");
        // Encrypting and hashing a pack takes milliseconds: not on a thread of the runtime.
        let inner = self.inner.clone();
        let closed = tokio::task::spawn_blocking(move || inner.close_pack()).await;
        // Until here no other run has begun, of another disk: one that did would fill the pack that is closed.
        drop(idle);
        closed.map_err(|_| self.inner.fail("a worker that closes a pack panicked".into()))?;
        self.store_sealed().await?;
        let mut tasks = self.inner.tasks.lock().await;
        while let Some(done) = tasks.join_next().await {
            self.inner.note(done);
        }
        drop(tasks);
        self.inner.check()?;
        self.inner.publish(1).await?;
        self.inner.check()?;
        Ok(self.inner.state().totals)
    }
}

impl Inner {
    // No holder panics between two changes that belong together without marking the failure.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Result<()> {
        match &self.state().failure {
            Some(reason) => Err(Error::WriterStopped { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn fail(&self, reason: String) -> Error {
        let mut state = self.state();
        let reason = state.failure.get_or_insert(reason).clone();
        Error::WriterStopped { reason }
    }

    /// Notes how a task that stored a pack ended: one that panicked has not stored it.
    fn note(&self, done: Result<(), tokio::task::JoinError>) {
        if done.is_err() {
            self.fail("a task that stores packs panicked".into());
        }
    }
}

/// Chunks of one pack: bounds a pack's footer and a segment of the index.
const MAX_CHUNKS: usize = 1 << 16;
