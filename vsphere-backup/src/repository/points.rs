//! Listing, opening and beginning recovery points.

use std::collections::BTreeSet;

use futures_util::TryStreamExt;

use crate::error::{Error, Result};

use super::{
    Repository, WriterOptions,
    envelope::Kind,
    fence,
    id::{PointId, VmId},
    lease::{
        Lease,
        record::{Purpose, Roots},
    },
    manifest::{BackupMode, Consistency, Manifest, VmRecord},
    point::{PointWriter, RecoveryPoint},
    storage::{StorageError, StorageErrorKind},
};

impl Repository {
    /// Lists the virtual machines that have recovery points.
    ///
    /// # Errors
    /// [`Error::Storage`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn vms(&self) -> Result<BTreeSet<VmId>> {
        let withheld = self.withheld().await?;
        let points = self.list_points("points").await?;
        Ok(points.into_iter().filter(|id| !withheld.contains(id)).map(|id| id.vm().clone()).collect())
    }

    /// Lists the recovery points of a virtual machine, the oldest first.
    ///
    /// Only committed points are listed, by name; a point's content is checked when it is opened. Points of a set that is
    /// to be seen all or nothing are listed when the set is complete.
    ///
    /// # Errors
    /// [`Error::Storage`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn points(&self, vm: &VmId) -> Result<Vec<PointId>> {
        let withheld = self.withheld().await?;
        let mut points = self.list_points(&format!("points/{vm}")).await?;
        points.retain(|id| !withheld.contains(id));
        Ok(points)
    }

    pub(super) async fn list_points(&self, prefix: &str) -> Result<Vec<PointId>> {
        let mut found = Vec::new();
        let mut listing = self.storage().list(prefix);
        while let Some(object) = listing.try_next().await? {
            if object.size == fence::SIZE {
                continue;
            }
            let id = object.key.as_str().strip_prefix("points/").map(PointId::parse);
            match id {
                Some(Ok(id)) => found.push(id),
                _ => tracing::warn!(object = %object.key, "not a recovery point's name"),
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Opens a recovery point, having checked its manifest.
    ///
    /// # Errors
    /// [`Error::PointNotFound`], [`Error::Damaged`], [`Error::UnsupportedVersion`],
    /// [`Error::UnsupportedFeature`], [`Error::Storage`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn point(&self, id: &PointId) -> Result<RecoveryPoint> {
        let body = match self.objects().read(Kind::Point, &id.key()).await {
            Ok(body) => body,
            Err(Error::Storage(StorageError { kind: StorageErrorKind::NotFound, .. })) => {
                return Err(Error::PointNotFound { point: id.clone() });
            }
            Err(error) if error.is_damage() && fence::stands(self.storage(), id).await? => {
                return Err(Error::PointNotFound { point: id.clone() });
            }
            Err(error) => return Err(error),
        };
        let manifest = Manifest::decode(&body, id, self.id())?;
        Ok(RecoveryPoint::new(self.clone(), manifest))
    }

    /// Opens the newest recovery point of a virtual machine whose manifest is sound, if any.
    ///
    /// # Errors
    /// [`Error::Storage`]; [`Error::UnsupportedVersion`] and [`Error::UnsupportedFeature`] of the
    /// newest point.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn latest(&self, vm: &VmId) -> Result<Option<RecoveryPoint>> {
        self.newest(vm, |_| true).await
    }

    /// Opens the newest recovery point of a virtual machine whose manifest is sound and of which every disk was read in
    /// full, if any.
    ///
    /// # Errors
    /// As [`latest`](Self::latest).
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn latest_full(&self, vm: &VmId) -> Result<Option<RecoveryPoint>> {
        self.newest(vm, |point| point.disks().iter().all(|disk| disk.mode == BackupMode::Full)).await
    }

    pub(super) async fn newest(
        &self,
        vm: &VmId,
        suits: impl Fn(&RecoveryPoint) -> bool,
    ) -> Result<Option<RecoveryPoint>> {
        for id in self.points(vm).await?.iter().rev() {
            match self.point(id).await {
                Ok(point) if suits(&point) => return Ok(Some(point)),
                Ok(_) => {}
                Err(error) if error.is_damage() => {
                    tracing::warn!(point = %id, %error, "passed over a damaged recovery point");
                }
                Err(Error::PointNotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Begins a new recovery point of a virtual machine, which becomes visible when it is
    /// committed.
    ///
    /// Takes a lease for writing, which is renewed until the point is committed or dropped. A writer that does not
    /// renew it in time ([`WriterOptions::lease`]) may be declared dead, and then cannot commit.
    ///
    /// # Errors
    /// Those of loading the index: [`Error::Storage`], [`Error::UnsupportedVersion`].
    ///
    /// # Cancel safety
    /// When dropped, a lease may be left, which ends by its time to live.
    pub async fn begin(&self, vm: VmRecord, consistency: Consistency, options: WriterOptions) -> Result<PointWriter> {
        self.begin_for(None, vm, consistency, options).await
    }

    /// The same for a job on a server, which counts as alive with the writer.
    pub(crate) async fn begin_for(
        &self,
        job: Option<&str>,
        vm: VmRecord,
        consistency: Consistency,
        options: WriterOptions,
    ) -> Result<PointWriter> {
        // Others may have rotated keys.
        self.objects().refresh_keys().await?;
        let micros = self.next_micros(&vm.instance_uuid).await?;
        let id = PointId::new(vm.instance_uuid.clone(), micros)?;
        let purpose = Purpose::Write { point: id.clone() };
        let lease = Lease::begin_for(job, self.objects(), purpose, Roots::default(), options.lease).await?;
        // Again for each point: others write too, and what is gone must be stored again.
        if let Err(error) = self.refresh_index_to_write().await {
            lease.release().await;
            return Err(error);
        }
        Ok(PointWriter::new(self.clone(), id, vm, consistency, options, lease))
    }
}
