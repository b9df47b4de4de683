//! Arrays of Linux md: superblocks 0.90, 1.0, 1.1 and 1.2; RAID 0, 1, 10 with copies side by side, and linear ones.
//!
//! Formats: `include/uapi/linux/raid/md_p.h` of the kernel and `man 4 md`.

mod array;
mod old;
mod superblock;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use self::array::Array;
use super::Assembly;
use crate::{device::Device, error::Result};

/// Finds members among devices, and the arrays that they make.
pub(crate) fn assemble(devices: &[Arc<dyn Device>]) -> Assembly {
    let mut assembly = Assembly::default();
    let mut arrays: BTreeMap<String, Array> = BTreeMap::new();
    for (number, device) in devices.iter().enumerate() {
        match read(&**device) {
            Ok(None) => {}
            Ok(Some(member)) => {
                assembly.members.push(number);
                arrays.entry(member.uuid.clone()).or_default().add(device.clone(), member);
            }
            Err(error) => assembly.problems.push((device.name(), error)),
        }
    }
    assembly.volumes.extend(arrays.into_values().filter_map(Array::finish));
    assembly
}

/// Whether a device is a member of an array.
pub(crate) fn is_member(device: &dyn Device) -> bool {
    read(device).is_ok_and(|member| member.is_some())
}

/// What the superblock of a member says, whatever its version.
#[derive(Clone, Debug)]
struct Member {
    /// The array's, as `mdadm` writes it.
    uuid: String,
    /// The array's, without the host's.
    name: String,
    level: i32,
    layout: u32,
    /// Bytes after which the next member has its turn.
    chunk: u64,
    /// How many members the array has when it is whole.
    slots: u32,
    /// Counts the changes of the array's state.
    events: u64,
    /// The number of the member's place in the array; `None` for a spare, a failed one or a journal.
    slot: Option<u32>,
    /// The places whose members are in step, as this superblock knows it.
    active: BTreeSet<u32>,
    /// Where its data begins, in bytes.
    start: u64,
    /// How many bytes of data it can hold.
    room: u64,
    /// How many bytes the array uses of each member, where all hold the same.
    size: u64,
    /// It is still being built.
    is_behind: bool,
    /// The array is being given another form, and is partly of the old one.
    is_reshaped: bool,
}

fn read(device: &dyn Device) -> Result<Option<Member>> {
    Ok(match superblock::read(device)? {
        Some(member) => Some(member),
        None => old::read(device)?,
    })
}

/// `MD_SB_MAGIC`.
const MAGIC: u32 = 0xa92b_4efc;
/// Bytes of a sector, whatever the disks have.
const SECTOR: u64 = 512;
