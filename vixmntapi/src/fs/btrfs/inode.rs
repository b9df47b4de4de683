//! Inodes: what there is to know of a file.

use super::{
    Volume,
    tree::{Key, Tree},
};
use crate::{
    bytes::{le_u32, le_u64},
    error::{Error, Result},
    fs::{FileKind, Metadata, NodeId, Times, Timestamp},
};

/// An inode.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) node: NodeId,
    /// The tree that it is in.
    pub(super) tree: Tree,
    pub(super) metadata: Metadata,
}

impl Inode {
    /// Reads one; [`Error::NotFound`] when there is none.
    pub(super) fn read(volume: &Volume, node: NodeId) -> Result<Self> {
        let tree = volume.subvolume(node.tree)?;
        let item = volume.item(tree, Key::new(node.number, INODE_ITEM, 0))?;
        let item = item.ok_or_else(|| Error::NotFound(describe(node)))?;
        let metadata = parse(&item).ok_or_else(|| Error::damaged(describe(node), "it ends early"))?;
        let inode = Self { node, tree, metadata };
        if inode.metadata.size > i64::MAX as u64 {
            return Err(inode.damaged(format!("{} bytes", inode.metadata.size)));
        }
        Ok(inode)
    }

    /// An error of this inode.
    pub(super) fn damaged(&self, problem: impl Into<String>) -> Error {
        Error::damaged(describe(self.node), problem)
    }
}

fn parse(item: &[u8]) -> Option<Metadata> {
    let mode = le_u32(item, 52)?;
    let mut metadata = Metadata::new(FileKind::from_mode(mode), le_u64(item, 16)?);
    metadata.allocated = le_u64(item, 24)?;
    metadata.links = le_u32(item, 40)?;
    (metadata.uid, metadata.gid) = (le_u32(item, 44)?, le_u32(item, 48)?);
    metadata.mode = mode & 0o7777;
    if matches!(metadata.kind, FileKind::BlockDevice | FileKind::CharDevice) {
        let number = le_u64(item, 56)?;
        metadata.device = Some(((number >> 20) as u32 & 0xfff, number as u32 & 0xf_ffff));
    }
    let time = |at: usize| Some(Timestamp::new(le_u64(item, at)? as i64, le_u32(item, at + 8)?));
    metadata.times = Times {
        accessed: time(112)?,
        changed: time(124)?,
        modified: time(136)?,
        created: Some(time(148)?).filter(|created| *created != Timestamp::default()),
    };
    Some(metadata)
}

/// What messages call a file.
pub(super) fn describe(node: NodeId) -> String {
    format!("Btrfs inode {} of tree {}", node.number, node.tree)
}

pub(super) const INODE_ITEM: u8 = 1;
