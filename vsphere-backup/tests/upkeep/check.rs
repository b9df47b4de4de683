//! Checks in shares, at levels, interrupted, and beside the disk itself.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use vsphere_backup::{
    CancelToken, Error,
    engine::{Budget, LiveCheck, MemoryDisk, check_live},
    repository::{
        CheckCursor, CheckOptions, RecoveryPoint, Repository, VerifyLevel, WriterOptions,
        storage::{Key, MemoryStorage},
    },
};

use crate::{gate::Gate, world::*};

/// Some points, in many packs.
async fn stored() -> (Arc<MemoryStorage>, Vec<RecoveryPoint>) {
    let (storage, repository) = repository().await;
    let mut points = Vec::new();
    for seed in 0..12 {
        let disk = MemoryDisk::new(noise(seed, MIB));
        points.push(back_up(&repository, &disk, &[0..MIB], None).await.unwrap().0);
    }
    (storage, points)
}

fn keys(storage: &MemoryStorage, class: &str) -> Vec<Key> {
    storage.keys().into_iter().filter(|key| key.is_below(class)).collect()
}

fn flip(storage: &MemoryStorage, key: &Key, bit: usize) {
    let mut bytes = storage.object(key).unwrap().to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    storage.tamper(key, Some(bytes.into()));
}

#[tokio::test]
async fn ten_tenths_look_at_every_pack_and_point_once_and_find_what_one_whole_check_finds() {
    let (storage, points) = stored().await;
    let packs = keys(&storage, "packs");
    for pack in [&packs[1], &packs[packs.len() - 1]] {
        flip(&storage, pack, 8 * 5000);
    }
    let repository = open(storage.clone()).await.unwrap();
    let whole = repository.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
    assert!(whole.next.is_start());
    assert_eq!((whole.packs, whole.points.len(), whole.damage_count), (packs.len() as u64, points.len(), 2));

    let (mut cursor, mut seen, mut damage, mut named, mut hurt) = (CheckCursor::default(), 0, 0, 0, 0);
    for run in 0..10 {
        let repository = open(storage.clone()).await.unwrap();
        let options = CheckOptions::new(VerifyLevel::Full).share(0.1).from(cursor);
        let report = repository.check_with(&options).await.unwrap();
        assert!(report.packs < packs.len() as u64 / 2 + 2, "a share is not all: {report:?}");
        seen += report.packs;
        damage += report.damage_count;
        // Whoever needs what was found damaged is named, in whichever share it is.
        hurt += report.points.iter().filter(|point| !point.is_sound()).count();
        named += report.points.iter().filter(|point| point.is_sound()).count();
        // As it is kept from one night to the next.
        cursor = serde_json::from_str(&serde_json::to_string(&report.next).unwrap()).unwrap();
        assert_eq!(cursor.is_start(), run == 9);
    }
    assert_eq!((seen, damage), (packs.len() as u64, 2));
    assert_eq!(hurt, whole.points.iter().filter(|point| !point.is_sound()).count());
    assert!(hurt > 0 && named >= points.len() - hurt, "{hurt} {named}");
}

#[tokio::test]
async fn a_check_that_is_stopped_tells_where_to_go_on() {
    let (storage, points) = stored().await;
    let packs = keys(&storage, "packs").len() as u64;
    let (mut cursor, mut seen, mut named, mut runs) = (CheckCursor::default(), 0, 0, 0);
    loop {
        runs += 1;
        let repository = open(storage.clone()).await.unwrap();
        let token = CancelToken::new();
        let (at_work, calls) = (token.clone(), AtomicU64::new(0));
        let stop = move |_| {
            if calls.fetch_add(1, Ordering::Relaxed) == 2 {
                at_work.cancel_gracefully();
            }
        };
        let options = CheckOptions::new(VerifyLevel::Full).from(cursor).cancel(&token).on_progress(stop);
        let report = repository.check_with(&options).await.unwrap();
        assert!(report.is_sound());
        seen += report.packs;
        named += report.points.len();
        cursor = report.next;
        if cursor.is_start() {
            break;
        }
        assert!(runs < 100);
    }
    assert!(runs > 2);
    assert_eq!((seen, named), (packs, points.len()));
    let token = CancelToken::new();
    token.cancel();
    let repository = open(storage).await.unwrap();
    assert!(matches!(repository.check(VerifyLevel::Full, &token).await, Err(Error::Cancelled)));
}

#[tokio::test]
async fn each_level_finds_what_the_one_below_does_not() {
    let (storage, points) = stored().await;
    let none = CancelToken::new();
    let check = async |level| open(storage.clone()).await.unwrap().check(level, &none).await.unwrap();
    // A bit of a chunk: the pack is there, and ends as it should.
    let pack = keys(&storage, "packs")[0].clone();
    let good = storage.object(&pack).unwrap();
    flip(&storage, &pack, 8 * 3000);
    assert!(check(VerifyLevel::Structure).await.is_sound());
    for level in [VerifyLevel::Hash, VerifyLevel::Full] {
        let report = check(level).await;
        assert_eq!((report.damage_count, report.damaged_chunks.len()), (1, 1), "{level:?}: {report:?}");
        assert_eq!(report.points.iter().filter(|point| !point.is_sound()).count(), 1, "{level:?}");
        assert_eq!(report.points.len(), points.len());
    }
    let report = Repository::check_without_keys(storage.clone(), &none).await.unwrap();
    assert_eq!(report.damage_count, 1);
    storage.tamper(&pack, None);
    // What is missing only structure tells, and so every level that includes it.
    assert!(Repository::check_without_keys(storage.clone(), &none).await.unwrap().is_sound());
    let report = check(VerifyLevel::Structure).await;
    assert!(!report.is_sound() && report.stale_segments.len() == 1, "{report:?}");
    storage.tamper(&pack, Some(good));
    assert!(check(VerifyLevel::Full).await.is_sound());
}

#[tokio::test]
async fn points_that_share_pages_count_alike_and_a_shared_damage_is_told_of_each() {
    let (storage, repository) = repository().await;
    // More than a page of chunks, so that a leaf is shared that does not end the disk.
    let capacity = 4097 * CHUNK + 512;
    let mut content = vec![0; capacity as usize];
    content[..CHUNK as usize].copy_from_slice(&noise(1, CHUNK));
    content[5 * CHUNK as usize..6 * CHUNK as usize].copy_from_slice(&noise(2, CHUNK));
    let disk = MemoryDisk::new(content);
    let data = [0..6 * CHUNK, 4096 * CHUNK..capacity];
    let (first, _) = back_up(&repository, &disk, &data, None).await.unwrap();
    disk.edit(|bytes| bytes[4096 * CHUNK as usize..].fill(9));
    let (second, _) = back_up(&repository, &disk, &[4096 * CHUNK..capacity], Some(&first)).await.unwrap();
    let check =
        async || open(storage.clone()).await.unwrap().check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
    let sound = check().await;
    let alone = second.verify(VerifyLevel::Full, &CancelToken::new(), |_, _| {}).await.unwrap();
    assert!(sound.is_sound());
    assert_eq!((sound.points[1].chunks, sound.points[1].bytes), (alone.chunks, alone.bytes));
    assert_eq!((sound.points[0].chunks, sound.points[1].chunks), (2, 4));
    flip(&storage, &keys(&storage, "packs")[0], 8 * 200);
    flip(&storage, &keys(&storage, "packs")[1], 8 * 200);
    let report = check().await;
    let hurt: Vec<_> = report.points.iter().map(|point| !point.is_sound()).collect();
    assert_eq!(hurt, [true, true], "{report:?}");
}

#[tokio::test]
async fn a_pack_larger_than_what_is_in_memory_is_checked_to_the_last_byte() {
    let (storage, repository) = repository().await;
    let mut point = repository
        .begin(record(), vsphere_backup::repository::Consistency::Crash, WriterOptions::default())
        .await
        .unwrap();
    let disk = MemoryDisk::new(noise(3, 17 * MIB));
    let areas = futures_util::stream::iter([Ok(0..17 * MIB)]);
    let done = vsphere_backup::engine::DiskBackup::new(2000, &disk, point.writer()).run(areas).await.unwrap();
    point.add_disk(disk_record(&done)).unwrap();
    point.commit().await.unwrap();
    let pack = keys(&storage, "packs")[0].clone();
    let good = storage.object(&pack).unwrap();
    assert!(good.len() as u64 > 17 * MIB);
    let check = async |level| open(storage.clone()).await.unwrap().check(level, &CancelToken::new()).await.unwrap();
    assert!(check(VerifyLevel::Full).await.is_sound());
    // On both sides of each window's end, in the frame that lies across it, and at the end of all.
    let window = 8 << 20;
    for byte in [window - 1, window, window + 1, 2 * window - 1, 2 * window, good.len() - 1] {
        flip(&storage, &pack, byte * 8 + 5);
        for level in [VerifyLevel::Hash, VerifyLevel::Full] {
            let report = check(level).await;
            assert!(!report.is_sound(), "byte {byte} at {level:?}");
            assert_eq!(report.damaged_chunks.len(), usize::from(byte < good.len() - 1), "byte {byte} at {level:?}");
        }
        storage.tamper(&pack, Some(good.clone()));
    }
}

#[tokio::test]
async fn a_live_disk_shows_for_which_bytes_a_point_holds() {
    let (storage, repository) = repository().await;
    let disk = MemoryDisk::new(sample());
    let (point, _) = back_up(&repository, &disk, &[0..sample().len() as u64], None).await.unwrap();
    let reader = point.disk(2000).await.unwrap();
    let report = check_live(&reader, &disk, &LiveCheck::default()).await.unwrap();
    assert!(report.is_sound() && report.next.is_none(), "{report:?}");
    assert_eq!(report.range, 0..sample().len() as u64);

    // The disk went on, and a stored chunk is damaged.
    disk.edit(|bytes| bytes[2 * MIB as usize] ^= 1);
    flip(&storage, &keys(&storage, "packs")[0], 8 * (64 + 56 + 1000));
    let reader = open(storage).await.unwrap().point(point.id()).await.unwrap().disk(2000).await.unwrap();
    let (mut from, mut different, mut damaged, mut runs) = (Some(0), Vec::new(), 0, 0);
    while let Some(at) = from {
        let check = LiveCheck::default().from(at).share(0.25).budget(&Budget::new(1 << 20));
        let report = check_live(&reader, &disk, &check).await.unwrap();
        assert_eq!(report.range.start, at);
        different.extend(report.differences.iter().map(|difference| difference.range.clone()));
        damaged += report.damage.len();
        from = report.next;
        runs += 1;
    }
    assert_eq!(runs, 4);
    assert_eq!((different, damaged), (vec![2 * MIB..2 * MIB + CHUNK], 1));
    let small = MemoryDisk::new(vec![0; 512]);
    assert!(matches!(check_live(&reader, &small, &LiveCheck::default()).await, Err(Error::Invalid { .. })));
}

/// Stops a check before each of its operations in turn, and lets something happen then.
async fn stop_the_check_everywhere(meanwhile: impl AsyncFn(Arc<MemoryStorage>, Vec<RecoveryPoint>)) {
    for at in 0.. {
        let (storage, repository) = repository().await;
        let mut points = Vec::new();
        for seed in 0..2 {
            let disk = MemoryDisk::new(noise(seed, 2 * CHUNK));
            points.push(back_up(&repository, &disk, &[0..2 * CHUNK], None).await.unwrap().0);
        }
        let gate = Gate::new(storage.clone());
        let through = gate.clone();
        let checking = tokio::spawn(async move {
            let repository = open(through).await?;
            repository.check(VerifyLevel::Structure, &CancelToken::new()).await
        });
        let mut running = true;
        for _ in 0..at {
            running = running && gate.pass(1, &checking).await;
        }
        if !running {
            assert!(at > 20, "{at} operations");
            return;
        }
        meanwhile(storage, points).await;
        gate.open();
        let report = checking.await.unwrap().unwrap_or_else(|error| panic!("operation {at}: {error}"));
        assert!(report.is_sound() && report.stale_segments.is_empty(), "operation {at}: {report:?}");
    }
}

#[tokio::test]
async fn a_backup_beside_a_check_is_no_damage() {
    stop_the_check_everywhere(async |storage, _| {
        let repository = open(storage).await.unwrap();
        back_up(&repository, &MemoryDisk::new(noise(77, CHUNK)), &[0..CHUNK], None).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_deletion_beside_a_check_does_not_end_it() {
    stop_the_check_everywhere(async |_, mut points| points.remove(0).delete().await.unwrap()).await;
}
