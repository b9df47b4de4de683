//! Turns of reads and writes: how much is under way, how fast, and who is next.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until},
};

use super::{bucket::Bucket, limits::GovernorLimits, rounds::Rounds};

/// What all lanes share.
pub(super) struct Traffic {
    state: Mutex<State>,
    /// Wakes one of those who wait: nobody watches the clock.
    unwatched: Notify,
    /// Wakes the one who watches the clock: something is due before.
    sooner: Notify,
    next_lane: AtomicU64,
    #[cfg(test)]
    looks: AtomicU64,
}

struct State {
    limits: GovernorLimits,
    all: Bucket,
    /// Those that have a disk.
    hosts: HashMap<Arc<str>, Host>,
    rounds: Rounds<Request>,
    in_flight: u64,
    next_request: u64,
    /// When the one who watches the clock for all looks again.
    watched_until: Option<Instant>,
}

struct Host {
    bucket: Bucket,
    disks: usize,
    /// Connections that are made for single requests.
    connections: u32,
}

struct Request {
    id: u64,
    host: Arc<str>,
    takes: Takes,
    granted: oneshot::Sender<()>,
}

/// The requests of one disk.
pub(super) struct Lane {
    traffic: Arc<Traffic>,
    id: u64,
    host: Arc<str>,
}

/// What a request takes beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing: the disk has a connection.
    Bytes,
    /// A connection of its own.
    Connection,
}

/// Bytes that travel, until it is dropped.
pub(crate) struct Turn {
    traffic: Arc<Traffic>,
    bytes: u64,
    /// The host with which it has a connection of its own.
    connection: Option<Arc<str>>,
}

impl Traffic {
    pub(super) fn new(limits: GovernorLimits) -> Self {
        let state = State {
            limits,
            all: Bucket::new(limits.rate, Instant::now()),
            hosts: HashMap::new(),
            rounds: Rounds::new(QUANTUM),
            in_flight: 0,
            next_request: 0,
            watched_until: None,
        };
        Self {
            state: Mutex::new(state),
            unwatched: Notify::new(),
            sooner: Notify::new(),
            next_lane: AtomicU64::new(0),
            #[cfg(test)]
            looks: AtomicU64::new(0),
        }
    }

    pub(super) fn set_limits(&self, limits: GovernorLimits) {
        let now = Instant::now();
        let mut state = self.state();
        state.limits = limits;
        state.all.set_rate(limits.rate, now);
        state.hosts.values_mut().for_each(|host| host.bucket.set_rate(limits.rate_per_host, now));
        let again = state.serve(now);
        self.have_watched(&state, again);
    }

    /// Bytes under way, and requests that wait.
    pub(super) fn usage(&self) -> (u64, usize) {
        let state = self.state();
        (state.in_flight, state.rounds.len())
    }

    /// A lane for a disk on `host`.
    pub(super) fn lane(this: &Arc<Self>, host: Arc<str>) -> Lane {
        let mut state = this.state();
        let rate = state.limits.rate_per_host;
        let new = || Host { bucket: Bucket::new(rate, Instant::now()), disks: 0, connections: 0 };
        state.hosts.entry(Arc::clone(&host)).or_insert_with(new).disks += 1;
        drop(state);
        Lane { traffic: Arc::clone(this), id: this.next_lane.fetch_add(1, Ordering::Relaxed), host }
    }

    /// Lets whoever is next begin.
    fn serve(&self, state: &mut State) {
        #[cfg(test)]
        self.looks.fetch_add(1, Ordering::Relaxed);
        let again = state.serve(Instant::now());
        self.have_watched(state, again);
    }

    /// Sees to it that somebody looks again when only time is missing. It is one of those who wait, not all of them.
    fn have_watched(&self, state: &State, again: Option<Instant>) {
        match (again, state.watched_until) {
            (Some(_), None) => self.unwatched.notify_one(),
            (Some(again), Some(until)) if again < until => self.sooner.notify_one(),
            _ => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn serve(&mut self, now: Instant) -> Option<Instant> {
        loop {
            if let Some(later) = self.all.ready_at(now) {
                return (self.rounds.len() > 0).then_some(later);
            }
            let (hosts, connections, mut soonest) = (&mut self.hosts, self.limits.connections_per_host.max(1), None);
            let next = self.rounds.next(|request| {
                let Some(host) = hosts.get_mut(&request.host) else { return true };
                if request.takes == Takes::Connection && host.connections >= connections {
                    return false; // The end of one of them is what it waits for.
                }
                let ready = host.bucket.ready_at(now);
                soonest = match (soonest, ready) {
                    (Some(old), Some(new)) => Some(std::cmp::min::<Instant>(old, new)),
                    (old, new) => old.or(new),
                };
                ready.is_none()
            });
            let Some((bytes, _)) = next else { return soonest };
            // The one whose turn it is waits for room; nobody smaller slips past it.
            if self.in_flight > 0 && self.in_flight.saturating_add(bytes) > self.limits.bytes_in_flight {
                return soonest;
            }
            let (bytes, request) = self.rounds.pop()?;
            // One that was given up takes nothing.
            if request.granted.send(()).is_ok() {
                self.in_flight += bytes;
                self.all.take(bytes);
                if let Some(host) = self.hosts.get_mut(&request.host) {
                    host.bucket.take(bytes);
                    host.connections += u32::from(request.takes == Takes::Connection);
                }
            }
        }
    }
}

impl Lane {
    /// Waits until `bytes` may travel. Dropping the future gives the turn up.
    pub(super) async fn turn(&self, bytes: u64, takes: Takes) -> Turn {
        let (granted, mut turn) = oneshot::channel();
        let id = {
            let mut state = self.traffic.state();
            state.next_request += 1;
            let id = state.next_request;
            state.rounds.push(self.id, bytes, Request { id, host: Arc::clone(&self.host), takes, granted });
            id
        };
        let connection = (takes == Takes::Connection).then(|| Arc::clone(&self.host));
        let mut waiting = Waiting { lane: self, id, turn: Some((bytes, connection)), watches: false };
        loop {
            match waiting.look() {
                Some(at) => tokio::select! {
                    biased;
                    // The sender goes only by being used.
                    _ = &mut turn => break,
                    () = self.traffic.sooner.notified() => {}
                    () = sleep_until(at) => {}
                },
                None => tokio::select! {
                    biased;
                    _ = &mut turn => break,
                    () = self.traffic.unwatched.notified() => {}
                },
            }
        }
        let (bytes, connection) = waiting.turn.take().unwrap_or_default();
        Turn { traffic: Arc::clone(&self.traffic), bytes, connection }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut state = self.traffic.state();
        if let Some(host) = state.hosts.get_mut(&self.host) {
            host.disks -= 1;
            if host.disks == 0 {
                state.hosts.remove(&self.host);
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.traffic.state();
        state.end(self.bytes, self.connection.as_ref());
        self.traffic.serve(&mut state);
    }
}

impl State {
    /// Takes back what a turn had.
    fn end(&mut self, bytes: u64, connection: Option<&Arc<str>>) {
        self.in_flight -= bytes;
        if let Some(host) = connection.and_then(|host| self.hosts.get_mut(host)) {
            host.connections = host.connections.saturating_sub(1);
        }
    }
}

/// A request that waits; dropped before its turn, it takes itself out of the lane.
struct Waiting<'a> {
    lane: &'a Lane,
    id: u64,
    /// What it gets; `None` when it has it.
    turn: Option<(u64, Option<Arc<str>>)>,
    /// It watches the clock for all.
    watches: bool,
}

impl Waiting<'_> {
    /// Looks for who is next; when to do so again, if nobody else does.
    fn look(&mut self) -> Option<Instant> {
        let traffic = &self.lane.traffic;
        let mut state = traffic.state();
        #[cfg(test)]
        traffic.looks.fetch_add(1, Ordering::Relaxed);
        let again = state.serve(Instant::now());
        if !self.watches && state.watched_until.is_some() {
            traffic.have_watched(&state, again);
            return None;
        }
        self.watches = again.is_some();
        state.watched_until = again;
        again
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let traffic = &self.lane.traffic;
        let mut state = traffic.state();
        if self.watches {
            state.watched_until = None;
        }
        if let Some((bytes, connection)) = self.turn.take() {
            if state.rounds.remove(self.lane.id, |request| request.id == self.id).is_none() {
                // Its turn had come, unseen.
                state.end(bytes, connection.as_ref());
            }
            // It may have been the one that all others waited for.
            traffic.serve(&mut state);
        } else if self.watches && state.rounds.len() > 0 {
            traffic.unwatched.notify_one();
        }
    }
}

/// What a lane earns in a round: a buffer of a session.
const QUANTUM: u64 = 1 << 20;

#[cfg(test)]
mod tests;
