//! Trees: blocks of items in the order of their keys.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::Volume;
use crate::{
    bytes::{array, le_u32, le_u64, slice, u8_at},
    error::{Error, Result},
    fs::{checksum::crc32c, parts::partition},
};

/// What items are ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) object: u64,
    pub(super) kind: u8,
    pub(super) offset: u64,
}

impl Key {
    pub(super) fn new(object: u64, kind: u8, offset: u64) -> Self {
        Self { object, kind, offset }
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self { object: le_u64(bytes, 0)?, kind: u8_at(bytes, 8)?, offset: le_u64(bytes, 9)? })
    }

    /// The one before among all keys.
    pub(super) fn previous(self) -> Option<Self> {
        match self.offset.checked_sub(1) {
            Some(offset) => Some(Self { offset, ..self }),
            None => match self.kind.checked_sub(1) {
                Some(kind) => Some(Self { kind, offset: u64::MAX, ..self }),
                None => Some(Self::new(self.object.checked_sub(1)?, u8::MAX, u64::MAX)),
            },
        }
    }

    /// The next of all keys.
    pub(super) fn next(self) -> Option<Self> {
        match self.offset.checked_add(1) {
            Some(offset) => Some(Self { offset, ..self }),
            None => match self.kind.checked_add(1) {
                Some(kind) => Some(Self { kind, offset: 0, ..self }),
                None => Some(Self::new(self.object.checked_add(1)?, 0, 0)),
            },
        }
    }
}

/// The root of a tree: its address and level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tree {
    /// The number of a subvolume, whose items may be other than what is stored; 0 of all other trees.
    pub(super) id: u64,
    pub(super) address: u64,
    pub(super) level: u8,
}

/// The last item up to a key, and the key of the first one after that.
pub(super) type Around = (Option<(Key, Vec<u8>)>, Option<Key>);

/// Blocks that were read and verified.
#[derive(Debug, Default)]
pub(super) struct Blocks(Mutex<HashMap<u64, Block>>);

type Block = Arc<[u8]>;

/// A leaf on the way through a tree.
struct Leaf {
    block: Block,
    items: usize,
    /// The least key that a later leaf can have.
    next: Option<Key>,
}

impl Leaf {
    fn key(&self, index: usize) -> Option<Key> {
        Key::parse(slice(&self.block, HEADER + index * ITEM, KEY)?).filter(|_| index < self.items)
    }

    fn data(&self, index: usize) -> Option<&[u8]> {
        let item = HEADER + index * ITEM;
        let (offset, len) = (le_u32(&self.block, item + KEY)?, le_u32(&self.block, item + KEY + 4)?);
        slice(&self.block, HEADER + offset as usize, len as usize)
    }

    /// How many items come before a key.
    fn before(&self, key: Key) -> usize {
        partition(self.items, |index| self.key(index).is_some_and(|found| found < key))
    }
}

impl Tree {
    /// What an item of the tree of trees says.
    pub(super) fn of_root(id: u64, item: &[u8]) -> Option<Self> {
        Some(Self { id, address: le_u64(item, 176)?, level: u8_at(item, 238)? })
    }
}

impl Volume {
    /// Goes through the stored items from a key on, until `take` says no.
    pub(super) fn stored_each(
        &self,
        tree: Tree,
        from: Key,
        take: impl FnMut(Key, &[u8]) -> Result<bool>,
    ) -> Result<()> {
        self.stored_each_from(tree, from, 0, take)
    }

    /// The same from the last item before the key on, for items that stand for what follows them.
    pub(super) fn stored_each_around(
        &self,
        tree: Tree,
        key: Key,
        take: impl FnMut(Key, &[u8]) -> Result<bool>,
    ) -> Result<()> {
        self.stored_each_from(tree, key, 1, take)
    }

    fn stored_each_from(
        &self,
        tree: Tree,
        from: Key,
        mut back: usize,
        mut take: impl FnMut(Key, &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let mut from = Some(from);
        // No tree has more leaves than there are blocks; one that seems to has the same ones again and again.
        let mut left = self.most_blocks();
        while let Some(key) = from {
            let leaf = self.leaf(tree, key)?;
            left = left.checked_sub(1).ok_or_else(|| damaged(tree.address, "it goes on for ever"))?;
            for index in leaf.before(key).saturating_sub(std::mem::take(&mut back))..leaf.items {
                let item = leaf.key(index).zip(leaf.data(index));
                let (found, data) = item.ok_or_else(|| damaged(tree.address, "an item of it leaves its leaf"))?;
                if !take(found, data)? {
                    return Ok(());
                }
            }
            // Keys only grow, so that circles end.
            from = leaf.next.filter(|next| *next > key);
        }
        Ok(())
    }

    /// The stored item with a key.
    pub(super) fn stored_item(&self, tree: Tree, key: Key) -> Result<Option<Vec<u8>>> {
        let leaf = self.leaf(tree, key)?;
        let index = leaf.before(key);
        Ok(if leaf.key(index) == Some(key) { leaf.data(index).map(<[u8]>::to_vec) } else { None })
    }

    /// The last stored item up to a key, and the key of the first one after that.
    pub(super) fn stored_around(&self, tree: Tree, key: Key) -> Result<Around> {
        let leaf = self.leaf(tree, key)?;
        let index = leaf.before(key) + usize::from(leaf.key(leaf.before(key)) == Some(key));
        let last = index.checked_sub(1).and_then(|last| Some((leaf.key(last)?, leaf.data(last)?.to_vec())));
        let after = match leaf.key(index) {
            Some(after) => Some(after),
            None => match leaf.next {
                Some(next) if next > key => self.leaf(tree, next)?.key(0),
                _ => None,
            },
        };
        Ok((last, after))
    }

    /// In which transaction the root of a tree was written.
    pub(super) fn generation(&self, tree: Tree) -> Result<u64> {
        let block = self.block(tree.address, tree.level)?;
        le_u64(&block, 80).ok_or_else(|| damaged(tree.address, "it ends early"))
    }

    /// The leaf in which a key is, if anywhere.
    fn leaf(&self, tree: Tree, key: Key) -> Result<Leaf> {
        let mut next: Option<Key> = None;
        let mut address = tree.address;
        let mut level = tree.level;
        if level > MAX_LEVEL {
            return Err(damaged(address, "it has too many levels"));
        }
        loop {
            let block = self.block(address, level)?;
            let items = le_u32(&block, 96).unwrap_or_default() as usize;
            let room = (block.len() - HEADER) / if level == 0 { ITEM } else { POINTER };
            if items > room {
                return Err(damaged(address, "it has more items than fit"));
            }
            if level == 0 {
                return Ok(Leaf { block, items, next });
            }
            let key_at = |index: usize| Key::parse(block.get(HEADER + index * POINTER..)?);
            let after = partition(items, |index| key_at(index).is_some_and(|found| found <= key));
            if after < items {
                next = key_at(after);
            }
            // What is before the first key is looked for in the first child.
            let chosen = HEADER + after.saturating_sub(1) * POINTER;
            let child = le_u64(&block, chosen + KEY).filter(|_| items > 0);
            address = child.ok_or_else(|| damaged(address, "a node of it has no children"))?;
            level -= 1;
        }
    }

    /// A block of a tree, verified.
    fn block(&self, address: u64, level: u8) -> Result<Block> {
        let cached = self.blocks.0.lock().unwrap_or_else(PoisonError::into_inner).get(&address).cloned();
        let block = match cached {
            Some(block) => block,
            None => self.fetch(address)?,
        };
        if u8_at(&block, 100) != Some(level) {
            return Err(damaged(address, "it has another level than its parent says"));
        }
        Ok(block)
    }

    /// Blocks of trees for which the devices have room.
    fn most_blocks(&self) -> u64 {
        let bytes = self.devices.values().fold(0_u64, |bytes, device| bytes.saturating_add(device.size()));
        bytes / u64::from(self.superblock.node_size) + 1
    }

    /// Reads a block from the first of its copies that is right.
    fn fetch(&self, address: u64) -> Result<Block> {
        let mut trouble = None;
        for place in self.chunks.find(address)? {
            let mut raw = vec![0; self.superblock.node_size as usize];
            let read = self.read_place(place, &mut raw).and_then(|()| self.check(address, &raw));
            match read {
                Ok(()) => {
                    let block: Block = raw.into();
                    let mut blocks = self.blocks.0.lock().unwrap_or_else(PoisonError::into_inner);
                    if blocks.len() >= KEPT {
                        blocks.clear();
                    }
                    blocks.insert(address, block.clone());
                    return Ok(block);
                }
                Err(error) => trouble = trouble.or(Some(error)),
            }
        }
        Err(trouble.unwrap_or_else(|| damaged(address, "it has no place")))
    }

    fn check(&self, address: u64, raw: &[u8]) -> Result<()> {
        if self.superblock.crc && Some(!crc32c(!0, raw.get(32..).unwrap_or_default())) != le_u32(raw, 0) {
            return Err(damaged(address, "its checksum is wrong"));
        }
        if le_u64(raw, 48) != Some(address) || array(raw, 32) != Some(self.superblock.metadata_uuid) {
            return Err(damaged(address, "it belongs elsewhere"));
        }
        Ok(())
    }
}

/// The key after one.
pub(super) fn after(key: Key) -> Key {
    key.next().unwrap_or(key)
}

fn damaged(address: u64, problem: &str) -> Error {
    Error::damaged(format!("the Btrfs tree block at {address}"), problem)
}

/// Bytes of a key, of the header of a block, and of what is in it.
pub(super) const KEY: usize = 17;
const HEADER: usize = 101;
const ITEM: usize = 25;
const POINTER: usize = 33;
const MAX_LEVEL: u8 = 7;
/// Blocks that are kept: 8 MiB of the usual ones.
const KEPT: usize = 512;
