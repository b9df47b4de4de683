//! An open image as other images read it: on the thread that asks.

use std::{io, ops::Range, sync::Arc};

use tokio::sync::{RwLock, RwLockReadGuard};
use vmdk::{Image, MapEntry};

use crate::transport::image::in_windows;

/// The disk of a handle, as long as it is open.
pub(super) struct LocalImage {
    pub(super) disk: Arc<RwLock<Option<vmdk::Disk>>>,
    pub(super) path: Arc<str>,
    pub(super) capacity: u64,
}

impl LocalImage {
    fn with<T>(&self, work: impl FnOnce(&vmdk::Disk) -> vmdk::Result<T>) -> vmdk::Result<T> {
        let disk: RwLockReadGuard<'_, _> = self.disk.blocking_read();
        match &*disk {
            Some(disk) => work(disk),
            None => Err(vmdk::Error::io("read", &*self.path, None, io::Error::other("it was closed"))),
        }
    }
}

impl Image for LocalImage {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> vmdk::Result<()> {
        self.with(|disk| disk.read_at(offset, buf))
    }

    fn map(&self, range: Range<u64>) -> Box<dyn Iterator<Item = vmdk::Result<MapEntry>> + Send + '_> {
        let end = range.end.min(self.capacity);
        in_windows(range.start..end, |window| self.with(|disk| disk.map(window).collect()))
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> vmdk::Result<()> {
        self.with(|disk| disk.write_at(offset, data))
    }

    fn zero_at(&self, range: Range<u64>) -> vmdk::Result<()> {
        self.with(|disk| disk.zero_at(range))
    }

    fn flush(&self) -> vmdk::Result<()> {
        self.with(vmdk::Disk::flush)
    }

    fn is_writable(&self) -> bool {
        self.with(|disk| Ok(disk.is_writable())).unwrap_or(false)
    }

    fn ddb_get(&self, key: &str) -> Option<String> {
        self.with(|disk| Ok(disk.ddb_get(key))).ok().flatten()
    }
}
