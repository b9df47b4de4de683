//! Verifying: all damage is reported, not only the first.

use std::{collections::HashSet, ops::Range};

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    cancel::CancelToken,
    error::{Error, Result},
};

use super::{
    Repository, frame,
    id::{ChunkId, PackId, PointId, SegmentId, random},
    index,
    object::is_absent,
    pack,
    page::{SLOTS, Slot},
    point::RecoveryPoint,
    reader::DiskReader,
    storage::{StorageError, StorageErrorKind},
    tree::{Visited, Walk},
};

/// How deep to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum VerifyLevel {
    /// Manifests, pages and small objects are read and checked; every chunk is in the index and
    /// its pack is there.
    Structure,
    /// Every chunk is read, decompressed and hashed as well.
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
}

impl VerifyReport {
    fn new(point: PointId) -> Self {
        Self { point, chunks: 0, bytes: 0, damage: Vec::new(), damage_count: 0 }
    }

    /// Tells whether nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.damage_count == 0
    }

    fn note(&mut self, error: Error) {
        self.damage_count += 1;
        if self.damage.len() < MAX_DAMAGE {
            self.damage.push(error);
        }
    }
}

/// What checking a whole repository found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct CheckReport {
    /// One report for each recovery point whose manifest can be read.
    pub points: Vec<VerifyReport>,
    /// Packs checked.
    pub packs: u64,
    /// Chunks in the index.
    pub chunks: u64,
    /// Damaged manifests, packs and segments of the index.
    pub damage: Vec<Error>,
}

impl CheckReport {
    /// Tells whether nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty() && self.points.iter().all(VerifyReport::is_sound)
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
        self.repository().refresh_index().await?;
        let known_bad = HashSet::new();
        self.verify_disks(level, &known_bad, cancel, &mut progress).await
    }

    async fn verify_disks(
        &self,
        level: VerifyLevel,
        known_bad: &HashSet<ChunkId>,
        cancel: &CancelToken,
        progress: &mut impl FnMut(u64, u64),
    ) -> Result<VerifyReport> {
        let mut report = VerifyReport::new(self.id().clone());
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
            let mut walk = disk.tree().walk();
            while let Some(visited) = walk.next().await? {
                cancel.check()?;
                let (first, page) = match visited {
                    Visited::Leaf { first, page } => (first, page),
                    Visited::Damaged(error) => {
                        report.note(error);
                        continue;
                    }
                };
                let refs: Vec<_> = (0..SLOTS)
                    .filter_map(|at| match page.slot(at) {
                        Slot::Ref(id) => Some((first + at as u64, ChunkId(id))),
                        _ => None,
                    })
                    .collect();
                disk.verify_chunks(level, &refs, known_bad, &mut report).await?;
                let done = ((first + SLOTS as u64) * size).min(record.capacity);
                progress(before.saturating_add(done), total);
            }
            before = before.saturating_add(record.capacity);
            progress(before, total);
        }
        Ok(report)
    }
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

    /// The same for the upper pages and a few of the leaves, all of a disk of 32 GiB: what a new point writes anew of
    /// the rest is checked when that is done.
    ///
    /// # Errors
    /// As [`first_damage`](Self::first_damage).
    pub(crate) async fn probe(&self, cancel: &CancelToken) -> Result<Option<Error>> {
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
                Visited::Leaf { first, page } => (first, page),
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
            if known_bad.contains(&chunk) {
                report.note(damaged(at, chunk, "its frame in its pack is damaged"));
            } else if level == VerifyLevel::Structure && !self.repository().knows_chunk(&chunk) {
                report.note(damaged(at, chunk, "no pack of the repository holds it"));
            }
        }
        if level < VerifyLevel::Full {
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

impl Repository {
    /// Checks the whole repository: the index, every pack, every recovery point.
    ///
    /// With [`VerifyLevel::Full`] each pack is read whole, compared with its name, and each of its
    /// chunks is decompressed and hashed; once, however many points share it.
    ///
    /// # Errors
    /// Damage is not an error but in the report. [`Error::Storage`] when the storage failed,
    /// [`Error::Cancelled`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn check(&self, level: VerifyLevel, cancel: &CancelToken) -> Result<CheckReport> {
        // A fresh view: what this process believes to know may have been damaged since.
        let fresh = self.reopen().await?;
        fresh.load_index().await?;
        let mut report = CheckReport { chunks: fresh.read_index().len() as u64, ..Default::default() };
        fresh.check_keys(&mut report).await?;
        fresh.check_segments(&mut report).await?;
        fresh.check_housekeeping(&mut report).await?;
        let bad = fresh.check_packs(level, cancel, &mut report).await?;
        for id in fresh.list_points("points").await? {
            cancel.check()?;
            match fresh.point(&id).await {
                Ok(point) => {
                    let verified = point.verify_disks(VerifyLevel::Structure, &bad, cancel, &mut |_, _| {}).await?;
                    report.points.push(verified);
                }
                Err(Error::PointNotFound { .. }) => {}
                Err(error) if error.is_damage() => report.damage.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok(report)
    }

    /// Checks both copies of every key ring.
    async fn check_keys(&self, report: &mut CheckReport) -> Result<()> {
        let Some(keys) = self.objects().keys() else { return Ok(()) };
        report.damage.extend(keys.check(self.storage()).await?);
        Ok(())
    }

    async fn check_segments(&self, report: &mut CheckReport) -> Result<()> {
        let listed: Vec<_> = self.storage().list("index").try_collect().await?;
        for object in listed {
            let Some(id) = index::named::<SegmentId>(&object.key) else {
                report.damage.push(Error::damaged(object.key, "its name is not one of this format"));
                continue;
            };
            match index::read_segment(self.objects(), id).await {
                Ok(_) => {}
                Err(error) if error.is_damage() || is_absent(&error) => report.damage.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Checks all packs and returns the chunks whose frames are damaged.
    async fn check_packs(
        &self,
        level: VerifyLevel,
        cancel: &CancelToken,
        report: &mut CheckReport,
    ) -> Result<HashSet<ChunkId>> {
        let mut bad = HashSet::new();
        let listed: Vec<_> = self.storage().list("packs").try_collect().await?;
        for object in listed {
            cancel.check()?;
            let Some(id) = index::named::<PackId>(&object.key) else {
                report.damage.push(Error::damaged(object.key, "its name is not one of this format"));
                continue;
            };
            report.packs += 1;
            let checked = match level {
                VerifyLevel::Structure => pack::read_footer(self.storage(), id, object.size).await.map(drop),
                VerifyLevel::Full => self.check_pack(id, &mut bad).await,
            };
            match checked {
                Ok(()) => {}
                Err(error) if error.is_damage() || is_absent(&error) => report.damage.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok(bad)
    }

    async fn check_pack(&self, id: PackId, bad: &mut HashSet<ChunkId>) -> Result<()> {
        let key = pack::key(id);
        let bytes = match self.storage().get(&key, pack::MAX_SIZE).await {
            Err(StorageError { kind: StorageErrorKind::TooLarge, .. }) => {
                return Err(Error::damaged(key, "it is larger than a pack can be"));
            }
            other => other?,
        };
        // Without an entry in the index there are no frames to look at, only the pack as a whole.
        let seal = self.read_index().seal(id);
        let cipher = match seal {
            Some(seal) => self.objects().pack_cipher(&key, seal).await?,
            None => None,
        };
        let repository = self.clone();
        let work = tokio::task::spawn_blocking(move || {
            let whole = pack::check_whole(id, &bytes).and_then(|pack| match seal {
                Some(seal) if seal != pack.seal => {
                    Err(Error::damaged(&key, "the chunk index names another salt of it"))
                }
                _ => Ok(pack),
            });
            // A damaged pack may still hold sound chunks, where the index says.
            let frames: Vec<_> = match &whole {
                Ok(pack) => pack.entries.iter().map(|entry| (entry.id, entry.frame())).collect(),
                Err(_) => repository.read_index().frames_in(id),
            };
            let is_bad = |chunk: ChunkId, frame: Range<u64>| {
                let config = repository.config();
                frame.end > bytes.len() as u64 || {
                    let frame = bytes.slice(frame.start as usize..frame.end as usize);
                    let len = frame::plain_len(&frame);
                    frame::decode(&frame, chunk, len, cipher.as_ref(), &config.keys, repository.codec()).is_err()
                }
            };
            let bad: Vec<_> = frames
                .into_iter()
                .filter(|(chunk, frame)| is_bad(*chunk, frame.clone()))
                .map(|(chunk, _)| chunk)
                .collect();
            (whole, bad)
        });
        let (whole, damaged) = work.await.map_err(|_| Error::WriterStopped { reason: "a worker panicked".into() })?;
        if whole.is_ok() && !damaged.is_empty() {
            let count = damaged.len();
            let reason = format!("{count} of its chunks do not match their identities");
            bad.extend(damaged);
            return Err(Error::damaged(pack::key(id), reason));
        }
        bad.extend(damaged);
        whole.map(drop)
    }
}

const MAX_DAMAGE: usize = 10_000;
/// Leaves of a parent that are looked at before a point is built on it.
const PROBED_LEAVES: u64 = 32;
const RUN: u64 = 4 << 20;
