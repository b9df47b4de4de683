//! The object-safe view of a disk that simulators, transports and file system readers take.

use std::{ops::Range, sync::Arc};

use crate::error::Result;

/// A random-access virtual disk, whatever it is made of. All offsets and lengths are in bytes.
///
/// All methods take `&self`; calls may run at the same time on many threads. A read that overlaps a write in
/// flight returns old or new bytes; once a write has returned, every later read sees it.
pub trait Image: Send + Sync {
    /// Size of the disk in bytes.
    fn capacity(&self) -> u64;

    /// Fills `buf` with the bytes at `offset`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) when the range leaves the disk, else those of the
    /// storage and of a damaged image. `buf` is then unspecified.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// What is in `range`, as ascending entries that cover it without gaps; neighbours differ in kind or in
    /// the link that they come from.
    /// A range that leaves the disk is cut at its end. Computed as the iterator is advanced, from metadata
    /// only. After an error the iterator ends.
    fn map(&self, range: Range<u64>) -> Box<dyn Iterator<Item = Result<MapEntry>> + Send + '_>;

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// [`Error::ReadOnly`](crate::Error::ReadOnly) and [`Error::OutOfRange`](crate::Error::OutOfRange)
    /// before anything is changed; after another error some bytes may have been written.
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()>;

    /// Makes `range` read as zero, giving its space back where that is possible.
    ///
    /// # Errors
    /// As [`Image::write_at`].
    fn zero_at(&self, range: Range<u64>) -> Result<()>;

    /// Returns when all completed writes are on stable storage.
    ///
    /// # Errors
    /// Those of the storage; the state of the completed writes is then unknown.
    fn flush(&self) -> Result<()>;

    /// Whether writes can succeed.
    fn is_writable(&self) -> bool;

    /// A value of the disk data base (`adapterType`, `uuid`, …), `None` for images without one.
    fn ddb_get(&self, key: &str) -> Option<String> {
        let _ = key;
        None
    }
}

impl<T: Image + ?Sized> Image for Arc<T> {
    fn capacity(&self) -> u64 {
        (**self).capacity()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        (**self).read_at(offset, buf)
    }
    fn map(&self, range: Range<u64>) -> Box<dyn Iterator<Item = Result<MapEntry>> + Send + '_> {
        (**self).map(range)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        (**self).write_at(offset, data)
    }
    fn zero_at(&self, range: Range<u64>) -> Result<()> {
        (**self).zero_at(range)
    }
    fn flush(&self) -> Result<()> {
        (**self).flush()
    }
    fn is_writable(&self) -> bool {
        (**self).is_writable()
    }
    fn ddb_get(&self, key: &str) -> Option<String> {
        (**self).ddb_get(key)
    }
}

/// A run of bytes of the same kind, from the same link.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MapEntry {
    /// The bytes, as offsets in the disk.
    pub range: Range<u64>,
    /// What they are.
    pub kind: MapKind,
    /// The link of the chain that says so: 0 is the disk itself, 1 its parent. `None` exactly where no link has
    /// anything, that is where the kind is [`MapKind::Unallocated`].
    pub layer: Option<usize>,
    /// The bytes are stored in compressed grains.
    pub compressed: bool,
}

impl MapEntry {
    /// An entry of the disk itself, not compressed; for implementors of [`Image`].
    pub fn new(range: Range<u64>, kind: MapKind) -> Self {
        Self { range, kind, layer: (kind != MapKind::Unallocated).then_some(0), compressed: false }
    }

    /// The same of another link of the chain. What is unallocated stays of no link.
    #[must_use]
    pub fn in_layer(mut self, layer: usize) -> Self {
        self.layer = self.layer.map(|_| layer);
        self
    }

    /// The same, compressed or not.
    #[must_use]
    pub fn compressed(mut self, compressed: bool) -> Self {
        self.compressed = compressed;
        self
    }

    /// Whether `next` says of the bytes that follow what this entry says of its own.
    pub(crate) fn joins(&self, next: &Self) -> bool {
        let says = |entry: &Self| (entry.kind, entry.layer, entry.compressed);
        self.range.end == next.range.start && says(self) == says(next)
    }
}

/// What a run of bytes is. Everything but `Data` reads as zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MapKind {
    /// Must be read to be known.
    Data,
    /// Explicitly zero; hides what a parent may have there.
    Zero,
    /// Stored in no link of the chain.
    Unallocated,
}
