//! A hosted sparse extent that is open for writing: both directories in memory, tables through the cache.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use super::{
    Backing, TableFile,
    sparse_write::Allocator,
    tables::{TablesLocked, words},
};
use crate::{
    SECTOR,
    cache::{Block, Table},
    error::{Error, Result},
    grains::{Directory, Entries, Grains, Run},
    layout::{ENTRIES_PER_TABLE, SparseFlags, SparseHeader, TABLE_BYTES},
};

/// A KDMV extent that can be written.
#[derive(Debug)]
pub(crate) struct SparseExtent {
    pub(super) backing: Backing,
    pub(super) header: SparseHeader,
    /// What readers use: their directory is `directory`.
    pub(super) grains: Grains,
    /// Sector of each table; 0 for none.
    pub(super) directory: Arc<[AtomicU32]>,
    /// The same for the redundant tables; only for extents that keep them.
    pub(super) redundant: Option<Arc<[AtomicU32]>>,
    pub(super) allocator: Allocator,
    tables: Arc<TableFile>,
}

impl SparseExtent {
    /// Reads header and directories of a file that is open for writing.
    pub(crate) fn open(tables: Arc<TableFile>) -> Result<Self> {
        let backing = tables.backing.clone();
        let header = backing.sparse_header()?;
        let not_supported = |what, why| Err(Error::not_supported(&*backing.name, what, why));
        if header.is_stream_optimized() {
            return not_supported("writing to a compressed extent", "open it read-only, or copy it to another kind");
        }
        if header.version == 3 {
            return not_supported("writing a version 3 sparse extent", "open it read-only");
        }
        let file_len = backing.len()?;
        let directory = read_directory(&backing, &header, header.directory_sector, file_len)?;
        let redundant = header
            .flags
            .has(SparseFlags::REDUNDANT_DIRECTORY)
            .then(|| read_directory(&backing, &header, header.redundant_directory_sector, file_len))
            .transpose()?;
        if header.overhead_sectors.saturating_mul(SECTOR) > file_len {
            let problem =
                format!("sparse header: {} sectors of metadata in a file of {file_len} bytes", header.overhead_sectors);
            return Err(Error::malformed(&*backing.name, problem));
        }
        let held = Directory::Held(Arc::clone(&directory));
        let grains = header.extent_grains(Arc::clone(&backing.name), held, Entries::Hosted);
        let allocator = Allocator::new(file_len, grains.grain_bytes);
        Ok(Self { backing, header, grains, directory, redundant, allocator, tables })
    }

    /// How readers find the extent's grains, those of later writes included.
    pub(crate) fn grains(&self) -> &Grains {
        &self.grains
    }

    /// Where the first bytes of `range` are.
    pub(super) fn run(&self, range: std::ops::Range<u64>) -> Result<Run> {
        self.grains.run(0, &*self.tables, range)
    }

    /// The table with this number, to be changed under the lock; `None` when it was never allocated.
    pub(super) fn table_locked(&self, number: u64, locked: &mut TablesLocked<'_>) -> Result<Option<Table>> {
        let sector = self.directory.get(number as usize).map_or(0, |entry| entry.load(Ordering::Acquire));
        if sector == 0 {
            return Ok(None);
        }
        let block = Block { offset: u64::from(sector) * SECTOR, len: TABLE_BYTES as u32 };
        self.tables.get_for_change(block, locked).map(Some)
    }

    pub(super) fn lock_tables(&self) -> TablesLocked<'_> {
        self.tables.lock()
    }
}

impl SparseHeader {
    /// What the header says of the grains, for readers.
    pub(crate) fn extent_grains(&self, name: Arc<str>, directory: Directory, entries: Entries) -> Grains {
        // The header is checked: the product fits in 63 bits.
        Grains {
            name,
            capacity: self.capacity_sectors * SECTOR,
            grain_bytes: self.grain_sectors * SECTOR,
            entries_per_table: u64::from(ENTRIES_PER_TABLE),
            directory,
            entries,
        }
    }
}

fn read_directory(backing: &Backing, header: &SparseHeader, sector: u64, file_len: u64) -> Result<Arc<[AtomicU32]>> {
    const BLOCK: usize = 64 * 1024;
    let mut offset = header.directory_offset(sector, file_len, &backing.name)?;
    // Checked above: the directory lies inside the file and is at most 64 MiB.
    let mut left = header.directory_entries() as usize * 4;
    let mut directory = Vec::with_capacity(left / 4);
    let mut block = vec![0; left.min(BLOCK)];
    while left > 0 {
        let len = left.min(BLOCK);
        backing.read(offset, &mut block[..len])?;
        let entries = words(&block[..len]);
        directory.extend(entries.iter().map(|entry| AtomicU32::new(entry.load(Ordering::Relaxed))));
        offset += len as u64;
        left -= len;
    }
    Ok(directory.into())
}

// A table's bytes are read in one piece and indexed by entry: keep the two constants together.
const _: () = assert!(TABLE_BYTES == ENTRIES_PER_TABLE as u64 * 4);
