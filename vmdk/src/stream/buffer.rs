//! Bytes that came and were not understood yet.

/// A queue of bytes that lie in one piece.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    /// Taken bytes, waiting bytes, room.
    bytes: Vec<u8>,
    head: usize,
    tail: usize,
}

impl Buffer {
    /// Room for `len` more bytes. Forgets what was taken.
    pub(super) fn space(&mut self, len: usize) -> &mut [u8] {
        if self.head == self.tail {
            (self.head, self.tail) = (0, 0);
        }
        if self.bytes.len() - self.tail < len && self.head > 0 {
            self.bytes.copy_within(self.head..self.tail, 0);
            (self.head, self.tail) = (0, self.tail - self.head);
        }
        if self.bytes.len() - self.tail < len {
            self.bytes.resize(self.tail + len, 0);
        }
        &mut self.bytes[self.tail..self.tail + len]
    }

    /// Says that this many bytes of the last [`space`](Self::space) were filled.
    pub(super) fn filled(&mut self, len: usize) {
        self.tail = (self.tail + len).min(self.bytes.len());
    }

    /// The waiting bytes.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.bytes[self.head..self.tail]
    }

    /// Takes bytes away; they can still be [looked at](Self::taken).
    pub(super) fn take(&mut self, len: usize) {
        self.head = (self.head + len).min(self.tail);
    }

    /// The last `len` bytes that were taken; to be called before the next [`space`](Self::space).
    pub(super) fn taken(&self, len: usize) -> &[u8] {
        &self.bytes[self.head - len..self.head]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let mut buffer = Buffer::default();
        let (mut put, mut got) = (0_u8, 0_u8);
        for round in 1..200_usize {
            let len = round % 17;
            for byte in buffer.space(len + 3).iter_mut().take(len) {
                *byte = put;
                put = put.wrapping_add(1);
            }
            buffer.filled(len);
            let len = (round % 13).min(buffer.waiting().len());
            buffer.take(len);
            for byte in buffer.taken(len) {
                assert_eq!(*byte, got);
                got = got.wrapping_add(1);
            }
        }
        assert!(buffer.bytes.len() < 1000, "taken bytes give their room back");
    }
}
