//! Points are copied into repositories with other keys and chunks, only what is new, and again after a cut.

use std::sync::Arc;

use futures_util::TryStreamExt;
use vsphere_backup::{
    CancelToken, Error,
    engine::MemoryDisk,
    repository::{
        Access, BackupMode, CopyOptions, CopyOutcome, CreateOptions, Extent, OpenOptions, RecoveryPoint, Repository,
        VerifyLevel,
        storage::{Fault, Faulty, MemoryStorage, Storage},
    },
};

use crate::world::*;

/// Three points of a disk that changes and grows, and what they hold.
async fn source() -> (Arc<MemoryStorage>, Repository, Vec<(RecoveryPoint, Vec<u8>)>) {
    let (storage, repository) = repository().await;
    let disk = MemoryDisk::new(sample());
    let mut points = Vec::new();
    // The first two thirds are allocated.
    points.push((back_up(&repository, &disk, &[0..2 * MIB], None).await.unwrap().0, Vec::new()));
    disk.edit(|bytes| bytes[2 * MIB as usize..].fill(0));
    points[0].1 = disk.content();
    disk.edit(|bytes| bytes[300_000..300_100].fill(1));
    let (second, _) = back_up(&repository, &disk, &[300_000..300_100], Some(&points[0].0)).await.unwrap();
    points.push((second, disk.content()));
    disk.edit(|bytes| bytes.resize((4 * MIB + 512) as usize, 5));
    disk.edit(|bytes| bytes[1_000_000..1_100_000].fill(0));
    let area = [1_000_000..1_100_000];
    let (third, _) = back_up(&repository, &disk, &area, Some(&points[1].0)).await.unwrap();
    points.push((third, disk.content()));
    (storage, repository, points)
}

async fn target(chunk: u64, encrypted: bool) -> (Arc<MemoryStorage>, Repository) {
    let storage = Arc::new(MemoryStorage::new());
    let mut options = CreateOptions::default().chunk_size(chunk as u32);
    if encrypted {
        options = options.encrypted(password("other"));
    }
    (storage.clone(), Repository::create(storage, options).await.unwrap())
}

fn copies(outcomes: &vsphere_backup::repository::CopyReport) -> Vec<vsphere_backup::repository::PointId> {
    let copy = |outcome: &CopyOutcome| match outcome {
        CopyOutcome::There(copy) | CopyOutcome::Copied { copy, .. } => copy.clone(),
        other => panic!("{other:?}"),
    };
    outcomes.points.iter().map(|point| copy(&point.outcome)).collect()
}

/// Extents, neighbours of one kind joined.
async fn extents(point: &RecoveryPoint) -> Vec<Extent> {
    let disk = point.disk(2000).await.unwrap();
    let all: Vec<Extent> = disk.extents(0..disk.capacity()).try_collect().await.unwrap();
    all.into_iter().fold(Vec::new(), |mut joined: Vec<Extent>, extent| {
        match joined.last_mut() {
            Some(last) if last.kind == extent.kind => last.range.end = extent.range.end,
            _ => joined.push(extent),
        }
        joined
    })
}

#[tokio::test]
async fn a_copy_has_other_keys_and_chunks_and_the_same_bytes() {
    let (_, repository, points) = source().await;
    for (chunk, encrypted) in [(CHUNK, false), (CHUNK, true), (4 * CHUNK, true)] {
        let (_, other) = target(chunk, encrypted).await;
        let report = repository.copy_to(&other, &CopyOptions::new()).await.unwrap();
        assert!(report.is_complete());
        let ids = copies(&report);
        for ((id, (original, bytes)), at) in ids.iter().zip(&points).zip(0..) {
            let copy = other.point(id).await.unwrap();
            assert!(content(&copy).await.unwrap() == *bytes, "point {at}");
            assert_eq!(copy.id().micros(), original.id().micros());
            let (from, to) = (original.manifest(), copy.manifest());
            assert_eq!(to.copy_of.as_ref().unwrap().point, *original.id());
            assert_eq!((to.created, to.consistency, &to.vm), (from.created, from.consistency, &from.vm));
            assert_eq!(copy.object("config.json").await.unwrap(), original.object("config.json").await.unwrap());
            let disk = &copy.disks()[0];
            assert_eq!((disk.key, &disk.label, disk.change_id.is_none()), (2000, &original.disks()[0].label, true));
            assert_eq!(disk.mode, if at == 0 { BackupMode::Full } else { BackupMode::Incremental });
            if chunk == CHUNK && at == 0 {
                assert_eq!(extents(&copy).await, extents(original).await, "zeros and holes stay what they are");
            }
        }
        let check = other.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
        assert!(check.is_sound(), "{check:?}");
        // The second point differs in one chunk: no more is read of it.
        let CopyOutcome::Copied { read, .. } = report.points[1].outcome else { panic!() };
        assert_eq!(read, chunk);
        let again = repository.copy_to(&other, &CopyOptions::new()).await.unwrap();
        assert!(again.points.iter().all(|point| matches!(point.outcome, CopyOutcome::There(_))), "{again:?}");
        assert_eq!(copies(&again), ids);
    }
}

#[tokio::test]
async fn what_is_chosen_is_copied_and_a_copy_can_be_copied_on() {
    let (_, repository, points) = source().await;
    let (_, other) = target(CHUNK, false).await;
    let newest = repository.copy_to(&other, &CopyOptions::new().newest(1)).await.unwrap();
    assert_eq!(newest.points.len(), 1);
    assert_eq!(newest.points[0].original, *points[2].0.id());
    let first = CopyOptions::new().points([points[0].0.id().clone()]);
    assert_eq!(repository.copy_to(&other, &first).await.unwrap().points.len(), 1);
    // The older copy is before the newer one, although it was made later.
    let there = other.points(&vm()).await.unwrap();
    assert_eq!(
        there.iter().map(|id| id.micros()).collect::<Vec<_>>(),
        [points[0].0.id().micros(), points[2].0.id().micros()]
    );
    let (_, third) = target(CHUNK, true).await;
    let on = other.copy_to(&third, &CopyOptions::new()).await.unwrap();
    let last = third.point(copies(&on).last().unwrap()).await.unwrap();
    assert!(content(&last).await.unwrap() == points[2].1);
    let itself = repository.copy_to(&repository.clone(), &CopyOptions::new()).await;
    assert!(matches!(itself, Err(Error::Invalid { .. })));
}

#[tokio::test]
async fn a_damaged_point_is_told_and_keeps_no_other_from_being_copied() {
    let (storage, _, points) = source().await;
    // A chunk of the first point only, which the second changed.
    let fresh = open(storage.clone()).await.unwrap();
    for key in storage.keys().into_iter().filter(|key| key.is_below("packs")) {
        let good = storage.object(&key).unwrap();
        let mut bytes = good.to_vec();
        // The fifth frame of a pack: offset 262144, of the first point alone.
        let at = 64 + 4 * (56 + CHUNK as usize) + 600;
        if at < bytes.len() {
            bytes[at] ^= 1;
        }
        storage.tamper(&key, Some(bytes.into()));
    }
    let (_, other) = target(CHUNK, false).await;
    let report = fresh.copy_to(&other, &CopyOptions::new()).await.unwrap();
    assert!(!report.is_complete());
    let CopyOutcome::Failed(error) = &report.points[0].outcome else { panic!("{report:?}") };
    assert!(error.is_damage(), "{error}");
    for at in [1, 2] {
        let CopyOutcome::Copied { copy, .. } = &report.points[at].outcome else { panic!("{report:?}") };
        assert!(content(&other.point(copy).await.unwrap()).await.unwrap() == points[at].1);
    }
    assert_eq!(other.points(&vm()).await.unwrap().len(), 2, "nothing half is visible");
}

#[tokio::test]
async fn a_copy_that_is_cut_at_any_operation_is_ended_by_the_next() {
    let (from, _, points) = source().await;
    let mut cuts = 0;
    for at in (1..).step_by(3) {
        let storage = Arc::new(MemoryStorage::new());
        Repository::create(storage.clone(), CreateOptions::default().chunk_size(CHUNK as u32)).await.unwrap();
        let faulty: Arc<dyn Storage> = Arc::new(Faulty::new(storage.clone(), at, Fault::Cut));
        let source = open(from.clone()).await.unwrap();
        let cut = async {
            let target = Repository::open(faulty).await?;
            source.copy_to(&target, &CopyOptions::new()).await
        };
        let done = cut.await;
        let target = open(storage).await.unwrap();
        let report = source.copy_to(&target, &CopyOptions::new()).await.unwrap();
        for (id, (_, bytes)) in copies(&report).iter().zip(&points) {
            assert!(content(&target.point(id).await.unwrap()).await.unwrap() == *bytes, "cut at {at}");
        }
        assert_eq!(target.points(&vm()).await.unwrap().len(), points.len(), "cut at {at}");
        assert!(target.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap().is_sound(), "cut at {at}");
        if done.is_ok() {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 10, "{cuts}");
    // Nothing is left in the source.
    assert!(from.keys().iter().all(|key| !key.is_below("leases")), "{:?}", from.keys());
}

#[tokio::test]
async fn a_source_that_is_read_only_is_copied_without_a_pin() {
    let (storage, _, points) = source().await;
    let before = storage.keys();
    let reader = OpenOptions::new().access(Access::ReadOnly).open(storage.clone()).await.unwrap();
    let (_, other) = target(CHUNK, true).await;
    assert_eq!(copies(&reader.copy_to(&other, &CopyOptions::new()).await.unwrap()).len(), points.len());
    assert_eq!(storage.keys(), before);
}
