//! Where the blocks of a file lie: the trees of extents of ext4 and the maps of blocks of ext2 and ext3.
//! `Documentation/filesystems/ext4/ifork.rst`.

use super::{
    Ext,
    inode::{Inode, flag},
};
use crate::{
    bytes::{le_u16, le_u32},
    error::Result,
    fs::{checksum::crc32c, parts::partition},
};

/// Blocks of a file side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// How many, from the one that was asked for on; at least 1.
    pub(super) len: u64,
    /// Where they lie.
    pub(super) kind: RunKind,
}

/// Where blocks lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunKind {
    /// Nowhere.
    Hole,
    /// Set aside, not written.
    Unwritten,
    /// From this block of the volume on.
    At(u64),
}

impl Ext {
    /// Where block `logical` of a file lies, and those after it that lie side by side with it.
    pub(super) fn run(&self, inode: &Inode, logical: u64) -> Result<Run> {
        let run = if inode.has(flag::EXTENTS) {
            self.run_in_extents(inode, logical)?
        } else {
            self.run_in_map(inode, logical)?
        };
        if let RunKind::At(start) = run.kind
            && (start == 0 || start.checked_add(run.len).is_none_or(|end| end > self.superblock.blocks))
        {
            return Err(inode.damaged(format!("its blocks from {logical} on are at {start}, {} of them", run.len)));
        }
        Ok(run)
    }

    fn run_in_extents(&self, inode: &Inode, logical: u64) -> Result<Run> {
        let Ok(wanted) = u32::try_from(logical) else {
            return Ok(Run { len: u64::MAX - logical, kind: RunKind::Hole });
        };
        let mut node = inode.block.to_vec();
        // Where the part of the file ends of which this node knows.
        let mut bound = 1_u64 << 32;
        let mut above = None;
        loop {
            let header = Header::parse(&node).ok_or_else(|| inode.damaged("a node of its extents is none"))?;
            if above.is_some_and(|above| above != header.depth + 1) || header.depth > MAX_DEPTH {
                return Err(inode.damaged(format!("a node of its extents has depth {}", header.depth)));
            }
            let start_of = |index: usize| le_u32(&node, 12 + 12 * index).unwrap_or(u32::MAX);
            let below = partition(header.entries, |index| start_of(index) <= wanted);
            let next = (below < header.entries).then(|| u64::from(start_of(below)));
            bound = next.map_or(bound, |next| next.min(bound));
            let Some(found) = below.checked_sub(1) else {
                return Ok(Run { len: (bound - logical).max(1), kind: RunKind::Hole });
            };
            let entry = node.get(12 + 12 * found..24 + 12 * found).unwrap_or_default();
            if header.depth == 0 {
                return Self::leaf(entry, logical, bound).ok_or_else(|| inode.damaged("an extent is none"));
            }
            let child = le_u32(entry, 4).zip(le_u16(entry, 8));
            let child = child.map_or(0, |(low, high)| u64::from(low) | u64::from(high) << 32);
            node = self.block(child).map_err(|error| match error {
                None => inode.damaged(format!("a node of its extents is in block {child}")),
                Some(error) => error,
            })?;
            self.check_extents(inode, &node, child)?;
            above = Some(header.depth);
        }
    }

    fn leaf(entry: &[u8], logical: u64, bound: u64) -> Option<Run> {
        let start = u64::from(le_u32(entry, 0)?);
        let written = le_u16(entry, 4)?;
        let place = u64::from(le_u16(entry, 6)?) << 32 | u64::from(le_u32(entry, 8)?);
        let (len, unwritten) = if written > 32768 { (written - 32768, true) } else { (written, false) };
        let skip = logical - start;
        if len == 0 || start + u64::from(len) > bound {
            return None;
        }
        Some(match u64::from(len).checked_sub(skip).filter(|left| *left > 0) {
            None => Run { len: (bound - logical).max(1), kind: RunKind::Hole },
            Some(left) if unwritten => Run { len: left, kind: RunKind::Unwritten },
            Some(left) => Run { len: left, kind: RunKind::At(if place == 0 { 0 } else { place + skip }) },
        })
    }

    fn check_extents(&self, inode: &Inode, node: &[u8], block: u64) -> Result<()> {
        let Some(seed) = inode.checksum_seed else { return Ok(()) };
        let tail = 12 + 12 * usize::from(le_u16(node, 4).unwrap_or_default());
        let stored = le_u32(node, tail);
        if node.get(..tail).map(|bytes| crc32c(seed, bytes)) != stored {
            return Err(inode.damaged(format!("the checksum of its extents in block {block} is wrong")));
        }
        Ok(())
    }

    fn run_in_map(&self, inode: &Inode, logical: u64) -> Result<Run> {
        if logical < DIRECT {
            return Ok(same(&inode.block[..4 * DIRECT as usize], logical as usize));
        }
        let per_block = u64::from(self.superblock.block_size) / 4;
        let mut rest = logical - DIRECT;
        // What one pointer of the level stands for.
        let mut span = 1;
        for level in 0..3_usize {
            let whole = span * per_block;
            if rest < whole {
                let mut pointer = le_u32(&inode.block, 4 * (DIRECT as usize + level)).unwrap_or_default();
                let mut of = whole;
                loop {
                    if pointer == 0 {
                        return Ok(Run { len: of - rest % of, kind: RunKind::Hole });
                    }
                    let node = self.block(u64::from(pointer)).map_err(|error| match error {
                        None => inode.damaged(format!("a part of its map is in block {pointer}")),
                        Some(error) => error,
                    })?;
                    of /= per_block;
                    let index = (rest / of % per_block) as usize;
                    if of == 1 {
                        return Ok(same(&node, index));
                    }
                    pointer = le_u32(&node, 4 * index).unwrap_or_default();
                }
            }
            rest -= whole;
            span = whole;
        }
        Ok(Run { len: u64::MAX - logical, kind: RunKind::Hole })
    }
}

/// The pointer at `index` and those after it that go on from it.
fn same(pointers: &[u8], index: usize) -> Run {
    let at = |index: usize| le_u32(pointers, 4 * index);
    let first = at(index).unwrap_or_default();
    let goes_on = |len: u32| at(index + len as usize) == Some(if first == 0 { 0 } else { first.wrapping_add(len) });
    let len = (1..).find(|len| !goes_on(*len)).unwrap_or(1);
    let kind = if first == 0 { RunKind::Hole } else { RunKind::At(u64::from(first)) };
    Run { len: u64::from(len), kind }
}

/// What stands before the entries of a node of extents.
struct Header {
    entries: usize,
    depth: u16,
}

impl Header {
    fn parse(node: &[u8]) -> Option<Self> {
        let entries = usize::from(le_u16(node, 2)?);
        let fits = (node.len() - 12) / 12;
        let right = le_u16(node, 0)? == EXTENT_MAGIC && entries <= fits && usize::from(le_u16(node, 4)?) <= fits;
        right.then_some(Self { entries, depth: le_u16(node, 6)? })
    }
}

const EXTENT_MAGIC: u16 = 0xf30a;
const MAX_DEPTH: u16 = 5;
/// Pointers to blocks of data in the inode itself.
const DIRECT: u64 = 12;
