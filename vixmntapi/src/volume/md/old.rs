//! Superblocks of version 0.90, in the last 128 KiB of a device. Their numbers are in the order of the machine; here
//! that of x86.

use super::{MAGIC, Member};
use crate::{
    bytes::le_u32,
    device::{Device, DeviceExt},
    error::{Error, Result},
};

/// Reads the superblock of a device; `None` when it has none.
pub(super) fn read(device: &dyn Device) -> Result<Option<Member>> {
    let Some(place) = (device.size() & !(RESERVED - 1)).checked_sub(RESERVED) else { return Ok(None) };
    let head: [u8; 12] = device.read_array(place)?;
    let versions = (le_u32(&head, 0), le_u32(&head, 4), le_u32(&head, 8));
    let (Some(MAGIC), Some(0), Some(minor @ 90..=91)) = versions else { return Ok(None) };
    let bytes: [u8; LEN] = device.read_array(place)?;
    let damaged = |problem: String| Error::damaged(format!("the md superblock of {}", device.name()), problem);
    let number = |word: usize| le_u32(&bytes, 4 * word).unwrap_or(0);
    if checksum(&bytes) != number(38) {
        return Err(damaged("its checksum is wrong".into()));
    }
    let (level, slots, chunk) = (number(7) as i32, number(10), u64::from(number(65)));
    if slots == 0 || slots > MAX_DEVICES {
        return Err(damaged(format!("the array has {slots} members")));
    }
    let active = |disk: usize| Some(number(disk + 3)).filter(|_| number(disk + 4) & (FAULTY | SYNC) == SYNC);
    let size = u64::from(number(8)) * 1024;
    let uuid = [5, 13, 14, 15].map(|word| format!("{:08x}", number(word)));
    Ok(Some(Member {
        uuid: uuid.join(":"),
        name: String::new(),
        level,
        layout: number(64),
        chunk,
        slots,
        events: u64::from(number(40)) << 32 | u64::from(number(39)),
        slot: active(THIS_DISK).filter(|slot| *slot < slots),
        active: (0..MAX_DEVICES as usize).filter_map(|disk| active(DISKS + 32 * disk)).collect(),
        start: 0,
        // Everything before the superblock.
        room: place,
        size,
        is_behind: false,
        // 0.91 is written while the array is being given another form.
        is_reshaped: minor == 91,
    }))
}

/// `calc_sb_csum` of `drivers/md/md.c`: the sum of all words but its own, its carries added.
fn checksum(bytes: &[u8; LEN]) -> u32 {
    let words = bytes.chunks_exact(4).filter_map(|word| le_u32(word, 0));
    let sum: u64 = words.enumerate().filter(|(number, _)| *number != 38).map(|(_, word)| u64::from(word)).sum();
    (sum as u32).wrapping_add((sum >> 32) as u32)
}

/// Bytes of a superblock.
const LEN: usize = 4096;
/// `MD_RESERVED_BYTES`.
const RESERVED: u64 = 64 << 10;
/// `MD_SB_DISKS`.
const MAX_DEVICES: u32 = 27;
/// The word at which the descriptions of all members begin, of 32 words each.
const DISKS: usize = 128;
/// The word at which a member describes itself: number, major, minor, place, state.
const THIS_DISK: usize = 992;
/// Bits of a member's state.
const FAULTY: u32 = 1;
const SYNC: u32 = 4;
