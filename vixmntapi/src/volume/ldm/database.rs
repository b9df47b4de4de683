//! The database of a disk group, of which every disk of the group has a copy.

use std::collections::BTreeMap;

use super::{
    privhead::PrivHead,
    record::{Objects, Record},
};
use crate::{
    bytes::{be_u16, be_u32, be_u64, slice, until_nul},
    device::{Device, DeviceExt},
    error::{Error, Result},
};

/// A copy of the database.
#[derive(Debug)]
pub(super) struct Database {
    /// The group's name.
    pub(super) group: String,
    /// The number of the last change.
    pub(super) sequence: u64,
    /// No change was under way.
    pub(super) is_committed: bool,
    /// How many volumes, components, partitions and disks it has.
    counts: [u32; 4],
    /// Its records in blocks.
    blocks: Vec<u8>,
    /// Bytes of a block.
    block: usize,
}

impl Database {
    /// Reads the copy of a disk.
    pub(super) fn read(device: &dyn Device, head: &PrivHead) -> Result<Self> {
        let damaged = |problem: String| Error::damaged(format!("the LDM database of {}", device.name()), problem);
        let config = device.read_vec(head.config, head.config_len as usize)?;
        let sector = head.sector as usize;
        let sectors = config.len() / sector;
        // Tables of contents are in the second and third sector, and as far from the end.
        let places = [1, 2, sectors.saturating_sub(3), sectors.saturating_sub(2)];
        let start = places.iter().find_map(|place| contents(config.get(place * sector..)?));
        let (start, len) = start.ok_or_else(|| damaged("it has no table of contents".into()))?;
        let range = start.checked_mul(head.sector).zip(len.checked_mul(head.sector));
        let range = range.and_then(|(start, len)| Some((usize::try_from(start).ok()?, usize::try_from(len).ok()?)));
        let bytes = range.and_then(|(start, len)| slice(&config, start, len));
        let bytes = bytes.ok_or_else(|| damaged(format!("its records have {len} sectors from sector {start} on")))?;
        if !bytes.starts_with(MAGIC) {
            return Err(damaged("its records have no head".into()));
        }
        let number = |at| be_u32(bytes, at).unwrap_or(0);
        let (block, first) = (number(8) as usize, number(12) as usize);
        if !(MIN_BLOCK..=MAX_BLOCK).contains(&block) || first < HEAD {
            return Err(damaged(format!("its blocks have {block} bytes, the first at byte {first}")));
        }
        let group = String::from_utf8_lossy(until_nul(slice(bytes, 22, 31).unwrap_or_default())).into_owned();
        Ok(Self {
            group,
            sequence: be_u64(bytes, 117).unwrap_or(0),
            is_committed: be_u16(bytes, 16) == Some(COMMITTED),
            counts: [133, 137, 141, 145].map(number),
            blocks: bytes.get(first..).unwrap_or_default().to_vec(),
            block,
        })
    }

    /// What the group is made of.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the records contradict each other or are not all there.
    pub(super) fn objects(&self) -> Result<Objects> {
        let damaged = |problem: String| Error::damaged(format!("the LDM database of group {}", self.group), problem);
        if !self.is_committed {
            return Err(damaged("a change of it was under way on every disk".into()));
        }
        let mut objects = Objects::default();
        let mut torn: BTreeMap<u32, (u16, BTreeMap<u16, &[u8]>)> = BTreeMap::new();
        let blocks = self.blocks.chunks_exact(self.block).enumerate();
        for (number, block) in blocks.take_while(|(_, block)| block.starts_with(BLOCK_MAGIC)) {
            let (group, part, count) = (be_u32(block, 8), be_u16(block, 12), be_u16(block, 14));
            let (Some(group), Some(part), Some(count)) = (group, part, count) else { continue };
            let body = block.get(BLOCK_HEAD..).unwrap_or_default();
            match count {
                0 => {}
                1 => objects.add(Record::parse(body).ok_or_else(|| damaged(format!("record {number} is torn")))?),
                count => {
                    let (_, parts) = torn.entry(group).or_insert((count, BTreeMap::new()));
                    if parts.insert(part, body).is_some() {
                        return Err(damaged(format!("record {group} has its part {part} twice")));
                    }
                }
            }
        }
        for (group, (count, parts)) in torn {
            let is_whole = parts.keys().copied().eq(0..count);
            let body: Vec<u8> = parts.into_values().flatten().copied().collect();
            let record = Record::parse(&body).filter(|_| is_whole);
            objects.add(record.ok_or_else(|| damaged(format!("record {group} is torn")))?);
        }
        let found = objects.counts();
        if found != self.counts.map(|count| count as usize) {
            let expected = self.counts;
            return Err(damaged(format!(
                "it has {found:?} volumes, components, partitions and disks, not {expected:?}"
            )));
        }
        Ok(objects)
    }
}

/// Where the records are, in sectors: what a table of contents calls `config`.
fn contents(sector: &[u8]) -> Option<(u64, u64)> {
    if !sector.starts_with(CONTENTS_MAGIC) {
        return None;
    }
    let entry = [0x24, 0x46].into_iter().find(|at| {
        let name = slice(sector, *at, 8).unwrap_or_default();
        until_nul(name) == b"config"
    })?;
    Some((be_u64(sector, entry + 10)?, be_u64(sector, entry + 18)?))
}

const MAGIC: &[u8] = b"VMDB";
const CONTENTS_MAGIC: &[u8] = b"TOCBLOCK";
const BLOCK_MAGIC: &[u8] = b"VBLK";
/// No change is under way.
const COMMITTED: u16 = 1;
/// Bytes of the head of the records.
const HEAD: usize = 201;
/// Bytes of the head of a block.
const BLOCK_HEAD: usize = 16;
/// Blocks have 128 bytes, or 512 in large groups.
const MIN_BLOCK: usize = 32;
const MAX_BLOCK: usize = 64 << 10;
