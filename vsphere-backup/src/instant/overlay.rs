//! What was written over a recovery point: beside it, never into it.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use bytes::{Bytes, BytesMut};
use rustix::fs::FallocateFlags;

use super::blocks::Blocks;

/// Where the changes of a copy-on-write disk are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overlay {
    /// In memory, up to so many bytes; then writes fail as on a full disk.
    Memory {
        /// The most that is kept, in bytes.
        limit: u64,
    },
    /// In a sparse file in this folder, which nobody else sees and which is gone with the disk, also after a crash.
    Folder(PathBuf),
}

impl Overlay {
    /// Up to 256 MiB in memory.
    pub fn in_memory() -> Self {
        Self::Memory { limit: 256 << 20 }
    }
}

/// Blocks that were changed, and their bytes.
#[derive(Debug)]
pub(super) struct Changes {
    capacity: u64,
    store: Store,
    state: Mutex<State>,
    /// Held alone while part of a block is completed from the point; shared by writes of whole blocks.
    pub(super) partial: tokio::sync::RwLock<()>,
}

#[derive(Debug, Default)]
struct State {
    /// The overlay's content counts for these.
    changed: Blocks,
    /// Those of them that are not just zeros.
    data: Blocks,
}

#[derive(Debug)]
enum Store {
    Memory { blocks: RwLock<BTreeMap<u64, Bytes>>, limit: u64 },
    File(Arc<File>),
}

impl Changes {
    /// Prepares for changes of a disk of `capacity` bytes. Blocks.
    pub(super) fn new(overlay: &Overlay, capacity: u64) -> io::Result<Self> {
        let store = match overlay {
            Overlay::Memory { limit } => Store::Memory { blocks: RwLock::default(), limit: *limit },
            Overlay::Folder(folder) => Store::File(Arc::new(unnamed(folder, capacity)?)),
        };
        Ok(Self { capacity, store, state: Mutex::default(), partial: tokio::sync::RwLock::default() })
    }

    /// How many bytes of changes are kept.
    pub(super) fn kept(&self) -> u64 {
        self.state().data.len() * BLOCK
    }

    /// The changed parts of a range of bytes, on the grid of blocks, clipped to the range.
    pub(super) fn changed(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        clipped(self.state().changed.runs(blocks_of(range)), range)
    }

    /// The changed parts that hold more than zeros.
    pub(super) fn data(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        clipped(self.state().data.runs(blocks_of(range)), range)
    }

    /// Reads a range that is changed as a whole.
    pub(super) async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let len = (range.end - range.start) as usize;
        match &self.store {
            Store::Memory { blocks, .. } => {
                let mut bytes = BytesMut::zeroed(len);
                let blocks = blocks.read().unwrap_or_else(PoisonError::into_inner);
                for (&block, content) in blocks.range(blocks_of(&range)) {
                    let start = block * BLOCK;
                    let (from, to) = (range.start.max(start), range.end.min(start + content.len() as u64));
                    bytes[(from - range.start) as usize..(to - range.start) as usize]
                        .copy_from_slice(&content[(from - start) as usize..(to - start) as usize]);
                }
                Ok(bytes.freeze())
            }
            Store::File(file) => {
                let file = Arc::clone(file);
                blocking(move || {
                    let mut bytes = vec![0; len];
                    file.read_exact_at(&mut bytes, range.start)?;
                    Ok(bytes.into())
                })
                .await
            }
        }
    }

    /// Writes whole blocks: the range begins on the grid, and ends on it or with the disk.
    pub(super) async fn write(&self, offset: u64, data: Bytes) -> io::Result<()> {
        let range = offset..offset + data.len() as u64;
        match &self.store {
            Store::Memory { blocks, limit } => {
                let mut blocks = blocks.write().unwrap_or_else(PoisonError::into_inner);
                let new = blocks_of(&range).filter(|block| !blocks.contains_key(block)).count() as u64;
                if (blocks.len() as u64 + new) * BLOCK > *limit {
                    return Err(io::Error::new(
                        io::ErrorKind::StorageFull,
                        format!("changes of more than {limit} bytes were not to be kept"),
                    ));
                }
                for (at, block) in blocks_of(&range).enumerate() {
                    let from = at * BLOCK as usize;
                    // A copy: a slice would keep all of what it is a part of.
                    let content = &data[from..data.len().min(from + BLOCK as usize)];
                    blocks.insert(block, Bytes::copy_from_slice(content));
                }
            }
            Store::File(file) => {
                let file = Arc::clone(file);
                blocking(move || file.write_all_at(&data, offset)).await?;
            }
        }
        // Behind the bytes: a reader that finds the mark finds them too.
        let mut state = self.state();
        for block in blocks_of(&range) {
            state.changed.insert(block);
            state.data.insert(block);
        }
        Ok(())
    }

    /// Makes whole blocks read as zeros, and gives back what they took.
    pub(super) async fn zero(&self, range: Range<u64>) -> io::Result<()> {
        match &self.store {
            Store::Memory { blocks, .. } => {
                let mut blocks = blocks.write().unwrap_or_else(PoisonError::into_inner);
                let gone: Vec<u64> = blocks.range(blocks_of(&range)).map(|(&block, _)| block).collect();
                for block in gone {
                    blocks.remove(&block);
                }
            }
            Store::File(file) => {
                // What was never written is a hole.
                for part in self.data(&range) {
                    let file = Arc::clone(file);
                    blocking(move || punch(&file, part)).await?;
                }
            }
        }
        let mut state = self.state();
        for block in blocks_of(&range) {
            state.changed.insert(block);
            state.data.remove(block);
        }
        Ok(())
    }

    /// Forgets all changes. The caller sees to it that nothing is under way.
    pub(super) async fn reset(&self) -> io::Result<()> {
        match &self.store {
            Store::Memory { blocks, .. } => blocks.write().unwrap_or_else(PoisonError::into_inner).clear(),
            Store::File(file) => {
                let (file, capacity) = (Arc::clone(file), self.capacity);
                blocking(move || file.set_len(0).and_then(|()| file.set_len(capacity))).await?;
            }
        }
        let mut state = self.state();
        state.changed.clear();
        state.data.clear();
        Ok(())
    }

    /// The blocks that cover a range.
    pub(super) fn outward(&self, range: &Range<u64>) -> Range<u64> {
        range.start - range.start % BLOCK..range.end.next_multiple_of(BLOCK).min(self.capacity)
    }

    /// Whether a range is whole blocks.
    pub(super) fn is_whole(&self, range: &Range<u64>) -> bool {
        self.outward(range) == *range
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn blocks_of(range: &Range<u64>) -> Range<u64> {
    range.start / BLOCK..range.end.div_ceil(BLOCK)
}

fn clipped(runs: Vec<Range<u64>>, range: &Range<u64>) -> Vec<Range<u64>> {
    runs.into_iter().map(|run| (run.start * BLOCK).max(range.start)..(run.end * BLOCK).min(range.end)).collect()
}

/// A sparse file without a name.
fn unnamed(folder: &Path, capacity: u64) -> io::Result<File> {
    let random: [u8; 8] = crate::repository::random().map_err(io::Error::other)?;
    let path = folder.join(format!(".instant-{:016x}", u64::from_le_bytes(random)));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    // At once: no crash leaves it behind.
    std::fs::remove_file(&path)?;
    file.set_len(capacity)?;
    Ok(file)
}

/// Makes a hole, or writes zeros where the file system has none.
fn punch(file: &File, range: Range<u64>) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, flags, range.start, range.end - range.start) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let zeros = vec![0; (range.end - range.start).min(1 << 20) as usize];
            let mut at = range.start;
            while at < range.end {
                let len = zeros.len().min((range.end - at) as usize);
                file.write_all_at(&zeros[..len], at)?;
                at += len as u64;
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// The unit of changes in bytes: what file systems write at least.
pub(super) const BLOCK: u64 = 4096;
