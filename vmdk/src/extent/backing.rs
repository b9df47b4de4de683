//! A named byte source whose failures say file, operation and offset.

use std::{
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    error::{Error, OPEN_READ_ONLY, Result},
    layout::{HEADER_BYTES, SparseHeader},
    source::{Handle, SourceMap, WriteAt},
};

#[derive(Debug, Clone)]
pub(crate) struct Backing {
    pub(crate) name: Arc<str>,
    handle: Handle,
    /// A sync failed: the system may have dropped what was written before, and would not say so again.
    lost: Arc<AtomicBool>,
}

impl Backing {
    pub(crate) fn new(name: impl Into<Arc<str>>, handle: Handle) -> Self {
        Self { name: name.into(), handle, lost: Arc::default() }
    }

    /// The source itself.
    pub(crate) fn into_handle(self) -> Handle {
        self.handle
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.handle.writer().is_some()
    }

    pub(crate) fn len(&self) -> Result<u64> {
        self.handle.reader().len().map_err(|error| self.failed("size", None, error))
    }

    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let read = self.handle.reader().read_exact_at(buf, offset);
        read.map_err(|error| self.not_read(offset, buf.len() as u64, error))
    }

    /// Reads several ranges, ascending.
    pub(crate) fn read_ranges(&self, ranges: &mut [(u64, &mut [u8])]) -> Result<()> {
        let read = self.handle.reader().read_ranges(ranges);
        read.map_err(|error| {
            let start = ranges.first().map_or(0, |(offset, _)| *offset);
            let end = ranges.last().map_or(start, |(offset, buf)| offset.saturating_add(buf.len() as u64));
            self.not_read(start, end - start, error)
        })
    }

    /// The header of a hosted sparse file.
    pub(crate) fn sparse_header(&self) -> Result<SparseHeader> {
        let mut bytes = [0; HEADER_BYTES];
        self.read(0, &mut bytes)?;
        SparseHeader::parse(&bytes, &self.name)
    }

    fn not_read(&self, offset: u64, len: u64, error: io::Error) -> Error {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Error::malformed(&*self.name, format!("of {len} bytes at offset {offset} some lie beyond its end"));
        }
        self.failed("read", Some(offset), error)
    }

    pub(crate) fn map(&self, range: Range<u64>) -> Result<SourceMap> {
        let start = range.start;
        self.handle.reader().map(range).map_err(|error| self.failed("map", Some(start), error))
    }

    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.writer("write")?.write_all_at(data, offset).map_err(|error| self.failed("write", Some(offset), error))
    }

    pub(crate) fn punch(&self, range: Range<u64>) -> Result<()> {
        let start = range.start;
        self.writer("zero")?.punch(range).map_err(|error| self.failed("zero", Some(start), error))
    }

    pub(crate) fn set_len(&self, len: u64) -> Result<()> {
        self.writer("resize")?.set_len(len).map_err(|error| self.failed("resize", None, error))
    }

    /// Flushes and waits for stable storage; nothing to do for what cannot be written. Once it failed, it always
    /// does: what was to be flushed then may be lost, however well a later flush goes.
    pub(crate) fn sync(&self) -> Result<()> {
        let Some(writer) = self.handle.writer() else {
            return Ok(());
        };
        if self.lost.load(Ordering::Acquire) {
            let error = io::Error::other("an earlier flush failed, and what was written before it may be lost");
            return Err(self.failed("flush", None, error));
        }
        writer.flush().and_then(|()| writer.sync_data()).map_err(|error| {
            self.lost.store(true, Ordering::Release);
            self.failed("flush", None, error)
        })
    }

    fn writer(&self, operation: &'static str) -> Result<&dyn WriteAt> {
        self.handle.writer().ok_or_else(|| Error::ReadOnly {
            operation,
            object: self.name.to_string(),
            reason: OPEN_READ_ONLY,
        })
    }

    fn failed(&self, operation: &'static str, offset: Option<u64>, source: io::Error) -> Error {
        Error::io(operation, &*self.name, offset, source)
    }
}
