//! The metadata of one opened file: read on demand, through the cache of the chain.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::AtomicU32};

use super::Backing;
use crate::{
    cache::{Block, FileId, Table, TableCache},
    error::{Error, Result},
    grains::Blocks,
    source::SourceMap,
};

/// Blocks of metadata of a file.
///
/// Of a file that is written, blocks are loaded and changed under one lock: a table that was read from the file
/// before a change and put into the cache after it would hide the change. Readers that hold a table see changes
/// through its atomic entries.
#[derive(Debug)]
pub(crate) struct TableFile {
    pub(crate) backing: Backing,
    cache: Arc<TableCache>,
    id: FileId,
    /// Taken after the allocator's lock.
    holes: Mutex<Holes>,
    /// What a table in a hole looks like.
    zeros: OnceLock<Table>,
}

/// Proof that the tables are locked.
pub(super) type TablesLocked<'a> = MutexGuard<'a, Holes>;

/// Where tables need not be read, because the file has a hole there. New disks have all tables in one hole: a
/// map of 62 TB would read four gigabytes of zeros.
#[derive(Debug, Default)]
pub(super) struct Holes {
    known: std::ops::Range<u64>,
    /// The last table read was empty: worth asking for a hole.
    worth_asking: bool,
}

impl TableFile {
    /// `id` tells this file's blocks from others in `cache`.
    pub(crate) fn new(backing: Backing, cache: Arc<TableCache>, id: FileId) -> Self {
        Self { backing, cache, id, holes: Mutex::default(), zeros: OnceLock::new() }
    }

    /// A block to look at.
    pub(crate) fn get(&self, block: Block) -> Result<Table> {
        if let Some(table) = self.cache.get(self.id, block) {
            return Ok(table);
        }
        let mut holes = self.lock();
        if self.lies_in_hole(block, &mut holes)? {
            return Ok(self.zeros(block));
        }
        if self.backing.is_writable() {
            return self.load(block, &mut holes);
        }
        drop(holes);
        let table = self.read(block)?;
        if is_empty(&table) {
            self.lock().worth_asking = true;
        }
        self.cache.insert(self.id, block, Arc::clone(&table));
        Ok(table)
    }

    /// How many bytes from the start of `block` on are in a hole of the file, as far as that was asked for.
    pub(crate) fn zeros_from(&self, block: Block) -> u64 {
        let holes = self.lock();
        if holes.known.contains(&block.offset) { holes.known.end - block.offset } else { 0 }
    }

    /// The table to be changed in the file and then in memory, under the lock.
    pub(super) fn get_for_change(&self, block: Block, holes: &mut TablesLocked<'_>) -> Result<Table> {
        // The change ends the hole that the table may be in.
        holes.known = 0..0;
        self.get_locked(block, holes)
    }

    /// A block to look at, for a caller that holds the lock.
    pub(super) fn get_locked(&self, block: Block, holes: &mut TablesLocked<'_>) -> Result<Table> {
        match self.cache.get(self.id, block) {
            Some(table) => Ok(table),
            None => self.load(block, holes),
        }
    }

    pub(super) fn lock(&self) -> TablesLocked<'_> {
        // What is locked is a hint, so a panic under it leaves nothing half changed.
        self.holes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self, block: Block, holes: &mut TablesLocked<'_>) -> Result<Table> {
        // Another thread may have been faster, and its table may have been changed since.
        if let Some(table) = self.cache.get(self.id, block) {
            return Ok(table);
        }
        let table = self.read(block)?;
        holes.worth_asking = is_empty(&table);
        self.cache.insert(self.id, block, Arc::clone(&table));
        Ok(table)
    }

    fn read(&self, block: Block) -> Result<Table> {
        // On the stack for the usual sizes: a miss is frequent on large disks.
        const SMALL: usize = 4096;
        let mut small = [0; SMALL];
        let mut large = Vec::new();
        let bytes = match small.get_mut(..block.len as usize) {
            Some(bytes) => bytes,
            None => {
                // At most a table of 32 KiB: lengths come from formats, not from files.
                large.resize(block.len as usize, 0);
                &mut large[..]
            }
        };
        self.backing.read(block.offset, bytes)?;
        Ok(words(bytes))
    }

    /// Whether `block` is all hole.
    fn lies_in_hole(&self, block: Block, holes: &mut Holes) -> Result<bool> {
        const AHEAD: u64 = 1 << 30;
        let (at, end) = (block.offset, block.offset.saturating_add(block.len.into()));
        let known = |holes: &Holes| holes.known.start <= at && end <= holes.known.end;
        if holes.worth_asking && !known(holes) {
            let limit = self.backing.len()?.min(at.saturating_add(AHEAD));
            if end <= limit
                && let SourceMap::Runs(runs) = self.backing.map(at..limit)?
                && let Some(first) = runs.first().filter(|run| run.hole && run.range.start == at)
            {
                holes.known = first.range.clone();
            } else {
                holes.worth_asking = false;
            }
        }
        Ok(known(holes))
    }

    fn zeros(&self, block: Block) -> Table {
        let make = || (0..block.len / 4).map(|_| AtomicU32::new(0)).collect();
        let zeros = self.zeros.get_or_init(make);
        if zeros.len() == block.len as usize / 4 { Arc::clone(zeros) } else { make() }
    }
}

impl Blocks for TableFile {
    type Stop = Error;

    fn block(&self, _file: FileId, block: Block) -> Result<Table> {
        self.get(block)
    }

    fn known_zeros(&self, _file: FileId, block: Block) -> u64 {
        self.zeros_from(block)
    }
}

/// Little-endian words of metadata.
pub(crate) fn words(bytes: &[u8]) -> Table {
    bytes.chunks_exact(4).map(|word| AtomicU32::new(u32::from_le_bytes([word[0], word[1], word[2], word[3]]))).collect()
}

fn is_empty(table: &[AtomicU32]) -> bool {
    table.iter().all(|word| word.load(std::sync::atomic::Ordering::Relaxed) == 0)
}
