//! Points are deleted by retention, and not while they are held.

use vsphere_backup::{
    Error,
    engine::MemoryDisk,
    repository::{Fate, RecoveryPoint, Repository, Retention, storage::MemoryStorage},
};

use crate::world::*;

async fn points(count: u64) -> (std::sync::Arc<MemoryStorage>, Repository, Vec<RecoveryPoint>) {
    let (storage, repository) = repository().await;
    let mut points = Vec::new();
    for seed in 0..count {
        let disk = MemoryDisk::new(noise(seed, CHUNK));
        points.push(back_up(&repository, &disk, &[0..CHUNK], None).await.unwrap().0);
    }
    (storage, repository, points)
}

#[tokio::test]
async fn what_no_rule_keeps_is_deleted_and_every_fate_has_its_reason() {
    let (storage, repository, points) = points(4).await;
    let hold = points[0].hold("lawsuit 17", None).await.unwrap();
    let rules = Retention::keep().last(2).yearly(1);
    let before = storage.keys();
    let asked = repository.prune(None, &rules, true).await.unwrap();
    assert_eq!(storage.keys(), before);
    let done = repository.prune(Some(&vm()), &rules, false).await.unwrap();
    assert_eq!((asked.dry_run, done.dry_run), (true, false));
    assert_eq!(asked.points, done.points);
    let fates: Vec<_> = done.points.iter().map(|pruned| pruned.fate.to_string()).collect();
    assert_eq!(fates, ["held: lawsuit 17", "deleted", "kept: last 2 of 2", "kept: last 1 of 2, yearly 1 of 1"]);
    assert_eq!(done.deleted().collect::<Vec<_>>(), [points[1].id()]);
    assert_eq!(repository.points(&vm()).await.unwrap().len(), 3);
    assert!(matches!(repository.point(points[1].id()).await, Err(Error::PointNotFound { .. })));

    assert!(matches!(points[0].clone().delete().await, Err(Error::Held { .. })));
    assert_eq!(repository.holds(points[0].id()).await.unwrap(), std::slice::from_ref(&hold));
    repository.release_hold(&hold).await.unwrap();
    points[0].clone().delete().await.unwrap();
    assert!(matches!(points[0].hold("too late", None).await, Err(Error::PointNotFound { .. })));
    assert!(repository.holds(points[0].id()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_hold_ends_at_its_time() {
    let (_, repository, points) = points(2).await;
    points[0].hold("until yesterday", Some(1_700_000_000)).await.unwrap();
    let report = repository.prune(None, &Retention::keep().last(1), false).await.unwrap();
    assert_eq!(report.points[0].fate, Fate::Deleted);
}

#[tokio::test]
async fn a_damaged_point_stands_in_for_no_sound_one_and_a_damaged_hold_holds() {
    let (storage, repository, points) = points(3).await;
    let key = storage.keys().into_iter().find(|key| key.as_str().ends_with(&points[2].id().to_string())).unwrap();
    let bytes = storage.object(&key).unwrap();
    storage.tamper(&key, Some(bytes.slice(..bytes.len() - 1)));
    points[0].hold("x", None).await.unwrap();
    let hold = storage.keys().into_iter().find(|key| key.is_below("holds")).unwrap();
    storage.tamper(&hold, Some("damaged".into()));
    let report = repository.prune(None, &Retention::keep().last(1), false).await.unwrap();
    let fates: Vec<_> = report.points.iter().map(|pruned| &pruned.fate).collect();
    assert!(matches!(fates[..], [Fate::Held(_), Fate::Kept(_), Fate::Unreadable(_)]), "{fates:?}");
}

#[tokio::test]
async fn pruning_without_a_rule_is_refused() {
    let (_, repository, points) = points(1).await;
    assert!(matches!(repository.prune(None, &Retention::keep(), false).await, Err(Error::Invalid { .. })));
    assert_eq!(repository.points(&vm()).await.unwrap(), [points[0].id().clone()]);
}
