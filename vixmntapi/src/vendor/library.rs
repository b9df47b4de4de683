//! The library for programs.

use std::path::Path;

use vixdisklib_sys::load::{Connection, Library as DiskLibrary};
use vixmntapi_sys::{
    OpenFlags,
    load::{Library, LibraryOptions, Proxy},
};

use super::set::DiskSet;
use crate::error::{Error, Result};

/// VMware's library, begun. Cheap to clone. It stays for the life of the process, or until
/// [`shut_down`](Self::shut_down).
#[derive(Debug, Clone)]
pub struct VixMntapi {
    inner: Library,
}

impl VixMntapi {
    /// Loads the library from a directory, or a file, and begins it: once a process. The directory is what the VDDK was
    /// unpacked to, from which `disks` was loaded as well. The same path and options again give the library that is
    /// there. Its log goes where that of `disks` goes.
    ///
    /// The file's initialisers run in this process, with its rights: name only what is trusted.
    ///
    /// # Errors
    /// [`Error::Vendor`]: every file that was tried, a function that is missing with its file, another library in use, or
    /// what the library itself says.
    #[doc(alias = "VixMntapi_Init")]
    pub fn load(disks: &DiskLibrary, path: impl AsRef<Path>, options: LibraryOptions) -> Result<Self> {
        let path = path.as_ref();
        let loaded = Library::load(disks, path, options);
        let inner = loaded.map_err(Error::vendor("load", || path.display().to_string()))?;
        tracing::info!(file = %inner.file().display(), "VMware's library for mounting is begun");
        Ok(Self { inner })
    }

    /// Opens disks by their paths, in the order in which the guest has them: `[ds] dir/x.vmdk`, or files of this machine.
    /// On Linux it is exactly one.
    ///
    /// # Errors
    /// [`Error::Vendor`].
    #[doc(alias = "VixMntapi_OpenDisks")]
    pub fn open(&self, connection: &Connection, disks: &[&str]) -> Result<DiskSet> {
        let opened = self.inner.open_disks(connection, disks, OpenFlags::READ_ONLY);
        let set = opened.map_err(Error::vendor("open", || disks.join(", ")))?;
        Ok(DiskSet::new(set, disks.join(", ")))
    }

    /// The system that the library runs on, whose limits are its own.
    pub fn proxy(&self) -> Proxy {
        self.inner.proxy()
    }

    /// The library as `vixmntapi-sys` has it, which can also write.
    pub fn as_sys(&self) -> &Library {
        &self.inner
    }

    /// Ends the library as soon as its last set is gone. It cannot be begun again in this process. The disk library can
    /// be shut down after that.
    #[doc(alias = "VixMntapi_Exit")]
    pub fn shut_down(self) {
        self.inner.shut_down();
    }
}
