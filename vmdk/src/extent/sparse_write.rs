//! Writing hosted sparse extents in place.
//!
//! Order of every allocation: the grain's bytes, then the redundant table, then the table. A crash between
//! any two leaves a file in which the grain is either absent or whole; at worst its space at the end of the
//! file is used again by the next allocation. The unclean-shutdown flag is set before the first change and
//! taken back by a clean close.

use std::{
    ops::Range,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use super::{SparseExtent, Underlay, tables::TablesLocked};
use crate::{
    SECTOR,
    error::{Error, Result},
    grains::{Place, ZERO_GRAIN},
    layout::{ENTRIES_PER_TABLE, SparseFlags, SparseHeader, TABLE_BYTES},
};

/// Where the next grain goes, and whether the extent is marked as being written.
#[derive(Debug)]
pub(super) struct Allocator {
    /// Held while grains, tables or the unclean flag are added to the file.
    lock: Mutex<()>,
    /// End of what is used in the file, in bytes; changed under the lock only.
    next_byte: AtomicU64,
    marked_unclean: AtomicBool,
    /// A write failed: the flag must stay set.
    failed: AtomicBool,
}

/// Proof that the allocator is locked.
type Allocating<'a> = MutexGuard<'a, ()>;

impl Allocator {
    pub(super) fn new(file_len: u64, grain_bytes: u64) -> Self {
        let next_byte = free_end(file_len, grain_bytes);
        Self {
            lock: Mutex::new(()),
            next_byte: AtomicU64::new(next_byte),
            marked_unclean: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> Allocating<'_> {
        // The lock guards the file, and a file half written is what `failed` and the unclean flag are for.
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// End of what is used in the file, in bytes.
    fn end(&self) -> u64 {
        self.next_byte.load(Ordering::Acquire)
    }

    fn advance(&self, end: u64, _locked: &Allocating<'_>) {
        self.next_byte.store(end, Ordering::Release);
    }
}

impl SparseExtent {
    /// Writes `data`, which lies inside the extent.
    pub(crate) fn write(&self, offset: u64, data: &[u8], under: Underlay<'_>) -> Result<()> {
        self.mark_unclean()?;
        self.noting_failure(|| {
            let (mut offset, mut rest) = (offset, data);
            while !rest.is_empty() {
                let run = self.run(offset..offset + rest.len() as u64)?;
                let len = match run.place {
                    Place::At(at) => {
                        let (now, _) = rest.split_at(run.len as usize);
                        self.check_grain(at, run.len)?;
                        self.backing.write(at, now)?;
                        now.len()
                    }
                    Place::Unallocated | Place::Zero => self.allocate(offset, rest, under)?,
                    Place::Packed(_) => return Err(self.compressed()),
                };
                offset += len as u64;
                rest = &rest[len..];
            }
            Ok(())
        })
    }

    /// Makes `range` read as zero: stored grains keep their place in the file and lose their bytes, absent
    /// ones stay absent unless a parent would show through.
    pub(crate) fn zero(&self, range: Range<u64>, has_parent: bool, under: Underlay<'_>) -> Result<()> {
        self.mark_unclean()?;
        self.noting_failure(|| {
            let mut offset = range.start;
            while offset < range.end {
                let run = self.run(offset..range.end)?;
                match run.place {
                    Place::At(at) => {
                        self.check_grain(at, run.len)?;
                        self.backing.punch(at..at + run.len)?;
                    }
                    Place::Unallocated if has_parent => self.hide(offset..offset + run.len, under)?,
                    Place::Unallocated | Place::Zero => {}
                    Place::Packed(_) => return Err(self.compressed()),
                }
                offset += run.len;
            }
            Ok(())
        })
    }

    /// Flushes, and takes the unclean flag back unless a write had failed.
    pub(crate) fn close(&self) -> Result<()> {
        self.backing.sync()?;
        let _locked = self.allocator.lock();
        let marked = &self.allocator.marked_unclean;
        if marked.load(Ordering::Acquire) && !self.allocator.failed.load(Ordering::Acquire) {
            self.backing.write(SparseHeader::UNCLEAN_OFFSET, &[0])?;
            self.backing.sync()?;
            marked.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// Hides the parent in `range`, where this link has nothing.
    fn hide(&self, range: Range<u64>, under: Underlay<'_>) -> Result<()> {
        let zeros = vec![0; self.grains.grain_bytes as usize];
        let mut offset = range.start;
        while offset < range.end {
            let grain = self.grains.grain_range(self.grains.grain(offset));
            let end = grain.end.min(range.end);
            if self.header.flags.has(SparseFlags::ZEROED_GRAINS) && offset == grain.start && end == grain.end {
                let locked = self.allocator.lock();
                let number = self.grains.grain(offset);
                self.add_table(number, &locked)?;
                self.store_entries(number, &[ZERO_GRAIN], &locked)?;
                offset = end;
            } else {
                let len = (end - offset) as usize;
                self.write(offset, &zeros[..len], under)?;
                offset = end;
            }
        }
        Ok(())
    }

    /// Stores the first grains of `data`, which are not in the file yet; returns how many bytes that took.
    /// 0 means that another thread was faster.
    fn allocate(&self, offset: u64, data: &[u8], under: Underlay<'_>) -> Result<usize> {
        let locked = self.allocator.lock();
        let run = self.run(offset..offset + data.len() as u64)?;
        if matches!(run.place, Place::At(_)) {
            return Ok(0);
        }
        let grain_bytes = self.grains.grain_bytes;
        let first = self.grains.grain(offset);
        let span = self.grains.grain_range(first);
        let whole = if offset == span.start {
            let (_, table_end) = self.grains.table(offset);
            run.len.min(table_end - offset) / grain_bytes
        } else {
            0
        };
        let at = self.aligned_end(grain_bytes)?;
        let (taken, count) = if whole > 0 {
            let taken = (whole * grain_bytes) as usize;
            self.check_space(at, whole)?;
            self.backing.write(at, &data[..taken])?;
            (taken, whole)
        } else {
            let taken = data.len().min((span.end - offset) as usize);
            let mut buf = vec![0; grain_bytes as usize];
            let within = (offset - span.start) as usize;
            if run.place == Place::Unallocated {
                under(span.start, &mut buf[..within])?;
                let after = within + taken..(span.end - span.start) as usize;
                under(offset + taken as u64, &mut buf[after])?;
            }
            buf[within..within + taken].copy_from_slice(&data[..taken]);
            self.check_space(at, 1)?;
            self.backing.write(at, &buf)?;
            (taken, 1)
        };
        self.allocator.advance(at + count * grain_bytes, &locked);
        self.add_table(first, &locked)?;
        let sectors_per_grain = self.header.grain_sectors as u32;
        // Checked above: the last grain's sector fits in 32 bits.
        let sector = (at / SECTOR) as u32;
        let entries: Vec<u32> = (0..count as u32).map(|index| sector + index * sectors_per_grain).collect();
        self.store_entries(first, &entries, &locked)?;
        Ok(taken)
    }

    /// Sets consecutive entries, all in the table of `grain`, in the file and in memory.
    fn store_entries(&self, grain: u64, entries: &[u32], _allocating: &Allocating<'_>) -> Result<()> {
        let (number, entry) = self.grains.entry(grain);
        let mut locked = self.lock_tables();
        let table = self.table_locked(number, &mut locked)?.ok_or_else(|| self.inconsistent(number))?;
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        let within = entry as u64 * 4;
        for directory in self.redundant.iter().chain([&self.directory]) {
            let sector = directory[number as usize].load(Ordering::Acquire);
            let at = u64::from(sector) * SECTOR;
            if sector == 0 || at + TABLE_BYTES > self.allocator.end() {
                return Err(self.inconsistent(number));
            }
            self.backing.write(u64::from(sector) * SECTOR + within, &bytes)?;
        }
        for (slot, &value) in table[entry..].iter().zip(entries) {
            slot.store(value, Ordering::Release);
        }
        Ok(())
    }

    /// Makes the table of `grain` when there is none. Hosted extents have all tables from the start; other
    /// writers leave some out.
    fn add_table(&self, grain: u64, allocating: &Allocating<'_>) -> Result<()> {
        let (number, _) = self.grains.entry(grain);
        if self.directory[number as usize].load(Ordering::Acquire) != 0 {
            return Ok(());
        }
        let locked = self.lock_tables();
        if let Some(redundant) = &self.redundant {
            self.add_table_to(redundant, self.header.redundant_directory_sector, number, allocating, &locked)?;
        }
        self.add_table_to(&self.directory, self.header.directory_sector, number, allocating, &locked)
    }

    fn add_table_to(
        &self,
        directory: &[AtomicU32],
        directory_sector: u64,
        number: u64,
        allocating: &Allocating<'_>,
        _locked: &TablesLocked<'_>,
    ) -> Result<()> {
        let at = self.aligned_end(SECTOR)?;
        let sector = u32::try_from(at / SECTOR).map_err(|_| self.full())?;
        self.backing.write(at, &[0; TABLE_BYTES as usize])?;
        self.backing.write(directory_sector * SECTOR + number * 4, &sector.to_le_bytes())?;
        self.allocator.advance(at + TABLE_BYTES, allocating);
        directory[number as usize].store(sector, Ordering::Release);
        Ok(())
    }

    fn mark_unclean(&self) -> Result<()> {
        let marked = &self.allocator.marked_unclean;
        if marked.load(Ordering::Acquire) {
            return Ok(());
        }
        let _locked = self.allocator.lock();
        if !marked.load(Ordering::Acquire) {
            self.backing.write(SparseHeader::UNCLEAN_OFFSET, &[1])?;
            marked.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn noting_failure(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        work().inspect_err(|_| self.allocator.failed.store(true, Ordering::Release))
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

    /// The first free offset that is a multiple of `unit`.
    fn aligned_end(&self, unit: u64) -> Result<u64> {
        self.allocator.end().checked_next_multiple_of(unit).ok_or_else(|| self.full())
    }

    /// Sector numbers have 32 bits: an extent's file ends at 2 TiB.
    fn check_space(&self, at: u64, grains: u64) -> Result<()> {
        let end = (at / SECTOR).saturating_add(grains * self.header.grain_sectors);
        if end > u64::from(u32::MAX) { Err(self.full()) } else { Ok(()) }
    }

    /// Never met: compressed extents do not open for writing.
    fn compressed(&self) -> Error {
        Error::not_supported(&*self.backing.name, "writing to a compressed extent", "its grains have no fixed place")
    }

    fn full(&self) -> Error {
        Error::not_supported(&*self.backing.name, "a sparse extent file above 2 TiB", "sector numbers have 32 bits")
    }

    fn inconsistent(&self, number: u64) -> Error {
        Error::malformed(&*self.backing.name, format!("grain table {number} is missing in one of the directories"))
    }
}

impl Drop for SparseExtent {
    /// Marks the extent as clean when nothing failed; an explicit close reports what this can only try.
    fn drop(&mut self) {
        if !std::thread::panicking() && self.allocator.marked_unclean.load(Ordering::Acquire) {
            let _ = self.close();
        }
    }
}

/// Where unused bytes begin in a file of this size. A file that ends inside a grain may have been cut by its writer at
/// the disk's end; the rest of that grain stays free, wherever it starts.
pub(crate) fn free_end(file_len: u64, grain_bytes: u64) -> u64 {
    if file_len.is_multiple_of(grain_bytes) { file_len } else { file_len.saturating_add(grain_bytes - SECTOR) }
}

// The entries of one allocation lie in one table, so their number fits in 32 bits.
const _: () = assert!(ENTRIES_PER_TABLE <= u32::MAX / 4);
