//! Sets, volumes and mounts of VMware's library, as [`set`](crate::set) has its own.

use std::{fmt, path::Path, sync::Arc};

use vixmntapi_sys::load::{self, MountMode, OsInfo, SetInfo, VolumeInfo};

use super::folder::Folder;
use crate::{
    error::{Error, Result},
    fs::{FileName, FileSystem, NodeId},
    set::{Last, Resolver},
};

/// An open set of disks. Clones are the same set; it is closed when its last use is gone.
#[doc(alias = "VixDiskSetHandle")]
#[derive(Clone)]
pub struct DiskSet {
    inner: load::DiskSet,
    name: Arc<str>,
}

/// A volume of a set, which it keeps open.
#[doc(alias = "VixVolumeHandle")]
#[derive(Clone)]
pub struct Volume {
    inner: load::Volume,
    set: DiskSet,
}

/// A volume that is mounted in a folder of this machine, until its last use is gone.
pub struct Mounted {
    volume: Volume,
    // Before what it reads from: a folder with open files cannot be dismounted.
    files: Arc<dyn FileSystem>,
    inner: Arc<load::Mounted>,
}

impl DiskSet {
    pub(super) fn new(inner: load::DiskSet, name: String) -> Self {
        Self { inner, name: name.into() }
    }

    /// What the library says of it: on Linux, where the whole disk is a file.
    ///
    /// # Errors
    /// [`Error::Vendor`].
    #[doc(alias = "VixMntapi_GetDiskSetInfo")]
    #[doc(alias = "VixMntapi_FreeDiskSetInfo")]
    pub fn info(&self) -> Result<SetInfo> {
        self.inner.info().map_err(self.failed("describe"))
    }

    /// All volumes that the library finds.
    ///
    /// # Errors
    /// [`Error::Vendor`].
    #[doc(alias = "VixMntapi_GetVolumeHandles")]
    #[doc(alias = "VixMntapi_FreeVolumeHandles")]
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        let volumes = self.inner.volumes().map_err(self.failed("list the volumes of"))?;
        Ok(volumes.into_iter().map(|inner| Volume { inner, set: self.clone() }).collect())
    }

    /// What is installed: a Windows, on a proxy with Windows. Its system volume and the one that it boots from have to be
    /// mounted before.
    ///
    /// # Errors
    /// [`Error::Vendor`]; on Linux always.
    #[doc(alias = "VixMntapi_GetOsInfo")]
    #[doc(alias = "VixMntapi_FreeOsInfo")]
    pub fn os_info(&self) -> Result<OsInfo> {
        self.inner.os_info().map_err(self.failed("tell what is installed on"))
    }

    /// Closes the set, if this is its last use, and tells how that went. Dropping cannot tell.
    ///
    /// # Errors
    /// [`Error::Vendor`].
    #[doc(alias = "VixMntapi_CloseDiskSet")]
    pub fn close(self) -> Result<()> {
        let failed = self.failed("close");
        self.inner.close().map_err(failed)
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(load::Error) -> Error + use<> {
        let name = self.name.clone();
        Error::vendor(operation, move || name.to_string())
    }
}

impl Volume {
    /// Its number in the set, from 0 on.
    pub fn number(&self) -> usize {
        self.inner.number()
    }

    /// The set that it is of.
    pub fn set(&self) -> &DiskSet {
        &self.set
    }

    /// What the library says of it. Paths and mount points are known while it is mounted.
    ///
    /// # Errors
    /// [`Error::Vendor`].
    #[doc(alias = "VixMntapi_GetVolumeInfo")]
    #[doc(alias = "VixMntapi_FreeVolumeInfo")]
    pub fn info(&self) -> Result<VolumeInfo> {
        self.inner.info().map_err(self.failed("describe"))
    }

    /// Mounts the volume for reading, or joins those who have it mounted. The disk is locked meanwhile.
    ///
    /// # Errors
    /// [`Error::Vendor`]; [`Error::Local`] when the folder cannot be opened, [`Error::Invalid`] when none is told.
    #[doc(alias = "VixMntapi_MountVolume")]
    pub fn mount(&self) -> Result<Mounted> {
        let inner = Arc::new(self.inner.mount(MountMode::ReadOnly).map_err(self.failed("mount"))?);
        let Some(folder) = inner.folder() else {
            return Err(Error::Invalid(format!("VMware's library does not tell where it has mounted {self}")));
        };
        let files = Folder::open(folder, Some(inner.clone()))?;
        Ok(Mounted { volume: self.clone(), files, inner })
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(load::Error) -> Error + use<> {
        let name = self.to_string();
        Error::vendor(operation, move || name)
    }
}

impl Mounted {
    /// The volume.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// The folder of this machine in which its files are.
    ///
    /// Symbolic links of the guest lead wherever they say once a program follows them there, also into files of this
    /// machine. Those that [`Mounted::file_system`] and [`Mounted::lookup`] follow do not.
    #[doc(alias = "symbolicLink")]
    pub fn folder(&self) -> &Path {
        // It was told, or this would not be.
        self.inner.folder().unwrap_or(Path::new(""))
    }

    /// What the library said of the volume when it was mounted.
    pub fn info(&self) -> &VolumeInfo {
        self.inner.info()
    }

    /// Its files, as those of the other file systems of this crate. It may outlive this, and keeps the volume mounted.
    ///
    /// Names and their case are what this machine's kernel makes of them. Ids are those of this machine, and of a file
    /// that was seen in a listing or looked up; the last 262 144 files and a million directories are kept in mind.
    /// Alternate streams and security descriptors of Windows are not told.
    pub fn file_system(&self) -> &Arc<dyn FileSystem> {
        &self.files
    }

    /// Finds what a path names, at the end of all links; see [`crate::set::Mounted::lookup`].
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotADirectory`], [`Error::TooManyLinks`], [`Error::Local`].
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

    /// Dismounts the volume, if this is its last use, and tells how that went; dropping cannot tell. What was opened
    /// stays usable, and the volume mounted, until it is dropped as well. A volume that another program uses stays
    /// mounted until its set is closed.
    ///
    /// # Errors
    /// [`Error::Vendor`].
    #[doc(alias = "VixMntapi_DismountVolume")]
    pub fn dismount(self) -> Result<()> {
        let Self { volume, files, inner } = self;
        drop(files);
        match Arc::into_inner(inner) {
            Some(inner) => inner.dismount(false).map_err(volume.failed("dismount")),
            None => Ok(()),
        }
    }

    fn resolve(&self, path: &[u8], last: Last) -> Result<NodeId> {
        let letters = self.info().guest_mount_points.iter().map(|point| FileName::from(&**point));
        let letters: Vec<FileName> = letters.collect();
        Resolver::new(&*self.files, &letters).resolve(path, last)
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "volume {} of {}", self.number(), self.set.name)
    }
}

impl fmt::Debug for DiskSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DiskSet").field(&self.name).finish()
    }
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Volume").field(&self.number()).field(&self.set.name).finish()
    }
}

impl fmt::Debug for Mounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mounted").field(&self.volume).field(&self.folder()).finish()
    }
}
