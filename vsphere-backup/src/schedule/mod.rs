//! When machines begin: limits, fair turns, bandwidth by the time of day, and budgets that all jobs share.
//!
//! One [`Scheduler`] is given to every job of a process; clones share it. Jobs take turns; a machine that has to wait
//! because of what others use is passed over a bounded number of times, and then what it needs is kept for it. The machines
//! of a set wait together and begin at once.

mod demand;
mod queue;
mod window;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;
use vixdisklib::{Governor, GovernorLimits};

use self::queue::{JobId, Queue, Resource, Ticket};
pub use self::{
    demand::Demand,
    window::{Bandwidth, BandwidthTable},
};
use crate::{clock::Clock, engine::Budget};

/// How many machines may be backed up at once. A limit of 0 counts as 1.
///
/// A [set](crate::BackupSet) that has more machines than a limit allows begins when no other uses what is limited, and
/// nothing else uses it meanwhile: all its snapshots are there at once, and no more of them are read than may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct ScheduleLimits {
    /// By this process. Default: 8, so that their disks stay below the 52 connections of one vCenter.
    pub machines: u32,
    /// Through one vCenter. Default: 16.
    pub per_vcenter: u32,
    /// On one host. Default: 4.
    pub per_host: u32,
    /// With a snapshot on one datastore. Default: 4; each grows with what its guest writes.
    pub per_datastore: u32,
    /// A datastore that takes longer to answer gets no further snapshot until it takes less than four fifths of this.
    /// Default: no such limit.
    pub latency: Option<Duration>,
}

impl Default for ScheduleLimits {
    fn default() -> Self {
        Self { machines: 8, per_vcenter: 16, per_host: 4, per_datastore: 4, latency: None }
    }
}

impl ScheduleLimits {
    /// Sets how many machines this process backs up at once.
    pub fn machines(self, machines: u32) -> Self {
        Self { machines, ..self }
    }

    /// Sets how many through one vCenter.
    pub fn per_vcenter(self, per_vcenter: u32) -> Self {
        Self { per_vcenter, ..self }
    }

    /// Sets how many on one host.
    pub fn per_host(self, per_host: u32) -> Self {
        Self { per_host, ..self }
    }

    /// Sets how many with a snapshot on one datastore.
    pub fn per_datastore(self, per_datastore: u32) -> Self {
        Self { per_datastore, ..self }
    }

    /// Sets above which latency a datastore gets no further snapshot, see [`Scheduler::note_latency`].
    pub fn latency(self, latency: Duration) -> Self {
        Self { latency: Some(latency), ..self }
    }
}

/// Decides when machines begin, for all jobs that it is given to. Clones share it.
#[derive(Clone)]
pub struct Scheduler {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    governor: Governor,
    budget: Budget,
    clock: Clock,
}

struct State {
    queue: Queue,
    limits: ScheduleLimits,
    table: BandwidthTable,
    /// The governor's limits as the caller set them.
    traffic: GovernorLimits,
    waiting: HashMap<Ticket, oneshot::Sender<Admission>>,
    jobs: JobId,
}

impl Default for Scheduler {
    fn default() -> Self {
        Self::new(ScheduleLimits::default())
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (running, waiting) = self.counts();
        f.debug_struct("Scheduler").field("running", &running).field("waiting", &waiting).finish_non_exhaustive()
    }
}

impl Scheduler {
    /// Makes a scheduler with a governor of its own and 128 MiB of disks in memory.
    pub fn new(limits: ScheduleLimits) -> Self {
        Self::with(limits, Governor::default(), Budget::new(128 << 20), Clock::default())
    }

    /// Makes a scheduler out of parts that others may share too.
    pub fn with(limits: ScheduleLimits, governor: Governor, budget: Budget, clock: Clock) -> Self {
        let state = State {
            queue: Queue::new(limits),
            limits,
            table: BandwidthTable::new(),
            traffic: governor.limits(),
            waiting: HashMap::new(),
            jobs: 0,
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), governor, budget, clock }) }
    }

    /// Sets what bandwidth there is at which time: no limit by default.
    ///
    /// The table drives the rate of the scheduler's governor, and so all disks of all jobs together, while a job runs.
    #[must_use]
    pub fn bandwidth(self, table: BandwidthTable) -> Self {
        self.set_bandwidth(table);
        self
    }

    /// The same, later.
    pub fn set_bandwidth(&self, table: BandwidthTable) {
        self.lock().table = table;
        self.tick();
    }

    /// Changes the limits; what runs goes on.
    pub fn set_limits(&self, limits: ScheduleLimits) {
        let mut state = self.lock();
        state.limits = limits;
        state.queue.set_limits(limits);
        if limits.latency.is_none() {
            // Nobody measures any more what would let them go.
            state.queue.release_held();
        }
        drop(state);
        self.pump();
    }

    /// Returns the governor of all connections.
    pub fn governor(&self) -> &Governor {
        &self.shared.governor
    }

    /// Returns the budget of bytes of disks in memory.
    pub fn budget(&self) -> &Budget {
        &self.shared.budget
    }

    /// Returns how many machines run and how many wait.
    pub fn counts(&self) -> (usize, usize) {
        self.lock().queue.counts()
    }

    /// Takes note of how long a datastore takes to answer, measured by whoever can.
    pub fn note_latency(&self, vcenter: &str, datastore: &str, latency: Duration) {
        let mut state = self.lock();
        let Some(limit) = state.limits.latency else { return };
        let resource = Resource::Datastore(format!("{vcenter}/{datastore}").into());
        let is_held = state.queue.is_held(&resource);
        let hold = if is_held { latency >= limit * 4 / 5 } else { latency > limit };
        if hold != is_held {
            tracing::info!(datastore, ?latency, hold, "new snapshots of a datastore");
            state.queue.hold(resource, hold);
        }
        drop(state);
        self.pump();
    }

    /// Applies what holds at this time of day, and returns how long it holds.
    ///
    /// Jobs and sets that run call it; who uses [`admit`](Turns::admit) without them calls it from a timer.
    pub fn tick(&self) -> Duration {
        let now = self.shared.clock.now();
        let mut state = self.lock();
        let bandwidth = state.table.at(now);
        state.queue.set_closed(bandwidth == Bandwidth::Closed);
        let limits = match bandwidth {
            Bandwidth::Limited(rate) => state.traffic.rate(state.traffic.rate.map_or(rate, |own| own.min(rate))),
            _ => state.traffic,
        };
        let wait = state.table.until_change(now);
        drop(state);
        if self.shared.governor.limits() != limits {
            self.shared.governor.set_limits(limits);
        }
        self.pump();
        wait
    }

    /// Applies what the time of day demands, for as long as it is polled.
    pub(crate) async fn keep_time(&self) -> std::convert::Infallible {
        loop {
            let wait = self.tick().clamp(Duration::from_millis(10), LONGEST_TICK);
            tokio::time::sleep(wait).await;
        }
    }

    /// Registers a job, which then takes turns with the others.
    pub fn register(&self) -> Turns {
        let mut state = self.lock();
        state.jobs += 1;
        Turns { scheduler: self.clone(), job: state.jobs }
    }

    /// Lets begin whoever may.
    fn pump(&self) {
        loop {
            let mut state = self.lock();
            let Some(ticket) = state.queue.start() else { return };
            let waiting = state.waiting.remove(&ticket);
            drop(state);
            let admission = Admission { scheduler: self.clone(), ticket };
            // One whose caller went away is dropped, and so gives back what it got.
            if let Some(waiting) = waiting {
                drop(waiting.send(admission));
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job's place among those that take turns.
#[derive(Debug)]
pub struct Turns {
    scheduler: Scheduler,
    job: JobId,
}

impl Turns {
    /// Waits until a machine may begin.
    ///
    /// # Cancel safety
    /// Cancel safe: a dropped future gives its place up.
    pub async fn admit(&self, demand: &Demand) -> Admission {
        self.admit_all(std::slice::from_ref(demand)).await
    }

    /// Waits until all these machines may begin at once.
    ///
    /// # Cancel safety
    /// Cancel safe: a dropped future gives its place up.
    pub async fn admit_all(&self, demands: &[Demand]) -> Admission {
        let (send, receive) = oneshot::channel();
        let place = {
            let mut state = self.scheduler.lock();
            let ticket = state.queue.push_all(self.job, demands.iter().map(Demand::resources));
            state.waiting.insert(ticket, send);
            Place { scheduler: &self.scheduler, ticket }
        };
        self.scheduler.pump();
        let admission = receive.await.expect("only the place of a dropped future is taken away");
        std::mem::forget(place);
        admission
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.scheduler.lock().queue.forget(self.job);
    }
}

/// A place in the queue, given up when dropped.
struct Place<'a> {
    scheduler: &'a Scheduler,
    ticket: Ticket,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.scheduler.lock();
        state.waiting.remove(&self.ticket);
        // An admission on its way gives itself back.
        state.queue.end(self.ticket);
        drop(state);
        self.scheduler.pump();
    }
}

/// The right of a machine, or of several, to be backed up now, given back when dropped.
#[derive(Debug)]
#[must_use = "dropped, it lets the next one begin"]
pub struct Admission {
    scheduler: Scheduler,
    ticket: Ticket,
}

impl Admission {
    /// Returns how many of its machines may be read at once, where a limit is lower than their number.
    pub(crate) fn readers(&self) -> Option<usize> {
        self.scheduler.lock().queue.exceeded(self.ticket).map(|limit| limit as usize)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.scheduler.lock().queue.end(self.ticket);
        self.scheduler.pump();
    }
}

/// Clocks are set and computers sleep: the table is looked at this often at least.
const LONGEST_TICK: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use futures_util::FutureExt;

    use super::*;

    fn demand(datastore: &str) -> Demand {
        Demand { vcenter: "vc".into(), datastores: vec![datastore.into()], ..Default::default() }
    }

    #[tokio::test]
    async fn a_place_is_passed_on_when_it_is_given_back_or_given_up() {
        let scheduler = Scheduler::new(ScheduleLimits::default().per_datastore(1));
        let turns = scheduler.register();
        let (one, two) = (demand("a"), demand("b"));
        let first = turns.admit(&one).await;
        let _other = turns.admit(&two).await;
        let mut second = Box::pin(turns.admit(&one));
        let mut third = Box::pin(turns.admit(&one));
        assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
        assert_eq!(scheduler.counts(), (2, 2));
        drop(first);
        // It was let begin and goes away without having seen that.
        drop(second);
        let third = third.now_or_never().expect("the place is free");
        drop(third);
        assert_eq!(scheduler.counts(), (1, 0));
    }

    #[tokio::test]
    async fn the_table_opens_closes_and_sets_the_shared_rate() {
        let (clock, hand) = Clock::by_hand(SystemTime::UNIX_EPOCH);
        let governor = Governor::new(GovernorLimits::default().rate(100));
        let scheduler = Scheduler::with(ScheduleLimits::default(), governor.clone(), Budget::default(), clock);
        let table = BandwidthTable::new().window(0..7, 0..60, Bandwidth::Closed).unwrap();
        let table = table.window(0..7, 60..120, Bandwidth::Limited(10)).unwrap();
        let scheduler = scheduler.bandwidth(table);
        let turns = scheduler.register();
        let one = demand("a");
        let mut waits = Box::pin(turns.admit(&one));
        assert!(waits.as_mut().now_or_never().is_none());
        hand.advance(scheduler.tick());
        scheduler.tick();
        assert!(waits.now_or_never().is_some());
        assert_eq!(governor.limits().rate, Some(10));
        hand.advance(scheduler.tick());
        scheduler.tick();
        assert_eq!(governor.limits().rate, Some(100), "the caller's own limit again");
    }

    #[tokio::test]
    async fn a_slow_datastore_gets_no_snapshot_until_it_has_recovered() {
        let scheduler = Scheduler::new(ScheduleLimits::default().latency(Duration::from_millis(20)));
        let turns = scheduler.register();
        let one = demand("a");
        let note = |millis| scheduler.note_latency("vc", "a", Duration::from_millis(millis));
        note(21);
        let mut waits = Box::pin(turns.admit(&one));
        assert!(waits.as_mut().now_or_never().is_none());
        note(17);
        assert!(waits.as_mut().now_or_never().is_none());
        note(15);
        assert!(waits.now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_datastore_is_not_held_by_a_limit_that_is_gone() {
        let limits = ScheduleLimits::default();
        let scheduler = Scheduler::new(limits.latency(Duration::from_millis(20)));
        let turns = scheduler.register();
        let one = demand("a");
        scheduler.note_latency("vc", "a", Duration::from_millis(21));
        let mut waits = Box::pin(turns.admit(&one));
        assert!(waits.as_mut().now_or_never().is_none());
        scheduler.set_limits(limits);
        assert!(waits.now_or_never().is_some());
    }
}
