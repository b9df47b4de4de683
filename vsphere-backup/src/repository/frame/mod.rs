//! A chunk as it lies in a pack: a header with its identity, lengths and checksum, then its bytes.
//!
//! Byte layout: `FORMAT.md`, "Chunk frames".

mod block;
mod codec;
mod seal;

use std::ops::Range;

use bytes::Bytes;

use super::id::{ChunkId, IdKeys};

pub(crate) use self::{
    block::Block,
    codec::{Codec, Encoder},
    seal::FrameCipher,
};

/// One chunk within a pack or a run of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackEntry {
    pub(crate) id: ChunkId,
    /// Where the frame begins.
    pub(crate) offset: u64,
    /// Bytes behind the frame's header.
    pub(crate) stored: u32,
    /// Bytes of the chunk.
    pub(crate) plain: u32,
}

impl PackEntry {
    pub(crate) const LEN: usize = 48;

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.0);
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.stored.to_le_bytes());
        out.extend_from_slice(&self.plain.to_le_bytes());
    }

    /// Returns the bytes of the frame within the pack; the entry was checked to lie inside it.
    pub(crate) fn frame(&self) -> Range<u64> {
        self.offset..self.offset + HEAD as u64 + u64::from(self.stored)
    }

    /// Decodes exactly [`Self::LEN`] bytes.
    pub(crate) fn decode(bytes: &[u8; Self::LEN]) -> Self {
        let (id, rest) = bytes.split_at(32);
        Self {
            id: ChunkId(id.try_into().expect("32 bytes")),
            offset: u64::from_le_bytes(rest[0..8].try_into().expect("8 bytes")),
            stored: u32::from_le_bytes(rest[8..12].try_into().expect("4 bytes")),
            plain: u32::from_le_bytes(rest[12..16].try_into().expect("4 bytes")),
        }
    }
}

/// Completes a whole frame with a number that no other frame of its pack has: encrypted in place when the pack is.
fn finish(frame: &mut [u8], number: u32, cipher: Option<&FrameCipher>) {
    let (head, stored) = frame.split_at_mut(HEAD);
    head[48..SUMMED].copy_from_slice(&number.to_le_bytes());
    if let Some(cipher) = cipher {
        cipher.seal(head, stored);
    }
    let sum = checksum(head, stored);
    head[SUMMED..].copy_from_slice(&sum.to_le_bytes());
}

/// Takes a chunk out of its frame and checks every byte of it: the checksum, the lengths, the tag where it is encrypted,
/// and that the plain bytes are those of `id`.
///
/// The error says what is wrong.
pub(crate) fn decode(
    frame: &Bytes,
    id: ChunkId,
    plain_len: u32,
    cipher: Option<&FrameCipher>,
    keys: &IdKeys,
    codec: &Codec,
) -> Result<Bytes, String> {
    if frame.len() < HEAD {
        return Err("its frame is cut short".into());
    }
    let (head, stored) = frame.split_at(HEAD);
    let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("4 bytes"));
    if checksum(head, stored) != word(SUMMED) {
        return Err("the checksum of its frame does not match".into());
    }
    if head[0..4] != *MAGIC || head[5..8] != [0; 3] || word(8) as usize != stored.len() {
        return Err("its frame is not valid".into());
    }
    if head[16..48] != id.0 {
        return Err("another chunk lies at its place".into());
    }
    if word(12) != plain_len {
        return Err(format!("it has {} bytes, not {plain_len}", word(12)));
    }
    let encoded = match cipher {
        Some(cipher) => Bytes::from(cipher.open(head, stored).ok_or("it does not decrypt")?),
        None => frame.slice(HEAD..),
    };
    let plain = match head[4] {
        STORED if encoded.len() == plain_len as usize => encoded,
        STORED => return Err("its lengths differ".into()),
        ZSTD => {
            let plain = codec
                .decompress(&encoded, plain_len as usize)
                .map_err(|error| format!("it cannot be decompressed: {error}"))?;
            if plain.len() != plain_len as usize {
                return Err("its decompressed length is wrong".into());
            }
            plain.into()
        }
        other => return Err(format!("its encoding {other} is not known to this release")),
    };
    if keys.chunk(&plain) != id {
        return Err("its content does not match its identity".into());
    }
    Ok(plain)
}

/// Tells, without keys, whether a frame is as it was written and that of a chunk.
pub(crate) fn is_intact(frame: &[u8], id: ChunkId) -> bool {
    let Some((head, stored)) = frame.split_at_checked(HEAD) else { return false };
    let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("4 bytes"));
    checksum(head, stored) == word(SUMMED) && head[0..4] == *MAGIC && head[16..48] == id.0
}

/// Returns the plain length that a frame states, at most that of the largest chunk; 0 when the
/// frame is cut short.
pub(crate) fn plain_len(frame: &[u8]) -> u32 {
    let stated = frame.get(12..16).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("4")));
    stated.unwrap_or(0).min(MAX_PLAIN)
}

/// Tells whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Blocks keep the early exit while the inner loop stays one wide OR.
    bytes.chunks(4096).all(|block| block.iter().fold(0, |any, &byte| any | byte) == 0)
}

fn number(head: &[u8]) -> u32 {
    u32::from_le_bytes(head[48..SUMMED].try_into().expect("4 bytes"))
}

fn checksum(head: &[u8], stored: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[..SUMMED]);
    hasher.update(stored);
    hasher.finalize()
}

/// The largest chunk size of the format, in bytes.
pub(crate) const MAX_PLAIN: u32 = 4 << 20;
const MAGIC: &[u8; 4] = b"CHNK";
const CONTEXT: &str = "vsphere-backup 2026-11-22 format 1 pack";
/// The part of the head that the checksum and the tag cover: all before the checksum.
const SUMMED: usize = 52;
const STORED: u8 = 0;
const ZSTD: u8 = 1;

/// The length of a frame's header in bytes.
pub(crate) const HEAD: usize = 56;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::{id::RepositoryId, keys::SecretKey};

    fn frame(plain: &[u8], cipher: Option<&FrameCipher>) -> (Bytes, ChunkId, IdKeys) {
        let keys = IdKeys::derive(&[3; 32]);
        let id = keys.chunk(plain);
        let mut block = Block::new(vec![1; Block::size_for(plain.len())]);
        let len = block.push(id, plain, 7, &mut Codec::default().encoder().unwrap(), cipher).unwrap();
        assert_eq!((block.len(), block.frames().len()), (len, len));
        (Bytes::copy_from_slice(block.frames()), id, keys)
    }

    fn cipher(salt: u8) -> FrameCipher {
        FrameCipher::new(&SecretKey::new([1; 32]), &[salt; 32], RepositoryId([2; 16]))
    }

    fn open(
        frame: &Bytes,
        id: ChunkId,
        len: u32,
        cipher: Option<&FrameCipher>,
        keys: &IdKeys,
    ) -> Result<Bytes, String> {
        decode(frame, id, len, cipher, keys, &Codec::default())
    }

    fn resum(frame: &mut [u8]) {
        let sum = checksum(frame, &frame[HEAD..]);
        frame[SUMMED..HEAD].copy_from_slice(&sum.to_le_bytes());
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn chunks_survive_compressed_and_stored_plain_and_encrypted() {
        for (plain, cipher) in [vec![7; 65_536], noise(65_536), noise(512)]
            .into_iter()
            .flat_map(|plain| [(plain.clone(), None), (plain, Some(cipher(1)))])
        {
            let (frame, id, keys) = frame(&plain, cipher.as_ref());
            let (len, cipher) = (plain.len() as u32, cipher.as_ref());
            assert_eq!(open(&frame, id, len, cipher, &keys).unwrap(), plain);
            assert_eq!(frame.len() < plain.len(), plain[0] == 7);
            assert!(open(&frame, id, len - 1, cipher, &keys).is_err());
            assert!(open(&frame, ChunkId([0; 32]), len, cipher, &keys).is_err());
            let leaks = plain[0] != 7 && frame.windows(16).any(|part| part == &plain[16..32]);
            assert_eq!(leaks, plain[0] != 7 && cipher.is_none());
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        for plain in [vec![7; 4096], noise(600)] {
            let (frame, id, keys) = frame(&plain, None);
            for bit in 0..frame.len() * 8 {
                let mut bad = frame.to_vec();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(open(&bad.into(), id, plain.len() as u32, None, &keys).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_of_an_encrypted_frame_is_found_with_a_right_checksum_too() {
        let plain = noise(100);
        let (frame, id, keys) = frame(&plain, Some(&cipher(1)));
        for bit in (0..frame.len() * 8).filter(|bit| !(SUMMED..HEAD).contains(&(bit / 8))) {
            let mut bad = frame.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            resum(&mut bad);
            assert!(open(&bad.into(), id, 100, Some(&cipher(1)), &keys).is_err(), "bit {bit}");
        }
        assert!(open(&frame, id, 100, Some(&cipher(2)), &keys).is_err(), "each pack has its own key");
        assert!(open(&frame, id, 100, None, &keys).is_err());
    }

    #[test]
    fn zero_is_zero_to_the_last_byte() {
        let mut bytes = vec![0; 10_000];
        assert!(is_zero(&bytes) && is_zero(&[]));
        bytes[9_999] = 1;
        assert!(!is_zero(&bytes));
    }
}
