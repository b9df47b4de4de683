//! Reading a disk of a recovery point.

use std::{ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};

use crate::error::{Error, Result};

use super::{
    Repository,
    fetch::Again,
    id::{ChunkId, PointId},
    manifest::DiskRecord,
    page::{ReadFault, SLOTS, Slot},
    tree::{Leaf, Shape, Tree},
};

/// A disk of a recovery point, to be read at any place.
///
/// Every chunk is checked against its identity before a byte of it is returned, and every page
/// and manifest on the way to it.
#[derive(Clone, Debug)]
pub struct DiskReader {
    repository: Repository,
    point: PointId,
    record: Arc<DiskRecord>,
    tree: Tree,
    /// When the index was read again because a chunk was missed.
    again: Arc<Again>,
}

/// A part of a stored disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// In bytes.
    pub range: Range<u64>,
    /// What lies there.
    pub kind: ExtentKind,
}

/// What lies in a part of a stored disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExtentKind {
    /// Stored bytes.
    Data,
    /// Zeros that the source held.
    Zero,
    /// Nothing that the source had allocated; reads as zeros.
    Unallocated,
}

impl DiskReader {
    pub(super) fn new(repository: Repository, point: PointId, record: DiskRecord) -> Self {
        let shape = Shape::of(&record, repository.chunk_size());
        let tree = Tree::new(repository.pages().clone(), shape, record.root);
        Self { repository, point, record: Arc::new(record), tree, again: Arc::default() }
    }

    /// Returns the disk's size in bytes.
    pub fn capacity(&self) -> u64 {
        self.record.capacity
    }

    /// Returns the recovery point that the disk belongs to.
    pub fn point(&self) -> &PointId {
        &self.point
    }

    /// Returns what the manifest says of the disk.
    pub fn record(&self) -> &DiskRecord {
        &self.record
    }

    /// Returns the repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Reads `len` bytes at `offset`; any offset and length inside the disk will do, up to 64 MiB.
    ///
    /// # Errors
    /// [`Error::DamagedChunk`], [`Error::DamagedPage`], [`Error::Storage`]; [`Error::Invalid`]
    /// when the range is not inside the disk or too long.
    ///
    /// # Cancel safety
    /// Changes nothing.
    #[doc(alias = "VixDiskLib_Read")]
    pub async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        let end = self.check(offset, len)?;
        if len == 0 {
            return Ok(Bytes::new());
        }
        let size = u64::from(self.tree.shape().chunk_size);
        let (first, behind) = (offset / size, end.div_ceil(size));
        let mut out = BytesMut::with_capacity(len);
        for from in (first..behind).step_by(BATCH) {
            let to = behind.min(from + BATCH as u64);
            let slots = self.slots(from..to).await?;
            let wanted: Vec<_> = (from..)
                .zip(&slots)
                .filter_map(|(at, slot)| match slot {
                    Slot::Ref(id) => Some((at, ChunkId(*id))),
                    _ => None,
                })
                .collect();
            let mut chunks = self.fetch(&wanted).await.into_iter();
            for (at, slot) in (from..to).zip(&slots) {
                let start = at * size;
                let chunk_len = u64::from(self.tree.shape().chunk_len(at));
                let part = (offset.max(start) - start) as usize..(end.min(start + chunk_len) - start) as usize;
                match slot {
                    Slot::Ref(_) => {
                        let chunk = chunks.next().expect("one result for each wanted chunk")?;
                        out.extend_from_slice(&chunk[part]);
                    }
                    _ => out.resize(out.len() + part.len(), 0),
                }
            }
        }
        Ok(out.freeze())
    }

    /// Returns what lies in `range`, in order and without gaps. Neighbours may be of one kind.
    ///
    /// # Errors
    /// The stream ends with the first error: [`Error::DamagedPage`], [`Error::Storage`], or
    /// [`Error::Invalid`] when the range is not inside the disk.
    pub fn extents(&self, range: Range<u64>) -> impl Stream<Item = Result<Extent>> + Send + '_ {
        let range = range.start..range.end.max(range.start);
        stream::try_unfold(range, move |range| async move {
            if range.end > self.capacity() {
                return Err(Error::invalid(format!(
                    "byte {} is behind the end of disk {}",
                    range.end, self.record.key
                )));
            }
            if range.is_empty() {
                return Ok(None);
            }
            let size = u64::from(self.tree.shape().chunk_size);
            let first = range.start / size;
            let (kind, behind) = match self.tree.leaf(first).await? {
                Leaf::Uniform { slot, end } => (kind_of(slot), end),
                Leaf::Page { page, end } => {
                    let kind = kind_of(page.slot((first % SLOTS as u64) as usize));
                    let alike = (first + 1..end).find(|at| kind_of(page.slot((at % SLOTS as u64) as usize)) != kind);
                    (kind, alike.unwrap_or(end))
                }
            };
            let end = behind.saturating_mul(size).min(range.end);
            let extent = Extent { range: range.start..end, kind };
            Ok(Some((extent, end..range.end)))
        })
    }

    fn check(&self, offset: u64, len: usize) -> Result<u64> {
        let end = offset.checked_add(len as u64).filter(|&end| end <= self.capacity());
        match end {
            Some(end) if len <= MAX_READ => Ok(end),
            _ => Err(Error::invalid(format!(
                "{len} bytes at offset {offset} cannot be read at once from disk {} of {} bytes",
                self.record.key,
                self.capacity()
            ))),
        }
    }

    /// Returns what lies at some chunks.
    pub(crate) async fn slots(&self, chunks: Range<u64>) -> Result<Vec<Slot>> {
        let mut slots = Vec::with_capacity((chunks.end - chunks.start) as usize);
        let mut at = chunks.start;
        while at < chunks.end {
            match self.tree.leaf(at).await? {
                Leaf::Uniform { slot, end } => {
                    let end = end.min(chunks.end);
                    slots.extend((at..end).map(|_| slot));
                    at = end;
                }
                Leaf::Page { page, end } => {
                    let end = end.min(chunks.end);
                    slots.extend((at..end).map(|at| page.slot((at % SLOTS as u64) as usize)));
                    at = end;
                }
            }
        }
        Ok(slots)
    }

    /// Reads chunks, each given by its number on the disk and its identity, neighbours in a pack
    /// in one go. The results come in the order asked for; damage of one does not hide another.
    pub(crate) async fn fetch(&self, wanted: &[(u64, ChunkId)]) -> Vec<Result<Bytes>> {
        let shape = self.tree.shape();
        let faults = |at: u64, id: ChunkId, fault: ReadFault| match fault {
            ReadFault::Damaged(reason) => {
                Error::DamagedChunk { disk: shape.disk, offset: at * u64::from(shape.chunk_size), chunk: id, reason }
            }
            ReadFault::Failed(error) => error,
        };
        let chunks: Vec<_> = wanted.iter().map(|&(at, id)| (id, shape.chunk_len(at))).collect();
        let results = self.repository.fetch_chunks(&chunks, &self.again).await;
        results
            .into_iter()
            .zip(wanted)
            .map(|(result, &(at, id))| result.map_err(|fault| faults(at, id, fault)))
            .collect()
    }
}

fn kind_of(slot: Slot) -> ExtentKind {
    match slot {
        Slot::Unallocated => ExtentKind::Unallocated,
        Slot::Zero => ExtentKind::Zero,
        Slot::Ref(_) => ExtentKind::Data,
    }
}

/// Chunks looked up at a time by [`DiskReader::read_at`].
const BATCH: usize = 64;
/// The most that [`DiskReader::read_at`] returns at once, in bytes.
const MAX_READ: usize = 64 << 20;
