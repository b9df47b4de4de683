//! A repair is planned, read, and carried out; nothing is lost by it, and what cannot be repaired is named.

use std::sync::Arc;

use vsphere_backup::{
    CancelToken, Error,
    engine::MemoryDisk,
    repository::{
        Access, OpenOptions, RecoveryPoint, RepairPlan, RepairStep, Repository, VerifyLevel,
        storage::{Key, MemoryStorage},
    },
};

use crate::world::*;

async fn stored() -> (Arc<MemoryStorage>, Repository, Vec<RecoveryPoint>) {
    let (storage, repository) = repository().await;
    let mut points = Vec::new();
    for seed in 0..3 {
        let disk = MemoryDisk::new(noise(seed, MIB));
        points.push(back_up(&repository, &disk, &[0..MIB], None).await.unwrap().0);
    }
    (storage, repository, points)
}

fn keys(storage: &MemoryStorage, class: &str) -> Vec<Key> {
    storage.keys().into_iter().filter(|key| key.is_below(class)).collect()
}

fn flip(storage: &MemoryStorage, key: &Key, byte: usize) {
    let mut bytes = storage.object(key).unwrap().to_vec();
    bytes[byte] ^= 1;
    storage.tamper(key, Some(bytes.into()));
}

async fn plan(storage: &Arc<MemoryStorage>) -> RepairPlan {
    open(storage.clone()).await.unwrap().plan_repair(VerifyLevel::Full, &CancelToken::new()).await.unwrap()
}

#[tokio::test]
async fn a_sound_repository_needs_nothing() {
    let (storage, ..) = stored().await;
    let before = storage.keys();
    let plan = plan(&storage).await;
    assert!(plan.is_empty(), "{plan}");
    assert_eq!(storage.keys(), before);
}

#[tokio::test]
async fn lost_and_damaged_segments_are_written_anew_and_the_old_ones_kept_aside() {
    let (storage, _, points) = stored().await;
    let segments = keys(&storage, "index");
    assert_eq!(segments.len(), 3);
    storage.tamper(&segments[0], None);
    flip(&storage, &segments[1], 100);
    let damaged = storage.object(&segments[1]).unwrap();
    let plan = plan(&storage).await;
    // As a person reads it, and as it is kept until somebody agrees.
    let text = plan.to_string();
    assert!(text.contains("write a segment") && text.contains("into quarantine: index/"), "{text}");
    assert!(plan.hurt.is_empty() && plan.lost.is_empty(), "no data is lost: {text}");
    let plan: RepairPlan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
    let repository = open(storage.clone()).await.unwrap();
    let done = repository.repair(&plan, &CancelToken::new()).await.unwrap();
    assert_eq!((done.segments, done.quarantined.len(), done.skipped), (1, 1, 0), "{done:?}");
    let aside = Key::parse(&format!("quarantine/{}", segments[1])).unwrap();
    assert_eq!(storage.object(&aside).unwrap(), damaged);
    assert_eq!(keys(&storage, "index").len(), 2);
    assert!(keys(&storage, "leases").is_empty());

    let fresh = open(storage.clone()).await.unwrap();
    assert!(fresh.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap().is_sound());
    assert!(self::plan(&storage).await.is_empty());
    for (seed, point) in (0..).zip(&points) {
        assert!(content(&fresh.point(point.id()).await.unwrap()).await.unwrap() == noise(seed, MIB));
    }
    // A plan that was carried out before finds nothing to do.
    let again = repository.repair(&plan, &CancelToken::new()).await.unwrap();
    assert_eq!(again.skipped, 1, "{again:?}");
    assert!(fresh.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap().is_sound());
}

#[tokio::test]
async fn points_that_need_what_is_damaged_are_named_and_healed_by_a_backup() {
    let (storage, _, points) = stored().await;
    for key in keys(&storage, "packs") {
        let bytes = storage.object(&key).unwrap();
        // The pack of the first chunk of the first disk.
        if bytes.windows(64).any(|window| window == &noise(0, 64)[..]) {
            flip(&storage, &key, 1000);
        }
    }
    let plan = plan(&storage).await;
    assert!(matches!(&plan.steps[..], [RepairStep::Mark { chunks }] if chunks.len() == 1), "{plan}");
    assert_eq!(plan.hurt.keys().collect::<Vec<_>>(), [points[0].id()]);
    let manifest = storage.object(&Key::parse(&format!("points/{}", points[0].id())).unwrap()).unwrap();
    let repository = open(storage.clone()).await.unwrap();
    let done = repository.repair(&plan, &CancelToken::new()).await.unwrap();
    assert_eq!(done.marked, 1);
    assert_eq!(storage.object(&Key::parse(&format!("points/{}", points[0].id())).unwrap()).unwrap(), manifest);

    let disk = MemoryDisk::new(noise(0, MIB));
    let fresh = open(storage.clone()).await.unwrap();
    let (_, backup) = back_up(&fresh, &disk, &[0..MIB], None).await.unwrap();
    assert_eq!(backup.bytes.new, CHUNK);
    assert!(content(&fresh.point(points[0].id()).await.unwrap()).await.unwrap() == noise(0, MIB));
    let plan = self::plan(&storage).await;
    assert!(plan.steps.is_empty() && plan.hurt.is_empty(), "{plan}");
}

#[tokio::test]
async fn what_only_a_segment_knows_is_not_put_aside() {
    let (storage, _, points) = stored().await;
    // One segment for all packs, as a collection of garbage leaves.
    for key in keys(&storage, "index") {
        storage.tamper(&key, None);
    }
    let all = plan(&storage).await;
    open(storage.clone()).await.unwrap().repair(&all, &CancelToken::new()).await.unwrap();
    assert_eq!(keys(&storage, "index").len(), 1);
    // One pack is gone, the end of another damaged: only the segment tells what that one holds.
    let packs = keys(&storage, "packs");
    storage.tamper(&packs[0], None);
    let end = storage.object(&packs[1]).unwrap().len() - 5;
    flip(&storage, &packs[1], end);
    let plan = plan(&storage).await;
    assert!(plan.steps.iter().all(|step| !matches!(step, RepairStep::Quarantine { .. })), "{plan}");
    assert!(!plan.lost.is_empty() && !plan.hurt.is_empty());
    open(storage.clone()).await.unwrap().repair(&plan, &CancelToken::new()).await.unwrap();
    let fresh = open(storage.clone()).await.unwrap();
    let mut whole = 0;
    for point in &points {
        whole += usize::from(content(&fresh.point(point.id()).await.unwrap()).await.is_ok());
    }
    assert!(whole >= 1, "the pack whose end is damaged can still be read");
}

#[tokio::test]
async fn a_repair_needs_the_right_to_write_and_the_repository_for_itself() {
    let (storage, ..) = stored().await;
    flip(&storage, &keys(&storage, "index")[0], 100);
    let plan = plan(&storage).await;
    let reader = OpenOptions::new().access(Access::ReadOnly).open(storage.clone()).await.unwrap();
    assert!(matches!(reader.repair(&plan, &CancelToken::new()).await, Err(Error::Storage(_))));
    // One that may only add writes what is missing, and says what it could not put aside.
    let adder = OpenOptions::new().access(Access::AppendOnly).open(storage.clone()).await.unwrap();
    let done = adder.repair(&plan, &CancelToken::new()).await.unwrap();
    assert_eq!((done.segments, done.quarantined.len(), done.refused.len()), (1, 0, 1), "{done:?}");
}
