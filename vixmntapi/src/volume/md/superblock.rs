//! Superblocks of version 1: at the end (1.0), at the start (1.1), or 4 KiB behind it (1.2).

use super::{MAGIC, Member, SECTOR};
use crate::{
    bytes::{array, le_u16, le_u32, le_u64, slice, until_nul},
    device::{Device, DeviceExt},
    error::{Error, Result},
};

/// Reads the superblock of a device; `None` when it has none.
pub(super) fn read(device: &dyn Device) -> Result<Option<Member>> {
    let sectors = device.size() / SECTOR;
    // 1.0 lies at least 8 KiB before the end, at a multiple of 4 KiB.
    let last = sectors.checked_sub(16).map(|sector| sector & !7);
    for sector in [Some(8), Some(0), last].into_iter().flatten() {
        let place = sector * SECTOR;
        if place + LEN as u64 > device.size() {
            continue;
        }
        let bytes: [u8; LEN] = device.read_array(place)?;
        let is_it = le_u32(&bytes, 0) == Some(MAGIC) && le_u32(&bytes, 4) == Some(1);
        // One that is of another place is of another device, such as the partition that ends here.
        if is_it && le_u64(&bytes, 144) == Some(sector) {
            return parse(device, place, &bytes).map(Some);
        }
    }
    Ok(None)
}

fn parse(device: &dyn Device, place: u64, bytes: &[u8; LEN]) -> Result<Member> {
    let damaged = |problem: String| Error::damaged(format!("the md superblock of {}", device.name()), problem);
    let number = |at| le_u32(bytes, at).unwrap_or(0);
    let large = |at| le_u64(bytes, at).unwrap_or(0);
    let devices = number(220);
    if devices > MAX_DEVICES {
        return Err(damaged(format!("it counts {devices} devices")));
    }
    let whole = device.read_vec(place, LEN + 2 * devices as usize)?;
    if checksum(&whole) != number(216) {
        return Err(damaged("its checksum is wrong".into()));
    }
    let slots = number(92);
    if slots == 0 || slots > MAX_DEVICES {
        return Err(damaged(format!("the array has {slots} members")));
    }
    let roles = whole.get(LEN..).unwrap_or_default().chunks_exact(2);
    let roles: Vec<u32> = roles.filter_map(|role| le_u16(role, 0)).map(u32::from).collect();
    let role = roles.get(number(160) as usize).copied();
    let features = number(8);
    let sectors = |at: usize, what: &str| {
        let sectors = large(at);
        sectors.checked_mul(SECTOR).ok_or_else(|| damaged(format!("{what} is {sectors} sectors")))
    };
    let name = String::from_utf8_lossy(until_nul(slice(bytes, 32, 32).unwrap_or_default())).into_owned();
    let uuid: [u8; 16] = array(bytes, 16).unwrap_or_default();
    Ok(Member {
        uuid: uuid.chunks(4).map(hex).collect::<Vec<_>>().join(":"),
        name: name.split_once(':').map_or(&*name, |(_, name)| name).to_owned(),
        level: number(72) as i32,
        layout: number(76),
        chunk: u64::from(number(88)) * SECTOR,
        slots,
        events: large(200),
        slot: role.filter(|role| *role < slots && features & REPLACEMENT == 0),
        active: roles.into_iter().filter(|role| *role < slots).collect(),
        start: sectors(128, "the start of its data")?,
        room: sectors(136, "the room for its data")?,
        size: sectors(80, "the size of its data")?,
        is_behind: features & RECOVERING != 0,
        is_reshaped: features & (RESHAPING | NEW_PLACE) != 0,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `calc_sb_1_csum` of `drivers/md/md.c`: the sum of all words but its own, its carries added.
fn checksum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(4).enumerate().map(|(number, word)| match *word {
        _ if number == 216 / 4 => 0,
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
        [a, b, ..] => u32::from(u16::from_le_bytes([a, b])),
        _ => 0,
    });
    let sum: u64 = words.map(u64::from).sum();
    (sum as u32).wrapping_add((sum >> 32) as u32)
}

/// Bytes before the roles of the members.
const LEN: usize = 256;
/// More than the 1920 that fit.
const MAX_DEVICES: u32 = 4096;
/// `MD_FEATURE_RECOVERY_OFFSET`.
const RECOVERING: u32 = 2;
/// `MD_FEATURE_RESHAPE_ACTIVE`.
const RESHAPING: u32 = 4;
/// `MD_FEATURE_REPLACEMENT`: it takes another's place once it is built.
const REPLACEMENT: u32 = 16;
/// `MD_FEATURE_NEW_OFFSET`.
const NEW_PLACE: u32 = 64;
