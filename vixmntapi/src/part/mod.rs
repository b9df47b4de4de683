//! Partition tables: MBR with extended partitions, GPT with its backup, hybrids of both, sectors of 512 and 4096 bytes.
//!
//! [`partitions`] reads the table of a disk, and [`Partition::slice`] makes a partition a device:
//!
//! ```no_run
//! # fn example(disk: std::sync::Arc<dyn vixmntapi::device::Device>) -> vixmntapi::Result<()> {
//! for partition in vixmntapi::part::partitions(&disk)?.partitions {
//!     println!("{} {:?} {}", partition.number, partition.range, partition.kind);
//!     if let Some(files) = vixmntapi::fs::open(&(std::sync::Arc::new(partition.slice(&disk)?) as _))? {
//!         println!("    {:?}", files.info().label);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod gpt;
mod guid;
mod kind;
mod mbr;

use std::{ops::Range, sync::Arc};

pub use self::{
    guid::Guid,
    kind::{PartitionKind, Role},
};
use crate::{
    device::{Device, Slice},
    error::{Error, Result},
    fs::FileName,
};

/// The partition table of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Table {
    /// Of which kind it is.
    pub scheme: Scheme,
    /// The disk's id as `blkid` writes it (PTUUID): eight hexadecimal digits of an MBR, the GUID of a GPT.
    pub id: Option<String>,
    /// Bytes of the sectors in which the table counts.
    pub sector_size: u32,
    /// The partitions in the order of their numbers, without extended ones, which are but room for others.
    pub partitions: Vec<Partition>,
    /// What the MBR of a hybrid says beside its GPT. Systems that know GPT ignore it.
    pub legacy: Vec<Partition>,
}

/// A kind of partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// There is no table: the disk is empty, or a file system or a volume manager has it as a whole.
    None,
    /// Of the PC: four partitions, one of which may hold more.
    Mbr,
    /// Of UEFI.
    Gpt,
    /// Of UEFI, read from the copy at the end of the disk, because the one at its start is damaged.
    GptBackup,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Partition {
    /// As Linux counts: 1 to 4 and, in extended partitions, from 5 on; in a GPT the number of its entry, from 1 on.
    pub number: u32,
    /// In bytes of the disk. What the table says, also when the disk is smaller.
    pub range: Range<u64>,
    /// What it is for.
    pub kind: PartitionKind,
    /// Its id as `blkid` writes it (PARTUUID).
    pub id: Option<String>,
    /// Its name, where the table has names.
    pub name: Option<FileName>,
    /// Whether a PC's firmware boots from it (in a GPT: the attribute for firmware of the old kind).
    pub bootable: bool,
    /// The attributes of a GPT's entry.
    pub attributes: u64,
}

impl Partition {
    /// Cuts the partition out of its disk.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the disk ends before the partition.
    pub fn slice(&self, disk: &Arc<dyn Device>) -> Result<Slice> {
        let name = format!("partition {} of {}", self.number, disk.name());
        if self.range.end > disk.size() {
            let Range { start, end } = self.range;
            return Err(Error::damaged(name, format!("it has bytes {start} to {end}, the disk only {}", disk.size())));
        }
        Slice::new(disk.clone(), self.range.clone(), name)
    }
}

/// Reads the partition table of a disk.
///
/// As Linux does it, a GPT counts when the MBR in front of it says that it protects one, or when there is no MBR any
/// more; and the boot sector of a file system on the whole disk is no MBR. A GPT that a tool copied from a disk with
/// sectors of another size is found too.
///
/// # Errors
/// [`Error::Read`]; [`Error::Damaged`] when the table contradicts itself, or both copies of a GPT are damaged. Then no
/// partition is named; [`partitions_until_damage`] names those that are in no doubt.
pub fn partitions(disk: &Arc<dyn Device>) -> Result<Table> {
    match partitions_until_damage(disk)? {
        (table, None) => Ok(table),
        (_, Some(damage)) => Err(damage),
    }
}

/// Reads a partition table as far as it makes sense, and says what does not: the primary partitions of a disk can be
/// read when the chain of the logical ones is broken.
///
/// # Errors
/// As [`partitions`], when nothing can be said.
pub fn partitions_until_damage(disk: &Arc<dyn Device>) -> Result<(Table, Option<Error>)> {
    let disk = &**disk;
    let none = Table {
        scheme: Scheme::None,
        id: None,
        sector_size: disk.sector_size(),
        partitions: Vec::new(),
        legacy: Vec::new(),
    };
    if disk.size() < u64::from(disk.sector_size()).max(mbr::LEN as u64) {
        return Ok((none, None));
    }
    let Some(mbr) = mbr::Mbr::read(disk)? else {
        // Who overwrote the first sector alone left the table.
        let table = gpt::read_primary(disk)?.map(|gpt| gpt.into_table(Scheme::Gpt, Vec::new()));
        return Ok((table.unwrap_or(none), None));
    };
    if mbr.protects() {
        let (gpt, scheme) = gpt::read(disk, mbr.protected_end())?;
        let legacy = mbr.primaries(gpt.sector_size);
        return Ok((gpt.into_table(scheme, legacy), None));
    }
    let sector_size = disk.sector_size();
    let mut partitions = mbr.primaries(sector_size);
    let damage = mbr.logical(disk, &mut partitions).err();
    Ok((Table { scheme: Scheme::Mbr, id: mbr.id(), sector_size, partitions, legacy: Vec::new() }, damage))
}
