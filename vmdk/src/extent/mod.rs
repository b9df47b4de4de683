//! Extents: what one file contributes to one link of a disk. Offsets are relative to the extent.

mod backing;
mod packed;
mod sparse;
mod tables;

pub(crate) use self::{
    backing::Backing,
    packed::Unpacker,
    sparse::{SparseExtent, free_end},
    tables::TableFile,
};
#[cfg(feature = "async")]
pub(crate) use self::{packed::Held, tables::words};
use crate::error::Result;

/// Brings the bytes under a link, from its parent, for the part of a grain that a write leaves alone.
pub(crate) type Underlay<'a> = &'a dyn Fn(u64, &mut [u8]) -> Result<()>;
