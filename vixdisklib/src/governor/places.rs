//! Places for open disks: so many on a host, so many through a vCenter, within the memory of a host.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem::take,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::limits::GovernorLimits;

/// What a disk needs while it is open.
#[derive(Debug, Clone)]
pub(crate) struct Demand {
    /// The host; names are unique over all servers.
    pub(crate) host: Arc<str>,
    /// The vCenter that the way to the host goes through.
    pub(crate) vcenter: Option<Arc<str>>,
    /// Bytes of its session's buffers.
    pub(crate) memory: u64,
}

/// The places and those who wait for them.
pub(super) struct Places(Mutex<State>);

struct State {
    limits: GovernorLimits,
    hosts: HashMap<Arc<str>, Host>,
    vcenters: HashMap<Arc<str>, u32>,
    /// In the order of arrival.
    queue: VecDeque<Waiter>,
    next: u64,
}

#[derive(Default)]
struct Host {
    disks: u32,
    memory: u64,
}

struct Waiter {
    id: u64,
    demand: Demand,
    granted: oneshot::Sender<PlacePermit>,
}

/// A place; dropping it gives it up.
pub(super) struct PlacePermit {
    places: Arc<Places>,
    demand: Demand,
}

impl Places {
    pub(super) fn new(limits: GovernorLimits) -> Self {
        let queue = VecDeque::new();
        Self(Mutex::new(State { limits, hosts: HashMap::new(), vcenters: HashMap::new(), queue, next: 0 }))
    }

    pub(super) fn limits(&self) -> GovernorLimits {
        self.state().limits
    }

    pub(super) fn set_limits(self: &Arc<Self>, limits: GovernorLimits) {
        self.state().limits = limits;
        self.serve();
    }

    /// Disks with a place, and disks without.
    pub(super) fn usage(&self) -> (usize, usize) {
        let state = self.state();
        (state.hosts.values().map(|host| host.disks as usize).sum(), state.queue.len())
    }

    /// Waits for a place. Dropping the future leaves the queue.
    pub(super) async fn acquire(self: &Arc<Self>, demand: Demand) -> PlacePermit {
        let (granted, place) = oneshot::channel();
        let id = {
            let mut state = self.state();
            state.next += 1;
            let id = state.next;
            state.queue.push_back(Waiter { id, demand: demand.clone(), granted });
            id
        };
        let waiting = Waiting { places: self, id };
        self.serve();
        let place = place.await;
        drop(waiting);
        // A waiter leaves the queue by being served or by being dropped, and this one was not dropped.
        place.unwrap_or_else(|_| PlacePermit::take(self, demand))
    }

    /// Gives places to those who waited longest and fit.
    fn serve(self: &Arc<Self>) {
        let mut given_up = Vec::new();
        let mut state = self.state();
        let mut full = HashSet::new();
        for waiter in take(&mut state.queue) {
            // Nobody overtakes on his own host, so large demands are not starved by small ones.
            if full.contains(&waiter.demand.host) || !state.fits(&waiter.demand) {
                full.insert(Arc::clone(&waiter.demand.host));
                state.queue.push_back(waiter);
                continue;
            }
            state.charge(&waiter.demand);
            let permit = PlacePermit { places: Arc::clone(self), demand: waiter.demand };
            given_up.extend(waiter.granted.send(permit).err());
        }
        drop(state);
        // Outside the lock: this serves again.
        drop(given_up);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fits(&self, demand: &Demand) -> bool {
        let limits = &self.limits;
        let on_host = self.hosts.get(&demand.host).is_none_or(|host| {
            host.disks < limits.disks_per_host.max(1)
                && host.memory.saturating_add(demand.memory) <= limits.memory_per_host
        });
        let used = demand.vcenter.as_ref().and_then(|vcenter| self.vcenters.get(vcenter));
        on_host && used.is_none_or(|used| *used < limits.disks_per_vcenter.max(1))
    }

    fn charge(&mut self, demand: &Demand) {
        let host = self.hosts.entry(Arc::clone(&demand.host)).or_default();
        host.disks += 1;
        host.memory += demand.memory;
        if let Some(vcenter) = &demand.vcenter {
            *self.vcenters.entry(Arc::clone(vcenter)).or_default() += 1;
        }
    }

    /// Hosts and vCenters without disks are forgotten.
    fn release(&mut self, demand: &Demand) {
        if let Some(host) = self.hosts.get_mut(&demand.host) {
            host.disks -= 1;
            host.memory -= demand.memory;
            if host.disks == 0 {
                self.hosts.remove(&demand.host);
            }
        }
        if let Some(vcenter) = &demand.vcenter
            && let Some(used) = self.vcenters.get_mut(vcenter)
        {
            *used -= 1;
            if *used == 0 {
                self.vcenters.remove(vcenter);
            }
        }
    }
}

impl PlacePermit {
    fn take(places: &Arc<Places>, demand: Demand) -> Self {
        places.state().charge(&demand);
        Self { places: Arc::clone(places), demand }
    }
}

impl Drop for PlacePermit {
    fn drop(&mut self) {
        self.places.state().release(&self.demand);
        self.places.serve();
    }
}

/// Leaves the queue when its future is dropped: who is gone must hold up nobody.
struct Waiting<'a> {
    places: &'a Arc<Places>,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let left = {
            let mut state = self.places.state();
            let at = state.queue.iter().position(|waiter| waiter.id == self.id);
            at.and_then(|at| state.queue.remove(at))
        };
        if left.is_some() {
            self.places.serve();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::Pin, task::Poll};

    use super::*;

    fn demand(host: &str, memory: u64) -> Demand {
        Demand { host: host.into(), vcenter: Some("vc".into()), memory }
    }

    fn places(limits: GovernorLimits) -> Arc<Places> {
        Arc::new(Places::new(limits))
    }

    async fn poll<F: Future>(future: &mut Pin<Box<F>>) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            Poll::Ready(match future.as_mut().poll(context) {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test]
    async fn a_full_host_holds_up_its_own_disks_in_order_and_nobody_elses() {
        let places = places(GovernorLimits::default().disks(2, 100));
        let first = places.acquire(demand("a", 0)).await;
        let _second = places.acquire(demand("a", 0)).await;
        let mut third = Box::pin(places.acquire(demand("a", 0)));
        let mut fourth = Box::pin(places.acquire(demand("a", 0)));
        assert!(poll(&mut third).await.is_none() && poll(&mut fourth).await.is_none());
        let _other = places.acquire(demand("b", 0)).await;
        drop(first);
        assert!(poll(&mut fourth).await.is_none());
        assert!(poll(&mut third).await.is_some(), "first come, first served");
        assert_eq!(poll(&mut fourth).await.map(drop), Some(()), "its place is free again");
    }

    #[tokio::test]
    async fn a_large_demand_is_not_overtaken_by_small_ones() {
        let places = places(GovernorLimits::default().memory_per_host(10));
        let small = places.acquire(demand("a", 4)).await;
        let mut large = Box::pin(places.acquire(demand("a", 8)));
        let mut later = Box::pin(places.acquire(demand("a", 1)));
        assert!(poll(&mut large).await.is_none() && poll(&mut later).await.is_none());
        drop(small);
        assert!(poll(&mut large).await.is_some());
    }

    #[tokio::test]
    async fn more_than_everything_is_opened_alone() {
        let places = places(GovernorLimits::default().memory_per_host(10));
        let huge = places.acquire(demand("a", 1000)).await;
        let mut small = Box::pin(places.acquire(demand("a", 1)));
        assert!(poll(&mut small).await.is_none());
        drop(huge);
        assert!(poll(&mut small).await.is_some());
    }

    #[tokio::test]
    async fn who_gives_up_waiting_holds_up_nobody() {
        let places = places(GovernorLimits::default().memory_per_host(10));
        let _held = places.acquire(demand("a", 5)).await;
        let mut large = Box::pin(places.acquire(demand("a", 9)));
        let mut small = Box::pin(places.acquire(demand("a", 5)));
        assert!(poll(&mut large).await.is_none() && poll(&mut small).await.is_none());
        drop(large);
        assert!(poll(&mut small).await.is_some());
    }

    #[tokio::test]
    async fn a_place_that_was_granted_to_a_dropped_future_is_free_again() {
        let places = places(GovernorLimits::default().disks(1, 1));
        let held = places.acquire(demand("a", 1)).await;
        let mut waiting = Box::pin(places.acquire(demand("b", 1)));
        assert!(poll(&mut waiting).await.is_none(), "one through the vCenter");
        drop(held); // Grants it, unseen.
        drop(waiting);
        assert_eq!(places.usage(), (0, 0));
        assert!(places.state().vcenters.is_empty());
    }

    #[tokio::test]
    async fn wider_limits_let_in_who_waits() {
        let places = places(GovernorLimits::default().disks(1, 100));
        let _held = places.acquire(demand("a", 1)).await;
        let mut waiting = Box::pin(places.acquire(demand("a", 1)));
        assert!(poll(&mut waiting).await.is_none());
        places.set_limits(GovernorLimits::default());
        assert!(poll(&mut waiting).await.is_some());
    }
}
