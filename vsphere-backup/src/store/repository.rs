//! Our repository as a store among others.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Range,
    sync::{Arc, PoisonError},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesOrdered};
use tokio::sync::Mutex;

use super::{DiskMeta, DiskRef, DiskWriter, OnePass, PointMeta, Sink, Token};
use crate::{
    cancel::CancelToken,
    engine::Source,
    error::{DiskError, Error, Result},
    repository::{
        BackupMode, Consistency, DiskBytes, DiskRecord, PointId, PointWriter, Repository, Shape, Slot, Tree, TreeRoot,
        TreeUpdate, VmId, VmRecord, Writer, WriterOptions, storage::BoxFuture,
    },
};

/// A [`Sink`] that writes points of our own repository.
///
/// A point is begun with the first disk of a job. The names of points are kept as a property; the repository gives its
/// own. What a job leaves is freed by the next collection of garbage; a token holds as long as it is not.
#[derive(Debug)]
pub struct RepositorySink {
    repository: Repository,
    options: WriterOptions,
    /// By machine and job.
    open: Mutex<BTreeMap<(VmId, String), Open>>,
}

/// A point under way.
#[derive(Debug)]
struct Open {
    point: PointWriter,
    finished: Finished,
}

/// The same for one disk of it.
struct UnderWay {
    point: PointId,
    writer: Writer,
    finished: Finished,
}

type Finished = Arc<std::sync::Mutex<BTreeMap<DiskRef, DiskRecord>>>;

impl RepositorySink {
    /// Writes to `repository`.
    pub fn new(repository: &Repository, options: WriterOptions) -> Self {
        Self { repository: repository.clone(), options, open: Mutex::default() }
    }

    async fn start(&self, disk: DiskMeta, parent: Option<DiskRef>) -> Result<Disk> {
        let (shape, pages) = (self.shape(&disk), self.repository.pages().clone());
        let under_way = self.under_way(&disk).await?;
        let (tree, has_parent) = match parent {
            Some(parent) => {
                let reader = self.reader(&parent).await?;
                // The chunk that the old end cut short would be another one now, of which the caller told nothing.
                if !reader.capacity().is_multiple_of(shape.chunk_size.into()) && reader.capacity() != disk.capacity {
                    return Err(Error::invalid(
                        "the parent ends within a chunk and the disk is larger: begin without it",
                    ));
                }
                (TreeUpdate::from_parent(pages, shape, reader.tree())?, true)
            }
            None => (TreeUpdate::new(pages, shape), false),
        };
        let pass = OnePass::new(disk.capacity, shape.chunk_size.into());
        Ok(Disk::new(under_way, disk, shape, tree, pass, DiskBytes::default(), has_parent))
    }

    async fn go_on(&self, disk: DiskMeta, token: &Token) -> Result<Disk> {
        let (shape, pages) = (self.shape(&disk), self.repository.pages().clone());
        let gone = |why: &dyn std::fmt::Display| Error::invalid(format!("a checkpoint is of no use any more: {why}"));
        let record: DiskRecord = serde_json::from_str(&token.state).map_err(|error| gone(&error))?;
        if (record.key, record.capacity) != (disk.key, disk.capacity) {
            return Err(gone(&"it is of another disk"));
        }
        let pass = OnePass::at(disk.capacity, shape.chunk_size.into(), token.position).map_err(|error| gone(&error))?;
        let under_way = self.under_way(&disk).await?;
        if self.repository.may_lose_uncommitted() {
            return Err(gone(&"garbage is collected, which may include what it names"));
        }
        let stored = under_way.writer.reopen(&under_way.point, record.clone()).await?;
        if let Some(damage) = stored.first_damage(&CancelToken::new()).await? {
            return Err(gone(&damage));
        }
        let tree = TreeUpdate::from_parent(pages.clone(), shape, &Tree::new(pages, shape, record.root))?;
        let has_parent = record.mode == BackupMode::Incremental;
        Ok(Disk::new(under_way, disk, shape, tree, pass, record.bytes, has_parent))
    }

    fn shape(&self, disk: &DiskMeta) -> Shape {
        Shape { disk: disk.key, capacity: disk.capacity, chunk_size: self.repository.chunk_size() }
    }

    /// Returns the point that a disk's job writes; begins it with its first disk.
    async fn under_way(&self, disk: &DiskMeta) -> Result<UnderWay> {
        let vm = VmId::parse(&disk.vm)?;
        let mut open = self.open.lock().await;
        let open = match open.entry((vm.clone(), disk.job.clone())) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(free) => {
                let record = VmRecord { instance_uuid: vm, mo_ref: String::new(), name: String::new() };
                let begin = self.repository.begin_for(Some(&disk.job), record, Consistency::Crash, self.options);
                free.insert(Open { point: begin.await?, finished: Default::default() })
            }
        };
        let (point, writer) = (open.point.id().clone(), open.point.writer().clone());
        Ok(UnderWay { point, writer, finished: open.finished.clone() })
    }

    async fn reader(&self, disk: &DiskRef) -> Result<crate::repository::DiskReader> {
        let absent = || Error::invalid(format!("{} is no disk of this store", disk.as_str()));
        let (point, key) = disk.as_str().rsplit_once('#').ok_or_else(absent)?;
        let key = key.parse().map_err(|_| absent())?;
        self.repository.point(&PointId::parse(point)?).await?.disk(key).await
    }

    async fn end(&self, meta: PointMeta) -> Result<()> {
        let vm = VmId::parse(&meta.vm)?;
        for id in self.repository.points(&vm).await? {
            let point = self.repository.point(&id).await?;
            if point.object(NAME).await?.as_deref() == Some(meta.name.as_bytes()) {
                return Err(Error::invalid(format!("a point {} of {vm} is there", meta.name)));
            }
        }
        let mut all = self.open.lock().await;
        let finished = |open: &Open| open.finished.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let has_all = |open: &Open| {
            let finished = finished(open);
            meta.disks.iter().all(|disk| finished.contains_key(&disk.disk))
        };
        let found = all.iter().find(|((of, _), open)| *of == vm && has_all(open)).map(|(key, _)| key.clone());
        let open = found.and_then(|key| all.remove(&key));
        drop(all);
        let open = open.ok_or_else(|| Error::invalid("no job of this process has finished all disks of the point"))?;
        let (finished, Open { mut point, .. }) = (finished(&open), open);
        for disk in &meta.disks {
            let change_id = disk.change_id.clone();
            point.add_disk(DiskRecord { change_id, ..finished[&disk.disk].clone() })?;
        }
        let properties = serde_json::to_vec(&meta.properties).expect("a map of texts is valid JSON");
        point.put_object(NAME, meta.name.into()).await?;
        point.put_object(PROPERTIES, properties.into()).await?;
        point.commit().await.map(drop)
    }

    async fn list(&self, vm: &str) -> Result<Vec<PointMeta>> {
        let mut found = Vec::new();
        for id in self.repository.points(&VmId::parse(vm)?).await? {
            let point = self.repository.point(&id).await?;
            // A point that was not written through this trait has no name of it.
            let Some(name) = point.object(NAME).await? else { continue };
            let properties = point.object(PROPERTIES).await?.unwrap_or_default();
            let disks = point.disks().iter().map(|disk| super::PointDisk {
                key: disk.key,
                capacity: disk.capacity,
                disk: reference(&id, disk.key),
                change_id: disk.change_id.clone(),
            });
            found.push(PointMeta {
                vm: vm.to_owned(),
                name: String::from_utf8_lossy(&name).into_owned(),
                disks: disks.collect(),
                properties: serde_json::from_slice(&properties).unwrap_or_default(),
            });
        }
        Ok(found)
    }
}

impl Sink for RepositorySink {
    fn id(&self) -> String {
        self.repository.id().to_string()
    }

    fn alignment(&self) -> u64 {
        self.repository.chunk_size().into()
    }

    fn encrypts(&self) -> bool {
        self.repository.is_encrypted()
    }

    fn begin<'a>(
        &'a self,
        disk: DiskMeta,
        parent: Option<DiskRef>,
    ) -> BoxFuture<'a, Result<Box<dyn DiskWriter>, DiskError>> {
        Box::pin(async move { Ok(Box::new(self.start(disk, parent).await.map_err(wrap)?) as Box<dyn DiskWriter>) })
    }

    fn resume<'a>(&'a self, disk: DiskMeta, token: &'a Token) -> BoxFuture<'a, Result<Box<dyn DiskWriter>, DiskError>> {
        Box::pin(async move { Ok(Box::new(self.go_on(disk, token).await.map_err(wrap)?) as Box<dyn DiskWriter>) })
    }

    fn discard<'a>(&'a self, vm: &'a str, job: &'a str) -> BoxFuture<'a, Result<(), DiskError>> {
        Box::pin(async move {
            let vm = VmId::parse(vm).map_err(wrap)?;
            // Its lease goes with it; its chunks are freed with the next garbage, unless another disk uses them by then.
            drop(self.open.lock().await.remove(&(vm, job.to_owned())));
            Ok(())
        })
    }

    fn commit<'a>(&'a self, point: PointMeta) -> BoxFuture<'a, Result<(), DiskError>> {
        Box::pin(async move { self.end(point).await.map_err(wrap) })
    }

    fn points<'a>(&'a self, vm: &'a str) -> BoxFuture<'a, Result<Vec<PointMeta>, DiskError>> {
        Box::pin(async move { self.list(vm).await.map_err(wrap) })
    }

    fn open<'a>(&'a self, disk: &'a DiskRef) -> BoxFuture<'a, Result<Box<dyn Source>, DiskError>> {
        Box::pin(async move { Ok(Box::new(self.reader(disk).await.map_err(wrap)?) as Box<dyn Source>) })
    }
}

/// A disk under way. Runs are hashed and compressed several at a time, and come into the index in order.
struct Disk {
    under_way: UnderWay,
    disk: DiskMeta,
    shape: Shape,
    tree: TreeUpdate,
    pass: OnePass,
    has_parent: bool,
    waiting: FuturesOrdered<BoxFuture<'static, Result<(u64, Told)>>>,
    bytes: DiskBytes,
    failed: bool,
}

/// What the index is to say from a chunk on.
enum Told {
    Run(crate::repository::Run),
    Same(Slot, u64),
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Disk({} at {})", self.disk.key, self.pass.position())
    }
}

impl Disk {
    fn new(
        under_way: UnderWay,
        disk: DiskMeta,
        shape: Shape,
        tree: TreeUpdate,
        pass: OnePass,
        bytes: DiskBytes,
        has_parent: bool,
    ) -> Self {
        let (waiting, failed) = (FuturesOrdered::new(), false);
        Self { under_way, disk, shape, tree, pass, has_parent, waiting, bytes, failed }
    }

    /// The disk as it stands in the point, or in a token, were this all of it.
    fn record(&self, root: TreeRoot) -> DiskRecord {
        DiskRecord {
            key: self.disk.key,
            label: String::new(),
            backing_uuid: None,
            path: String::new(),
            capacity: self.disk.capacity,
            change_id: None,
            root,
            mode: if self.has_parent { BackupMode::Incremental } else { BackupMode::Full },
            reason: String::new(),
            bytes: self.bytes,
            distrust: None,
            metadata: BTreeMap::new(),
        }
    }

    /// Waits for all that was told.
    async fn settle(&mut self) -> Result<(), DiskError> {
        self.drain(0).await?;
        match self.failed {
            true => Err(DiskError::new("the disk was told a range that it did not take")),
            false => Ok(()),
        }
    }

    fn take(&mut self, range: &Range<u64>) -> Result<u64, DiskError> {
        self.pass.take(range).inspect_err(|_| self.failed = true)?;
        Ok(range.start / u64::from(self.shape.chunk_size))
    }

    fn same(&mut self, range: Range<u64>, slot: Slot) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async move {
            let first = self.take(&range)?;
            let count = (range.end - range.start).div_ceil(self.shape.chunk_size.into());
            self.waiting.push_back(Box::pin(async move { Ok((first, Told::Same(slot, count))) }));
            self.drain(IN_FLIGHT).await
        })
    }

    /// Waits until at most `left` runs are under way.
    async fn drain(&mut self, left: usize) -> Result<(), DiskError> {
        while self.waiting.len() > left {
            let Some(done) = self.waiting.next().await else { break };
            if let Err(error) = self.index(done).await {
                self.failed = true;
                return Err(wrap(error));
            }
        }
        Ok(())
    }

    async fn index(&mut self, done: Result<(u64, Told)>) -> Result<()> {
        match done? {
            (first, Told::Run(run)) => {
                self.bytes.zero += run.zero_bytes;
                self.bytes.new += run.new_bytes;
                self.bytes.stored += run.stored_bytes;
                for (index, slot) in (first..).zip(run.slots) {
                    self.tree.set(index, slot).await?;
                }
            }
            (first, Told::Same(slot, count)) => {
                for index in first..first + count {
                    self.tree.set(index, slot).await?;
                }
            }
        }
        Ok(())
    }

    async fn end(mut self) -> Result<DiskRef, DiskError> {
        self.settle().await?;
        let record = self.record(TreeRoot::Zero);
        let (root, totals) = self.tree.finish().await.map_err(wrap)?;
        let bytes = DiskBytes { index: totals.bytes, ..record.bytes };
        let reference = reference(&self.under_way.point, self.disk.key);
        let mut finished = self.under_way.finished.lock().unwrap_or_else(PoisonError::into_inner);
        finished.insert(reference.clone(), DiskRecord { root, bytes, ..record });
        Ok(reference)
    }
}

impl DiskWriter for Disk {
    fn write(&mut self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async move {
            let range = offset..offset.saturating_add(data.len() as u64);
            let first = self.take(&range)?;
            self.bytes.changed += data.len() as u64;
            self.bytes.read += data.len() as u64;
            let writer = self.under_way.writer.clone();
            // A task, so that it goes on while the caller reads.
            let work = tokio::spawn(async move { writer.put_run(data, ()).await });
            self.waiting.push_back(Box::pin(async move {
                let run = work.await.map_err(|error| Error::WriterStopped { reason: error.to_string() })??;
                Ok((first, Told::Run(run)))
            }));
            self.drain(IN_FLIGHT).await
        })
    }

    fn zero(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<(), DiskError>> {
        self.same(range, Slot::Zero)
    }

    fn unallocated(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<(), DiskError>> {
        self.same(range, Slot::Unallocated)
    }

    fn unchanged(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async move {
            if !self.has_parent {
                self.failed = true;
                return Err(DiskError::new("there is no parent of which a range could be unchanged"));
            }
            self.take(&range).map(drop)
        })
    }

    fn checkpoint(&mut self) -> BoxFuture<'_, Result<Token, DiskError>> {
        Box::pin(async move {
            self.settle().await?;
            let root = self.tree.checkpoint().await.map_err(wrap)?;
            self.under_way.writer.finish().await.map_err(wrap)?;
            let state = serde_json::to_string(&self.record(root)).map_err(DiskError::new)?;
            Ok(Token { position: self.pass.position(), state })
        })
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<DiskRef, DiskError>> {
        Box::pin(self.end())
    }

    fn abort(self: Box<Self>) -> BoxFuture<'static, Result<(), DiskError>> {
        // Freed with the next garbage, too.
        Box::pin(async move {
            drop(self);
            Ok(())
        })
    }
}

fn reference(point: &PointId, key: i32) -> DiskRef {
    DiskRef::new(format!("{point}#{key}"))
}

fn wrap(error: Error) -> DiskError {
    let (retryable, hint) = (error.is_retryable(), error.hint().map(str::to_owned));
    DiskError::new(error).retryable(retryable).with_hint(hint)
}

/// Runs of one disk under way at once, of the length that the caller chooses.
const IN_FLIGHT: usize = 8;
const NAME: &str = "sink-name";
const PROPERTIES: &str = "sink-properties.json";
