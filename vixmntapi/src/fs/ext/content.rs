//! The bytes of a file.

use std::{ops::Range, sync::Arc};

use super::{
    Ext,
    blocks::RunKind,
    inode::{Inode, flag},
};
use crate::{
    error::Result,
    fs::{
        Content, Extent, ExtentKind,
        parts::{Part, Place},
        within,
    },
};

/// An open file.
pub(super) struct Open {
    fs: Arc<Ext>,
    inode: Inode,
    /// What lives in its inode, when it does; zeros follow.
    inline: Option<Vec<u8>>,
}

impl Open {
    pub(super) fn new(fs: Arc<Ext>, inode: Inode) -> Result<Self> {
        inode.check_key()?;
        let inline = inode.has(flag::INLINE_DATA).then(|| fs.inline_data(&inode)).transpose()?;
        Ok(Self { fs, inode, inline })
    }
}

impl Content for Open {
    fn size(&self) -> u64 {
        self.inode.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let buf = within(self.inode.size, offset, buf);
        match &self.inline {
            Some(data) => {
                let there = data.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
                let (stored, zeros) = buf.split_at_mut(there.len().min(buf.len()));
                stored.copy_from_slice(&there[..stored.len()]);
                zeros.fill(0);
            }
            None => self.fs.read_blocks(&self.inode, offset, buf)?,
        }
        Ok(buf.len())
    }

    fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>> {
        let range = range.start..range.end.min(self.inode.size);
        if range.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(data) = &self.inline {
            let end = (data.len() as u64).clamp(range.start, range.end);
            let parts = [(range.start..end, ExtentKind::Encoded), (end..range.end, ExtentKind::Hole)];
            let parts = parts.into_iter().filter(|(part, _)| !part.is_empty());
            return Ok(parts.map(|(part, kind)| Extent::new(part, kind)).collect());
        }
        let who = || format!("inode {}", self.inode.number);
        self.fs.volume.map(range, who, |at| self.fs.part(&self.inode, at))
    }
}

impl Ext {
    /// Fills `buf` with what a file's blocks hold from `offset` on, whatever its size.
    pub(super) fn read_blocks(&self, inode: &Inode, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.volume.read(offset, buf, |at| self.part(inode, at))
    }

    /// Where a byte of a file lies.
    fn part(&self, inode: &Inode, at: u64) -> Result<Part> {
        let block = u64::from(self.superblock.block_size);
        let run = self.run(inode, at / block)?;
        let place = match run.kind {
            RunKind::At(start) => Place::At(start * block + at % block),
            RunKind::Hole => Place::Hole,
            RunKind::Unwritten => Place::Unwritten,
        };
        Ok(Part { len: run.len.saturating_mul(block) - at % block, place })
    }
}
