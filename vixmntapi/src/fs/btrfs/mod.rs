//! Btrfs: subvolumes, snapshots, compression by zlib, LZO and zstd, and copies and stripes on several devices.
//!
//! What programs synced since the last commit is in logs, which are replayed in memory. A log that cannot be replayed whole
//! is left alone as a whole: the view is then that of the last commit, and [`Consistency::DirtyIgnored`]. Blocks of trees
//! and contents are verified when their checksums are CRC-32C, and read from another copy when they are wrong.

mod changes;
mod chunk;
mod content;
mod directory;
mod inode;
mod log;
mod lzo;
mod subvolume;
mod sums;
mod superblock;
mod tree;

use std::{collections::BTreeMap, sync::Arc};

use self::{
    changes::Changes,
    chunk::{Chunks, Place},
    content::Open,
    inode::Inode,
    sums::Sums,
    superblock::Superblock,
    tree::{Blocks, Key, Tree},
};
use super::{
    Consistency, Content, Entries, FileKind, FileName, FileSystem, FileSystemInfo, Metadata, NodeId, Subvolume,
    no_streams,
};
use crate::{
    bytes::{until_nul, uuid_text},
    device::Device,
    error::{Error, Result},
};

/// Opens a device that holds Btrfs.
pub(crate) fn probe(device: &Arc<dyn Device>) -> Result<Option<Arc<dyn FileSystem>>> {
    open_among(device, &Vec::new)
}

/// Opens a file system that may be on several devices; those that are not its own among `others` are left alone, and
/// none is looked at for a file system on one. `None` when `device` holds no Btrfs.
pub(super) fn open_among(
    device: &Arc<dyn Device>,
    others: &dyn Fn() -> Vec<Arc<dyn Device>>,
) -> Result<Option<Arc<dyn FileSystem>>> {
    let Some(mut superblock) = Superblock::read(&**device)? else { return Ok(None) };
    let main = superblock.device;
    let mut members = BTreeMap::from([(main, device.clone())]);
    let others = if superblock.devices > 1 { others() } else { Vec::new() };
    for device in others {
        // What cannot be read is not known to be a member; what lies there is then missing, and said to be so.
        let Ok(Some(other)) = Superblock::read(&*device) else { continue };
        if other.uuid != superblock.uuid || other.device == main {
            continue;
        }
        if members.insert(other.device, device).is_some() {
            let problem = format!("two devices say that they are its number {}", other.device);
            return Err(Error::damaged("this Btrfs", problem));
        }
        // A device that was away has an older superblock.
        if other.generation > superblock.generation {
            superblock = other;
        }
    }
    let chunks = superblock.system_chunks.clone();
    let (blocks, changes) = (Blocks::default(), BTreeMap::new());
    let sums = Sums::default();
    let mut volume = Volume { devices: members, main, chunks, superblock, blocks, changes, sums };
    volume.read_chunks()?;
    volume.sums.tree = volume.sum_tree()?;
    let consistency = volume.replay_logs()?;
    let default = volume.default_subvolume()?;
    Ok(Some(Arc::new(Btrfs { volume, default, consistency })))
}

/// The devices and what is known of where things are on them.
#[derive(Debug)]
struct Volume {
    devices: BTreeMap<u64, Arc<dyn Device>>,
    /// The device that was opened, of which extents tell.
    main: u64,
    chunks: Chunks,
    superblock: Superblock,
    blocks: Blocks,
    /// What the logs change, by the subvolume.
    changes: BTreeMap<u64, Changes>,
    sums: Sums,
}

impl Volume {
    /// Reads the tree of chunks by those that the superblock has.
    fn read_chunks(&mut self) -> Result<()> {
        let (address, level) = self.superblock.chunk_root;
        let mut all = Chunks::default();
        self.each_item(Tree { id: 0, address, level }, Key::new(CHUNK_OBJECT, CHUNK_ITEM, 0), |key, item| {
            if (key.object, key.kind) != (CHUNK_OBJECT, CHUNK_ITEM) {
                return Ok(false);
            }
            all.add(key.offset, item)?;
            Ok(true)
        })?;
        self.chunks = all;
        Ok(())
    }

    fn root_tree(&self) -> Tree {
        let (address, level) = self.superblock.root;
        Tree { id: 0, address, level }
    }

    /// Replays what was synced since the last commit; tells what the view is then.
    fn replay_logs(&mut self) -> Result<Consistency> {
        if self.superblock.log_root.0 == 0 {
            return Ok(Consistency::Clean);
        }
        match log::replay(self) {
            Ok(replayed) => {
                self.changes = replayed.changes;
                if self.superblock.crc {
                    self.sums.logged = replayed.sums;
                }
                Ok(Consistency::ReplayedInMemory)
            }
            Err(error @ Error::Read { .. }) => Err(error),
            Err(error) => {
                let device = self.devices.get(&self.main).map(|device| device.name());
                tracing::warn!(device, %error, "the logs of Btrfs are left alone");
                Ok(Consistency::DirtyIgnored)
            }
        }
    }

    fn read_place(&self, place: Place, buf: &mut [u8]) -> Result<()> {
        let Some(device) = self.devices.get(&place.device) else {
            let what = format!("device {} of Btrfs {}", place.device, uuid_text(&self.superblock.uuid));
            return Err(Error::unsupported(what, "it was not opened together with the others"));
        };
        device.read_at(place.at, buf)
    }

    /// Fills `buf` with the bytes at an address, from any device that has them.
    fn read_address(&self, address: u64, buf: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let mut trouble = None;
            let mut len = 0;
            for place in self.chunks.find(address + done as u64)? {
                len = place.len.min((buf.len() - done) as u64) as usize;
                match self.read_place(place, &mut buf[done..done + len]) {
                    Ok(()) => {
                        trouble = None;
                        break;
                    }
                    Err(error) => trouble = Some(error),
                }
            }
            if let Some(error) = trouble {
                return Err(error);
            }
            if len == 0 {
                return Err(Error::damaged("a chunk of Btrfs", format!("it has no place for address {address}")));
            }
            done += len;
        }
        Ok(())
    }
}

/// An open file system.
#[derive(Debug)]
struct Btrfs {
    volume: Volume,
    /// The tree that is mounted when none is named.
    default: u64,
    consistency: Consistency,
}

impl Btrfs {
    fn of(&self, node: NodeId) -> Result<Inode> {
        Inode::read(&self.volume, node)
    }
}

impl FileSystem for Btrfs {
    fn info(&self) -> FileSystemInfo {
        let superblock = &self.volume.superblock;
        let mut info = FileSystemInfo::new("btrfs", superblock.sector_size, superblock.total);
        let label = String::from_utf8_lossy(until_nul(&superblock.label));
        info.label = (!label.is_empty()).then(|| label.into_owned());
        info.uuid = Some(uuid_text(&superblock.uuid));
        info.free = Some(superblock.total.saturating_sub(superblock.used));
        info.devices = superblock.devices;
        info.consistency = self.consistency;
        info
    }

    fn root(&self) -> NodeId {
        NodeId { tree: self.default, number: ROOT_DIRECTORY }
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        if subvolume::is_absent(node) {
            return Ok(Metadata::new(FileKind::Directory, 0));
        }
        Ok(self.of(node)?.metadata)
    }

    fn lookup(&self, directory: NodeId, name: &FileName) -> Result<Option<NodeId>> {
        self.find(directory, name.as_bytes())
    }

    fn read_dir(self: Arc<Self>, directory: NodeId) -> Result<Entries> {
        self.list(directory)
    }

    fn read_link(&self, node: NodeId) -> Result<FileName> {
        let inode = self.of(node)?;
        if inode.metadata.kind != FileKind::Symlink {
            return Err(Error::Invalid(format!("{} is no symbolic link", inode::describe(node))));
        }
        let len = usize::try_from(inode.metadata.size).ok().filter(|len| (1..=MAX_LINK).contains(len));
        let len = len.ok_or_else(|| inode.damaged(format!("a symbolic link of {} bytes", inode.metadata.size)))?;
        let mut target = vec![0; len];
        self.read_content(&inode, 0, &mut target, &mut None)?;
        Ok(FileName::new(target))
    }

    fn open(self: Arc<Self>, node: NodeId, stream: Option<&FileName>) -> Result<Arc<dyn Content>> {
        no_streams(stream, || inode::describe(node))?;
        let what = inode::describe(node);
        if subvolume::is_absent(node) {
            return Err(Error::NotAFile { what, kind: "a directory" });
        }
        let inode = self.of(node)?;
        let kind = match inode.metadata.kind {
            FileKind::File => return Ok(Arc::new(Open::new(self, inode))),
            FileKind::Directory => "a directory",
            FileKind::Symlink => "a symbolic link",
            _ => "a special file",
        };
        Err(Error::NotAFile { what, kind })
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<(FileName, Vec<u8>)>> {
        if subvolume::is_absent(node) { Ok(Vec::new()) } else { self.attributes(&self.of(node)?) }
    }

    fn subvolumes(&self) -> Result<Vec<Subvolume>> {
        self.all_subvolumes()
    }
}

/// The root directory of each tree.
const ROOT_DIRECTORY: u64 = 256;
/// Under which chunks are kept in their tree.
const CHUNK_OBJECT: u64 = 256;
const CHUNK_ITEM: u8 = 228;
/// The kernel's `PATH_MAX`.
const MAX_LINK: usize = 4096;
