//! Checksums of contents: one for each sector, in a tree of their own, and in logs for what they hold.

use std::collections::BTreeMap;

use super::{
    Volume,
    subvolume::ROOT_ITEM,
    tree::{Key, Tree},
};
use crate::{
    bytes::le_u32,
    error::{Error, Result},
    fs::checksum::crc32c,
};

/// Where checksums of contents are.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// The tree of them; `None` when there is none, or they are of a kind that is not computed here.
    pub(super) tree: Option<Tree>,
    /// Those that logs have: by the address of the first sector of each item.
    pub(super) logged: BTreeMap<u64, Vec<u8>>,
}

impl Volume {
    /// The tree of checksums, when they are CRC-32C.
    pub(super) fn sum_tree(&self) -> Result<Option<Tree>> {
        if !self.superblock.crc {
            return Ok(None);
        }
        let root = self.stored_item(self.root_tree(), Key::new(SUM_TREE, ROOT_ITEM, 0))?;
        Ok(root.and_then(|item| Tree::of_root(0, &item)))
    }

    /// Fills `buf` with the content at an address, as far as there are checksums for it with what they say. The error
    /// is told the address of a sector that is wrong wherever it lies.
    pub(super) fn read_summed(&self, address: u64, buf: &mut [u8], wrong: impl Fn(u64) -> Error) -> Result<()> {
        if self.sums.tree.is_none() && self.sums.logged.is_empty() {
            return self.read_address(address, buf);
        }
        let sector = self.superblock.sector_size as usize;
        let mut at = address;
        let mut rest = buf;
        while !rest.is_empty() {
            let into = (at % sector as u64) as usize;
            if into > 0 || rest.len() < sector {
                // A sector is read whole, or there is nothing to compare.
                let mut whole = vec![0; sector];
                self.read_sectors(at - into as u64, &mut whole, &wrong)?;
                let len = rest.len().min(sector - into);
                let (part, after) = rest.split_at_mut(len);
                part.copy_from_slice(&whole[into..into + len]);
                (at, rest) = (at + len as u64, after);
                continue;
            }
            let len = (rest.len() - rest.len() % sector).min(AT_ONCE);
            let (part, after) = rest.split_at_mut(len);
            self.read_sectors(at, part, &wrong)?;
            (at, rest) = (at + len as u64, after);
        }
        Ok(())
    }

    /// Reads whole sectors and compares them.
    fn read_sectors(&self, address: u64, buf: &mut [u8], wrong: impl Fn(u64) -> Error) -> Result<()> {
        let sector = self.superblock.sector_size as usize;
        let sums = self.sums(address, buf.len() / sector)?;
        let read = self.read_address(address, buf);
        // What is not mirrored cannot be had from elsewhere.
        if read.is_err() && sums.iter().all(Option::is_none) {
            return read;
        }
        let right = read.is_ok();
        for (number, (target, sum)) in buf.chunks_exact_mut(sector).zip(&sums).enumerate() {
            let at = address + (number * sector) as u64;
            if right && sum.is_none_or(|sum| sum == !crc32c(!0, target)) {
                continue;
            }
            match sum {
                Some(sum) if self.read_right_copy(at, target, *sum)? => {}
                Some(_) => return Err(wrong(at)),
                None => self.read_address(at, target)?,
            }
        }
        Ok(())
    }

    /// Reads a sector from that of its copies that has the checksum; whether there is one.
    fn read_right_copy(&self, address: u64, buf: &mut [u8], sum: u32) -> Result<bool> {
        let mut trouble = None;
        for place in self.chunks.find(address)? {
            if place.len < buf.len() as u64 {
                continue;
            }
            match self.read_place(place, buf) {
                Ok(()) if !crc32c(!0, buf) == sum => return Ok(true),
                Ok(()) => {}
                Err(error) => trouble = Some(error),
            }
        }
        trouble.map_or(Ok(false), Err)
    }

    /// The checksums of so many sectors.
    fn sums(&self, address: u64, count: usize) -> Result<Vec<Option<u32>>> {
        let sector = u64::from(self.superblock.sector_size);
        let mut sums = vec![None; count];
        let end = address.saturating_add(count as u64 * sector);
        let mut take = |start: u64, item: &[u8]| {
            let skip = address.saturating_sub(start) / sector;
            let first = start.saturating_sub(address) / sector;
            let from = usize::try_from(skip * 4).ok().and_then(|skip| item.get(skip..)).unwrap_or_default();
            let target = usize::try_from(first).ok().and_then(|first| sums.get_mut(first..)).unwrap_or_default();
            for (target, sum) in target.iter_mut().zip(from.chunks_exact(4)) {
                *target = le_u32(sum, 0);
            }
        };
        if let Some(tree) = self.sums.tree {
            self.stored_each_around(tree, Key::new(SUMS, SUM_ITEM, address), |key, item| {
                let is_after = key > Key::new(SUMS, SUM_ITEM, end);
                if !is_after && (key.object, key.kind) == (SUMS, SUM_ITEM) {
                    take(key.offset, item);
                }
                Ok(!is_after)
            })?;
        }
        let logged = &self.sums.logged;
        let first = logged.range(..=address).next_back().map_or(address, |(start, _)| *start);
        logged.range(first..end).for_each(|(start, item)| take(*start, item));
        Ok(sums)
    }
}

/// The tree of checksums, and under what it and logs keep them.
const SUM_TREE: u64 = 7;
pub(super) const SUMS: u64 = 10_u64.wrapping_neg();
pub(super) const SUM_ITEM: u8 = 128;
/// Bytes that are read and compared at once, for which checksums are held.
const AT_ONCE: usize = 4 << 20;
