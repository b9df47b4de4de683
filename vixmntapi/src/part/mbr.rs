//! The Master Boot Record and the chain of logical partitions in extended ones.
//!
//! There is no standard; Linux' `block/partitions/msdos.c` is what guests agree on.

use std::collections::HashSet;

use super::{Partition, PartitionKind};
use crate::{
    bytes::{le_u16, le_u32},
    device::{Device, DeviceExt},
    error::{Error, Result},
};

/// Bytes of a boot record, whatever the sector has.
pub(super) const LEN: usize = 512;

/// The four entries of a boot record.
pub(super) struct Mbr {
    signature: u32,
    entries: [RawEntry; 4],
}

/// An entry, in sectors.
#[derive(Clone, Copy, Default)]
struct RawEntry {
    flags: u8,
    kind: u8,
    start: u32,
    len: u32,
}

impl Mbr {
    /// Reads the first sector of a disk, if that is a boot record with a partition table.
    pub(super) fn read(disk: &dyn Device) -> Result<Option<Self>> {
        let sector = disk.read_array::<LEN>(0)?;
        let Some(entries) = parse(&sector) else { return Ok(None) };
        let empty = entries.iter().all(|entry| entry.len == 0);
        // The boot code of a file system stands where partitions would; few make sense by chance.
        let strange = entries.iter().any(|entry| entry.flags & 0x7f != 0);
        if strange || (empty && is_boot_sector(&sector)) {
            return Ok(None);
        }
        Ok(Some(Self { signature: le_u32(&sector, 440).unwrap_or_default(), entries }))
    }

    /// Whether a GPT follows.
    pub(super) fn protects(&self) -> bool {
        self.entries.iter().any(|entry| entry.kind == PROTECTIVE)
    }

    /// The last sector that the disk had when the GPT was made, plus one.
    pub(super) fn protected_end(&self) -> Option<u64> {
        let entry = self.entries.iter().find(|entry| entry.kind == PROTECTIVE)?;
        Some(u64::from(entry.start) + u64::from(entry.len))
    }

    /// The disk's id as `blkid` writes it.
    pub(super) fn id(&self) -> Option<String> {
        (self.signature != 0).then(|| format!("{:08x}", self.signature))
    }

    /// Partitions 1 to 4, but for extended ones and those that protect a GPT.
    pub(super) fn primaries(&self, sector_size: u32) -> Vec<Partition> {
        let plain = |entry: &RawEntry| entry.len != 0 && !entry.is_extended() && entry.kind != PROTECTIVE;
        let entries = self.entries.iter().enumerate().filter(|(_, entry)| plain(entry));
        entries.map(|(index, entry)| self.partition(index as u32 + 1, entry, 0, sector_size)).collect()
    }

    /// Adds the partitions in the extended ones, from number 5 on.
    pub(super) fn logical(&self, disk: &dyn Device, partitions: &mut Vec<Partition>) -> Result<()> {
        let mut number = 5;
        for extended in self.entries.iter().filter(|entry| entry.len != 0 && entry.is_extended()) {
            self.follow(disk, extended, &mut number, partitions)?;
        }
        Ok(())
    }

    /// Follows the chain of records in an extended partition: each has a logical partition, counted from the record, and
    /// the place of the next record, counted from the extended partition.
    fn follow(&self, disk: &dyn Device, all: &RawEntry, number: &mut u32, found: &mut Vec<Partition>) -> Result<()> {
        let sector_size = disk.sector_size();
        let base = u64::from(all.start);
        let mut seen = HashSet::from([0]);
        let mut at = base;
        loop {
            let what = || format!("the extended boot record in sector {at} of {}", disk.name());
            if !seen.insert(at) {
                return Err(Error::damaged(what(), "the chain of logical partitions comes back to it"));
            }
            if seen.len() > LONGEST_CHAIN {
                return Err(Error::damaged(what(), format!("it is number {} of its chain", seen.len())));
            }
            let offset = at * u64::from(sector_size);
            if offset.saturating_add(LEN as u64) > disk.size() {
                return Err(Error::damaged(what(), format!("the disk has only {} bytes", disk.size())));
            }
            let sector = disk.read_array::<LEN>(offset)?;
            if at == base && sector.iter().all(|byte| *byte == 0) {
                // Some tools write no record before the first logical partition is made.
                return Ok(());
            }
            let Some(entries) = parse(&sector) else {
                return Err(Error::damaged(what(), "its last two bytes are not 55 AA"));
            };
            for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.len != 0 && !entry.is_extended())
            {
                let start = at + u64::from(entry.start);
                let end = start + u64::from(entry.len);
                // The third and fourth entry are rubbish of old tools, unless they make sense.
                if index < 2 || (start >= base && end <= base + u64::from(all.len)) {
                    found.push(self.partition(*number, entry, at, sector_size));
                    *number += 1;
                }
            }
            match entries.iter().find(|entry| entry.len != 0 && entry.is_extended()) {
                Some(next) => at = base + u64::from(next.start),
                None => return Ok(()),
            }
        }
    }

    fn partition(&self, number: u32, entry: &RawEntry, base: u64, sector_size: u32) -> Partition {
        let sector_size = u64::from(sector_size);
        let start = (base + u64::from(entry.start)) * sector_size;
        Partition {
            number,
            range: start..start + u64::from(entry.len) * sector_size,
            kind: PartitionKind::Mbr(entry.kind),
            id: self.id().map(|id| format!("{id}-{number:02x}")),
            name: None,
            bootable: entry.flags & 0x80 != 0,
            attributes: 0,
        }
    }
}

impl RawEntry {
    /// Of DOS, of Windows for sectors beyond 8 GB, of Linux.
    fn is_extended(self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }
}

/// The entries of a boot record, if it has the signature.
fn parse(sector: &[u8; LEN]) -> Option<[RawEntry; 4]> {
    if le_u16(sector, 510)? != SIGNATURE {
        return None;
    }
    let mut entries = [RawEntry::default(); 4];
    for (entry, raw) in entries.iter_mut().zip(sector.get(446..)?.chunks_exact(16)) {
        let [flags, _, _, _, kind, ..] = *raw else { return None };
        *entry = RawEntry { flags, kind, start: le_u32(raw, 8)?, len: le_u32(raw, 12)? };
        if kind == 0 {
            entry.len = 0;
        }
    }
    Some(entries)
}

/// Whether it is the boot sector of a file system of DOS or Windows, which has the same signature as a boot record.
fn is_boot_sector(sector: &[u8; LEN]) -> bool {
    let named = |at: usize, name: &[u8]| sector.get(at..).is_some_and(|rest| rest.starts_with(name));
    named(3, b"NTFS    ") || named(3, b"EXFAT   ") || named(54, b"FAT") || named(82, b"FAT32")
}

/// Of the boot record.
const SIGNATURE: u16 = 0xaa55;
/// The type of the partition that protects a GPT from those who know only MBR.
const PROTECTIVE: u8 = 0xee;
/// More logical partitions than any system numbers.
const LONGEST_CHAIN: usize = 1024;
