//! How a set of disks is put together.

use std::{path::Path, sync::Arc};

use vmdk::{Access, Disk, Image, OpenOptions};

use super::DiskSet;
use crate::{
    device::{CacheOptions, CachedDisk, Device, PageCache},
    error::{Error, Result},
    volume::luks::Keys,
};

/// Takes the disks of a set, in the order in which the guest has them: the disk it boots from first.
#[derive(Default)]
#[must_use]
pub struct DiskSetBuilder {
    disks: Vec<Source>,
    cache: CacheOptions,
    keys: Keys,
}

enum Source {
    Image { image: Arc<dyn Image>, sector_size: u32 },
    Device(Arc<dyn Device>),
}

impl DiskSetBuilder {
    /// Adds a disk with sectors of 512 bytes: an image file, a `vixdisklib` disk's `image()`, or anything else.
    pub fn disk(self, image: impl Image + 'static) -> Self {
        self.disk_with_sectors(image, 512)
    }

    /// Adds a disk with sectors of so many bytes: 4096 for 4Kn disks.
    pub fn disk_with_sectors(mut self, image: impl Image + 'static, sector_size: u32) -> Self {
        self.disks.push(Source::Image { image: Arc::new(image), sector_size });
        self
    }

    /// Adds a device as it is: it is not read through the cache of the set.
    pub fn device(mut self, device: Arc<dyn Device>) -> Self {
        self.disks.push(Source::Device(device));
        self
    }

    /// Opens a VMDK for reading, with its chain of parents, and adds it.
    ///
    /// # Errors
    /// [`Error::Local`] with what `vmdk` says of it.
    pub fn vmdk(self, path: impl AsRef<Path>) -> Result<Self> {
        let disk = Disk::open(&path, &OpenOptions::new());
        Ok(self.disk(opened(disk, path.as_ref())?))
    }

    /// Opens an image without any header and adds it, whatever its first bytes look like.
    ///
    /// # Errors
    /// [`Error::Local`].
    pub fn raw(self, path: impl AsRef<Path>) -> Result<Self> {
        let disk = Disk::open_raw(&path, Access::ReadOnly);
        Ok(self.disk(opened(disk, path.as_ref())?))
    }

    /// Sets how the one cache for all disks works.
    pub fn cache(mut self, options: CacheOptions) -> Self {
        self.cache = options;
        self
    }

    /// Gives a passphrase, or the bytes of a key file, for volumes that are encrypted with LUKS. Each volume is opened
    /// with the first key that fits; one that none fits stays closed, and says so in
    /// [`Volume::degraded`](super::Volume::degraded). [`DiskSetBuilder::open`] takes seconds and up to 1 GiB of memory
    /// for each key and slot, as their maker chose.
    #[cfg(feature = "luks")]
    pub fn passphrase(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.keys.passphrase(secret.as_ref());
        self
    }

    /// Gives the key of a volume itself, as `cryptsetup luksDump --dump-volume-key` tells it.
    #[cfg(feature = "luks")]
    pub fn volume_key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.keys.volume_key(key.as_ref());
        self
    }

    /// Limits the work that the header of a volume may ask for before it is refused, in KiB that Argon2 passes over: its
    /// memory times its passes, for every key and slot that is tried. An iteration of PBKDF2 counts as one. The default,
    /// 64 GiB, is a minute or so; what `cryptsetup` writes asks for 4 GiB a slot at most.
    #[cfg(feature = "luks")]
    pub fn limit_key_work(mut self, kib: u64) -> Self {
        self.keys.limit_work(kib);
        self
    }

    /// Reads the partition tables and the metadata of volume managers. File systems are not looked at yet. What is
    /// damaged or missing does not fail this: see [`DiskSet::problems`].
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no disk.
    #[doc(alias = "VixMntapi_OpenDiskSet")]
    #[doc(alias = "VixMntapi_OpenDisks")]
    pub fn open(self) -> Result<DiskSet> {
        if self.disks.is_empty() {
            return Err(Error::Invalid("a set without disks".into()));
        }
        let cache = PageCache::new(self.cache);
        let disks = self.disks.into_iter().enumerate().map(|(number, source)| match source {
            Source::Device(device) => device,
            Source::Image { image, sector_size } => {
                Arc::new(CachedDisk::new(image, &cache, format!("disk {number}")).sectors_of(sector_size))
            }
        });
        Ok(DiskSet::new(disks.collect(), cache, &self.keys))
    }
}

fn opened(disk: vmdk::Result<Disk>, path: &Path) -> Result<Disk> {
    disk.map_err(|error| Error::Local {
        operation: "open",
        path: path.display().to_string(),
        source: std::io::Error::other(error),
    })
}
