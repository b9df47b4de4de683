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
    /// Those who wait look again when they must be woken.
    changed: Notify,
    next_lane: AtomicU64,
}

struct State {
    limits: GovernorLimits,
    all: Bucket,
    /// Hosts that have a disk.
    hosts: HashMap<Arc<str>, (Bucket, usize)>,
    rounds: Rounds<Request>,
    in_flight: u64,
    next_request: u64,
}

struct Request {
    id: u64,
    host: Arc<str>,
    granted: oneshot::Sender<()>,
}

/// The requests of one disk.
pub(super) struct Lane {
    traffic: Arc<Traffic>,
    id: u64,
    host: Arc<str>,
}

/// Bytes that travel, until it is dropped.
pub(crate) struct Turn {
    traffic: Arc<Traffic>,
    bytes: u64,
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
        };
        Self { state: Mutex::new(state), changed: Notify::new(), next_lane: AtomicU64::new(0) }
    }

    pub(super) fn set_limits(&self, limits: GovernorLimits) {
        let now = Instant::now();
        let mut state = self.state();
        state.limits = limits;
        state.all.set_rate(limits.rate, now);
        state.hosts.values_mut().for_each(|(bucket, _)| bucket.set_rate(limits.rate_per_host, now));
        state.serve(now);
        drop(state);
        self.changed.notify_waiters();
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
        let (_, disks) = state.hosts.entry(Arc::clone(&host)).or_insert_with(|| (Bucket::new(rate, Instant::now()), 0));
        *disks += 1;
        drop(state);
        Lane { traffic: Arc::clone(this), id: this.next_lane.fetch_add(1, Ordering::Relaxed), host }
    }

    /// Looks for who is next; when to look again, if only time is missing.
    fn serve(&self) -> Option<Instant> {
        self.state().serve(Instant::now())
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
            let (hosts, mut soonest) = (&mut self.hosts, None);
            let next = self.rounds.next(|request| {
                let ready = hosts.get_mut(&request.host).and_then(|(bucket, _)| bucket.ready_at(now));
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
                if let Some((bucket, _)) = self.hosts.get_mut(&request.host) {
                    bucket.take(bytes);
                }
            }
        }
    }
}

impl Lane {
    /// Waits until `bytes` may travel. Dropping the future gives the turn up.
    pub(super) async fn turn(&self, bytes: u64) -> Turn {
        let (granted, mut turn) = oneshot::channel();
        let id = {
            let mut state = self.traffic.state();
            state.next_request += 1;
            let id = state.next_request;
            state.rounds.push(self.id, bytes, Request { id, host: Arc::clone(&self.host), granted });
            id
        };
        let mut waiting = Waiting { lane: self, id, bytes, done: false };
        loop {
            let mut changed = std::pin::pin!(self.traffic.changed.notified());
            // Before looking, so that no change in between is missed.
            changed.as_mut().enable();
            let again = self.traffic.serve();
            let sleep = async {
                match again {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // The sender goes only by being used.
                _ = &mut turn => break,
                () = &mut changed => {}
                () = sleep => {}
            }
        }
        waiting.done = true;
        Turn { traffic: Arc::clone(&self.traffic), bytes }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut state = self.traffic.state();
        if let Some((_, disks)) = state.hosts.get_mut(&self.host) {
            *disks -= 1;
            if *disks == 0 {
                state.hosts.remove(&self.host);
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.traffic.end(self.bytes);
    }
}

impl Traffic {
    fn end(&self, bytes: u64) {
        let mut state = self.state();
        state.in_flight -= bytes;
        let again = state.serve(Instant::now());
        drop(state);
        if again.is_some() {
            // Room is no longer what is missing, but time: somebody has to watch the clock.
            self.changed.notify_waiters();
        }
    }
}

/// A request that waits; dropped before its turn, it takes itself out of the lane.
struct Waiting<'a> {
    lane: &'a Lane,
    id: u64,
    bytes: u64,
    done: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let traffic = &self.lane.traffic;
        let removed = traffic.state().rounds.remove(self.lane.id, |request| request.id == self.id);
        if removed.is_some() {
            // It may have been the one that all others waited for.
            traffic.serve();
            traffic.changed.notify_waiters();
        } else {
            // Its turn had come, unseen.
            traffic.end(self.bytes);
        }
    }
}

/// What a lane earns in a round: a buffer of a session.
const QUANTUM: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn traffic(limits: GovernorLimits) -> Arc<Traffic> {
        Arc::new(Traffic::new(limits))
    }

    /// Runs `count` requests of `bytes` on a lane, `width` at a time, each of which takes `time`; when the last ended.
    async fn work(lane: Arc<Lane>, count: u64, bytes: u64, width: usize, time: Duration) -> Duration {
        let begun = Instant::now();
        let permits = Arc::new(tokio::sync::Semaphore::new(width));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..count {
            let permit = Arc::clone(&permits).acquire_owned().await.unwrap();
            let lane = Arc::clone(&lane);
            tasks.spawn(async move {
                let _turn = lane.turn(bytes).await;
                tokio::time::sleep(time).await;
                drop(permit);
            });
        }
        tasks.join_all().await;
        begun.elapsed()
    }

    fn lane(traffic: &Arc<Traffic>, host: &str) -> Arc<Lane> {
        Arc::new(Traffic::lane(traffic, host.into()))
    }

    #[tokio::test(start_paused = true)]
    async fn many_disks_together_keep_to_the_rate() {
        let traffic = traffic(GovernorLimits::default().rate(100 * MIB));
        let disks = (0..10).map(|n| work(lane(&traffic, &format!("h{}", n % 2)), 50, MIB, 8, Duration::from_millis(1)));
        let mut tasks: tokio::task::JoinSet<Duration> = disks.collect();
        let mut last = Duration::ZERO;
        while let Some(took) = tasks.join_next().await {
            last = last.max(took.unwrap());
        }
        // 500 MiB at 100 MiB/s; what the bucket holds and the last request come on top.
        assert!((4.9..=5.1).contains(&last.as_secs_f64()), "{last:?}");
        assert_eq!(traffic.usage(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_host_does_not_slow_another() {
        let traffic = traffic(GovernorLimits::default().rate_per_host(10 * MIB));
        let slow = tokio::spawn(work(lane(&traffic, "a"), 100, MIB, 64, Duration::ZERO));
        let fast = tokio::spawn(work(lane(&traffic, "b"), 10, MIB, 64, Duration::ZERO));
        assert!((0.8..=1.1).contains(&fast.await.unwrap().as_secs_f64()));
        assert!((9.8..=10.1).contains(&slow.await.unwrap().as_secs_f64()));
        assert!(traffic.state().hosts.is_empty(), "hosts without disks are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_with_one_request_is_not_starved_by_one_with_sixty_four() {
        let traffic = traffic(GovernorLimits::default().bytes_in_flight(4 * MIB));
        let greedy = tokio::spawn(work(lane(&traffic, "a"), 2000, MIB, 64, Duration::from_millis(10)));
        tokio::time::sleep(Duration::from_millis(100)).await;
        let modest = work(lane(&traffic, "a"), 50, MIB, 1, Duration::from_millis(10)).await;
        // Alone it would take 0.5 s; it waits for one of the four that are under way before each request.
        assert!(modest < Duration::from_millis(1600), "{modest:?}");
        greedy.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn never_is_more_under_way_than_may_be() {
        let traffic = traffic(GovernorLimits::default().bytes_in_flight(3 * MIB));
        let mut tasks: tokio::task::JoinSet<Duration> =
            (1..=5_u64).map(|n| work(lane(&traffic, "a"), 20, n * MIB / 2, 8, Duration::from_millis(n))).collect();
        let mut most = 0;
        while !tasks.is_empty() {
            most = most.max(traffic.usage().0);
            assert!(traffic.usage().0 <= 3 * MIB);
            while tasks.try_join_next().is_some() {}
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        assert!(most >= 2 * MIB, "{most}");
        // More than everything goes alone.
        let lane = lane(&traffic, "a");
        let huge = lane.turn(100 * MIB).await;
        assert!(tokio::time::timeout(Duration::from_secs(1), lane.turn(1)).await.is_err());
        drop(huge);
        lane.turn(1).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_can_be_changed_while_others_wait_for_it() {
        let traffic = traffic(GovernorLimits::default().rate(1));
        let lane = lane(&traffic, "a");
        drop(lane.turn(MIB).await); // A debt of twelve days.
        let waiting = tokio::spawn(async move { lane.turn(MIB).await.bytes });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!waiting.is_finished());
        traffic.set_limits(GovernorLimits::default());
        assert_eq!(waiting.await.unwrap(), MIB);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_takes_nothing_and_holds_up_nobody() {
        let traffic = traffic(GovernorLimits::default().bytes_in_flight(MIB));
        let lanes: Vec<_> = (0..3).map(|_| lane(&traffic, "a")).collect();
        let held = lanes[0].turn(MIB / 2).await;
        let large = {
            let lane = Arc::clone(&lanes[1]);
            tokio::spawn(async move { lane.turn(MIB).await.bytes })
        };
        tokio::task::yield_now().await;
        let small = {
            let lane = Arc::clone(&lanes[2]);
            tokio::spawn(async move { lane.turn(MIB / 2).await.bytes })
        };
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(traffic.usage(), (MIB / 2, 2));
        large.abort();
        assert_eq!(small.await.unwrap(), MIB / 2);
        drop(held);
        assert_eq!(traffic.usage(), (0, 0));
    }
}
