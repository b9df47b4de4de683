//! The logs of subvolumes: what programs synced since the last commit.
//!
//! Each subvolume with synced files has a tree of its own with copies of their items. The kernel puts them into the
//! subvolume when the volume is mounted, inodes first, then names, then all else; the same is done here to
//! [`Changes`] of its tree. A log that leads nowhere is an error: nothing of it is then to be shown.

mod extents;
mod names;
mod reference;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    Volume,
    changes::{Changes, View},
    inode::INODE_ITEM,
    subvolume::ROOT_ITEM,
    sums::{SUM_ITEM, SUMS},
    tree::{Key, Tree},
};
use crate::{
    bytes::{le_u32, le_u64},
    error::{Error, Result},
    fs::FileKind,
};

/// What the logs of a volume make of it.
#[derive(Default)]
pub(super) struct Replayed {
    /// What they change, by the subvolume.
    pub(super) changes: BTreeMap<u64, Changes>,
    /// The checksums of new contents, by the address of the first.
    pub(super) sums: BTreeMap<u64, Vec<u8>>,
}

/// Replays all logs.
pub(super) fn replay(volume: &Volume) -> Result<Replayed> {
    let (address, level) = volume.superblock.log_root;
    let logs = Tree { id: 0, address, level };
    if Some(volume.generation(logs)?) != volume.superblock.generation.checked_add(1) {
        return Err(damaged("it is not of the transaction after the last commit"));
    }
    let mut roots = Vec::new();
    volume.stored_each(logs, Key::new(TREE_LOG, ROOT_ITEM, 0), |key, item| {
        if (key.object, key.kind) != (TREE_LOG, ROOT_ITEM) || roots.len() >= MOST_LOGS {
            return Ok(false);
        }
        roots.push((key.offset, Tree::of_root(0, item).ok_or_else(|| damaged("the root of one ends early"))?));
        Ok(true)
    })?;
    if roots.len() >= MOST_LOGS {
        return Err(damaged("there are too many"));
    }
    let mut all = Replayed::default();
    for (id, log) in roots {
        let tree = match volume.subvolume(id) {
            Ok(tree) => tree,
            // It was deleted.
            Err(Error::NotFound(_)) => continue,
            Err(error) => return Err(error),
        };
        let (changes, count) = (Changes::default(), BTreeSet::new());
        let left = Cell::new(MOST_STEPS);
        let mut replay = Replay { volume, tree, log, changes, count, sums: &mut all.sums, left };
        replay.all()?;
        if !replay.changes.is_empty() {
            let changes = replay.changes;
            all.changes.insert(id, changes);
        }
    }
    Ok(all)
}

/// The replay of one log.
struct Replay<'a> {
    volume: &'a Volume,
    /// The subvolume as it is stored.
    tree: Tree,
    log: Tree,
    changes: Changes,
    /// Inodes whose names are to be counted in the end.
    count: BTreeSet<u64>,
    sums: &'a mut BTreeMap<u64, Vec<u8>>,
    /// What may still be looked at: a log whose items say the same again and again ends.
    left: Cell<u64>,
}

impl Replay<'_> {
    fn all(&mut self) -> Result<()> {
        self.each_logged(|replay, key, item| match key.kind {
            INODE_ITEM => replay.inode(key.object, item),
            _ => Ok(()),
        })?;
        self.each_logged(|replay, key, item| match key.kind {
            DIR_INDEX => replay.entry(key, item),
            _ => Ok(()),
        })?;
        self.each_logged(|replay, key, item| match key.kind {
            INODE_REF | INODE_EXTREF => replay.references(key, item),
            XATTR_ITEM => replay.changes.put(key, item.to_vec()),
            EXTENT_DATA => replay.extent(key, item),
            SUM_ITEM if key.object == SUMS => {
                replay.sums.insert(key.offset, item.to_vec());
                if replay.sums.len() > MOST_SUMS { Err(damaged("there are too many checksums")) } else { Ok(()) }
            }
            _ => Ok(()),
        })?;
        while let Some(number) = self.count.pop_last() {
            self.count_names(number)?;
        }
        Ok(())
    }

    /// Goes through the log but for inodes without a name, which the kernel leaves out.
    fn each_logged(&mut self, mut take: impl FnMut(&mut Self, Key, &[u8]) -> Result<()>) -> Result<()> {
        let (volume, log) = (self.volume, self.log);
        let mut left_out = None;
        volume.stored_each(log, Key::default(), |key, item| {
            if key.kind == INODE_ITEM {
                left_out = (Fields::of(item)?.links == 0).then_some(key.object);
            }
            self.step(1)?;
            if left_out != Some(key.object) {
                take(self, key, item)?;
            }
            Ok(true)
        })
    }

    /// Counts what was looked at.
    fn step(&self, count: u64) -> Result<()> {
        let left = self.left.get().checked_sub(count).ok_or_else(|| damaged("it has no end"))?;
        self.left.set(left);
        Ok(())
    }

    /// The subvolume as far as the log is replayed.
    fn view(&self) -> View<'_> {
        View { volume: self.volume, tree: self.tree, changes: &self.changes }
    }

    /// An item of the log.
    fn logged(&self, key: Key) -> Result<Option<Vec<u8>>> {
        self.volume.stored_item(self.log, key)
    }

    fn inode_item(&self, number: u64) -> Result<Option<Vec<u8>>> {
        self.view().item(Key::new(number, INODE_ITEM, 0))
    }

    fn exists(&self, number: u64) -> Result<bool> {
        Ok(self.inode_item(number)?.is_some())
    }

    /// Fails for what is not there although the log speaks of it.
    fn existing(&self, number: u64) -> Result<Vec<u8>> {
        self.inode_item(number)?.ok_or_else(|| damaged(format!("it speaks of inode {number}, which is not there")))
    }

    /// Puts in an inode without anything that belongs to it.
    fn inode(&mut self, number: u64, logged: &[u8]) -> Result<()> {
        let new = Fields::of(logged)?;
        let old = self.inode_item(number)?;
        // All attributes that it has are in the log.
        self.changes.remove(Key::new(number, XATTR_ITEM, 0), Key::new(number, XATTR_ITEM, u64::MAX))?;
        if new.kind == FileKind::Directory && old.is_some() {
            self.remove_entries(number)?;
        }
        // Entries that went have made the directory smaller.
        let old = if old.is_some() { self.inode_item(number)? } else { None };
        let mut item = logged.to_vec();
        match old {
            Some(mut old) => {
                let had = Fields::of(&old)?;
                if new.only_exists {
                    if new.kind == FileKind::File && had.kind == FileKind::File && new.size != 0 {
                        set(&mut old, SIZE, new.size);
                    }
                    item = old;
                } else if new.kind == FileKind::Directory {
                    set(&mut item, SIZE, if had.kind == FileKind::Directory { had.size } else { 0 });
                }
            }
            None => {
                if new.kind == FileKind::Directory {
                    set(&mut item, SIZE, 0);
                }
                if new.only_exists {
                    set(&mut item, ALLOCATED, 0);
                }
            }
        }
        let size = Fields::of(&item)?.size;
        self.changes.put(Key::new(number, INODE_ITEM, 0), item)?;
        if new.kind == FileKind::File {
            self.cut(number, size)?;
        }
        self.count.insert(number);
        Ok(())
    }
}

/// What of an inode replay looks at.
struct Fields {
    kind: FileKind,
    /// The type of its entries in directories.
    entry: u8,
    size: u64,
    links: u32,
    /// The log only says that it is there: its other fields are only for an inode that is not there yet.
    only_exists: bool,
}

impl Fields {
    fn of(item: &[u8]) -> Result<Self> {
        let parsed = || {
            let mode = le_u32(item, 52)?;
            let entry = match mode >> 12 & 0xf {
                0x8 => 1,
                0x4 => 2,
                0x2 => 3,
                0x6 => 4,
                0x1 => 5,
                0xc => 6,
                0xa => 7,
                _ => 0,
            };
            let (size, links) = (le_u64(item, SIZE)?, le_u32(item, LINKS)?);
            Some(Self { kind: FileKind::from_mode(mode), entry, size, links, only_exists: le_u64(item, 0)? == 0 })
        };
        parsed().filter(|_| item.len() >= 160).ok_or_else(|| damaged("an inode of it ends early"))
    }
}

/// Changes a number of an inode that was looked at.
fn set(item: &mut [u8], at: usize, value: u64) {
    if let Some(field) = item.get_mut(at..at + 8) {
        field.copy_from_slice(&value.to_le_bytes());
    }
}

fn damaged(problem: impl Into<String>) -> Error {
    Error::damaged("the log of Btrfs", problem)
}

/// Under which logs are kept in their tree.
const TREE_LOG: u64 = 6_u64.wrapping_neg();
const INODE_REF: u8 = 12;
const INODE_EXTREF: u8 = 13;
const XATTR_ITEM: u8 = 24;
/// Entries of a range that are not in the log are gone.
const DIR_LOG_INDEX: u8 = 72;
const DIR_ITEM: u8 = 84;
const DIR_INDEX: u8 = 96;
const EXTENT_DATA: u8 = 108;
/// Where these are in an inode.
const SIZE: usize = 16;
const ALLOCATED: usize = 24;
const LINKS: usize = 40;
/// Logs of one volume: one for each subvolume in use.
const MOST_LOGS: usize = 1 << 16;
/// Entries, names and items of one log that are looked at: those of a few million files.
const MOST_STEPS: u64 = 1 << 25;
/// Items with checksums, of up to a block each.
const MOST_SUMS: usize = 1 << 14;
