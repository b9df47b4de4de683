//! What many disks share: limits of hosts and of vCenter, bandwidth, and turns.
//!
//! ```
//! use vixdisklib::{ConnectionOptions, Governor, GovernorLimits};
//!
//! let governor = Governor::new(GovernorLimits::default().rate(200 << 20)); // 200 MiB/s for everything
//! let options = ConnectionOptions::new().governor(governor.clone()); // one for all connections
//! governor.set_limits(GovernorLimits::default()); // the night has come
//! # let _ = options;
//! ```

mod bucket;
mod limits;
mod places;
mod rounds;
mod traffic;

use std::{fmt, sync::Arc, time::Duration};

use tokio::{runtime::Handle, time::sleep};

pub use self::limits::{GovernorLimits, GovernorUsage};
pub(crate) use self::{places::Demand as DiskDemand, traffic::Turn};
use self::{
    places::{PlacePermit, Places},
    traffic::{Lane, Takes, Traffic},
};

/// Keeps the disks of all connections that it is given to within limits. Cheap to clone; clones are the same governor.
///
/// A disk over NFC waits for a place before it is opened: hosts refuse what is above their limits, and a refusal may hit
/// somebody else's disk. Whoever came first is served first on each host; a host that is full holds up nobody on another
/// one. A disk that is closed gives its place back at once, one that is dropped half a second later, when the host will
/// have noticed.
///
/// A read or write waits for its turn: disks take turns by bytes, so one with many requests under way does not starve
/// another that has one, and together they keep to the rates.
///
/// | Transport | Places | Bytes under way, turns and rates |
/// |---|---|---|
/// | `nbdssl`, `nbd`, also by VMware's library | one for each disk | what is read and written |
/// | `https` | none, but [`connections_per_host`](GovernorLimits::connections_per_host) | the ranges that are asked for, tables and read-ahead included |
/// | `san`, `hotadd` | none | what is read and written |
/// | `file` | none | rates and turns alone; this machine counts as one host |
///
/// Disks that are made, removed or grown, and uploads, are not held back; a clone is by what its source is read over.
#[derive(Clone)]
pub struct Governor {
    places: Arc<Places>,
    traffic: Arc<Traffic>,
}

impl Governor {
    /// With limits, which can be changed later.
    pub fn new(limits: GovernorLimits) -> Self {
        Self { places: Arc::new(Places::new(limits)), traffic: Arc::new(Traffic::new(limits)) }
    }

    /// The limits that hold now.
    pub fn limits(&self) -> GovernorLimits {
        self.places.limits()
    }

    /// Changes the limits. What is open stays open and what is under way goes on; whoever waits is looked at anew.
    pub fn set_limits(&self, limits: GovernorLimits) {
        self.places.set_limits(limits);
        self.traffic.set_limits(limits);
    }

    /// What is in use now.
    pub fn usage(&self) -> GovernorUsage {
        let (disks, waiting_disks) = self.places.usage();
        let (bytes_in_flight, waiting_requests) = self.traffic.usage();
        GovernorUsage { disks, waiting_disks, bytes_in_flight, waiting_requests }
    }

    /// Waits for a place for a disk.
    ///
    /// # Cancel safety
    /// Cancel safe: a dropped future gives its place in the queue up.
    pub(crate) async fn admit(&self, demand: DiskDemand) -> Place {
        let host = Arc::clone(&demand.host);
        let permit = self.places.acquire(demand).await;
        Place { lane: Traffic::lane(&self.traffic, host), permit: Some(permit) }
    }

    /// A disk that takes turns with the others, but no place.
    pub(crate) fn share(&self, host: Arc<str>) -> Place {
        Place { lane: Traffic::lane(&self.traffic, host), permit: None }
    }
}

impl Default for Governor {
    fn default() -> Self {
        Self::new(GovernorLimits::default())
    }
}

impl fmt::Debug for Governor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Governor").field("limits", &self.limits()).field("usage", &self.usage()).finish()
    }
}

/// The place of an open disk.
///
/// [`Given back`](Self::give_back) when the host has said that the disk is closed. Dropped otherwise, it is kept for a
/// while: the host still counts a connection that only this side knows to be over.
pub(crate) struct Place {
    lane: Lane,
    permit: Option<PlacePermit>,
}

impl Place {
    /// Gives the place to whoever waits.
    pub(crate) fn give_back(mut self) {
        self.permit = None;
    }

    /// Waits until `bytes` of this disk may travel; they do until the turn is dropped.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn turn(&self, bytes: u64) -> Turn {
        self.lane.turn(bytes, Takes::Bytes).await
    }

    /// The same for a request that makes a connection.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn connection(&self, bytes: u64) -> Turn {
        self.lane.turn(bytes, Takes::Connection).await
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("is_counted", &self.permit.is_some()).finish_non_exhaustive()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                sleep(UNTIL_NOTICED).await;
                drop(permit);
            });
        }
    }
}

/// What a host takes, generously, to notice the end of a connection.
const UNTIL_NOTICED: Duration = Duration::from_millis(500);
