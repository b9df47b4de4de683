//! Byte sources under an image: positioned, shareable, without a cursor.
//!
//! [`ReadAt`] and [`WriteAt`] are all that this crate asks of storage. Both are object safe and take
//! `&self`, so that many threads may read and write one disk at once. Reading past the end is an error and
//! never zeros: a truncated file must not look like an empty disk.

mod file;
mod memory;
#[cfg(feature = "async")]
mod remote;

use std::{fmt, io, ops::Range, sync::Arc};

#[cfg(feature = "async")]
pub use self::remote::{AsyncReadAt, AsyncResolver, SourceHint};
pub use self::{file::FileSource, memory::MemSource};

/// Positioned reads from something with a size.
pub trait ReadAt: Send + Sync + fmt::Debug {
    /// Returns the current size in bytes.
    ///
    /// # Errors
    /// Whatever the storage says.
    fn len(&self) -> io::Result<u64>;

    /// Whether there are no bytes at all.
    ///
    /// # Errors
    /// As [`ReadAt::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buf` with the bytes at `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the range leaves the source; `buf` is then unspecified.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Fills several buffers, each from its own offset. Sources with a better way than one read after the
    /// other (vectored or multi-range reads) override this.
    ///
    /// # Errors
    /// As [`ReadAt::read_exact_at`]; all buffers are then unspecified.
    fn read_ranges(&self, ranges: &mut [(u64, &mut [u8])]) -> io::Result<()> {
        ranges.iter_mut().try_for_each(|(offset, buf)| self.read_exact_at(buf, *offset))
    }

    /// Tells which parts of `range` are holes, without reading them.
    ///
    /// # Errors
    /// Whatever the storage says. A source that does not know answers [`SourceMap::AllData`].
    fn map(&self, range: Range<u64>) -> io::Result<SourceMap> {
        let _ = range;
        Ok(SourceMap::AllData)
    }
}

/// Positioned writes.
pub trait WriteAt: ReadAt {
    /// Writes all of `data` at `offset`; the source grows when needed.
    ///
    /// # Errors
    /// Whatever the storage says; some bytes may have been written.
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// Sets the size; new bytes read as zero.
    ///
    /// # Errors
    /// Whatever the storage says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes a range inside the source read as zero, giving its space back where that is possible.
    ///
    /// # Errors
    /// Whatever the storage says.
    fn punch(&self, range: Range<u64>) -> io::Result<()>;

    /// Hands everything buffered in this process to the storage.
    ///
    /// # Errors
    /// Whatever the storage says.
    fn flush(&self) -> io::Result<()>;

    /// Returns when all data, and the metadata needed to read it back, is on stable storage.
    ///
    /// # Errors
    /// Whatever the storage says.
    fn sync_data(&self) -> io::Result<()>;
}

/// Answer of [`ReadAt::map`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceMap {
    /// Nothing is known: treat all as data.
    AllData,
    /// Ascending runs without gaps from the start of the range asked for. The last run may end early: the
    /// source bounds its answer, and the caller asks again from there. There is at least one run, none is
    /// empty.
    Runs(Vec<SourceRun>),
}

/// A run of bytes that is either data or a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRun {
    /// The bytes, as offsets in the source.
    pub range: Range<u64>,
    /// Holes read as zero.
    pub hole: bool,
}

/// An opened byte source, together with what may be done to it.
#[derive(Debug, Clone)]
pub enum Handle {
    /// May only be read.
    ReadOnly(Arc<dyn ReadAt>),
    /// May be read and written.
    ReadWrite(Arc<dyn WriteAt>),
}

impl Handle {
    /// The reading half.
    pub fn reader(&self) -> &dyn ReadAt {
        match self {
            Self::ReadOnly(source) => &**source,
            Self::ReadWrite(source) => &**source,
        }
    }

    /// The writing half, if there is one.
    pub fn writer(&self) -> Option<&dyn WriteAt> {
        match self {
            Self::ReadOnly(_) => None,
            Self::ReadWrite(source) => Some(&**source),
        }
    }
}

/// Bound on the runs in one [`SourceMap`] of our own sources.
const MAX_RUNS: usize = 1024;
