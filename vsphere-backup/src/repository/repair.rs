//! Repairing what can be repaired, by a plan that can be read before it is carried out.
//!
//! Nothing is deleted that may be of use: what is in the way goes into `quarantine/`, under its name. Manifests are never
//! changed: the plan names the points that need what is damaged, and [marks](CheckOptions::mark) see to it that the next
//! backup stores damaged chunks again where the machine still has them.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt,
};

use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};

use crate::{
    cancel::CancelToken,
    clock::Clock,
    error::{Error, Result},
};

use super::{
    CheckOptions, Repository, VerifyLevel, damage,
    id::{ChunkId, PackId, PointId, SegmentId},
    index,
    lease::{
        Lease,
        record::{Purpose, Roots},
        watch,
    },
    object::is_absent,
    pack::{self, PackEntries},
    pin,
    storage::{Key, StorageError, StorageErrorKind},
};

/// What would be done to repair a repository, and what cannot be repaired. It can be kept as JSON, and read by people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RepairPlan {
    /// In the order in which they are carried out.
    pub steps: Vec<RepairStep>,
    /// Points that need what is damaged, with what they miss in words, at most 100 for each. A backup heals them where
    /// the machine still has the bytes; a copy of the repository has them too.
    pub hurt: BTreeMap<PointId, Vec<String>>,
    /// Damaged objects for which nothing can be done here, in words: manifests, small objects, pages, packs.
    pub lost: Vec<String>,
}

/// One step of a repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "step")]
#[non_exhaustive]
pub enum RepairStep {
    /// Writes a segment of the chunk index for packs that no sound segment names, by what their ends say; several, where
    /// one has no room for all of it.
    WriteSegment {
        /// The packs, with their sizes in bytes.
        packs: Vec<(PackId, u64)>,
    },
    /// Moves an object into quarantine.
    Quarantine {
        /// Its name.
        object: String,
        /// Why it is in the way.
        reason: String,
    },
    /// Marks chunks as damaged, so that nobody relies on them and the next backup stores them again.
    Mark {
        /// The chunks, with the packs that they lie in.
        chunks: Vec<(PackId, ChunkId)>,
    },
}

impl RepairPlan {
    /// Tells whether there is nothing to repair and nothing lost.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.hurt.is_empty() && self.lost.is_empty()
    }
}

impl fmt::Display for RepairStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WriteSegment { packs } => write!(f, "write a segment of the index for {} packs", packs.len()),
            Self::Quarantine { object, reason } => write!(f, "move {object} into quarantine: {reason}"),
            Self::Mark { chunks } => write!(f, "mark {} chunks as damaged", chunks.len()),
        }
    }
}

impl fmt::Display for RepairPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))?;
        for (point, damage) in &self.hurt {
            writeln!(f, "{point} needs what is damaged:")?;
            damage.iter().try_for_each(|text| writeln!(f, "  {text}"))?;
        }
        self.lost.iter().try_for_each(|text| writeln!(f, "cannot be repaired: {text}"))
    }
}

/// What a repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RepairReport {
    /// Segments written.
    pub segments: u64,
    /// Chunks marked that were not marked before.
    pub marked: u64,
    /// Objects that are in quarantine now.
    pub quarantined: Vec<String>,
    /// Objects that the store refuses to move: a copy of each is in quarantine, and the original stays.
    pub refused: Vec<String>,
    /// Steps that were overtaken: what they were for is no longer as the plan says.
    pub skipped: u64,
}

impl Repository {
    /// Checks the repository at a level and plans its repair. Changes nothing.
    ///
    /// With [`VerifyLevel::Full`] all damage is known; with less, the plan repairs what is found then.
    ///
    /// # Errors
    /// As [`check_with`](Self::check_with).
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn plan_repair(&self, level: VerifyLevel, cancel: &CancelToken) -> Result<RepairPlan> {
        let report = self.check_with(&CheckOptions::new(level).cancel(cancel)).await?;
        let mut plan = RepairPlan::default();
        let segments = self.segments().await?;
        let unnamed = self.unnamed(&segments).await?;
        plan.steps.extend(unnamed.steps);
        for (id, why) in &segments.damaged {
            let (object, reason) = (index::key(*id).to_string(), why.clone());
            plan.steps.push(RepairStep::Quarantine { object, reason });
        }
        // Of packs whose ends are damaged, what a segment says is all that is known.
        let is_needed =
            |id: &SegmentId| segments.named.iter().any(|(pack, _, by)| by == id && unnamed.blind.contains(pack));
        for id in report.stale_segments.iter().filter(|id| !is_needed(id)) {
            let object = index::key(*id).to_string();
            // Of its packs, those that are there are named by a segment that is written before.
            let reason = "it names packs that are gone".into();
            plan.steps.push(RepairStep::Quarantine { object, reason });
        }
        let marked: HashSet<_> = damage::read(self.objects(), &HashSet::new()).await?.into_values().flatten().collect();
        let chunks: Vec<_> = report.damaged_chunks.into_iter().filter(|place| !marked.contains(place)).collect();
        plan.steps.extend(chunks.chunks(MARKED).map(|chunks| RepairStep::Mark { chunks: chunks.to_vec() }));
        for point in report.points.iter().filter(|point| !point.is_sound()) {
            let damage = point.damage.iter().take(TEXTS).map(ToString::to_string).collect();
            plan.hurt.insert(point.point.clone(), damage);
        }
        let repaired: BTreeSet<_> = segments.damaged.iter().map(|(id, _)| index::key(*id).to_string()).collect();
        let is_lost = |error: &&Error| !matches!(error, Error::Damaged { object, .. } if repaired.contains(object));
        plan.lost = report.damage.iter().filter(is_lost).map(ToString::to_string).collect();
        Ok(plan)
    }

    /// Carries out a plan. What has changed since it was made is left alone.
    ///
    /// # Errors
    /// [`Error::Busy`] when garbage is collected or another repair runs; [`Error::Storage`], [`Error::Fenced`],
    /// [`Error::Cancelled`].
    ///
    /// # Cancel safety
    /// When dropped, some steps are done; the repository is no worse than before.
    pub async fn repair(&self, plan: &RepairPlan, cancel: &CancelToken) -> Result<RepairReport> {
        let lease = Lease::begin(self.objects(), Purpose::Collect, Roots::default(), pin::TTL).await?;
        let done = self.carry_out(plan, &lease, cancel).await;
        lease.release().await;
        done
    }

    async fn carry_out(&self, plan: &RepairPlan, lease: &Lease, cancel: &CancelToken) -> Result<RepairReport> {
        for found in watch::survey(self.objects(), &Clock::default(), false).await? {
            if found.body.purpose == Purpose::Collect && found.is_alive() && found.id() != lease.id() {
                return Err(Error::from(&found));
            }
        }
        let mut report = RepairReport::default();
        for step in &plan.steps {
            cancel.check()?;
            lease.check()?;
            match step {
                RepairStep::WriteSegment { packs } => self.write_segment(packs, &mut report).await?,
                RepairStep::Mark { chunks } => report.marked += damage::mark(self.objects(), chunks).await?,
                RepairStep::Quarantine { object, .. } => self.quarantine(&Key::parse(object)?, &mut report).await?,
            }
        }
        Ok(report)
    }

    /// Reads all segments.
    async fn segments(&self) -> Result<Segments> {
        let mut segments = Segments::default();
        let listed: Vec<_> = self.storage().list("index").try_collect().await?;
        for id in listed.iter().filter_map(|object| index::named::<SegmentId>(&object.key)) {
            match index::read_segment(self.objects(), id).await {
                Ok(packs) => segments.named.extend(packs.iter().map(|pack| (pack.id, pack.size, id))),
                Err(error) if error.is_damage() => segments.damaged.push((id, error.to_string())),
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(segments)
    }

    /// Returns steps for packs that are there, can be read, and are named by no segment that stays.
    async fn unnamed(&self, segments: &Segments) -> Result<Unnamed> {
        let mut sizes = BTreeMap::new();
        let mut listing = self.storage().list("packs");
        while let Some(object) = listing.try_next().await? {
            if let Some(id) = index::named::<PackId>(&object.key) {
                sizes.insert(id, object.size);
            }
        }
        drop(listing);
        let stale: HashSet<_> = segments
            .named
            .iter()
            .filter(|(pack, ..)| !sizes.contains_key(pack))
            .map(|(.., segment)| *segment)
            .collect();
        let kept: HashSet<_> = segments
            .named
            .iter()
            .filter(|(pack, size, segment)| !stale.contains(segment) && sizes.get(pack) == Some(size))
            .map(|(pack, ..)| *pack)
            .collect();
        let (mut unnamed, mut blind) = (Vec::new(), HashSet::new());
        for (id, size) in sizes.into_iter().filter(|(id, _)| !kept.contains(id)) {
            match pack::read_footer(self.storage(), id, size).await {
                Ok(pack) => match index::len_of(&pack) {
                    Some(len) => unnamed.push((id, size, len)),
                    // Its end says what it holds, each time that it is looked at.
                    None => tracing::warn!(pack = %id, "no segment of the index has room for what it holds"),
                },
                // A damaged end of a pack is told as such.
                Err(error) if error.is_damage() => drop(blind.insert(id)),
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let fitting = unnamed.chunk_by(index::by_len(index::ENOUGH, |&(.., len): &(_, _, usize)| len));
        let named = |packs: &[(PackId, u64, usize)]| packs.iter().map(|&(id, size, _)| (id, size)).collect();
        let steps = fitting.flat_map(|packs| packs.chunks(SEGMENT));
        let steps = steps.map(|packs| RepairStep::WriteSegment { packs: named(packs) }).collect();
        Ok(Unnamed { steps, blind })
    }

    async fn write_segment(&self, packs: &[(PackId, u64)], report: &mut RepairReport) -> Result<()> {
        let mut entries: Vec<PackEntries> = Vec::new();
        for &(id, size) in packs {
            match pack::read_footer(self.storage(), id, size).await {
                Ok(pack) => entries.push(pack),
                Err(error) if error.is_damage() || is_absent(&error) => report.skipped += 1,
                Err(error) => return Err(error),
            }
        }
        // A plan that is kept as JSON may say more than one segment holds.
        report.segments += index::write_segments(self.objects(), &entries).await?;
        Ok(())
    }

    /// Copies an object into quarantine, then removes it from where it was.
    async fn quarantine(&self, object: &Key, report: &mut RepairReport) -> Result<()> {
        let kept = Key::parse(&format!("{QUARANTINE}/{object}"))?;
        let bytes = match self.storage().get(object, pack::MAX_SIZE).await {
            Ok(bytes) => bytes,
            Err(StorageError { kind: StorageErrorKind::NotFound, .. }) => {
                report.skipped += 1;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        // One that is there already holds the same or an earlier state: the first one counts.
        match self.storage().put_new(&kept, vec![bytes]).await {
            Ok(()) | Err(StorageError { kind: StorageErrorKind::AlreadyExists, .. }) => {}
            Err(error) => return Err(error.into()),
        }
        match self.storage().delete(object).await {
            Ok(()) => report.quarantined.push(object.to_string()),
            Err(error) if error.kind == StorageErrorKind::PermissionDenied => report.refused.push(object.to_string()),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Packs that no segment names which stays.
struct Unnamed {
    /// How they come into the index.
    steps: Vec<RepairStep>,
    /// Those of which the ends are damaged.
    blind: HashSet<PackId>,
}

/// What the segments say.
#[derive(Default)]
struct Segments {
    /// Packs with the sizes that are stated, and the segments that name them.
    named: Vec<(PackId, u64, SegmentId)>,
    damaged: Vec<(SegmentId, String)>,
}

const QUARANTINE: &str = "quarantine";
/// Packs of one new segment.
const SEGMENT: usize = 64;
/// Chunks of one step.
const MARKED: usize = 10_000;
const TEXTS: usize = 100;
