//! A repository opened to be read, or to be added to; statistics of what is in it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use vsphere_backup::{
    CancelToken, Clock, Error,
    engine::MemoryDisk,
    repository::{
        Access, CheckOptions, Fate, GcOptions, OpenOptions, Repository, Retention, VerifyLevel,
        keys::Unlock,
        storage::{MemoryStorage, ObjectLocked, Storage, StorageErrorKind},
    },
};

use crate::world::*;

fn is_refused(error: &Error) -> bool {
    matches!(error, Error::Storage(error) if error.kind == StorageErrorKind::PermissionDenied)
}

async fn stored() -> (Arc<MemoryStorage>, Repository) {
    let (storage, repository) = repository().await;
    for seed in 0..3 {
        let disk = MemoryDisk::new(noise(seed, MIB));
        back_up(&repository, &disk, &[0..MIB], None).await.unwrap();
    }
    (storage, repository)
}

#[tokio::test]
async fn read_only_restores_and_checks_and_changes_nothing() {
    let (storage, _) = stored().await;
    let before = storage.keys();
    let reader = OpenOptions::new().access(Access::ReadOnly).open(storage.clone()).await.unwrap();
    assert_eq!(reader.access(), Access::ReadOnly);
    let point = reader.latest(&vm()).await.unwrap().unwrap();
    assert!(content(&point).await.unwrap() == noise(2, MIB));
    assert!(reader.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap().is_sound());
    let disk = MemoryDisk::new(noise(9, MIB));
    assert!(is_refused(&back_up(&reader, &disk, &[0..MIB], None).await.unwrap_err()));
    assert!(is_refused(&point.pin().await.unwrap_err()));
    assert!(is_refused(&reader.collect_garbage(&GcOptions::default()).await.unwrap_err()));
    assert!(reader.collect_garbage(&GcOptions::default().dry_run(true)).await.unwrap().dry_run);
    assert!(is_refused(&point.delete().await.unwrap_err()));
    assert_eq!(storage.keys(), before);
}

#[tokio::test]
async fn append_only_takes_backups_and_deletes_nothing_not_even_later() {
    let (clock, hand) = Clock::by_hand(SystemTime::now());
    let storage = Arc::new(MemoryStorage::with_clock(clock.clone()));
    let options =
        vsphere_backup::repository::CreateOptions::default().chunk_size(CHUNK as u32).encrypted(password("secret"));
    Repository::create(storage.clone(), options).await.unwrap();
    let options = OpenOptions::new().access(Access::AppendOnly).unlock(Unlock::password("secret"));
    let adder = options.open(storage.clone()).await.unwrap();
    for seed in 0..3 {
        let disk = MemoryDisk::new(noise(seed, MIB));
        back_up(&adder, &disk, &[0..MIB], None).await.unwrap();
    }
    let report = adder.prune(None, &Retention::keep().last(1), false).await.unwrap();
    let refused = report.points.iter().filter(|point| matches!(point.fate, Fate::Refused(_))).count();
    assert_eq!((refused, report.deleted().count()), (2, 0));
    assert!(storage.keys().iter().all(|key| !key.is_below("deleted")), "no attempt that somebody else would end");
    assert!(is_refused(&adder.collect_garbage(&GcOptions::default()).await.unwrap_err()));

    // Whoever may do everything finds three points, and clears away the leases that could only be marked as ended.
    let owner = open_with(storage.clone(), "secret").await.unwrap();
    assert!(storage.keys().iter().any(|key| key.is_below("leases")));
    for _ in 0..3 {
        hand.advance(Duration::from_secs(25 * 3600));
        owner.collect_garbage(&GcOptions::default().clock(clock.clone())).await.unwrap();
    }
    assert!(storage.keys().iter().all(|key| !key.is_below("leases")), "{:?}", storage.keys());
    assert_eq!(owner.points(&vm()).await.unwrap().len(), 3);
    assert!(owner.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap().is_sound());
}

#[tokio::test]
async fn a_store_that_locks_objects_is_told_of_and_not_fought() {
    let (clock, hand) = Clock::by_hand(SystemTime::now());
    let inner = Arc::new(MemoryStorage::with_clock(clock.clone()));
    let locked: Arc<dyn Storage> =
        Arc::new(ObjectLocked::new(inner.clone(), Duration::from_secs(7 * 86_400), clock.clone()));
    let options = vsphere_backup::repository::CreateOptions::default().chunk_size(CHUNK as u32);
    let repository = Repository::create(locked, options).await.unwrap();
    for seed in 0..2 {
        let disk = MemoryDisk::new(noise(seed, MIB));
        back_up(&repository, &disk, &[0..MIB], None).await.unwrap();
    }
    let prune = async || repository.prune(None, &Retention::keep().last(1), false).await.unwrap();
    assert!(matches!(&prune().await.points[0].fate, Fate::Refused(why) if why.contains("locked")));
    assert_eq!(repository.points(&vm()).await.unwrap().len(), 2);
    // When the lock is over, what was asked for is done.
    hand.advance(Duration::from_secs(8 * 86_400));
    prune().await;
    assert_eq!(repository.points(&vm()).await.unwrap().len(), 1);
    for _ in 0..4 {
        hand.advance(Duration::from_secs(8 * 86_400));
        let report = repository.collect_garbage(&GcOptions::default().clock(clock.clone())).await.unwrap();
        assert!(report.refused.is_empty(), "{report:?}");
    }
    let check = repository.check_with(&CheckOptions::new(VerifyLevel::Full)).await.unwrap();
    assert!(check.is_sound() && check.stale_segments.is_empty(), "{check:?}");
    let point = repository.latest(&vm()).await.unwrap().unwrap();
    assert!(content(&point).await.unwrap() == noise(1, MIB));
}

#[tokio::test]
async fn statistics_tell_what_is_shared_and_what_a_deletion_frees() {
    let (storage, repository) = repository().await;
    let disk = MemoryDisk::new(noise(1, 16 * CHUNK));
    let all = [0..16 * CHUNK];
    let (first, _) = back_up(&repository, &disk, &all, None).await.unwrap();
    disk.edit(|bytes| bytes[..4 * CHUNK as usize].copy_from_slice(&noise(2, 4 * CHUNK)));
    let (second, _) = back_up(&repository, &disk, &[0..4 * CHUNK], Some(&first)).await.unwrap();
    let statistics = open(storage).await.unwrap().statistics(&CancelToken::new()).await.unwrap();
    let frame = CHUNK + 56;
    let volumes: Vec<_> = statistics.points.iter().map(|point| point.volume).collect();
    for (volume, point) in volumes.iter().zip([&first, &second]) {
        assert_eq!((volume.capacity, volume.data, volume.distinct), (16 * CHUNK, 16 * CHUNK, 16 * CHUNK));
        assert_eq!((volume.stored, volume.unique, volume.shared()), (16 * frame, 4 * frame, 12 * frame));
        assert!(statistics.points.iter().any(|other| other.point == *point.id()));
    }
    let machine = statistics.vms[&vm()];
    assert_eq!(machine, statistics.total);
    assert_eq!(
        (machine.data, machine.distinct, machine.stored, machine.unique),
        (32 * CHUNK, 20 * CHUNK, 20 * frame, 20 * frame)
    );
    assert_eq!(machine.deduplication(), 1.6);
    assert!((0.99..1.0).contains(&machine.compression()));
    assert!(statistics.packs > 20 * frame && statistics.pages > 0 && statistics.index > 0 && statistics.missing == 0);
    assert!(statistics.points[0].added > 16 * CHUNK && statistics.points[1].added < 5 * CHUNK);
    assert_eq!(statistics.growth_per_day(&vm()).is_some(), second.manifest().created > first.manifest().created);
}
