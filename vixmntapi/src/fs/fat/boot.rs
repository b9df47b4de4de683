//! The boot sector of FAT: Microsoft's "FAT: General Overview of On-Disk Format", version 1.03.

use std::sync::Arc;

use super::{
    runs::Runs,
    table::{Table, Width},
};
use crate::{
    bytes::{le_u16, le_u32, u8_at},
    device::{Device, DeviceExt},
    error::{Error, Result},
};

/// What a boot sector says.
pub(super) struct Boot {
    pub(super) table: Table,
    pub(super) root: Root,
    pub(super) serial: Option<u32>,
    /// The label here; the one in the root directory counts first.
    pub(super) label: Vec<u8>,
    /// In bytes.
    pub(super) total: u64,
    /// Where FAT32 keeps the number of free clusters.
    pub(super) info: Option<u64>,
    /// Whether Linux or Windows says here that the volume is in use.
    pub(super) dirty: bool,
}

/// Where the root directory is.
#[derive(Clone, Debug)]
pub(super) enum Root {
    /// At a place of its own, in FAT12 and FAT16.
    Fixed(Runs),
    /// In a chain of clusters.
    Chain(u32),
}

impl Boot {
    /// Reads the boot sector, if it is one of FAT.
    pub(super) fn read(device: &Arc<dyn Device>) -> Result<Option<Self>> {
        if device.size() < SECTOR as u64 {
            return Ok(None);
        }
        let sector = device.read_array::<SECTOR>(0)?;
        match Layout::parse(&sector) {
            Some(layout) if layout.is_fat() => layout.open(device, &sector).map(Some),
            _ => Ok(None),
        }
    }
}

/// The fields, of which some mean something together only.
struct Layout {
    sector: u32,
    sectors_per_cluster: u32,
    reserved: u32,
    tables: u32,
    root_entries: u32,
    sectors: u32,
    media: u8,
    table_len_16: u32,
    table_len_32: u32,
    signature: u16,
}

impl Layout {
    fn parse(raw: &[u8; SECTOR]) -> Option<Self> {
        let sectors_16 = u32::from(le_u16(raw, 19)?);
        Some(Self {
            sector: u32::from(le_u16(raw, 11)?),
            sectors_per_cluster: u32::from(u8_at(raw, 13)?),
            reserved: u32::from(le_u16(raw, 14)?),
            tables: u32::from(u8_at(raw, 16)?),
            root_entries: u32::from(le_u16(raw, 17)?),
            sectors: if sectors_16 == 0 { le_u32(raw, 32)? } else { sectors_16 },
            media: u8_at(raw, 21)?,
            table_len_16: u32::from(le_u16(raw, 22)?),
            table_len_32: le_u32(raw, 36)?,
            signature: le_u16(raw, 510)?,
        })
    }

    /// Whether this can be FAT: there is no magic number.
    fn is_fat(&self) -> bool {
        matches!(self.sector, 512 | 1024 | 2048 | 4096)
            && self.sectors_per_cluster.is_power_of_two()
            && self.reserved != 0
            && matches!(self.tables, 1..=4)
            && self.sectors != 0
            && (self.media == 0xf0 || self.media >= 0xf8)
            && self.signature == 0xaa55
    }

    fn open(&self, device: &Arc<dyn Device>, raw: &[u8; SECTOR]) -> Result<Boot> {
        let damaged = |problem: String| Error::damaged(format!("the boot sector of {}", device.name()), problem);
        let number_16 = |at| u64::from(le_u16(raw, at).unwrap_or_default());
        let number_32 = |at| le_u32(raw, at).unwrap_or_default();
        let is_32 = self.table_len_16 == 0;
        let sector = u64::from(self.sector);
        let table_len = u64::from(if is_32 { self.table_len_32 } else { self.table_len_16 });
        let root_start = u64::from(self.reserved) + u64::from(self.tables) * table_len;
        let root_len = (u64::from(self.root_entries) * 32).div_ceil(sector);
        let data = root_start + root_len;
        let clusters = u64::from(self.sectors).saturating_sub(data) / u64::from(self.sectors_per_cluster);
        if table_len == 0 || clusters == 0 {
            return Err(damaged(format!("{} sectors, of which the tables take {data}", self.sectors)));
        }
        let width = match clusters {
            _ if is_32 => Width::TwentyEight,
            0..4085 => Width::Twelve,
            _ => Width::Sixteen,
        };
        // What the table has no entries for cannot be used.
        let entries = match width {
            Width::Twelve => table_len * sector * 2 / 3,
            Width::Sixteen => table_len * sector / 2,
            Width::TwentyEight | Width::ThirtyTwo => (table_len * sector / 4).min(0x0fff_fff7),
        };
        let clusters = clusters.min(entries.saturating_sub(2)) as u32;
        let mut active = 0;
        let mut root = Root::Fixed(Runs::one(root_start * sector, u64::from(self.root_entries) * 32));
        let mut info = None;
        if is_32 {
            if number_16(42) != 0 {
                return Err(Error::unsupported("FAT32", format!("of version {:#06x}", number_16(42))));
            }
            root = Root::Chain(number_32(44));
            if number_16(40) & NOT_MIRRORED != 0 {
                active = number_16(40) & 15;
            }
            info = Some(number_16(48)).filter(|sector| !matches!(sector, 0 | 0xffff)).map(|at| at * sector);
        }
        if active >= u64::from(self.tables) {
            return Err(damaged(format!("table {active} of {} is in use", self.tables)));
        }
        // The extended fields are elsewhere in FAT32.
        let extended = if is_32 { 64 } else { 36 };
        let has = u8_at(raw, extended + 2);
        Ok(Boot {
            table: Table {
                device: device.clone(),
                start: (u64::from(self.reserved) + active * table_len) * sector,
                width,
                clusters,
                heap: data * sector,
                cluster_size: self.sectors_per_cluster * self.sector,
            },
            root,
            serial: matches!(has, Some(0x28 | 0x29)).then(|| number_32(extended + 3)),
            label: if has == Some(0x29) { raw[extended + 7..extended + 18].to_vec() } else { Vec::new() },
            total: u64::from(self.sectors) * sector,
            info,
            dirty: u8_at(raw, extended + 1).unwrap_or_default() & DIRTY != 0,
        })
    }
}

/// Bytes of a boot sector that mean something.
const SECTOR: usize = 512;
/// Flag of FAT32: one table is in use, not all.
const NOT_MIRRORED: u64 = 0x80;
/// State of the volume, as Windows NT and Linux keep it in a reserved byte.
const DIRTY: u8 = 1;
