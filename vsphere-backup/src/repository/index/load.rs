//! Reading the index: segments, and the ends of packs that none names.

use std::collections::{HashMap, HashSet};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    super::{
        id::{PackId, SegmentId},
        object::{Objects, is_absent},
        pack::{self, PackEntries},
        storage::Key,
    },
    Index, named, read_segment,
};
use crate::error::{Error, Result};

impl Index {
    /// Returns what need not be loaded again.
    pub(crate) fn known(&self) -> Known {
        Known {
            segments: self.segments.clone(),
            packs: self.numbers.iter().map(|(&id, &(_, size))| (id, size)).collect(),
        }
    }
}

/// What of the stored index is in memory already.
#[derive(Debug, Default)]
pub(crate) struct Known {
    segments: HashSet<SegmentId>,
    /// With their sizes in bytes.
    packs: HashMap<PackId, u64>,
}

/// What loading the index found, to be merged into an [`Index`].
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    segments: Vec<SegmentId>,
    packs: Vec<PackEntries>,
    /// Damaged segments and packs; their sound parts are in `packs` where that was possible.
    pub(crate) damage: Vec<Error>,
    /// How many packs that were known are gone or have another size now: what is in memory is not to be believed then.
    pub(crate) lost: usize,
}

impl Loaded {
    pub(crate) fn merge_into(self, index: &mut Index) {
        for entries in &self.packs {
            index.add(entries);
        }
        index.sort();
        index.segments.extend(self.segments);
    }
}

/// Loads all segments that are not loaded yet.
///
/// A segment counts only for packs that are there with the stated size. Packs that no sound
/// segment names (their writer crashed, or the segment is damaged) are read by their footers, so
/// that a lost segment costs time and no data.
///
/// # Errors
/// [`Error::Storage`]; [`Error::UnsupportedVersion`] and [`Error::UnsupportedFeature`] of any
/// segment. Damage is not an error here, see [`Loaded::damage`].
pub(crate) async fn load(objects: &Objects, known: &Known) -> Result<Loaded> {
    let storage = &**objects.storage();
    let mut loaded = Loaded::default();
    // Segments first: a pack that appears between the two lists is found by its footer.
    let mut new_segments = Vec::new();
    let mut listing = storage.list("index");
    while let Some(object) = listing.try_next().await? {
        match named::<SegmentId>(&object.key) {
            Some(id) if known.segments.contains(&id) => {}
            Some(id) => new_segments.push(id),
            None => loaded.damage.push(stray(&object.key)),
        }
    }
    drop(listing);
    let mut waiting = HashMap::new();
    let mut still_there = 0;
    let mut listing = storage.list("packs");
    while let Some(object) = listing.try_next().await? {
        match named::<PackId>(&object.key) {
            Some(id) if known.packs.get(&id) == Some(&object.size) => still_there += 1,
            Some(id) => drop(waiting.insert(id, object.size)),
            None => loaded.damage.push(stray(&object.key)),
        }
    }
    drop(listing);
    loaded.lost = known.packs.len().saturating_sub(still_there);

    let mut segments = stream::iter(new_segments)
        .map(|id| async move { (id, read_segment(objects, id).await) })
        .buffer_unordered(PARALLEL);
    while let Some((id, segment)) = segments.next().await {
        match segment {
            Ok(packs) => {
                loaded.segments.push(id);
                for entries in packs {
                    if waiting.get(&entries.id) == Some(&entries.size) {
                        waiting.remove(&entries.id);
                        loaded.packs.push(entries);
                    }
                }
            }
            Err(error) if error.is_damage() => loaded.damage.push(error),
            // Replaced since it was listed: its packs are read by their footers.
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    drop(segments);

    let mut footers =
        stream::iter(waiting).map(|(id, size)| pack::read_footer(storage, id, size)).buffer_unordered(PARALLEL);
    while let Some(entries) = footers.next().await {
        match entries {
            Ok(entries) => loaded.packs.push(entries),
            Err(error) if error.is_damage() => loaded.damage.push(error),
            // Collected since it was listed.
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(loaded)
}

fn stray(key: &Key) -> Error {
    Error::damaged(key, "its name is not one of this format")
}

const PARALLEL: usize = 8;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        super::{segment::pack_of, write_segment},
        *,
    };
    use crate::repository::storage::{MemoryStorage, Storage};

    #[tokio::test]
    async fn a_segment_counts_only_for_packs_that_are_there() {
        let storage = Arc::new(MemoryStorage::new());
        let objects = Objects::plain(storage.clone());
        write_segment(&objects, &[pack_of(1, 3), pack_of(2, 3)]).await.unwrap();
        storage.put(&pack::key(PackId([1; 32])), vec![vec![0; 60_000].into()]).await.unwrap();
        let loaded = load(&objects, &Known::default()).await.unwrap();
        let mut index = Index::default();
        assert!(loaded.damage.is_empty());
        loaded.merge_into(&mut index);
        assert_eq!(index.len(), 3);
    }
}
