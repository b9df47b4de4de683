//! Pruning: retention applied to the points of machines.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use crate::{
    clock::Clock,
    error::{Error, Result, in_one_line},
};

use super::{
    Repository,
    id::{PointId, VmId},
    lease::record::Roots,
    point::RecoveryPoint,
    retention::{KeptBy, Retention},
};

/// What pruning did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PruneReport {
    /// Nothing was deleted: it was only asked what would be.
    pub dry_run: bool,
    /// Every point looked at, by machine and time.
    pub points: Vec<PrunedPoint>,
}

/// What became of one point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PrunedPoint {
    /// The point.
    pub point: PointId,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a point when its machine was pruned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Fate {
    /// Kept, by these rules.
    Kept(Vec<KeptBy>),
    /// No rule keeps it, but a hold does, for this reason.
    Held(String),
    /// No rule keeps it, but another point of its [set](RecoveryPoint::set) stays: this one.
    KeptWithSet(PointId),
    /// Its manifest cannot be read, so it counts for no rule; and it is left to whoever repairs or deletes it.
    Unreadable(String),
    /// Deleted, or to be deleted when this is a dry run.
    Deleted,
    /// To be deleted, but the storage did not do it.
    Refused(String),
}

impl PruneReport {
    /// Returns the points that were or would be deleted.
    pub fn deleted(&self) -> impl Iterator<Item = &PointId> {
        self.points.iter().filter(|pruned| pruned.fate == Fate::Deleted).map(|pruned| &pruned.point)
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept(rules) => {
                let rules: Vec<_> = rules.iter().map(KeptBy::to_string).collect();
                write!(f, "kept: {}", rules.join(", "))
            }
            Self::Held(reason) => write!(f, "held: {reason}"),
            Self::KeptWithSet(other) => write!(f, "kept: with its set, of which {other} stays"),
            Self::Unreadable(why) => write!(f, "left alone: {why}"),
            Self::Deleted => f.write_str("deleted"),
            Self::Refused(why) => write!(f, "not deleted: {why}"),
        }
    }
}

impl Repository {
    /// Deletes the points of a machine, or with `None` of all machines, that retention does not keep and nobody holds.
    ///
    /// As [`prune_machines`](Self::prune_machines) does it for one machine, or for all.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// When dropped, some points are deleted and some are not yet.
    pub async fn prune(&self, vm: Option<&VmId>, retention: &Retention, dry_run: bool) -> Result<PruneReport> {
        let machines = match vm {
            Some(vm) => [vm.clone()].into(),
            None => self.vms().await?,
        };
        self.prune_machines(&machines, retention, dry_run).await
    }

    /// Deletes the points of these machines that retention does not keep and nobody holds.
    ///
    /// The rules look at each machine by itself. The points of a [set](RecoveryPoint::set) are then kept or deleted
    /// together: they stay while one of them is kept or held, or is of a machine that this is not about.
    ///
    /// A point whose manifest is damaged counts for no rule, so that it does not stand in for a sound one, and is not
    /// deleted. A point counts for the day of its name, or for that on which it was made when its name had to be later:
    /// behind a point from a time when the clock was ahead. The newest point is the one that was made last, whatever the
    /// clock said. What the deleted points needed is freed by [`collect_garbage`](Self::collect_garbage). May run beside
    /// backups, restores and collections.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no rule, which would keep nothing; [`Error::Storage`] when points could not be
    /// listed or read. A deletion that fails is in the report.
    ///
    /// # Cancel safety
    /// When dropped, some points are deleted and some are not yet.
    pub async fn prune_machines(
        &self,
        vms: &BTreeSet<VmId>,
        retention: &Retention,
        dry_run: bool,
    ) -> Result<PruneReport> {
        if retention.is_empty() {
            return Err(Error::invalid("retention without a rule would keep nothing: state at least one"));
        }
        let clock = Clock::default();
        let mut judged = BTreeMap::new();
        for vm in vms {
            judged.extend(self.judge(vm, retention, &clock).await?);
        }
        let mut fellows =
            Fellows { repository: self, vms, judged: &judged, refused: BTreeSet::new(), others: BTreeMap::new() };
        let mut points = Vec::new();
        for (point, verdict) in &judged {
            let fate = match verdict {
                Verdict::Stays(fate) => fate.clone(),
                Verdict::Falls { roots, set } => match fellows.one_that_stays(set).await? {
                    Some(stays) => Fate::KeptWithSet(stays),
                    None if dry_run => Fate::Deleted,
                    None => match self.delete_point(point, roots.clone(), &clock).await {
                        Ok(()) => Fate::Deleted,
                        Err(error) => {
                            fellows.refused.insert(point);
                            match error {
                                Error::Held { reason, .. } => Fate::Held(reason),
                                error => Fate::Refused(in_one_line(&error)),
                            }
                        }
                    },
                },
            };
            points.push(PrunedPoint { point: point.clone(), fate });
        }
        Ok(PruneReport { dry_run, points })
    }

    /// Says of each point of a machine whether it stays by itself.
    async fn judge(&self, vm: &VmId, retention: &Retention, clock: &Clock) -> Result<Vec<(PointId, Verdict)>> {
        let read = async |id: PointId| match self.point(&id).await {
            Err(Error::PointNotFound { .. }) => Ok(None),
            Err(error) if error.is_damage() => Ok(Some((id, Err(in_one_line(&error))))),
            Err(error) => Err(error),
            Ok(point) => Ok(Some((id, Ok(point)))),
        };
        let found: Vec<Option<(PointId, Result<RecoveryPoint, String>)>> =
            stream::iter(self.points(vm).await?).map(read).buffered(PARALLEL).try_collect().await?;
        let found: Vec<_> = found.into_iter().flatten().collect();
        let sound: Vec<_> = found.iter().filter_map(|(_, point)| point.as_ref().ok()).map(made).collect();
        let mut verdicts = retention.verdicts_in_order(&sound).into_iter();
        let mut judged = Vec::new();
        for (id, point) in found {
            let verdict = match point {
                Err(why) => Verdict::Stays(Fate::Unreadable(why)),
                Ok(point) => {
                    let rules = verdicts.next().expect("one verdict for each sound point");
                    let held = if rules.is_empty() { self.held(&id, clock).await? } else { None };
                    match held {
                        _ if !rules.is_empty() => Verdict::Stays(Fate::Kept(rules)),
                        Some(reason) => Verdict::Stays(Fate::Held(reason)),
                        None => Verdict::Falls {
                            roots: Roots::of(point.manifest()),
                            set: point.set().map(|set| set.points.clone()).unwrap_or_default(),
                        },
                    }
                }
            };
            judged.push((id, verdict));
        }
        Ok(judged)
    }
}

/// What is to become of a point, looked at by itself.
enum Verdict {
    /// It stays, or cannot be judged.
    Stays(Fate),
    /// Nothing keeps it but perhaps a point of its set.
    Falls { roots: Roots, set: Vec<PointId> },
}

/// Where the other points of sets are looked up.
struct Fellows<'a> {
    repository: &'a Repository,
    vms: &'a BTreeSet<VmId>,
    judged: &'a BTreeMap<PointId, Verdict>,
    /// Points that were to be deleted and are there still.
    refused: BTreeSet<&'a PointId>,
    /// The points of other machines.
    others: BTreeMap<VmId, BTreeSet<PointId>>,
}

impl Fellows<'_> {
    /// Returns a point that stays. One that is gone does not, nor does one that cannot be read keep others.
    async fn one_that_stays(&mut self, points: &[PointId]) -> Result<Option<PointId>> {
        for point in points {
            let stays = match self.judged.get(point) {
                Some(Verdict::Stays(fate)) => !matches!(fate, Fate::Unreadable(_)),
                Some(Verdict::Falls { .. }) => self.refused.contains(point),
                None => !self.vms.contains(point.vm()) && self.points_of(point.vm()).await?.contains(point),
            };
            if stays {
                return Ok(Some(point.clone()));
            }
        }
        Ok(None)
    }

    async fn points_of(&mut self, vm: &VmId) -> Result<&BTreeSet<PointId>> {
        if !self.others.contains_key(vm) {
            self.others.insert(vm.clone(), self.repository.points(vm).await?.into_iter().collect());
        }
        Ok(&self.others[vm])
    }
}

/// Returns when a point was made, in microseconds since 1970. Names never go back, so that one from the future moves all
/// behind it there too.
fn made(point: &RecoveryPoint) -> u64 {
    point.id().micros().min(point.manifest().created.saturating_mul(1_000_000))
}

const PARALLEL: usize = 8;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::repository::{Consistency, Manifest, VmRecord, envelope::Kind, storage::MemoryStorage};

    const DAY: u64 = 86_400;

    /// Makes a point without disks, named by one time and made at another, in seconds since 1970.
    async fn point(repository: &Repository, named: u64, created: u64) -> PointId {
        let vm = VmId::parse("vm").unwrap();
        let id = PointId::new(vm.clone(), named * 1_000_000).unwrap();
        let record = VmRecord { instance_uuid: vm, mo_ref: String::new(), name: String::new() };
        let manifest = Manifest::new(id.clone(), repository.id(), record, created, Consistency::Crash);
        repository.objects().create(Kind::Point, &id.key(), manifest.encode().into()).await.unwrap();
        id
    }

    #[tokio::test]
    async fn a_point_from_the_future_does_not_make_one_day_of_all_behind_it() {
        let repository = Repository::create(Arc::new(MemoryStorage::new()), Default::default()).await.unwrap();
        let (now, future) = (1_790_000_000, 4_070_908_800);
        let mut points = Vec::new();
        for day in 0..3 {
            points.push(point(&repository, now + day * DAY, now + day * DAY).await);
        }
        // For one backup the clock was decades ahead; names never go back, so those behind it follow it.
        points.push(point(&repository, future, future).await);
        for day in 3..8 {
            points.push(point(&repository, future + day, now + day * DAY).await);
        }
        let deleted = async |rules: Retention| -> Vec<PointId> {
            repository.prune(None, &rules, true).await.unwrap().deleted().cloned().collect()
        };
        assert_eq!(deleted(Retention::keep().daily(7)).await, points[..2]);
        assert_eq!(deleted(Retention::keep().last(1)).await, points[..8], "the newest is the one made last");
    }
}
