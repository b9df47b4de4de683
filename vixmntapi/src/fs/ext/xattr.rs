//! Extended attributes, behind an inode's fields and in a block of their own.
//! `Documentation/filesystems/ext4/attributes.rst`.

use super::{
    Ext,
    inode::{Inode, flag},
};
use crate::{
    bytes::{le_u16, le_u32, slice, u8_at},
    error::Result,
    fs::{FileName, checksum::crc32c},
};

/// An attribute as it is stored.
struct Stored<'a> {
    index: u8,
    name: &'a [u8],
    value: Value<'a>,
}

enum Value<'a> {
    Here(&'a [u8]),
    /// So many bytes are the content of this inode.
    InInode(u32, u64),
}

impl Ext {
    /// All attributes that programs see.
    pub(super) fn attributes(&self, inode: &Inode) -> Result<Vec<(FileName, Vec<u8>)>> {
        let mut found = Vec::new();
        self.each_attribute(inode, |stored| {
            let prefix: &[u8] = match (stored.index, stored.name) {
                // What is kept for the file system itself.
                (SYSTEM, b"data") | (ENCRYPTION, _) => return Ok(()),
                (1, _) => b"user.",
                (ACL_ACCESS, _) => b"system.posix_acl_access",
                (ACL_DEFAULT, _) => b"system.posix_acl_default",
                (4, _) => b"trusted.",
                (6, _) => b"security.",
                (SYSTEM, _) => b"system.",
                (8, _) => b"system.richacl",
                (10, _) => b"gnu.",
                (index, _) => return Err(inode.damaged(format!("an attribute of kind {index}"))),
            };
            let mut value = self.value(inode, &stored.value)?;
            if matches!(stored.index, ACL_ACCESS | ACL_DEFAULT) {
                value = acl(&value).ok_or_else(|| inode.damaged("an ACL is none"))?;
            }
            found.push((FileName::new([prefix, stored.name].concat()), value));
            Ok(())
        })?;
        Ok(found)
    }

    /// The content of a directory or link that lives in its inode.
    pub(super) fn whole_inline_data(&self, inode: &Inode) -> Result<Vec<u8>> {
        let data = self.inline_data(inode)?;
        match data.len() as u64 == inode.size {
            true => Ok(data),
            false => Err(inode.damaged(format!("{} of {} bytes are there", data.len(), inode.size))),
        }
    }

    /// What of a file lives in its inode: less than its size where nothing was written behind it, as `mke2fs -d` makes
    /// files that are all hole.
    pub(super) fn inline_data(&self, inode: &Inode) -> Result<Vec<u8>> {
        let mut data = inode.block.to_vec();
        self.each_attribute(inode, |stored| {
            if (stored.index, stored.name) == (SYSTEM, b"data") {
                data.truncate(inode.block.len());
                data.extend(self.value(inode, &stored.value)?);
            }
            Ok(())
        })?;
        data.truncate(usize::try_from(inode.size).unwrap_or(usize::MAX));
        Ok(data)
    }

    fn each_attribute(&self, inode: &Inode, mut take: impl FnMut(Stored<'_>) -> Result<()>) -> Result<()> {
        let area = inode.xattr_area();
        if le_u32(area, 0) == Some(MAGIC) {
            let area = &area[4..];
            self.each_in(inode, area, 0, &mut take)?;
        }
        if inode.xattr_block != 0 {
            let number = inode.xattr_block;
            let wrong = || inode.damaged(format!("its attributes in block {number} are none"));
            let block = self.block(number).map_err(|error| error.unwrap_or_else(wrong))?;
            if le_u32(&block, 0) != Some(MAGIC) {
                return Err(wrong());
            }
            if let Some(seed) = self.superblock.checksum_seed {
                let mut crc = crc32c(seed, &number.to_le_bytes());
                crc = crc32c(crc, &block[..16]);
                crc = crc32c(crc32c(crc, &[0; 4]), &block[20..]);
                if le_u32(&block, 16) != Some(crc) {
                    return Err(inode.damaged(format!("the checksum of its attributes in block {number} is wrong")));
                }
            }
            self.each_in(inode, &block, 32, &mut take)?;
        }
        Ok(())
    }

    /// Values are placed from the start of `area`, entries are from `at` on.
    fn each_in(
        &self,
        inode: &Inode,
        area: &[u8],
        mut at: usize,
        take: &mut impl FnMut(Stored<'_>) -> Result<()>,
    ) -> Result<()> {
        // No entry follows when there is no room for one.
        while le_u32(area, at).is_some_and(|start| start != 0) {
            let (stored, len) = parse(area, at).ok_or_else(|| inode.damaged("an attribute of it is none"))?;
            take(stored)?;
            at += len;
        }
        Ok(())
    }

    fn value(&self, of: &Inode, value: &Value<'_>) -> Result<Vec<u8>> {
        match value {
            Value::Here(bytes) => Ok(bytes.to_vec()),
            Value::InInode(number, size) => {
                let inode = self.inode(*number)?;
                if !inode.has(flag::EA_INODE) || inode.size != *size || *size > MAX_VALUE {
                    return Err(of.damaged(format!("an attribute of {size} bytes is in inode {number}")));
                }
                let mut bytes = vec![0; *size as usize];
                self.read_blocks(&inode, 0, &mut bytes)?;
                Ok(bytes)
            }
        }
    }
}

/// An attribute and how many bytes its entry takes.
fn parse(area: &[u8], at: usize) -> Option<(Stored<'_>, usize)> {
    let name_len = usize::from(u8_at(area, at)?);
    let size = le_u32(area, at + 8)?;
    let value = match le_u32(area, at + 4)? {
        0 if size == 0 => Value::Here(&[]),
        0 => Value::Here(slice(area, usize::from(le_u16(area, at + 2)?), size as usize)?),
        inode => Value::InInode(inode, u64::from(size)),
    };
    let stored = Stored { index: u8_at(area, at + 1)?, name: slice(area, at + 16, name_len)?, value };
    Some((stored, (16 + name_len).next_multiple_of(4)))
}

/// An ACL in the form in which Linux hands it to programs: ext leaves out ids where there are none.
fn acl(stored: &[u8]) -> Option<Vec<u8>> {
    if le_u32(stored, 0)? != 1 {
        return None;
    }
    let mut made = 2_u32.to_le_bytes().to_vec();
    let mut at = 4;
    while at < stored.len() {
        let tag = le_u16(stored, at)?;
        made.extend(slice(stored, at, 4)?);
        at += 4;
        if matches!(tag, ACL_USER | ACL_GROUP) {
            made.extend(slice(stored, at, 4)?);
            at += 4;
        } else {
            made.extend(u32::MAX.to_le_bytes());
        }
    }
    Some(made)
}

const MAGIC: u32 = 0xea02_0000;
const ACL_ACCESS: u8 = 2;
const ACL_DEFAULT: u8 = 3;
const SYSTEM: u8 = 7;
const ENCRYPTION: u8 = 9;
const ACL_USER: u16 = 0x2;
const ACL_GROUP: u16 = 0x8;
/// The kernel's `XATTR_SIZE_MAX`.
const MAX_VALUE: u64 = 64 << 10;
