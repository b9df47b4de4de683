//! Directories, entry by entry: blocks of entries in a row, and the short ones that live in their inode.
//! `Documentation/filesystems/ext4/directory.rst`.

use std::sync::Arc;

use super::{
    Ext,
    blocks::RunKind,
    htree,
    inode::{Inode, flag},
    superblock::{compat, incompat},
};
use crate::{
    bytes::{le_u16, le_u32, slice, u8_at},
    error::Result,
    fs::{Entries, Entry, FileKind, FileName, NodeId, checksum::crc32c, listing::batches},
};

/// An entry as it lies in its block.
struct Raw<'a> {
    name: &'a [u8],
    inode: u32,
    kind: u8,
}

impl Raw<'_> {
    fn to_entry(&self) -> Entry {
        let kind = FileKind::from_directory(self.kind);
        Entry::new(FileName::from(self.name), node(self.inode), kind)
    }
}

impl Ext {
    /// Lists a directory, a block at a time.
    pub(super) fn list(self: Arc<Self>, directory: Inode) -> Entries {
        let mut next_block = 0;
        batches(move |ready| {
            if directory.has(flag::INLINE_DATA) {
                ready.extend(self.inline_entries(&directory)?);
                return Ok(false);
            }
            if next_block >= self.directory_blocks(&directory)? {
                return Ok(false);
            }
            let block = self.directory_block(&directory, next_block)?;
            self.entries(&directory, &block, |entry| {
                ready.push_back(entry.to_entry());
                true
            })?;
            next_block += 1;
            Ok(true)
        })
    }

    /// Finds a name in a directory.
    pub(super) fn find(&self, directory: &Inode, name: &[u8]) -> Result<Option<NodeId>> {
        if name.is_empty() || matches!(name, b"." | b"..") {
            return Ok(None);
        }
        if directory.has(flag::INLINE_DATA) {
            let entries = self.inline_entries(directory)?;
            return Ok(choose(directory, name, entries.iter().map(|entry| (entry.name.as_bytes(), entry.node))));
        }
        let indexed = directory.has(flag::INDEX) && self.superblock.compat & compat::DIR_INDEX != 0;
        if indexed
            && !directory.has(flag::CASEFOLD)
            && let Some(blocks) = htree::leaves(self, directory, name)?
        {
            for number in blocks {
                let block = self.directory_block(directory, number)?;
                if let Some(found) = self.find_in(directory, &block, name)? {
                    return Ok(Some(found));
                }
            }
            return Ok(None);
        }
        let mut folded = None;
        for number in 0..self.directory_blocks(directory)? {
            let block = self.directory_block(directory, number)?;
            if let Some(found) = self.find_in(directory, &block, name)? {
                return Ok(Some(found));
            }
            if directory.has(flag::CASEFOLD) && folded.is_none() {
                self.entries(directory, &block, |entry| {
                    folded = same_folded(entry.name, name).then(|| node(entry.inode));
                    folded.is_none()
                })?;
            }
        }
        Ok(folded)
    }

    fn find_in(&self, directory: &Inode, block: &[u8], name: &[u8]) -> Result<Option<NodeId>> {
        let mut found = None;
        self.entries(directory, block, |entry| {
            if entry.name == name {
                found = Some(node(entry.inode));
            }
            found.is_none()
        })?;
        Ok(found)
    }

    /// How many blocks a directory has.
    fn directory_blocks(&self, directory: &Inode) -> Result<u64> {
        let blocks = directory.size.div_ceil(u64::from(self.superblock.block_size));
        if blocks > self.superblock.blocks {
            return Err(directory.damaged(format!("a directory of {} bytes", directory.size)));
        }
        Ok(blocks)
    }

    /// A block of a directory. A directory has no holes.
    pub(super) fn directory_block(&self, directory: &Inode, number: u64) -> Result<Vec<u8>> {
        let RunKind::At(place) = self.run(directory, number)?.kind else {
            return Err(directory.damaged(format!("block {number} of the directory is missing")));
        };
        let block = self
            .block(place)
            .map_err(|error| error.unwrap_or_else(|| directory.damaged(format!("block {number} is at {place}"))))?;
        if !self.is_intact(directory, number, &block) {
            return Err(directory.damaged(format!("the checksum of block {number} of the directory is wrong")));
        }
        Ok(block)
    }

    /// Whether the checksum of a block is right, if there is one.
    fn is_intact(&self, directory: &Inode, number: u64, block: &[u8]) -> bool {
        let Some(seed) = directory.checksum_seed else { return true };
        let inner = le_u32(block, 0) == Some(0) && self.entry_len(block, 0) == Some(block.len());
        if directory.has(flag::INDEX) && (number == 0 || inner) {
            return htree::is_intact(seed, block, number == 0);
        }
        // The last entry is no entry but holds the checksum.
        let tail = block.len() - TAIL;
        block[tail..tail + 8] != [0, 0, 0, 0, TAIL as u8, 0, 0, TAIL_KIND]
            || le_u32(block, tail + 8) == Some(crc32c(seed, &block[..tail]))
    }

    /// Takes the entries of a block, or of what stands for one, until `take` says that it has enough.
    fn entries<'a>(&self, directory: &Inode, block: &'a [u8], mut take: impl FnMut(Raw<'a>) -> bool) -> Result<()> {
        let mut at = 0;
        while at < block.len() {
            let wrong = || directory.damaged(format!("an entry at byte {at} of one of its blocks is none"));
            let (inode, len) = le_u32(block, at).zip(self.entry_len(block, at)).ok_or_else(wrong)?;
            let (name_len, kind) = if self.superblock.incompat & incompat::FILETYPE != 0 {
                (u8_at(block, at + 6).map(usize::from), u8_at(block, at + 7))
            } else {
                (le_u16(block, at + 6).map(usize::from), Some(0))
            };
            let (name_len, kind) = name_len.zip(kind).ok_or_else(wrong)?;
            if len < 8 || len % 4 != 0 || at + len > block.len() || (inode != 0 && 8 + name_len > len) {
                return Err(wrong());
            }
            if inode != 0 {
                let name = slice(block, at + 8, name_len).filter(|name| (1..=255).contains(&name.len()));
                let name = name.ok_or_else(wrong)?;
                if inode > self.superblock.inodes {
                    return Err(directory.damaged(format!("an entry of it names inode {inode}, which there is not")));
                }
                if !matches!(name, b"." | b"..") && !take(Raw { name, inode, kind }) {
                    return Ok(());
                }
            }
            at += len;
        }
        Ok(())
    }

    /// Blocks of 64 KiB do not fit the field.
    fn entry_len(&self, block: &[u8], at: usize) -> Option<usize> {
        let len = le_u16(block, at + 4)?;
        if self.superblock.block_size < 1 << 16 {
            return Some(usize::from(len));
        }
        Some(match len {
            0 | 0xffff => 1 << 16,
            len => usize::from(len & 0xfffc) | usize::from(len & 3) << 16,
        })
    }

    /// The entries of a directory that lives in its inode: behind the number of its parent, and in an attribute.
    fn inline_entries(&self, directory: &Inode) -> Result<Vec<Entry>> {
        let data = self.whole_inline_data(directory)?;
        let mut found = Vec::new();
        let cut = data.len().min(directory.block.len());
        for part in [data.get(4..cut), data.get(cut..)] {
            self.entries(directory, part.unwrap_or_default(), |entry| {
                found.push(entry.to_entry());
                true
            })?;
        }
        Ok(found)
    }
}

/// The id of an inode.
pub(super) fn node(inode: u32) -> NodeId {
    NodeId { tree: 0, number: u64::from(inode) }
}

fn choose<'a>(
    directory: &Inode,
    name: &[u8],
    entries: impl Iterator<Item = (&'a [u8], NodeId)> + Clone,
) -> Option<NodeId> {
    let exact = entries.clone().find(|entry| entry.0 == name);
    let folded = || entries.clone().find(|entry| directory.has(flag::CASEFOLD) && same_folded(entry.0, name));
    exact.or_else(folded).map(|entry| entry.1)
}

/// Whether two names differ only in case. Names of other normal forms are not taken for the same.
fn same_folded(one: &[u8], other: &[u8]) -> bool {
    match (std::str::from_utf8(one), std::str::from_utf8(other)) {
        (Ok(one), Ok(other)) => one.chars().flat_map(char::to_lowercase).eq(other.chars().flat_map(char::to_lowercase)),
        _ => false,
    }
}

/// Bytes of the entry that holds a block's checksum.
const TAIL: usize = 12;
/// What that entry says to name.
const TAIL_KIND: u8 = 0xde;
