//! Deleting objects, and replacing segments of the index that name deleted packs.

use std::{collections::BTreeSet, time::Duration};

use crate::error::Result;

use super::{
    super::{
        id::{MetaId, PackId, PageId},
        index, meta_key,
        object::{Objects, is_absent},
        pack::{self, PackEntries},
        page,
        storage::{Key, Storage, StorageErrorKind},
    },
    Collection,
    inventory::Packs,
    tomb::{Class, Entry},
};

/// Deletes an object. Returns false when the store refuses, which is noted.
///
/// # Errors
/// [`Error::Storage`](crate::Error::Storage) for any other failure.
pub(super) async fn delete(
    storage: &dyn Storage,
    class: Class,
    id: [u8; 32],
    refused: &mut Vec<String>,
) -> Result<bool> {
    let key = match class {
        Class::Pack => pack::key(PackId(id)),
        Class::Page => page::key(PageId(id)),
        Class::Meta => meta_key(MetaId(id)),
    };
    delete_object(storage, &key, refused).await
}

/// Deletes an object by its name, as [`delete`] does.
///
/// # Errors
/// [`Error::Storage`](crate::Error::Storage) for any other failure.
pub(super) async fn delete_object(storage: &dyn Storage, key: &Key, refused: &mut Vec<String>) -> Result<bool> {
    match storage.delete(key).await {
        Ok(()) => Ok(true),
        Err(error) if error.kind == StorageErrorKind::PermissionDenied => {
            if refused.len() < MAX_REFUSED {
                refused.push(key.to_string());
            }
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

impl Collection<'_> {
    /// Removes what writes left that were cut short, wherever the storage keeps such.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage).
    pub(super) async fn remove_unfinished(&mut self) -> Result<()> {
        // A write may take its time.
        let age = self.options.grace.max(LONGEST_WRITE);
        let Some(before) = self.options.clock.now().checked_sub(age).filter(|_| !self.is_dry()) else { return Ok(()) };
        self.check()?;
        match self.repository.storage().remove_unfinished(before).await {
            Ok(removed) => self.report.unfinished = removed,
            Err(error) if error.kind == StorageErrorKind::PermissionDenied => {
                tracing::warn!(%error, "remains of writes that were cut short stay");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Writes new segments in place of those that name packs which are gone.
///
/// # Errors
/// [`Error::Storage`](crate::Error::Storage).
pub(super) async fn replace_segments(objects: &Objects, packs: &Packs, deleted: &BTreeSet<Entry>) -> Result<()> {
    let stays = |id: &PackId| packs.number(id).is_some() && !deleted.contains(&(Class::Pack, id.0));
    let mut replaced = Vec::new();
    let mut kept: Vec<PackEntries> = Vec::new();
    for (&segment, names) in &packs.segments {
        // One that could not be read names nothing, and is left to whoever repairs it.
        if names.iter().all(stays) {
            continue;
        }
        match index::read_segment(objects, segment).await {
            Ok(content) => kept.extend(content.into_iter().filter(|pack| stays(&pack.id))),
            Err(error) if is_absent(&error) => continue,
            Err(error) => return Err(error),
        }
        replaced.push(index::key(segment));
        if kept.iter().map(|pack| pack.entries.len()).sum::<usize>() >= SEGMENT_ENTRIES {
            write(objects, &mut kept, &mut replaced).await?;
        }
    }
    write(objects, &mut kept, &mut replaced).await
}

/// Writes what is kept of some segments, and then removes them.
async fn write(objects: &Objects, kept: &mut Vec<PackEntries>, replaced: &mut Vec<Key>) -> Result<()> {
    if !kept.is_empty() {
        index::write_segments(objects, kept).await?;
        kept.clear();
    }
    remove_all(&**objects.storage(), replaced).await?;
    replaced.clear();
    Ok(())
}

/// Removes a tombstone.
///
/// # Errors
/// [`Error::Storage`](crate::Error::Storage).
pub(super) async fn remove_tomb(storage: &dyn Storage, name: &str) -> Result<()> {
    // The list first: without it there is no tombstone.
    let names = ["list", "waits"].map(|part| Key::parse(&format!("tombs/{name}/{part}")));
    for key in names {
        remove_all(storage, &[key?]).await?;
    }
    Ok(())
}

/// Removes objects of the collector's own; a store that refuses keeps them.
///
/// # Errors
/// [`Error::Storage`](crate::Error::Storage).
pub(super) async fn remove_all(storage: &dyn Storage, keys: &[Key]) -> Result<()> {
    for key in keys {
        match storage.delete(key).await {
            Err(error) if error.kind != StorageErrorKind::PermissionDenied => return Err(error.into()),
            Err(error) => tracing::warn!(%error, "the store keeps an object that is of no use any more"),
            Ok(()) => {}
        }
    }
    Ok(())
}

const MAX_REFUSED: usize = 1000;
const LONGEST_WRITE: Duration = Duration::from_secs(3600);
/// Entries at which a new segment is written: 24 MiB.
const SEGMENT_ENTRIES: usize = 1 << 19;
