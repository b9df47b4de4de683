//! ext2, ext3 and ext4, with what their journal holds.

mod blocks;
mod content;
mod directory;
mod htree;
mod inode;
mod journal;
mod superblock;
mod xattr;

use std::sync::Arc;

use self::{
    content::Open,
    directory::node,
    inode::{Inode, flag},
    superblock::{Superblock, compat, incompat},
};
use super::{
    Consistency, Content, Entries, FileKind, FileName, FileSystem, FileSystemInfo, Metadata, NodeId, no_streams,
    parts::Replayed,
};
use crate::{
    bytes::{until_nul, uuid_text},
    device::{Device, DeviceExt},
    error::{Error, Result},
};

/// Opens a device that holds ext2, ext3 or ext4; its journal is replayed in memory.
pub(crate) fn probe(device: &Arc<dyn Device>) -> Result<Option<Arc<dyn FileSystem>>> {
    let Some(superblock) = Superblock::read(&**device)? else { return Ok(None) };
    Ok(Some(Arc::new(Ext::open(device.clone(), superblock)?)))
}

/// An open file system.
#[derive(Debug)]
struct Ext {
    /// As the guest would see it after its journal is replayed.
    volume: Replayed,
    superblock: Superblock,
    consistency: Consistency,
}

impl Ext {
    fn open(device: Arc<dyn Device>, superblock: Superblock) -> Result<Self> {
        let journaled = superblock.compat & compat::HAS_JOURNAL != 0;
        let clean = superblock.state & STATE_VALID != 0;
        let consistency = if clean || journaled { Consistency::Clean } else { Consistency::DirtyIgnored };
        let plain = Self { volume: Replayed::plain(device), superblock, consistency };
        if plain.superblock.incompat & incompat::RECOVER == 0 {
            return Ok(plain);
        }
        let overlay = journal::replay(&plain)?;
        let consistency = Consistency::ReplayedInMemory;
        if overlay.is_empty() {
            return Ok(Self { consistency, ..plain });
        }
        let superblock = Superblock::read(&overlay)?
            .ok_or_else(|| Error::damaged("the ext journal", "it replaces the superblock by something else"))?;
        Ok(Self { volume: Replayed::new(overlay), superblock, consistency })
    }

    /// A block of the volume; the error is `None` for a number that it has not.
    fn block(&self, number: u64) -> Result<Vec<u8>, Option<Error>> {
        if number == 0 || number >= self.superblock.blocks {
            return Err(None);
        }
        let size = self.superblock.block_size;
        self.volume.device.read_vec(number * u64::from(size), size as usize).map_err(Some)
    }

    fn inode(&self, number: u32) -> Result<Inode> {
        Inode::read(&*self.volume.device, &self.superblock, number)
    }

    fn of(&self, node: NodeId) -> Result<Inode> {
        let number = u32::try_from(node.number).ok().filter(|_| node.tree == 0);
        self.inode(number.ok_or_else(|| Error::NotFound(format!("inode {}", node.number)))?)
    }

    fn directory(&self, node: NodeId) -> Result<Inode> {
        let inode = self.of(node)?;
        if inode.kind != FileKind::Directory {
            return Err(Error::NotADirectory(format!("inode {}", node.number)));
        }
        inode.check_key()?;
        Ok(inode)
    }
}

impl FileSystem for Ext {
    fn info(&self) -> FileSystemInfo {
        let superblock = &self.superblock;
        let block = u64::from(superblock.block_size);
        let mut info =
            FileSystemInfo::new(superblock.kind(), superblock.block_size, superblock.blocks.saturating_mul(block));
        let label = String::from_utf8_lossy(until_nul(&superblock.label));
        info.label = (!label.is_empty()).then(|| label.into_owned());
        info.uuid = (superblock.uuid != [0; 16]).then(|| uuid_text(&superblock.uuid));
        info.free = Some(superblock.free_blocks.saturating_mul(block).min(info.total));
        info.consistency = self.consistency;
        info
    }

    fn root(&self) -> NodeId {
        node(ROOT)
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        self.of(node)?.metadata(&self.superblock)
    }

    fn lookup(&self, directory: NodeId, name: &FileName) -> Result<Option<NodeId>> {
        let directory = self.directory(directory)?;
        self.find(&directory, name.as_bytes())
    }

    fn read_dir(self: Arc<Self>, directory: NodeId) -> Result<Entries> {
        let directory = self.directory(directory)?;
        Ok(self.list(directory))
    }

    fn read_link(&self, node: NodeId) -> Result<FileName> {
        let inode = self.of(node)?;
        if inode.kind != FileKind::Symlink {
            return Err(Error::Invalid(format!("inode {} is no symbolic link", node.number)));
        }
        inode.check_key()?;
        if inode.size == 0 || inode.size > MAX_LINK {
            return Err(inode.damaged(format!("a symbolic link of {} bytes", inode.size)));
        }
        if inode.has(flag::INLINE_DATA) {
            return Ok(FileName::new(self.whole_inline_data(&inode)?));
        }
        let size = inode.size as usize;
        if size < inode.block.len() && !inode.has(flag::EXTENTS) {
            return Ok(FileName::from(&inode.block[..size]));
        }
        let mut target = vec![0; size];
        self.read_blocks(&inode, 0, &mut target)?;
        Ok(FileName::new(target))
    }

    fn open(self: Arc<Self>, node: NodeId, stream: Option<&FileName>) -> Result<Arc<dyn Content>> {
        no_streams(stream, || format!("inode {}", node.number))?;
        let inode = self.of(node)?;
        let kind = match inode.kind {
            FileKind::File => return Ok(Arc::new(Open::new(self, inode)?)),
            FileKind::Directory => "a directory",
            FileKind::Symlink => "a symbolic link",
            _ => "a special file",
        };
        Err(Error::NotAFile { what: format!("inode {}", node.number), kind })
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<(FileName, Vec<u8>)>> {
        let inode = self.of(node)?;
        self.attributes(&inode)
    }
}

/// The inode of the root directory.
const ROOT: u32 = 2;
/// In the superblock's state: unmounted, or with a journal.
const STATE_VALID: u16 = 1;
/// The kernel's `PATH_MAX`.
const MAX_LINK: u64 = 4096;
