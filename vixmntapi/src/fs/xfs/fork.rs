//! Where the blocks of a fork lie: lists and trees of extents.
//! "XFS Algorithms & Data Structures", chapter "Data Extents".

use super::{
    Xfs,
    inode::{Fork, Form, Inode},
};
use crate::{
    bytes::{be_u16, be_u32, be_u64, slice},
    error::Result,
    fs::parts::{Part, Place},
};

impl Xfs {
    /// Where a byte of a fork lies, and those after it.
    pub(super) fn part(&self, inode: &Inode, fork: Fork, at: u64) -> Result<Part> {
        let size = u64::from(self.superblock.block_size);
        let run = self.run(inode, fork, at / size)?;
        let place = match run.start {
            None => Place::Hole,
            Some(_) if run.unwritten => Place::Unwritten,
            Some(start) => {
                let place = self.superblock.place(start, run.len);
                let wrong = || inode.damaged(format!("{} blocks from block {start} on are not there", run.len));
                Place::At(place.ok_or_else(wrong)? + at % size)
            }
        };
        Ok(Part { len: run.len.saturating_mul(size) - at % size, place })
    }

    /// Fills `buf` with the bytes of a fork.
    pub(super) fn read_fork(&self, inode: &Inode, fork: Fork, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.volume.read(offset, buf, |at| self.part(inode, fork, at))
    }

    /// Where a block of a fork lies, and those after it.
    fn run(&self, inode: &Inode, fork: Fork, logical: u64) -> Result<Run> {
        let raw = inode.fork(fork);
        match inode.form(fork) {
            Form::Extents => {
                let count = usize::try_from(inode.extents(fork)).ok();
                let records = count.and_then(|count| slice(raw, 0, count.checked_mul(RECORD)?));
                let records = records.ok_or_else(|| inode.damaged("its extents do not fit"))?;
                Run::find(records, logical, u64::MAX).ok_or_else(|| inode.damaged("an extent is none"))
            }
            Form::Tree => self.run_in_tree(inode, raw, logical),
            _ => Err(inode.damaged("it has no extents")),
        }
    }

    fn run_in_tree(&self, inode: &Inode, root: &[u8], logical: u64) -> Result<Run> {
        let wrong = || inode.damaged("a node of its extents is none");
        let level = be_u16(root, 0).ok_or_else(wrong)?;
        if level == 0 || level > MAX_LEVEL {
            return Err(inode.damaged(format!("its tree of extents has {level} levels")));
        }
        let mut bound = u64::MAX;
        let mut node =
            Node { keys: root.get(4..).ok_or_else(wrong)?.to_vec(), count: be_u16(root, 2).ok_or_else(wrong)? };
        for level in (0..level).rev() {
            let (child, next) = node.child(logical).ok_or_else(wrong)?;
            bound = next.map_or(bound, |next| next.min(bound));
            let Some(child) = child else {
                return Ok(Run { len: bound.saturating_sub(logical).max(1), start: None, unwritten: false });
            };
            node = self.node(inode, child, level)?;
        }
        let records = slice(&node.keys, 0, usize::from(node.count) * RECORD).ok_or_else(wrong)?;
        Run::find(records, logical, bound).ok_or_else(wrong)
    }

    fn node(&self, inode: &Inode, number: u64, level: u16) -> Result<Node> {
        let wrong = || inode.damaged(format!("a node of its extents is in block {number}"));
        let place = self.superblock.place(number, 1).ok_or_else(wrong)?;
        let v5 = self.superblock.v5;
        let raw = self.volume.read_checked(place, self.superblock.block_size as usize, v5.then_some(TREE_CRC));
        let mut raw = raw.map_err(|error| error.of(&format!("a node of the extents of XFS inode {}", inode.number)))?;
        let magic = if v5 { TREE_MAGIC_V5 } else { TREE_MAGIC };
        let owner = if v5 { be_u64(&raw, 56) } else { Some(inode.number) };
        if be_u32(&raw, 0) != Some(magic) || be_u16(&raw, 4) != Some(level) || owner != Some(inode.number) {
            return Err(wrong());
        }
        let count = be_u16(&raw, 6).ok_or_else(wrong)?;
        raw.drain(..if v5 { TREE_HEADER_V5 } else { TREE_HEADER });
        Ok(Node { keys: raw, count })
    }
}

/// Blocks of a fork side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// How many, from the one that was asked for on; at least 1.
    len: u64,
    /// Where they begin, if anywhere.
    start: Option<u64>,
    unwritten: bool,
}

impl Run {
    /// The part of `records` with a block; no block from `bound` on is theirs to know of.
    fn find(records: &[u8], logical: u64, bound: u64) -> Option<Self> {
        let (records, _) = records.as_chunks::<RECORD>();
        let hole = |end: u64| Some(Self { len: end.checked_sub(logical)?.max(1), start: None, unwritten: false });
        let after = records.partition_point(|record| Extent::parse(record).first <= logical);
        let next = records.get(after).map_or(bound, |record| Extent::parse(record).first.min(bound));
        let Some(found) = after.checked_sub(1).and_then(|index| records.get(index)) else { return hole(next) };
        let extent = Extent::parse(found);
        let skip = logical.checked_sub(extent.first)?;
        match extent.count.checked_sub(skip) {
            // Extents that lie over each other would be read twice.
            Some(left) if left > 0 && logical.checked_add(left)? <= next => {
                Some(Self { len: left, start: Some(extent.start + skip), unwritten: extent.unwritten })
            }
            Some(left) if left > 0 => None,
            _ => hole(next),
        }
    }
}

/// An extent as it is packed.
struct Extent {
    first: u64,
    start: u64,
    count: u64,
    unwritten: bool,
}

impl Extent {
    fn parse(record: &[u8; RECORD]) -> Self {
        let packed = u128::from_be_bytes(*record);
        Self {
            unwritten: packed >> 127 != 0,
            first: (packed >> 73) as u64 & ((1 << 54) - 1),
            start: (packed >> 21) as u64 & ((1 << 52) - 1),
            count: packed as u64 & ((1 << 21) - 1),
        }
    }
}

/// A node of a tree of extents: keys or extents, and behind the room for all keys the blocks that they stand for.
struct Node {
    keys: Vec<u8>,
    count: u16,
}

impl Node {
    /// The child in which a block is, if any is there, and the first block of the child after that.
    fn child(&self, logical: u64) -> Option<(Option<u64>, Option<u64>)> {
        let room = self.keys.len() / 16;
        let count = usize::from(self.count);
        let keys = slice(&self.keys, 0, count * 8).filter(|_| count > 0 && count <= room)?;
        let (keys, _) = keys.as_chunks::<8>();
        let after = keys.partition_point(|key| u64::from_be_bytes(*key) <= logical);
        let next = keys.get(after).map(|key| u64::from_be_bytes(*key));
        let child = match after.checked_sub(1) {
            None => None,
            Some(index) => Some(be_u64(&self.keys, room * 8 + index * 8)?),
        };
        Some((child, next))
    }
}

/// Bytes of an extent.
const RECORD: usize = 16;
/// `BMAP` and `BMA3`
const TREE_MAGIC: u32 = 0x424d_4150;
const TREE_MAGIC_V5: u32 = 0x424d_4133;
const TREE_CRC: usize = 64;
/// Bytes before the keys of a node.
pub(super) const TREE_HEADER: usize = 24;
pub(super) const TREE_HEADER_V5: usize = 72;
/// The kernel's `XFS_BTREE_MAXLEVELS`.
const MAX_LEVEL: u16 = 9;
