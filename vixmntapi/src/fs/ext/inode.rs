//! Inodes: what there is to know of a file, and the root of where its blocks are.
//! Places are those of the kernel's `Documentation/filesystems/ext4/inodes.rst`.

use super::{superblock::Superblock, superblock::incompat, superblock::ro_compat};
use crate::{
    bytes::{array, le_u16, le_u32},
    device::{Device, DeviceExt},
    error::{Error, Result},
    fs::{FileKind, Metadata, Times, Timestamp, checksum::crc32c},
};

/// An inode in use, its checksum verified.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) number: u32,
    pub(super) kind: FileKind,
    pub(super) size: u64,
    pub(super) flags: u32,
    /// Where its blocks are, or a short content or link.
    pub(super) block: [u8; 60],
    /// The block with its extended attributes, or 0.
    pub(super) xattr_block: u64,
    /// What checksums of what belongs to it begin with.
    pub(super) checksum_seed: Option<u32>,
    raw: Vec<u8>,
}

impl Inode {
    /// Reads one; [`Error::NotFound`] for a number that does not exist or is not in use.
    pub(super) fn read(device: &dyn Device, superblock: &Superblock, number: u32) -> Result<Self> {
        let absent = || Error::NotFound(format!("inode {number}"));
        let place = superblock.inode_place(device, number)?.ok_or_else(absent)?;
        let raw = device.read_vec(place, usize::from(superblock.inode_size))?;
        let ends = || Error::damaged(format!("ext inode {number}"), "it ends early");
        let mode = le_u16(&raw, 0).ok_or_else(ends)?;
        if mode == 0 || le_u16(&raw, 0x1a) == Some(0) {
            return Err(absent());
        }
        let inode = Self::parse(superblock, number, mode, raw).ok_or_else(ends)?;
        inode.check(superblock)?;
        Ok(inode)
    }

    fn parse(superblock: &Superblock, number: u32, mode: u16, raw: Vec<u8>) -> Option<Self> {
        let kind = FileKind::from_mode(mode.into());
        let long = kind == FileKind::File || superblock.incompat & incompat::LARGEDIR != 0;
        let size_high = if long { le_u32(&raw, 0x6c)? } else { 0 };
        let generation = le_u32(&raw, 0x64)?;
        let checksum_seed =
            superblock.checksum_seed.map(|seed| crc32c(crc32c(seed, &number.to_le_bytes()), &generation.to_le_bytes()));
        Some(Self {
            number,
            kind,
            size: u64::from(le_u32(&raw, 0x4)?) | u64::from(size_high) << 32,
            flags: le_u32(&raw, 0x20)?,
            block: array(&raw, 0x28)?,
            xattr_block: u64::from(le_u32(&raw, 0x68)?) | u64::from(le_u16(&raw, 0x76)?) << 32,
            checksum_seed,
            raw,
        })
    }

    fn check(&self, superblock: &Superblock) -> Result<()> {
        if self.size > i64::MAX as u64 {
            return Err(self.damaged(format!("{} bytes", self.size)));
        }
        if usize::from(superblock.inode_size) > 128 && 128 + self.extra() > self.raw.len() {
            return Err(self.damaged(format!("{} bytes more than the first 128", self.extra())));
        }
        let Some(seed) = self.checksum_seed else { return Ok(()) };
        let mut bytes = self.raw.clone();
        let low = le_u16(&bytes, 0x7c).unwrap_or_default();
        bytes[0x7c..0x7e].fill(0);
        let mut stored = u32::from(low);
        let mut mask = 0xffff;
        if self.extra() >= 4 {
            stored |= u32::from(le_u16(&bytes, 0x82).unwrap_or_default()) << 16;
            bytes[0x82..0x84].fill(0);
            mask = !0;
        }
        let found = crc32c(seed, &bytes) & mask;
        if found != stored {
            return Err(self.damaged(format!("its checksum is {found:#010x}, not {stored:#010x}")));
        }
        Ok(())
    }

    /// Whether a flag of [`flag`] is set.
    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Fails for what is encrypted file by file.
    pub(super) fn check_key(&self) -> Result<()> {
        if self.has(flag::ENCRYPT) {
            return Err(Error::Encrypted { what: format!("inode {}", self.number), scheme: "fscrypt" });
        }
        Ok(())
    }

    /// What follows the fields: the extended attributes that fit.
    pub(super) fn xattr_area(&self) -> &[u8] {
        self.raw.get(128 + self.extra()..).filter(|_| self.extra() > 0).unwrap_or_default()
    }

    /// What there is to know of it.
    pub(super) fn metadata(&self, superblock: &Superblock) -> Result<Metadata> {
        self.describe(superblock).ok_or_else(|| self.damaged("it ends early"))
    }

    fn describe(&self, superblock: &Superblock) -> Option<Metadata> {
        let raw = &self.raw;
        let mut meta = Metadata::new(self.kind, self.size);
        let mut allocated = u64::from(le_u32(raw, 0x1c)?);
        if superblock.ro_compat & ro_compat::HUGE_FILE != 0 {
            allocated |= u64::from(le_u16(raw, 0x74)?) << 32;
        }
        let huge = superblock.ro_compat & ro_compat::HUGE_FILE != 0 && self.has(flag::HUGE_FILE);
        let unit = if huge { u64::from(superblock.block_size) } else { 512 };
        meta.allocated = allocated.saturating_mul(unit);
        meta.links = u32::from(le_u16(raw, 0x1a)?);
        meta.mode = u32::from(le_u16(raw, 0)? & 0o7777);
        meta.uid = u32::from(le_u16(raw, 0x2)?) | u32::from(le_u16(raw, 0x78)?) << 16;
        meta.gid = u32::from(le_u16(raw, 0x18)?) | u32::from(le_u16(raw, 0x7a)?) << 16;
        meta.times = Times {
            modified: self.time(0x10, 0x88)?,
            accessed: self.time(0x8, 0x8c)?,
            changed: self.time(0xc, 0x84)?,
            created: if self.fits(0x98) { Some(self.time(0x90, 0x94)?) } else { None },
        };
        if matches!(self.kind, FileKind::BlockDevice | FileKind::CharDevice) {
            let (old, new) = (le_u32(&self.block, 0)?, le_u32(&self.block, 4)?);
            meta.device = Some(match old {
                0 => (new >> 8 & 0xfff, new & 0xff | new >> 12 & 0xfff00),
                old => (old >> 8 & 0xff, old & 0xff),
            });
        }
        Some(meta)
    }

    /// Seconds are signed; two bits more and the nanoseconds are in a field that older inodes do not have.
    fn time(&self, at: usize, extra_at: usize) -> Option<Timestamp> {
        let seconds = i64::from(le_u32(&self.raw, at)?.cast_signed());
        let extra = if self.fits(extra_at + 4) { le_u32(&self.raw, extra_at)? } else { 0 };
        Some(Timestamp::new(seconds + (i64::from(extra & 3) << 32), extra >> 2))
    }

    /// Whether the inode's fields reach to byte `end`.
    fn fits(&self, end: usize) -> bool {
        128 + self.extra() >= end
    }

    /// Bytes of fields behind the first 128.
    fn extra(&self) -> usize {
        usize::from(le_u16(&self.raw, 0x80).unwrap_or_default())
    }

    /// An error of this inode.
    pub(super) fn damaged(&self, problem: impl Into<String>) -> Error {
        Error::damaged(format!("ext inode {}", self.number), problem)
    }
}

/// Flags of inodes.
pub(super) mod flag {
    pub(in super::super) const ENCRYPT: u32 = 0x800;
    pub(in super::super) const INDEX: u32 = 0x1000;
    pub(super) const HUGE_FILE: u32 = 0x4_0000;
    pub(in super::super) const EXTENTS: u32 = 0x8_0000;
    pub(in super::super) const EA_INODE: u32 = 0x20_0000;
    pub(in super::super) const INLINE_DATA: u32 = 0x1000_0000;
    pub(in super::super) const CASEFOLD: u32 = 0x4000_0000;
}
