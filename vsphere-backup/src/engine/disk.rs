//! The disks that the engine copies between: narrow traits, so that it can be tested without a
//! server and used by vendors with disks of their own.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures_util::stream;

use crate::{
    error::DiskError,
    repository::{
        DiskReader, ExtentKind,
        storage::{BoxFuture, BoxStream},
    },
};

/// A disk that can be read at any sector, several reads at a time.
pub trait DiskSource: Send + Sync {
    /// Returns the size in bytes.
    fn capacity(&self) -> u64;

    /// Reads exactly `len` bytes at `offset`. Both are multiples of 512, or the read ends with the
    /// disk.
    ///
    /// # Cancel safety
    /// Changes nothing when dropped.
    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes, DiskError>>;

    /// Reads as [`read_at`](Self::read_at), into memory of an earlier read where the source can: its length and content
    /// do not matter, its capacity may be too small. Fresh memory costs the processor about as much as a copy.
    ///
    /// # Cancel safety
    /// As [`read_at`](Self::read_at); the memory is lost.
    fn read_with(&self, offset: u64, len: usize, memory: BytesMut) -> BoxFuture<'_, Result<Bytes, DiskError>> {
        drop(memory);
        self.read_at(offset, len)
    }
}

/// A disk that is restored to.
pub trait DiskTarget: DiskSource {
    /// Writes bytes; the same alignment as for reading.
    ///
    /// # Cancel safety
    /// When dropped, any part of the range may be written.
    fn write_at(&self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<(), DiskError>>;

    /// Makes a range read as zeros, by punching a hole where the target can.
    ///
    /// # Cancel safety
    /// As [`write_at`](Self::write_at).
    fn zero(&self, range: Range<u64>) -> BoxFuture<'_, Result<(), DiskError>>;

    /// Makes durable what was written.
    ///
    /// # Cancel safety
    /// When dropped, nothing is promised.
    fn flush(&self) -> BoxFuture<'_, Result<(), DiskError>>;
}

/// What a [`Source`] says of a range: the range in bytes and what lies there.
pub type SourceExtent = Result<(Range<u64>, ExtentKind), DiskError>;

/// A disk together with what is known of its content: what a vendor's own store offers to be
/// restored from. [`DiskReader`] is one.
pub trait Source: DiskSource {
    /// Returns what lies in a range, in order and without gaps. A store that does not keep what holds zeros says that
    /// all is data, as this method does where it is not implemented.
    fn extents(&self, range: Range<u64>) -> BoxStream<'_, SourceExtent> {
        let range = range.start..range.end.min(self.capacity());
        let all = (!range.is_empty()).then_some(Ok((range, ExtentKind::Data)));
        Box::pin(stream::iter(all))
    }
}

impl DiskSource for DiskReader {
    fn capacity(&self) -> u64 {
        DiskReader::capacity(self)
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes, DiskError>> {
        Box::pin(async move { DiskReader::read_at(self, offset, len).await.map_err(DiskError::from_error) })
    }
}

impl Source for DiskReader {
    fn extents(&self, range: Range<u64>) -> BoxStream<'_, SourceExtent> {
        use futures_util::{StreamExt, TryStreamExt};
        DiskReader::extents(self, range)
            .map_ok(|extent| (extent.range, extent.kind))
            .map_err(DiskError::from_error)
            .boxed()
    }
}
