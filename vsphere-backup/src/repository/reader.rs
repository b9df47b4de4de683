//! Reading a disk of a recovery point.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};

use crate::error::{Error, Result, in_one_line};

use super::{
    Repository, frame,
    id::{ChunkId, PackId, PointId},
    index::Place,
    manifest::DiskRecord,
    pack,
    page::{ReadFault, SLOTS, Slot},
    storage::{StorageError, StorageErrorKind},
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
    /// Whether a chunk was missed and the index therefore read again.
    refreshed: Arc<AtomicBool>,
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
        Self { repository, point, record: Arc::new(record), tree, refreshed: Arc::default() }
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
        let results = self.repository.fetch_chunks(&chunks, &self.refreshed).await;
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

/// One chunk to be read.
struct Want {
    /// Its place among the results.
    at: usize,
    id: ChunkId,
    plain_len: u32,
    place: Place,
}

impl Repository {
    /// Reads and checks chunks, given by identity and length.
    ///
    /// What is not found is looked for once more with a fresh index: another process may have written it since, or
    /// rewritten its pack. `refreshed` remembers that this did not help.
    pub(super) async fn fetch_chunks(
        &self,
        chunks: &[(ChunkId, u32)],
        refreshed: &AtomicBool,
    ) -> Vec<Result<Bytes, ReadFault>> {
        let mut results = self.fetch_known(chunks).await;
        let is_damaged = |result: &Result<Bytes, ReadFault>| matches!(result, Err(ReadFault::Damaged(_)));
        let wrong: Vec<usize> = (0..results.len()).filter(|&at| is_damaged(&results[at])).collect();
        if wrong.is_empty() || refreshed.swap(true, Ordering::Relaxed) {
            return results;
        }
        if let Err(error) = self.refresh_index().await {
            tracing::warn!(%error, "the chunk index could not be read again");
            return results;
        }
        let again: Vec<_> = wrong.iter().map(|&at| chunks[at]).collect();
        for (at, result) in wrong.into_iter().zip(self.fetch_known(&again).await) {
            results[at] = result;
        }
        // It helped: it may do so again.
        refreshed.store(results.iter().any(is_damaged), Ordering::Relaxed);
        results
    }

    async fn fetch_known(&self, chunks: &[(ChunkId, u32)]) -> Vec<Result<Bytes, ReadFault>> {
        let mut results: Vec<Option<Result<Bytes, ReadFault>>> = Vec::new();
        results.resize_with(chunks.len(), || None);
        let mut found: Vec<(PackId, Want)> = Vec::with_capacity(chunks.len());
        {
            let index = self.read_index();
            for (at, &(id, plain_len)) in chunks.iter().enumerate() {
                match index.find(&id) {
                    Some((pack, place)) => found.push((pack, Want { at, id, plain_len, place })),
                    None => {
                        let absent = "no pack of the repository holds it".into();
                        results[at] = Some(Err(ReadFault::Damaged(absent)));
                    }
                }
            }
        }
        found.sort_unstable_by_key(|(pack, want)| (*pack, want.place.offset));
        while !found.is_empty() {
            let (len, span) = leading_group(&found);
            let pack = found[0].0;
            let group: Vec<Want> = found.drain(..len).map(|(_, want)| want).collect();
            self.fetch_group(pack, span, group, &mut results).await;
        }
        results.into_iter().map(|result| result.expect("each chunk was found in a group or not found")).collect()
    }

    async fn fetch_group(
        &self,
        pack: PackId,
        span: Range<u64>,
        group: Vec<Want>,
        results: &mut [Option<Result<Bytes, ReadFault>>],
    ) {
        let bytes = match self.storage().get_range(&pack::key(pack), span.clone()).await {
            Ok(bytes) => bytes,
            Err(error) if group.len() == 1 => {
                results[group[0].at] = Some(Err(unreadable(pack, error)));
                return;
            }
            Err(_) => {
                // A cut pack may still hold the first of several: ask for each alone.
                for want in group {
                    let start = u64::from(want.place.offset);
                    let own = start..start + want.place.frame_len();
                    Box::pin(self.fetch_group(pack, own, vec![want], results)).await;
                }
                return;
            }
        };
        let seal = self.read_index().seal(pack);
        let cipher = match seal {
            Some(seal) => self.objects().pack_cipher(&pack::key(pack), seal).await,
            None => Err(Error::damaged(pack::key(pack), "it is absent")),
        };
        let cipher = match cipher {
            Ok(cipher) => cipher,
            Err(error) => {
                let text = in_one_line(&error);
                let is_damage = error.is_damage();
                let mut first = Some(ReadFault::from(error));
                for want in group {
                    let again = || match is_damage {
                        true => ReadFault::Damaged(text.clone()),
                        false => ReadFault::Failed(Error::WriterStopped { reason: text.clone() }),
                    };
                    results[want.at] = Some(Err(first.take().unwrap_or_else(again)));
                }
                return;
            }
        };
        let repository = self.clone();
        let indices: Vec<_> = group.iter().map(|want| want.at).collect();
        let decoded = tokio::task::spawn_blocking(move || {
            let config = repository.config();
            let decode = |want: &Want| {
                let start = (u64::from(want.place.offset) - span.start) as usize;
                let frame = bytes.slice(start..start + want.place.frame_len() as usize);
                frame::decode(&frame, want.id, want.plain_len, cipher.as_ref(), &config.keys, repository.codec())
                    .map_err(|reason| ReadFault::Damaged(format!("{reason} (pack {pack})")))
            };
            group.iter().map(|want| (want.at, decode(want))).collect::<Vec<_>>()
        });
        match decoded.await {
            Ok(decoded) => {
                for (at, result) in decoded {
                    results[at] = Some(result);
                }
            }
            Err(_) => {
                for at in indices {
                    let stopped = Error::WriterStopped { reason: "a worker panicked".into() };
                    results[at] = Some(Err(ReadFault::Failed(stopped)));
                }
            }
        }
    }
}

/// Returns how many of the sorted chunks are read in one go, and which bytes of the pack.
fn leading_group(found: &[(PackId, Want)]) -> (usize, Range<u64>) {
    let (pack, first) = (&found[0].0, &found[0].1.place);
    let start = u64::from(first.offset);
    let mut end = start + first.frame_len();
    let mut len = 1;
    for (other, want) in &found[1..] {
        let at = u64::from(want.place.offset);
        let next = end.max(at + want.place.frame_len());
        if other != pack || at > end + MAX_GAP || next - start > MAX_GROUP {
            break;
        }
        end = next;
        len += 1;
    }
    (len, start..end)
}

fn unreadable(pack: PackId, error: StorageError) -> ReadFault {
    match error.kind {
        StorageErrorKind::NotFound => ReadFault::Damaged(format!("its pack {pack} is absent")),
        StorageErrorKind::OutOfRange => ReadFault::Damaged(format!("its pack {pack} is cut short")),
        _ => ReadFault::Failed(error.into()),
    }
}

/// Chunks looked up at a time by [`DiskReader::read_at`].
const BATCH: usize = 64;
/// The most that [`DiskReader::read_at`] returns at once, in bytes.
const MAX_READ: usize = 64 << 20;
/// The most that one read of a pack asks for, in bytes.
const MAX_GROUP: u64 = 8 << 20;
/// Bytes between two frames that are read rather than asked for in two reads.
const MAX_GAP: u64 = 64 << 10;
