//! What a chunk becomes.

/// Bytes that are filled from the first on.
#[derive(Debug)]
pub(super) struct Output<'a> {
    bytes: &'a mut [u8],
    done: usize,
}

impl<'a> Output<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, done: 0 }
    }

    /// Bytes that are still to be filled.
    pub(super) fn room(&self) -> usize {
        self.bytes.len() - self.done
    }

    #[inline]
    pub(super) fn push(&mut self, byte: u8) -> Option<()> {
        *self.bytes.get_mut(self.done)? = byte;
        self.done += 1;
        Some(())
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Option<()> {
        self.bytes.get_mut(self.done..self.done.checked_add(bytes.len())?)?.copy_from_slice(bytes);
        self.done += bytes.len();
        Some(())
    }

    /// Repeats what was filled so many bytes ago; what is repeated may begin with what it makes.
    #[inline]
    pub(super) fn copy(&mut self, back: usize, len: usize) -> Option<()> {
        let from = self.done.checked_sub(back).filter(|_| back > 0)?;
        let end = self.done.checked_add(len).filter(|end| *end <= self.bytes.len())?;
        if back >= len {
            self.bytes.copy_within(from..from + len, self.done);
        } else {
            for at in self.done..end {
                let byte = *self.bytes.get(at - back)?;
                *self.bytes.get_mut(at)? = byte;
            }
        }
        self.done = end;
        Some(())
    }
}
