//! The superblock of XFS and the arithmetic of its numbers.
//! Places are those of the "XFS Algorithms & Data Structures" book, chapter "Superblocks". Everything is big-endian.

use crate::{
    bytes::{array, be_u16, be_u32, be_u64, u8_at},
    device::{Device, DeviceExt},
    error::{Error, Result},
};

/// What the superblock says, checked against itself and the device.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    pub(super) block_size: u32,
    pub(super) blocks: u64,
    pub(super) free_blocks: u64,
    pub(super) uuid: [u8; 16],
    pub(super) label: [u8; 12],
    pub(super) root: u64,
    pub(super) inode_size: u16,
    /// Bytes of a block of a directory.
    pub(super) directory_block: u32,
    /// The first block of the log; 0 for a log on another device.
    pub(super) log_start: u64,
    pub(super) log_blocks: u32,
    /// Version 5: metadata has checksums and says where it belongs.
    pub(super) v5: bool,
    /// Directories tell what their entries are.
    pub(super) kinds: bool,
    /// Names are found without regard to the case of ASCII.
    pub(super) folds_case: bool,
    /// Whether the log may hold what recovery does not know.
    pub(super) log_incompat: u32,
    groups: u32,
    group_blocks: u32,
    block_log: u8,
    group_log: u8,
    inodes_per_block_log: u8,
}

impl Superblock {
    /// Reads the first one; `None` for a device that holds no XFS.
    pub(super) fn read(device: &dyn Device) -> Result<Option<Self>> {
        if device.size() < 1 << 20 {
            return Ok(None);
        }
        let raw: [u8; 512] = device.read_array(0)?;
        if be_u32(&raw, 0) != Some(MAGIC) {
            return Ok(None);
        }
        let parsed = Self::parse(&raw).ok_or_else(|| damaged("it ends early"))?;
        parsed.check_features(&raw)?;
        parsed.check(device)?;
        Ok(Some(parsed))
    }

    fn parse(raw: &[u8]) -> Option<Self> {
        let version = be_u16(raw, 100)?;
        let v5 = version & 0xf == 5;
        let block_log = u8_at(raw, 120)?;
        Some(Self {
            block_size: be_u32(raw, 4)?,
            blocks: be_u64(raw, 8)?,
            free_blocks: be_u64(raw, 144)?,
            uuid: array(raw, 32)?,
            label: array(raw, 108)?,
            root: be_u64(raw, 56)?,
            inode_size: be_u16(raw, 104)?,
            directory_block: 1_u32.checked_shl(u32::from(block_log) + u32::from(u8_at(raw, 192)?))?,
            log_start: be_u64(raw, 48)?,
            log_blocks: be_u32(raw, 96)?,
            v5,
            kinds: if v5 { be_u32(raw, 216)? & INCOMPAT_FTYPE != 0 } else { be_u32(raw, 200)? & FEATURES2_FTYPE != 0 },
            folds_case: version & VERSION_FOLDS_CASE != 0,
            log_incompat: if v5 { be_u32(raw, 220)? } else { 0 },
            groups: be_u32(raw, 88)?,
            group_blocks: be_u32(raw, 84)?,
            block_log,
            group_log: u8_at(raw, 124)?,
            inodes_per_block_log: u8_at(raw, 123)?,
        })
    }

    fn check_features(&self, raw: &[u8]) -> Result<()> {
        let field = |at| be_u32(raw, at).unwrap_or_default();
        let version = be_u16(raw, 100).unwrap_or_default();
        let refuse = |reason: String| Err(Error::unsupported("this XFS file system", reason));
        if !matches!(version & 0xf, 4 | 5) {
            return refuse(format!("it has version {}", version & 0xf));
        }
        if version & VERSION_DIRECTORIES2 == 0 {
            return refuse("its directories have the form of IRIX 6.4".into());
        }
        if self.v5 {
            let incompat = field(216);
            if incompat & INCOMPAT_NEEDS_REPAIR != 0 {
                return refuse("a repair of it was begun and not ended, and no kernel mounts it".into());
            }
            if incompat & !INCOMPAT_READ != 0 {
                return refuse(format!("incompatible features {:#x}", incompat & !INCOMPAT_READ));
            }
        }
        Ok(())
    }

    fn check(&self, device: &dyn Device) -> Result<()> {
        let total = self.blocks.checked_mul(self.block_size.into());
        let least = self.blocks.div_ceil(u64::from(self.group_blocks).max(1));
        let inode_log = u32::from(self.block_log).checked_sub(self.inodes_per_block_log.into());
        let right = (9..=16).contains(&self.block_log)
            && self.block_size == 1 << self.block_log
            && (256..=2048).contains(&self.inode_size)
            && inode_log.is_some_and(|log| log < 16 && self.inode_size == 1 << log)
            && (512..=64 << 10).contains(&self.directory_block)
            && self.group_blocks >= 16
            && self.group_log < 32
            && u64::from(self.group_blocks) <= 1 << self.group_log
            && u64::from(self.groups) == least
            && self.groups != 0;
        if !right {
            return Err(damaged(&format!(
                "{} groups of {} blocks of {} bytes, inodes of {}, directories in {}",
                self.groups, self.group_blocks, self.block_size, self.inode_size, self.directory_block
            )));
        }
        if total.is_none_or(|total| total > device.size()) {
            return Err(damaged(&format!(
                "it has {} blocks, {} has {} bytes",
                self.blocks,
                device.name(),
                device.size()
            )));
        }
        Ok(())
    }

    /// Where block `number` begins, a number as extents have it, if `count` blocks are there side by side.
    pub(super) fn place(&self, number: u64, count: u64) -> Option<u64> {
        let group = number >> self.group_log;
        let within = number & ((1 << self.group_log) - 1);
        if group >= u64::from(self.groups) || within.checked_add(count)? > u64::from(self.group_blocks) {
            return None;
        }
        let first = group * u64::from(self.group_blocks) + within;
        (first + count <= self.blocks).then_some(first << self.block_log)
    }

    /// Where an inode lies, if there can be one of this number.
    pub(super) fn inode_place(&self, number: u64) -> Option<u64> {
        let in_block = number & ((1 << self.inodes_per_block_log) - 1);
        let block = self.place(number >> self.inodes_per_block_log, 1)?;
        (number != 0).then_some(block + in_block * u64::from(self.inode_size))
    }

    /// Blocks of the file system in a block of a directory.
    pub(super) fn directory_span(&self) -> u64 {
        u64::from(self.directory_block / self.block_size).max(1)
    }
}

/// An error of the superblock.
fn damaged(problem: &str) -> Error {
    Error::damaged("the XFS superblock", problem)
}

/// `XFSB`
const MAGIC: u32 = 0x5846_5342;
const VERSION_DIRECTORIES2: u16 = 0x2000;
const VERSION_FOLDS_CASE: u16 = 0x4000;
const FEATURES2_FTYPE: u32 = 0x200;
const INCOMPAT_FTYPE: u32 = 0x1;
const INCOMPAT_NEEDS_REPAIR: u32 = 0x10;
/// Kinds in directories, sparse chunks of inodes, another id in metadata, times in 64 bits, wide counts of extents,
/// exchanged extents and pointers to parents.
const INCOMPAT_READ: u32 = 0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x40 | 0x80;
