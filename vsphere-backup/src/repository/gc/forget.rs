//! Marks that no point needs any more.
//!
//! A mark ([`restored`](super::super::restored)) concerns points of its machine with older names only. It goes when it is
//! older than the grace, no such point is there, and none can appear:
//!
//! - *No older point appears later.* Names are given by time, behind all points and marks that are there. A writer that
//!   took its name before the mark was made holds a lease, or has ended and its point is listed (withheld or not), or its
//!   name is fenced. So marks are listed first, then leases, then points, and a machine with a writer keeps its marks.
//! - *A writer that slept for longer than the grace between its name and its lease* is not seen. It makes its snapshot
//!   after it has its lease: what it stores is what was restored, and what it builds on is looked for, as below.
//! - *A copy from another repository* may come later under an old name. It has no change ids, so nothing builds on it.
//! - *Nobody relies on an older point that is gone.* A backup or a restore may hold one that is deleted meanwhile: it looks
//!   for the point after it has read the marks, and reads or compares all when it is gone.
//!
//! A mark that is found idle stays so, for points do not appear: a collector that sleeps and deletes late does no harm,
//! nor do two, nor one that is killed. That change tracking of a disk was found wrong is forgotten with the last point
//! that could be built on; the next backup is a full one.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use futures_util::TryStreamExt;

use super::{
    super::{
        id::{PointId, VmId},
        restored,
    },
    Collection, Purpose, sweep, watch,
};
use crate::error::Result;

impl Collection<'_> {
    /// Deletes marks that nobody needs.
    pub(super) async fn forget_marks(&mut self) -> Result<()> {
        for mark in self.idle_marks().await? {
            self.check()?;
            let storage = self.repository.storage();
            let gone =
                self.is_dry() || sweep::delete_object(storage, &restored::key(&mark), &mut self.report.refused).await?;
            self.report.marks += u64::from(gone);
        }
        Ok(())
    }

    /// Returns the marks that no point needs and none that is being written will, by the rule above.
    async fn idle_marks(&self) -> Result<Vec<PointId>> {
        let mut marks: BTreeMap<VmId, Vec<PointId>> = BTreeMap::new();
        let mut listing = self.repository.storage().list("restored");
        while let Some(object) = listing.try_next().await? {
            let Some(mark) = restored::parse(&object.key) else { continue };
            // Some stores tell no times; a mark's name does.
            if self.is_old(object.modified.or_else(|| made(&mark))) {
                marks.entry(mark.vm().clone()).or_default().push(mark);
            }
        }
        let mut idle = Vec::new();
        if marks.is_empty() {
            return Ok(idle);
        }
        let writing = self.machines_with_a_writer().await?;
        for (vm, mut marks) in marks.into_iter().filter(|(vm, _)| !writing.contains(vm)) {
            let points = self.repository.list_points(&format!("points/{vm}")).await?;
            marks.retain(|mark| points.first().is_none_or(|oldest| oldest > mark));
            idle.append(&mut marks);
        }
        Ok(idle)
    }

    /// The dead count, too: they may live until they are fenced.
    async fn machines_with_a_writer(&self) -> Result<BTreeSet<VmId>> {
        let leases = watch::survey(self.repository.objects(), &self.options.clock, false).await?;
        let machine = |purpose| match purpose {
            Purpose::Write { point } => Some(point.vm().clone()),
            Purpose::Read { .. } | Purpose::Collect => None,
        };
        Ok(leases.into_iter().filter_map(|lease| machine(lease.body.purpose)).collect())
    }
}

/// Returns when a mark was made, by the clock of who made it.
fn made(mark: &PointId) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(mark.micros()))
}

#[cfg(test)]
mod tests;
