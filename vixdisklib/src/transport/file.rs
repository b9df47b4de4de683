//! `file`: images on file systems of this machine, through the crate `vmdk`.
//!
//! File I/O blocks, so it runs on the runtime's blocking threads. A lock that every operation shares and closing takes
//! alone makes closing wait for operations whose futures were dropped.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use tokio::{sync::RwLock, task::spawn_blocking};
use vmdk::MapKind;

use super::{BoxFuture, DiskHandle, Transport};
use crate::{
    allocation::{Allocation, Chunks},
    connection::Access,
    error::{Error, Result},
    info::{DiskInfo, Geometry, key},
    mode::TransportMode,
};

/// Opens files of this machine.
pub(crate) struct FileTransport {
    options: vmdk::OpenOptions,
}

impl FileTransport {
    pub(crate) fn new(access: Access, options: vmdk::OpenOptions) -> Self {
        let access = match access {
            Access::ReadOnly => vmdk::Access::ReadOnly,
            Access::ReadWrite => vmdk::Access::ReadWrite,
        };
        Self { options: options.access(access) }
    }
}

impl Transport for FileTransport {
    fn mode(&self) -> TransportMode {
        TransportMode::File
    }

    fn open<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Box<dyn DiskHandle>>> {
        Box::pin(async move {
            if path.starts_with('[') {
                let expected = "it takes files of this machine, not datastore paths";
                return Err(Error::WrongPath { mode: TransportMode::File, path: path.to_owned(), expected });
            }
            let (options, name) = (self.options.clone(), path.to_owned());
            let disk = spawn_blocking(move || vmdk::Disk::open(name, &options)).await;
            let disk = flatten(disk, "opening", path)?;
            let (capacity, writable) = (disk.capacity(), disk.is_writable());
            let disk = Arc::new(RwLock::new(Some(disk)));
            Ok(Box::new(FileHandle { disk, path: path.into(), capacity, writable }) as Box<dyn DiskHandle>)
        })
    }
}

struct FileHandle {
    /// Taken out when the disk is closed.
    disk: Arc<RwLock<Option<vmdk::Disk>>>,
    path: Arc<str>,
    capacity: u64,
    writable: bool,
}

impl FileHandle {
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
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn alignment(&self) -> u32 {
        1
    }

    fn info(&self) -> BoxFuture<'_, Result<DiskInfo>> {
        Box::pin(self.run("describing", |disk| {
            let adapter = disk.ddb_get(key::ADAPTER_TYPE);
            let usual = vmdk::AdapterType::from_name(adapter.as_deref().unwrap_or("lsilogic"));
            let written = disk.descriptor().and_then(|descriptor| vmdk::descriptor::Geometry::of(&descriptor));
            let geometry = written.unwrap_or_else(|| vmdk::descriptor::Geometry::for_disk(disk.capacity(), &usual));
            Ok(DiskInfo {
                capacity: disk.capacity(),
                logical_sector_size: SECTOR,
                geometry: Geometry { cylinders: geometry.cylinders, heads: geometry.heads, sectors: geometry.sectors },
                bios_geometry: Geometry::from_texts(key::BIOS.map(|key| disk.ddb_get(key))),
                adapter_type: adapter,
                uuid: disk.ddb_get(key::UUID),
                links: Some(disk.links().len()),
            })
        }))
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes>> {
        Box::pin(self.run("reading", move |disk| {
            let mut buffer = vec![0; len];
            disk.read_at(offset, &mut buffer)?;
            Ok(buffer.into())
        }))
    }

    fn write_at(&self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.run("writing", move |disk| disk.write_at(offset, &data)))
    }

    fn zero_range(&self, range: Range<u64>) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.run("zeroing", move |disk| disk.zero_at(range)))
    }

    fn allocated(&self, range: Range<u64>, chunk: u64) -> BoxFuture<'_, Result<Allocation>> {
        Box::pin(self.run("mapping", move |disk| {
            let mut chunks = Chunks::new(chunk, range.clone());
            for entry in disk.map(range) {
                let entry = entry?;
                if entry.kind == MapKind::Data {
                    chunks.push(&entry.range);
                }
            }
            Ok(Allocation::known(chunks.finish()))
        }))
    }

    fn metadata<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>>> {
        let key = key.to_owned();
        Box::pin(self.run("reading metadata of", move |disk| Ok(disk.ddb_get(&key))))
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.run("flushing", vmdk::Disk::flush))
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            // Waits for everything that is under way.
            let Some(disk) = self.disk.write().await.take() else { return Ok(()) };
            flatten(spawn_blocking(move || disk.close()).await, "closing", &self.path)
        })
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

fn flatten<T>(done: Result<vmdk::Result<T>, tokio::task::JoinError>, operation: &'static str, path: &str) -> Result<T> {
    match done {
        Ok(done) => done.map_err(Error::file(operation, path)),
        Err(_) => Err(Error::CutOff { operation, path: path.to_owned() }),
    }
}

/// Images of this machine have sectors of 512 bytes.
const SECTOR: u32 = 512;
