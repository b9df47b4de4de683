//! Asynchronous byte sources: the twin of [`ReadAt`](super::ReadAt) for storage behind a network.

use std::{
    future::Future,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::SourceMap;

/// Positioned reads from something with a size, without blocking.
///
/// Cancel safety: dropping a future of these methods must leave the source usable.
pub trait AsyncReadAt: Send + Sync {
    /// Returns the current size in bytes.
    ///
    /// # Errors
    /// Whatever the storage says.
    fn len(&self) -> impl Future<Output = io::Result<u64>> + Send;

    /// Whether there are no bytes at all.
    ///
    /// # Errors
    /// As [`AsyncReadAt::len`].
    fn is_empty(&self) -> impl Future<Output = io::Result<bool>> + Send {
        async { Ok(self.len().await? == 0) }
    }

    /// Reads all of `ranges`, which ascend and do not overlap, and returns their bytes in the same order. How many
    /// requests that makes, and how many of them run at once, is the source's business; ranges with small gaps
    /// between them were made one before, as [`AsyncReadAt::hint`] says.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when a range leaves the source. Fewer bytes than asked for are never returned.
    fn read_ranges(&self, ranges: Vec<Range<u64>>) -> impl Future<Output = io::Result<Vec<Bytes>>> + Send;

    /// Tells which parts of `range` are holes, without reading them.
    ///
    /// # Errors
    /// Whatever the storage says. A source that does not know answers [`SourceMap::AllData`].
    fn map(&self, range: Range<u64>) -> impl Future<Output = io::Result<SourceMap>> + Send {
        let _ = range;
        async { Ok(SourceMap::AllData) }
    }

    /// How the source likes to be read.
    fn hint(&self) -> SourceHint {
        SourceHint::default()
    }
}

/// How a source likes to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceHint {
    /// Ranges with at most so many bytes between them are read as one, and those bytes thrown away: about what could
    /// be read in the time of a round trip.
    pub gap: u64,
    /// No range is longer than this; longer ones are cut, so that their parts can be read at once.
    pub longest: u64,
}

impl SourceHint {
    /// Sets the largest gap.
    #[must_use]
    pub fn gap(mut self, bytes: u64) -> Self {
        self.gap = bytes;
        self
    }

    /// Sets the longest range; at least a sector.
    #[must_use]
    pub fn longest(mut self, bytes: u64) -> Self {
        self.longest = bytes.max(crate::SECTOR);
        self
    }
}

impl Default for SourceHint {
    /// Gaps of 1 MiB, ranges of 16 MiB.
    fn default() -> Self {
        Self { gap: 1 << 20, longest: 16 << 20 }
    }
}

/// Opens the files of an asynchronous disk.
pub trait AsyncResolver: Send + Sync {
    /// What it opens.
    type Source: AsyncReadAt;

    /// Opens `path` for reading. Called for many files at once.
    ///
    /// # Errors
    /// Whatever the storage says.
    fn open(&self, path: &Path) -> impl Future<Output = io::Result<Self::Source>> + Send;

    /// A name that is the same for all names of one file, to notice a disk that is its own ancestor. Without I/O: a
    /// cycle that this misses ends at the limit of links.
    fn identity(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }
}
