//! What a check found damaged is stored again by the next backup, and the damage goes with the garbage.

use std::time::{Duration, SystemTime};

use vsphere_backup::{
    CancelToken, Clock,
    engine::MemoryDisk,
    repository::{
        CheckOptions, CreateOptions, GcOptions, RecoveryPoint, Repository, VerifyLevel, storage::MemoryStorage,
    },
};

use crate::world::*;

struct World {
    storage: std::sync::Arc<MemoryStorage>,
    clock: Clock,
    hand: vsphere_backup::ClockHand,
    repository: Repository,
    point: RecoveryPoint,
}

/// A point of noise, and one chunk of it damaged.
async fn hurt(encrypted: bool) -> World {
    let (clock, hand) = Clock::by_hand(SystemTime::now());
    let storage = std::sync::Arc::new(MemoryStorage::with_clock(clock.clone()));
    let mut options = CreateOptions::default().chunk_size(CHUNK as u32);
    if encrypted {
        options = options.encrypted(password("secret"));
    }
    let repository = Repository::create(storage.clone(), options).await.unwrap();
    let disk = MemoryDisk::new(noise(1, MIB));
    let (point, _) = back_up(&repository, &disk, &[0..MIB], None).await.unwrap();
    let pack = storage.keys().into_iter().find(|key| key.is_below("packs")).unwrap();
    let mut bytes = storage.object(&pack).unwrap().to_vec();
    bytes[5 * CHUNK as usize] ^= 4;
    storage.tamper(&pack, Some(bytes.into()));
    World { storage, clock, hand, repository, point }
}

impl World {
    async fn open(&self) -> Repository {
        match self.repository.is_encrypted() {
            true => open_with(self.storage.clone(), "secret").await.unwrap(),
            false => open(self.storage.clone()).await.unwrap(),
        }
    }

    /// Backs up the same content in full; returns how many bytes were new.
    async fn back_up(&self, repository: &Repository) -> u64 {
        let disk = MemoryDisk::new(noise(1, MIB));
        back_up(repository, &disk, &[0..MIB], None).await.unwrap().1.bytes.new
    }

    async fn is_whole(&self) -> bool {
        let point = self.open().await.point(self.point.id()).await.unwrap();
        content(&point).await.is_ok_and(|bytes| bytes == noise(1, MIB))
    }
}

#[tokio::test]
async fn a_chunk_that_a_verification_found_damaged_is_stored_again_by_the_next_backup() {
    for encrypted in [false, true] {
        let world = hurt(encrypted).await;
        assert_eq!(world.back_up(&world.repository).await, 0, "nobody knows of the damage");
        assert!(!world.is_whole().await);
        let report = world.repository.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
        assert_eq!((report.damaged_chunks.len(), report.marked), (1, 0));
        assert_eq!(world.back_up(&world.repository).await, CHUNK);
        assert!(world.is_whole().await, "the older point is whole again too");
        // The damage is still there, and no point is hurt by it.
        let report = world.open().await.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
        assert_eq!(report.damage_count, 1);
        assert!(report.points.iter().all(|point| point.is_sound()), "{report:?}");
    }
}

#[tokio::test]
async fn a_verification_of_a_point_tells_the_next_backup_as_well() {
    let world = hurt(false).await;
    let point = world.repository.point(world.point.id()).await.unwrap();
    let report = point.verify(VerifyLevel::Full, &CancelToken::new(), |_, _| {}).await.unwrap();
    assert_eq!(report.damage_count, 1);
    assert_eq!(world.back_up(&world.repository).await, CHUNK);
    assert!(world.is_whole().await);
}

#[tokio::test]
async fn a_mark_tells_every_process_and_goes_with_the_damage() {
    for encrypted in [false, true] {
        let world = hurt(encrypted).await;
        let options = CheckOptions::new(VerifyLevel::Hash).mark(true);
        let report = world.open().await.check_with(&options).await.unwrap();
        assert_eq!((report.damaged_chunks.len(), report.marked), (1, 1));
        assert_eq!(world.open().await.check_with(&options).await.unwrap().marked, 0, "it is marked once");
        // A repository that was open all the time learns of it when the next point is begun.
        assert_eq!(world.back_up(&world.repository).await, CHUNK);
        assert_eq!(world.back_up(&world.open().await).await, 0, "once is enough");
        assert!(world.is_whole().await);

        // What is needed of the damaged pack moves, the pack goes, the mark goes.
        for run in 0..6 {
            world.hand.advance(Duration::from_secs(25 * 3600));
            let options = GcOptions::default().clock(world.clock.clone());
            let report = world.open().await.collect_garbage(&options).await.unwrap();
            assert_eq!(report.compacted, u64::from(run == 0), "{report:?}");
            assert!(world.is_whole().await, "run {run}");
        }
        let left: Vec<_> = world.storage.keys().into_iter().filter(|key| key.is_below("damage")).collect();
        assert_eq!(left, []);
        let report = world.open().await.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
        assert!(report.is_sound(), "{report:?}");
    }
}

#[tokio::test]
async fn damage_that_nothing_heals_is_neither_collected_nor_forgotten() {
    let world = hurt(false).await;
    world.open().await.check_with(&CheckOptions::new(VerifyLevel::Full).mark(true)).await.unwrap();
    let pack = world.storage.keys().into_iter().find(|key| key.is_below("packs")).unwrap();
    for _ in 0..4 {
        world.hand.advance(Duration::from_secs(25 * 3600));
        let options = GcOptions::default().clock(world.clock.clone());
        world.open().await.collect_garbage(&options).await.unwrap();
    }
    assert!(world.storage.object(&pack).is_some(), "what little is readable of it may be all that there is");
    let report = world.open().await.check(VerifyLevel::Structure, &CancelToken::new()).await.unwrap();
    assert_eq!(report.points[0].damage_count, 1, "{report:?}");
    // All but the damaged chunk can be read.
    let disk = world.open().await.point(world.point.id()).await.unwrap().disk(2000).await.unwrap();
    let sound = futures_util::future::join_all((0..16).map(|at| disk.read_at(at * CHUNK, CHUNK as usize))).await;
    assert_eq!(sound.iter().filter(|chunk| chunk.is_err()).count(), 1);
}
