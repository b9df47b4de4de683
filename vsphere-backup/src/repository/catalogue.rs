//! Questions about what a repository holds.

use std::{
    collections::VecDeque,
    ops::Range,
    time::{Duration, SystemTime},
};

use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::error::{Error, Result};

use super::{Repository, id::PointId, id::VmId, point::RecoveryPoint};

/// A question for recovery points, from [`Repository::catalogue`].
///
/// ```no_run
/// # async fn example(repository: vsphere_backup::repository::Repository) -> vsphere_backup::Result<()> {
/// use futures_util::TryStreamExt;
/// use std::{pin::pin, time::{Duration, SystemTime}};
///
/// let week = SystemTime::now() - Duration::from_secs(7 * 86_400);
/// let catalogue = repository.catalogue().named("web").between(week..SystemTime::now());
/// let mut points = pin!(catalogue.points());
/// while let Some(point) = points.try_next().await? {
///     println!("{} {:?}", point.id(), point.manifest().consistency);
/// }
/// # Ok(())
/// # }
/// ```
///
/// Times are told by the points' names; of the rest, manifests are read, a few at a time. Memory is bounded by the number
/// of points of one machine, at 100 bytes each.
#[derive(Clone, Debug)]
#[must_use]
pub struct Catalogue {
    repository: Repository,
    vm: Option<VmId>,
    name: Option<String>,
    disk: Option<String>,
    time: Option<Range<SystemTime>>,
}

/// A name that a machine had, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NameSpan {
    /// The name.
    pub name: String,
    /// The first point in a row with it.
    pub first: PointId,
    /// The last one.
    pub last: PointId,
}

impl Repository {
    /// Asks for recovery points: all of them, unless more is said.
    pub fn catalogue(&self) -> Catalogue {
        Catalogue { repository: self.clone(), vm: None, name: None, disk: None, time: None }
    }
}

impl Catalogue {
    /// Only points of this machine.
    pub fn vm(mut self, vm: VmId) -> Self {
        self.vm = Some(vm);
        self
    }

    /// Only points of machines that had this name then.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Only points that hold a disk with this backing uuid, whichever machine it was attached to.
    pub fn disk(mut self, backing_uuid: impl Into<String>) -> Self {
        self.disk = Some(backing_uuid.into());
        self
    }

    /// Only points of this time.
    pub fn between(mut self, time: Range<SystemTime>) -> Self {
        self.time = Some(time);
        self
    }

    /// Returns the points: machine by machine, the oldest first. A damaged manifest is an error in its place, after
    /// which the stream goes on; one that goes away meanwhile is left out.
    pub fn points(&self) -> impl Stream<Item = Result<RecoveryPoint>> + Send + '_ {
        stream::once(self.machines())
            .map_ok(|machines| stream::iter(machines.into_iter().map(Ok::<VmId, Error>)))
            .try_flatten()
            .and_then(
                move |vm| async move { Ok(stream::iter(self.ids(&vm).await?.into_iter().map(Ok::<PointId, Error>))) },
            )
            .try_flatten()
            .map(move |id: Result<PointId>| async move { self.repository.point(&id?).await })
            .buffered(AHEAD)
            .filter(move |point| {
                let stays = match point {
                    Ok(point) => self.fits(point),
                    Err(error) => !matches!(error, Error::PointNotFound { .. }),
                };
                std::future::ready(stays)
            })
    }

    /// Returns the names that a machine had, in the order of its points.
    ///
    /// # Errors
    /// [`Error::Storage`]. Damaged manifests are passed over.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn names(&self, vm: &VmId) -> Result<Vec<NameSpan>> {
        let mut spans: Vec<NameSpan> = Vec::new();
        let of_vm = self.clone().vm(vm.clone());
        let mut points = std::pin::pin!(of_vm.points());
        while let Some(point) = points.next().await {
            let point = match point {
                Err(error) if error.is_damage() => continue,
                point => point?,
            };
            let name = &point.manifest().vm.name;
            match spans.last_mut() {
                Some(span) if span.name == *name => span.last = point.id().clone(),
                _ => spans.push(NameSpan { name: name.clone(), first: point.id().clone(), last: point.id().clone() }),
            }
        }
        Ok(spans)
    }

    async fn machines(&self) -> Result<VecDeque<VmId>> {
        match &self.vm {
            Some(vm) => Ok([vm.clone()].into()),
            None => Ok(self.repository.vms().await?.into_iter().collect()),
        }
    }

    async fn ids(&self, vm: &VmId) -> Result<Vec<PointId>> {
        let mut ids = self.repository.points(vm).await?;
        if let Some(time) = &self.time {
            ids.retain(|id| time.contains(&(SystemTime::UNIX_EPOCH + Duration::from_micros(id.micros()))));
        }
        Ok(ids)
    }

    fn fits(&self, point: &RecoveryPoint) -> bool {
        let manifest = point.manifest();
        let has = |uuid: &String| {
            let same = |own: &String| own.eq_ignore_ascii_case(uuid);
            manifest.disks.iter().any(|disk| disk.backing_uuid.as_ref().is_some_and(same))
        };
        self.name.as_ref().is_none_or(|name| manifest.vm.name == *name) && self.disk.as_ref().is_none_or(has)
    }
}

/// Manifests that are read at once.
const AHEAD: usize = 4;
