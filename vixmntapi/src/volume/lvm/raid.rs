//! How fresh a copy of a RAID 1 or 10 is: the metadata of `dm-raid`.

use crate::{
    bytes::{le_u32, le_u64},
    device::{Device, DeviceExt},
    error::Result,
};

/// What the metadata of a copy says.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Counts the changes of the array's state.
    pub(super) events: u64,
    /// A bit for each copy that failed.
    failed: u64,
    /// Where its rebuilding is; `u64::MAX` when it is done.
    recovered: u64,
}

impl State {
    /// Reads it. `None` when nothing is there yet, as after the volume was made and never used.
    pub(super) fn read(device: &dyn Device) -> Result<Option<Self>> {
        if device.size() < LEN as u64 {
            return Ok(None);
        }
        let bytes: [u8; LEN] = device.read_array(0)?;
        if le_u32(&bytes, 0) != Some(MAGIC) {
            return Ok(None);
        }
        let number = |at| le_u64(&bytes, at).unwrap_or(0);
        Ok(Some(Self { events: number(16), failed: number(24), recovered: number(32) }))
    }

    /// Whether the copy itself is still being built.
    pub(super) fn is_behind(&self) -> bool {
        self.recovered != u64::MAX
    }

    /// Whether the copy with this number failed. Only the newest state knows: who failed was told no more.
    pub(super) fn has_failed(&self, number: usize) -> bool {
        u32::try_from(number).ok().and_then(|number| self.failed.checked_shr(number)).unwrap_or(0) & 1 != 0
    }
}

/// `struct dm_raid_superblock` of the kernel's `drivers/md/dm-raid.c`.
const LEN: usize = 512;
/// `DmRd`, little-endian.
const MAGIC: u32 = 0x6452_6d44;
