//! The boot region of exFAT: Microsoft's "exFAT file system specification", chapter 3.

use std::sync::Arc;

use crate::{
    bytes::{le_u16, le_u32, le_u64, u8_at},
    device::{Device, DeviceExt},
    error::{Error, Result},
    fs::fat::{Table, Width},
};

/// What a boot region says.
pub(super) struct Boot {
    pub(super) table: Table,
    /// The first cluster of the root directory.
    pub(super) root: u32,
    pub(super) serial: u32,
    /// In bytes.
    pub(super) total: u64,
    /// Whether the volume is in use.
    pub(super) dirty: bool,
}

impl Boot {
    /// Reads the boot region, and its copy when the first one is damaged. `None` when it is not of exFAT.
    pub(super) fn read(device: &Arc<dyn Device>) -> Result<Option<Self>> {
        if device.size() < 512 {
            return Ok(None);
        }
        let sector = device.read_array::<512>(0)?;
        if sector.get(3..11) != Some(NAME) {
            return Ok(None);
        }
        let damaged = |problem: &str| Error::damaged(format!("the boot region of {}", device.name()), problem);
        let shift = u8_at(&sector, 108).filter(|shift| (9..=12).contains(shift));
        let shift = shift.ok_or_else(|| damaged("it claims sectors of another size than 512 to 4096 bytes"))?;
        for region in [0, REGION] {
            let at = region << shift;
            if at + (REGION << shift) > device.size() {
                break;
            }
            let raw = device.read_vec(at, (REGION << shift) as usize)?;
            if is_whole(&raw, 1 << shift) {
                let boot = parse(device, &raw, shift.into());
                return boot.map(Some).ok_or_else(|| damaged("its fields contradict each other"));
            }
        }
        Err(damaged("the checksum is wrong, and that of its copy too"))
    }
}

/// Whether the checksum in the last sector is that of the others.
fn is_whole(raw: &[u8], sector: usize) -> bool {
    let (Some(covered), Some(stored)) = (raw.get(..11 * sector), le_u32(raw, 11 * sector)) else { return false };
    let counts = |at: usize| !matches!(at, 106 | 107 | 112); // the flags and the percentage that is in use
    let bytes = covered.iter().enumerate().filter(|(at, _)| counts(*at));
    let sum = bytes.fold(0_u32, |sum, (_, byte)| sum.rotate_right(1).wrapping_add(u32::from(*byte)));
    sum == stored && covered.get(3..11) == Some(NAME)
}

fn parse(device: &Arc<dyn Device>, raw: &[u8], shift: u32) -> Option<Boot> {
    let sectors = le_u64(raw, 72)?;
    let table_start = u64::from(le_u32(raw, 80)?);
    let table_len = u64::from(le_u32(raw, 84)?);
    let heap = u64::from(le_u32(raw, 88)?);
    let clusters = le_u32(raw, 92)?;
    let flags = le_u16(raw, 106)?;
    let cluster_shift = shift + u32::from(u8_at(raw, 109)?);
    let tables = u8_at(raw, 110)?;
    if cluster_shift > 25 || !matches!(tables, 1 | 2) || clusters > LAST_CLUSTER {
        return None;
    }
    let total = sectors.checked_mul(1 << shift)?;
    let in_heap = u64::from(clusters).checked_mul(1 << cluster_shift)?;
    let fits = (heap << shift).checked_add(in_heap)? <= total && (u64::from(clusters) + 2) * 4 <= table_len << shift;
    let active = if tables == 2 && flags & ACTIVE_FAT != 0 { table_len } else { 0 };
    fits.then(|| Boot {
        table: Table {
            device: device.clone(),
            start: (table_start + active) << shift,
            width: Width::ThirtyTwo,
            clusters,
            heap: heap << shift,
            cluster_size: 1 << cluster_shift,
        },
        root: le_u32(raw, 96).unwrap_or_default(),
        serial: le_u32(raw, 100).unwrap_or_default(),
        total,
        dirty: flags & VOLUME_DIRTY != 0,
    })
}

/// The name of the file system, in the boot sector.
const NAME: &[u8] = b"EXFAT   ";
/// Sectors of a boot region.
const REGION: u64 = 12;
/// Flags of the volume.
const ACTIVE_FAT: u16 = 1;
const VOLUME_DIRTY: u16 = 2;
/// The most clusters that a volume may have.
const LAST_CLUSTER: u32 = 0xffff_fff5;
