//! A disk in memory, for tests and for trying things out.

use std::{
    ops::Range,
    sync::{
        RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use crate::{error::DiskError, repository::storage::BoxFuture};

use super::disk::{DiskSource, DiskTarget};

/// A disk in memory that counts what is read and written.
#[derive(Debug)]
pub struct MemoryDisk {
    bytes: RwLock<Vec<u8>>,
    read: AtomicU64,
    written: AtomicU64,
}

impl MemoryDisk {
    /// Makes a disk that holds `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: RwLock::new(bytes), read: AtomicU64::new(0), written: AtomicU64::new(0) }
    }

    /// Returns a copy of the content.
    pub fn content(&self) -> Vec<u8> {
        self.bytes.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Changes the content, as the guest would.
    pub fn edit(&self, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.bytes.write().unwrap_or_else(|poisoned| poisoned.into_inner()));
    }

    /// Returns how many bytes were read.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Returns how many bytes were written or zeroed.
    pub fn bytes_written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    fn range(&self, offset: u64, len: u64) -> Result<Range<usize>, DiskError> {
        let end = offset.checked_add(len).filter(|&end| end <= self.capacity());
        match end {
            Some(end) => Ok(offset as usize..end as usize),
            None => Err(DiskError::new(format!("{len} bytes at {offset} are not inside the disk"))),
        }
    }
}

impl DiskSource for MemoryDisk {
    fn capacity(&self) -> u64 {
        self.bytes.read().unwrap_or_else(|poisoned| poisoned.into_inner()).len() as u64
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes, DiskError>> {
        Box::pin(async move {
            let range = self.range(offset, len as u64)?;
            self.read.fetch_add(len as u64, Ordering::Relaxed);
            let bytes = self.bytes.read().unwrap_or_else(|poisoned| poisoned.into_inner());
            Ok(Bytes::copy_from_slice(&bytes[range]))
        })
    }
}

impl DiskTarget for MemoryDisk {
    fn write_at(&self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async move {
            let range = self.range(offset, data.len() as u64)?;
            self.written.fetch_add(data.len() as u64, Ordering::Relaxed);
            self.edit(|bytes| bytes[range].copy_from_slice(&data));
            Ok(())
        })
    }

    fn zero(&self, range: Range<u64>) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async move {
            let len = range.end.saturating_sub(range.start);
            let range = self.range(range.start, len)?;
            self.written.fetch_add(len, Ordering::Relaxed);
            self.edit(|bytes| bytes[range].fill(0));
            Ok(())
        })
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async { Ok(()) })
    }
}
