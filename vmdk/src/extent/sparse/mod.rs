//! Hosted sparse extents that are open for writing.
//!
//! Order of every allocation: the grain's bytes, then the entry in the redundant table, then that in the table. A
//! process that dies between any two of them leaves a file in which the grain is either absent or whole; at worst its
//! space is lost. The unclean-shutdown flag is on stable storage before the first change and taken back by a clean close,
//! unless it was set already when the extent was opened: what an earlier writer left undone, only a check can tell.
//!
//! There is no other barrier between these writes: after a power failure, what was written since the last flush is whole,
//! old or garbage, grain by grain, and the flag says that the extent was not closed. What was flushed before stays,
//! unless its grain was written again.
//!
//! Metadata in memory are blocks of the chain's cache, bounded in bytes: directories are paged like tables. An entry
//! is changed in the file first and then, atomically, in the block that readers hold.

mod allocator;
mod entries;
mod write;
mod zero;

use std::{ops::Range, sync::Arc};

use self::allocator::Allocator;
pub(crate) use self::allocator::free_end;
use super::{Backing, TableFile};
use crate::{
    SECTOR,
    error::{Error, Result},
    grains::{Directory, Entries, Grains, Run},
    layout::{ENTRIES_PER_TABLE, SparseFlags, SparseHeader, TABLE_BYTES},
};

/// A KDMV extent that can be written.
#[derive(Debug)]
pub(crate) struct SparseExtent {
    backing: Backing,
    header: SparseHeader,
    /// What readers use too.
    grains: Grains,
    /// Where the directory is in the file, in bytes.
    directory: u64,
    /// The same of the redundant one; only for extents that keep it.
    redundant: Option<u64>,
    allocator: Allocator,
    tables: Arc<TableFile>,
}

impl SparseExtent {
    /// Reads and checks the header of a file that is open for writing, of a disk whose changes somebody else may track.
    pub(crate) fn open(tables: Arc<TableFile>, is_tracked: bool) -> Result<Self> {
        let backing = tables.backing.clone();
        let header = backing.sparse_header()?;
        if header.is_stream_optimized() {
            let reason = "open it read-only, or copy it to another kind";
            return Err(Error::not_supported(&*backing.name, "writing to a compressed extent", reason));
        }
        // Version 3 is version 1 for readers; it says that a host tracks changes, which writes from here would miss.
        if header.version == 3 && is_tracked {
            let reason = "its changes are tracked; drop changeTrackPath from the descriptor first";
            return Err(Error::not_supported(&*backing.name, "writing to a version 3 sparse extent", reason));
        }
        let file_len = backing.len()?;
        let directory = header.directory_offset(header.directory_sector, file_len, &backing.name)?;
        let redundant = header
            .flags
            .has(SparseFlags::REDUNDANT_DIRECTORY)
            .then(|| header.directory_offset(header.redundant_directory_sector, file_len, &backing.name))
            .transpose()?;
        if header.overhead_sectors.saturating_mul(SECTOR) > file_len {
            let problem =
                format!("sparse header: {} sectors of metadata in a file of {file_len} bytes", header.overhead_sectors);
            return Err(Error::malformed(&*backing.name, problem));
        }
        let paged = Directory { offset: directory, len: header.directory_entries() };
        let grains = header.extent_grains(Arc::clone(&backing.name), paged, Entries::Hosted);
        let allocator = Allocator::new(file_len, grains.grain_bytes, header.unclean_shutdown);
        Ok(Self { backing, header, grains, directory, redundant, allocator, tables })
    }

    /// How readers find the extent's grains, those of later writes included.
    pub(crate) fn grains(&self) -> &Grains {
        &self.grains
    }

    /// Flushes, and takes the unclean flag back unless a write had failed or the flag was set before.
    pub(crate) fn close(&self) -> Result<()> {
        self.backing.sync()?;
        self.allocator.mark_clean(|| {
            self.backing.write(SparseHeader::UNCLEAN_OFFSET, &[0])?;
            self.backing.sync()
        })
    }

    /// Makes a change: sets the flag before, and remembers a failure.
    fn changing(&self, change: impl FnOnce() -> Result<()>) -> Result<()> {
        self.allocator.mark_unclean(|| {
            self.backing.write(SparseHeader::UNCLEAN_OFFSET, &[1])?;
            self.backing.sync()
        })?;
        change().inspect_err(|_| self.allocator.note_failure())
    }

    /// Where the first bytes of `range` are.
    fn run(&self, range: Range<u64>) -> Result<Run> {
        self.grains.run(0, &*self.tables, range)
    }

    /// A damaged table must make a write neither overwrite the metadata nor grow the file by terabytes.
    fn check_grain(&self, at: u64, len: u64) -> Result<()> {
        let start = self.header.overhead_sectors.saturating_mul(SECTOR);
        let end = self.allocator.end();
        if at < start || at.saturating_add(len) > end {
            let problem = format!("a grain at offset {at} lies outside of the data, {start} to {end}");
            return Err(Error::malformed(&*self.backing.name, problem));
        }
        Ok(())
    }

    /// Never met: compressed extents do not open for writing.
    fn compressed(&self) -> Error {
        Error::not_supported(&*self.backing.name, "writing to a compressed extent", "its grains have no fixed place")
    }
}

impl Drop for SparseExtent {
    /// Marks the extent as clean when nothing failed; an explicit close reports what this can only try.
    fn drop(&mut self) {
        if !std::thread::panicking() && self.allocator.is_marked_unclean() {
            let _ = self.close();
        }
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

// A table's bytes are read in one piece and indexed by entry: keep the two constants together.
const _: () = assert!(TABLE_BYTES == ENTRIES_PER_TABLE as u64 * 4);
