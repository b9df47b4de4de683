//! Our repository as a store among others.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesOrdered};
use tokio::sync::Mutex;

use super::{DiskMeta, DiskRef, DiskWriter, OnePass, PointMeta, Sink, Token};
use crate::{
    engine::Source,
    error::{DiskError, Error, Result},
    repository::{
        BackupMode, Consistency, DiskBytes, DiskRecord, PointId, PointWriter, Repository, Shape, Slot, TreeUpdate,
        VmId, VmRecord, Writer, WriterOptions, storage::BoxFuture,
    },
};

/// A [`Sink`] that writes points of our own repository.
///
/// A point is begun with its first disk, and one point a machine is under way at a time. The names
/// of points are kept as a property; the repository gives its own.
#[derive(Debug)]
pub struct RepositorySink {
    repository: Repository,
    options: WriterOptions,
    open: Mutex<BTreeMap<VmId, Open>>,
}

/// A point under way.
#[derive(Debug)]
struct Open {
    point: PointWriter,
    finished: std::sync::Arc<std::sync::Mutex<BTreeMap<DiskRef, DiskRecord>>>,
}

impl RepositorySink {
    /// Writes to `repository`.
    pub fn new(repository: &Repository, options: WriterOptions) -> Self {
        Self { repository: repository.clone(), options, open: Mutex::default() }
    }

    async fn start(&self, disk: DiskMeta, parent: Option<DiskRef>) -> Result<Disk> {
        let vm = VmId::parse(&disk.vm)?;
        let mut open = self.open.lock().await;
        let under_way = match open.entry(vm.clone()) {
            std::collections::btree_map::Entry::Occupied(there) => there.into_mut(),
            std::collections::btree_map::Entry::Vacant(free) => {
                let record = VmRecord { instance_uuid: vm, mo_ref: String::new(), name: String::new() };
                let point = self.repository.begin(record, Consistency::Crash, self.options).await?;
                free.insert(Open { point, finished: Default::default() })
            }
        };
        let (writer, finished) = (under_way.point.writer().clone(), under_way.finished.clone());
        let point = under_way.point.id().clone();
        drop(open);
        let shape = Shape { disk: disk.key, capacity: disk.capacity, chunk_size: self.repository.chunk_size() };
        let pages = self.repository.pages().clone();
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
        Ok(Disk {
            pass: OnePass::new(disk.capacity, shape.chunk_size.into()),
            bytes: DiskBytes::default(),
            waiting: FuturesOrdered::new(),
            failed: false,
            point,
            disk,
            shape,
            writer,
            finished,
            tree,
            has_parent,
        })
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
        let mut open = self.open.lock().await;
        let under_way = open.get(&vm).ok_or_else(|| Error::invalid("no disk of the point was begun"))?;
        let finished = under_way.finished.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        if let Some(disk) = meta.disks.iter().find(|disk| !finished.contains_key(&disk.disk)) {
            return Err(Error::invalid(format!("disk {} is not finished", disk.disk.as_str())));
        }
        let Open { mut point, .. } = open.remove(&vm).expect("it was there, and the lock is held since");
        drop(open);
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
    fn alignment(&self) -> u64 {
        self.repository.chunk_size().into()
    }

    fn begin<'a>(
        &'a self,
        disk: DiskMeta,
        parent: Option<DiskRef>,
    ) -> BoxFuture<'a, Result<Box<dyn DiskWriter>, DiskError>> {
        Box::pin(async move { Ok(Box::new(self.start(disk, parent).await.map_err(wrap)?) as Box<dyn DiskWriter>) })
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
    point: PointId,
    disk: DiskMeta,
    shape: Shape,
    writer: Writer,
    finished: std::sync::Arc<std::sync::Mutex<BTreeMap<DiskRef, DiskRecord>>>,
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
        self.drain(0).await?;
        if self.failed {
            return Err(DiskError::new("the disk was told a range that it did not take"));
        }
        let (root, totals) = self.tree.finish().await.map_err(wrap)?;
        self.bytes.index = totals.bytes;
        let reference = reference(&self.point, self.disk.key);
        let record = DiskRecord {
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
        };
        self.finished.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(reference.clone(), record);
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
            let writer = self.writer.clone();
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
            self.drain(0).await?;
            self.writer.finish().await.map_err(wrap)?;
            // Chunks are found again by their names: whoever begins anew stores them no second time.
            Ok(Token { position: self.pass.position(), state: String::new() })
        })
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<DiskRef, DiskError>> {
        Box::pin(self.end())
    }

    fn abort(self: Box<Self>) -> BoxFuture<'static, Result<(), DiskError>> {
        // Its chunks are freed with the next garbage, unless another disk uses them by then.
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
