//! Verifying: all damage is reported, not only the first.

use std::collections::HashSet;

use futures_util::{StreamExt, stream};

use crate::{
    cancel::CancelToken,
    error::{Error, Result},
};

use super::{
    check::KnownLeaves,
    id::{ChunkId, PageId, PointId, random},
    page::{SLOTS, Slot},
    point::RecoveryPoint,
    reader::DiskReader,
    tree::{Visited, Walk},
};

/// How deep to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum VerifyLevel {
    /// Manifests, pages and small objects are read and checked; every chunk is in the index and
    /// its pack is there.
    Structure,
    /// All bytes of every object are read and compared with its hash as well, which takes no keys and little time of the
    /// processor. A point alone does not know whole packs: for it this is the same as [`Full`](Self::Full).
    Hash,
    /// Every chunk is read, decrypted, decompressed and hashed as well.
    #[default]
    Full,
}

/// What verifying a recovery point found.
#[derive(Debug)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The point.
    pub point: PointId,
    /// Chunks checked.
    pub chunks: u64,
    /// Bytes of the disks that those chunks hold.
    pub bytes: u64,
    /// The damage, at most the first 10 000 pieces: [`Error::DamagedChunk`] with disk, offset and
    /// chunk, [`Error::DamagedPage`], [`Error::Damaged`].
    pub damage: Vec<Error>,
    /// How many pieces of damage there are.
    pub damage_count: u64,
    /// How many pieces of damage are kept.
    room: usize,
}

impl VerifyReport {
    fn new(point: PointId, room: usize) -> Self {
        Self { point, chunks: 0, bytes: 0, damage: Vec::new(), damage_count: 0, room }
    }

    /// Tells whether nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.damage_count == 0
    }

    fn note(&mut self, error: Error) {
        self.damage_count += 1;
        if self.damage.len() < self.room {
            self.damage.push(error);
        }
    }
}

impl RecoveryPoint {
    /// Checks everything that this point needs.
    ///
    /// `progress` gets the bytes checked so far and the capacity of all disks.
    ///
    /// # Errors
    /// Damage is not an error but in the report. [`Error::Storage`] when the storage failed,
    /// [`Error::Cancelled`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn verify(
        &self,
        level: VerifyLevel,
        cancel: &CancelToken,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<VerifyReport> {
        // A storage that hangs does not hold up who cancels.
        let work = async {
            self.repository().refresh_index().await?;
            let known = Known { bad: &HashSet::new(), leaves: None };
            let mut report = VerifyReport::new(self.id().clone(), MAX_DAMAGE);
            self.verify_disks(level, known, &mut report, cancel, &mut progress).await?;
            Ok(report)
        };
        cancel.run(Box::pin(work)).await
    }

    /// Checks the point without reading chunks; keeps at most `room` pieces of damage.
    pub(super) async fn check_structure(
        &self,
        bad: &HashSet<ChunkId>,
        leaves: &mut KnownLeaves,
        room: usize,
        cancel: &CancelToken,
    ) -> Result<VerifyReport> {
        let mut report = VerifyReport::new(self.id().clone(), room);
        let known = Known { bad, leaves: Some(leaves) };
        self.verify_disks(VerifyLevel::Structure, known, &mut report, cancel, &mut |_, _| {}).await?;
        Ok(report)
    }

    async fn verify_disks(
        &self,
        level: VerifyLevel,
        mut known: Known<'_>,
        report: &mut VerifyReport,
        cancel: &CancelToken,
        progress: &mut impl FnMut(u64, u64),
    ) -> Result<()> {
        // The manifest again, from the storage: this one may have been read long ago.
        match self.repository().point(self.id()).await {
            Ok(_) => {}
            Err(error @ Error::PointNotFound { .. }) => return Err(error),
            Err(error) if error.is_damage() => report.note(error),
            Err(error) => return Err(error),
        }
        for &object in self.manifest().objects.values() {
            match self.repository().meta(object).await {
                Ok(_) => {}
                Err(error) if error.is_damage() => report.note(error),
                Err(error) => return Err(error),
            }
        }
        let total = self.disks().iter().fold(0u64, |sum, disk| sum.saturating_add(disk.capacity));
        let mut before = 0u64;
        for record in self.disks() {
            let disk = self.disk(record.key).await?;
            let size = u64::from(disk.tree().shape().chunk_size);
            let chunks = disk.tree().shape().chunks();
            let mut walk = disk.tree().walk();
            loop {
                let leaves = known.leaves.as_deref();
                let is_known = |id: &PageId| leaves.is_some_and(|leaves| leaves.chunks(id).is_some());
                let Some(visited) = walk.next_but(is_known).await? else { break };
                cancel.check()?;
                let (first, id, page) = match visited {
                    Visited::Leaf { first, id, page } => (first, id, page),
                    Visited::Known { id } => {
                        let chunks = leaves.and_then(|leaves| leaves.chunks(&id)).unwrap_or_default();
                        report.chunks += chunks;
                        report.bytes += chunks * size;
                        continue;
                    }
                    Visited::Damaged(error) => {
                        report.note(error);
                        continue;
                    }
                };
                let before_leaf = report.damage_count;
                let refs: Vec<_> = (0..SLOTS)
                    .filter_map(|at| match page.slot(at) {
                        Slot::Ref(id) => Some((first + at as u64, ChunkId(id))),
                        _ => None,
                    })
                    .collect();
                disk.verify_chunks(level, &refs, known.bad, report).await?;
                if let Some(leaves) = &mut known.leaves
                    && report.damage_count == before_leaf
                    && first + SLOTS as u64 <= chunks.saturating_sub(1)
                {
                    leaves.remember(id, refs.len() as u64);
                }
                let done = ((first + SLOTS as u64) * size).min(record.capacity);
                progress(before.saturating_add(done), total);
            }
            before = before.saturating_add(record.capacity);
            progress(before, total);
        }
        Ok(())
    }
}

/// What is known before a point is looked at.
struct Known<'a> {
    /// Chunks whose frames are damaged, wherever they lie.
    bad: &'a HashSet<ChunkId>,
    /// Leaves that were found sound; `None` when each is to be looked at.
    leaves: Option<&'a mut KnownLeaves>,
}

impl DiskReader {
    /// Returns the first damage of the disk's index, without reading chunks: whether a new point
    /// may be built on this one. Looks at all of it.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Cancelled`].
    pub(crate) async fn first_damage(&self, cancel: &CancelToken) -> Result<Option<Error>> {
        self.first_damage_of(self.tree().walk(), cancel).await
    }

    /// The same for the upper pages and a few of the leaves, all of a disk of 32 GiB, and for all while anything is known
    /// to be damaged: what a new point writes anew of
    /// the rest is checked when that is done.
    ///
    /// # Errors
    /// As [`first_damage`](Self::first_damage).
    pub(crate) async fn probe(&self, cancel: &CancelToken) -> Result<Option<Error>> {
        // Marks of damage are of older points: what they name may lie anywhere.
        self.repository().refresh_index().await?;
        if self.repository().read_index().has_damage() {
            return self.first_damage(cancel).await;
        }
        let seed = random().map(u64::from_le_bytes)?;
        self.first_damage_of(self.tree().walk_some(PROBED_LEAVES, seed), cancel).await
    }

    async fn first_damage_of(&self, mut walk: Walk<'_>, cancel: &CancelToken) -> Result<Option<Error>> {
        let repository = self.repository();
        repository.refresh_index().await?;
        let size = u64::from(self.tree().shape().chunk_size);
        while let Some(visited) = walk.next().await? {
            cancel.check()?;
            let (first, page) = match visited {
                Visited::Leaf { first, page, .. } => (first, page),
                Visited::Known { .. } => continue,
                Visited::Damaged(error) => return Ok(Some(error)),
            };
            for at in 0..SLOTS {
                if let Slot::Ref(id) = page.slot(at)
                    && !repository.knows_chunk(&ChunkId(id))
                {
                    return Ok(Some(Error::DamagedChunk {
                        disk: self.record().key,
                        offset: (first + at as u64) * size,
                        chunk: ChunkId(id),
                        reason: "no pack of the repository holds it".into(),
                    }));
                }
            }
        }
        Ok(None)
    }

    /// Checks the chunks of one page.
    async fn verify_chunks(
        &self,
        level: VerifyLevel,
        refs: &[(u64, ChunkId)],
        known_bad: &HashSet<ChunkId>,
        report: &mut VerifyReport,
    ) -> Result<()> {
        let shape = self.tree().shape();
        let chunks = shape.chunks();
        let damaged = |at: u64, chunk: ChunkId, reason: &str| Error::DamagedChunk {
            disk: shape.disk,
            offset: at * u64::from(shape.chunk_size),
            chunk,
            reason: reason.into(),
        };
        for &(at, chunk) in refs {
            if at >= chunks {
                report.note(damaged(at, chunk, "it lies behind the end of the disk"));
                continue;
            }
            report.chunks += 1;
            report.bytes += u64::from(shape.chunk_len(at));
            if level == VerifyLevel::Structure && !self.repository().knows_chunk(&chunk) {
                let reason = match known_bad.contains(&chunk) {
                    true => "its frame in its pack is damaged",
                    false => "no pack of the repository holds it",
                };
                report.note(damaged(at, chunk, reason));
            }
        }
        if level == VerifyLevel::Structure {
            return Ok(());
        }
        let inside: Vec<_> = refs.iter().copied().filter(|&(at, _)| at < chunks).collect();
        // Runs of 4 MiB at a time keep memory bounded; two hide the storage's latency.
        let per_run = (RUN / u64::from(shape.chunk_size)).max(1) as usize;
        let mut runs =
            stream::iter(inside.chunks(per_run).map(<[_]>::to_vec)).map(async |run| self.fetch(&run).await).buffered(2);
        while let Some(results) = runs.next().await {
            for error in results.into_iter().filter_map(Result::err) {
                if error.is_damage() {
                    report.note(error);
                } else {
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// The most damage that a report names.
pub(super) const MAX_DAMAGE: usize = 10_000;
/// Leaves of a parent that are looked at before a point is built on it.
const PROBED_LEAVES: u64 = 32;
const RUN: u64 = 4 << 20;
