//! The log of XFS, replayed into memory: what the guest's kernel would write when it mounts.
//! "XFS Algorithms & Data Structures", chapter "Journaling Log"; the order of things is that of `fs/xfs/xfs_log_recover.c`.
//!
//! The log is a ring of records that say in each of their blocks which time around they belong to. Two passes over the
//! records between its tail and its head: gather the blocks that were given back, apply what was committed.

mod item;
mod ring;
mod transaction;

use std::sync::Arc;

use self::{
    item::{Cancelled, Intents, apply},
    ring::Ring,
    transaction::{Transaction, Transactions},
};
use super::{Superblock, fork::TREE_HEADER, fork::TREE_HEADER_V5};
use crate::{
    device::{Device, Overlay},
    error::{Error, Result},
    fs::{Consistency, parts::Replayed},
};

/// Reads the log of a volume and tells what it makes of the volume.
pub(super) fn replay(device: &Arc<dyn Device>, superblock: &Superblock) -> Result<(Replayed, Consistency)> {
    let plain = || Replayed::plain(device.clone());
    if superblock.log_start == 0 {
        // It is on another device: nobody can tell what is in there.
        return Ok((plain(), Consistency::DirtyIgnored));
    }
    let ring = Ring::open(&**device, superblock)?;
    let Some(dirty) = ring.dirty()? else { return Ok((plain(), Consistency::Clean)) };
    if superblock.log_incompat & !LOG_INCOMPAT_READ != 0 {
        let reason = format!("its log is in use and has incompatible features {:#x}", superblock.log_incompat);
        return Err(Error::unsupported("this XFS file system", reason));
    }
    let mut cancelled = Cancelled::default();
    each_commit(&ring, &dirty, true, |transaction| cancelled.gather(transaction))?;
    let mut overlay = Overlay::new(device.clone(), BASIC_BLOCK, MEMORY)?;
    let mut intents = Intents::default();
    each_commit(&ring, &dirty, false, |transaction| {
        intents.take(transaction);
        apply(transaction, superblock, &mut cancelled, &mut overlay)
    })?;
    // Steps that were promised and not taken: the kernel would finish them now.
    let consistency = if intents.is_empty() { Consistency::ReplayedInMemory } else { Consistency::DirtyIgnored };
    Ok((if overlay.is_empty() { plain() } else { Replayed::new(overlay) }, consistency))
}

/// Goes through the transactions between tail and head in the order in which they were committed.
fn each_commit(
    ring: &Ring<'_>,
    dirty: &ring::Dirty,
    verify: bool,
    mut take: impl FnMut(&Transaction) -> Result<()>,
) -> Result<()> {
    let mut transactions = Transactions::default();
    ring.each_record(dirty, verify, |data, operations| {
        for committed in transactions.feed(data, operations)? {
            take(&committed)?;
        }
        Ok(())
    })
}

/// An error of the log.
fn damaged(problem: impl Into<String>) -> Error {
    Error::damaged("the XFS log", problem)
}

/// Bytes of the blocks in which the log counts.
const BASIC_BLOCK: u32 = 512;
/// Changes in flight that are kept, at most.
const MEMORY: u64 = 512 << 20;
/// Logged attributes: what of them is not finished is told.
const LOG_INCOMPAT_READ: u32 = 0x1;
