//! Tombstones: what a collector found unreachable and will delete, unless it turns out to be needed.
//!
//! `FORMAT.md`, "Deletion".

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

use super::super::{
    envelope::Kind,
    hex::random_name,
    id::{LeaseId, PackId},
    object::{Objects, is_absent},
    storage::Key,
};

/// The kinds of objects that are collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Class {
    Pack,
    Page,
    Meta,
}

/// One condemned object.
pub(crate) type Entry = (Class, [u8; 32]);

/// A tombstone.
#[derive(Debug)]
pub(crate) struct Tomb {
    pub(crate) name: String,
    /// By the collector's clock, in seconds since 1970.
    pub(crate) created: u64,
    pub(crate) entries: Vec<Entry>,
    /// The writers that may not have seen this tombstone; `None` when that was not written down.
    pub(crate) waits: Option<Vec<LeaseId>>,
}

/// Which packs a writer must not rely on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Condemned {
    packs: HashSet<PackId>,
    /// A tombstone could not be read: nothing that was there before may be relied on.
    all: bool,
    /// There was a tombstone, of whatever.
    any: bool,
}

impl Condemned {
    pub(crate) fn contains(&self, pack: &PackId) -> bool {
        self.all || self.packs.contains(pack)
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.any
    }

    /// Reads all tombstones, as a writer does after it has taken its lease and before it looks at the index.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::UnsupportedVersion`].
    pub(crate) async fn read(objects: &Objects) -> Result<Self> {
        let mut condemned = Self::default();
        for name in names(objects).await?.into_keys() {
            condemned.any = true;
            match read(objects, &name).await {
                Ok(Some(tomb)) => condemned.packs.extend(packs(&tomb.entries)),
                Ok(None) => {}
                Err(error) if error.is_damage() => {
                    tracing::warn!(%error, "nothing is shared with earlier points until garbage was collected");
                    condemned.all = true;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(condemned)
    }
}

fn packs(entries: &[Entry]) -> impl Iterator<Item = PackId> {
    entries.iter().filter(|(class, _)| *class == Class::Pack).map(|(_, id)| PackId(*id))
}

/// Lists tombstones by name, each with all its objects; a tombstone whose list is gone is not one any more.
pub(super) async fn names(objects: &Objects) -> Result<BTreeMap<String, Vec<Key>>> {
    let mut names: BTreeMap<String, Vec<Key>> = BTreeMap::new();
    let listed: Vec<_> = objects.storage().list("tombs").try_collect().await?;
    for object in listed {
        if let Some(name) = object.key.as_str().split('/').nth(1) {
            names.entry(name.to_owned()).or_default().push(object.key.clone());
        }
    }
    Ok(names)
}

/// Reads a tombstone; `None` when it is gone.
///
/// # Errors
/// [`Error::Damaged`], [`Error::Storage`].
pub(super) async fn read(objects: &Objects, name: &str) -> Result<Option<Tomb>> {
    let key = Key::parse(&format!("tombs/{name}/list"))?;
    let body = match objects.read(Kind::Tomb, &key).await {
        Err(error) if is_absent(&error) => return Ok(None),
        other => other?,
    };
    let (created, entries) = decode(&body).map_err(|reason| Error::damaged(&key, reason))?;
    let key = Key::parse(&format!("tombs/{name}/waits"))?;
    let waits = match objects.read(Kind::Waits, &key).await {
        Ok(body) => serde_json::from_slice::<Waits>(&body).ok().map(|waits| waits.leases),
        // Asked for again, which only takes longer.
        Err(error) if is_absent(&error) || error.is_damage() => None,
        Err(error) => return Err(error),
    };
    Ok(Some(Tomb { name: name.into(), created, entries, waits }))
}

/// Writes a tombstone; the writers to wait for follow with [`write_waits`], having been looked up afterwards.
///
/// # Errors
/// [`Error::Storage`].
pub(super) async fn write(objects: &Objects, created: u64, entries: &[Entry]) -> Result<String> {
    let name = random_name()?;
    let mut body = Vec::with_capacity(HEAD + entries.len() * ENTRY);
    body.extend_from_slice(&created.to_le_bytes());
    for (class, id) in entries {
        body.push(*class as u8);
        body.extend_from_slice(id);
    }
    objects.create(Kind::Tomb, &Key::of(&["tombs", &name, "list"]), body.into()).await?;
    Ok(name)
}

/// Writes down for which writers a tombstone waits. They must have been listed after the tombstone was written.
///
/// # Errors
/// [`Error::Storage`].
pub(super) async fn write_waits(objects: &Objects, name: &str, leases: &[LeaseId]) -> Result<()> {
    let waits = Waits { leases: leases.to_vec() };
    let body = Bytes::from(serde_json::to_vec(&waits).expect("a list of names is valid JSON"));
    objects.put(Kind::Waits, &Key::parse(&format!("tombs/{name}/waits"))?, body).await
}

/// The JSON of the list of writers.
#[derive(Serialize, Deserialize)]
struct Waits {
    leases: Vec<LeaseId>,
}

fn decode(body: &[u8]) -> Result<(u64, Vec<Entry>), String> {
    let (head, rest) = body.split_at_checked(HEAD).ok_or("it is cut short")?;
    let entries = rest.chunks_exact(ENTRY);
    if !entries.remainder().is_empty() {
        return Err("it is cut short".into());
    }
    let entry = |bytes: &[u8]| {
        let class = match bytes[0] {
            0 => Class::Pack,
            1 => Class::Page,
            2 => Class::Meta,
            other => return Err(format!("it names an object of unknown class {other}")),
        };
        Ok((class, bytes[1..].try_into().expect("32 bytes")))
    };
    let created = u64::from_le_bytes(head.try_into().expect("8 bytes"));
    Ok((created, entries.map(entry).collect::<Result<_, _>>()?))
}

const HEAD: usize = 8;
const ENTRY: usize = 33;
/// The most entries of one tombstone; together some 8 MiB.
pub(super) const MAX_ENTRIES: usize = 1 << 18;
