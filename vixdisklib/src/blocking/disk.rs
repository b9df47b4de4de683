//! An open disk, for callers without async.

use std::ops::Range;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::{block_on, in_place};
use crate::{allocation::Allocation, error::Result, info::DiskInfo, open::Access};

/// A [`Disk`](crate::Disk) whose calls block. All offsets and lengths are bytes.
///
/// Everything takes `&self`: threads may share it and have calls under way at once.
#[derive(Debug)]
pub struct Disk {
    inner: crate::Disk,
    runtime: Handle,
}

impl Disk {
    /// Makes a disk's calls blocking ones.
    pub fn new(disk: crate::Disk, runtime: &Handle) -> Self {
        Self { inner: disk, runtime: runtime.clone() }
    }

    /// The disk itself, with everything that needs no waiting: capacity, path, transport.
    pub fn asynchronous(&self) -> &crate::Disk {
        &self.inner
    }

    /// The runtime that the disk needs.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Whether reads and writes run on the calling thread, without the runtime: so it is with files of this machine.
    pub fn is_direct(&self) -> bool {
        self.inner.is_direct()
    }

    /// Fills `buffer` with the bytes from `offset`.
    ///
    /// # Errors
    /// As [`Disk::read_into`](crate::Disk::read_into).
    #[doc(alias = "VixDiskLib_Read")]
    pub fn read_into(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match in_place(|| self.inner.read_here(offset, buffer)) {
            Some(done) => done,
            None => block_on(&self.runtime, self.inner.read_into(offset, buffer)),
        }
    }

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// As [`Disk::write_at`](crate::Disk::write_at).
    #[doc(alias = "VixDiskLib_Write")]
    pub fn write_from(&self, offset: u64, data: &[u8]) -> Result<()> {
        match in_place(|| self.inner.write_here(offset, data)) {
            Some(done) => done,
            None => block_on(&self.runtime, self.inner.write_at(offset, Bytes::copy_from_slice(data))),
        }
    }

    /// Makes a range read as zeros.
    ///
    /// # Errors
    /// As [`Disk::zero_range`](crate::Disk::zero_range).
    pub fn zero_range(&self, range: Range<u64>) -> Result<()> {
        block_on(&self.runtime, self.inner.zero_range(range))
    }

    /// Tells which parts of a range have storage behind them.
    ///
    /// # Errors
    /// As [`Disk::allocated`](crate::Disk::allocated).
    #[doc(alias = "VixDiskLib_QueryAllocatedBlocks")]
    pub fn allocated(&self, range: Range<u64>) -> Result<Allocation> {
        block_on(&self.runtime, self.inner.allocated(range))
    }

    /// Collects what the disk says about itself.
    ///
    /// # Errors
    /// As [`Disk::info`](crate::Disk::info).
    #[doc(alias = "VixDiskLib_GetInfo")]
    pub fn info(&self) -> Result<DiskInfo> {
        block_on(&self.runtime, self.inner.info())
    }

    /// A value of the disk data base.
    ///
    /// # Errors
    /// As [`Disk::metadata`](crate::Disk::metadata).
    #[doc(alias = "VixDiskLib_ReadMetadata")]
    pub fn metadata(&self, key: &str) -> Result<Option<String>> {
        block_on(&self.runtime, self.inner.metadata(key))
    }

    /// Returns when completed writes are as durable as the transport can make them.
    ///
    /// # Errors
    /// As [`Disk::flush`](crate::Disk::flush).
    #[doc(alias = "VixDiskLib_Flush")]
    pub fn flush(&self) -> Result<()> {
        match in_place(|| self.inner.flush_here()) {
            Some(done) => done,
            None => block_on(&self.runtime, self.inner.flush()),
        }
    }

    /// Waits for what is under way, closes the disk and reports what went wrong.
    ///
    /// # Errors
    /// As [`Disk::close`](crate::Disk::close).
    #[doc(alias = "VixDiskLib_Close")]
    pub fn close(self) -> Result<()> {
        block_on(&self.runtime, self.inner.close())
    }
}

/// What the calling thread can do by itself; `None` where it needs the runtime, or would have to wait.
impl crate::Disk {
    fn is_direct(&self) -> bool {
        self.handle().direct().is_some()
    }

    fn read_here(&self, offset: u64, buffer: &mut [u8]) -> Option<Result<()>> {
        let (_under_way, direct) = (self.under_way()?, self.handle().direct()?);
        match self.check("read", offset, buffer.len() as u64) {
            Ok(()) => direct.read_into(offset, buffer),
            Err(error) => Some(Err(error)),
        }
    }

    fn write_here(&self, offset: u64, data: &[u8]) -> Option<Result<()>> {
        let (_under_way, direct) = (self.under_way()?, self.handle().direct()?);
        match self.check_writable("write to").and_then(|()| self.check("write", offset, data.len() as u64)) {
            Ok(()) => direct.write_from(offset, data),
            Err(error) => Some(Err(error)),
        }
    }

    fn flush_here(&self) -> Option<Result<()>> {
        match self.access() {
            Access::ReadOnly => Some(Ok(())),
            Access::ReadWrite => self.handle().direct()?.flush(),
        }
    }
}
