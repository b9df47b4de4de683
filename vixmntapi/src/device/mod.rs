//! Positioned reads from what may hold a file system: a disk, a partition, a logical volume.

mod cache;
mod disk;
mod overlay;
mod slice;

use std::{fmt, sync::Arc};

pub use self::{
    cache::{CacheFigures, CacheOptions, PageCache},
    disk::CachedDisk,
    overlay::Overlay,
    slice::Slice,
};
use crate::error::Result;

/// Something with a size that is read at positions, by many threads at once. There is no way to write.
pub trait Device: Send + Sync + fmt::Debug {
    /// Size in bytes.
    fn size(&self) -> u64;

    /// Bytes of a sector as the guest addresses it: 512, or 4096 for 4Kn disks.
    fn sector_size(&self) -> u32 {
        512
    }

    /// Fills `buf` with the bytes at `offset`.
    ///
    /// # Errors
    /// [`Error::Read`](crate::Error::Read), also when the range leaves the device; `buf` is then unspecified.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Where the byte at `offset` lies on the devices below: which device, at which of its bytes, and how many bytes
    /// from there on lie side by side. `None` for a device that has none below it, or whose bytes are computed.
    fn below(&self, offset: u64) -> Option<(Arc<dyn Device>, u64, u64)> {
        let _ = offset;
        None
    }

    /// What a person calls it: `disk 0`, `partition 2 of disk 0`, `vg0/root`.
    fn name(&self) -> String;
}

/// Wider calls on any device.
pub trait DeviceExt: Device {
    /// Reads `len` bytes at `offset` into a new buffer. For structures of a size that was checked, not for files.
    ///
    /// # Errors
    /// As [`Device::read_at`].
    fn read_vec(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut buffer = vec![0; len];
        self.read_at(offset, &mut buffer)?;
        Ok(buffer)
    }

    /// Reads an array at `offset`.
    ///
    /// # Errors
    /// As [`Device::read_at`].
    fn read_array<const N: usize>(&self, offset: u64) -> Result<[u8; N]> {
        let mut buffer = [0; N];
        self.read_at(offset, &mut buffer)?;
        Ok(buffer)
    }
}

impl<D: Device + ?Sized> DeviceExt for D {}

/// The error of a read that leaves a device.
pub(crate) fn outside(device: &dyn Device, offset: u64, len: usize) -> crate::Error {
    crate::Error::Read {
        device: device.name(),
        offset,
        len: len as u64,
        source: std::io::Error::new(std::io::ErrorKind::UnexpectedEof, format!("it has {} bytes", device.size())),
    }
}

/// Checks that a range lies in a device.
pub(crate) fn check(device: &dyn Device, offset: u64, len: usize) -> Result<()> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= device.size() => Ok(()),
        _ => Err(outside(device, offset, len)),
    }
}
