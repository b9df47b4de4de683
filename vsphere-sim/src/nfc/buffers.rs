//! Buffers that are used again: fresh memory of a mebibyte costs more than moving the bytes.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most buffers that are kept for a connection.
const KEPT: usize = 16;
/// Smaller ones are not worth keeping.
const WORTHWHILE: usize = 16 * 1024;

/// Buffers of one connection that are not in use.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// A buffer of `len` bytes with any content.
    pub(super) fn take(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.lock().pop().unwrap_or_default();
        buffer.resize(len, 0);
        buffer
    }

    /// Gives a buffer back.
    pub(super) fn give(&self, buffer: Vec<u8>) {
        let mut kept = self.lock();
        if kept.len() < KEPT && buffer.capacity() >= WORTHWHILE {
            kept.push(buffer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
