//! Extents: what one file contributes to one link of a disk. Offsets are relative to the extent.

mod backing;
mod sparse;
mod sparse_write;

use std::ops::Range;

pub(crate) use self::{backing::Backing, sparse::SparseExtent, sparse_write::free_end};
use crate::{
    error::{Error, Result},
    grains::{Place, Run},
};

/// Brings the bytes under a link, from its parent, for the part of a grain that a write leaves alone.
pub(crate) type Underlay<'a> = &'a dyn Fn(u64, &mut [u8]) -> Result<()>;

/// One extent.
#[derive(Debug)]
pub(crate) enum Extent {
    /// Raw bytes from `offset` in the file.
    Flat { backing: Backing, offset: u64 },
    /// Hosted sparse.
    Sparse(Box<SparseExtent>),
    /// No bytes.
    Zero,
}

impl Extent {
    /// Where the first bytes of `range` are; flat files are all data here, whatever their holes.
    pub(crate) fn run(&self, range: Range<u64>) -> Result<Run> {
        match self {
            Self::Flat { offset, .. } => {
                Ok(Run { place: Place::At(offset + range.start), len: range.end - range.start })
            }
            Self::Sparse(sparse) => sparse.run(range),
            Self::Zero => Ok(Run { place: Place::Zero, len: range.end - range.start }),
        }
    }

    /// The file with the bytes of [`Place::At`].
    pub(crate) fn backing(&self) -> Option<&Backing> {
        match self {
            Self::Flat { backing, .. } => Some(backing),
            Self::Sparse(sparse) => Some(sparse.backing()),
            Self::Zero => None,
        }
    }

    /// Writes `data`, which lies inside the extent.
    pub(crate) fn write(&self, offset: u64, data: &[u8], under: Underlay<'_>) -> Result<()> {
        match self {
            Self::Flat { backing, offset: start } => backing.write(start + offset, data),
            Self::Sparse(sparse) => sparse.write(offset, data, under),
            // Writing zeros to zeros is what a restore of such a disk does.
            Self::Zero if data.iter().all(|&byte| byte == 0) => Ok(()),
            Self::Zero => Err(Error::ReadOnly {
                operation: "write",
                object: "a ZERO extent".to_owned(),
                reason: "it has no file to hold data",
            }),
        }
    }

    /// Makes `range`, which lies inside the extent, read as zero.
    pub(crate) fn zero(&self, range: Range<u64>, has_parent: bool, under: Underlay<'_>) -> Result<()> {
        match self {
            Self::Flat { backing, offset } => backing.punch(offset + range.start..offset + range.end),
            Self::Sparse(sparse) => sparse.zero(range, has_parent, under),
            Self::Zero => Ok(()),
        }
    }

    pub(crate) fn flush(&self) -> Result<()> {
        self.backing().map_or(Ok(()), Backing::sync)
    }

    /// Flushes and marks the extent as cleanly closed.
    pub(crate) fn close(&self) -> Result<()> {
        match self {
            Self::Sparse(sparse) => sparse.close(),
            _ => self.flush(),
        }
    }
}
