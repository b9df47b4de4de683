//! What a way to a disk has to be able to do. Private: the set of transports is ours.

mod file;
mod nfc;
#[cfg(test)]
pub(crate) mod testing;

use std::{ops::Range, pin::Pin};

use bytes::Bytes;

pub(crate) use self::{file::FileTransport, nfc::NfcTransport};
use crate::{allocation::Allocation, error::Result, info::DiskInfo, mode::TransportMode};

/// A boxed future that may be sent between threads.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Opens disks.
pub(crate) trait Transport: Send + Sync {
    /// Its name.
    fn mode(&self) -> TransportMode;

    /// Opens one disk.
    fn open<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Box<dyn DiskHandle>>>;
}

/// An open disk. Callers have checked access, bounds and alignment; ranges are not empty.
pub(crate) trait DiskHandle: Send + Sync {
    /// Size in bytes.
    fn capacity(&self) -> u64;

    /// What offsets and lengths have to be multiples of. Not 0.
    fn alignment(&self) -> u32;

    fn info(&self) -> BoxFuture<'_, Result<DiskInfo>>;

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes>>;

    fn write_at(&self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<()>>;

    fn zero_range(&self, range: Range<u64>) -> BoxFuture<'_, Result<()>>;

    /// Answers in units of `chunk` bytes, a power of two of at least 64 KiB.
    fn allocated(&self, range: Range<u64>, chunk: u64) -> BoxFuture<'_, Result<Allocation>>;

    fn metadata<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>>>;

    fn flush(&self) -> BoxFuture<'_, Result<()>>;

    fn close(self: Box<Self>) -> BoxFuture<'static, Result<()>>;
}
