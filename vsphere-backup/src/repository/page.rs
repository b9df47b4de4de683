//! Pages: the nodes of the tree that says what lies at each chunk of a disk.
//!
//! Byte layout: `FORMAT.md`, "Pages".

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

use crate::error::{Error, Result};

use super::{
    config::PAGE_ENTRIES,
    envelope::Kind,
    id::{IdKeys, PageId, random},
    object::Objects,
    storage::{Key, StorageError, StorageErrorKind},
};

/// What one place of a page says of its part of the disk.
///
/// Unallocated and zero are different: a restore may punch a hole for the first and may have to
/// write zeros for the second. Both read as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Never written, as far as the source could tell.
    Unallocated,
    /// Zeros.
    Zero,
    /// In a leaf a [`ChunkId`](super::ChunkId), above it a [`PageId`].
    Ref([u8; 32]),
}

/// A page. Level 0 refers to chunks, level `n` to pages of level `n - 1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    level: u8,
    slots: Vec<Slot>,
}

impl Page {
    /// Makes a page whose slots are all alike.
    pub(crate) fn uniform(level: u8, slot: Slot) -> Self {
        Self { level, slots: vec![slot; SLOTS] }
    }

    pub(crate) fn slot(&self, at: usize) -> Slot {
        self.slots[at]
    }

    pub(crate) fn set(&mut self, at: usize, slot: Slot) {
        self.slots[at] = slot;
    }

    /// Returns the slot that stands for the whole page, when all slots are alike and refer to
    /// nothing: such a page is not stored.
    pub(crate) fn collapsed(&self) -> Option<Slot> {
        let first = self.slots[0];
        let alike = !matches!(first, Slot::Ref(_)) && self.slots.iter().all(|&slot| slot == first);
        alike.then_some(first)
    }

    /// Encodes the body; its salt makes it one of its kind.
    pub(crate) fn encode(&self, salt: [u8; SALT]) -> Bytes {
        let refs = self.slots.iter().filter(|slot| matches!(slot, Slot::Ref(_))).count();
        let mut body = Vec::with_capacity(HEAD + SLOTS + refs * 32);
        body.extend_from_slice(&[self.level, 0, 0, 0, 0, 0, 0, 0]);
        body.extend_from_slice(&salt);
        body.extend(self.slots.iter().map(|slot| match slot {
            Slot::Unallocated => UNALLOCATED,
            Slot::Zero => ZERO,
            Slot::Ref(_) => REF,
        }));
        for slot in &self.slots {
            if let Slot::Ref(id) = slot {
                body.extend_from_slice(id);
            }
        }
        body.into()
    }

    /// Decodes a body that is expected to be of `level`.
    pub(crate) fn decode(body: &[u8], level: u8) -> Result<Self, String> {
        if body.len() < HEAD + SLOTS {
            return Err("it is too short".into());
        }
        let (head, rest) = body.split_at(HEAD);
        if head[1..8].iter().any(|&byte| byte != 0) {
            return Err("its reserved bytes are not zero".into());
        }
        if head[0] != level {
            return Err(format!("it is of level {}, not {level}", head[0]));
        }
        let (states, ids) = rest.split_at(SLOTS);
        let mut ids = ids.chunks_exact(32);
        let mut slots = Vec::with_capacity(SLOTS);
        for &state in states {
            slots.push(match state {
                UNALLOCATED => Slot::Unallocated,
                ZERO => Slot::Zero,
                REF => {
                    let id = ids.next().ok_or("it has fewer identities than slots need")?;
                    Slot::Ref(id.try_into().expect("chunks of 32"))
                }
                other => return Err(format!("it has a slot of unknown state {other}")),
            });
        }
        if ids.next().is_some() || !ids.remainder().is_empty() {
            return Err("bytes follow its last identity".into());
        }
        Ok(Self { level, slots })
    }
}

type Cache = VecDeque<(PageId, Arc<Page>)>;

/// Reads and writes pages, with a small cache.
#[derive(Clone, Debug)]
pub(crate) struct PageStore {
    objects: Objects,
    keys: IdKeys,
    /// Most recent last. About 135 KB a page.
    cache: Arc<Mutex<Cache>>,
}

/// Why something could not be read: because it is damaged, or because the storage failed.
#[derive(Debug)]
pub(crate) enum ReadFault {
    /// Damaged or absent; the text says how.
    Damaged(String),
    /// Not known to be damaged.
    Failed(Error),
}

impl From<Error> for ReadFault {
    fn from(error: Error) -> Self {
        match error {
            Error::Damaged { reason, .. } => Self::Damaged(reason),
            unknown @ Error::UnknownDataKey { .. } => Self::Damaged(unknown.to_string()),
            Error::Storage(StorageError { kind: StorageErrorKind::NotFound, .. }) => {
                Self::Damaged("it is absent".into())
            }
            other => Self::Failed(other),
        }
    }
}

impl PageStore {
    pub(crate) fn new(objects: Objects, keys: IdKeys) -> Self {
        Self { objects, keys, cache: Arc::default() }
    }

    /// Reads a page that is expected to be of `level`, and checks it against its name.
    pub(crate) async fn read(&self, id: PageId, level: u8) -> Result<Arc<Page>, ReadFault> {
        if let Some(page) = self.cached(id)
            && page.level == level
        {
            return Ok(page);
        }
        let page = Arc::new(self.read_uncached(id, level).await?);
        self.remember(id, &page);
        Ok(page)
    }

    /// Reads a page from the storage even when it is in the cache, as verification must.
    pub(crate) async fn read_uncached(&self, id: PageId, level: u8) -> Result<Page, ReadFault> {
        Page::decode(&self.body(id).await?, level).map_err(ReadFault::Damaged)
    }

    /// Reads and checks a page of any level.
    pub(crate) async fn read_any(&self, id: PageId) -> Result<(), ReadFault> {
        let body = self.body(id).await?;
        let level = body.first().copied().unwrap_or_default();
        Page::decode(&body, level).map_err(ReadFault::Damaged).map(drop)
    }

    async fn body(&self, id: PageId) -> Result<Bytes, ReadFault> {
        let body = self.objects.read(Kind::Page, &key(id)).await?;
        match self.keys.page(&body) == id {
            true => Ok(body),
            false => Err(ReadFault::Damaged("its content does not match its name".into())),
        }
    }

    /// Writes a page; returns its identity and the length of its body.
    pub(crate) async fn write(&self, page: Page) -> Result<(PageId, u64)> {
        let body = page.encode(random()?);
        let (id, len) = (self.keys.page(&body), body.len() as u64);
        self.objects.put(Kind::Page, &key(id), body).await?;
        Ok((id, len))
    }

    fn cached(&self, id: PageId) -> Option<Arc<Page>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let at = cache.iter().position(|(cached, _)| *cached == id)?;
        let entry = cache.remove(at)?;
        let page = entry.1.clone();
        cache.push_back(entry);
        Some(page)
    }

    fn remember(&self, id: PageId, page: &Arc<Page>) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHED_PAGES {
            cache.pop_front();
        }
        cache.push_back((id, page.clone()));
    }
}

pub(crate) fn key(id: PageId) -> Key {
    let hex = id.to_string();
    Key::of(&["pages", &hex[..2], &hex])
}

/// Slots of a page.
pub(crate) const SLOTS: usize = PAGE_ENTRIES as usize;

const SALT: usize = 16;
const HEAD: usize = 8 + SALT;
const UNALLOCATED: u8 = 0;
const ZERO: u8 = 1;
const REF: u8 = 2;
const CACHED_PAGES: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn survives_a_round_trip_and_refuses_another_level() {
        let mut page = Page::uniform(1, Slot::Unallocated);
        assert_eq!(page.collapsed(), Some(Slot::Unallocated));
        page.set(0, Slot::Ref([1; 32]));
        page.set(7, Slot::Zero);
        page.set(4095, Slot::Ref([2; 32]));
        assert_eq!(page.collapsed(), None);
        let body = page.encode([9; 16]);
        assert_eq!(body.len(), 24 + 4096 + 64);
        assert_eq!(Page::decode(&body, 1).unwrap(), page);
        assert!(Page::decode(&body, 0).is_err());
        assert!(Page::decode(&body[..body.len() - 1], 1).is_err());
        assert_eq!(Page::uniform(0, Slot::Ref([3; 32])).collapsed(), None);
    }

    proptest! {
        #[test]
        fn hostile_bodies_never_panic(states in proptest::collection::vec(0u8..4, 0..5000), ids in 0usize..200) {
            let mut body = vec![0; HEAD];
            body.extend(states);
            body.extend(vec![9; ids]);
            let _ = Page::decode(&body, 0);
        }
    }
}
