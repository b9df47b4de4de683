//! Pins: what a reader needs stays, whatever is pruned and collected meanwhile.

use std::time::Duration;

use crate::error::Result;

use super::{
    lease::{
        Lease,
        record::{Purpose, Roots},
    },
    point::RecoveryPoint,
};

/// A promise that all a recovery point needs stays while this is held: a lease for reading, renewed by itself.
///
/// Dropping it gives the lease back in the background; [`release`](Self::release) waits for it.
#[derive(Debug)]
#[must_use = "the point is pinned for as long as this is held"]
pub struct Pin {
    lease: Lease,
}

impl Pin {
    /// Tells whether the pin still holds.
    ///
    /// # Errors
    /// [`Error::Fenced`](crate::Error::Fenced) when it could not be renewed in time: the computer slept, or the storage was away.
    pub fn check(&self) -> Result<()> {
        self.lease.check()
    }

    /// Gives the lease back.
    ///
    /// # Cancel safety
    /// When dropped, the lease ends by its time to live.
    pub async fn release(self) {
        self.lease.release().await;
    }
}

impl RecoveryPoint {
    /// Pins the point: what it needs is not collected while the pin is held, also when the point is deleted.
    ///
    /// A restore, a verification or instant access of a point that may be pruned meanwhile takes one.
    ///
    /// # Errors
    /// [`Error::PointNotFound`](crate::Error::PointNotFound) when the point was deleted before it was pinned;
    /// [`Error::Storage`](crate::Error::Storage).
    ///
    /// # Cancel safety
    /// When dropped, no pin is held; what was written ends by its time to live.
    pub async fn pin(&self) -> Result<Pin> {
        self.pin_for(None).await
    }

    /// The same for a job on a server, which counts as alive with the pin.
    pub(crate) async fn pin_for(&self, job: Option<&str>) -> Result<Pin> {
        let (repository, roots) = (self.repository(), Roots::of(self.manifest()));
        let purpose = Purpose::Read { points: vec![self.id().clone()] };
        let lease = Lease::begin_for(job, repository.objects(), purpose, roots, TTL).await?;
        // In this order: what exists behind the lease's creation is kept by it.
        match repository.point(self.id()).await {
            Ok(_) => Ok(Pin { lease }),
            // A damaged manifest is there, and this one was sound.
            Err(error) if error.is_damage() => Ok(Pin { lease }),
            Err(error) => {
                lease.release().await;
                Err(error)
            }
        }
    }
}

/// How long a lease holds without being renewed, by default.
pub(crate) const TTL: Duration = Duration::from_secs(15 * 60);
