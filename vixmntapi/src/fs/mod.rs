//! File systems, all behind one trait.

mod btrfs;
mod checksum;
mod exfat;
mod ext;
mod fat;
mod iso;
mod listing;
mod metadata;
mod name;
mod ntfs;
mod parts;
mod rooted;
mod security;
pub(crate) mod spans;
mod xfs;

use std::{fmt, ops::Range, sync::Arc};

pub(crate) use self::rooted::Rooted;
pub use self::{
    metadata::{FileKind, Metadata, Times, Timestamp},
    name::FileName,
    security::{SecurityDescriptor, Sid},
};
use crate::{
    device::Device,
    error::{Error, Result},
    volume::luks,
};

/// Names a file within its file system: the inode, the number of the MFT record with its sequence, or where the entry
/// of a FAT directory lies. It is the same whenever the same volume is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// The tree it is in: 0 but for the subvolumes of Btrfs.
    pub tree: u64,
    /// Its number there.
    pub number: u64,
}

/// A file system, opened for reading.
///
/// Readers are never told of a part as if it were the whole: what cannot be read is an error of the call that needs it.
/// All calls may run at once on many threads.
pub trait FileSystem: Send + Sync + fmt::Debug {
    /// What it is.
    fn info(&self) -> FileSystemInfo;

    /// The root directory.
    fn root(&self) -> NodeId;

    /// What there is to know of a file.
    ///
    /// # Errors
    /// [`Error::NotFound`] when nothing has this id; [`Error::Damaged`].
    fn metadata(&self, node: NodeId) -> Result<Metadata>;

    /// Finds a name in a directory, as the guest's system would: without regard to case where that one does so.
    ///
    /// # Errors
    /// [`Error::NotADirectory`], [`Error::Damaged`].
    fn lookup(&self, directory: NodeId, name: &FileName) -> Result<Option<NodeId>>;

    /// Lists a directory in the order in which it is stored, without `.` and `..`, and without holding it in memory.
    /// After an error the iterator ends: what came before is not the whole.
    ///
    /// # Errors
    /// [`Error::NotADirectory`].
    fn read_dir(self: Arc<Self>, directory: NodeId) -> Result<Entries>;

    /// Where a symbolic link leads, as stored. Links of Windows are made paths with `/`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is no link.
    fn read_link(&self, node: NodeId) -> Result<FileName>;

    /// Opens the content of a file, or one of its [alternate streams](FileSystem::streams).
    ///
    /// # Errors
    /// [`Error::NotAFile`]; [`Error::Unsupported`] for content that
    /// would be garbage without what is missing here: deduplicated or encrypted files, files in cloud storage.
    fn open(self: Arc<Self>, node: NodeId, stream: Option<&FileName>) -> Result<Arc<dyn Content>>;

    /// The extended attributes with their full names (`user.x`, `security.selinux`, `system.posix_acl_access` in the
    /// form in which Linux hands ACLs to programs).
    ///
    /// # Errors
    /// [`Error::Damaged`].
    fn xattrs(&self, node: NodeId) -> Result<Vec<(FileName, Vec<u8>)>> {
        let _ = node;
        Ok(Vec::new())
    }

    /// The names and sizes of alternate data streams.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    fn streams(&self, node: NodeId) -> Result<Vec<(FileName, u64)>> {
        let _ = node;
        Ok(Vec::new())
    }

    /// Trees of files that are mounted on their own, such as the subvolumes and snapshots of Btrfs: each with its root
    /// and its path from the root of all, not from [`FileSystem::root`]. All calls take nodes of any of them.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    fn subvolumes(&self) -> Result<Vec<Subvolume>> {
        Ok(Vec::new())
    }

    /// The security descriptor of Windows, self-relative: [`SecurityDescriptor::parse`] reads it.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    fn security_descriptor(&self, node: NodeId) -> Result<Option<Vec<u8>>> {
        let _ = node;
        Ok(None)
    }
}

/// A tree of files that is mounted on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subvolume {
    /// Its root directory.
    pub root: NodeId,
    /// Its path from the root of all, without a slash at the start; empty for that root itself.
    pub path: FileName,
    /// Whether it is the one that is mounted when none is named.
    pub is_default: bool,
}

impl Subvolume {
    /// Names one.
    pub fn new(root: NodeId, path: FileName, is_default: bool) -> Self {
        Self { root, path, is_default }
    }
}

/// What a directory holds, entry by entry.
pub type Entries = Box<dyn Iterator<Item = Result<Entry>> + Send>;

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The name.
    pub name: FileName,
    /// What it names.
    pub node: NodeId,
    /// What that is, where the directory says so.
    pub kind: Option<FileKind>,
}

impl Entry {
    /// Makes an entry.
    pub fn new(name: FileName, node: NodeId, kind: Option<FileKind>) -> Self {
        Self { name, node, kind }
    }
}

/// The bytes of an open file.
pub trait Content: Send + Sync {
    /// In bytes.
    fn size(&self) -> u64;

    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Damaged`].
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize>;

    /// What is in a range, cut at the file's end: ascending, without gaps.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>>;
}

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extent {
    /// In bytes of the file.
    pub range: Range<u64>,
    /// What is there.
    pub kind: ExtentKind,
}

impl Extent {
    /// Makes a part.
    pub fn new(range: Range<u64>, kind: ExtentKind) -> Self {
        Self { range, kind }
    }
}

/// What a part of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentKind {
    /// Nothing was written there: it reads as zeros.
    Hole,
    /// Space is set aside and nothing was written: it reads as zeros.
    Unwritten,
    /// The bytes lie as they are on the device, from this byte on.
    Stored(u64),
    /// The bytes are computed: compressed, or kept with the file's metadata.
    Encoded,
}

/// What a file system is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileSystemInfo {
    /// As the world calls it: `ext4`, `xfs`, `btrfs`, `ntfs`, `vfat`, `exfat`, `iso9660`.
    pub kind: &'static str,
    /// The name that somebody gave it.
    pub label: Option<String>,
    /// Its id, as `blkid` writes it.
    pub uuid: Option<String>,
    /// Bytes of a block or cluster.
    pub block_size: u32,
    /// In bytes.
    pub total: u64,
    /// In bytes, where it is known without counting.
    pub free: Option<u64>,
    /// How many devices it is on: 1 but for Btrfs, of which each of them is a volume with the same files.
    pub devices: u64,
    /// Whether this is what the guest's system would see.
    pub consistency: Consistency,
    /// Why it may not be, for people, where the file system tells more than that.
    pub doubts: Vec<String>,
}

impl FileSystemInfo {
    /// Makes one with what every file system has.
    pub fn new(kind: &'static str, block_size: u32, total: u64) -> Self {
        let consistency = Consistency::Clean;
        Self {
            kind,
            label: None,
            uuid: None,
            block_size,
            total,
            free: None,
            devices: 1,
            consistency,
            doubts: Vec::new(),
        }
    }
}

/// How far what is read is what the guest's system would see after it has mounted the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Consistency {
    /// The volume was unmounted, or frozen for its snapshot.
    Clean,
    /// The volume was in use; its journal was replayed in memory, as the guest's system does it on the disk.
    ReplayedInMemory,
    /// The volume was in use, and what was in flight is not taken into account: names and contents may be older than
    /// the guest has seen them, or contradict each other.
    DirtyIgnored,
    /// Another program's reader has the volume, and it does not tell.
    NotTold,
}

/// Tells what a device holds and opens it.
///
/// # Errors
/// [`Error::Unsupported`] for what is recognised and not read,
/// [`Error::Encrypted`]; `None` for what is not recognised.
pub fn open(device: &Arc<dyn Device>) -> Result<Option<Arc<dyn FileSystem>>> {
    for probe in PROBES {
        if let Some(found) = probe(device)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The same for a file system that may be on several devices, as Btrfs is: those among `others` that belong to it are
/// read as well. They are asked for only when they are needed. Extents tell of what lies on `device`.
///
/// # Errors
/// As [`open`].
pub fn open_among(
    device: &Arc<dyn Device>,
    others: &dyn Fn() -> Vec<Arc<dyn Device>>,
) -> Result<Option<Arc<dyn FileSystem>>> {
    match btrfs::open_among(device, others)? {
        Some(found) => Ok(Some(found)),
        None => open(device),
    }
}

/// What of a buffer the bytes of a file from an offset on fill.
fn within(size: u64, offset: u64, buf: &mut [u8]) -> &mut [u8] {
    let len = size.saturating_sub(offset).min(buf.len() as u64) as usize;
    &mut buf[..len]
}

/// Refuses an alternate stream where files have none.
fn no_streams(stream: Option<&FileName>, what: impl FnOnce() -> String) -> Result<()> {
    match stream {
        Some(stream) => Err(Error::NotFound(format!("stream {stream} of {}", what()))),
        None => Ok(()),
    }
}

/// Opens a device that holds one kind of file system, and leaves others alone.
type Probe = fn(&Arc<dyn Device>) -> Result<Option<Arc<dyn FileSystem>>>;

/// The most certain signs first.
const PROBES: &[Probe] =
    &[luks::probe, ntfs::probe, exfat::probe, xfs::probe, btrfs::probe, ext::probe, fat::probe, iso::probe];
