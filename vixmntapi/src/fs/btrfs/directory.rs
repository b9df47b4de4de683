//! Directories, and extended attributes, which are kept alike.

use std::sync::Arc;

use super::{
    Btrfs,
    inode::{Inode, describe},
    subvolume::{ROOT_ITEM, is_absent},
    tree::{KEY, Key, after},
};
use crate::{
    bytes::{le_u16, slice, u8_at},
    error::{Error, Result},
    fs::{Entries, Entry, FileKind, FileName, NodeId, checksum::crc32c, listing::batches},
};

/// A name and what it stands for.
pub(super) struct DirItem<'a> {
    pub(super) location: Key,
    pub(super) name: &'a [u8],
    value: &'a [u8],
    pub(super) kind: u8,
}

impl<'a> DirItem<'a> {
    /// All that one item holds: names of one hash. `None` when it is damaged.
    pub(super) fn all(item: &'a [u8]) -> Option<Vec<Self>> {
        let mut found = Vec::new();
        let mut rest = item;
        while !rest.is_empty() {
            let value_len = usize::from(le_u16(rest, 25)?);
            let name_len = usize::from(le_u16(rest, 27)?);
            found.push(Self {
                location: Key::parse(rest.get(..KEY)?)?,
                name: slice(rest, 30, name_len)?,
                value: slice(rest, 30 + name_len, value_len)?,
                kind: u8_at(rest, 29)? & KIND,
            });
            rest = rest.get(30 + name_len + value_len..)?;
        }
        Some(found)
    }
}

impl Btrfs {
    /// Lists a directory by the order in which its entries were made.
    pub(super) fn list(self: Arc<Self>, directory: NodeId) -> Result<Entries> {
        if is_absent(directory) {
            return Ok(Box::new(std::iter::empty()));
        }
        let inode = self.directory(directory)?;
        let mut from = Key::new(directory.number, DIR_INDEX, 0);
        Ok(batches(move |ready| {
            let mut more = false;
            let mut found = Vec::new();
            self.volume.each_item(inode.tree, from, |key, item| {
                more = (key.object, key.kind) == (directory.number, DIR_INDEX);
                if !more {
                    return Ok(false);
                }
                let entries = DirItem::all(item).ok_or_else(|| inode.damaged("an entry of it is none"))?;
                found.extend(entries.iter().map(|entry| (entry.location, entry.name.to_vec(), entry.kind)));
                from = after(key);
                Ok(found.len() < BATCH)
            })?;
            for (location, name, kind) in found {
                let node = self.node(directory, &name, location)?;
                ready.push_back(Entry::new(FileName::new(name), node, FileKind::from_directory(kind)));
            }
            // An end of the tree is not seen as a key of something else.
            Ok(more && ready.len() >= BATCH)
        }))
    }

    /// Finds a name in a directory by its hash.
    pub(super) fn find(&self, directory: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        if is_absent(directory) {
            return Ok(None);
        }
        let inode = self.directory(directory)?;
        let key = Key::new(directory.number, DIR_ITEM, name_hash(name));
        let Some(item) = self.volume.item(inode.tree, key)? else {
            return Ok(None);
        };
        let entries = DirItem::all(&item).ok_or_else(|| inode.damaged("an entry of it is none"))?;
        let found = entries.iter().find(|entry| entry.name == name);
        found.map(|entry| self.node(directory, name, entry.location)).transpose()
    }

    /// All attributes that programs see.
    pub(super) fn attributes(&self, inode: &Inode) -> Result<Vec<(FileName, Vec<u8>)>> {
        let mut all = Vec::new();
        let number = inode.node.number;
        self.volume.each_item(inode.tree, Key::new(number, XATTR_ITEM, 0), |key, item| {
            if (key.object, key.kind) != (number, XATTR_ITEM) {
                return Ok(false);
            }
            let found = DirItem::all(item).ok_or_else(|| inode.damaged("an attribute of it is none"))?;
            all.extend(found.iter().map(|found| (FileName::from(found.name), found.value.to_vec())));
            Ok(true)
        })?;
        Ok(all)
    }

    fn directory(&self, node: NodeId) -> Result<Inode> {
        let inode = self.of(node)?;
        if inode.metadata.kind != FileKind::Directory {
            return Err(Error::NotADirectory(describe(node)));
        }
        Ok(inode)
    }

    /// What an entry of a directory names.
    fn node(&self, directory: NodeId, name: &[u8], location: Key) -> Result<NodeId> {
        match location.kind {
            ROOT_ITEM => self.volume.enter(directory, name, location.object),
            _ => Ok(NodeId { tree: directory.tree, number: location.object }),
        }
    }
}

/// Under which a name is kept in its directory.
pub(super) fn name_hash(name: &[u8]) -> u64 {
    crc32c(NAME_SEED, name).into()
}

const XATTR_ITEM: u8 = 24;
const DIR_ITEM: u8 = 84;
const DIR_INDEX: u8 = 96;
/// The bits of an entry's kind that do not say how it is kept.
const KIND: u8 = 0x7f;
/// What hashes of names begin with.
const NAME_SEED: u32 = !1;
/// Entries that are read at once, about.
const BATCH: usize = 1000;
