//! What this process knows of the chunks that the repository holds: loading the index, and asking it.

use std::sync::{PoisonError, RwLockReadGuard, RwLockWriteGuard};

use crate::error::Result;

use super::{
    Repository, damage,
    gc::Condemned,
    id::{ChunkId, PackId, SegmentId},
    index::{self, Index},
    pack::PackEntries,
};

impl Repository {
    /// Loads the chunk index unless that was done before.
    pub(crate) async fn load_index(&self) -> Result<()> {
        let mut loaded = self.inner.loaded.lock().await;
        if !*loaded {
            self.load_new_segments(None).await?;
            *loaded = true;
        }
        Ok(())
    }

    /// Loads what other writers added to the chunk index since, and forgets packs that are gone.
    pub(crate) async fn refresh_index(&self) -> Result<()> {
        let mut loaded = self.inner.loaded.lock().await;
        self.load_new_segments(None).await?;
        *loaded = true;
        Ok(())
    }

    /// As [`refresh_index`](Self::refresh_index), and notes which packs must not be relied on. To be called by a
    /// holder of a lease for writing.
    pub(super) async fn refresh_index_to_write(&self) -> Result<()> {
        // One lock around both: what is condemned is never replaced by what was read of tombstones earlier.
        let mut loaded = self.inner.loaded.lock().await;
        // In this order: a tombstone goes after what it names, so what is in neither list is not there.
        let condemned = Condemned::read(self.objects()).await?;
        self.load_new_segments(Some(condemned)).await?;
        *loaded = true;
        Ok(())
    }

    pub(super) async fn load_new_segments(&self, condemned: Option<Condemned>) -> Result<()> {
        let known = {
            let mut index = self.write_index();
            index.begin_load();
            index.known()
        };
        let mut found = index::load(self.objects(), &known).await?;
        let lost = found.lost;
        if lost > 0 {
            // Their chunks must not count as known, or new points would be built on them; some may be in other packs.
            tracing::warn!(packs = lost, "packs are gone or have another size: the chunk index is loaded afresh");
            found = index::load(self.objects(), &Default::default()).await?;
        }
        let marked = self.read_index().marks().clone();
        let marks = damage::read(self.objects(), &marked).await?;
        for error in &found.damage {
            tracing::warn!(%error, "damage met while the chunk index was loaded");
        }
        let mut index = self.write_index();
        index.end_load(lost > 0);
        // In one step with what was loaded: a pack that is no longer condemned may be gone.
        if let Some(condemned) = condemned {
            index.condemn(condemned);
        }
        index.take_marks(marks);
        found.merge_into(&mut index);
        Ok(())
    }

    /// Relies no more on chunks in a pack, where they were found damaged: they are read from another pack that holds them,
    /// or count as unknown, so that the next backup stores them again.
    pub(super) fn distrust(&self, pack: PackId, chunks: &[ChunkId]) {
        if !chunks.is_empty() {
            self.write_index().distrust(pack, chunks);
        }
    }

    pub(super) fn knows_chunk(&self, id: &ChunkId) -> bool {
        self.read_index().contains(id)
    }

    /// Tells whether what an earlier writer stored and did not commit may be deleted although somebody relies on it: there
    /// was a tombstone when the newest writer began, and nothing reachable protects what it may name.
    pub(crate) fn may_lose_uncommitted(&self) -> bool {
        self.read_index().has_condemned()
    }

    pub(super) fn may_reuse_chunk(&self, id: &ChunkId) -> bool {
        self.read_index().may_reuse(id)
    }

    pub(super) fn add_to_index(&self, segment: SegmentId, packs: &[PackEntries]) {
        self.write_index().add_stored(segment, packs);
    }

    // Writers of the index only add; after a panic it is whole but for what was being added.
    pub(super) fn read_index(&self) -> RwLockReadGuard<'_, Index> {
        self.inner.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write_index(&self) -> RwLockWriteGuard<'_, Index> {
        self.inner.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}
