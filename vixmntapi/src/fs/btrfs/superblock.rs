//! The superblock. Places are those of `include/uapi/linux/btrfs_tree.h`. Everything is little-endian.

use super::chunk::Chunks;
use crate::{
    bytes::{array, le_u16, le_u32, le_u64, slice, u8_at},
    device::{Device, DeviceExt},
    error::{Error, Result},
    fs::checksum::crc32c,
};

/// What the superblock says.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    pub(super) uuid: [u8; 16],
    /// What blocks of trees have instead of the id.
    pub(super) metadata_uuid: [u8; 16],
    pub(super) label: Vec<u8>,
    pub(super) generation: u64,
    pub(super) total: u64,
    pub(super) used: u64,
    pub(super) sector_size: u32,
    pub(super) node_size: u32,
    /// Where the trees of all trees and of chunks are, with their levels.
    pub(super) root: (u64, u8),
    pub(super) chunk_root: (u64, u8),
    /// Where the tree of the logs of what was synced since the last commit is, or 0, and its level.
    pub(super) log_root: (u64, u8),
    pub(super) root_directory: u64,
    /// How many devices it is on.
    pub(super) devices: u64,
    /// The id of this device among those of the file system.
    pub(super) device: u64,
    /// Whether checksums are CRC-32C.
    pub(super) crc: bool,
    /// The chunks that are needed to find all others.
    pub(super) system_chunks: Chunks,
}

impl Superblock {
    /// Reads the first of the copies that is whole, as the kernel does; `None` for a device that holds no Btrfs. Later copies
    /// know nothing of logs, and are written after the first one.
    pub(super) fn read(device: &dyn Device) -> Result<Option<Self>> {
        let mut trouble: Option<Error> = None;
        let mut of_first = None;
        for place in PLACES.iter().copied().filter(|place| place.saturating_add(SIZE as u64) <= device.size()) {
            let raw = device.read_vec(place, SIZE)?;
            if raw.get(64..72) != Some(MAGIC) || le_u64(&raw, 48) != Some(place) {
                if trouble.is_none() {
                    // The first copy says what this is; the others may be of a file system that was here before.
                    return Ok(None);
                }
                continue;
            }
            let uuid = array::<16>(&raw, 32);
            match Self::parse(&raw) {
                Ok(found) if trouble.is_none() || of_first == uuid => return Ok(Some(found)),
                Ok(_) => {}
                Err(error) => (trouble, of_first) = (trouble.or(Some(error)), of_first.or(uuid)),
            }
        }
        trouble.map_or(Ok(None), Err)
    }

    fn parse(raw: &[u8]) -> Result<Self> {
        let ends = || damaged("it ends early");
        let number = |at| le_u64(raw, at).ok_or_else(ends);
        let small = |at| le_u32(raw, at).ok_or_else(ends);
        let crc = match le_u16(raw, 196) {
            Some(CRC_32C) => true,
            Some(1..=3) => false,
            other => return Err(Error::unsupported("this Btrfs", format!("checksums of kind {other:?}"))),
        };
        if crc && Some(!crc32c(!0, &raw[32..])) != le_u32(raw, 0) {
            return Err(damaged("its checksum is wrong"));
        }
        let incompat = number(188)?;
        if incompat & !INCOMPAT_READ != 0 {
            return Err(Error::unsupported(
                "this Btrfs",
                format!("incompatible features {:#x}", incompat & !INCOMPAT_READ),
            ));
        }
        let (sector_size, node_size) = (small(144)?, small(148)?);
        let right = |size: u32| size.is_power_of_two() && (4096..=64 << 10).contains(&size);
        if !right(sector_size) || !right(node_size) {
            return Err(damaged(format!("sectors of {sector_size} bytes, nodes of {node_size}")));
        }
        let level = |at| u8_at(raw, at).ok_or_else(ends);
        let uuid = array(raw, 32).ok_or_else(ends)?;
        let array_len = small(160)? as usize;
        let chunks = slice(raw, 811, array_len).filter(|_| array_len <= 2048).ok_or_else(ends)?;
        Ok(Self {
            uuid,
            metadata_uuid: if incompat & METADATA_UUID != 0 { array(raw, 571).ok_or_else(ends)? } else { uuid },
            label: raw.get(299..555).unwrap_or_default().to_vec(),
            generation: number(72)?,
            total: number(112)?,
            used: number(120)?,
            sector_size,
            node_size,
            root: (number(80)?, level(198)?),
            chunk_root: (number(88)?, level(199)?),
            log_root: (number(96)?, level(200)?),
            root_directory: number(128)?,
            devices: number(136)?,
            device: number(201)?,
            crc,
            system_chunks: Chunks::of_array(chunks)?,
        })
    }
}

/// An error of the superblock.
fn damaged(problem: impl Into<String>) -> Error {
    Error::damaged("the Btrfs superblock", problem)
}

const PLACES: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];
const SIZE: usize = 4096;
const MAGIC: &[u8] = b"_BHRfS_M";
const CRC_32C: u16 = 0;
const METADATA_UUID: u64 = 0x400;
/// All but zones, extent trees of version 2 and the tree of stripes.
const INCOMPAT_READ: u64 = 0xfff | 0x1_0000;
