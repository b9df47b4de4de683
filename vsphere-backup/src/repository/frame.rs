//! A chunk as it lies in a pack: a header with its identity, lengths and checksum, then its bytes.
//!
//! Byte layout: `FORMAT.md`, "Chunk frames".

use std::{
    fmt,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};

use super::{
    cipher::{Cipher, TAG},
    id::{ChunkId, IdKeys, RepositoryId},
    keys::SecretKey,
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

/// Compression contexts, which are costly to make and so are kept.
#[derive(Default)]
pub(crate) struct Codec {
    compressors: Mutex<Vec<(Compressor<'static>, Vec<u8>)>>,
    decompressors: Mutex<Vec<Decompressor<'static>>>,
}

impl Codec {
    /// Takes a compressor, which comes back when it is dropped.
    ///
    /// # Errors
    /// When there is no memory for a new one.
    pub(crate) fn encoder(&self) -> std::io::Result<Encoder<'_>> {
        let kept = lock(&self.compressors).pop();
        let parts = match kept {
            Some(parts) => parts,
            None => (Compressor::new(LEVEL)?, Vec::new()),
        };
        Ok(Encoder { codec: self, parts: Some(parts) })
    }

    fn decompress(&self, stored: &[u8], capacity: usize) -> std::io::Result<Vec<u8>> {
        let kept = lock(&self.decompressors).pop();
        let mut context = match kept {
            Some(context) => context,
            None => Decompressor::new()?,
        };
        let plain = context.decompress(stored, capacity);
        let mut pool = lock(&self.decompressors);
        if pool.len() < POOL {
            pool.push(context);
        }
        plain
    }
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Codec")
    }
}

/// A compressor out of a [`Codec`].
pub(crate) struct Encoder<'a> {
    codec: &'a Codec,
    /// Taken only when dropped.
    parts: Option<(Compressor<'static>, Vec<u8>)>,
}

impl Encoder<'_> {
    fn compress(&mut self, plain: &[u8]) -> std::io::Result<&[u8]> {
        let (compressor, scratch) = self.parts.as_mut().expect("taken only when dropped");
        scratch.clear();
        scratch.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        compressor.compress_to_buffer(plain, scratch)?;
        Ok(scratch)
    }
}

impl Drop for Encoder<'_> {
    fn drop(&mut self) {
        let mut pool = lock(&self.codec.compressors);
        if pool.len() < POOL {
            pool.extend(self.parts.take());
        }
    }
}

// What these locks guard is a list of spare parts: whole after any panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cipher of the frames of one pack.
#[derive(Debug)]
pub(crate) struct FrameCipher {
    cipher: Cipher,
    repository: RepositoryId,
}

impl FrameCipher {
    /// Derives the cipher of the pack with this salt.
    pub(crate) fn new(data_key: &SecretKey, salt: &[u8; 32], repository: RepositoryId) -> Self {
        Self { cipher: Cipher::derive(CONTEXT, data_key.expose(), &[salt]), repository }
    }

    /// Encrypts what follows the head, whose last 16 bytes are room for the tag, in place.
    fn seal(&self, head: &[u8], stored: &mut [u8]) {
        let (bytes, tag) = stored.split_at_mut(stored.len() - TAG);
        tag.copy_from_slice(&self.cipher.seal(number(head), &self.binding(head), bytes));
    }

    /// Decrypts what follows the head.
    fn open(&self, head: &[u8], stored: &[u8]) -> Option<Vec<u8>> {
        let (bytes, tag) = stored.split_at_checked(stored.len().checked_sub(TAG)?)?;
        let mut plain = bytes.to_vec();
        self.cipher.open(number(head), &self.binding(head), &mut plain, tag)?;
        Some(plain)
    }

    /// What a frame is bound to: all of its head but the checksum, and the repository.
    fn binding(&self, head: &[u8]) -> [u8; 16 + SUMMED] {
        let mut bound = [0; 16 + SUMMED];
        bound[..16].copy_from_slice(&self.repository.0);
        bound[16..].copy_from_slice(&head[..SUMMED]);
        bound
    }
}

/// Frames of one run of a disk, to be appended to a pack in one go.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// Bytes of each frame that are set aside for its tag.
    overhead: usize,
    pub(crate) bytes: Vec<u8>,
    /// Offsets count from the begin of `bytes`.
    pub(crate) entries: Vec<PackEntry>,
}

impl Frames {
    /// Sets room aside for chunks of `bytes` together, so that the buffer never grows by doubling; and in each frame
    /// `overhead` bytes for what its pack needs to encrypt it.
    pub(crate) fn with_room(bytes: usize, chunks: usize, overhead: usize) -> Self {
        let bytes = Vec::with_capacity(bytes + chunks * (HEAD + overhead));
        Self { overhead, bytes, entries: Vec::with_capacity(chunks) }
    }

    /// Appends a chunk, compressed when that saves at least a sixteenth. [`finish`] completes the frame, when its
    /// place within a pack is known.
    ///
    /// # Errors
    /// What the compressor says.
    pub(crate) fn push(&mut self, id: ChunkId, plain: &[u8], codec: &mut Encoder<'_>) -> std::io::Result<()> {
        let scratch = codec.compress(plain)?;
        let (encoding, stored) =
            if scratch.len() < plain.len() - plain.len() / 16 { (ZSTD, scratch) } else { (STORED, plain) };
        let len = (stored.len() + self.overhead) as u32;
        let entry = PackEntry { id, offset: self.bytes.len() as u64, stored: len, plain: plain.len() as u32 };
        let mut head = [0; HEAD];
        head[0..4].copy_from_slice(MAGIC);
        head[4] = encoding;
        head[8..12].copy_from_slice(&entry.stored.to_le_bytes());
        head[12..16].copy_from_slice(&entry.plain.to_le_bytes());
        head[16..48].copy_from_slice(&id.0);
        self.bytes.extend_from_slice(&head);
        self.bytes.extend_from_slice(stored);
        self.bytes.resize(self.bytes.len() + self.overhead, 0);
        self.entries.push(entry);
        Ok(())
    }
}

/// Completes a whole frame, which is number `number` of its pack: encrypted in place when the pack is.
pub(crate) fn finish(frame: &mut [u8], number: u32, cipher: Option<&FrameCipher>) {
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

/// Level 1 is the fastest of zstd's own levels; higher ones cost more CPU than they save.
const LEVEL: i32 = 1;
const POOL: usize = 16;
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

    fn frame(plain: &[u8], cipher: Option<&FrameCipher>) -> (Bytes, ChunkId, IdKeys) {
        let keys = IdKeys::derive(&[3; 32]);
        let id = keys.chunk(plain);
        let mut frames = Frames::with_room(plain.len(), 1, if cipher.is_some() { TAG } else { 0 });
        frames.push(id, plain, &mut Codec::default().encoder().unwrap()).unwrap();
        finish(&mut frames.bytes, 7, cipher);
        (frames.bytes.into(), id, keys)
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
