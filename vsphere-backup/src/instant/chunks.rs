//! Chunks of a stored disk, kept for a while: clients of instant access read a few KiB at a time.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::OnceCell;

use crate::{
    error::{Error, Result},
    repository::{ChunkId, DiskReader, Slot},
};

/// Reads a stored disk through a cache of its chunks, bounded in bytes.
#[derive(Debug)]
pub(super) struct Chunks {
    reader: DiskReader,
    kept: Mutex<Kept>,
    /// How many chunks are kept.
    room: usize,
}

#[derive(Debug, Default)]
struct Kept {
    /// By number on the disk, each with the time of its last use. One that is being read has no value yet, and is
    /// waited for by whoever else wants it.
    chunks: BTreeMap<u64, (u64, Arc<OnceCell<Bytes>>)>,
    clock: u64,
}

impl Chunks {
    pub(super) fn new(reader: DiskReader, bytes: u64) -> Self {
        let size = u64::from(reader.tree().shape().chunk_size);
        let room = usize::try_from(bytes / size).unwrap_or(usize::MAX).max(IN_FLIGHT);
        Self { reader, kept: Mutex::default(), room }
    }

    pub(super) fn reader(&self) -> &DiskReader {
        &self.reader
    }

    /// Reads a range; zeros cost nothing but their memory.
    pub(super) async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let size = u64::from(self.reader.tree().shape().chunk_size);
        let chunks = range.start / size..range.end.div_ceil(size);
        let slots = self.reader.slots(chunks.clone()).await?;
        let wanted: Vec<(u64, Slot)> = chunks.zip(slots).collect();
        if let [(at, Slot::Ref(id))] = wanted[..] {
            let start = at * size;
            let chunk = self.chunk(at, ChunkId(id)).await?;
            return Ok(chunk.slice((range.start - start) as usize..(range.end - start) as usize));
        }
        let load = |(at, slot)| async move {
            let content = match slot {
                Slot::Ref(id) => Some(self.chunk(at, ChunkId(id)).await?),
                _ => None,
            };
            Ok::<_, Error>((at * size, content))
        };
        let mut loaded = stream::iter(wanted.into_iter().map(load)).buffered(IN_FLIGHT).boxed();
        let mut bytes = BytesMut::zeroed((range.end - range.start) as usize);
        while let Some((start, content)) = loaded.try_next().await? {
            let Some(content) = content else { continue };
            let (from, to) = (range.start.max(start), range.end.min(start + content.len() as u64));
            bytes[(from - range.start) as usize..(to - range.start) as usize]
                .copy_from_slice(&content[(from - start) as usize..(to - start) as usize]);
        }
        Ok(bytes.freeze())
    }

    async fn chunk(&self, at: u64, id: ChunkId) -> Result<Bytes> {
        let cell = self.cell(at);
        let fetched = cell.get_or_try_init(|| async {
            let mut results = self.reader.fetch(&[(at, id)]).await;
            results.pop().unwrap_or_else(|| Err(Error::WriterStopped { reason: "a chunk was not answered for".into() }))
        });
        fetched.await.cloned()
    }

    fn cell(&self, at: u64) -> Arc<OnceCell<Bytes>> {
        let mut kept = self.kept();
        kept.clock += 1;
        let now = kept.clock;
        if let Some((used, cell)) = kept.chunks.get_mut(&at) {
            *used = now;
            return Arc::clone(cell);
        }
        if kept.chunks.len() >= self.room {
            let oldest = kept.chunks.iter().min_by_key(|(_, (used, _))| *used).map(|(&at, _)| at);
            oldest.map(|at| kept.chunks.remove(&at));
        }
        let cell = Arc::new(OnceCell::new());
        kept.chunks.insert(at, (now, Arc::clone(&cell)));
        cell
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Chunks of one read that are fetched at once.
const IN_FLIGHT: usize = 8;
