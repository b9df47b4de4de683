//! Memory that is used again and again: fresh memory costs the processor more than copying into it does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Pieces of memory of one size. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Spare {
    size: usize,
    /// Pieces that are kept.
    most: usize,
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Spare {
    /// Makes pieces of `size` bytes, and keeps as many of them as `bytes` hold.
    pub(crate) fn new(size: usize, bytes: usize) -> Self {
        Self { size, most: bytes / size.max(1), kept: Arc::default() }
    }

    /// Returns a piece, which may hold anything.
    pub(crate) fn take(&self) -> Vec<u8> {
        let kept = self.kept().pop();
        kept.unwrap_or_else(|| vec![0; self.size])
    }

    /// Returns the first `len` bytes of a piece as bytes that give it back when they are dropped.
    pub(crate) fn lend(&self, piece: Vec<u8>, len: usize) -> Bytes {
        Bytes::from_owner(Lent { spare: self.clone(), piece, len })
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        // Whole after any panic: pieces go in and out.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Lent {
    spare: Spare,
    piece: Vec<u8>,
    len: usize,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.piece[..self.len]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut kept = self.spare.kept();
        if kept.len() < self.spare.most {
            kept.push(std::mem::take(&mut self.piece));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_when_its_bytes_are_dropped_and_no_more_is_kept_than_allowed() {
        let spare = Spare::new(8, 16);
        let pieces: Vec<_> = (1..=3).map(|fill| spare.lend(vec![fill; 8], 3)).collect();
        assert_eq!(pieces[2].slice(1..), [3, 3][..]);
        assert!(spare.kept().is_empty());
        drop(pieces);
        assert_eq!(spare.kept().len(), 2);
        assert_eq!((spare.take().len(), spare.kept().len()), (8, 1));
    }
}
