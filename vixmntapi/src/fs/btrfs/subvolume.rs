//! Subvolumes: the trees of files.

use std::collections::BTreeMap;

use super::{
    Btrfs, ROOT_DIRECTORY, Volume,
    directory::DirItem,
    tree::{Key, Tree},
};
use crate::{
    bytes::{le_u16, le_u64, slice},
    error::{Error, Result},
    fs::{FileName, NodeId, Subvolume},
};

impl Volume {
    /// The tree of a subvolume.
    pub(super) fn subvolume(&self, id: u64) -> Result<Tree> {
        if id != TOP && id < FIRST {
            return Err(Error::NotFound(format!("Btrfs subvolume {id}")));
        }
        let mut found = None;
        self.each_item(self.root_tree(), Key::new(id, ROOT_ITEM, 0), |key, item| {
            if (key.object, key.kind) != (id, ROOT_ITEM) {
                return Ok(false);
            }
            found = Tree::of_root(id, item);
            Ok(true)
        })?;
        found.ok_or_else(|| Error::NotFound(format!("Btrfs subvolume {id}")))
    }

    /// The subvolume that is mounted when none is named.
    pub(super) fn default_subvolume(&self) -> Result<u64> {
        let mut default = TOP;
        let directory = self.superblock.root_directory;
        self.each_item(self.root_tree(), Key::new(directory, DIR_ITEM, 0), |key, item| {
            if (key.object, key.kind) != (directory, DIR_ITEM) {
                return Ok(false);
            }
            for entry in
                DirItem::all(item).ok_or_else(|| Error::damaged("the default subvolume of Btrfs", "it is none"))?
            {
                if entry.name == b"default" && entry.location.kind == ROOT_ITEM {
                    default = entry.location.object;
                }
            }
            Ok(true)
        })?;
        self.subvolume(default)?;
        Ok(default)
    }

    /// What an entry of a directory that names a subvolume leads to. In a snapshot the subvolumes of what it was made of
    /// are but empty directories.
    pub(super) fn enter(&self, directory: NodeId, name: &[u8], id: u64) -> Result<NodeId> {
        let reference = self.item(self.root_tree(), Key::new(directory.tree, ROOT_REF, id))?;
        let right = reference.as_deref().and_then(Reference::parse);
        if right.is_some_and(|right| right.directory == directory.number && right.name == name) {
            return Ok(NodeId { tree: id, number: ROOT_DIRECTORY });
        }
        Ok(NodeId { tree: directory.tree, number: ABSENT | id })
    }
}

impl Btrfs {
    /// All subvolumes with their paths.
    pub(super) fn all_subvolumes(&self) -> Result<Vec<Subvolume>> {
        // Of each its parent, directory there and name.
        let mut parents = BTreeMap::new();
        let mut ids = Vec::new();
        let tree = self.volume.root_tree();
        self.volume.each_item(tree, Key::new(TOP, ROOT_ITEM, 0), |key, item| {
            let of_files = key.object == TOP || (FIRST..=LAST).contains(&key.object);
            match key.kind {
                ROOT_ITEM if of_files => ids.push(key.object),
                ROOT_REF if of_files => {
                    let reference = Reference::parse(item).ok_or_else(damaged)?;
                    parents.insert(key.offset, (key.object, reference.directory, reference.name.to_vec()));
                }
                _ => {}
            }
            if ids.len() > MOST { Err(damaged()) } else { Ok(key.object <= LAST) }
        })?;
        ids.dedup();
        let mut all = Vec::new();
        for id in ids {
            // One that is being deleted has no parent any more.
            if id != TOP && !parents.contains_key(&id) {
                continue;
            }
            let mut names = Vec::new();
            let mut at = id;
            while let Some((parent, directory, name)) = parents.get(&at) {
                names.push(name.clone());
                self.names_up(NodeId { tree: *parent, number: *directory }, &mut names)?;
                if names.len() > DEEPEST {
                    return Err(damaged());
                }
                at = *parent;
            }
            names.reverse();
            let root = NodeId { tree: id, number: ROOT_DIRECTORY };
            all.push(Subvolume::new(root, FileName::new(names.join(&b'/')), id == self.default));
        }
        Ok(all)
    }

    /// The names of a directory and those above it, up to the root of its tree.
    fn names_up(&self, mut node: NodeId, names: &mut Vec<Vec<u8>>) -> Result<()> {
        let tree = self.volume.subvolume(node.tree)?;
        while node.number != ROOT_DIRECTORY {
            let mut parent = None;
            self.volume.each_item(tree, Key::new(node.number, INODE_REF, 0), |key, item| {
                if (key.object, key.kind) == (node.number, INODE_REF) {
                    let name = le_u16(item, 8).and_then(|len| slice(item, 10, len.into()));
                    parent = name.map(|name| (key.offset, name.to_vec()));
                }
                Ok(false)
            })?;
            let (number, name) = parent.ok_or_else(damaged)?;
            names.push(name);
            node.number = number;
            if names.len() > DEEPEST {
                return Err(damaged());
            }
        }
        Ok(())
    }
}

/// Whether a node stands for a subvolume that is not in this snapshot.
pub(super) fn is_absent(node: NodeId) -> bool {
    node.number & ABSENT != 0
}

/// Where a subvolume is in its parent.
struct Reference<'a> {
    directory: u64,
    name: &'a [u8],
}

impl<'a> Reference<'a> {
    fn parse(item: &'a [u8]) -> Option<Self> {
        Some(Self { directory: le_u64(item, 0)?, name: slice(item, 18, le_u16(item, 16)?.into())? })
    }
}

fn damaged() -> Error {
    Error::damaged("the list of subvolumes of Btrfs", "it leads nowhere")
}

pub(super) const ROOT_ITEM: u8 = 132;
const ROOT_REF: u8 = 156;
const INODE_REF: u8 = 12;
const DIR_ITEM: u8 = 84;
/// The tree of all others, and the first and last of those.
const TOP: u64 = 5;
const FIRST: u64 = 256;
const LAST: u64 = u64::MAX - 256;
/// In the numbers of nodes that stand for subvolumes that are not there.
const ABSENT: u64 = 1 << 63;
/// Subvolumes of one file system, and names in the path of one.
const MOST: usize = 1 << 20;
const DEEPEST: usize = 4096;
