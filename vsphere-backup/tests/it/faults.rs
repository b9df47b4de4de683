//! Failures of the storage at every operation.

use std::sync::Arc;

use vsphere_backup::{
    CancelToken,
    engine::MemoryDisk,
    repository::{
        VerifyLevel,
        storage::{Fault, Faulty, MemoryStorage, Storage},
    },
};

use crate::world::*;

/// Opens the storage and makes a full and an incremental backup; returns how many points it
/// committed as far as it knows.
async fn two_backups(storage: Arc<dyn Storage>) -> (u64, bool) {
    let mut committed = 0;
    let work = async {
        let repository = open(storage).await?;
        let disk = MemoryDisk::new(sample());
        let all = 0..sample().len() as u64;
        let (full, _) = back_up(&repository, &disk, &[all], None).await?;
        committed += 1;
        disk.edit(|bytes| bytes[..10].fill(3));
        back_up(&repository, &disk, &[0..10], Some(&full)).await?;
        committed += 1;
        Ok::<(), vsphere_backup::Error>(())
    };
    let succeeded = work.await.is_ok();
    (committed, succeeded)
}

async fn operations_of_two_backups() -> u64 {
    let (memory, _) = repository().await;
    let counting = Arc::new(Faulty::new(memory, u64::MAX, Fault::Error));
    assert_eq!(two_backups(counting.clone()).await, (2, true));
    counting.operations()
}

async fn check_all_points(memory: &Arc<MemoryStorage>) -> u64 {
    let repository = open(memory.clone()).await.unwrap();
    let mut points = 0;
    for id in repository.points(&vm()).await.unwrap() {
        let point = repository.point(&id).await.unwrap();
        let report = point.verify(VerifyLevel::Full, &CancelToken::new(), |_, _| {}).await.unwrap();
        assert!(report.is_sound(), "{report:?}");
        content(&point).await.unwrap();
        points += 1;
    }
    points
}

#[tokio::test]
async fn a_fault_at_every_operation_leaves_no_half_point_and_the_next_run_succeeds() {
    let operations = operations_of_two_backups().await;
    assert!(operations > 10, "{operations}");
    for fault in [Fault::Error, Fault::LostAnswer, Fault::Cut] {
        for at in 0..operations {
            let (memory, _) = repository().await;
            let faulty = Arc::new(Faulty::new(memory.clone(), at, fault));
            let (committed, succeeded) = two_backups(faulty).await;
            let visible = check_all_points(&memory).await;
            assert!(visible == committed || !succeeded, "{fault:?} at {at}");
            assert!(visible >= committed, "{fault:?} at {at}: a committed point is gone");
            assert!(visible <= committed + 1, "{fault:?} at {at}");
            assert_eq!(two_backups(memory.clone()).await, (2, true), "{fault:?} at {at}");
            assert_eq!(check_all_points(&memory).await, visible + 2, "{fault:?} at {at}");
        }
    }
}

#[tokio::test]
async fn chunks_of_a_backup_that_was_cut_are_used_by_the_next() {
    // The last operation without which there is no second point is its manifest.
    let mut at = operations_of_two_backups().await;
    let (memory, repository) = loop {
        at -= 1;
        let (memory, repository) = repository().await;
        let faulty = Arc::new(Faulty::new(memory.clone(), at, Fault::Cut));
        if two_backups(faulty).await == (1, false) && repository.points(&vm()).await.unwrap().len() == 1 {
            break (memory, repository);
        }
    };
    assert!(memory.keys().iter().any(|key| key.is_below("leases")), "the writer had no chance to give it back");
    let disk = MemoryDisk::new(sample());
    disk.edit(|bytes| bytes[..10].fill(3));
    let (_, done) = back_up(&repository, &disk, &[0..sample().len() as u64], None).await.unwrap();
    assert_eq!(done.bytes.new, 0);
}

#[tokio::test]
async fn a_check_whose_storage_hangs_ends_when_it_is_cancelled() {
    let (memory, repository) = repository().await;
    back_up(&repository, &MemoryDisk::new(sample()), std::slice::from_ref(&(0..sample().len() as u64)), None)
        .await
        .unwrap();
    let opening = Arc::new(Faulty::new(memory.clone(), u64::MAX, Fault::Error));
    open(opening.clone()).await.unwrap();
    // The first operation of the check, and one in its midst.
    for at in [opening.operations(), opening.operations() + 5] {
        let hanging = Arc::new(Faulty::new(memory.clone(), at, Fault::Hang));
        let repository = open(hanging.clone()).await.unwrap();
        let cancel = CancelToken::new();
        let cancelled = async {
            while hanging.operations() <= at {
                tokio::task::yield_now().await;
            }
            cancel.cancel();
        };
        let both = async { tokio::join!(repository.check(VerifyLevel::Full, &cancel), cancelled).0 };
        let ended = tokio::time::timeout(std::time::Duration::from_secs(30), both).await.expect("it hangs");
        assert!(matches!(ended, Err(vsphere_backup::Error::Cancelled)), "{ended:?}");
    }
}
