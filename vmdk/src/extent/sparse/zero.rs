//! Making ranges zero.

use std::ops::Range;

use super::{SparseExtent, allocator::Allocator};
use crate::{
    error::Result,
    extent::Underlay,
    grains::{Place, ZERO_GRAIN},
    layout::SparseFlags,
};

impl SparseExtent {
    /// Makes `range` read as zero: stored grains keep their place in the file and lose their bytes, absent ones stay
    /// absent unless a parent would show through.
    pub(crate) fn zero(&self, range: Range<u64>, has_parent: bool, under: Underlay<'_>) -> Result<()> {
        self.changing(|| {
            let mut offset = range.start;
            while offset < range.end {
                // What is hidden is hidden table by table: looking further each time would take the square of the time.
                let (_, table_end) = self.grains.table(offset);
                let end = if has_parent { range.end.min(table_end) } else { range.end };
                let run = self.run(offset..end)?;
                offset += match run.place {
                    Place::At(at) => {
                        self.check_grain(at, run.len)?;
                        self.backing.punch(at..at + run.len)?;
                        run.len
                    }
                    Place::Unallocated if has_parent => self.hide(offset..offset + run.len, under)?,
                    Place::Unallocated | Place::Zero => run.len,
                    Place::Packed(_) => return Err(self.compressed()),
                };
            }
            Ok(())
        })
    }

    /// Hides the parent at the start of `range`, where this link has nothing; returns how many bytes that took.
    fn hide(&self, range: Range<u64>, under: Underlay<'_>) -> Result<u64> {
        let first = self.grains.grain(range.start);
        let (_, table_end) = self.grains.table(range.start);
        let end = range.end.min(table_end);
        // The disk's last grain is whole where the disk ends.
        let last = if end == self.grains.capacity { self.grains.grain(end - 1) + 1 } else { self.grains.grain(end) };
        let starts_grain = range.start == self.grains.grain_range(first).start;
        if self.header.flags.has(SparseFlags::ZEROED_GRAINS) && starts_grain && last > first {
            return self.hide_grains(first..last);
        }
        // Zeros that are stored; the buffer is not held in memory for more than its size.
        let span = self.grains.grain_range(first);
        let end = if starts_grain { range.end.min(range.start + ZEROS) } else { range.end.min(span.end) };
        self.write_runs(range.start, &vec![0; (end - range.start) as usize], under)?;
        Ok(end - range.start)
    }

    /// Marks grains of one table as zero, as far as nobody else is writing them.
    fn hide_grains(&self, grains: Range<u64>) -> Result<u64> {
        let mut locked = self.allocator.lock_for(grains.start);
        let span = self.grains.grain_range(grains.start).start..self.grains.grain_range(grains.end - 1).end;
        let run = self.run(span.clone())?;
        if run.place != Place::Unallocated {
            // Another thread was faster.
            return Ok(0);
        }
        let count = run.len.div_ceil(self.grains.grain_bytes);
        self.add_table(grains.start, &mut locked)?;
        let grains = Allocator::unclaimed(grains.start..grains.start + count, &locked);
        let claim = self.allocator.claim(grains.clone(), locked);
        let entries = vec![ZERO_GRAIN; (grains.end - grains.start) as usize];
        self.store_entries(grains.start, &entries, &claim)?;
        Ok(self.grains.grain_range(grains.end - 1).end - span.start)
    }
}

/// Bytes of zeros written at once.
const ZEROS: u64 = 1 << 20;
