//! One copy-on-write layer: the blocks written since the layer below was frozen.

use std::ops::Range;
use std::path::PathBuf;

use super::segmented::SegmentedFile;
use super::{BLOCK, BlockSet, Result};

/// Blocks of a disk that hide those of the layers below.
#[derive(Debug)]
pub(super) struct Layer {
    file: SegmentedFile,
    present: BlockSet,
}

/// A piece of a range: held by this layer, or to be looked up below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// These bytes are in this layer.
    Here(Range<u64>),
    /// These bytes are decided by what is below.
    Below(Range<u64>),
}

impl Layer {
    pub(super) fn new(stem: PathBuf) -> Self {
        Self { file: SegmentedFile::new(stem), present: BlockSet::new() }
    }

    /// Cuts `bytes` where the layer's own blocks begin and end.
    pub(super) fn pieces(&self, bytes: Range<u64>) -> impl Iterator<Item = Piece> + '_ {
        let mut at = bytes.start;
        std::iter::from_fn(move || {
            if at >= bytes.end {
                return None;
            }
            let block = at / BLOCK;
            let here = self.present.contains(block);
            let end_block = if here { Some(self.present.next_clear(block)) } else { self.present.next_set(block) };
            let end = end_block.and_then(|b| b.checked_mul(BLOCK)).unwrap_or(u64::MAX).min(bytes.end);
            let piece = at..end;
            at = end;
            Some(if here { Piece::Here(piece) } else { Piece::Below(piece) })
        })
    }

    /// The blocks held, as a set.
    pub(super) fn present(&self) -> &BlockSet {
        &self.present
    }

    /// Reads bytes that a [`Piece::Here`] named.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_at(offset, buffer)
    }

    /// Stores bytes. The caller gives whole blocks, or parts of blocks that the layer holds already, or a
    /// last block that ends with the disk.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_at(offset, bytes)?;
        self.present.insert(offset / BLOCK..(offset + bytes.len() as u64).div_ceil(BLOCK));
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync()
    }

    pub(super) fn delete(&self) -> Result<()> {
        self.file.delete()
    }
}
