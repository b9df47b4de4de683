//! How a disk is opened, and where its files come from.

use std::{
    fmt, io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use crate::{
    error::{Error, Result},
    source::{FileSource, Handle},
};

/// Options of [`Disk::open`](super::Disk::open). The defaults suit an untrusted image that is only read.
#[derive(Clone)]
#[must_use]
pub struct OpenOptions {
    pub(super) access: Access,
    pub(super) format: Option<Format>,
    pub(crate) paths: PathPolicy,
    pub(crate) single_link: bool,
    pub(super) update_cid: bool,
    pub(super) cache_bytes: usize,
    pub(super) ignore_journal: bool,
    pub(super) grain_cache_bytes: usize,
    pub(crate) resolver: Arc<dyn Resolver>,
}

impl OpenOptions {
    /// Reads only, finds out the format by content, stays in the directory, follows parents, and keeps up to
    /// 8 MiB of grain tables (tables for 128 GiB of disk at the usual grain size) and as much of decompressed grains.
    pub fn new() -> Self {
        Self {
            access: Access::ReadOnly,
            format: None,
            paths: PathPolicy::SameDirectory,
            single_link: false,
            update_cid: true,
            cache_bytes: 8 << 20,
            ignore_journal: false,
            grain_cache_bytes: 8 << 20,
            resolver: Arc::new(LocalFiles),
        }
    }

    /// Sets what may be done with the disk. Parents are read only whatever this says.
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Short for [`Access::ReadWrite`].
    pub fn writable(self) -> Self {
        self.access(Access::ReadWrite)
    }

    /// Sets the format instead of finding it out. Name [`Format::Raw`] for disks whose content a guest
    /// controls: a guest may write what looks like a descriptor to its first sector.
    pub fn format(mut self, format: Format) -> Self {
        self.format = Some(format);
        self
    }

    /// Sets which files a descriptor may name.
    pub fn paths(mut self, policy: PathPolicy) -> Self {
        self.paths = policy;
        self
    }

    /// Opens this link alone: what it does not hold reads as zero.
    #[doc(alias = "VIXDISKLIB_FLAG_OPEN_SINGLE_LINK")]
    pub fn single_link(mut self, single: bool) -> Self {
        self.single_link = single;
        self
    }

    /// Whether the first write gives the disk a new content id, as the format demands so that children made
    /// before notice (default: yes).
    pub fn update_cid(mut self, update: bool) -> Self {
        self.update_cid = update;
        self
    }

    /// Bounds the cached grain tables and directories of the whole chain, in bytes; half a MiB is always used when
    /// needed.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Reads seSparse extents whose journal waits to be replayed as if there was none (default: they are refused).
    ///
    /// Such an extent is in use by a running machine, or its host died. **For salvage only**: directory and tables
    /// lack the last changes, or hold half of them, so that areas read as older data, as the parent's or as zero,
    /// and nothing tells which.
    pub fn ignore_journal(mut self, ignore: bool) -> Self {
        self.ignore_journal = ignore;
        self
    }

    /// Bounds the decompressed grains of the whole chain that are kept for later reads of their other parts, in bytes.
    /// Reads of whole grains keep none.
    pub fn grain_cache_bytes(mut self, bytes: usize) -> Self {
        self.grain_cache_bytes = bytes;
        self
    }

    /// Opens files in another way than from the local file system.
    pub fn resolver(mut self, resolver: Arc<dyn Resolver>) -> Self {
        self.resolver = resolver;
        self
    }

    /// Which files a descriptor may name.
    pub fn path_policy(&self) -> PathPolicy {
        self.paths
    }
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenOptions")
            .field("access", &self.access)
            .field("format", &self.format)
            .field("paths", &self.paths)
            .field("single_link", &self.single_link)
            .field("update_cid", &self.update_cid)
            .field("cache_bytes", &self.cache_bytes)
            .field("ignore_journal", &self.ignore_journal)
            .finish_non_exhaustive()
    }
}

/// What may be done with an opened disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads only.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// The bytes of the disk and nothing else.
    Raw,
    /// A text descriptor and extent files.
    Descriptor,
    /// A hosted sparse file, usually with its descriptor inside.
    Sparse,
}

/// Which files a descriptor may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathPolicy {
    /// Files in the directory of the descriptor and below: no absolute names and no `..`. Symbolic links
    /// there are followed: a descriptor can name them, but not make them.
    SameDirectory,
    /// Any file. Only for images from a trusted source: a descriptor could make any readable file of this
    /// machine part of the disk.
    Any,
}

impl PathPolicy {
    /// Where a file named in the descriptor at `descriptor` is, if it may be opened.
    pub(crate) fn locate(self, descriptor: &Path, name: &str) -> Result<PathBuf> {
        let object = || descriptor.display().to_string();
        let refuse = |reason| Err(Error::PathRefused { object: object(), name: name.to_owned(), reason });
        if name.contains("://") {
            let reason = "it is an object of a datastore, not a file";
            return Err(Error::not_supported(object(), format!("the extent {name:?}"), reason));
        }
        if name.is_empty() || name.contains('\0') {
            return refuse("it is no file name");
        }
        let relative = Path::new(name);
        if self == Self::SameDirectory {
            if relative.has_root() {
                return refuse("it is absolute");
            }
            if !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
                return refuse("it leaves the directory");
            }
        }
        Ok(descriptor.parent().unwrap_or(Path::new("")).join(relative))
    }
}

/// Opens the files of a disk. Implement it to read disks from a datastore or an object store.
pub trait Resolver: Send + Sync {
    /// Opens `path` with at least `access`; [`Handle::ReadOnly`] is refused where writing was asked for.
    ///
    /// # Errors
    /// Whatever the storage says.
    fn open(&self, path: &Path, access: Access) -> io::Result<Handle>;

    /// A name that is the same for all names of one file, to notice a disk that is its own ancestor.
    ///
    /// # Errors
    /// Whatever the storage says.
    fn identity(&self, path: &Path) -> io::Result<PathBuf>;

    /// Gives the small file at `path` other bytes, so that a crash leaves the old or the new ones, and returns it
    /// opened for writing. `None` says that this storage cannot; the file is then written over.
    ///
    /// # Errors
    /// Whatever the storage says; the file then has its old bytes.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<Option<Handle>> {
        let _ = (path, bytes);
        Ok(None)
    }
}

/// The local file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalFiles;

impl Resolver for LocalFiles {
    fn open(&self, path: &Path, access: Access) -> io::Result<Handle> {
        Ok(match access {
            Access::ReadOnly => Handle::ReadOnly(Arc::new(FileSource::open(path)?)),
            Access::ReadWrite => Handle::ReadWrite(Arc::new(FileSource::open_rw(path)?)),
        })
    }

    fn identity(&self, path: &Path) -> io::Result<PathBuf> {
        path.canonicalize()
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<Option<Handle>> {
        match FileSource::replace(path, bytes) {
            Ok(file) => Ok(Some(Handle::ReadWrite(Arc::new(file)))),
            // A file may be written where its directory may not.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
            Err(error) => Err(error),
        }
    }
}
