//! A disk read through the cache of its set.

use std::{fmt, io, sync::Arc};

use vmdk::Image;

use super::{Device, PageCache, check};
use crate::error::{Error, Result};

/// Any disk that the crate `vmdk` knows how to read, or `vixdisklib` or a recovery point makes look like one.
pub struct CachedDisk {
    image: Arc<dyn Image>,
    cache: Arc<PageCache>,
    number: u32,
    sector_size: u32,
    name: String,
}

impl CachedDisk {
    /// Takes a disk; its sectors have 512 bytes unless [`CachedDisk::sectors_of`] says otherwise.
    pub fn new(image: Arc<dyn Image>, cache: &Arc<PageCache>, name: impl Into<String>) -> Self {
        Self { image, cache: cache.clone(), number: cache.disk(), sector_size: 512, name: name.into() }
    }

    /// Sets the bytes of a sector: 4096 for 4Kn disks.
    #[must_use]
    pub fn sectors_of(mut self, bytes: u32) -> Self {
        self.sector_size = bytes;
        self
    }
}

impl fmt::Debug for CachedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedDisk").field("name", &self.name).field("size", &self.size()).finish_non_exhaustive()
    }
}

impl Device for CachedDisk {
    fn size(&self) -> u64 {
        self.image.capacity()
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check(self, offset, buf.len())?;
        self.cache.read(self.number, self.size(), offset, buf, |at, buf| {
            let len = buf.len() as u64;
            self.image.read_at(at, buf).map_err(|error| Error::Read {
                device: self.name.clone(),
                offset: at,
                len,
                source: io::Error::other(error),
            })
        })
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
