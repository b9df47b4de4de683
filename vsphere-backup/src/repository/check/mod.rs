//! Checking a whole repository: all damage is reported, not only the first.
//!
//! | Level | What is looked at | Finds |
//! |---|---|---|
//! | [`Structure`](VerifyLevel::Structure) | keys, index, small objects, ends of packs, manifests, all pages that points need | what is missing, cut, or not what its name promises |
//! | [`Hash`](VerifyLevel::Hash) | all bytes of every object, against its hash | whatever a storage did to an object |
//! | [`Full`](VerifyLevel::Full) | every chunk, decrypted, decompressed, compared with its identity | what somebody who computes hashes did |
//! | [`check_live`](crate::engine::check_live) | a disk of a point, beside the disk that it was taken of | what was stored wrong from the start |
//!
//! [`Repository::check_without_keys`] looks at hashes alone and needs no key.
//!
//! Packs, pages and segments are looked at in 256 parts by the first byte of their names, points by that of a hash of
//! theirs. So a run can look at a [share](CheckOptions::share) of all and a later one go on, and memory is bounded by
//! the chunk index and one part's names.

mod cursor;
mod hashes;
mod housekeeping;
mod pack;
mod points;
mod segments;

use std::{collections::HashSet, fmt, sync::Arc};

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    cancel::CancelToken,
    error::{Error, Result},
};

pub use self::cursor::CheckCursor;
use self::cursor::Parts;
pub(super) use self::points::KnownLeaves;
use super::{
    Repository, damage, envelope,
    id::{ChunkId, MetaId, PackId, PageId, PointId, SegmentId},
    index, meta_key,
    object::is_absent,
    page::{self, ReadFault},
    verify::{MAX_DAMAGE, VerifyLevel, VerifyReport},
};

/// How a repository is checked.
#[derive(Clone)]
#[must_use]
pub struct CheckOptions {
    level: VerifyLevel,
    share: f64,
    from: CheckCursor,
    mark: bool,
    cancel: CancelToken,
    progress: Option<Arc<Progress>>,
}

type Progress = dyn Fn(CheckProgress) + Send + Sync;

/// How far a check is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckProgress {
    /// Packs looked at.
    pub packs: u64,
    /// Their bytes; 0 when only structure is checked.
    pub bytes: u64,
    /// Recovery points looked at.
    pub points: u64,
}

impl fmt::Debug for CheckOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckOptions")
            .field("level", &self.level)
            .field("share", &self.share)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

impl CheckOptions {
    /// Checks everything at this level.
    pub fn new(level: VerifyLevel) -> Self {
        Self {
            level,
            share: 1.0,
            from: CheckCursor::default(),
            mark: false,
            cancel: CancelToken::new(),
            progress: None,
        }
    }

    /// Looks at a share of all packs and points: 0.1 is one in ten, and ten runs, each of which
    /// [goes on](Self::from) where the one before ended, look at all.
    pub fn share(mut self, share: f64) -> Self {
        self.share = share.clamp(0.0, 1.0);
        self
    }

    /// Goes on where an earlier check ended, which told so in [`CheckReport::next`].
    pub fn from(mut self, cursor: CheckCursor) -> Self {
        self.from = cursor;
        self
    }

    /// Marks the damaged chunks that are found, in the repository: nobody relies on them any more, and the next backup that
    /// meets their bytes stores them again. Without this, only this [`Repository`] and its clones know.
    pub fn mark(mut self, mark: bool) -> Self {
        self.mark = mark;
        self
    }

    /// Lets a token cancel the check. Cancelled gracefully, it ends with a report of what it looked at, and where to go
    /// on; what is in the part that it is at is still looked at.
    pub fn cancel(mut self, cancel: &CancelToken) -> Self {
        self.cancel = cancel.clone();
        self
    }

    /// Reports progress after each pack and point.
    pub fn on_progress(mut self, progress: impl Fn(CheckProgress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }
}

/// What checking a whole repository found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct CheckReport {
    /// One report for each recovery point that was looked at and whose manifest can be read.
    pub points: Vec<VerifyReport>,
    /// Packs checked.
    pub packs: u64,
    /// Bytes of packs read.
    pub bytes: u64,
    /// Chunks in the index; without keys, in the packs that were checked.
    pub chunks: u64,
    /// Damaged objects, at most the first 10 000: manifests, packs, segments of the index, ...
    pub damage: Vec<Error>,
    /// How many damaged objects there are.
    pub damage_count: u64,
    /// Segments of the index that name packs which are gone. That is no damage by itself: nothing relies on such an entry. A
    /// collection of garbage that was interrupted leaves some; otherwise a pack was lost, or a segment that was
    /// replaced has come back.
    pub stale_segments: Vec<SegmentId>,
    /// Chunks whose frames are damaged, with the packs that they lie in, at most the first 100 000.
    pub damaged_chunks: Vec<(PackId, ChunkId)>,
    /// How many of them were marked now.
    pub marked: u64,
    /// Where a later check goes on: the [begin](CheckCursor::is_start) when all was looked at.
    pub next: CheckCursor,
}

impl CheckReport {
    /// Tells whether nothing is damaged, of what was looked at.
    pub fn is_sound(&self) -> bool {
        self.damage_count == 0 && self.points.iter().all(VerifyReport::is_sound)
    }

    fn note(&mut self, error: Error) {
        self.damage_count += 1;
        if self.damage.len() < MAX_DAMAGE {
            self.damage.push(error);
        }
    }

    /// Notes what a check of one object gave. What is gone was deleted by somebody since it was listed.
    fn take(&mut self, checked: Result<()>) -> Result<()> {
        match checked {
            Ok(()) => Ok(()),
            Err(error) if error.is_damage() => {
                self.note(error);
                Ok(())
            }
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Repository {
    /// Checks the whole repository at a level: the index, every pack, every recovery point.
    ///
    /// # Errors
    /// As [`check_with`](Self::check_with).
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn check(&self, level: VerifyLevel, cancel: &CancelToken) -> Result<CheckReport> {
        self.check_with(&CheckOptions::new(level).cancel(cancel)).await
    }

    /// Checks the repository, or a share of it.
    ///
    /// Each object is read once, however many points share it. When a damaged chunk is found, all points are looked
    /// at, so that the report names those that need it.
    ///
    /// ```no_run
    /// # use vsphere_backup::repository::{CheckCursor, CheckOptions, Repository, VerifyLevel};
    /// # async fn example(repository: Repository, kept: CheckCursor) -> vsphere_backup::Result<()> {
    /// // Every night another tenth, all in ten nights.
    /// let report = repository.check_with(&CheckOptions::new(VerifyLevel::Full).share(0.1).from(kept)).await?;
    /// println!("sound: {}; tomorrow from {}", report.is_sound(), report.next);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Damage is not an error but in the report. [`Error::UnsupportedVersion`] and [`Error::UnsupportedFeature`] of
    /// any object; [`Error::Storage`] when the storage failed, [`Error::Cancelled`].
    ///
    /// # Cancel safety
    /// Changes nothing; with [`CheckOptions::mark`], damaged chunks are marked at the end.
    pub async fn check_with(&self, options: &CheckOptions) -> Result<CheckReport> {
        // A storage that hangs does not hold up who cancels.
        let work = async {
            // A fresh view: what this process believes to know may have been damaged since.
            let repository = self.reopen().await?;
            repository.load_index().await?;
            let report = CheckReport { chunks: repository.read_index().len() as u64, ..Default::default() };
            Check { asked: self, repository, options, report, bad: HashSet::new() }.run().await
        };
        options.cancel.run(Box::pin(work)).await
    }
}

/// One check.
struct Check<'a> {
    asked: &'a Repository,
    /// As the storage is now.
    repository: Repository,
    options: &'a CheckOptions,
    report: CheckReport,
    /// Chunks whose frames are damaged.
    bad: HashSet<ChunkId>,
}

impl Check<'_> {
    async fn run(mut self) -> Result<CheckReport> {
        self.keys().await?;
        self.housekeeping().await?;
        let mut next = self.options.from;
        next.objects = self.objects(next.objects).await?;
        next.points = self.points(next.points).await?;
        self.report.next = next.or_start();
        if self.options.mark {
            self.report.marked = damage::mark(self.repository.objects(), &self.report.damaged_chunks).await?;
        }
        Ok(self.report)
    }

    /// Checks both copies of every key ring.
    async fn keys(&mut self) -> Result<()> {
        let Some(keys) = self.repository.objects().keys() else { return Ok(()) };
        let damage = keys.check(self.repository.storage()).await?;
        damage.into_iter().for_each(|error| self.report.note(error));
        Ok(())
    }

    /// Checks the packs, segments, pages and small objects of some parts, and returns the next one.
    async fn objects(&mut self, from: u16) -> Result<u16> {
        let parts = cursor::parts(from, self.options.share);
        let mut packs = self.listed::<PackId>("packs", &parts).await?;
        let mut segments = self.listed::<SegmentId>("index", &parts).await?;
        // Pages and small objects that a point needs are read on the way to its chunks.
        let beside = self.options.level >= VerifyLevel::Hash;
        let mut metas = if beside { self.listed::<MetaId>("meta", &parts).await? } else { Vec::new() };
        for part in parts.clone() {
            if self.options.cancel.is_stopping() {
                self.options.cancel.check()?;
                return Ok(part);
            }
            let here = |id: &[u8; 32]| u16::from(id[0]) == part;
            for (id, _) in segments.extract_if(.., |(id, _)| here(&id.0)).collect::<Vec<_>>() {
                self.segment(id).await?;
            }
            self.packs(packs.extract_if(.., |(id, _)| here(&id.0)).collect()).await?;
            if beside {
                let folder = format!("pages/{part:02x}");
                for (id, _) in self.listed::<PageId>(&folder, &parts).await? {
                    let checked = self.page(id).await;
                    self.report.take(checked)?;
                }
                for (id, _) in metas.extract_if(.., |(id, _)| here(&id.0)).collect::<Vec<_>>() {
                    let checked = self.meta(id).await;
                    self.report.take(checked)?;
                }
            }
        }
        Ok(parts.end)
    }

    /// Lists the objects of some parts below a prefix, with their sizes, by id.
    async fn listed<T: Named>(&mut self, prefix: &str, parts: &Parts) -> Result<Vec<(T, u64)>> {
        let mut found = Vec::new();
        let repository = self.repository.clone();
        let mut listing = repository.storage().list(prefix);
        while let Some(object) = listing.try_next().await? {
            match index::named::<T>(&object.key) {
                Some(id) if parts.contains(&u16::from(id.bytes()[0])) => found.push((id, object.size)),
                Some(_) => {}
                None => self.report.note(Error::damaged(object.key, "its name is not one of this format")),
            }
        }
        found.sort_unstable_by_key(|(id, _)| *id.bytes());
        Ok(found)
    }

    async fn packs(&mut self, packs: Vec<(PackId, u64)>) -> Result<()> {
        let (repository, level) = (self.repository.clone(), self.options.level);
        let checked = async |(id, size): (PackId, u64)| (id, pack::check(&repository, id, size, level).await);
        let mut checked = stream::iter(packs).map(checked).buffered(PACKS);
        while let Some((id, checked)) = checked.next().await {
            self.options.cancel.check()?;
            self.report.packs += 1;
            match checked {
                Ok(checked) => {
                    self.report.bytes += checked.bytes;
                    let room = MAX_CHUNKS.saturating_sub(self.report.damaged_chunks.len());
                    self.report.damaged_chunks.extend(checked.bad.iter().take(room).map(|chunk| (id, *chunk)));
                    // Where the chunk lies in another pack as well, that one is read from now on.
                    self.repository.distrust(id, &checked.bad);
                    self.asked.distrust(id, &checked.bad);
                    self.bad.extend(checked.bad);
                    if let Some(error) = checked.damage {
                        self.report.note(error);
                    }
                }
                Err(error) => self.report.take(Err(error))?,
            }
            self.tell();
        }
        Ok(())
    }

    async fn page(&self, id: PageId) -> Result<()> {
        let key = page::key(id);
        if self.options.level == VerifyLevel::Hash {
            return envelope::check(self.repository.storage(), &key).await;
        }
        match self.repository.pages().read_any(id).await {
            Ok(()) => Ok(()),
            Err(ReadFault::Damaged(reason)) => Err(Error::damaged(key, reason)),
            Err(ReadFault::Failed(error)) => Err(error),
        }
    }

    async fn meta(&self, id: MetaId) -> Result<()> {
        match self.options.level {
            VerifyLevel::Hash => envelope::check(self.repository.storage(), &meta_key(id)).await,
            _ => self.repository.meta(id).await.map(drop),
        }
    }

    /// Checks the points of some parts; all of them when a damaged chunk was found. Returns the next part.
    async fn points(&mut self, from: u16) -> Result<u16> {
        let parts = cursor::parts(from, self.options.share);
        let mut all: Vec<(u16, PointId)> =
            self.repository.list_points("points").await?.into_iter().map(placed).collect();
        all.sort_unstable();
        // Behind the listing: what was committed since the check began relies on packs that came since.
        self.repository.refresh_index().await?;
        let mut known = KnownLeaves::default();
        let mut reached = parts.end;
        let mut begun = None;
        for (part, id) in all {
            let inside = parts.contains(&part);
            if !inside && self.bad.is_empty() {
                continue;
            }
            self.options.cancel.check()?;
            // A part that was begun is ended, or the next run would look at its first points again.
            if begun != Some(part) && self.options.cancel.is_stopping() {
                reached = reached.min(part.max(parts.start));
                break;
            }
            begun = Some(part);
            match self.repository.point(&id).await {
                Ok(point) => {
                    let room =
                        MAX_DAMAGE.saturating_sub(self.report.points.iter().map(|point| point.damage.len()).sum());
                    match point.check_structure(&self.bad, &mut known, room, &self.options.cancel).await {
                        Ok(report) if inside || !report.is_sound() => self.report.points.push(report),
                        Ok(_) => {}
                        // Deleted since it was opened.
                        Err(Error::PointNotFound { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
                Err(Error::PointNotFound { .. }) => {}
                Err(error) => self.report.take(Err(error))?,
            }
            self.tell();
        }
        self.report.points.sort_unstable_by(|a, b| a.point.cmp(&b.point));
        Ok(reached)
    }

    fn tell(&self) {
        if let Some(progress) = &self.options.progress {
            let CheckReport { packs, bytes, points, .. } = &self.report;
            progress(CheckProgress { packs: *packs, bytes: *bytes, points: points.len() as u64 });
        }
    }
}

/// Returns the part that a point is in.
fn placed(id: PointId) -> (u16, PointId) {
    (u16::from(blake3::hash(id.to_string().as_bytes()).as_bytes()[0]), id)
}

/// What is named by an id of 32 bytes.
trait Named: std::str::FromStr {
    fn bytes(&self) -> &[u8; 32];
}

macro_rules! named {
    ($($name:ident),*) => {$(
        impl Named for $name {
            fn bytes(&self) -> &[u8; 32] {
                self.as_bytes()
            }
        }
    )*};
}

named!(PackId, SegmentId, PageId, MetaId);

/// Packs that are read at once; of each, one window is in memory.
const PACKS: usize = 2;
const MAX_CHUNKS: usize = 100_000;
