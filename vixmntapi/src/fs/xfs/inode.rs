//! Inodes: what there is to know of a file, and the roots of its two forks.
//! "XFS Algorithms & Data Structures", chapter "On-disk Inode".

use std::ops::Range;

use super::superblock::Superblock;
use crate::{
    bytes::{be_u16, be_u32, be_u64, u8_at},
    error::{Error, Result},
    fs::{FileKind, Metadata, Times, Timestamp, parts::Replayed},
};

/// An inode in use.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) number: u64,
    pub(super) kind: FileKind,
    pub(super) size: u64,
    flags2: u64,
    raw: Vec<u8>,
}

/// One of the two things that an inode maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fork {
    /// The content.
    Data,
    /// The extended attributes.
    Attributes,
}

/// How a fork is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In the inode.
    Local,
    /// As a list of extents in the inode.
    Extents,
    /// As a tree of extents.
    Tree,
    /// Nothing is there, or a device's number.
    Other,
}

impl Inode {
    /// Reads one; [`Error::NotFound`] for a number that does not exist or is not in use.
    pub(super) fn read(volume: &Replayed, superblock: &Superblock, number: u64) -> Result<Self> {
        let absent = || Error::NotFound(format!("inode {number}"));
        let place = superblock.inode_place(number).ok_or_else(absent)?;
        let raw = volume.read_checked(place, superblock.inode_size.into(), superblock.v5.then_some(CRC));
        let raw = raw.map_err(|error| error.of(&format!("XFS inode {number}")))?;
        let ends = || Error::damaged(format!("XFS inode {number}"), "it ends early");
        if be_u16(&raw, 0) != Some(MAGIC) || (superblock.v5 && be_u64(&raw, 152) != Some(number)) {
            return Err(absent());
        }
        let mode = be_u16(&raw, 2).ok_or_else(ends)?;
        if mode == 0 {
            return Err(absent());
        }
        let inode = Self {
            number,
            kind: FileKind::from_mode(mode.into()),
            size: be_u64(&raw, 56).ok_or_else(ends)?,
            flags2: if superblock.v5 { be_u64(&raw, 120).ok_or_else(ends)? } else { 0 },
            raw,
        };
        inode.check(superblock)?;
        Ok(inode)
    }

    fn check(&self, superblock: &Superblock) -> Result<()> {
        if self.size > i64::MAX as u64 {
            return Err(self.damaged(format!("{} bytes", self.size)));
        }
        if superblock.v5 != (self.u8(4) == 3) {
            return Err(self.damaged(format!("it has version {}", self.u8(4))));
        }
        if self.split() > self.raw.len() {
            return Err(self.damaged("its attributes begin behind its end"));
        }
        Ok(())
    }

    /// The bytes of a fork in the inode.
    pub(super) fn fork(&self, fork: Fork) -> &[u8] {
        let range: Range<usize> = match fork {
            Fork::Data => self.literal()..self.split(),
            Fork::Attributes if self.u8(82) == 0 => return &[],
            Fork::Attributes => self.split()..self.raw.len(),
        };
        self.raw.get(range).unwrap_or_default()
    }

    /// How a fork is kept.
    pub(super) fn form(&self, fork: Fork) -> Form {
        let form = match fork {
            Fork::Data => self.u8(5),
            Fork::Attributes if self.u8(82) == 0 => return Form::Other,
            Fork::Attributes => self.u8(83),
        };
        match form {
            1 => Form::Local,
            2 => Form::Extents,
            3 => Form::Tree,
            _ => Form::Other,
        }
    }

    /// How many extents a fork has.
    pub(super) fn extents(&self, fork: Fork) -> u64 {
        let wide = self.flags2 & FLAG2_WIDE_COUNTS != 0;
        match (fork, wide) {
            (Fork::Data, true) => be_u64(&self.raw, 24).unwrap_or_default(),
            (Fork::Data, false) => self.u32(76).into(),
            (Fork::Attributes, true) => self.u32(76).into(),
            (Fork::Attributes, false) => be_u16(&self.raw, 80).unwrap_or_default().into(),
        }
    }

    /// Whether the content is on another device.
    pub(super) fn is_realtime(&self) -> bool {
        be_u16(&self.raw, 90).unwrap_or_default() & FLAG_REALTIME != 0 && self.kind == FileKind::File
    }

    /// What programs see.
    pub(super) fn metadata(&self, superblock: &Superblock) -> Metadata {
        let mut metadata = Metadata::new(self.kind, self.size);
        metadata.allocated = be_u64(&self.raw, 64).unwrap_or_default().saturating_mul(u64::from(superblock.block_size));
        metadata.links = if self.u8(4) == 1 { be_u16(&self.raw, 6).unwrap_or_default().into() } else { self.u32(16) };
        metadata.mode = u32::from(be_u16(&self.raw, 2).unwrap_or_default()) & 0o7777;
        (metadata.uid, metadata.gid) = (self.u32(8), self.u32(12));
        metadata.times = Times {
            accessed: self.time(32),
            modified: self.time(40),
            changed: self.time(48),
            created: (self.u8(4) == 3).then(|| self.time(144)),
        };
        if matches!(self.kind, FileKind::BlockDevice | FileKind::CharDevice) {
            let number = be_u32(self.fork(Fork::Data), 0).unwrap_or_default();
            metadata.device = Some((number >> 18 & 0x3fff, number & 0x3_ffff));
        }
        metadata
    }

    /// An error of this inode.
    pub(super) fn damaged(&self, problem: impl Into<String>) -> Error {
        Error::damaged(format!("XFS inode {}", self.number), problem)
    }

    fn time(&self, at: usize) -> Timestamp {
        if self.flags2 & FLAG2_BIG_TIME != 0 {
            let nanos = be_u64(&self.raw, at).unwrap_or_default();
            let seconds = (nanos / 1_000_000_000) as i64 - BIG_TIME_EPOCH;
            return Timestamp::new(seconds, (nanos % 1_000_000_000) as u32);
        }
        Timestamp::new(i64::from(self.u32(at) as i32), self.u32(at + 4))
    }

    /// Where the content's fork begins.
    fn literal(&self) -> usize {
        literal(self.u8(4))
    }

    /// Where it ends, and that of the attributes begins.
    fn split(&self) -> usize {
        match self.u8(82) {
            0 => self.raw.len(),
            eights => self.literal() + usize::from(eights) * 8,
        }
    }

    fn u8(&self, at: usize) -> u8 {
        u8_at(&self.raw, at).unwrap_or_default()
    }

    fn u32(&self, at: usize) -> u32 {
        be_u32(&self.raw, at).unwrap_or_default()
    }
}

/// Where the first fork begins in an inode of a version.
pub(super) fn literal(version: u8) -> usize {
    if version >= 3 { 176 } else { 100 }
}

/// `IN`
const MAGIC: u16 = 0x494e;
const CRC: usize = 100;
const FLAG_REALTIME: u16 = 0x1;
const FLAG2_BIG_TIME: u64 = 0x8;
const FLAG2_WIDE_COUNTS: u64 = 0x10;
/// Seconds from the first moment of wide times to 1970.
const BIG_TIME_EPOCH: i64 = 1 << 31;
