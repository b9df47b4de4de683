//! Writing chunks: zero test, identity, known?, compress, pack.
//!
//! The order of durability: a pack is stored, then a segment of the index that names it, and only
//! then does the rest of the process count its chunks as known. A recovery point is committed
//! after [`Writer::finish`], so it never refers to what may be lost.

use std::{
    collections::HashSet,
    mem,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::error::{Error, Result, in_one_line};

use super::{
    Repository,
    frame::{self, Frames},
    id::{ChunkId, PointId},
    index,
    lease::{Lease, record::Roots},
    manifest::DiskRecord,
    pack::{self, PackBuilder, PackEntries, SealedPack},
    page::Slot,
    pin,
    reader::DiskReader,
    tree::FirstUnknown,
};

/// How much a [`Writer`] holds in memory and does at a time.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct WriterOptions {
    pack_size: usize,
    workers: usize,
    uploads: usize,
    pub(super) lease: Duration,
}

impl Default for WriterOptions {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
        Self { pack_size: 32 << 20, workers, uploads: 1, lease: pin::TTL }
    }
}

impl WriterOptions {
    /// Sets the size in bytes at which a pack is closed: 32 MiB by default, 1 to 64 MiB.
    ///
    /// In memory are one pack that is being filled, one that waits, and those being written.
    pub fn pack_size(mut self, bytes: usize) -> Self {
        self.pack_size = bytes.clamp(1 << 20, 64 << 20);
        self
    }

    /// Sets how many runs are hashed and compressed at once: one a CPU by default.
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count.clamp(1, 256);
        self
    }

    /// Sets how long the writer counts as alive without a sign of life: 15 minutes by default, at least a second.
    ///
    /// A sign is given every third of it. A writer that is silent for longer may be declared dead by a collector of
    /// garbage, and then cannot commit.
    pub fn lease(mut self, ttl: Duration) -> Self {
        self.lease = ttl.max(Duration::from_secs(1));
        self
    }

    /// Sets how many packs are written to the storage at once: 1 by default, which is enough for a
    /// local disk. A store that is far away needs more.
    pub fn uploads(mut self, count: usize) -> Self {
        self.uploads = count.clamp(1, 64);
        self
    }
}

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
    state: Mutex<State>,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

#[derive(Debug, Default)]
struct State {
    open: Option<PackBuilder>,
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
        Self {
            inner: Arc::new(Inner {
                repository,
                options,
                lease,
                workers: Arc::new(Semaphore::new(options.workers)),
                uploads: Arc::new(Semaphore::new(options.uploads)),
                state: Mutex::default(),
                tasks: tokio::sync::Mutex::default(),
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
    /// When dropped, what is stored stays and the rest is in memory; call it again.
    pub async fn finish(&self) -> Result<WriterTotals> {
        // A run whose caller went away may still be on its way: its chunks count as known to this writer and are in
        // no pack yet. Each run holds a permit until it is in one.
        let all = u32::try_from(self.inner.options.workers).unwrap_or(u32::MAX);
        let idle = self.inner.workers.acquire_many(all).await;
        drop(idle.expect("the semaphore is never closed"));
        // Encrypting and hashing a pack takes milliseconds: not on a thread of the runtime.
        let inner = self.inner.clone();
        let closed = tokio::task::spawn_blocking(move || inner.close_pack()).await;
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

    /// The CPU's part, on a thread for blocking work. Runs to its end even when nobody waits, so
    /// that every claimed chunk reaches a pack.
    fn process(&self, data: &[u8]) -> Result<Run> {
        // A panic between claim and pack must not leave chunks that count as known.
        let mut guard = FailOnDrop { inner: self, armed: true };
        let config = self.repository.config();
        let chunks = data.len().div_ceil(config.chunk_size as usize);
        let mut frames = Frames::with_room(data.len(), chunks, self.repository.objects().frame_overhead());
        let mut run = Run { slots: Vec::new(), new_bytes: 0, stored_bytes: 0, zero_bytes: 0 };
        let mut encoder = self
            .repository
            .codec()
            .encoder()
            .map_err(|error| self.fail(format!("no compressor could be made: {error}")))?;
        for plain in data.chunks(config.chunk_size as usize) {
            if frame::is_zero(plain) {
                run.slots.push(Slot::Zero);
                run.zero_bytes += plain.len() as u64;
                continue;
            }
            let id = config.keys.chunk(plain);
            run.slots.push(Slot::Ref(id.0));
            if !self.claim(id) {
                continue;
            }
            run.new_bytes += plain.len() as u64;
            frames
                .push(id, plain, &mut encoder)
                .map_err(|error| self.fail(format!("compressing a chunk failed: {error}")))?;
        }
        run.stored_bytes = frames.bytes.len() as u64;
        if !frames.entries.is_empty() {
            self.append(&frames)?;
        }
        guard.armed = false;
        Ok(run)
    }

    /// Tells whether a chunk is new and from now on this caller's to store.
    fn claim(&self, id: ChunkId) -> bool {
        if !self.state().claimed.insert(id) {
            return false;
        }
        // In this order: `publish` adds to the index before it takes the claim back.
        if self.repository.may_reuse_chunk(&id) {
            self.state().claimed.remove(&id);
            return false;
        }
        true
    }

    fn append(&self, frames: &Frames) -> Result<()> {
        let mut state = self.state();
        let full = state.open.as_ref().is_some_and(|pack| {
            pack.len() + frames.bytes.len() > self.options.pack_size + SLACK
                || pack.chunks() + frames.entries.len() > MAX_CHUNKS
        });
        let sealed = if full { state.open.take() } else { None };
        let capacity = self.options.pack_size + SLACK;
        let id = self.repository.config().id;
        let mut pack = match state.open.take() {
            Some(pack) => pack,
            None => PackBuilder::new(id, self.repository.objects().new_pack()?, capacity),
        };
        pack.append(frames);
        let complete = pack.len() >= self.options.pack_size || pack.chunks() >= MAX_CHUNKS;
        let complete = if complete { Some(pack) } else { state.open.replace(pack) };
        drop(state);
        // Hashing a pack takes milliseconds: not under the lock.
        for pack in [sealed, complete].into_iter().flatten() {
            let pack = pack.seal();
            self.state().sealed.push(pack);
        }
        Ok(())
    }

    fn close_pack(&self) {
        let open = self.state().open.take();
        if let Some(pack) = open {
            let pack = pack.seal();
            self.state().sealed.push(pack);
        }
    }

    async fn store(&self, pack: SealedPack) -> Result<()> {
        let SealedPack { bytes, entries } = pack;
        self.repository.storage().put(&pack::key(entries.id), vec![bytes]).await?;
        {
            let mut state = self.state();
            state.totals.packs += 1;
            state.totals.bytes_written += entries.size;
            state.stored.push(entries);
        }
        self.publish(SEGMENT_PACKS).await
    }

    /// Writes a segment when at least `least` packs wait for one.
    async fn publish(&self, least: usize) -> Result<()> {
        let stored = {
            let mut state = self.state();
            if state.stored.len() < least {
                return Ok(());
            }
            mem::take(&mut state.stored)
        };
        let segment = match index::write_segment(self.repository.objects(), &stored).await {
            Ok(segment) => segment,
            Err(error) => {
                self.fail(in_one_line(&error));
                return Err(error);
            }
        };
        self.repository.add_to_index(segment, &stored);
        let mut state = self.state();
        for entry in stored.iter().flat_map(|pack| &pack.entries) {
            state.claimed.remove(&entry.id);
        }
        Ok(())
    }
}

/// Marks the writer as failed unless disarmed.
struct FailOnDrop<'a> {
    inner: &'a Inner,
    armed: bool,
}

impl Drop for FailOnDrop<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.inner.fail("a run of bytes was not stored".into());
        }
    }
}

/// Room for the last run of a pack and its footer.
const SLACK: usize = 5 << 20;
/// Chunks of one pack: bounds a pack's footer and a segment of the index.
const MAX_CHUNKS: usize = 1 << 16;
/// Packs that one segment of the index names.
const SEGMENT_PACKS: usize = 8;

#[cfg(test)]
impl Repository {
    /// Adds chunks to the index, stored too, without their bytes: each pack is put as its size, 8 bytes.
    pub(crate) async fn add_chunks_without_bytes(&self, ids: &[ChunkId]) -> Result<()> {
        let packs: Vec<_> = ids
            .chunks(256)
            .map(|ids| {
                let entry = |(at, &id): (usize, &ChunkId)| frame::PackEntry {
                    id,
                    offset: 64 + at as u64 * (128 << 10),
                    stored: 100 << 10,
                    plain: 256 << 10,
                };
                let seal = pack::PackSeal { generation: 0, salt: super::random()? };
                let entries = ids.iter().enumerate().map(entry).collect();
                Ok(PackEntries { id: super::PackId(super::random()?), size: 64 << 20, seal, entries })
            })
            .collect::<Result<_>>()?;
        for pack in &packs {
            let size = Bytes::copy_from_slice(&pack.size.to_le_bytes());
            self.storage().put(&pack::key(pack.id), vec![size]).await?;
        }
        let segment = index::write_segment(self.objects(), &packs).await?;
        self.add_to_index(segment, &packs);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        ops::Range,
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;
    use crate::repository::{
        CreateOptions,
        storage::{BoxFuture, BoxStream, Key, MemoryStorage, ObjectInfo, Storage, StorageError},
    };

    fn noise(len: usize) -> Bytes {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes.into()
    }

    async fn writer(storage: Arc<dyn Storage>) -> Writer {
        let options = CreateOptions::default().chunk_size(64 << 10);
        let repository = Repository::create(storage, options).await.unwrap();
        Writer::new(repository, WriterOptions::default().pack_size(1 << 20), None)
    }

    #[test]
    fn finish_waits_for_a_run_whose_caller_went_away() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let writer = writer(Arc::new(MemoryStorage::new())).await;
            // The one thread is busy: the run is begun and waits behind it.
            let busy = tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(200)));
            let mut run = Box::pin(writer.put_run(noise(64 << 10), ()));
            assert!(futures_util::FutureExt::now_or_never(&mut run).is_none());
            drop(run);
            assert_eq!(writer.finish().await.unwrap().packs, 1);
            busy.await.unwrap();
        });
    }

    /// Panics at its first pack.
    #[derive(Debug, Default)]
    struct Panicking(MemoryStorage, AtomicUsize);

    impl Storage for Panicking {
        fn get<'a>(&'a self, key: &'a Key, limit: u64) -> BoxFuture<'a, Result<Bytes, StorageError>> {
            self.0.get(key, limit)
        }
        fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, StorageError>> {
            self.0.get_range(key, range)
        }
        fn put<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
            Box::pin(async move {
                let first = key.is_below("packs") && self.1.fetch_add(1, Ordering::Relaxed) == 0;
                assert!(!first, "a storage with a bug");
                self.0.put(key, parts).await
            })
        }
        fn put_new<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
            self.0.put_new(key, parts)
        }
        fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<ObjectInfo, StorageError>> {
            self.0.list(prefix)
        }
        fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), StorageError>> {
            self.0.delete(key)
        }
        fn location(&self) -> String {
            self.0.location()
        }
    }

    #[tokio::test]
    async fn a_pack_lost_to_a_panic_of_the_storage_stops_the_writer() {
        let writer = writer(Arc::new(Panicking::default())).await;
        let data = noise(4 << 20);
        for run in 0..4 {
            // Each run fills a pack. The first is lost; which call tells so depends on when its task runs.
            let told = writer.put_run(data.slice(run << 20..(run + 1) << 20), ()).await.is_err();
            tokio::task::yield_now().await;
            if told {
                break;
            }
        }
        assert!(matches!(writer.finish().await, Err(Error::WriterStopped { .. })));
    }
}
