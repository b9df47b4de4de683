//! The point that a backup builds on, and what is known of what came after it.

use super::{Backup, Since};
use crate::{
    error::{Error, Result},
    repository::{RecoveryPoint, Repository, VmId, restored::Marked},
    step::{Step, Steps},
};

impl Backup {
    pub(super) async fn find_base(
        &self,
        steps: &Steps,
        repository: &Repository,
        vm: &VmId,
    ) -> Result<Option<RecoveryPoint>> {
        steps.once(Step::FindBase, self.base(repository, vm)).await
    }

    /// Returns the point that incremental disks begin with.
    pub(super) async fn base(&self, repository: &Repository, vm: &VmId) -> Result<Option<RecoveryPoint>> {
        match &self.since {
            Since::Nothing => Ok(None),
            Since::Latest => repository.latest(vm).await,
            Since::Full => repository.latest_full(vm).await,
            Since::Point(point) => {
                let manifest = point.manifest();
                if point.repository().id() != repository.id() || manifest.vm.instance_uuid != *vm {
                    let what = format!("{} is not a point of {vm} in this repository", point.id());
                    return Err(Error::invalid(what));
                }
                // Opened again: the caller's may be of a copy elsewhere, whose pages and chunks need not be here.
                repository.point(point.id()).await.map(Some)
            }
        }
    }

    /// Returns what marks say that came after the base; without the base when that cannot be told. A backup that builds
    /// on nothing goes by those after the newest point: that tracking was found wrong is not forgotten by it.
    pub(super) async fn marked(
        &self,
        repository: &Repository,
        base: Option<RecoveryPoint>,
        newest: Option<&RecoveryPoint>,
    ) -> Result<(Option<RecoveryPoint>, Marked)> {
        if let Some(base) = base {
            let why = match repository.marked_since(base.id()).await {
                Ok(marked) => return Ok((Some(base), marked)),
                Err(error) if error.is_damage() => format!("a mark of a restore is damaged: {error}"),
                Err(Error::PointNotFound { point }) => format!("{point}, on which it was to build, was deleted"),
                Err(error) => return Err(error),
            };
            self.events.warn(format!("every disk is read in full: {why}"));
        }
        let Some(newest) = newest else { return Ok((None, Marked::default())) };
        match repository.marked_since(newest.id()).await {
            Ok(marked) => Ok((None, marked)),
            // All is read in full anyway.
            Err(error) if error.is_damage() || matches!(error, Error::PointNotFound { .. }) => {
                tracing::warn!(%error, "what was found of change tracking before is not known");
                Ok((None, Marked::default()))
            }
            Err(error) => Err(error),
        }
    }
}
