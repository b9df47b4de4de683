//! Pruning and collecting: cut at every operation, and in an encrypted repository whose keys rotate.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use vsphere_backup::{
    CancelToken, Clock,
    engine::MemoryDisk,
    repository::{
        CreateOptions, GcOptions, RecoveryPoint, Repository, Retention, VerifyLevel,
        storage::{Fault, Faulty, MemoryStorage, Storage},
    },
};

use crate::world::*;

const DAY: Duration = Duration::from_secs(25 * 3600);

async fn points(repository: &Repository, count: u64) -> Vec<RecoveryPoint> {
    let disk = MemoryDisk::new(noise(0, 4 * CHUNK));
    let mut points: Vec<RecoveryPoint> = Vec::new();
    for seed in 0..count {
        disk.edit(|bytes| bytes[..CHUNK as usize].copy_from_slice(&noise(seed + 1, CHUNK)));
        let area = if seed == 0 { 0..4 * CHUNK } else { 0..CHUNK };
        points.push(back_up(repository, &disk, &[area], points.last()).await.unwrap().0);
    }
    points
}

/// What point number `at` of those holds.
fn bytes(at: u64) -> Vec<u8> {
    let mut bytes = noise(0, 4 * CHUNK);
    bytes[..CHUNK as usize].copy_from_slice(&noise(at + 1, CHUNK));
    bytes
}

#[tokio::test]
async fn a_prune_that_is_cut_at_any_operation_is_ended_by_the_next_and_hurts_no_point() {
    let keep = Retention::keep().last(2);
    for fault in [Fault::Cut, Fault::CutAfter, Fault::LostAnswer] {
        for at in 1.. {
            let (clock, hand) = Clock::by_hand(SystemTime::now());
            let storage = Arc::new(MemoryStorage::with_clock(clock.clone()));
            let options = CreateOptions::default().chunk_size(CHUNK as u32);
            let repository = Repository::create(storage.clone(), options).await.unwrap();
            let all = points(&repository, 4).await;
            let faulty = Arc::new(Faulty::new(storage.clone(), at, fault));
            let cut = async {
                let repository = Repository::open(faulty.clone()).await?;
                repository.prune(None, &keep, false).await
            };
            let _ = cut.await;
            let reached = faulty.operations() >= at;
            // Whatever is listed restores; those to be kept are listed.
            let what = format!("{fault:?} at {at}");
            let fresh = open(storage.clone()).await.unwrap();
            let listed = fresh.points(&vm()).await.unwrap();
            assert!(all[2..].iter().all(|point| listed.contains(point.id())), "{what}");
            for (number, point) in (0..).zip(&all).filter(|(_, point)| listed.contains(point.id())) {
                assert!(content(&fresh.point(point.id()).await.unwrap()).await.unwrap() == bytes(number), "{what}");
            }
            // The next one ends it, and what is freed goes.
            fresh.prune(None, &keep, false).await.unwrap();
            for _ in 0..3 {
                hand.advance(DAY);
                let collector = open(storage.clone()).await.unwrap();
                collector.collect_garbage(&GcOptions::default().clock(clock.clone())).await.unwrap();
            }
            let fresh = open(storage.clone()).await.unwrap();
            assert_eq!(fresh.points(&vm()).await.unwrap().len(), 2, "{what}");
            let check = fresh.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
            assert!(check.is_sound() && check.stale_segments.is_empty(), "{what}: {check:?}");
            let statistics = fresh.statistics(&CancelToken::new()).await.unwrap();
            assert_eq!(statistics.total.distinct, 5 * CHUNK, "{what}");
            for prefix in ["deleted", "tombs", "leases"] {
                assert!(storage.keys().iter().all(|key| !key.is_below(prefix)), "{what}: {:?}", storage.keys());
            }
            if !reached {
                assert!(at > 8, "{at}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn an_encrypted_repository_is_collected_and_compacted_while_its_keys_rotate() {
    let (clock, hand) = Clock::by_hand(SystemTime::now());
    let storage = Arc::new(MemoryStorage::with_clock(clock.clone()));
    let options = CreateOptions::default().chunk_size(CHUNK as u32).encrypted(password("secret"));
    let repository = Repository::create(storage.clone(), options).await.unwrap();
    let all = points(&repository, 4).await;
    repository.keys().unwrap().rotate_data_key().await.unwrap();
    hand.advance(DAY);
    repository.prune(None, &Retention::keep().last(1), false).await.unwrap();
    let size = |prefix: &str| -> usize {
        let keys = storage.keys().into_iter().filter(|key| key.is_below(prefix));
        keys.map(|key| storage.object(&key).unwrap().len()).sum()
    };
    let before = size("packs");
    let mut compacted = 0;
    for run in 0..5 {
        hand.advance(DAY);
        let collector = open_with(storage.clone() as Arc<dyn Storage>, "secret").await.unwrap();
        // Even one chunk that is not needed is worth it.
        let options = GcOptions::default().clock(clock.clone()).compact_below(1.0);
        let report = collector.collect_garbage(&options).await.unwrap();
        compacted += report.compacted;
        assert_eq!(report.missing, 0, "run {run}");
        let point = collector.point(all[3].id()).await.unwrap();
        assert!(content(&point).await.unwrap() == bytes(3), "run {run}");
    }
    assert!(compacted > 0);
    assert!(size("packs") < before, "{} {before}", size("packs"));
    let fresh = open_with(storage.clone() as Arc<dyn Storage>, "secret").await.unwrap();
    assert!(fresh.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap().is_sound());
    let without = Repository::check_without_keys(storage, &CancelToken::new()).await.unwrap();
    assert!(without.is_sound(), "{without:?}");
}
