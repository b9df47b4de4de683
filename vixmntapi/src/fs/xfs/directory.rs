//! Directories: short ones in their inode, others in blocks of entries, with an index of hashes at their end or behind
//! them. "XFS Algorithms & Data Structures", chapter "Directories".

use std::sync::Arc;

use super::{
    Xfs,
    inode::{Fork, Form, Inode},
    node,
};
use crate::{
    bytes::{be_u16, be_u32, be_u64, slice, u8_at},
    error::{Error, Result},
    fs::{Entries, Entry, FileKind, FileName, NodeId, listing::batches, parts::Place},
};

/// An entry as it is stored.
struct Raw<'a> {
    name: &'a [u8],
    inode: u64,
    kind: u8,
}

impl Raw<'_> {
    fn to_entry(&self) -> Entry {
        Entry::new(FileName::from(self.name), node(self.inode), FileKind::from_directory(self.kind))
    }
}

impl Xfs {
    /// Lists a directory, a block at a time.
    pub(super) fn list(self: Arc<Self>, directory: Inode) -> Entries {
        let mut at = 0;
        batches(move |ready| {
            if directory.form(Fork::Data) == Form::Local {
                self.each_short(&directory, |entry| {
                    ready.push_back(entry.to_entry());
                    true
                })?;
                return Ok(false);
            }
            let Some((place, block)) = self.next_block(&directory, at)? else { return Ok(false) };
            at = place + block.len() as u64;
            self.each_in(&directory, &block, |_, entry| {
                ready.push_back(entry.to_entry());
                true
            })?;
            Ok(true)
        })
    }

    /// Finds a name in a directory.
    pub(super) fn find(&self, directory: &Inode, name: &[u8]) -> Result<Option<NodeId>> {
        if matches!(name, b"" | b"." | b"..") {
            return Ok(None);
        }
        let mut found = None;
        let mut choose = |entry: Raw<'_>| {
            let folded = self.superblock.folds_case && entry.name.eq_ignore_ascii_case(name);
            if entry.name == name || (folded && found.is_none()) {
                found = Some(node(entry.inode));
            }
            entry.name != name
        };
        if directory.form(Fork::Data) == Form::Local {
            self.each_short(directory, choose)?;
            return Ok(found);
        }
        if self.superblock.folds_case {
            let mut at = 0;
            while let Some((place, block)) = self.next_block(directory, at)? {
                at = place + block.len() as u64;
                self.each_in(directory, &block, |_, entry| choose(entry))?;
            }
            return Ok(found);
        }
        for address in self.addresses(directory, hash(name))? {
            let size = u64::from(self.superblock.directory_block);
            let block = self.directory_block(directory, address / size * size, DATA_CRC)?;
            let mut here = None;
            self.each_in(directory, &block, |at, entry| {
                if at as u64 == address % size && entry.name == name {
                    here = Some(node(entry.inode));
                }
                here.is_none()
            })?;
            if here.is_some() {
                return Ok(here);
            }
        }
        Ok(None)
    }

    /// Where entries of a hash lie, in bytes of the directory.
    fn addresses(&self, directory: &Inode, hash: u32) -> Result<Vec<u64>> {
        let wrong = || directory.damaged("the index of the directory is none");
        if directory.size == u64::from(self.superblock.directory_block) {
            let block = self.directory_block(directory, 0, DATA_CRC)?;
            // Else its index has a block of its own.
            if let Some((table, count)) = self.table_of_block(&block) {
                return Ok(pick(slice(&block, table, count * 8).ok_or_else(wrong)?, hash));
            }
        }
        let span = self.superblock.directory_span();
        let mut number = LEAF_PLACE / u64::from(self.superblock.block_size);
        let (count_at, entries_at) = if self.superblock.v5 { (56, 64) } else { (12, 16) };
        let mut found = Vec::new();
        // Down through the nodes, then along the leaves while the hash goes on in the next.
        for step in 0..MOST_NODES {
            let block = self.directory_block(directory, number * u64::from(self.superblock.block_size), LEAF_CRC)?;
            let count = usize::from(be_u16(&block, count_at).ok_or_else(wrong)?);
            let table = slice(&block, entries_at, count * 8).ok_or_else(wrong)?;
            match be_u16(&block, 8) {
                Some(NODE_MAGIC | NODE_MAGIC_V5) if step < MAX_DEPTH && found.is_empty() => {
                    let (pairs, _) = table.as_chunks::<8>();
                    let index = pairs.partition_point(|pair| be_u32(pair, 0) < Some(hash));
                    let Some(pair) = pairs.get(index) else { return Ok(found) };
                    number = be_u32(pair, 4).ok_or_else(wrong)?.into();
                }
                Some(LEAF1_MAGIC | LEAF1_MAGIC_V5 | LEAFN_MAGIC | LEAFN_MAGIC_V5) => {
                    found.extend(pick(table, hash));
                    let last = table.len().checked_sub(8).and_then(|last| be_u32(table, last));
                    let next = be_u32(&block, 0).ok_or_else(wrong)?;
                    if last != Some(hash) || next == 0 {
                        return Ok(found);
                    }
                    number = next.into();
                }
                _ => return Err(wrong()),
            }
            if !number.is_multiple_of(span) {
                return Err(wrong());
            }
        }
        Err(wrong())
    }

    /// The next block of entries that is there from byte `at` of a directory on, and where it is.
    fn next_block(&self, directory: &Inode, mut at: u64) -> Result<Option<(u64, Vec<u8>)>> {
        let size = u64::from(self.superblock.directory_block);
        while at < LEAF_PLACE {
            let part = self.part(directory, Fork::Data, at)?;
            if part.place != Place::Hole {
                return Ok(Some((at, self.directory_block(directory, at, DATA_CRC)?)));
            }
            at = at.saturating_add(part.len).checked_next_multiple_of(size).unwrap_or(LEAF_PLACE);
        }
        Ok(None)
    }

    fn directory_block(&self, directory: &Inode, at: u64, crc: usize) -> Result<Vec<u8>> {
        let len = self.superblock.directory_block as usize;
        let part = self.part(directory, Fork::Data, at)?;
        let what = || format!("the block at byte {at} of the directory with XFS inode {}", directory.number);
        let Place::At(place) = part.place else { return Err(Error::damaged(what(), "it is missing")) };
        if part.len >= len as u64 {
            let crc = self.superblock.v5.then_some(crc);
            let block = self.volume.read_checked(place, len, crc).map_err(|error| error.of(&what()))?;
            let owner = if crc == Some(DATA_CRC) { 40 } else { 48 };
            if crc.is_some() && be_u64(&block, owner) != Some(directory.number) {
                return Err(Error::damaged(what(), "it belongs to something else"));
            }
            return Ok(block);
        }
        // A block in pieces; its checksum is left alone.
        let mut block = vec![0; len];
        self.read_fork(directory, Fork::Data, at, &mut block)?;
        Ok(block)
    }

    /// The index at the end of a directory's only block: where it begins, and how many hashes it has.
    fn table_of_block(&self, block: &[u8]) -> Option<(usize, usize)> {
        if !matches!(be_u32(block, 0), Some(BLOCK_MAGIC | BLOCK_MAGIC_V5)) {
            return None;
        }
        let tail = block.len().checked_sub(8)?;
        let count = be_u32(block, tail)? as usize;
        Some((tail.checked_sub(count.checked_mul(8)?)?, count))
    }

    /// Goes through the entries of a block, until `take` says no; it gets their places in the block.
    fn each_in(&self, directory: &Inode, block: &[u8], mut take: impl FnMut(usize, Raw<'_>) -> bool) -> Result<()> {
        let wrong = || directory.damaged("a block of the directory is none");
        let end = match be_u32(block, 0) {
            Some(DATA_MAGIC | DATA_MAGIC_V5) => block.len(),
            _ => self.table_of_block(block).ok_or_else(wrong)?.0,
        };
        let mut at = if self.superblock.v5 { 64 } else { 16 };
        while at < end {
            let len = if be_u16(block, at) == Some(FREE) {
                usize::from(be_u16(block, at + 2).ok_or_else(wrong)?)
            } else {
                let (entry, len) = self.entry(block, at).filter(|(_, len)| at + len <= end).ok_or_else(wrong)?;
                if !matches!(entry.name, b"." | b"..") && !take(at, entry) {
                    return Ok(());
                }
                len
            };
            if len < 8 || len % 8 != 0 {
                return Err(wrong());
            }
            at += len;
        }
        Ok(())
    }

    fn entry<'a>(&self, block: &'a [u8], at: usize) -> Option<(Raw<'a>, usize)> {
        let len = usize::from(u8_at(block, at + 8)?);
        let name = slice(block, at + 9, len).filter(|name| !name.is_empty())?;
        let kind = if self.superblock.kinds { u8_at(block, at + 9 + len)? } else { 0 };
        let raw = Raw { name, inode: be_u64(block, at)?, kind };
        Some((raw, (11 + len + usize::from(self.superblock.kinds)).next_multiple_of(8)))
    }

    /// Goes through a directory that lives in its inode.
    fn each_short(&self, directory: &Inode, mut take: impl FnMut(Raw<'_>) -> bool) -> Result<()> {
        let wrong = || directory.damaged("the short directory is none");
        let raw = directory.fork(Fork::Data);
        let (count, wide) = u8_at(raw, 0).zip(u8_at(raw, 1)).ok_or_else(wrong)?;
        let width = if wide == 0 { 4 } else { 8 };
        let mut at = 2 + width;
        // With numbers of eight bytes, `count` tells of all entries and `wide` only of those that need them.
        for _ in 0..count {
            let len = usize::from(u8_at(raw, at).ok_or_else(wrong)?);
            let name = slice(raw, at + 3, len).filter(|name| !name.is_empty()).ok_or_else(wrong)?;
            at += 3 + len;
            let mut kind = 0;
            if self.superblock.kinds {
                kind = u8_at(raw, at).ok_or_else(wrong)?;
                at += 1;
            }
            let inode = if wide == 0 { be_u32(raw, at).map(u64::from) } else { be_u64(raw, at) };
            at += width;
            if !take(Raw { name, inode: inode.ok_or_else(wrong)?, kind }) {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The places that a table of hashes has for a hash, in bytes.
fn pick(table: &[u8], hash: u32) -> Vec<u64> {
    let (pairs, _) = table.as_chunks::<8>();
    let first = pairs.partition_point(|pair| be_u32(pair, 0) < Some(hash));
    let same = pairs.iter().skip(first).take_while(|pair| be_u32(*pair, 0) == Some(hash));
    // Zero stands for an entry that was removed.
    same.filter_map(|pair| be_u32(pair, 4)).filter(|place| *place != 0).map(|place| u64::from(place) * 8).collect()
}

/// The hash of a name: `xfs_da_hashname`.
fn hash(name: &[u8]) -> u32 {
    let (fours, rest) = name.as_chunks::<4>();
    let shifted = |bytes: &[u8]| {
        bytes.iter().rev().enumerate().fold(0_u32, |sum, (index, byte)| sum ^ u32::from(*byte) << (7 * index))
    };
    let all = fours.iter().fold(0_u32, |hash, four| shifted(four) ^ hash.rotate_left(28));
    if rest.is_empty() { all } else { shifted(rest) ^ all.rotate_left(7 * rest.len() as u32) }
}

/// `XD2D` and `XDD3`
const DATA_MAGIC: u32 = 0x5844_3244;
const DATA_MAGIC_V5: u32 = 0x5844_4433;
/// `XD2B` and `XDB3`
const BLOCK_MAGIC: u32 = 0x5844_3242;
const BLOCK_MAGIC_V5: u32 = 0x5844_4233;
const LEAF1_MAGIC: u16 = 0xd2f1;
const LEAF1_MAGIC_V5: u16 = 0x3df1;
const LEAFN_MAGIC: u16 = 0xd2ff;
const LEAFN_MAGIC_V5: u16 = 0x3dff;
/// Of nodes of hashes, in attributes as well.
pub(super) const NODE_MAGIC: u16 = 0xfebe;
pub(super) const NODE_MAGIC_V5: u16 = 0x3ebe;
/// Stands before free space in a block.
const FREE: u16 = 0xffff;
/// Where checksums are in blocks of entries, and in those of the index and of attributes.
const DATA_CRC: usize = 4;
pub(super) const LEAF_CRC: usize = 12;
/// The first byte of a directory that is index.
const LEAF_PLACE: u64 = 32 << 30;
/// Levels of nodes of hashes: `XFS_DA_NODE_MAXDEPTH`.
pub(super) const MAX_DEPTH: usize = 5;
/// Nodes and leaves on the way to all entries of a hash.
const MOST_NODES: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::hash;

    #[test]
    fn hashes_are_those_of_the_kernel() {
        // As `xfs_db -c "hash NAME"` says.
        assert_eq!(hash(b"."), 0x2e);
        assert_eq!(hash(b".."), 0x172e);
        assert_eq!(hash(b"file-00001.txt"), 0x9320_64a2);
    }
}
