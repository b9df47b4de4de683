//! Pruning: retention applied to the points of machines.

use std::fmt;

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
            Self::Unreadable(why) => write!(f, "left alone: {why}"),
            Self::Deleted => f.write_str("deleted"),
            Self::Refused(why) => write!(f, "not deleted: {why}"),
        }
    }
}

impl Repository {
    /// Deletes the points of a machine, or with `None` of all machines, that retention does not keep and nobody holds.
    ///
    /// Each machine is looked at by itself. A point whose manifest is damaged counts for no rule, so that it does not
    /// stand in for a sound one, and is not deleted. What the deleted points needed is freed by
    /// [`collect_garbage`](Self::collect_garbage). May run beside backups, restores and collections.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no rule, which would keep nothing; [`Error::Storage`] when points could not be
    /// listed or read. A deletion that fails is in the report.
    ///
    /// # Cancel safety
    /// When dropped, some points are deleted and some are not yet.
    pub async fn prune(&self, vm: Option<&VmId>, retention: &Retention, dry_run: bool) -> Result<PruneReport> {
        if retention.is_empty() {
            return Err(Error::invalid("retention without a rule would keep nothing: state at least one"));
        }
        let machines = match vm {
            Some(vm) => vec![vm.clone()],
            None => self.vms().await?.into_iter().collect(),
        };
        let mut report = PruneReport { dry_run, points: Vec::new() };
        for vm in machines {
            report.points.extend(self.prune_machine(&vm, retention, dry_run).await?);
        }
        Ok(report)
    }

    async fn prune_machine(&self, vm: &VmId, retention: &Retention, dry_run: bool) -> Result<Vec<PrunedPoint>> {
        let read = async |id: PointId| match self.point(&id).await {
            Err(Error::PointNotFound { .. }) => Ok(None),
            Err(error) if error.is_damage() => Ok(Some((id, Err(in_one_line(&error))))),
            Err(error) => Err(error),
            Ok(point) => Ok(Some((id, Ok(point)))),
        };
        let found: Vec<Option<(PointId, Result<RecoveryPoint, String>)>> =
            stream::iter(self.points(vm).await?).map(read).buffered(PARALLEL).try_collect().await?;
        let found: Vec<_> = found.into_iter().flatten().collect();
        let sound: Vec<_> = found.iter().filter(|(_, point)| point.is_ok()).map(|(id, _)| id.micros()).collect();
        let mut verdicts = retention.verdicts(&sound).into_iter();
        let mut pruned = Vec::new();
        for (id, point) in found {
            let fate = match point {
                Err(why) => Fate::Unreadable(why),
                Ok(point) => {
                    let rules = verdicts.next().expect("one verdict for each sound point");
                    if rules.is_empty() { self.prune_point(&point, dry_run).await? } else { Fate::Kept(rules) }
                }
            };
            pruned.push(PrunedPoint { point: id, fate });
        }
        Ok(pruned)
    }

    async fn prune_point(&self, point: &RecoveryPoint, dry_run: bool) -> Result<Fate> {
        let clock = Clock::default();
        if dry_run {
            return Ok(self.held(point.id(), &clock).await?.map_or(Fate::Deleted, Fate::Held));
        }
        Ok(match self.delete_point(point.id(), Roots::of(point.manifest()), &clock).await {
            Ok(()) => Fate::Deleted,
            Err(Error::Held { reason, .. }) => Fate::Held(reason),
            Err(error) => Fate::Refused(in_one_line(&error)),
        })
    }
}

const PARALLEL: usize = 8;
