//! Indexes: B-trees of directories, and of descriptors in `$Secure`.

use std::{cmp::Ordering, collections::HashSet};

use super::{
    attribute::kind,
    mft::{Body, File, Mft, describe},
    plain::Plain,
    record::{Reference, fix_up},
};
use crate::{
    bytes::{le_u16, le_u32, le_u64},
    error::{Error, Result},
};

/// A place in an index, from which entries are read on in their order.
#[derive(Debug)]
pub(super) struct Cursor {
    allocation: Option<Plain>,
    /// Bytes of a block.
    block: usize,
    /// Bytes of what blocks are numbered in.
    unit: u64,
    /// From the root down.
    nodes: Vec<Node>,
    /// Blocks that were entered; one that comes again makes a circle.
    seen: HashSet<u64>,
    what: String,
}

/// A node, and the entry that comes next.
#[derive(Debug)]
struct Node {
    bytes: Vec<u8>,
    at: usize,
    /// Whether what is below the next entry was read.
    below: bool,
}

/// An entry.
#[derive(Debug)]
pub(super) struct IndexEntry {
    /// The file, in a directory.
    pub(super) reference: Reference,
    pub(super) key: Vec<u8>,
    /// The data, in other indexes.
    pub(super) data: Vec<u8>,
}

/// An entry in its node.
struct RawEntry<'a> {
    bytes: &'a [u8],
    key: &'a [u8],
    child: Option<u64>,
    last: bool,
}

impl Cursor {
    /// Opens an index of a file, before its first entry; `None` when there is none of this name.
    pub(super) fn open(mft: &Mft, file: &File, name: &str) -> Result<Option<Self>> {
        let name: Vec<u16> = name.encode_utf16().collect();
        let number = file.base.number();
        let Some(root) = mft.attribute(file, kind::INDEX_ROOT, &name)? else { return Ok(None) };
        let what = describe(number, kind::INDEX_ROOT, &name);
        let Body::Resident(root) = root.body else {
            return Err(Error::damaged(what, "its root is not resident"));
        };
        let allocation = match mft.attribute(file, kind::INDEX_ALLOCATION, &name)?.map(|found| found.body) {
            None => None,
            Some(Body::Mapped(plain, _)) => Some(plain),
            Some(Body::Resident(_)) => return Err(Error::damaged(what, "its allocation is resident")),
        };
        let block = le_u32(&root, 8).unwrap_or(0);
        if !block.is_power_of_two() || !(512..=LARGEST_BLOCK).contains(&block) {
            return Err(Error::damaged(what, format!("blocks of {block} bytes")));
        }
        let unit = match &allocation {
            // Blocks smaller than a cluster are numbered by 512 bytes.
            Some(plain) if plain.volume.cluster <= u64::from(block) => plain.volume.cluster,
            _ => SMALL_UNIT,
        };
        let root = Node::new(root, ROOT_HEADER).ok_or_else(|| Error::damaged(&what, "its root contradicts itself"))?;
        Ok(Some(Self { allocation, block: block as usize, unit, nodes: vec![root], seen: HashSet::new(), what }))
    }

    /// Goes to the first entry that is not less than what is sought; `order` compares a key with that.
    pub(super) fn seek(&mut self, order: impl Fn(&[u8]) -> Option<Ordering>) -> Result<()> {
        while let Some(node) = self.nodes.last_mut() {
            let child = loop {
                let damaged = || Error::damaged(&self.what, "an entry contradicts itself");
                let entry = node.entry().ok_or_else(damaged)?;
                if entry.last || order(entry.key).ok_or_else(damaged)? != Ordering::Less {
                    break entry.child;
                }
                node.at += entry.bytes.len();
            };
            let Some(child) = child else { break };
            node.below = true;
            self.enter(child)?;
        }
        Ok(())
    }

    /// The next entry.
    pub(super) fn next(&mut self) -> Result<Option<IndexEntry>> {
        while let Some(node) = self.nodes.last_mut() {
            let damaged = || Error::damaged(&self.what, "an entry contradicts itself");
            let entry = node.entry().ok_or_else(damaged)?;
            if let (Some(child), false) = (entry.child, node.below) {
                node.below = true;
                self.enter(child)?;
                continue;
            }
            if entry.last {
                self.nodes.pop();
                continue;
            }
            let found = entry.owned().ok_or_else(damaged)?;
            node.at += entry.bytes.len();
            node.below = false;
            return Ok(Some(found));
        }
        Ok(None)
    }

    fn enter(&mut self, number: u64) -> Result<()> {
        let what = || format!("block {number} of {}", self.what);
        let Some(allocation) = &self.allocation else {
            return Err(Error::damaged(what(), "there are no blocks"));
        };
        if self.nodes.len() >= DEEPEST || !self.seen.insert(number) {
            return Err(Error::damaged(what(), "the tree leads back to it, or is too deep"));
        }
        let at = number.checked_mul(self.unit).ok_or_else(|| Error::damaged(what(), "no such block"))?;
        let mut bytes = vec![0; self.block];
        allocation.fill(at, &mut bytes)?;
        if bytes.first_chunk() != Some(b"INDX") {
            return Err(Error::damaged(what(), "it has no signature"));
        }
        fix_up(&mut bytes, what)?;
        if le_u64(&bytes, 0x10) != Some(number) {
            return Err(Error::damaged(what(), format!("it is block {:?}", le_u64(&bytes, 0x10))));
        }
        let node =
            Node::new(bytes, BLOCK_HEADER).ok_or_else(|| Error::damaged(what(), "its header contradicts itself"))?;
        self.nodes.push(node);
        Ok(())
    }
}

impl Node {
    /// Takes a node whose header is at `header`.
    fn new(mut bytes: Vec<u8>, header: usize) -> Option<Self> {
        let first = le_u32(&bytes, header)? as usize;
        let used = le_u32(&bytes, header + 4)? as usize;
        let end = header.checked_add(used).filter(|end| *end <= bytes.len())?;
        bytes.truncate(end);
        Some(Self { bytes, at: header.checked_add(first)?, below: false })
    }

    fn entry(&self) -> Option<RawEntry<'_>> {
        let bytes = self.bytes.get(self.at..)?;
        let len = usize::from(le_u16(bytes, 8)?);
        let bytes = bytes.get(..len)?;
        let flags = le_u16(bytes, 0xc)?;
        let child = match flags & HAS_CHILD {
            0 => None,
            _ => Some(le_u64(bytes, len.checked_sub(8).filter(|at| *at >= KEY)?)?),
        };
        let last = flags & LAST != 0;
        let key = if last { &[][..] } else { bytes.get(KEY..KEY + usize::from(le_u16(bytes, 0xa)?))? };
        Some(RawEntry { bytes, key, child, last }).filter(|_| len >= KEY)
    }
}

impl RawEntry<'_> {
    fn owned(&self) -> Option<IndexEntry> {
        let reference = Reference(le_u64(self.bytes, 0)?);
        // In a directory, these bytes are the reference.
        let at = usize::from(le_u16(self.bytes, 0)?);
        let data = self.bytes.get(at..at + usize::from(le_u16(self.bytes, 2)?)).unwrap_or_default().to_vec();
        Some(IndexEntry { reference, key: self.key.to_vec(), data })
    }
}

/// Where the header of a node is, in the root and in a block.
const ROOT_HEADER: usize = 0x10;
const BLOCK_HEADER: usize = 0x18;
/// Where the key of an entry is.
const KEY: usize = 0x10;
const HAS_CHILD: u16 = 1;
const LAST: u16 = 2;
const SMALL_UNIT: u64 = 512;
const LARGEST_BLOCK: u32 = 64 << 10;
/// A directory of 2^32 files has 8 levels at most.
const DEEPEST: usize = 32;
