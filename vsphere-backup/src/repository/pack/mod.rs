//! Packs: many chunks in one object, with a footer from which the index can be rebuilt.
//!
//! Byte layout: `FORMAT.md`, "Packs".

mod filling;
mod spare;

use bytes::Bytes;

use crate::error::{Error, Result};

use super::{
    cipher::TAG,
    frame::{self, PackEntry},
    id::{PackId, RepositoryId},
    storage::{Key, Storage},
};

pub(crate) use self::{
    filling::{Borrowed, Complete, Enough, Filling, Making},
    spare::Spare,
};

/// A pack that is ready to be stored.
#[derive(Debug)]
pub(crate) struct SealedPack {
    /// Its bytes are these one after the other.
    pub(crate) parts: Vec<Bytes>,
    pub(crate) entries: PackEntries,
}

impl Complete {
    /// Puts a header before the frames and a footer behind them, and names the pack. The frames' memory goes back to
    /// `spare` when the pack is dropped.
    pub(crate) fn seal(self, repository: RepositoryId, spare: &Spare) -> SealedPack {
        let Self { making, blocks } = self;
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        let flags = if making.cipher.is_some() { ENCRYPTED } else { 0 };
        header.extend_from_slice(&flags.to_le_bytes());
        making.seal.encode(&mut header);
        header.extend_from_slice(&repository.0);

        let (mut parts, mut entries, mut end) = (vec![Bytes::from(header)], Vec::new(), HEADER as u64);
        for block in blocks {
            entries.extend(block.entries().iter().map(|entry| PackEntry { offset: end + entry.offset, ..*entry }));
            let len = block.len();
            end += len as u64;
            parts.push(spare.lend(block.into_memory(), len));
        }
        parts.push(footer(&entries, end).into());

        let mut hasher = blake3::Hasher::new();
        for part in &parts {
            hasher.update(part);
        }
        let id = PackId(*hasher.finalize().as_bytes());
        let size = parts.iter().map(|part| part.len() as u64).sum();
        SealedPack { parts, entries: PackEntries { id, size, seal: making.seal, entries } }
    }
}

/// Returns the footer and the trailer of a pack whose frames end at `end`.
fn footer(entries: &[PackEntry], end: u64) -> Vec<u8> {
    let mut footer = Vec::with_capacity(entries.len() * PackEntry::LEN + TRAILER);
    entries.iter().for_each(|entry| entry.encode(&mut footer));
    footer.extend_from_slice(END_MAGIC);
    footer.extend_from_slice(&VERSION.to_le_bytes());
    footer.extend_from_slice(&[0; 2]);
    footer.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    footer.extend_from_slice(&end.to_le_bytes());
    let sum = blake3::hash(&footer);
    footer.extend_from_slice(sum.as_bytes());
    footer
}

/// What makes a pack one of its kind: no two have the same salt, so equal chunks that are written again make a pack
/// of another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackSeal {
    /// The generation of the data key; 0 where nothing is encrypted.
    pub(crate) generation: u32,
    pub(crate) salt: [u8; 32],
}

impl PackSeal {
    pub(crate) const LEN: usize = 36;

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.salt);
    }

    /// Decodes exactly [`Self::LEN`] bytes.
    pub(crate) fn decode(bytes: &[u8; Self::LEN]) -> Self {
        let (generation, salt) = bytes.split_at(4);
        Self {
            generation: u32::from_le_bytes(generation.try_into().expect("4 bytes")),
            salt: salt.try_into().expect("32 bytes"),
        }
    }
}

/// What a pack holds, as its footer and the chunk index say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackEntries {
    pub(crate) id: PackId,
    /// The size of the whole object in bytes.
    pub(crate) size: u64,
    pub(crate) seal: PackSeal,
    pub(crate) entries: Vec<PackEntry>,
}

impl PackEntries {
    /// Checks that every chunk lies inside a pack of this size.
    pub(crate) fn check(&self) -> Result<(), String> {
        let overhead = if self.seal.generation == 0 { 0 } else { TAG as u32 };
        let end = self.size.checked_sub((TRAILER + self.entries.len() * PackEntry::LEN) as u64);
        // Each has a frame of its own: that bounds their number.
        let end = end.filter(|end| *end >= (HEADER + self.entries.len() * frame::HEAD) as u64);
        let sound = end.is_some_and(|end| {
            self.size <= MAX_SIZE
                && self.entries.iter().all(|entry| {
                    entry.offset >= HEADER as u64
                        && entry.plain <= frame::MAX_PLAIN
                        && entry.stored <= entry.plain + overhead
                        && entry
                            .offset
                            .checked_add((frame::HEAD as u64) + u64::from(entry.stored))
                            .is_some_and(|last| last <= end)
                })
        });
        if sound { Ok(()) } else { Err("a chunk does not lie inside its pack".into()) }
    }
}

/// Reads what a pack says of itself: its header, and its footer in two reads.
///
/// # Errors
/// [`Error::Damaged`], [`Error::UnsupportedVersion`], [`Error::Storage`].
pub(crate) async fn read_footer(storage: &dyn Storage, id: PackId, size: u64) -> Result<PackEntries> {
    let key = key(id);
    let damaged = |reason: String| Error::damaged(&key, reason);
    if size < (HEADER + TRAILER) as u64 || size > MAX_SIZE {
        return Err(damaged(format!("a pack cannot have {size} bytes")));
    }
    let trailer = storage.get_range(&key, size - TRAILER as u64..size).await?;
    let count = check_trailer(&key, &trailer, size)?;
    let footer = storage.get_range(&key, footer_offset(size, count)..size).await?;
    let header = storage.get_range(&key, 0..HEADER as u64).await?;
    let seal = parse_header(&key, &header)?;
    parse_footer(id, size, seal, &footer).map_err(damaged)
}

/// Checks a whole pack: its name, its header, its footer.
///
/// # Errors
/// [`Error::Damaged`], [`Error::UnsupportedVersion`].
#[cfg(test)]
pub(crate) fn check_whole(id: PackId, bytes: &Bytes) -> Result<PackEntries> {
    let key = key(id);
    let damaged = |reason: String| Error::damaged(&key, reason);
    if *blake3::hash(bytes).as_bytes() != id.0 {
        return Err(damaged("its content does not match its name".into()));
    }
    if bytes.len() < HEADER + TRAILER {
        return Err(damaged("it is not a pack".into()));
    }
    let seal = parse_header(&key, &bytes[..HEADER])?;
    let size = bytes.len() as u64;
    let count = check_trailer(&key, &bytes.slice(bytes.len() - TRAILER..), size)?;
    parse_footer(id, size, seal, &bytes[footer_offset(size, count) as usize..]).map_err(damaged)
}

fn parse_header(key: &Key, header: &[u8]) -> Result<PackSeal> {
    if header.len() != HEADER || header[..8] != *MAGIC {
        return Err(Error::damaged(key, "it is not a pack"));
    }
    let seal = PackSeal::decode(header[12..12 + PackSeal::LEN].try_into().expect("36 bytes"));
    check_version(key, &header[8..12], if seal.generation == 0 { 0 } else { ENCRYPTED })?;
    Ok(seal)
}

/// Checks a trailer and returns the number of entries, whose footer fits into the pack.
fn check_trailer(key: &Key, trailer: &Bytes, size: u64) -> Result<u64> {
    let damaged = || Error::damaged(key, "its trailer is not valid");
    if trailer.len() != TRAILER || trailer[..8] != *END_MAGIC {
        return Err(damaged());
    }
    let count = u32::from_le_bytes(trailer[12..16].try_into().expect("4 bytes")).into();
    let offset = u64::from_le_bytes(trailer[16..24].try_into().expect("8 bytes"));
    let fits = offset >= HEADER as u64 + count * frame::HEAD as u64
        && offset.checked_add(count * PackEntry::LEN as u64 + TRAILER as u64) == Some(size);
    if !fits {
        return Err(damaged());
    }
    check_version(key, &trailer[8..12], 0)?;
    Ok(count)
}

fn footer_offset(size: u64, count: u64) -> u64 {
    size - TRAILER as u64 - count * PackEntry::LEN as u64
}

fn parse_footer(id: PackId, size: u64, seal: PackSeal, footer: &[u8]) -> Result<PackEntries, String> {
    let (body, sum) = footer.split_at(footer.len() - 32);
    if blake3::hash(body).as_bytes() != sum {
        return Err("the checksum of its footer does not match".into());
    }
    let entries = &body[..body.len() - (TRAILER - 32)];
    let entries = entries
        .chunks_exact(PackEntry::LEN)
        .map(|bytes| PackEntry::decode(bytes.try_into().expect("exact chunks")))
        .collect();
    let entries = PackEntries { id, size, seal, entries };
    entries.check()?;
    Ok(entries)
}

/// Checks version (2 bytes) and flags (2), which have to be `flags`.
fn check_version(key: &Key, bytes: &[u8], flags: u16) -> Result<()> {
    let version = u16::from_le_bytes([bytes[0], bytes[1]]);
    if version != VERSION {
        return Err(Error::UnsupportedVersion {
            object: key.to_string(),
            found: version.into(),
            supported: VERSION.into(),
        });
    }
    if bytes[2..] != flags.to_le_bytes() {
        return Err(Error::UnsupportedFeature {
            object: key.to_string(),
            feature: format!("flags {:02x?}", &bytes[2..]),
        });
    }
    Ok(())
}

pub(crate) fn key(id: PackId) -> Key {
    let hex = id.to_string();
    Key::of(&["packs", &hex[..2], &hex])
}

/// The largest pack that is read, in bytes; offsets fit into 32 bits.
pub(crate) const MAX_SIZE: u64 = 1 << 30;

const VERSION: u16 = super::envelope::VERSION;
const MAGIC: &[u8; 8] = b"VSBKPACK";
const END_MAGIC: &[u8; 8] = b"VSBKPEND";
const HEADER: usize = 64;
/// The flag of a pack whose frames are encrypted.
const ENCRYPTED: u16 = 1;
const TRAILER: usize = 56;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::storage::MemoryStorage;

    /// A pack of three chunks in two blocks, and all of its bytes.
    fn sample() -> (SealedPack, Bytes) {
        let enough = Enough { bytes: usize::MAX, chunks: 3, chunk: 1000 };
        let (mut filling, spare) = (Filling::new(enough), Spare::new(3000, 0));
        let codec = frame::Codec::default();
        let borrow = |filling: &mut Filling| {
            let making = || Ok(Making::new((PackSeal { generation: 0, salt: [6; 32] }, None)));
            filling.borrow(|| spare.take(), making).unwrap()
        };
        let push = |borrowed: &mut Borrowed, byte: u8| {
            let id = super::super::id::ChunkId([byte; 32]);
            borrowed.push(id, &[byte; 1000], &mut codec.encoder().unwrap()).unwrap();
        };
        let (mut one, mut other) = (borrow(&mut filling), borrow(&mut filling));
        push(&mut one, 1);
        push(&mut other, 2);
        push(&mut one, 3);
        assert!(filling.give_back(one).is_none());
        let complete = filling.give_back(other).unwrap();
        let pack = complete.seal(RepositoryId([5; 16]), &spare);
        let bytes = pack.parts.concat().into();
        (pack, bytes)
    }

    #[tokio::test]
    async fn the_footer_says_what_the_pack_holds() {
        let (pack, bytes) = sample();
        let storage = MemoryStorage::new();
        storage.put(&key(pack.entries.id), pack.parts).await.unwrap();
        let read = read_footer(&storage, pack.entries.id, pack.entries.size).await.unwrap();
        assert_eq!(read, pack.entries);
        assert_eq!(check_whole(pack.entries.id, &bytes).unwrap(), pack.entries);
    }

    #[tokio::test]
    async fn flips_and_cuts_are_found() {
        let (pack, bytes) = sample();
        let id = pack.entries.id;
        for at in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 0x10;
            assert!(check_whole(id, &bad.into()).is_err(), "byte {at}");
        }
        let storage = MemoryStorage::new();
        for at in bytes.len() - 200..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 0x10;
            storage.tamper(&key(id), Some(bad.into()));
            assert!(read_footer(&storage, id, pack.entries.size).await.is_err(), "byte {at}");
        }
        for len in [0, 10, 87, bytes.len() - 1] {
            storage.tamper(&key(id), Some(bytes.slice(..len)));
            assert!(read_footer(&storage, id, len as u64).await.is_err(), "{len} bytes");
        }
    }

    #[test]
    fn entries_that_point_outside_are_refused() {
        let good = sample().0.entries;
        let large = PackEntry { stored: 5 << 20, plain: 5 << 20, ..good.entries[0] };
        let roomy = PackEntries { size: 1 << 29, entries: vec![large], ..good.clone() };
        assert!(roomy.check().is_err(), "no chunk is so large: reading it would take memory for nothing");
        let many = PackEntries { entries: vec![good.entries[0]; 200], ..good.clone() };
        let room = many.size + (many.entries.len() * PackEntry::LEN) as u64;
        assert!(PackEntries { size: room, ..many }.check().is_err(), "frames do not overlap");
        for (offset, stored, plain) in [(0, 10, 10), (u64::MAX, 10, 10), (64, u32::MAX, u32::MAX), (64, 11, 10)] {
            let mut bad = good.clone();
            bad.entries[0] = PackEntry { offset, stored, plain, ..bad.entries[0] };
            assert!(bad.check().is_err());
        }
    }
}
