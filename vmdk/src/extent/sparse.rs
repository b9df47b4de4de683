//! Reading hosted sparse extents: directory in memory, tables through the cache, grains from the file.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{Backing, sparse_write::Allocator};
use crate::{
    SECTOR,
    cache::{Table, TableCache, TableKey},
    error::{Error, Result},
    grains::{Grains, Place, Run},
    layout::{ENTRIES_PER_TABLE, HEADER_BYTES, SparseFlags, SparseHeader, TABLE_BYTES},
    source::SourceMap,
};

/// A KDMV extent.
#[derive(Debug)]
pub(crate) struct SparseExtent {
    pub(super) backing: Backing,
    pub(super) header: SparseHeader,
    pub(super) grains: Grains,
    /// Sector of each table; 0 for none.
    pub(super) directory: Box<[AtomicU32]>,
    /// The same for the redundant tables; only for writable extents that keep them.
    pub(super) redundant: Option<Box<[AtomicU32]>>,
    pub(super) allocator: Allocator,
    cache: Arc<TableCache>,
    id: u32,
    /// Locked while a table is loaded or changed. A table that was read from the file before a change and put
    /// into the cache after it would hide the change. Taken after `allocator`.
    tables: Mutex<Holes>,
}

/// Proof that the tables are locked.
pub(super) type TablesLocked<'a> = MutexGuard<'a, Holes>;

/// Where tables need not be read, because the file has a hole there. New disks have all tables in one hole: a
/// map of 62 TB would read four gigabytes of zeros.
#[derive(Debug, Default)]
pub(super) struct Holes {
    known: Range<u64>,
    /// The last table read was empty: worth asking for a hole.
    worth_asking: bool,
}

impl SparseExtent {
    /// Reads header and directory. `id` tells this extent's tables from others in `cache`.
    pub(crate) fn open(backing: Backing, cache: Arc<TableCache>, id: u32) -> Result<Self> {
        let header = Self::read_header(&backing)?;
        if header.is_stream_optimized() {
            return Err(Error::not_supported(
                &*backing.name,
                "streamOptimized",
                "compressed extents cannot be read yet",
            ));
        }
        let file_len = backing.len()?;
        let directory = read_directory(&backing, &header, header.directory_sector, file_len)?;
        let keeps_redundant = backing.is_writable() && header.flags.has(SparseFlags::REDUNDANT_DIRECTORY);
        let redundant = keeps_redundant
            .then(|| read_directory(&backing, &header, header.redundant_directory_sector, file_len))
            .transpose()?;
        if backing.is_writable() && header.version == 3 {
            return Err(Error::not_supported(&*backing.name, "writing a version 3 sparse extent", "open it read-only"));
        }
        if backing.is_writable() && header.overhead_sectors.saturating_mul(SECTOR) > file_len {
            let problem =
                format!("sparse header: {} sectors of metadata in a file of {file_len} bytes", header.overhead_sectors);
            return Err(Error::malformed(&*backing.name, problem));
        }
        let grains = Grains::new(&header);
        let allocator = Allocator::new(file_len, grains.grain_bytes());
        let tables = Mutex::default();
        Ok(Self { backing, header, grains, directory, redundant, allocator, cache, id, tables })
    }

    /// Reads the header only.
    pub(crate) fn read_header(backing: &Backing) -> Result<SparseHeader> {
        let mut bytes = [0; HEADER_BYTES];
        backing.read(0, &mut bytes)?;
        SparseHeader::parse(&bytes, &backing.name)
    }

    pub(crate) fn backing(&self) -> &Backing {
        &self.backing
    }

    /// Size in bytes.
    pub(crate) fn capacity(&self) -> u64 {
        self.grains.capacity
    }

    /// Where the first bytes of `range` are: the longest run that tables and file agree to call one.
    pub(crate) fn run(&self, range: Range<u64>) -> Result<Run> {
        let mut found: Option<Run> = None;
        let mut offset = range.start;
        while offset < range.end {
            let (number, table_end) = self.grains.table(offset);
            let end = table_end.min(range.end);
            let run = match self.table(number)? {
                Some(table) => self.grains.first_run(&table, offset..end),
                None => Run { place: Place::Unallocated, len: end - offset },
            };
            match &mut found {
                None => found = Some(run),
                Some(first) => {
                    if !first.join(run) {
                        break;
                    }
                }
            }
            offset += run.len;
            if offset < end {
                break;
            }
        }
        Ok(found.unwrap_or(Run { place: Place::Unallocated, len: 0 }))
    }

    /// The table with this number, `None` when it was never allocated.
    fn table(&self, number: u32) -> Result<Option<Table>> {
        if self.directory_entry(number)? == 0 {
            return Ok(None);
        }
        if let Some(table) = self.cache.get(self.key(number)) {
            return Ok(Some(table));
        }
        let mut locked = self.lock_tables();
        self.table_locked(number, &mut locked)
    }

    /// As `table`, for a caller that already holds the lock.
    pub(super) fn table_locked(&self, number: u32, holes: &mut TablesLocked<'_>) -> Result<Option<Table>> {
        let sector = self.directory_entry(number)?;
        if sector == 0 {
            return Ok(None);
        }
        let key = self.key(number);
        if let Some(table) = self.cache.get(key) {
            return Ok(Some(table));
        }
        let at = u64::from(sector) * SECTOR;
        if self.lies_in_hole(at, holes)? {
            return Ok(None);
        }
        let mut bytes = [0; TABLE_BYTES as usize];
        self.backing.read(at, &mut bytes)?;
        holes.worth_asking = bytes.iter().all(|&byte| byte == 0);
        let table: Table = entries(&bytes).collect();
        self.cache.insert(key, Arc::clone(&table));
        Ok(Some(table))
    }

    /// Whether the table at `at` is all hole. Only asked of files that this disk does not change.
    fn lies_in_hole(&self, at: u64, holes: &mut Holes) -> Result<bool> {
        const AHEAD: u64 = 1 << 30;
        if self.backing.is_writable() {
            return Ok(false);
        }
        let end = at + TABLE_BYTES;
        let known = |holes: &Holes| holes.known.start <= at && end <= holes.known.end;
        if holes.worth_asking && !known(holes) {
            let limit = self.backing.len()?.min(at + AHEAD);
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

    pub(super) fn lock_tables(&self) -> TablesLocked<'_> {
        // What is locked is a hint, so a panic under it leaves nothing half changed.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn directory_entry(&self, number: u32) -> Result<u32> {
        let entry = self.directory.get(number as usize).map(|entry| entry.load(Ordering::Acquire));
        entry.ok_or_else(|| Error::malformed(&*self.backing.name, format!("there is no grain table {number}")))
    }

    fn key(&self, number: u32) -> TableKey {
        TableKey { extent: self.id, table: number }
    }
}

fn read_directory(backing: &Backing, header: &SparseHeader, sector: u64, file_len: u64) -> Result<Box<[AtomicU32]>> {
    const BLOCK: usize = 64 * 1024;
    let mut offset = header.directory_offset(sector, file_len, &backing.name)?;
    // Checked above: the directory lies inside the file and is at most 64 MiB.
    let mut left = header.directory_entries() as usize * 4;
    let mut directory = Vec::with_capacity(left / 4);
    let mut block = vec![0; left.min(BLOCK)];
    while left > 0 {
        let len = left.min(BLOCK);
        backing.read(offset, &mut block[..len])?;
        directory.extend(entries(&block[..len]));
        offset += len as u64;
        left -= len;
    }
    Ok(directory.into_boxed_slice())
}

fn entries(bytes: &[u8]) -> impl Iterator<Item = AtomicU32> {
    bytes.chunks_exact(4).map(|entry| AtomicU32::new(u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]])))
}

// A table's bytes are read in one piece and indexed by entry: keep the two constants together.
const _: () = assert!(TABLE_BYTES == ENTRIES_PER_TABLE as u64 * 4);
