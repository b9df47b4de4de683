//! The superblock and the group descriptors: how large everything is and where inodes lie.
//! Names and places are those of the kernel's `Documentation/filesystems/ext4/super.rst` and `group_descr.rst`.

use crate::fs::checksum::crc32c;
use crate::{
    bytes::{array, le_u16, le_u32, u8_at},
    device::{Device, DeviceExt},
    error::{Error, Result},
};

/// What a superblock says, checked.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    pub(super) block_size: u32,
    pub(super) blocks: u64,
    pub(super) free_blocks: u64,
    pub(super) inodes: u32,
    pub(super) inode_size: u16,
    pub(super) state: u16,
    pub(super) compat: u32,
    pub(super) incompat: u32,
    pub(super) ro_compat: u32,
    pub(super) uuid: [u8; 16],
    pub(super) label: [u8; 16],
    pub(super) journal_inode: u32,
    pub(super) hash_seed: [u32; 4],
    /// Names are hashed as unsigned bytes.
    pub(super) hash_unsigned: bool,
    /// What checksums of metadata begin with; `None` where there are none.
    pub(super) checksum_seed: Option<u32>,
    first_data_block: u32,
    blocks_per_group: u32,
    inodes_per_group: u32,
    descriptor_size: u16,
    first_meta_group: u32,
    backup_groups: [u32; 2],
}

impl Superblock {
    /// Reads it; `None` when there is none.
    pub(super) fn read(device: &dyn Device) -> Result<Option<Self>> {
        if device.size() < PLACE + LEN as u64 {
            return Ok(None);
        }
        let bytes: [u8; LEN] = device.read_array(PLACE)?;
        let claimed = le_u16(&bytes, 0x38) == Some(MAGIC)
            && le_u32(&bytes, 0x18).is_some_and(|log| log <= 6)
            && le_u32(&bytes, 0x4c).is_some_and(|revision| revision <= 1);
        if !claimed {
            return Ok(None);
        }
        let missing = || Error::damaged("the ext superblock", "it ends early");
        let superblock = Self::parse(&bytes).ok_or_else(missing)?;
        superblock.check(&bytes, device)?;
        Ok(Some(superblock))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let revision = le_u32(bytes, 0x4c)?;
        let incompat = if revision == 0 { 0 } else { le_u32(bytes, 0x60)? };
        let ro_compat = if revision == 0 { 0 } else { le_u32(bytes, 0x64)? };
        let wide = incompat & incompat::WIDE != 0;
        let high = |at| if wide { le_u32(bytes, at).map(u64::from) } else { Some(0) };
        let uuid = array(bytes, 0x68)?;
        let checksum_seed = match (ro_compat & ro_compat::METADATA_CSUM != 0, incompat & incompat::CSUM_SEED != 0) {
            (false, _) => None,
            (true, false) => Some(crc32c(!0, &uuid)),
            (true, true) => Some(le_u32(bytes, 0x270)?),
        };
        let mut free_blocks = u64::from(le_u32(bytes, 0xc)?) | high(0x158)? << 32;
        if ro_compat & ro_compat::BIGALLOC != 0 {
            let ratio = le_u32(bytes, 0x1c)?.saturating_sub(le_u32(bytes, 0x18)?);
            free_blocks = free_blocks.saturating_mul(1 << ratio.min(32));
        }
        Some(Self {
            block_size: 1024 << le_u32(bytes, 0x18)?.min(6),
            blocks: u64::from(le_u32(bytes, 0x4)?) | high(0x150)? << 32,
            free_blocks,
            inodes: le_u32(bytes, 0)?,
            inode_size: if revision == 0 { 128 } else { le_u16(bytes, 0x58)? },
            state: le_u16(bytes, 0x3a)?,
            compat: if revision == 0 { 0 } else { le_u32(bytes, 0x5c)? },
            incompat,
            ro_compat,
            uuid,
            label: array(bytes, 0x78)?,
            journal_inode: le_u32(bytes, 0xe0)?,
            hash_seed: [le_u32(bytes, 0xec)?, le_u32(bytes, 0xf0)?, le_u32(bytes, 0xf4)?, le_u32(bytes, 0xf8)?],
            hash_unsigned: le_u32(bytes, 0x160)? & FLAG_UNSIGNED_HASH != 0,
            checksum_seed,
            first_data_block: le_u32(bytes, 0x14)?,
            blocks_per_group: le_u32(bytes, 0x20)?,
            inodes_per_group: le_u32(bytes, 0x28)?,
            descriptor_size: if wide { le_u16(bytes, 0xfe)? } else { 32 },
            first_meta_group: le_u32(bytes, 0x104)?,
            backup_groups: [le_u32(bytes, 0x24c)?, le_u32(bytes, 0x250)?],
        })
    }

    /// Refuses what contradicts itself, and what would be misread.
    fn check(&self, bytes: &[u8; LEN], device: &dyn Device) -> Result<()> {
        let wrong = |problem: String| Err(Error::damaged("the ext superblock", problem));
        if self.incompat & incompat::JOURNAL_DEV != 0 {
            return Err(Error::unsupported("an external journal of ext", "it holds no files of its own"));
        }
        let unknown = self.incompat & !incompat::READ;
        if unknown != 0 {
            let reason = format!("incompatible features {unknown:#x}{}", incompat::names(unknown));
            return Err(Error::unsupported("this ext file system", reason));
        }
        if self.ro_compat & ro_compat::METADATA_CSUM != 0 {
            if u8_at(bytes, 0x175) != Some(1) {
                return wrong("checksums of an unknown kind".into());
            }
            let stored = le_u32(bytes, LEN - 4).unwrap_or_default();
            let found = crc32c(!0, &bytes[..LEN - 4]);
            if stored != found {
                return wrong(format!("its checksum is {found:#010x}, not {stored:#010x}"));
            }
        }
        if self.blocks > device.size() / u64::from(self.block_size) {
            return wrong(format!("{} blocks of {} on {} bytes", self.blocks, self.block_size, device.size()));
        }
        if !self.inode_size.is_power_of_two() || self.inode_size < 128 || u32::from(self.inode_size) > self.block_size {
            return wrong(format!("inodes of {} bytes", self.inode_size));
        }
        if !self.descriptor_size.is_power_of_two() || !(32..=1024).contains(&self.descriptor_size) {
            return wrong(format!("group descriptors of {} bytes", self.descriptor_size));
        }
        if self.blocks_per_group == 0 || self.inodes_per_group == 0 || u64::from(self.first_data_block) >= self.blocks {
            return wrong("groups of nothing".into());
        }
        let groups = (self.blocks - u64::from(self.first_data_block)).div_ceil(u64::from(self.blocks_per_group));
        if u64::from(self.inodes) > groups.saturating_mul(u64::from(self.inodes_per_group)) {
            return wrong(format!("{} inodes in {groups} groups of {}", self.inodes, self.inodes_per_group));
        }
        Ok(())
    }

    /// What the world calls it, as `blkid` decides.
    pub(super) fn kind(&self) -> &'static str {
        if self.incompat & !incompat::OF_EXT3 != 0 || self.ro_compat & !ro_compat::OF_EXT3 != 0 {
            "ext4"
        } else if self.compat & compat::HAS_JOURNAL != 0 {
            "ext3"
        } else {
            "ext2"
        }
    }

    /// Where an inode lies, in bytes of the device; `None` when there is no such number.
    pub(super) fn inode_place(&self, device: &dyn Device, number: u32) -> Result<Option<u64>> {
        if number == 0 || number > self.inodes {
            return Ok(None);
        }
        let index = (number - 1) % self.inodes_per_group;
        let group = (number - 1) / self.inodes_per_group;
        let descriptor = self.descriptor(device, group)?;
        let high = if descriptor.len() >= 64 { le_u32(&descriptor, 0x28).unwrap_or_default() } else { 0 };
        let table = u64::from(le_u32(&descriptor, 0x8).unwrap_or_default()) | u64::from(high) << 32;
        let within = u64::from(index) * u64::from(self.inode_size);
        if table == 0 || table.saturating_add(within / u64::from(self.block_size)) >= self.blocks {
            return Err(Error::damaged(format!("ext group {group}"), format!("its inodes are at block {table}")));
        }
        Ok(Some(table * u64::from(self.block_size) + within))
    }

    fn descriptor(&self, device: &dyn Device, group: u32) -> Result<Vec<u8>> {
        let size = u32::from(self.descriptor_size);
        let per_block = self.block_size / size;
        let of = group / per_block; // the how many-th block of descriptors
        // The superblock is the first KiB after the boot sector, whatever the first data block is.
        let after = u64::from(self.block_size == 1024);
        let block = if self.incompat & incompat::META_BG != 0 && of >= self.first_meta_group {
            let first = of * per_block;
            let start = u64::from(self.first_data_block) + u64::from(first) * u64::from(self.blocks_per_group);
            let boot = first == 0 && self.block_size == 1024 && self.first_data_block == 0;
            start + u64::from(self.has_superblock(first)) + u64::from(boot)
        } else {
            after + 1 + u64::from(of)
        };
        if block >= self.blocks {
            return Err(Error::damaged(format!("ext group {group}"), format!("its descriptor is in block {block}")));
        }
        let place = block * u64::from(self.block_size) + u64::from(group % per_block * size);
        device.read_vec(place, size as usize)
    }

    fn has_superblock(&self, group: u32) -> bool {
        let power_of = |base: u32| {
            let mut power = base;
            while power < group {
                let Some(next) = power.checked_mul(base) else { return false };
                power = next;
            }
            power == group
        };
        if group == 0 {
            true
        } else if self.compat & compat::SPARSE_SUPER2 != 0 {
            self.backup_groups.contains(&group)
        } else {
            group == 1 || self.ro_compat & ro_compat::SPARSE_SUPER == 0 || power_of(3) || power_of(5) || power_of(7)
        }
    }
}

/// Features without which the rest can be read and written.
pub(super) mod compat {
    pub(in super::super) const HAS_JOURNAL: u32 = 0x4;
    pub(in super::super) const DIR_INDEX: u32 = 0x20;
    pub(super) const SPARSE_SUPER2: u32 = 0x200;
}

/// Features that a reader must know.
pub(super) mod incompat {
    const COMPRESSION: u32 = 0x1;
    pub(in super::super) const FILETYPE: u32 = 0x2;
    pub(in super::super) const RECOVER: u32 = 0x4;
    pub(super) const JOURNAL_DEV: u32 = 0x8;
    pub(super) const META_BG: u32 = 0x10;
    const EXTENTS: u32 = 0x40;
    /// Called `64bit`.
    pub(super) const WIDE: u32 = 0x80;
    const MMP: u32 = 0x100;
    const FLEX_BG: u32 = 0x200;
    const EA_INODE: u32 = 0x400;
    const DIRDATA: u32 = 0x1000;
    pub(super) const CSUM_SEED: u32 = 0x2000;
    pub(in super::super) const LARGEDIR: u32 = 0x4000;
    const INLINE_DATA: u32 = 0x8000;
    const ENCRYPT: u32 = 0x10000;
    const CASEFOLD: u32 = 0x20000;

    pub(super) const READ: u32 = FILETYPE
        | RECOVER
        | META_BG
        | EXTENTS
        | WIDE
        | MMP
        | FLEX_BG
        | EA_INODE
        | CSUM_SEED
        | LARGEDIR
        | INLINE_DATA
        | ENCRYPT
        | CASEFOLD;
    pub(super) const OF_EXT3: u32 = FILETYPE | RECOVER | META_BG;

    /// The names of features that are not read, as `dumpe2fs` says them.
    pub(super) fn names(unknown: u32) -> &'static str {
        match unknown {
            COMPRESSION => " (compression)",
            DIRDATA => " (dirdata)",
            _ => "",
        }
    }
}

/// Features that a writer must know.
pub(super) mod ro_compat {
    pub(super) const SPARSE_SUPER: u32 = 0x1;
    pub(in super::super) const HUGE_FILE: u32 = 0x8;
    pub(super) const BIGALLOC: u32 = 0x200;
    pub(super) const METADATA_CSUM: u32 = 0x400;
    /// Sparse superblocks, large files, directories as trees.
    pub(super) const OF_EXT3: u32 = 0x1 | 0x2 | 0x4;
}

const PLACE: u64 = 1024;
const LEN: usize = 1024;
const MAGIC: u16 = 0xef53;
const FLAG_UNSIGNED_HASH: u32 = 0x2;
