//! Chunks: where the addresses of a file system lie on its devices.

use std::collections::BTreeMap;

use super::tree::{KEY, Key};
use crate::{
    bytes::{le_u16, le_u64},
    error::{Error, Result},
};

/// All chunks by their first address.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunks(BTreeMap<u64, Chunk>);

#[derive(Clone, Debug)]
struct Chunk {
    len: u64,
    kind: u64,
    stripe_len: u64,
    /// Stripes that hold the same, in RAID 10.
    copies: usize,
    /// Device and place of each.
    stripes: Vec<(u64, u64)>,
}

/// Where bytes side by side lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) device: u64,
    pub(super) at: u64,
    /// How many, at least 1.
    pub(super) len: u64,
}

impl Chunks {
    /// From the superblock, in which keys and chunks follow each other.
    pub(super) fn of_array(array: &[u8]) -> Result<Self> {
        let mut chunks = Self::default();
        let mut rest = array;
        while !rest.is_empty() {
            let parsed = || {
                let (key, item) = rest.split_at_checked(KEY)?;
                let len = 48 + 32 * usize::from(le_u16(item, 44)?);
                Some((Key::parse(key)?, item.get(..len)?, item.get(len..)?))
            };
            let (key, item, after) = parsed().ok_or_else(|| damaged(0, "it ends early"))?;
            chunks.add(key.offset, item)?;
            rest = after;
        }
        Ok(chunks)
    }

    /// Adds an item of the tree of chunks.
    pub(super) fn add(&mut self, start: u64, item: &[u8]) -> Result<()> {
        let number = |at| le_u64(item, at).ok_or_else(|| damaged(start, "it ends early"));
        let short = |at| le_u16(item, at).map(usize::from).unwrap_or_default();
        let chunk = Chunk {
            len: number(0)?,
            stripe_len: number(16)?,
            kind: number(24)?,
            copies: short(46).max(1),
            stripes: (0..short(44))
                .map(|index| Ok((number(48 + 32 * index)?, number(56 + 32 * index)?)))
                .collect::<Result<_>>()?,
        };
        let striped = chunk.kind & (RAID0 | RAID10) != 0;
        let even = chunk.kind & RAID10 == 0 || chunk.stripes.len().is_multiple_of(chunk.copies);
        if chunk.len == 0
            || start.checked_add(chunk.len).is_none()
            || chunk.stripes.is_empty()
            || !even
            || (striped && chunk.stripe_len == 0)
            || chunk.stripes.iter().any(|(_, at)| at.checked_add(chunk.len).is_none())
        {
            return Err(damaged(start, "it contradicts itself"));
        }
        self.0.insert(start, chunk);
        Ok(())
    }

    /// All places of the bytes from an address on.
    pub(super) fn find(&self, address: u64) -> Result<Vec<Place>> {
        let found = self.0.range(..=address).next_back();
        let found = found.filter(|(start, chunk)| address - **start < chunk.len);
        let (start, chunk) = found.ok_or_else(|| damaged(address, "there is none for this address"))?;
        let offset = address - start;
        if chunk.kind & (RAID5 | RAID6) != 0 {
            return Err(Error::unsupported("this Btrfs", "it has chunks with parity (RAID 5 or 6)"));
        }
        let left = chunk.len - offset;
        if chunk.kind & (RAID0 | RAID10) == 0 {
            let place = |(device, at): &(u64, u64)| Place { device: *device, at: at + offset, len: left };
            return Ok(chunk.stripes.iter().map(place).collect());
        }
        let copies = if chunk.kind & RAID10 != 0 { chunk.copies } else { 1 };
        let columns = (chunk.stripes.len() / copies).max(1) as u64;
        let (number, within) = (offset / chunk.stripe_len, offset % chunk.stripe_len);
        let first = (number % columns) as usize * copies;
        let row = number / columns * chunk.stripe_len + within;
        let stripes = chunk.stripes.get(first..first + copies).unwrap_or_default();
        let len = left.min(chunk.stripe_len - within);
        Ok(stripes.iter().map(|(device, at)| Place { device: *device, at: at + row, len }).collect())
    }
}

fn damaged(address: u64, problem: &str) -> Error {
    Error::damaged(format!("the Btrfs chunk at {address}"), problem)
}

const RAID0: u64 = 0x8;
const RAID10: u64 = 0x40;
const RAID5: u64 = 0x80;
const RAID6: u64 = 0x100;

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(kind: u64, copies: u16, stripes: &[(u64, u64)]) -> Vec<u8> {
        let mut item = Vec::new();
        for number in [1 << 20, 2, 64 << 10, kind] {
            item.extend(u64::to_le_bytes(number));
        }
        item.extend([0; 12]);
        item.extend((stripes.len() as u16).to_le_bytes());
        item.extend(copies.to_le_bytes());
        for (device, at) in stripes {
            item.extend(device.to_le_bytes());
            item.extend(at.to_le_bytes());
            item.extend([0; 16]);
        }
        item
    }

    #[test]
    fn stripes_and_copies_lie_where_the_kernel_puts_them() {
        let mut chunks = Chunks::default();
        let k64 = 64 << 10;
        chunks.add(0, &chunk(1 | 0x10, 1, &[(1, 5000), (2, 9000)])).unwrap();
        chunks.add(1 << 20, &chunk(1 | RAID0, 1, &[(1, 0), (2, 0)])).unwrap();
        chunks.add(2 << 20, &chunk(1 | RAID10, 2, &[(1, 0), (2, 0), (3, 0), (4, 0)])).unwrap();
        chunks.add(3 << 20, &chunk(1 | RAID5, 1, &[(1, 0), (2, 0), (3, 0)])).unwrap();
        let at =
            |address| chunks.find(address).unwrap().iter().map(|place| (place.device, place.at)).collect::<Vec<_>>();
        assert_eq!(at(100), [(1, 5100), (2, 9100)]);
        assert_eq!(at((1 << 20) + 3 * k64 + 7), [(2, k64 + 7)]);
        assert_eq!(at((2 << 20) + 2 * k64), [(1, k64), (2, k64)]);
        assert_eq!(at((2 << 20) + k64 + 1), [(3, 1), (4, 1)]);
        assert_eq!(chunks.find((1 << 20) + 7).unwrap()[0].len, k64 - 7);
        assert!(matches!(chunks.find(3 << 20), Err(Error::Unsupported { .. })));
        assert!(matches!(chunks.find(4 << 20), Err(Error::Damaged { .. })));
    }
}
