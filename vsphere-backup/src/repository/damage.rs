//! Marks of damaged chunks: what a check found and no reader or writer is to rely on.
//!
//! A mark names places: a chunk in a pack. A chunk that lies in another pack too is read from there; one that does not
//! counts as unknown, so that no new point is built on it and the next backup that meets its bytes stores it again. The
//! damaged bytes stay where they are until garbage is collected.
//!
//! `FORMAT.md`, "Marks of damage".

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use futures_util::TryStreamExt;

use crate::error::{Error, Result};

use super::{
    envelope::Kind,
    hex::random_name,
    id::{ChunkId, PackId},
    object::{Objects, is_absent},
    storage::Key,
};

/// A place that holds a damaged frame.
pub(crate) type Place = (PackId, ChunkId);

/// Reads the marks whose names are not in `known`.
///
/// A mark that is damaged itself is passed over: what it named is found again.
///
/// # Errors
/// [`Error::Storage`], [`Error::UnsupportedVersion`].
pub(crate) async fn read(objects: &Objects, known: &HashSet<Key>) -> Result<BTreeMap<Key, Vec<Place>>> {
    let mut marks = BTreeMap::new();
    let listed: Vec<_> = objects.storage().list(FOLDER).try_collect().await?;
    for object in listed.into_iter().filter(|object| !known.contains(&object.key)) {
        match objects.read(Kind::Damage, &object.key).await.and_then(|body| decode(&object.key, &body)) {
            Ok(places) => drop(marks.insert(object.key, places)),
            Err(error) if is_absent(&error) => {}
            Err(error) if error.is_damage() => tracing::warn!(%error, "a mark of damage cannot be read"),
            Err(error) => return Err(error),
        }
    }
    Ok(marks)
}

/// Marks places; those that are marked already are left out. Returns how many are new.
///
/// # Errors
/// [`Error::Storage`].
pub(crate) async fn mark(objects: &Objects, places: &[Place]) -> Result<u64> {
    let marks = read(objects, &HashSet::new()).await?;
    let marked: HashSet<_> = marks.into_values().flatten().collect();
    let new: Vec<_> = places.iter().copied().filter(|place| !marked.contains(place)).collect();
    for part in new.chunks(MAX_PLACES) {
        let name = random_name()?;
        let body: Vec<u8> = part.iter().flat_map(|(pack, chunk)| [pack.0, chunk.0]).flatten().collect();
        objects.create(Kind::Damage, &Key::of(&[FOLDER, &name]), body.into()).await?;
    }
    Ok(new.len() as u64)
}

/// Groups places by pack.
pub(crate) fn by_pack(places: impl IntoIterator<Item = Place>) -> HashMap<PackId, Vec<ChunkId>> {
    let mut packs: HashMap<PackId, Vec<ChunkId>> = HashMap::new();
    places.into_iter().for_each(|(pack, chunk)| packs.entry(pack).or_default().push(chunk));
    packs
}

fn decode(key: &Key, body: &Bytes) -> Result<Vec<Place>> {
    let places = body.chunks_exact(PLACE);
    if !places.remainder().is_empty() {
        return Err(Error::damaged(key, "it is cut short"));
    }
    let place = |bytes: &[u8]| {
        let (pack, chunk) = bytes.split_at(32);
        (PackId(pack.try_into().expect("32 bytes")), ChunkId(chunk.try_into().expect("32 bytes")))
    };
    Ok(places.map(place).collect())
}

const FOLDER: &str = "damage";
const PLACE: usize = 64;
/// Places of one mark: 16 MiB.
const MAX_PLACES: usize = 1 << 18;
