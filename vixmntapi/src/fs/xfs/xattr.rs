//! Extended attributes: in the inode, in a leaf or in a tree of leaves, with large values in blocks of their own.
//! "XFS Algorithms & Data Structures", chapter "Extended Attributes".

use super::{
    Xfs,
    directory::{LEAF_CRC, MAX_DEPTH, NODE_MAGIC, NODE_MAGIC_V5},
    inode::{Fork, Form, Inode},
};
use crate::{
    bytes::{be_u16, be_u32, be_u64, slice, u8_at},
    error::Result,
    fs::{FileName, parts::Place},
};

impl Xfs {
    /// All attributes that programs see. ACLs are told as Linux hands them to programs, not as `trusted.SGI_ACL_*`.
    pub(super) fn attributes(&self, inode: &Inode) -> Result<Vec<(FileName, Vec<u8>)>> {
        let mut found = Vec::new();
        let mut add = |flags: u8, name: &[u8], value: Vec<u8>| {
            let (name, value) = match (flags & (ROOT | SECURE | PARENT | INCOMPLETE), name) {
                (0, _) => ([b"user.", name].concat(), value),
                (ROOT, b"SGI_ACL_FILE") => (b"system.posix_acl_access".to_vec(), acl(inode, &value)?),
                (ROOT, b"SGI_ACL_DEFAULT") => (b"system.posix_acl_default".to_vec(), acl(inode, &value)?),
                (ROOT, _) => ([b"trusted.", name].concat(), value),
                (SECURE, _) => ([b"security.", name].concat(), value),
                // Half set when the system stopped, or the names of the file itself.
                _ => return Ok(()),
            };
            found.push((FileName::new(name), value));
            Ok(())
        };
        match inode.form(Fork::Attributes) {
            Form::Other => {}
            Form::Local => each_short(inode, add)?,
            Form::Extents if inode.extents(Fork::Attributes) == 0 => {}
            Form::Extents | Form::Tree => self.each_leaf(inode, &mut add)?,
        }
        Ok(found)
    }

    fn each_leaf(&self, inode: &Inode, add: &mut impl FnMut(u8, &[u8], Vec<u8>) -> Result<()>) -> Result<()> {
        let wrong = || inode.damaged("a block of its attributes is none");
        let (count_at, nodes_at) = if self.superblock.v5 { (56, 64) } else { (12, 16) };
        let mut number = 0;
        let mut block = self.attribute_block(inode, number)?;
        for _ in 0..MAX_DEPTH {
            if !matches!(be_u16(&block, 8), Some(NODE_MAGIC | NODE_MAGIC_V5)) {
                break;
            }
            number = be_u32(&block, nodes_at + 4).ok_or_else(wrong)?;
            block = self.attribute_block(inode, number)?;
        }
        for _ in 0..MOST_LEAVES {
            if !matches!(be_u16(&block, 8), Some(LEAF_MAGIC | LEAF_MAGIC_V5)) {
                return Err(wrong());
            }
            let count = usize::from(be_u16(&block, count_at).ok_or_else(wrong)?);
            let table = slice(&block, if self.superblock.v5 { 80 } else { 32 }, count * 8).ok_or_else(wrong)?;
            for entry in table.as_chunks::<8>().0 {
                let at = usize::from(be_u16(entry, 4).ok_or_else(wrong)?);
                self.attribute(inode, &block, at, entry[6], add)?;
            }
            number = be_u32(&block, 0).ok_or_else(wrong)?;
            if number == 0 {
                return Ok(());
            }
            block = self.attribute_block(inode, number)?;
        }
        Err(wrong())
    }

    fn attribute(
        &self,
        inode: &Inode,
        block: &[u8],
        at: usize,
        flags: u8,
        add: &mut impl FnMut(u8, &[u8], Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        let wrong = || inode.damaged("an attribute of it is none");
        if flags & INCOMPLETE != 0 {
            return Ok(());
        }
        if flags & LOCAL != 0 {
            let value_len = usize::from(be_u16(block, at).ok_or_else(wrong)?);
            let name_len = usize::from(u8_at(block, at + 2).ok_or_else(wrong)?);
            let name = slice(block, at + 3, name_len).ok_or_else(wrong)?;
            let value = slice(block, at + 3 + name_len, value_len).ok_or_else(wrong)?;
            return add(flags, name, value.to_vec());
        }
        let (first, len) = be_u32(block, at).zip(be_u32(block, at + 4)).ok_or_else(wrong)?;
        let name_len = usize::from(u8_at(block, at + 8).ok_or_else(wrong)?);
        let name = slice(block, at + 9, name_len).ok_or_else(wrong)?;
        if len as usize > MAX_VALUE {
            return Err(inode.damaged(format!("an attribute of {len} bytes")));
        }
        add(flags, name, self.remote(inode, Fork::Attributes, first.into(), len as usize, REMOTE_MAGIC)?)
    }

    /// Reads a value or a link's target of `len` bytes that has blocks of its own, with headers in version 5.
    pub(super) fn remote(&self, inode: &Inode, fork: Fork, first: u64, len: usize, magic: u32) -> Result<Vec<u8>> {
        let wrong = || inode.damaged("a block of a long attribute or link is none");
        let size = u64::from(self.superblock.block_size);
        let mut value = vec![0; len];
        let mut at = first * size;
        if !self.superblock.v5 {
            self.read_fork(inode, fork, at, &mut value)?;
            return Ok(value);
        }
        let mut done = 0;
        while done < len {
            let mut header = [0; REMOTE_HEADER];
            self.read_fork(inode, fork, at, &mut header)?;
            let right = be_u32(&header, 0) == Some(magic)
                && be_u32(&header, 4).map(|at| at as usize) == Some(done)
                && be_u64(&header, 32) == Some(inode.number);
            let bytes = be_u32(&header, 8).map(|bytes| bytes as usize).filter(|bytes| right && *bytes > 0);
            let bytes = bytes.filter(|bytes| *bytes <= len - done).ok_or_else(wrong)?;
            self.read_fork(inode, fork, at + REMOTE_HEADER as u64, &mut value[done..done + bytes])?;
            done += bytes;
            at += ((REMOTE_HEADER + bytes) as u64).next_multiple_of(size);
        }
        Ok(value)
    }

    fn attribute_block(&self, inode: &Inode, number: u32) -> Result<Vec<u8>> {
        let at = u64::from(number) * u64::from(self.superblock.block_size);
        let what = || format!("block {number} of the attributes of XFS inode {}", inode.number);
        let Place::At(place) = self.part(inode, Fork::Attributes, at)?.place else {
            return Err(inode.damaged(format!("block {number} of its attributes is missing")));
        };
        let crc = self.superblock.v5.then_some(LEAF_CRC);
        let block = self.volume.read_checked(place, self.superblock.block_size as usize, crc);
        let block = block.map_err(|error| error.of(&what()))?;
        if crc.is_some() && be_u64(&block, 48) != Some(inode.number) {
            return Err(inode.damaged(format!("block {number} of its attributes belongs to something else")));
        }
        Ok(block)
    }
}

/// Goes through attributes that live in the inode.
fn each_short(inode: &Inode, mut add: impl FnMut(u8, &[u8], Vec<u8>) -> Result<()>) -> Result<()> {
    let wrong = || inode.damaged("its short attributes are none");
    let raw = inode.fork(Fork::Attributes);
    let mut at = 4;
    for _ in 0..u8_at(raw, 2).ok_or_else(wrong)? {
        let lens = u8_at(raw, at).zip(u8_at(raw, at + 1)).ok_or_else(wrong)?;
        let (name_len, value_len) = (usize::from(lens.0), usize::from(lens.1));
        let name = slice(raw, at + 3, name_len).ok_or_else(wrong)?;
        let value = slice(raw, at + 3 + name_len, value_len).ok_or_else(wrong)?;
        add(u8_at(raw, at + 2).ok_or_else(wrong)?, name, value.to_vec())?;
        at += 3 + name_len + value_len;
    }
    Ok(())
}

/// An ACL in the form in which Linux hands it to programs.
fn acl(inode: &Inode, stored: &[u8]) -> Result<Vec<u8>> {
    let wrong = || inode.damaged("an ACL is none");
    let count = be_u32(stored, 0).ok_or_else(wrong)? as usize;
    let entries = slice(stored, 4, count.checked_mul(12).ok_or_else(wrong)?).ok_or_else(wrong)?;
    let mut made = 2_u32.to_le_bytes().to_vec();
    for entry in entries.as_chunks::<12>().0 {
        let (tag, id) = be_u32(entry, 0).zip(be_u32(entry, 4)).ok_or_else(wrong)?;
        let id = if matches!(tag, ACL_USER | ACL_GROUP) { id } else { u32::MAX };
        made.extend((tag as u16).to_le_bytes());
        made.extend(be_u16(entry, 8).ok_or_else(wrong)?.to_le_bytes());
        made.extend(id.to_le_bytes());
    }
    Ok(made)
}

const LEAF_MAGIC: u16 = 0xfbee;
const LEAF_MAGIC_V5: u16 = 0x3bee;
/// `XARM`
const REMOTE_MAGIC: u32 = 0x5841_524d;
/// `XSLM`, of blocks of links.
pub(super) const LINK_MAGIC: u32 = 0x5853_4c4d;
/// Bytes before those of a value or link in each run of blocks.
const REMOTE_HEADER: usize = 56;
/// Flags of an attribute.
const LOCAL: u8 = 0x01;
const ROOT: u8 = 0x02;
const SECURE: u8 = 0x04;
const PARENT: u8 = 0x08;
const INCOMPLETE: u8 = 0x80;
const ACL_USER: u32 = 0x2;
const ACL_GROUP: u32 = 0x8;
/// The kernel's `XATTR_SIZE_MAX`.
const MAX_VALUE: usize = 64 << 10;
/// Leaves of one inode; more are a circle.
const MOST_LEAVES: usize = 100_000;
