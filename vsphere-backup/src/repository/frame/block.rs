//! Memory in which one worker makes frames, one after the other, without moving any of them again.

use zstd::zstd_safe::compress_bound;

use super::{
    super::{cipher::TAG, id::ChunkId},
    Encoder, FrameCipher, HEAD, MAGIC, PackEntry, STORED, ZSTD, finish,
};

/// Whole frames, and room for more.
pub(crate) struct Block {
    bytes: Vec<u8>,
    filled: usize,
    /// Offsets count from the begin of the block.
    entries: Vec<PackEntry>,
}

impl Block {
    /// Begins with memory that another block may have had: what it holds does not matter.
    pub(crate) fn new(memory: Vec<u8>) -> Self {
        Self { bytes: memory, filled: 0, entries: Vec::new() }
    }

    /// Returns how much memory a block for chunks of this size takes.
    pub(crate) fn size_for(chunk: usize) -> usize {
        (2 * most(chunk)).max(SIZE)
    }

    /// Tells whether a chunk of this length surely fits.
    pub(crate) fn has_room(&self, plain: usize) -> bool {
        self.bytes.len() - self.filled >= most(plain)
    }

    pub(crate) fn len(&self) -> usize {
        self.filled
    }

    pub(crate) fn entries(&self) -> &[PackEntry] {
        &self.entries
    }

    /// Returns the frames.
    #[cfg(test)]
    pub(crate) fn frames(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    /// Returns the memory, for another block.
    pub(crate) fn into_memory(self) -> Vec<u8> {
        self.bytes
    }

    /// Appends the frame of a chunk [that fits](Self::has_room), compressed when that saves at least a sixteenth,
    /// encrypted when there is a cipher. No other frame of the cipher may have the number.
    ///
    /// Returns the length of the frame.
    ///
    /// # Errors
    /// What the compressor says.
    pub(crate) fn push(
        &mut self,
        id: ChunkId,
        plain: &[u8],
        number: u32,
        encoder: &mut Encoder<'_>,
        cipher: Option<&FrameCipher>,
    ) -> std::io::Result<usize> {
        let free = &mut self.bytes[self.filled..];
        let (head, room) = free.split_at_mut(HEAD);
        let mut len = encoder.compress(plain, room)?;
        let encoding = if len < plain.len() - plain.len() / 16 {
            ZSTD
        } else {
            len = plain.len();
            room[..len].copy_from_slice(plain);
            STORED
        };
        let stored = len + if cipher.is_some() { TAG } else { 0 };
        let entry = PackEntry { id, offset: self.filled as u64, stored: stored as u32, plain: plain.len() as u32 };
        head[0..4].copy_from_slice(MAGIC);
        head[4..8].copy_from_slice(&[encoding, 0, 0, 0]);
        head[8..12].copy_from_slice(&entry.stored.to_le_bytes());
        head[12..16].copy_from_slice(&entry.plain.to_le_bytes());
        head[16..48].copy_from_slice(&id.0);
        let len = HEAD + stored;
        finish(&mut free[..len], number, cipher);
        self.filled += len;
        self.entries.push(entry);
        Ok(len)
    }
}

/// The most that a frame takes while it is made: the compressor may need more room than it fills.
fn most(plain: usize) -> usize {
    HEAD + compress_bound(plain) + TAG
}

/// A block's size in bytes unless chunks are large: many blocks make a pack, so little of it is left empty.
const SIZE: usize = 2 << 20;
