//! Segments of the stored chunk index.
//!
//! Byte layout: `FORMAT.md`, "Index segments".

use std::str::FromStr;

use bytes::Bytes;

use crate::{
    error::{Error, Result},
    repository::{
        envelope::Kind,
        frame::PackEntry,
        id::{PackId, SegmentId, random},
        object::Objects,
        pack::{PackEntries, PackSeal},
        storage::Key,
    },
};

/// Writes a segment for packs that are stored.
///
/// # Errors
/// [`Error::Storage`].
pub(crate) async fn write_segment(objects: &Objects, packs: &[PackEntries]) -> Result<SegmentId> {
    let body = encode(packs, random()?);
    let id = SegmentId(*blake3::hash(&body).as_bytes());
    objects.put(Kind::Index, &key(id), body).await?;
    Ok(id)
}

/// Writes as many segments as it takes for packs that are stored, none of which is too large; returns how many.
///
/// # Errors
/// As [`write_segment`].
pub(crate) async fn write_segments(objects: &Objects, packs: &[PackEntries]) -> Result<u64> {
    let mut written = 0;
    for packs in split(packs, ENOUGH) {
        write_segment(objects, packs).await?;
        written += 1;
    }
    Ok(written)
}

/// Returns the bytes that a pack takes in a segment; `None` when that is more than any segment may have.
pub(crate) fn len_of(pack: &PackEntries) -> Option<usize> {
    let len = PACK_HEAD + pack.entries.len() * PackEntry::LEN;
    ((HEAD + len) as u64 <= Kind::Index.limit()).then_some(len)
}

/// Splits packs so that each part takes no more than so many bytes, or is one pack.
fn split(packs: &[PackEntries], most: usize) -> impl Iterator<Item = &[PackEntries]> {
    packs.chunk_by(by_len(most, |pack: &PackEntries| PACK_HEAD + pack.entries.len() * PackEntry::LEN))
}

/// Tells of one after another whether it still fits with those before it, for [`slice::chunk_by`].
pub(crate) fn by_len<T>(most: usize, len: impl Fn(&T) -> usize) -> impl FnMut(&T, &T) -> bool {
    let mut sum = None;
    move |before, next| {
        let with = sum.unwrap_or_else(|| len(before)).saturating_add(len(next));
        let fits = with <= most;
        sum = Some(if fits { with } else { len(next) });
        fits
    }
}

/// Reads one segment.
///
/// # Errors
/// [`Error::Damaged`], [`Error::UnsupportedVersion`], [`Error::Storage`].
pub(crate) async fn read_segment(objects: &Objects, id: SegmentId) -> Result<Vec<PackEntries>> {
    let key = key(id);
    let body = objects.read(Kind::Index, &key).await?;
    if *blake3::hash(&body).as_bytes() != id.0 {
        return Err(Error::damaged(&key, "its content does not match its name"));
    }
    parse(&body).map_err(|reason| Error::damaged(&key, reason))
}

/// Encodes a segment; its salt makes it one of its kind.
fn encode(packs: &[PackEntries], salt: [u8; SALT]) -> Bytes {
    let entries: usize = packs.iter().map(|pack| pack.entries.len()).sum();
    let mut body = Vec::with_capacity(HEAD + packs.len() * PACK_HEAD + entries * PackEntry::LEN);
    body.extend_from_slice(&(packs.len() as u32).to_le_bytes());
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(&salt);
    for pack in packs {
        body.extend_from_slice(&pack.id.0);
        body.extend_from_slice(&pack.size.to_le_bytes());
        body.extend_from_slice(&(pack.entries.len() as u32).to_le_bytes());
        pack.seal.encode(&mut body);
        pack.entries.iter().for_each(|entry| entry.encode(&mut body));
    }
    body.into()
}

fn parse(body: &[u8]) -> Result<Vec<PackEntries>, String> {
    let short = || "it is cut short".to_owned();
    let (head, mut rest) = body.split_at_checked(HEAD).ok_or_else(short)?;
    let count = u32::from_le_bytes(head[..4].try_into().expect("4 bytes"));
    // No room is set aside by a count that was read: each pack must be there to be added.
    let mut packs = Vec::new();
    for _ in 0..count {
        let (head, after) = rest.split_at_checked(PACK_HEAD).ok_or_else(short)?;
        let entries = u32::from_le_bytes(head[40..44].try_into().expect("4 bytes")) as usize;
        let len = entries.checked_mul(PackEntry::LEN).ok_or_else(short)?;
        let (entries, after) = after.split_at_checked(len).ok_or_else(short)?;
        let pack = PackEntries {
            id: PackId(head[..32].try_into().expect("32 bytes")),
            size: u64::from_le_bytes(head[32..40].try_into().expect("8 bytes")),
            seal: PackSeal::decode(head[44..].try_into().expect("36 bytes")),
            entries: entries
                .chunks_exact(PackEntry::LEN)
                .map(|bytes| PackEntry::decode(bytes.try_into().expect("exact chunks")))
                .collect(),
        };
        pack.check()?;
        packs.push(pack);
        rest = after;
    }
    if rest.is_empty() { Ok(packs) } else { Err("bytes follow its last pack".into()) }
}

/// Parses the last segment of an object's name.
pub(crate) fn named<T: FromStr>(key: &Key) -> Option<T> {
    key.file_name().parse().ok()
}

pub(crate) fn key(id: SegmentId) -> Key {
    Key::of(&["index", &id.to_string()])
}

/// Bytes of packs that are put into one segment: far below what it may have.
pub(crate) const ENOUGH: usize = 24 << 20;
const SALT: usize = 16;
const HEAD: usize = 8 + SALT;
const PACK_HEAD: usize = 44 + PackSeal::LEN;

/// A pack of so many chunks.
#[cfg(test)]
pub(super) fn pack_of(number: u8, chunks: u8) -> PackEntries {
    let entries = (0..chunks)
        .map(|at| PackEntry {
            id: crate::repository::ChunkId([number.wrapping_mul(31).wrapping_add(at); 32]),
            offset: 64 + u64::from(at) * 200,
            stored: 100,
            plain: 200,
        })
        .collect();
    let seal = PackSeal { generation: number.into(), salt: [number ^ 0xff; 32] };
    PackEntries { id: PackId([number; 32]), size: 60_000, seal, entries }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_segment_survives_a_round_trip() {
        let packs = vec![pack_of(1, 3), pack_of(9, 0), pack_of(2, 200)];
        let body = encode(&packs, [6; 16]);
        assert_eq!(parse(&body).unwrap(), packs);
        for len in 0..body.len() {
            assert!(parse(&body[..len]).is_err());
        }
    }

    #[test]
    fn many_packs_are_split_so_that_each_segment_has_as_many_as_fit() {
        let packs: Vec<_> = [3, 3, 3, 200, 0, 1].map(|chunks| pack_of(chunks, chunks)).into();
        let room = 2 * (PACK_HEAD + 3 * PackEntry::LEN);
        let parts: Vec<usize> = split(&packs, room).map(<[_]>::len).collect();
        assert_eq!(parts, [2, 1, 1, 2], "what fits nowhere is alone");
        assert_eq!(split(&packs, usize::MAX).count(), 1);
        assert_eq!(split(&[], room).count(), 0);
        assert_eq!(len_of(&packs[0]), Some(room / 2));
        let entry = packs[0].entries[0];
        let many =
            PackEntries { entries: vec![entry; (Kind::Index.limit() as usize) / PackEntry::LEN], ..pack_of(1, 0) };
        assert_eq!(len_of(&many), None);
    }

    proptest! {
        #[test]
        fn hostile_segments_never_panic(body in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&body);
        }
    }
}
