//! An open image.
//!
//! A lock that every operation shares and closing takes alone makes closing wait for operations whose futures were
//! dropped.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use tokio::{sync::RwLock, task::spawn_blocking};
use vmdk::{ChildSpec, MapKind};

#[cfg(feature = "blocking")]
use super::super::DirectIo;
use super::{
    BoxFuture, DiskHandle,
    attached::WithParent,
    files_of, flatten,
    local_image::LocalImage,
    rewrite::{defragment, shrink},
};
use crate::{
    allocation::{Allocation, Chunks},
    create::DiskKind,
    error::{AttachProblem, Error, Result},
    governor::Place,
    info::DiskInfo,
    mode::TransportMode,
    open::OpenOptions,
    progress::{Progress, tell},
    transport::{Link, SharedHandle, close, image::blocking_image, refuse},
};

pub(super) struct FileHandle {
    /// Taken out when the disk is closed.
    disk: Arc<RwLock<Option<vmdk::Disk>>>,
    /// The parent that was attached; closed after the disk.
    parent: Mutex<Option<SharedHandle>>,
    path: Arc<str>,
    capacity: u64,
    writable: bool,
    /// Every write is made durable before it returns.
    unbuffered: bool,
    /// It has a parent that was left out.
    is_part: AtomicBool,
    options: vmdk::OpenOptions,
    /// Where it takes turns with other disks.
    place: Option<Place>,
}

impl FileHandle {
    pub(super) fn new(
        disk: vmdk::Disk,
        path: &str,
        vmdk_options: vmdk::OpenOptions,
        options: &OpenOptions,
        place: Option<Place>,
    ) -> Self {
        let has_parent =
            || disk.descriptor().is_some_and(|own| own.parent_cid().is_ok_and(|cid| cid != vmdk::Cid::NONE));
        Self {
            path: path.into(),
            capacity: disk.capacity(),
            writable: disk.is_writable(),
            unbuffered: options.unbuffered,
            is_part: AtomicBool::new(options.single_link && has_parent()),
            parent: Mutex::new(None),
            options: vmdk_options,
            disk: Arc::new(RwLock::new(Some(disk))),
            place,
        }
    }

    /// Waits for the disk's turn. It is over at once: an attached parent may need one to answer.
    async fn turn(&self, bytes: u64) {
        if let Some(place) = &self.place {
            place.turn(bytes).await;
        }
    }

    fn is_part(&self) -> bool {
        self.is_part.load(Ordering::Acquire)
    }

    /// What the child has written down about its parent: content id and name.
    async fn wanted(&self) -> Result<(vmdk::Cid, Option<String>)> {
        let wanted = |disk: &vmdk::Disk| match disk.descriptor() {
            Some(own) => Ok((own.parent_cid()?, own.parent_file_name_hint()?.map(Into::into))),
            None => Ok((vmdk::Cid::NONE, None)),
        };
        self.run("describing", wanted).await
    }

    async fn attach_problem(&self, parent: &SharedHandle) -> Result<Option<AttachProblem>> {
        let (wanted, _) = self.wanted().await?;
        if wanted == vmdk::Cid::NONE {
            return Ok(Some(AttachProblem::ChildIsBase));
        }
        if !self.is_part() {
            return Ok(Some(AttachProblem::ChildHasParents));
        }
        if parent.capacity() > self.capacity {
            return Ok(Some(AttachProblem::Capacity { parent: parent.capacity(), child: self.capacity }));
        }
        Ok(match parent.link().await? {
            Some(Link { is_part: true, .. }) => Some(AttachProblem::ParentIsPart),
            Some(Link { content_id: found, .. }) if found != wanted => Some(AttachProblem::ContentId { wanted, found }),
            _ => None,
        })
    }

    async fn check_attach(&self, parent: &SharedHandle, name: &str) -> Result<()> {
        match self.attach_problem(parent).await? {
            None => Ok(()),
            Some(problem) => {
                Err(Error::NotAttachable { child: self.path.to_string(), parent: name.to_owned(), problem })
            }
        }
    }

    /// Opens the disk again, over the parent. Nothing is under way meanwhile; after a failure it is as it was.
    async fn put_over(&self, parent: SharedHandle, name: &str) -> Result<()> {
        self.check_attach(&parent, name).await?;
        let (wanted, hint) = self.wanted().await?;
        let hint = hint.unwrap_or_default();
        let image = blocking_image(Arc::clone(&parent), name, tokio::runtime::Handle::current());
        let (path, options) = (Arc::clone(&self.path), self.options.clone());
        let mut disk = Arc::clone(&self.disk).write_owned().await;
        let work = move || {
            let over = WithParent::new(&path, &hint, wanted, image)?.into_options(&options);
            let Some(alone) = disk.take() else { return Ok(false) };
            let opened = alone.close().and_then(|()| vmdk::Disk::open(&*path, &over));
            let (opened, outcome) = match opened {
                Ok(opened) => (opened, Ok(true)),
                Err(error) => (vmdk::Disk::open(&*path, &options)?, Err(error)),
            };
            *disk = Some(opened);
            outcome
        };
        if flatten(spawn_blocking(work).await, "attaching a parent to", &self.path)? {
            self.is_part.store(false, Ordering::Release);
            *self.parent.lock().unwrap_or_else(PoisonError::into_inner) = Some(parent);
        }
        Ok(())
    }

    /// Closes the disk, has its file rewritten, and opens it again.
    async fn put_in_order(&self, progress: Option<Progress>) -> Result<()> {
        let (path, options) = (Arc::clone(&self.path), self.options.clone());
        let attached = self.parent.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let mut disk = Arc::clone(&self.disk).write_owned().await;
        let work = move || {
            let Some(open) = disk.as_ref() else { return Ok(true) };
            let Some(rewritten) = defragment(open, &path, attached, progress.as_ref())? else { return Ok(false) };
            disk.take().map_or(Ok(()), vmdk::Disk::close)?;
            let replaced = rewritten.replace(&path);
            *disk = Some(vmdk::Disk::open(&*path, &options)?);
            replaced.map(|()| true)
        };
        if flatten(spawn_blocking(work).await, "defragmenting", &self.path)? {
            return Ok(());
        }
        let hint = "only base disks in one sparse file are put in order: clone the disk instead";
        refuse("defragment disks of this kind", self.mode(), hint).await
    }

    /// Runs `work` on a blocking thread, where it keeps the disk open until it is done.
    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&vmdk::Disk) -> vmdk::Result<T> + Send + 'static,
    ) -> Result<T> {
        let disk = Arc::clone(&self.disk).read_owned().await;
        let done = spawn_blocking(move || disk.as_ref().map(work)).await;
        let done = done.map(|done| done.transpose());
        // `None` cannot be: closing consumes the handle. It would be the same as being cut off.
        flatten(done, operation, &self.path)?
            .ok_or_else(|| Error::CutOff { operation, path: self.path.as_ref().to_owned() })
    }
}

impl DiskHandle for FileHandle {
    fn mode(&self) -> TransportMode {
        TransportMode::File
    }

    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn alignment(&self) -> u32 {
        1
    }

    fn info(&self) -> BoxFuture<'_, Result<DiskInfo>> {
        Box::pin(self.run("describing", |disk| {
            let (descriptor, links) = (disk.descriptor(), disk.links().len());
            DiskInfo::of_image(disk.capacity(), descriptor.as_ref(), links, |key| disk.ddb_get(key))
        }))
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes>> {
        self.read_with(offset, len, BytesMut::new())
    }

    fn read_with(&self, offset: u64, len: usize, mut memory: BytesMut) -> BoxFuture<'_, Result<Bytes>> {
        Box::pin(async move {
            self.turn(len as u64).await;
            let read = move |disk: &vmdk::Disk| {
                if memory.capacity() < len {
                    // Zeroed by the operating system, not here.
                    memory = Bytes::from(vec![0; len]).into();
                }
                // What the last read left is overwritten: only growth needs zeros.
                memory.resize(len, 0);
                disk.read_at(offset, &mut memory)?;
                Ok(memory.freeze())
            };
            self.run("reading", read).await
        })
    }

    fn write_at(&self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<()>> {
        let unbuffered = self.unbuffered;
        Box::pin(async move {
            self.turn(data.len() as u64).await;
            let write = move |disk: &vmdk::Disk| {
                disk.write_at(offset, &data)?;
                if unbuffered { disk.flush() } else { Ok(()) }
            };
            self.run("writing", write).await
        })
    }

    fn zero_range(&self, range: Range<u64>) -> BoxFuture<'_, Result<()>> {
        let unbuffered = self.unbuffered;
        Box::pin(self.run("zeroing", move |disk| {
            disk.zero_at(range)?;
            if unbuffered { disk.flush() } else { Ok(()) }
        }))
    }

    fn allocated(&self, range: Range<u64>, chunk: u64) -> BoxFuture<'_, Result<Allocation>> {
        let is_part = self.is_part.load(Ordering::Acquire);
        Box::pin(self.run("mapping", move |disk| {
            let mut chunks = Chunks::new(chunk, range.clone());
            for entry in disk.map(range) {
                let entry = entry?;
                // Without its parent, what says "zero" must not be taken for "ask the parent".
                if entry.kind == MapKind::Data || is_part && entry.kind == MapKind::Zero {
                    chunks.push(&entry.range);
                }
            }
            Ok(Allocation::known(chunks.finish()).of_single_link(is_part))
        }))
    }

    fn metadata<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>>> {
        let key = key.to_owned();
        Box::pin(self.run("reading metadata of", move |disk| Ok(disk.ddb_get(&key))))
    }

    fn metadata_keys(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        let keys = |disk: &vmdk::Disk| Ok(disk.ddb_list().into_iter().map(|(key, _)| key).collect());
        Box::pin(self.run("listing metadata of", keys))
    }

    fn set_metadata<'a>(&'a self, key: &'a str, value: &'a str) -> BoxFuture<'a, Result<()>> {
        let (key, value) = (key.to_owned(), value.to_owned());
        Box::pin(self.run("writing metadata of", move |disk| disk.ddb_set(&key, &value)))
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.run("flushing", vmdk::Disk::flush))
    }

    fn wait(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            drop(self.disk.write().await);
            Ok(())
        })
    }

    fn create_child<'a>(
        &'a self,
        path: &'a str,
        kind: DiskKind,
        progress: Option<Progress>,
    ) -> BoxFuture<'a, Result<()>> {
        let Some(kind) = kind.create_kind().filter(|kind| kind.is_sparse()) else {
            let hint = "children are MonolithicSparse or SplitSparse: they hold only what differs";
            return refuse("create children of this kind", self.mode(), hint);
        };
        let spec = ChildSpec::new().kind(kind).options(self.options.clone().single_link(false));
        let (parent, child) = (Arc::clone(&self.path), path.to_owned());
        let create = move |_: &vmdk::Disk| vmdk::create_child(&*parent, child, &spec)?.close();
        Box::pin(async move {
            super::check_path(path)?;
            self.run("creating a child of", create).await?;
            tell(progress.as_ref(), 1, 1);
            Ok(())
        })
    }

    #[cfg(feature = "blocking")]
    fn direct(&self) -> Option<&dyn DirectIo> {
        // Turns are waited for by tasks.
        self.place.is_none().then_some(self)
    }

    fn shrink(&self, progress: Option<Progress>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            // Alone: what is written between finding zeros and giving them back would be lost.
            let disk = Arc::clone(&self.disk).write_owned().await;
            let work = move || disk.as_ref().map_or(Ok(()), |disk| shrink(disk, progress.as_ref()));
            flatten(spawn_blocking(work).await, "shrinking", &self.path)
        })
    }

    fn defragment(&self, progress: Option<Progress>) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.put_in_order(progress))
    }

    fn local_image(&self) -> Option<Arc<dyn vmdk::Image>> {
        if self.place.is_some() {
            return None; // Turns are waited for by tasks.
        }
        let (disk, path) = (Arc::clone(&self.disk), Arc::clone(&self.path));
        Some(Arc::new(LocalImage { disk, path, capacity: self.capacity }))
    }

    fn chain(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(self.run("listing the links of", |disk| Ok(files_of(disk))))
    }

    fn link(&self) -> BoxFuture<'_, Result<Option<Link>>> {
        let is_part = self.is_part();
        Box::pin(self.run("describing", move |disk| match disk.descriptor() {
            Some(own) => Ok(Some(Link { content_id: own.cid()?, is_part })),
            None => Ok(None),
        }))
    }

    fn is_attach_possible<'a>(&'a self, parent: &'a SharedHandle, name: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.check_attach(parent, name))
    }

    fn attach<'a>(&'a self, parent: SharedHandle, name: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.put_over(parent, name))
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            // Waits for everything that is under way.
            let Some(disk) = self.disk.write().await.take() else { return Ok(()) };
            let closed = flatten(spawn_blocking(move || disk.close()).await, "closing", &self.path);
            let parent = self.parent.lock().unwrap_or_else(PoisonError::into_inner).take();
            match parent {
                Some(parent) => closed.and(close(parent).await),
                None => closed,
            }
        })
    }
}

#[cfg(feature = "blocking")]
impl FileHandle {
    /// Runs `work` on the calling thread, unless something has the disk alone or waits to.
    fn run_here(
        &self,
        operation: &'static str,
        work: impl FnOnce(&vmdk::Disk) -> vmdk::Result<()>,
    ) -> Option<Result<()>> {
        let disk = self.disk.try_read().ok()?;
        Some(work(disk.as_ref()?).map_err(Error::file(operation, &self.path)))
    }
}

#[cfg(feature = "blocking")]
impl DirectIo for FileHandle {
    fn read_into(&self, offset: u64, buffer: &mut [u8]) -> Option<Result<()>> {
        self.run_here("reading", |disk| disk.read_at(offset, buffer))
    }

    fn write_from(&self, offset: u64, data: &[u8]) -> Option<Result<()>> {
        self.run_here("writing", |disk| {
            disk.write_at(offset, data)?;
            if self.unbuffered { disk.flush() } else { Ok(()) }
        })
    }

    fn flush(&self) -> Option<Result<()>> {
        self.run_here("flushing", vmdk::Disk::flush)
    }
}

impl Drop for FileHandle {
    fn drop(&mut self) {
        let closed = self.disk.try_read().is_ok_and(|disk| disk.is_none());
        if self.writable && !closed {
            tracing::warn!(
                path = &*self.path,
                "a disk was dropped without close(); its last writes may not be durable"
            );
        }
    }
}
