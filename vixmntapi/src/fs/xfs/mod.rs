//! XFS, versions 4 and 5, with what its log holds.
//!
//! Every block of metadata of version 5 is checked by its checksum and its owner. Files on a realtime device are refused.

mod block;
mod directory;
mod fork;
mod inode;
mod log;
mod superblock;
mod xattr;

use std::{ops::Range, sync::Arc};

use self::{
    inode::{Fork, Form, Inode},
    superblock::Superblock,
    xattr::LINK_MAGIC,
};
use super::{
    Consistency, Content, Entries, Extent, FileKind, FileName, FileSystem, FileSystemInfo, Metadata, NodeId,
    no_streams, parts::Replayed, within,
};
use crate::{
    bytes::{until_nul, uuid_text},
    device::Device,
    error::{Error, Result},
};

/// Opens a device that holds XFS; its log is replayed in memory.
pub(crate) fn probe(device: &Arc<dyn Device>) -> Result<Option<Arc<dyn FileSystem>>> {
    let Some(superblock) = Superblock::read(&**device)? else { return Ok(None) };
    let (volume, consistency) = log::replay(device, &superblock)?;
    let superblock = Superblock::read(&*volume.device)?
        .ok_or_else(|| Error::damaged("the XFS log", "it replaces the superblock by something else"))?;
    Ok(Some(Arc::new(Xfs { volume, superblock, consistency })))
}

/// An open file system.
#[derive(Debug)]
struct Xfs {
    /// As the guest would see it after its log is replayed.
    volume: Replayed,
    superblock: Superblock,
    consistency: Consistency,
}

impl Xfs {
    fn of(&self, node: NodeId) -> Result<Inode> {
        if node.tree != 0 {
            return Err(Error::NotFound(format!("inode {} of tree {}", node.number, node.tree)));
        }
        Inode::read(&self.volume, &self.superblock, node.number)
    }

    fn directory(&self, node: NodeId) -> Result<Inode> {
        let inode = self.of(node)?;
        if inode.kind != FileKind::Directory {
            return Err(Error::NotADirectory(format!("inode {}", node.number)));
        }
        Ok(inode)
    }
}

impl FileSystem for Xfs {
    fn info(&self) -> FileSystemInfo {
        let superblock = &self.superblock;
        let block = u64::from(superblock.block_size);
        let mut info = FileSystemInfo::new("xfs", superblock.block_size, superblock.blocks.saturating_mul(block));
        let label = String::from_utf8_lossy(until_nul(&superblock.label));
        info.label = (!label.is_empty()).then(|| label.into_owned());
        info.uuid = Some(uuid_text(&superblock.uuid));
        // While the volume is in use the number in the superblock is that of the last mount.
        let clean = self.consistency == Consistency::Clean;
        info.free = clean.then(|| superblock.free_blocks.saturating_mul(block).min(info.total));
        info.consistency = self.consistency;
        info
    }

    fn root(&self) -> NodeId {
        node(self.superblock.root)
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        Ok(self.of(node)?.metadata(&self.superblock))
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
        let len = usize::try_from(inode.size).ok().filter(|len| (1..=MAX_LINK).contains(len));
        let len = len.ok_or_else(|| inode.damaged(format!("a symbolic link of {} bytes", inode.size)))?;
        if inode.form(Fork::Data) != Form::Local {
            return Ok(FileName::new(self.remote(&inode, Fork::Data, 0, len, LINK_MAGIC)?));
        }
        let target = inode.fork(Fork::Data).get(..len);
        Ok(FileName::from(target.ok_or_else(|| inode.damaged("its target is longer than itself"))?))
    }

    fn open(self: Arc<Self>, node: NodeId, stream: Option<&FileName>) -> Result<Arc<dyn Content>> {
        no_streams(stream, || format!("inode {}", node.number))?;
        let inode = self.of(node)?;
        let what = format!("inode {}", node.number);
        let kind = match inode.kind {
            FileKind::File if inode.is_realtime() => {
                return Err(Error::unsupported(what, "its content is on a realtime device"));
            }
            FileKind::File => return Ok(Arc::new(Open { fs: self, inode })),
            FileKind::Directory => "a directory",
            FileKind::Symlink => "a symbolic link",
            _ => "a special file",
        };
        Err(Error::NotAFile { what, kind })
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<(FileName, Vec<u8>)>> {
        let inode = self.of(node)?;
        self.attributes(&inode)
    }
}

/// An open file.
struct Open {
    fs: Arc<Xfs>,
    inode: Inode,
}

impl Content for Open {
    fn size(&self) -> u64 {
        self.inode.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let buf = within(self.inode.size, offset, buf);
        self.fs.read_fork(&self.inode, Fork::Data, offset, buf)?;
        Ok(buf.len())
    }

    fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>> {
        let range = range.start..range.end.min(self.inode.size);
        let who = || format!("inode {}", self.inode.number);
        self.fs.volume.map(range, who, |at| self.fs.part(&self.inode, Fork::Data, at))
    }
}

fn node(number: u64) -> NodeId {
    NodeId { tree: 0, number }
}

/// The kernel's `XFS_SYMLINK_MAXLEN`.
const MAX_LINK: usize = 1024;
