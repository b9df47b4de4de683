//! Deleting a recovery point: a record first, the manifest then, what it needed later and by somebody else.
//!
//! The record, `deleted/<vm>/<point name>`, names the roots of the point. Two things rest on it:
//!
//! - A hold and a deletion meet: a hold is made and then looks for the record, a deletion writes the record and then
//!   looks for holds.
//! - A collector that gathers what is reachable sees a point that vanishes under its eyes: not as a manifest any
//!   more, but as a record. So a reader or writer that pinned the point's roots shortly before is never overlooked,
//!   however the listings of leases, manifests and records fall in time. The argument is in [`gc`](super::gc).
//!
//! A record is removed only by a collector that found the manifest gone when it began.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};

use crate::{
    clock::Clock,
    error::{Error, Result},
};

use super::{
    Repository,
    envelope::Kind,
    id::PointId,
    lease::record::Roots,
    object::{is_absent, is_taken},
    point::RecoveryPoint,
    storage::Key,
};

/// The JSON of a record.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Deletion {
    point: PointId,
    roots: Roots,
}

impl RecoveryPoint {
    /// Deletes the point. What only it needed is freed by [`Repository::collect_garbage`].
    ///
    /// # Errors
    /// [`Error::Held`]; [`Error::Storage`], of kind `PermissionDenied` when the store keeps the object for now.
    ///
    /// # Cancel safety
    /// When dropped, the point is there or gone; where the deletion had begun, a later collection ends it.
    pub async fn delete(self) -> Result<()> {
        self.repository().delete_point(self.id(), Roots::of(self.manifest()), &Clock::default()).await
    }
}

impl Repository {
    /// Deletes a point unless it is held.
    pub(super) async fn delete_point(&self, point: &PointId, roots: Roots, clock: &Clock) -> Result<()> {
        self.may_delete(&point.key())?;
        let key = key(point);
        let body = serde_json::to_vec(&Deletion { point: point.clone(), roots });
        let body = Bytes::from(body.expect("a struct of plain fields is valid JSON"));
        let recorded = match self.objects().create(Kind::Deleted, &key, body).await {
            Ok(()) => true,
            // Of another deletion, which may have ended in the middle.
            Err(error) if is_taken(&error) => false,
            Err(error) => return Err(error),
        };
        if let Some(reason) = self.held(point, clock).await? {
            // Only who wrote the record takes it back: another deletion may rest on it.
            if recorded {
                self.storage().delete(&key).await?;
            }
            return Err(Error::Held { point: point.clone(), reason });
        }
        Ok(self.storage().delete(&point.key()).await?)
    }

    /// Tells whether a point's deletion has begun.
    pub(super) async fn is_being_deleted(&self, point: &PointId) -> Result<bool> {
        match self.objects().read(Kind::Deleted, &key(point)).await {
            Ok(_) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) if error.is_damage() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Lists the records.
    pub(super) async fn deletions(&self) -> Result<BTreeSet<PointId>> {
        let listed: Vec<_> = self.storage().list("deleted").try_collect().await?;
        let parse = |key: &Key| key.as_str().strip_prefix("deleted/").and_then(|id| PointId::parse(id).ok());
        Ok(listed.iter().filter_map(|object| parse(&object.key)).collect())
    }

    /// Returns the roots that a record names; none when it is gone.
    pub(super) async fn deletion_roots(&self, point: &PointId) -> Result<Roots> {
        let key = key(point);
        let body = match self.objects().read(Kind::Deleted, &key).await {
            Err(error) if is_absent(&error) => return Ok(Roots::default()),
            other => other?,
        };
        let deletion: Deletion = serde_json::from_slice(&body)
            .map_err(|error| Error::damaged(&key, format!("its content is not valid: {error}")))?;
        Ok(deletion.roots)
    }

    /// Ends deletions that were begun, and returns those whose manifests were gone already: they need nothing any more.
    /// Must come before roots are gathered. Without `end`, nothing is changed.
    pub(super) async fn finish_deletions(&self, clock: &Clock, end: bool) -> Result<BTreeSet<PointId>> {
        let records = self.deletions().await?;
        let mut over = BTreeSet::new();
        if records.is_empty() {
            return Ok(over);
        }
        let points: BTreeSet<_> = self.list_points("points").await?.into_iter().collect();
        for point in records {
            let done = if !points.contains(&point) {
                over.insert(point.clone());
                if end { self.storage().delete(&key(&point)).await } else { Ok(()) }
            } else if !end {
                Ok(())
            } else if self.held(&point, clock).await?.is_none() {
                // Its record stays until the next collection.
                self.storage().delete(&point.key()).await
            } else {
                Ok(())
            };
            if let Err(error) = done {
                tracing::warn!(%point, %error, "the deletion of a recovery point could not be ended");
            }
        }
        Ok(over)
    }
}

fn key(point: &PointId) -> Key {
    Key::of(&["deleted", point.vm().as_str(), point.name()])
}
