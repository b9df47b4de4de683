//! Folders of this computer, entered name by name: no link is followed, so nothing leads out of them.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, XattrFlags},
    io::Errno,
};

use crate::{
    error::{Error, Result},
    fs::{FileName, Metadata, Timestamp},
};

/// An open folder.
pub(super) struct Folder {
    fd: OwnedFd,
    /// For messages.
    path: PathBuf,
}

impl Folder {
    /// Opens the folder that the caller names, by whatever path.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let fd = fs::open(path, FOLDER, Mode::empty());
        Ok(Self { fd: fd.map_err(|error| local("open the folder", path, error))?, path: path.to_owned() })
    }

    /// Makes a folder in this one, or enters the one that is there.
    pub(super) fn make(&self, name: &[u8]) -> Result<Self> {
        match fs::mkdirat(&self.fd, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => self.enter(name),
            Err(error) => Err(self.error("make the folder", name, error)),
        }
    }

    pub(super) fn enter(&self, name: &[u8]) -> Result<Self> {
        let fd = fs::openat(&self.fd, name, FOLDER | OFlags::NOFOLLOW, Mode::empty());
        let fd = fd.map_err(|error| self.error("enter the folder", name, error))?;
        Ok(Self { fd, path: self.path_of(name) })
    }

    /// What is there by a name, itself.
    pub(super) fn look(&self, name: &[u8]) -> Result<Option<Stat>> {
        match fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.error("look at", name, error)),
        }
    }

    /// Begins a file that nobody else can read, under a name of its own; what an earlier copy left there goes.
    pub(super) fn begin(&self) -> Result<File> {
        self.forget_partial();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, PARTIAL, flags, Mode::RUSR | Mode::WUSR);
        Ok(fd.map_err(|error| self.error("make the file", PARTIAL, error))?.into())
    }

    /// Gives the file that was begun its name; what has it is replaced.
    pub(super) fn finish(&self, name: &[u8]) -> Result<()> {
        fs::renameat(&self.fd, PARTIAL, &self.fd, name).map_err(|error| self.error("name the file", name, error))
    }

    pub(super) fn forget_partial(&self) {
        // A later copy tries again, and says what is the matter.
        let _ = fs::unlinkat(&self.fd, PARTIAL, AtFlags::empty());
    }

    pub(super) fn remove(&self, name: &[u8]) -> Result<()> {
        fs::unlinkat(&self.fd, name, AtFlags::empty()).map_err(|error| self.error("replace", name, error))
    }

    pub(super) fn symlink(&self, name: &[u8], target: &[u8]) -> Result<()> {
        fs::symlinkat(target, &self.fd, name).map_err(|error| self.error("make the link", name, error))
    }

    pub(super) fn read_link(&self, name: &[u8]) -> Option<Vec<u8>> {
        fs::readlinkat(&self.fd, name, Vec::new()).ok().map(std::ffi::CString::into_bytes)
    }

    pub(super) fn hard_link(&self, name: &[u8], from: &Self, old: &[u8]) -> Result<()> {
        let linked = fs::linkat(&from.fd, old, &self.fd, name, AtFlags::empty());
        linked.map_err(|error| self.error("make the hard link", name, error))
    }

    pub(super) fn special(&self, name: &[u8], kind: FileType, device: (u32, u32)) -> Result<()> {
        let device = fs::makedev(device.0, device.1);
        let made = fs::mknodat(&self.fd, name, kind, Mode::RUSR | Mode::WUSR, device);
        made.map_err(|error| self.error("make the special file", name, error))
    }

    /// Sets what is kept of the folder itself.
    pub(super) fn set(
        &self,
        mode: u32,
        metadata: &Metadata,
        owners: bool,
        xattrs: &[(FileName, Vec<u8>)],
    ) -> Result<()> {
        set(&self.fd, &self.path, mode, metadata, owners, xattrs)
    }

    /// Sets what is kept of a file that was [begun](Folder::begin).
    pub(super) fn set_file(
        &self,
        file: &File,
        mode: u32,
        metadata: &Metadata,
        owners: bool,
        xattrs: &[(FileName, Vec<u8>)],
    ) -> Result<()> {
        set(file, &self.path_of(PARTIAL), mode, metadata, owners, xattrs)
    }

    /// Sets an extended attribute of the folder itself.
    pub(super) fn set_attribute(&self, name: &FileName, value: &[u8]) -> Result<()> {
        set_attribute(&self.fd, &self.path, name, value)
    }

    /// Sets an extended attribute of a file that was [begun](Folder::begin).
    pub(super) fn set_attribute_of_file(&self, file: &File, name: &FileName, value: &[u8]) -> Result<()> {
        set_attribute(file, &self.path_of(PARTIAL), name, value)
    }

    /// Sets what is kept of a link or special file, which cannot be opened.
    pub(super) fn set_closed(
        &self,
        name: &[u8],
        mode: Option<u32>,
        metadata: &Metadata,
        owners: bool,
        xattrs: &[(FileName, Vec<u8>)],
    ) -> Result<()> {
        if owners {
            let (user, group) = (fs::Uid::from_raw(metadata.uid), fs::Gid::from_raw(metadata.gid));
            fs::chownat(&self.fd, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| self.error("set the owner of", name, error))?;
        }
        if let Some(mode) = mode {
            fs::chmodat(&self.fd, name, Mode::from_raw_mode(mode), AtFlags::empty())
                .map_err(|error| self.error("set the permissions of", name, error))?;
        }
        if !xattrs.is_empty() {
            use std::os::fd::AsRawFd as _;
            // Attributes of links are set by paths alone; the last name of this one is not followed.
            let mut path = format!("/proc/self/fd/{}/", self.fd.as_raw_fd()).into_bytes();
            path.extend_from_slice(name);
            for (attribute, value) in xattrs {
                fs::lsetxattr(&*path, attribute.as_bytes(), value, XattrFlags::empty())
                    .map_err(|error| self.error(SET_ATTRIBUTE, name, error))?;
            }
        }
        fs::utimensat(&self.fd, name, &times(metadata), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.error("set the times of", name, error))
    }

    pub(super) fn error(&self, operation: &'static str, name: &[u8], error: impl Into<io::Error>) -> Error {
        local(operation, &self.path_of(name), error)
    }

    fn path_of(&self, name: &[u8]) -> PathBuf {
        use std::os::unix::ffi::OsStrExt as _;
        self.path.join(std::ffi::OsStr::from_bytes(name))
    }
}

/// The owner first: a change of it takes setuid away. Times last.
fn set(
    fd: impl AsFd,
    path: &Path,
    mode: u32,
    metadata: &Metadata,
    owners: bool,
    xattrs: &[(FileName, Vec<u8>)],
) -> Result<()> {
    let fd = fd.as_fd();
    if owners {
        let (user, group) = (fs::Uid::from_raw(metadata.uid), fs::Gid::from_raw(metadata.gid));
        fs::fchown(fd, Some(user), Some(group)).map_err(|error| local("set the owner of", path, error))?;
    }
    fs::fchmod(fd, Mode::from_raw_mode(mode)).map_err(|error| local("set the permissions of", path, error))?;
    for (name, value) in xattrs {
        set_attribute(fd, path, name, value)?;
    }
    fs::futimens(fd, &times(metadata)).map_err(|error| local("set the times of", path, error))
}

fn set_attribute(fd: impl AsFd, path: &Path, name: &FileName, value: &[u8]) -> Result<()> {
    let set = fs::fsetxattr(fd, name.as_bytes(), value, XattrFlags::empty());
    set.map_err(|error| local(SET_ATTRIBUTE, path, error))
}

fn times(metadata: &Metadata) -> Timestamps {
    let time = |at: Timestamp| Timespec { tv_sec: at.seconds, tv_nsec: at.nanos.into() };
    Timestamps { last_access: time(metadata.times.accessed), last_modification: time(metadata.times.modified) }
}

fn local(operation: &'static str, path: &Path, error: impl Into<io::Error>) -> Error {
    Error::Local { operation, path: path.display().to_string(), source: error.into() }
}

/// The operation of errors with extended attributes.
pub(super) const SET_ATTRIBUTE: &str = "set an attribute of";
/// A file that is not whole has this name, in the folder that it will be in.
pub(super) const PARTIAL: &[u8] = b".vixmntapi-partial";
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
