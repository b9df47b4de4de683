//! The ring of records: where it begins and ends.

use super::{BASIC_BLOCK, Superblock, damaged};
use crate::{
    bytes::{array, be_u32, be_u64, le_u32, slice, u8_at},
    device::{Device, DeviceExt},
    error::{Error, Result},
    fs::checksum::crc32c,
};

/// The log's blocks.
pub(super) struct Ring<'a> {
    device: &'a dyn Device,
    start: u64,
    blocks: u32,
    uuid: [u8; 16],
    v5: bool,
}

/// What of a log is to be replayed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dirty {
    /// The block of the first record.
    tail: u32,
    /// The block behind the last one.
    head: u32,
}

/// What stands before a record.
#[derive(Clone, Debug)]
struct Header {
    block: u32,
    cycle: u32,
    /// Blocks of the header itself.
    own: u32,
    /// Bytes behind it.
    len: u32,
    tail: u32,
    operations: u32,
    raw: Vec<u8>,
}

impl<'a> Ring<'a> {
    pub(super) fn open(device: &'a dyn Device, superblock: &Superblock) -> Result<Self> {
        let bytes = u64::from(superblock.log_blocks) * u64::from(superblock.block_size);
        let start = superblock.place(superblock.log_start, superblock.log_blocks.into());
        let blocks = u32::try_from(bytes / u64::from(BASIC_BLOCK)).ok().filter(|blocks| *blocks >= LEAST);
        let (Some(start), Some(blocks)) = (start, blocks) else {
            return Err(damaged(format!("{} blocks at {}", superblock.log_blocks, superblock.log_start)));
        };
        Ok(Self { device, start, blocks, uuid: superblock.uuid, v5: superblock.v5 })
    }

    /// What has to be replayed; nothing after an unmount.
    pub(super) fn dirty(&self) -> Result<Option<Dirty>> {
        let Some(mut head) = self.head()? else { return Ok(None) };
        // What was written last may be there in part: the log ends before the first record that is not whole.
        let mut last = Vec::new();
        let mut at = head;
        while last.len() < WRITES_IN_FLIGHT {
            let Some(header) = self.before(at, head)? else { break };
            at = header.block;
            if self.after(&header) != *last.last().map_or(&head, |next: &Header| &next.block) {
                // Something is between it and the next one: that one is not the log's.
                head = at;
                last.clear();
                if self.is_whole(&header)? {
                    head = self.after(&header);
                    last.push(header);
                }
                continue;
            }
            last.push(header);
        }
        last.reverse();
        let mut whole = None;
        for header in last {
            if !self.is_whole(&header)? {
                break;
            }
            whole = Some(header);
        }
        let Some(whole) = whole else { return Err(damaged("none of its last records is whole")) };
        let head = self.after(&whole);
        if whole.operations == 1 {
            let data = self.read((whole.block + whole.own) % self.blocks, 1)?;
            if u8_at(&data, 9).is_some_and(|flags| flags & UNMOUNT != 0) {
                return Ok(None);
            }
        }
        Ok(Some(Dirty { tail: whole.tail, head }))
    }

    /// Goes through the data of records, with how many operations each has; they are verified if `verify` says so.
    pub(super) fn each_record(
        &self,
        dirty: &Dirty,
        verify: bool,
        mut take: impl FnMut(&[u8], u32) -> Result<()>,
    ) -> Result<()> {
        let mut at = dirty.tail;
        let mut left = self.blocks;
        loop {
            let header = self.header(at)?.ok_or_else(|| damaged(format!("block {at} is no record")))?;
            let blocks = header.own + header.len.div_ceil(BASIC_BLOCK);
            left = left.checked_sub(blocks).ok_or_else(|| damaged("its records go around for ever"))?;
            if verify && !self.is_whole(&header)? {
                return Err(damaged(format!("the checksum of the record in block {at} is wrong")));
            }
            take(&self.data(&header)?, header.operations)?;
            at = self.after(&header);
            if at == dirty.head {
                return Ok(());
            }
        }
    }

    /// The data of a record, the numbers of cycles in it replaced by what they stand for.
    fn data(&self, header: &Header) -> Result<Vec<u8>> {
        let first = (header.block + header.own) % self.blocks;
        let mut data = self.read(first, header.len.div_ceil(BASIC_BLOCK))?;
        for (number, block) in data.chunks_mut(BASIC_BLOCK as usize).enumerate() {
            let (group, index) = (number / CYCLES, number % CYCLES);
            let place = if group == 0 { 44 } else { group * BASIC_BLOCK as usize + 4 } + index * 4;
            let word = slice(&header.raw, place, 4).ok_or_else(|| damaged("a record is longer than its header"))?;
            block.get_mut(..4).ok_or_else(|| damaged("a record is cut"))?.copy_from_slice(word);
        }
        data.truncate(header.len as usize);
        Ok(data)
    }

    /// Whether all of a record is there: all of its blocks were written this time around, and its checksum is right.
    fn is_whole(&self, header: &Header) -> Result<bool> {
        let first = (header.block + header.own) % self.blocks;
        let data = self.read(first, header.len.div_ceil(BASIC_BLOCK))?;
        for (number, block) in data.chunks(BASIC_BLOCK as usize).enumerate() {
            let at = u64::from(header.block) + u64::from(header.own) + number as u64;
            let expected = if at < u64::from(self.blocks) { header.cycle } else { next_cycle(header.cycle) };
            if be_u32(block, 0) != Some(expected) {
                return Ok(false);
            }
        }
        let stored = le_u32(&header.raw, 32).unwrap_or_default();
        if stored == 0 && !self.v5 {
            return Ok(true);
        }
        let data = data.get(..header.len as usize).unwrap_or_default();
        // The header has another length where numbers of 64 bits are kept at multiples of four.
        Ok(stored == 0 || [328, 324].iter().any(|len| header.checksum(*len, data) == Some(stored)))
    }

    /// The block behind the one that was written last; `None` for a log that was never used.
    fn head(&self) -> Result<Option<u32>> {
        let first = self.cycle(0)?;
        let last = self.cycle(self.blocks - 1)?;
        if first == 0 {
            return Ok(None);
        }
        let mut head = self.blocks;
        if first != last {
            // Blocks of this time around come before those of the last.
            let (mut low, mut high) = (0, self.blocks - 1);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if self.cycle(middle)? == last { high = middle } else { low = middle }
            }
            head = high;
        }
        // Writes may reach the disk in another order: the log ends before the first that is missing.
        let back = IN_FLIGHT.min(self.blocks - 1);
        let wrapped = if head < back && last != 0 { back - head } else { 0 };
        let scan = |from: u32, to: u32, expected: u32| -> Result<Option<u32>> {
            let data = self.read(from, to - from)?;
            let mut cycles = data.chunks(BASIC_BLOCK as usize).map(cycle_of);
            Ok(cycles.position(|cycle| cycle != expected).map(|index| from + index as u32))
        };
        if wrapped > 0
            && let Some(hole) = scan(self.blocks - wrapped, self.blocks, last)?
        {
            return Ok(Some(hole));
        }
        let hole = scan(head.saturating_sub(back), head, first)?;
        Ok(Some(hole.unwrap_or(head) % self.blocks))
    }

    /// The last record that begins before block `at`, but not before `stop` after a whole turn.
    fn before(&self, at: u32, stop: u32) -> Result<Option<Header>> {
        let mut at = at;
        for _ in 0..self.blocks.min(LONGEST_SEARCH) {
            at = at.checked_sub(1).unwrap_or(self.blocks - 1);
            if at == stop {
                return Ok(None);
            }
            if let Some(header) = self.header(at)? {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// The record that begins in a block, if one does.
    fn header(&self, block: u32) -> Result<Option<Header>> {
        if block >= self.blocks {
            return Ok(None);
        }
        let mut raw = self.read(block, 1)?;
        let field = |at| be_u32(&raw, at).unwrap_or_default();
        let (cycle, version, len, size) = (field(4), field(8), field(12), field(320));
        let uuid = array(&raw, 304);
        let mine = be_u64(&raw, 16) == Some(u64::from(cycle) << 32 | u64::from(block))
            && (uuid == Some(self.uuid) || uuid == Some([0; 16]));
        if field(0) != MAGIC || !mine {
            return Ok(None);
        }
        if field(300) != FORMAT_LINUX_LE {
            return Err(Error::unsupported("this XFS log", format!("it is in use in format {}", field(300))));
        }
        let own = if version & 2 != 0 && size > HEADER_SPAN { size.div_ceil(HEADER_SPAN) } else { 1 };
        if own > MOST_HEADERS || len > own * HEADER_SPAN || len == 0 || u64::from(self.blocks) < 2 * u64::from(own) {
            return Err(damaged(format!("a record of {len} bytes in block {block}")));
        }
        let (tail, operations) = (field(28), field(40));
        if own > 1 {
            raw = self.read(block, own)?;
        }
        Ok(Some(Header { block, cycle, own, len, tail, operations, raw }))
    }

    /// The block behind a record.
    fn after(&self, header: &Header) -> u32 {
        let end = u64::from(header.block) + u64::from(header.own) + u64::from(header.len.div_ceil(BASIC_BLOCK));
        (end % u64::from(self.blocks)) as u32
    }

    fn cycle(&self, block: u32) -> Result<u32> {
        Ok(cycle_of(&self.read(block, 1)?))
    }

    /// Reads blocks, around the end where they go on at the start.
    fn read(&self, block: u32, count: u32) -> Result<Vec<u8>> {
        let bytes = |count: u32| count as usize * BASIC_BLOCK as usize;
        let place = self.start + u64::from(block) * u64::from(BASIC_BLOCK);
        let before = count.min(self.blocks - block);
        let mut data = self.device.read_vec(place, bytes(before))?;
        if count > before {
            data.extend(self.device.read_vec(self.start, bytes((count - before).min(self.blocks)))?);
        }
        Ok(data)
    }
}

impl Header {
    /// The checksum over a header of so many bytes, the headers that go on from it, and the data.
    fn checksum(&self, len: usize, data: &[u8]) -> Option<u32> {
        let mut crc = crc32c(crc32c(!0, self.raw.get(..32)?), &[0; 4]);
        crc = crc32c(crc, self.raw.get(36..len)?);
        for more in 1..self.len.div_ceil(HEADER_SPAN) as usize {
            crc = crc32c(crc, slice(&self.raw, more * BASIC_BLOCK as usize, 4 + 4 * CYCLES)?);
        }
        Some(!crc32c(crc, data))
    }
}

/// Which time around a block was written; headers say it behind their magic number.
fn cycle_of(block: &[u8]) -> u32 {
    let first = be_u32(block, 0).unwrap_or_default();
    if first == MAGIC { be_u32(block, 4).unwrap_or_default() } else { first }
}

/// The number after a cycle's, which is never that of headers.
fn next_cycle(cycle: u32) -> u32 {
    let next = cycle.wrapping_add(1);
    if next == MAGIC { next.wrapping_add(1) } else { next }
}

const MAGIC: u32 = 0xfeed_babe;
const FORMAT_LINUX_LE: u32 = 1;
/// In an operation's flags: the volume was unmounted.
const UNMOUNT: u8 = 0x20;
/// Numbers of cycles in a header, and the bytes of data that they stand for.
const CYCLES: usize = 64;
const HEADER_SPAN: u32 = 32 << 10;
/// Blocks of the longest header: records have 256 KiB at most.
const MOST_HEADERS: u32 = 8;
/// Records that are being written at once: `XLOG_MAX_ICLOGS`.
const WRITES_IN_FLIGHT: usize = 8;
/// Blocks of those.
const IN_FLIGHT: u32 = 8 * 512;
/// How far back the record before a block is looked for; between two there are at most the blocks of one.
const LONGEST_SEARCH: u32 = 2 * IN_FLIGHT;
/// Blocks of the smallest log.
const LEAST: u32 = 64;
