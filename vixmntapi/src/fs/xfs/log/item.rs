//! What transactions hold: changed chunks of blocks, and whole inodes.

use std::collections::{HashMap, HashSet};

use super::{BASIC_BLOCK, Superblock, TREE_HEADER, TREE_HEADER_V5, Transaction, damaged, transaction::Item};
use crate::{
    bytes::{be_u16, le_u16, le_u32, le_u64, slice, u8_at},
    device::{DeviceExt, Overlay},
    error::Result,
    fs::xfs::inode::literal,
};

/// Blocks that were given back: what was logged of them before must not be written over what is there now.
#[derive(Debug, Default)]
pub(super) struct Cancelled(HashMap<(u64, u32), u32>);

impl Cancelled {
    /// Notes the blocks that a transaction gives back.
    pub(super) fn gather(&mut self, transaction: &Transaction) -> Result<()> {
        for buffer in transaction.items.iter().filter_map(Buffer::of).filter(Buffer::is_cancel) {
            *self.0.entry(buffer.key()).or_default() += 1;
        }
        Ok(())
    }

    fn holds(&self, block: u64, len: u32) -> bool {
        self.0.contains_key(&(block, len))
    }

    /// Passes the place where blocks are given back.
    fn pass(&mut self, key: (u64, u32)) {
        if let Some(count) = self.0.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&key);
            }
        }
    }
}

/// Steps that a transaction promises and a later one takes.
#[derive(Debug, Default)]
pub(super) struct Intents(HashSet<(u16, u64)>);

impl Intents {
    /// Notes promises that change what files hold, and what of them was kept.
    pub(super) fn take(&mut self, transaction: &Transaction) {
        for item in &transaction.items {
            let id = le_u64(item.region(0), 8).unwrap_or_default();
            match item.kind() {
                kind @ (MAP_INTENT | ATTRIBUTE_INTENT | EXCHANGE_INTENT) => drop(self.0.insert((kind, id))),
                kind @ (MAP_DONE | ATTRIBUTE_DONE | EXCHANGE_DONE) => drop(self.0.remove(&(kind - 1, id))),
                _ => {}
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Applies a transaction: blocks first, then inodes, which may lie in them; then blocks are given back.
pub(super) fn apply(
    transaction: &Transaction,
    superblock: &Superblock,
    cancelled: &mut Cancelled,
    overlay: &mut Overlay,
) -> Result<()> {
    for buffer in transaction.items.iter().filter_map(Buffer::of).filter(|buffer| !buffer.is_cancel()) {
        if !cancelled.holds(buffer.block, buffer.len) {
            buffer.apply(overlay)?;
        }
    }
    for item in transaction.items.iter().filter(|item| item.kind() == INODE) {
        apply_inode(item, superblock, cancelled, overlay)?;
    }
    for buffer in transaction.items.iter().filter_map(Buffer::of).filter(Buffer::is_cancel) {
        cancelled.pass(buffer.key());
    }
    Ok(())
}

/// Changed chunks of blocks side by side.
struct Buffer<'a> {
    item: &'a Item,
    flags: u16,
    /// In basic blocks.
    block: u64,
    len: u32,
}

impl<'a> Buffer<'a> {
    fn of(item: &'a Item) -> Option<Self> {
        let format = item.region(0);
        let buffer =
            Self { item, flags: le_u16(format, 4)?, len: le_u16(format, 6)?.into(), block: le_u64(format, 8)? };
        // Of blocks of inodes only the list of those without names is logged this way.
        let skipped = buffer.flags & BUFFER_OF_INODES != 0 && !buffer.is_cancel();
        (item.kind() == BUFFER && !skipped).then_some(buffer)
    }

    fn is_cancel(&self) -> bool {
        self.flags & BUFFER_CANCEL != 0
    }

    fn key(&self) -> (u64, u32) {
        (self.block, self.len)
    }

    fn apply(&self, overlay: &mut Overlay) -> Result<()> {
        let wrong = || damaged(format!("what it has of block {} is none", self.block));
        let format = self.item.region(0);
        let words = le_u32(format, 16).ok_or_else(wrong)? as usize;
        let map = slice(format, 20, words.checked_mul(4).ok_or_else(wrong)?).ok_or_else(wrong)?;
        let is_set = |bit: usize| map.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 != 0);
        let start = self.block.checked_mul(BASIC_BLOCK.into()).ok_or_else(wrong)?;
        let mut bit = 0;
        for region in self.item.regions.iter().skip(1) {
            while bit < map.len() * 8 && !is_set(bit) {
                bit += 1;
            }
            // Chunks side by side may be in several regions.
            let chunks = (bit..bit + region.len() / CHUNK).take_while(|bit| is_set(*bit)).count();
            let bytes = region.get(..chunks * CHUNK).filter(|bytes| !bytes.is_empty()).ok_or_else(wrong)?;
            if (bit + chunks) * CHUNK > self.len as usize * BASIC_BLOCK as usize {
                return Err(wrong());
            }
            patch(overlay, start + (bit * CHUNK) as u64, bytes)?;
            bit += chunks;
        }
        Ok(())
    }
}

/// Puts an inode into its place.
fn apply_inode(item: &Item, superblock: &Superblock, cancelled: &Cancelled, overlay: &mut Overlay) -> Result<()> {
    let format = item.region(0);
    // The older form has no gap before the number.
    let shift = if format.len() >= 56 { 4 } else { 0 };
    let parsed = || Some((le_u32(format, 4)?, le_u64(format, 12 + shift)?, le_u64(format, 36 + shift)?));
    let (fields, number, block) = parsed().ok_or_else(|| damaged("an inode in it is cut"))?;
    let len = le_u32(format, 44 + shift).unwrap_or_default();
    if cancelled.holds(block, len) {
        return Ok(());
    }
    let wrong = || damaged(format!("what it has of inode {number} is none"));
    let place = superblock.inode_place(number).ok_or_else(wrong)?;
    let mut inode = overlay.read_vec(place, superblock.inode_size.into())?;
    let core = to_disk(item.region(1)).ok_or_else(wrong)?;
    inode.get_mut(..core.len()).ok_or_else(wrong)?.copy_from_slice(&core);
    let first = literal(u8_at(&core, 4).unwrap_or_default());
    let split = match u8_at(&core, 82) {
        Some(0) | None => inode.len(),
        Some(eights) => first + usize::from(eights) * 8,
    };
    if fields & FIELD_DEVICE != 0 {
        let device = le_u32(format, 20 + shift).ok_or_else(wrong)?;
        inode.get_mut(first..first + 4).ok_or_else(wrong)?.copy_from_slice(&device.to_be_bytes());
    }
    let mut next = 2;
    let end = inode.len();
    for (is_there, is_tree, range) in [
        (fields & FIELDS_DATA != 0, fields & FIELD_DATA_TREE != 0, first..split),
        (fields & FIELDS_ATTRIBUTES != 0, fields & FIELD_ATTRIBUTES_TREE != 0, split..end),
    ] {
        if !is_there {
            continue;
        }
        let fork = inode.get_mut(range).ok_or_else(wrong)?;
        let bytes = item.region(next);
        next += 1;
        if is_tree {
            let header = if superblock.v5 { TREE_HEADER_V5 } else { TREE_HEADER };
            root_to_disk(bytes, header, fork).ok_or_else(wrong)?;
        } else {
            fork.get_mut(..bytes.len()).ok_or_else(wrong)?.copy_from_slice(bytes);
        }
    }
    patch(overlay, place, &inode)
}

/// Turns the fields of an inode, which the log has in the order of the machine's bytes. `None` when they are cut.
fn to_disk(logged: &[u8]) -> Option<Vec<u8>> {
    let mut core = logged.get(..100)?.to_vec();
    let version = *core.get(4)?;
    let mut flags2 = 0;
    if version >= 3 {
        core = logged.get(..176)?.to_vec();
        flags2 = le_u64(&core, 120)?;
    }
    let mut swap = |at: usize, len: usize| core.get_mut(at..at + len).map(<[u8]>::reverse);
    [0, 2, 6, 20, 22, 88, 90].iter().try_for_each(|at| swap(*at, 2))?;
    [8, 12, 16, 72, 76, 84, 92, 96].iter().try_for_each(|at| swap(*at, 4))?;
    [56, 64].iter().try_for_each(|at| swap(*at, 8))?;
    if flags2 & FLAG2_WIDE_COUNTS != 0 {
        swap(24, 8)?;
    } else {
        swap(30, 2)?;
        swap(80, 2)?;
    }
    let mut times = vec![32, 40, 48];
    if version >= 3 {
        [104, 112, 120, 152].iter().try_for_each(|at| swap(*at, 8))?;
        swap(128, 4)?;
        times.push(144);
    }
    for at in times {
        if flags2 & FLAG2_BIG_TIME != 0 {
            swap(at, 8)?;
        } else {
            swap(at, 4)?;
            swap(at + 4, 4)?;
        }
    }
    // Whatever else was in place, this is an inode now.
    core.get_mut(..2)?.copy_from_slice(b"IN");
    Some(core)
}

/// Puts the root of a tree of extents, which the log has with the header of a whole node, into a fork.
fn root_to_disk(logged: &[u8], header: usize, fork: &mut [u8]) -> Option<()> {
    let count = usize::from(be_u16(logged, 6)?);
    let (room_there, room_here) = (logged.len().checked_sub(header)? / 16, fork.len().checked_sub(4)? / 16);
    let keys = slice(logged, header, count * 8).filter(|_| count <= room_there && count <= room_here)?;
    let pointers = slice(logged, header + room_there * 8, count * 8)?;
    fork.get_mut(..4)?.copy_from_slice(logged.get(4..8)?);
    fork.get_mut(4..4 + count * 8)?.copy_from_slice(keys);
    fork.get_mut(4 + room_here * 8..4 + (room_here + count) * 8)?.copy_from_slice(pointers);
    Some(())
}

/// Replaces bytes.
fn patch(overlay: &mut Overlay, start: u64, bytes: &[u8]) -> Result<()> {
    let size = u64::from(BASIC_BLOCK);
    let first = start / size;
    let skip = (start % size) as usize;
    let count = (skip + bytes.len()).div_ceil(BASIC_BLOCK as usize);
    let mut blocks = overlay.read_vec(first * size, count * BASIC_BLOCK as usize)?;
    let target = blocks.get_mut(skip..skip + bytes.len()).ok_or_else(|| damaged("a change leaves its block"))?;
    target.copy_from_slice(bytes);
    for (number, block) in blocks.chunks(BASIC_BLOCK as usize).enumerate() {
        overlay.put(first + number as u64, block.into())?;
    }
    Ok(())
}

/// Kinds of items.
const INODE: u16 = 0x123b;
const BUFFER: u16 = 0x123c;
const MAP_INTENT: u16 = 0x1244;
const MAP_DONE: u16 = 0x1245;
const ATTRIBUTE_INTENT: u16 = 0x1246;
const ATTRIBUTE_DONE: u16 = 0x1247;
const EXCHANGE_INTENT: u16 = 0x1248;
const EXCHANGE_DONE: u16 = 0x1249;
/// Flags of blocks.
const BUFFER_OF_INODES: u16 = 0x1;
const BUFFER_CANCEL: u16 = 0x2;
/// Bytes that one bit of a map stands for.
const CHUNK: usize = 128;
/// What of an inode was logged: the content or extents or root of each fork.
const FIELDS_DATA: u32 = 0x2 | 0x4 | FIELD_DATA_TREE;
const FIELD_DATA_TREE: u32 = 0x8;
const FIELD_DEVICE: u32 = 0x10;
const FIELDS_ATTRIBUTES: u32 = 0x40 | 0x80 | FIELD_ATTRIBUTES_TREE;
const FIELD_ATTRIBUTES_TREE: u32 = 0x100;
const FLAG2_BIG_TIME: u64 = 0x8;
const FLAG2_WIDE_COUNTS: u64 = 0x10;
