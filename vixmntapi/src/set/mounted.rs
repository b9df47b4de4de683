//! A mounted volume: its files by their paths.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use super::{
    Volume,
    path::{Last, Resolver},
};
use crate::{
    error::{Error, Result},
    fs::{Content, Entries, FileName, FileSystem, Metadata, NodeId, Rooted},
};

/// The files of a volume, which it keeps open.
///
/// Paths are bytes with `/` between names, from the volume's root on; a leading `/` changes nothing. Symbolic links are
/// followed within the volume and never lead out of its root, whatever they say.
pub struct Mounted {
    volume: Volume,
    files: Arc<dyn FileSystem>,
}

impl Mounted {
    pub(super) fn new(volume: Volume, files: Arc<dyn FileSystem>) -> Self {
        volume.found().mounts.fetch_add(1, Ordering::Relaxed);
        Self { volume, files }
    }

    /// The volume.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// The file system. It may outlive this: it keeps open what it needs.
    pub fn file_system(&self) -> &Arc<dyn FileSystem> {
        &self.files
    }

    /// The files of a [subvolume](FileSystem::subvolumes) by its path from the root of all, in which its root directory is
    /// `/`.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none; [`Error::Damaged`].
    pub fn subvolume(&self, path: impl AsRef<[u8]>) -> Result<Self> {
        let path = path.as_ref();
        let all = self.files.subvolumes()?;
        let found = all.iter().find(|subvolume| subvolume.path.as_bytes() == path.strip_prefix(b"/").unwrap_or(path));
        let found = found.ok_or_else(|| Error::NotFound(format!("subvolume {}", path.escape_ascii())))?;
        Ok(self.at(found.root))
    }

    /// The same volume seen from one of its directories.
    pub(crate) fn at(&self, root: NodeId) -> Self {
        Self::new(self.volume.clone(), Arc::new(Rooted { files: self.files.clone(), root }))
    }

    /// Finds what a path names, at the end of all links.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotADirectory`], [`Error::TooManyLinks`], [`Error::Damaged`].
    pub fn lookup(&self, path: impl AsRef<[u8]>) -> Result<NodeId> {
        self.resolve(path.as_ref(), Last::Follow)
    }

    /// Finds what a path names, be it a link.
    ///
    /// # Errors
    /// As [`Mounted::lookup`].
    pub fn lookup_link(&self, path: impl AsRef<[u8]>) -> Result<NodeId> {
        self.resolve(path.as_ref(), Last::Keep)
    }

    /// Whether a path names something, at the end of all links.
    ///
    /// # Errors
    /// As [`Mounted::lookup`], but for what says that there is nothing.
    pub fn exists(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        match self.lookup(path) {
            Ok(_) => Ok(true),
            Err(error) if error.is_absence() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What there is to know of a file, at the end of all links.
    ///
    /// # Errors
    /// As [`Mounted::lookup`].
    pub fn metadata(&self, path: impl AsRef<[u8]>) -> Result<Metadata> {
        self.files.metadata(self.lookup(path)?)
    }

    /// Lists a directory.
    ///
    /// # Errors
    /// As [`Mounted::lookup`].
    pub fn read_dir(&self, path: impl AsRef<[u8]>) -> Result<Entries> {
        self.files.clone().read_dir(self.lookup(path)?)
    }

    /// Opens a file.
    ///
    /// # Errors
    /// As [`Mounted::lookup`] and [`FileSystem::open`].
    pub fn open(&self, path: impl AsRef<[u8]>) -> Result<Arc<dyn Content>> {
        self.files.clone().open(self.lookup(path)?, None)
    }

    /// Reads a whole file of at most `limit` bytes: for configuration, not for data.
    ///
    /// # Errors
    /// As [`Mounted::open`]; [`Error::Invalid`] when it is larger.
    pub fn read(&self, path: impl AsRef<[u8]>, limit: u64) -> Result<Vec<u8>> {
        let path = path.as_ref();
        read_whole(&*self.open(path)?, path, limit)
    }

    /// Ends the use of the volume; dropping does the same. What was opened stays usable until it is dropped as well.
    #[doc(alias = "VixMntapi_DismountVolume")]
    pub fn dismount(self) {}

    fn resolve(&self, path: &[u8], last: Last) -> Result<NodeId> {
        let letters: Vec<FileName> = self.volume.mount_points();
        Resolver::new(&*self.files, &letters).resolve(path, last)
    }
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read_whole(content: &dyn Content, path: &[u8], limit: u64) -> Result<Vec<u8>> {
    let size = content.size();
    if size > limit {
        let path = path.escape_ascii();
        return Err(Error::Invalid(format!("{path} has {size} bytes, more than the {limit} that were expected")));
    }
    let mut bytes = vec![0; size as usize];
    let len = content.read_at(0, &mut bytes)?;
    bytes.truncate(len);
    Ok(bytes)
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.volume.found().mounts.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Mounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mounted").field(self.volume.id()).finish()
    }
}

/// A mounted volume whose files are in a folder of this computer, until this is dropped.
#[cfg(all(feature = "fuse", target_os = "linux"))]
#[derive(Debug)]
pub(crate) struct InFolder {
    mounted: Mounted,
    folder: std::path::PathBuf,
}

#[cfg(all(feature = "fuse", target_os = "linux"))]
impl InFolder {
    pub(crate) fn new(mounted: Mounted, folder: std::path::PathBuf) -> Self {
        let folders = &mounted.volume.found().folders;
        folders.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(folder.clone());
        Self { mounted, folder }
    }
}

#[cfg(all(feature = "fuse", target_os = "linux"))]
impl Drop for InFolder {
    fn drop(&mut self) {
        let folders = &self.mounted.volume.found().folders;
        let mut folders = folders.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(at) = folders.iter().position(|folder| *folder == self.folder) {
            folders.remove(at);
        }
    }
}
