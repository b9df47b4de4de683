//! Zeros for transports that can only write bytes.

use std::{ops::Range, sync::LazyLock};

use bytes::Bytes;

use super::DiskHandle;
use crate::error::Result;

/// Writes a range full of zeros, piece after piece.
pub(super) async fn write_zeros(disk: &dyn DiskHandle, range: Range<u64>) -> Result<()> {
    let mut offset = range.start;
    while offset < range.end {
        let piece = zeros(range.end - offset);
        let len = piece.len() as u64;
        disk.write_at(offset, piece).await?;
        offset += len;
    }
    Ok(())
}

/// So many zeros, or as many as there are. All share the same memory, which the system backs by nothing.
pub(crate) fn zeros(len: u64) -> Bytes {
    static ZEROS: LazyLock<Bytes> = LazyLock::new(|| vec![0; PIECE].into());
    ZEROS.slice(..usize::try_from(len).unwrap_or(PIECE).min(PIECE))
}

/// Enough to keep the buffers of a session filled.
const PIECE: usize = 4 << 20;
