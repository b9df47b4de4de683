//! The GUID Partition Table: UEFI specification 2.10, chapter 5.3.

use super::{Guid, Partition, PartitionKind, Scheme, Table};
use crate::{
    bytes::{le_u16, le_u32, le_u64},
    device::{Device, DeviceExt},
    error::{Error, Result},
    fs::FileName,
};

/// A table that was read and found whole.
pub(super) struct Gpt {
    /// Bytes of the sectors in which it counts.
    pub(super) sector_size: u32,
    id: Guid,
    partitions: Vec<Partition>,
}

impl Gpt {
    pub(super) fn into_table(self, scheme: Scheme, legacy: Vec<Partition>) -> Table {
        let Self { sector_size, id, partitions } = self;
        Table { scheme, id: Some(id.to_string()), sector_size, partitions, legacy }
    }
}

/// Reads the table at the start of a disk, and if that is damaged the copy at its end. `protected_end` is where the disk
/// ended when the table was made, in sectors, as the MBR says it.
pub(super) fn read(disk: &dyn Device, protected_end: Option<u64>) -> Result<(Gpt, Scheme)> {
    let mut problem = None;
    let mut backups = Vec::new();
    for sector_size in sector_sizes(disk) {
        match read_at(disk, 1, sector_size) {
            Ok(Outcome::Whole(gpt)) => return Ok((gpt, Scheme::Gpt)),
            Ok(Outcome::Damaged { why, backup }) => {
                // What is no header at all says less than one that is damaged.
                if backup.is_some() || problem.is_none() {
                    problem = Some(why);
                }
                let sectors = disk.size() / u64::from(sector_size);
                // The last sector; where it was before the disk grew; where the damaged header says.
                let places =
                    [Some(sectors.saturating_sub(1)), protected_end.and_then(|end| end.checked_sub(1)), backup];
                backups.extend(places.into_iter().flatten().map(|sector| (sector, sector_size)));
            }
            Err(error) => return Err(error),
        }
    }
    for (sector, sector_size) in backups {
        if let Outcome::Whole(gpt) = read_at(disk, sector, sector_size)? {
            return Ok((gpt, Scheme::GptBackup));
        }
    }
    let problem = problem.unwrap_or_default();
    Err(Error::damaged(
        format!("the GPT of {}", disk.name()),
        format!("{problem}, and there is no backup that is whole"),
    ))
}

/// Reads the table at the start of a disk.
pub(super) fn read_primary(disk: &dyn Device) -> Result<Option<Gpt>> {
    for sector_size in sector_sizes(disk) {
        if let Outcome::Whole(gpt) = read_at(disk, 1, sector_size)? {
            return Ok(Some(gpt));
        }
    }
    Ok(None)
}

/// The disk's own first; a copy made sector by sector onto another disk counts in the sectors of the old one.
fn sector_sizes(disk: &dyn Device) -> [u32; 2] {
    if disk.sector_size() == 4096 { [4096, 512] } else { [512, 4096] }
}

/// What is at the place of a header.
enum Outcome {
    Whole(Gpt),
    /// Nothing that counts; if it is a header at all, with the place of the other copy.
    Damaged {
        why: String,
        backup: Option<u64>,
    },
}

fn read_at(disk: &dyn Device, sector: u64, sector_size: u32) -> Result<Outcome> {
    let damaged = |why: String, backup| Ok(Outcome::Damaged { why, backup });
    let size = u64::from(sector_size);
    let place = sector.checked_mul(size).filter(|at| at.checked_add(size).is_some_and(|end| end <= disk.size()));
    let Some(place) = place else {
        return damaged(format!("the disk has no sector {sector}"), None);
    };
    let raw = disk.read_vec(place, sector_size as usize)?;
    if !raw.starts_with(b"EFI PART") {
        return damaged(format!("there is no header in sector {sector}"), None);
    }
    let Some(header) = Header::parse(&raw) else {
        return damaged(format!("the header in sector {sector} is too short"), None);
    };
    match header.check(&raw, sector, disk.size() / size) {
        Some(why) => damaged(format!("the header in sector {sector}: {why}"), Some(header.other)),
        None => match header.partitions(disk, sector_size)? {
            Some(partitions) => Ok(Outcome::Whole(Gpt { sector_size, id: header.id, partitions })),
            None => damaged(format!("the checksum of the entries of sector {sector} is wrong"), Some(header.other)),
        },
    }
}

struct Header {
    len: u32,
    checksum: u32,
    this: u64,
    other: u64,
    id: Guid,
    entries: u64,
    count: u32,
    entry_len: u32,
    entries_checksum: u32,
}

impl Header {
    fn parse(raw: &[u8]) -> Option<Self> {
        Some(Self {
            len: le_u32(raw, 12)?,
            checksum: le_u32(raw, 16)?,
            this: le_u64(raw, 24)?,
            other: le_u64(raw, 32)?,
            id: Guid::from_disk(*raw.get(56..)?.first_chunk()?),
            entries: le_u64(raw, 72)?,
            count: le_u32(raw, 80)?,
            entry_len: le_u32(raw, 84)?,
            entries_checksum: le_u32(raw, 88)?,
        })
    }

    /// What is wrong with it.
    fn check(&self, raw: &[u8], sector: u64, sectors: u64) -> Option<String> {
        let Some(covered) = raw.get(..self.len as usize).filter(|covered| covered.len() >= HEADER_LEN) else {
            return Some(format!("it claims {} bytes", self.len));
        };
        let mut hash = crc32fast::Hasher::new();
        // The checksum itself counts as zeros.
        hash.update(covered.get(..16)?);
        hash.update(&[0; 4]);
        hash.update(covered.get(20..)?);
        if hash.finalize() != self.checksum {
            return Some("its checksum is wrong".into());
        }
        if self.this != sector {
            return Some(format!("it belongs into sector {}", self.this));
        }
        if self.entry_len < ENTRY_LEN || !self.entry_len.is_power_of_two() || self.entries_len() > LARGEST_TABLE {
            return Some(format!("it claims {} entries of {} bytes", self.count, self.entry_len));
        }
        if self.entries >= sectors {
            return Some(format!("its entries are in sector {}", self.entries));
        }
        None
    }

    fn entries_len(&self) -> u64 {
        u64::from(self.count) * u64::from(self.entry_len)
    }

    /// Reads the entries, if their checksum is right.
    fn partitions(&self, disk: &dyn Device, sector_size: u32) -> Result<Option<Vec<Partition>>> {
        let sector_size = u64::from(sector_size);
        let start = self.entries * sector_size;
        if start.saturating_add(self.entries_len()) > disk.size() {
            return Ok(None);
        }
        let raw = disk.read_vec(start, self.entries_len() as usize)?;
        if crc32fast::hash(&raw) != self.entries_checksum {
            return Ok(None);
        }
        let mut partitions = Vec::new();
        for (number, entry) in (1..).zip(raw.chunks_exact(self.entry_len as usize)) {
            if let Some(partition) = partition(number, entry, sector_size) {
                let what = || format!("entry {number} of the GPT of {}", disk.name());
                partitions.push(partition.map_err(|problem| Error::damaged(what(), problem))?);
            }
        }
        Ok(Some(partitions))
    }
}

/// What an entry says; `None` for one that is not used.
fn partition(number: u32, raw: &[u8], sector_size: u64) -> Option<Result<Partition, String>> {
    let kind = Guid::from_disk(*raw.first_chunk()?);
    if kind.is_nil() {
        return None;
    }
    let id = Guid::from_disk(*raw.get(16..)?.first_chunk()?);
    let (first, last, attributes) = (le_u64(raw, 32)?, le_u64(raw, 40)?, le_u64(raw, 48)?);
    let range = || Some(first.checked_mul(sector_size)?..last.checked_add(1)?.checked_mul(sector_size)?);
    let Some(range) = range().filter(|range| range.start < range.end) else {
        return Some(Err(format!("it has sectors {first} to {last}")));
    };
    let name: Vec<u16> = (56..128).step_by(2).map_while(|at| le_u16(raw, at)).take_while(|unit| *unit != 0).collect();
    Some(Ok(Partition {
        number,
        range,
        kind: PartitionKind::Gpt(kind),
        id: Some(id.to_string()),
        name: (!name.is_empty()).then(|| FileName::from_utf16(name)),
        bootable: attributes & LEGACY_BOOT != 0,
        attributes,
    }))
}

/// Bytes of a header of revision 1.0.
const HEADER_LEN: usize = 92;
/// Bytes of an entry; larger ones are larger by powers of two.
const ENTRY_LEN: u32 = 128;
/// The most bytes of entries that are believed; tools make 16 KiB.
const LARGEST_TABLE: u64 = 4 << 20;
/// "Legacy BIOS Bootable".
const LEGACY_BOOT: u64 = 1 << 2;
