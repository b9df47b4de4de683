//! Zeros for transports that can only write bytes.

use std::ops::Range;

use bytes::Bytes;

use super::DiskHandle;
use crate::error::Result;

/// Writes a range full of zeros, piece after piece.
pub(super) async fn write_zeros(disk: &dyn DiskHandle, range: Range<u64>) -> Result<()> {
    let size = |len: u64| usize::try_from(len.min(PIECE)).expect("a piece fits into memory");
    let zeros = Bytes::from(vec![0; size(range.end - range.start)]);
    let mut offset = range.start;
    while offset < range.end {
        let piece = zeros.slice(..size(range.end - offset));
        offset += disk.write_at(offset, piece.clone()).await.map(|()| piece.len() as u64)?;
    }
    Ok(())
}

/// Enough to keep the buffers of a session filled.
const PIECE: u64 = 4 << 20;
