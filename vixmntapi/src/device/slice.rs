//! A part of a device: a partition.

use std::{ops::Range, sync::Arc};

use super::{Device, check};
use crate::error::{Error, Result};

/// A run of bytes of another device.
#[derive(Clone, Debug)]
pub struct Slice {
    device: Arc<dyn Device>,
    range: Range<u64>,
    name: String,
}

impl Slice {
    /// Cuts `range` out of `device`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it leaves the device.
    pub fn new(device: Arc<dyn Device>, range: Range<u64>, name: impl Into<String>) -> Result<Self> {
        if range.start > range.end || range.end > device.size() {
            let size = device.size();
            return Err(Error::Invalid(format!("bytes {range:?} are not in {}, which has {size}", device.name())));
        }
        Ok(Self { device, range, name: name.into() })
    }

    /// Where it lies, in bytes of the device that it was cut from.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }
}

impl Device for Slice {
    fn size(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn sector_size(&self) -> u32 {
        self.device.sector_size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check(self, offset, buf.len())?;
        self.device.read_at(self.range.start + offset, buf)
    }

    fn below(&self, offset: u64) -> Option<(Arc<dyn Device>, u64, u64)> {
        (offset < self.size()).then(|| (self.device.clone(), self.range.start + offset, self.size() - offset))
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
