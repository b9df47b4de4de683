//! Turns by a clock of the tests' own.

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
            let _turn = lane.turn(bytes, Takes::Bytes).await;
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
    let huge = lane.turn(100 * MIB, Takes::Bytes).await;
    assert!(tokio::time::timeout(Duration::from_secs(1), lane.turn(1, Takes::Bytes)).await.is_err());
    drop(huge);
    lane.turn(1, Takes::Bytes).await;
}

#[tokio::test(start_paused = true)]
async fn requests_with_connections_are_bounded_by_their_host_and_hold_up_nobody_else() {
    let traffic = traffic(GovernorLimits::default().connections_per_host(2));
    let (a, b) = (lane(&traffic, "a"), lane(&traffic, "b"));
    let one = a.turn(1, Takes::Connection).await;
    let _two = a.turn(1, Takes::Connection).await;
    let third = {
        let lane = Arc::clone(&a);
        tokio::spawn(async move { drop(lane.turn(1, Takes::Connection).await) })
    };
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!third.is_finished());
    // Given up, and another host.
    assert!(tokio::time::timeout(Duration::from_secs(1), a.turn(1, Takes::Connection)).await.is_err());
    b.turn(1, Takes::Connection).await;
    lane(&traffic, "a").turn(1, Takes::Bytes).await;
    drop(one);
    third.await.unwrap();
    assert_eq!(traffic.usage(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn waiting_costs_no_more_the_more_wait() {
    let traffic = traffic(GovernorLimits::default().rate(1000 * MIB));
    let disks: Vec<_> = (0..50).map(|_| lane(&traffic, "a")).collect();
    let begun = std::time::Instant::now();
    let work = disks.iter().map(|disk| work(Arc::clone(disk), 200, MIB, 64, Duration::from_millis(1)));
    futures_util::future::join_all(work).await;
    let looks = traffic.looks.load(Ordering::Relaxed);
    assert!(looks < 10 * 50 * 200, "{looks} looks for 10000 requests, {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_rate_can_be_changed_while_others_wait_for_it() {
    let traffic = traffic(GovernorLimits::default().rate(1));
    let lane = lane(&traffic, "a");
    drop(lane.turn(MIB, Takes::Bytes).await); // A debt of twelve days.
    let waiting = tokio::spawn(async move { lane.turn(MIB, Takes::Bytes).await.bytes });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!waiting.is_finished());
    traffic.set_limits(GovernorLimits::default());
    assert_eq!(waiting.await.unwrap(), MIB);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_takes_nothing_and_holds_up_nobody() {
    let traffic = traffic(GovernorLimits::default().bytes_in_flight(MIB));
    let lanes: Vec<_> = (0..3).map(|_| lane(&traffic, "a")).collect();
    let held = lanes[0].turn(MIB / 2, Takes::Bytes).await;
    let large = {
        let lane = Arc::clone(&lanes[1]);
        tokio::spawn(async move { lane.turn(MIB, Takes::Bytes).await.bytes })
    };
    tokio::task::yield_now().await;
    let small = {
        let lane = Arc::clone(&lanes[2]);
        tokio::spawn(async move { lane.turn(MIB / 2, Takes::Bytes).await.bytes })
    };
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(traffic.usage(), (MIB / 2, 2));
    large.abort();
    assert_eq!(small.await.unwrap(), MIB / 2);
    drop(held);
    assert_eq!(traffic.usage(), (0, 0));
}
