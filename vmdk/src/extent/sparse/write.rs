//! Writing data: in place where a grain is stored, else into new grains at the end of the file.

use std::ops::Range;

use super::{
    SparseExtent,
    allocator::{Allocator, Claim},
};
use crate::{SECTOR, error::Result, extent::Underlay, grains::Place};

impl SparseExtent {
    /// Writes `data`, which lies inside the extent.
    pub(crate) fn write(&self, offset: u64, data: &[u8], under: Underlay<'_>) -> Result<()> {
        self.changing(|| self.write_runs(offset, data, under))
    }

    pub(super) fn write_runs(&self, mut offset: u64, data: &[u8], under: Underlay<'_>) -> Result<()> {
        let mut rest = data;
        while !rest.is_empty() {
            let run = self.run(offset..offset + rest.len() as u64)?;
            let taken = match run.place {
                Place::At(at) => {
                    self.check_grain(at, run.len)?;
                    self.backing.write(at, &rest[..run.len as usize])?;
                    run.len as usize
                }
                Place::Unallocated | Place::Zero => self.allocate(offset, rest, under)?,
                Place::Packed(_) => return Err(self.compressed()),
            };
            offset += taken as u64;
            rest = &rest[taken..];
        }
        Ok(())
    }

    /// Stores the first grains of `data`, which are not in the file yet; returns how many bytes that took. 0 means
    /// that another thread was faster.
    ///
    /// One write takes all whole grains up to the end of a table; a grain that is written in part takes its other
    /// bytes from the parent. The data are written without a lock: whoever wants the same grains waits for the claim.
    fn allocate(&self, offset: u64, data: &[u8], under: Underlay<'_>) -> Result<usize> {
        let first = self.grains.grain(offset);
        let mut locked = self.allocator.lock_for(first);
        let run = self.run(offset..offset + data.len() as u64)?;
        if !matches!(run.place, Place::Unallocated | Place::Zero) {
            return Ok(0);
        }
        let grain_bytes = self.grains.grain_bytes;
        let span = self.grains.grain_range(first);
        let whole = if offset == span.start {
            let (_, table_end) = self.grains.table(offset);
            run.len.min(table_end - offset) / grain_bytes
        } else {
            0
        };
        self.add_table(first, &mut locked)?;
        let grains = Allocator::unclaimed(first..first + whole.max(1), &locked);
        let len = (grains.end - grains.start) * grain_bytes;
        let at = self.allocator.reserve(len, grain_bytes, &self.backing.name, &mut locked)?;
        let claim = self.allocator.claim(grains.clone(), locked);
        let taken = if whole > 0 {
            self.backing.write(at, &data[..len as usize])?;
            len as usize
        } else {
            let taken = data.len().min((span.end - offset) as usize);
            let hides_parent = run.place == Place::Zero;
            let grain = self.fill_grain(span, offset, &data[..taken], hides_parent, under)?;
            self.backing.write(at, &grain)?;
            taken
        };
        self.publish(grains, at, claim)?;
        Ok(taken)
    }

    /// A whole grain: `data` at `offset`, around it what the grain read as before.
    fn fill_grain(
        &self,
        span: Range<u64>,
        offset: u64,
        data: &[u8],
        hides_parent: bool,
        under: Underlay<'_>,
    ) -> Result<Vec<u8>> {
        let mut grain = vec![0; self.grains.grain_bytes as usize];
        let within = (offset - span.start) as usize;
        let after = within + data.len();
        if !hides_parent {
            under(span.start, &mut grain[..within])?;
            under(offset + data.len() as u64, &mut grain[after..(span.end - span.start) as usize])?;
        }
        grain[within..after].copy_from_slice(data);
        Ok(grain)
    }

    /// Lets readers see `grains`, whose bytes are in the file from `at` on.
    fn publish(&self, grains: Range<u64>, at: u64, claim: Claim<'_>) -> Result<()> {
        // Sectors of reserved bytes fit in 32 bits.
        let sectors = (at / SECTOR..).step_by(self.header.grain_sectors as usize).map(|sector| sector as u32);
        let entries: Vec<u32> = sectors.take((grains.end - grains.start) as usize).collect();
        self.store_entries(grains.start, &entries, &claim)
    }
}
