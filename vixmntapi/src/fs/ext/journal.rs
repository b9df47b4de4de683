//! The journal of ext3 and ext4 (jbd2), replayed into memory: what the guest's kernel would write when it mounts.
//! `Documentation/filesystems/ext4/journal.rst`; the order of the passes is that of `fs/jbd2/recovery.c`.
//!
//! Three passes: find the last transaction that was committed, gather what was revoked, put the blocks of all
//! transactions in their places. Everything here is big-endian.

mod tags;

use std::collections::HashMap;

use self::tags::{Tag, Tags};
use super::{Ext, blocks::RunKind, inode::Inode};
use crate::{
    bytes::{be_u32, be_u64, le_u16, le_u32, slice, u8_at},
    device::{DeviceExt, Overlay},
    error::{Error, Result},
    fs::{
        FileKind,
        checksum::{crc32_be, crc32c},
    },
};

/// Reads the journal of a volume that was in use and tells what it makes of the volume.
pub(super) fn replay(fs: &Ext) -> Result<Overlay> {
    let mut overlay = Overlay::new(fs.volume.device.clone(), fs.superblock.block_size, MEMORY)?;
    let journal = Journal::open(fs)?;
    if journal.start != 0 {
        let end = journal.scan()?;
        journal.check_fast_commits(end)?;
        let revoked = journal.revoked(end)?;
        journal.apply(end, &revoked, &mut overlay)?;
    }
    Ok(overlay)
}

/// An open journal.
struct Journal<'a> {
    fs: &'a Ext,
    inode: Inode,
    /// The first block of the ring.
    first: u32,
    /// The first block behind the ring.
    last: u32,
    /// The block with the oldest transaction that may not be in its place yet, or 0.
    start: u32,
    /// The number of that transaction.
    sequence: u32,
    /// The first block of the fast commits behind the ring, if it may hold any.
    fast: Option<u32>,
    features: Features,
}

/// How a journal is written.
#[derive(Clone, Copy, Debug)]
struct Features {
    /// Numbers of blocks have 64 bits.
    wide: bool,
    checksums: Checksums,
    /// A transaction may be half there although its commit is: the log ends at the first that is wrong.
    asynchronous: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checksums {
    None,
    /// One of all blocks of a transaction, with its commit.
    V1,
    /// Of each block, half of it kept; with this seed.
    V2(u32),
    /// Of each block.
    V3(u32),
}

impl Checksums {
    fn seed(self) -> Option<u32> {
        match self {
            Self::V2(seed) | Self::V3(seed) => Some(seed),
            Self::None | Self::V1 => None,
        }
    }
}

impl<'a> Journal<'a> {
    fn open(fs: &'a Ext) -> Result<Self> {
        if fs.superblock.journal_inode == 0 {
            let reason = "its journal is on another device, and something is left in there";
            return Err(Error::unsupported("this ext file system", reason));
        }
        let inode = fs.inode(fs.superblock.journal_inode)?;
        if inode.kind != FileKind::File {
            return Err(damaged("its inode is no file"));
        }
        let probe = Self {
            fs,
            inode,
            first: 0,
            last: u32::MAX,
            start: 0,
            sequence: 0,
            fast: None,
            features: Features { wide: false, checksums: Checksums::None, asynchronous: false },
        };
        let bytes = probe.block(0)?;
        probe.with(&bytes[..1024])
    }

    /// Takes in the journal's superblock.
    fn with(self, bytes: &[u8]) -> Result<Self> {
        let field = |at| be_u32(bytes, at).unwrap_or_default();
        if field(0) != MAGIC || !matches!(field(4), 3 | 4) {
            return Err(damaged("its superblock is none"));
        }
        let (compat, incompat) = if field(4) == 4 { (field(0x24), field(0x28)) } else { (0, 0) };
        let unknown = incompat & !(REVOKE | WIDE | ASYNC | CSUM_V2 | CSUM_V3 | FAST_COMMIT);
        if unknown != 0 {
            return Err(Error::unsupported("the ext journal", format!("incompatible features {unknown:#x}")));
        }
        let seed = crc32c(!0, slice(bytes, 0x30, 16).unwrap_or_default());
        let checksums = match (incompat & CSUM_V3 != 0, incompat & CSUM_V2 != 0, compat & COMPAT_CHECKSUM != 0) {
            (true, false, _) => Checksums::V3(seed),
            (false, true, _) => Checksums::V2(seed),
            (false, false, true) => Checksums::V1,
            (false, false, false) => Checksums::None,
            (true, true, _) => return Err(damaged("it has two kinds of checksums at once")),
        };
        if checksums.seed().is_some() {
            let mut copy = bytes.to_vec();
            copy[0xfc..0x100].fill(0);
            if u8_at(bytes, 0x50) != Some(CRC32C) || crc32c(!0, &copy) != field(0xfc) {
                return Err(damaged("the checksum of its superblock is wrong"));
            }
        }
        let (size, total, first) = (field(0xc), field(0x10), field(0x14));
        let mut last = total;
        let mut fast = None;
        if incompat & FAST_COMMIT != 0 {
            let blocks = if field(0x54) == 0 { FAST_BLOCKS } else { field(0x54) };
            if let Some(ring) = total.checked_sub(blocks).filter(|ring| *ring > first) {
                (last, fast) = (ring, Some(ring + 1));
            }
        }
        let held = self.inode.size / u64::from(self.fs.superblock.block_size);
        let start = field(0x1c);
        let within = |block: u32| (first..last).contains(&block);
        if size != self.fs.superblock.block_size
            || u64::from(total) > held
            || first == 0
            || !within(first)
            || (start != 0 && !within(start))
        {
            let problem =
                format!("{total} blocks of {size}, used from {first} on, started at {start}, {held} are there");
            return Err(damaged(problem));
        }
        let features = Features { wide: incompat & WIDE != 0, checksums, asynchronous: incompat & ASYNC != 0 };
        Ok(Self { first, last, start, sequence: field(0x18), fast, features, ..self })
    }

    /// Finds the first transaction that was not committed.
    fn scan(&self) -> Result<u32> {
        let mut at = Cursor { block: self.start, left: self.last - self.first };
        let mut sequence = self.sequence;
        let mut committed: Option<(u64, u32)> = None;
        let mut running = !0; // the checksum of version 1 of the transaction so far
        let mut doubt = None;
        while let Some(number) = at.step(self, 1) {
            let block = self.block(number)?;
            let Some(kind) = kind(&block, sequence) else { break };
            match kind {
                DESCRIPTOR => {
                    if !self.tail_is_right(&block) {
                        doubt = Some(number);
                    }
                    let tags = Tags::of(&block, self.features).count() as u32;
                    if self.features.checksums == Checksums::V1 {
                        running = crc32_be(running, &block);
                    }
                    for _ in 0..tags {
                        let Some(data) = at.step(self, 1) else { return Ok(sequence) };
                        if self.features.checksums == Checksums::V1 {
                            running = crc32_be(running, &self.block(data)?);
                        }
                    }
                }
                REVOKED => {
                    if !self.tail_is_right(&block) {
                        doubt = Some(number);
                    }
                }
                COMMIT => {
                    let time = (be_u64(&block, 0x30).unwrap_or_default(), be_u32(&block, 0x38).unwrap_or_default());
                    if !self.commit_is_right(&block, running) {
                        doubt = Some(number);
                    }
                    if let Some(wrong) = doubt {
                        // Older than what came before: left from an earlier use of the ring.
                        if self.features.asynchronous || committed.is_some_and(|before| time < before) {
                            break;
                        }
                        return Err(damaged(format!(
                            "the checksum of transaction {sequence} in block {wrong} is wrong"
                        )));
                    }
                    committed = Some(time);
                    running = !0;
                    sequence = sequence.wrapping_add(1);
                }
                _ => break,
            }
        }
        Ok(sequence)
    }

    /// Fails when changes of the guest are in fast commits behind the last full one, which are not read.
    fn check_fast_commits(&self, end: u32) -> Result<()> {
        let Some(fast) = self.fast else { return Ok(()) };
        let block = self.block(fast)?;
        let head = le_u16(&block, 0) == Some(FAST_HEAD) && le_u16(&block, 2) == Some(8);
        if head && le_u32(&block, 8) == Some(end) {
            let reason = "its last changes are in fast commits, which are not read";
            return Err(Error::unsupported("this ext file system", reason));
        }
        Ok(())
    }

    /// The blocks that are not to be written by transactions up to the one that is told for each.
    fn revoked(&self, end: u32) -> Result<HashMap<u64, u32>> {
        let mut revoked = HashMap::new();
        self.each(end, |sequence, kind, block, _| {
            if kind != REVOKED {
                return Ok(());
            }
            let len = be_u32(block, 12).unwrap_or_default() as usize;
            let room = block.len() - if self.features.checksums.seed().is_some() { 4 } else { 0 };
            let records = block.get(16..len).filter(|_| len <= room);
            let records = records.ok_or_else(|| damaged(format!("it revokes {len} bytes of blocks")))?;
            for record in records.chunks_exact(if self.features.wide { 8 } else { 4 }) {
                let number = be_u64(record, 0).or(be_u32(record, 0).map(u64::from)).unwrap_or_default();
                let last = revoked.entry(number).or_insert(sequence);
                if after(sequence, *last) {
                    *last = sequence;
                }
                if revoked.len() > MOST_REVOKED {
                    return Err(damaged("it revokes more blocks than can be"));
                }
            }
            Ok(())
        })?;
        Ok(revoked)
    }

    fn apply(&self, end: u32, revoked: &HashMap<u64, u32>, overlay: &mut Overlay) -> Result<()> {
        let size = u64::from(self.fs.superblock.block_size);
        self.each(end, |sequence, kind, _, data| {
            if kind != DESCRIPTOR {
                return Ok(());
            }
            for (tag, number) in data {
                let place = self.place(*number)?;
                if revoked.get(&tag.block).is_some_and(|last| !after(sequence, *last)) {
                    continue;
                }
                if tag.block >= self.fs.superblock.blocks {
                    return Err(damaged(format!("transaction {sequence} changes block {}", tag.block)));
                }
                let checked = self.features.checksums.seed();
                if checked.is_some() || tag.escaped {
                    let mut bytes = self.fs.volume.device.read_vec(place, size as usize)?;
                    if let Some(seed) = checked {
                        let found = crc32c(crc32c(seed, &sequence.to_be_bytes()), &bytes);
                        if found & tag.checksum_mask != tag.checksum {
                            let block = tag.block;
                            return Err(damaged(format!(
                                "block {block} of transaction {sequence} has a wrong checksum"
                            )));
                        }
                    }
                    if tag.escaped {
                        bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
                        overlay.put(tag.block, bytes.into())?;
                        continue;
                    }
                }
                overlay.put_moved(tag.block, place)?;
            }
            Ok(())
        })
    }

    /// Goes through the blocks of all transactions before `end`. Descriptors come with their tags and the blocks of the
    /// journal that hold what they tell of.
    fn each(&self, end: u32, mut take: impl FnMut(u32, u32, &[u8], &[(Tag, u32)]) -> Result<()>) -> Result<()> {
        let mut at = Cursor { block: self.start, left: self.last - self.first };
        let mut sequence = self.sequence;
        while sequence != end {
            let Some(number) = at.step(self, 1) else { break };
            let block = self.block(number)?;
            let Some(kind) = kind(&block, sequence) else { break };
            let mut data = Vec::new();
            if kind == DESCRIPTOR {
                for tag in Tags::of(&block, self.features) {
                    let Some(number) = at.step(self, 1) else { return Ok(()) };
                    data.push((tag, number));
                }
            }
            take(sequence, kind, &block, &data)?;
            if kind == COMMIT {
                sequence = sequence.wrapping_add(1);
            }
        }
        Ok(())
    }

    fn tail_is_right(&self, block: &[u8]) -> bool {
        let Some(seed) = self.features.checksums.seed() else { return true };
        let tail = block.len() - 4;
        let found = crc32c(crc32c(seed, &block[..tail]), &[0; 4]);
        be_u32(block, tail) == Some(found)
    }

    fn commit_is_right(&self, block: &[u8], running: u32) -> bool {
        match self.features.checksums {
            Checksums::None => true,
            Checksums::V1 => {
                let (kind, size, stored) = (u8_at(block, 0xc), u8_at(block, 0xd), be_u32(block, 0x10));
                let unused = (kind, size, stored) == (Some(0), Some(0), Some(0));
                unused || (kind, size, stored) == (Some(CRC32), Some(4), Some(running))
            }
            Checksums::V2(seed) | Checksums::V3(seed) => {
                let found = crc32c(crc32c(crc32c(seed, &block[..0x10]), &[0; 4]), &block[0x14..]);
                be_u32(block, 0x10) == Some(found)
            }
        }
    }

    fn block(&self, number: u32) -> Result<Vec<u8>> {
        let place = self.place(number)?;
        self.fs.volume.device.read_vec(place, self.fs.superblock.block_size as usize)
    }

    /// Where a block of the journal lies, in bytes of the volume.
    fn place(&self, number: u32) -> Result<u64> {
        match self.fs.run(&self.inode, u64::from(number))?.kind {
            RunKind::At(block) => Ok(block * u64::from(self.fs.superblock.block_size)),
            RunKind::Hole | RunKind::Unwritten => Err(damaged(format!("its block {number} is missing"))),
        }
    }
}

/// A place in the ring.
struct Cursor {
    block: u32,
    /// Blocks until the ring is gone through once.
    left: u32,
}

impl Cursor {
    /// The block here; goes on by `count`.
    fn step(&mut self, journal: &Journal<'_>, count: u32) -> Option<u32> {
        self.left = self.left.checked_sub(count)?;
        let here = self.block;
        self.block += count;
        if self.block >= journal.last {
            self.block -= journal.last - journal.first;
        }
        Some(here)
    }
}

/// What kind of block of transaction `sequence` this is.
fn kind(block: &[u8], sequence: u32) -> Option<u32> {
    let ours = be_u32(block, 0) == Some(MAGIC) && be_u32(block, 8) == Some(sequence);
    be_u32(block, 4).filter(|_| ours)
}

/// Whether transaction `one` is later than `other`; their numbers wrap around.
fn after(one: u32, other: u32) -> bool {
    one.wrapping_sub(other).cast_signed() > 0
}

fn damaged(problem: impl Into<String>) -> Error {
    Error::damaged("the ext journal", problem)
}

const MAGIC: u32 = 0xc03b_3998;
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const REVOKED: u32 = 5;

const COMPAT_CHECKSUM: u32 = 0x1;
const REVOKE: u32 = 0x1;
const WIDE: u32 = 0x2;
const ASYNC: u32 = 0x4;
const CSUM_V2: u32 = 0x8;
const CSUM_V3: u32 = 0x10;
const FAST_COMMIT: u32 = 0x20;

/// Kinds of checksums.
const CRC32: u8 = 1;
const CRC32C: u8 = 4;

/// Blocks for fast commits, where the superblock says none.
const FAST_BLOCKS: u32 = 256;
/// The tag at the start of the fast commits, `EXT4_FC_TAG_HEAD`.
const FAST_HEAD: u16 = 0x9;

/// What the changes may take: a journal of 1 GiB has 262 144 blocks of 4 KiB, of which most lie as they are to be read.
const MEMORY: u64 = 512 << 20;
/// More than a journal of 1 GiB can hold.
const MOST_REVOKED: usize = 16 << 20;
