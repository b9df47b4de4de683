//! How far change tracking is believed, and what is not read because nothing is there.

use std::ops::Range;

use futures_util::{TryStreamExt, stream};
use vsphere_backup::{
    Error, Result,
    engine::{BackedUpDisk, DiskBackup, MemoryDisk, Parent, Trust},
    repository::{Consistency, DiskBytes, ExtentKind, RecoveryPoint, Repository, WriterOptions},
};

use crate::world::*;

/// Backs up the areas on top of a point, and commits nothing.
async fn back_up_with(
    repository: &Repository,
    disk: &MemoryDisk,
    parent: &RecoveryPoint,
    areas: &[Range<u64>],
    change: impl FnOnce(DiskBackup<'_>) -> DiskBackup<'_>,
) -> Result<BackedUpDisk> {
    let point = repository.begin(record(), Consistency::Crash, WriterOptions::default()).await?;
    let parent = Parent::new(parent.disk(2000).await?);
    let backup = DiskBackup::new(2000, disk, point.writer()).parent(Some(parent));
    let areas: Vec<_> = areas.iter().cloned().map(Ok).collect();
    change(backup).run(stream::iter(areas)).await
}

async fn full(repository: &Repository, disk: &MemoryDisk) -> RecoveryPoint {
    let whole = 0..disk.content().len() as u64;
    back_up(repository, disk, &[whole], None).await.unwrap().0
}

#[tokio::test]
async fn a_missed_change_is_found_when_all_is_compared_and_nothing_is_mixed_in() {
    let (_, repository) = repository().await;
    let disk = MemoryDisk::new(sample());
    let parent = full(&repository, &disk).await;
    let areas = [0..1, 20 * CHUNK..21 * CHUNK];
    let done =
        back_up_with(&repository, &disk, &parent, &areas, |backup| backup.trust(Trust::VerifyAll)).await.unwrap();
    assert_eq!(done.bytes.audited + done.bytes.read, sample().len() as u64);
    // In a chunk of data, in one of zeros, in the short one at the end.
    for at in [5 * CHUNK + 17, 45 * CHUNK, 3 * MIB + 1000] {
        let disk = MemoryDisk::new(sample());
        disk.edit(|bytes| bytes[at as usize] ^= 1);
        let error = back_up_with(&repository, &disk, &parent, &areas, |backup| backup.trust(Trust::VerifyAll)).await;
        let offset = at / CHUNK * CHUNK;
        assert!(
            matches!(error, Err(Error::MissedChange { disk: 2000, offset: found }) if found == offset),
            "{error:?}"
        );
        let believed = back_up_with(&repository, &disk, &parent, &areas, |backup| backup).await.unwrap();
        assert_eq!(believed.bytes.audited, 0);
    }
}

#[tokio::test]
async fn a_sample_finds_a_missed_change_sooner_or_later() {
    let (_, repository) = repository().await;
    let disk = MemoryDisk::new(sample());
    let parent = full(&repository, &disk).await;
    disk.edit(|bytes| bytes[0] ^= 1);
    let (mut found, mut audited) = (0, 0);
    for _ in 0..40 {
        match back_up_with(&repository, &disk, &parent, &[], |backup| backup.trust(Trust::Sample(0.5))).await {
            Ok(done) => audited += done.bytes.audited,
            Err(Error::MissedChange { offset: 0, .. }) => found += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!((5..36).contains(&found), "{found} of 40");
    let each = audited / (40 - found) / CHUNK;
    assert!((15..35).contains(&each), "{each} of 49 chunks");
}

#[tokio::test]
async fn a_changed_area_without_anything_allocated_is_not_read() {
    let (_, repository) = repository().await;
    let disk = MemoryDisk::new(sample());
    let parent = full(&repository, &disk).await;
    disk.edit(|bytes| bytes[..4 * CHUNK as usize].fill(0));
    let before = disk.bytes_read();
    let allocated = vec![CHUNK + 5..CHUNK + 6, 4 * CHUNK..sample().len() as u64];
    let done = back_up_with(&repository, &disk, &parent, &[0..4 * CHUNK], |backup| backup.allocated(Some(allocated)));
    let done = done.await.unwrap();
    assert_eq!(disk.bytes_read() - before, CHUNK);
    let expected =
        DiskBytes { changed: 4 * CHUNK, read: CHUNK, zero: CHUNK, unallocated: 3 * CHUNK, ..Default::default() };
    assert_eq!(DiskBytes { index: 0, ..done.bytes }, expected);
    let unsorted = vec![5..6, 1..2];
    let error = back_up_with(&repository, &disk, &parent, &[], |backup| backup.allocated(Some(unsorted))).await;
    assert!(matches!(error, Err(Error::Invalid { .. })));
}

#[tokio::test]
async fn what_is_not_allocated_is_told_from_zeros_in_the_new_point() {
    let (_, repository) = repository().await;
    let disk = MemoryDisk::new(sample());
    let mut point = repository.begin(record(), Consistency::Crash, WriterOptions::default()).await.unwrap();
    let done = DiskBackup::new(2000, &disk, point.writer())
        .allocated(Some(vec![0..2 * CHUNK, 40 * CHUNK..41 * CHUNK]))
        .run(stream::iter([Ok(0..sample().len() as u64)]))
        .await
        .unwrap();
    point.add_disk(disk_record(&done)).unwrap();
    let reader = point.commit().await.unwrap().0.disk(2000).await.unwrap();
    let extents: Vec<_> = reader.extents(0..reader.capacity()).try_collect().await.unwrap();
    let kinds: Vec<_> = extents.iter().map(|extent| extent.kind).collect();
    assert_eq!(kinds, [ExtentKind::Data, ExtentKind::Unallocated, ExtentKind::Zero, ExtentKind::Unallocated]);
    assert_eq!(extents[2].range, 40 * CHUNK..41 * CHUNK);
}

#[tokio::test]
async fn a_page_that_is_written_anew_names_no_chunk_that_is_lost() {
    let (storage, repository) = repository().await;
    let disk = MemoryDisk::new(sample());
    let parent = full(&repository, &disk).await;
    for key in storage.keys().iter().filter(|key| key.as_str().starts_with("packs/")) {
        storage.tamper(key, None);
    }
    disk.edit(|bytes| bytes[0] ^= 1);
    let repository = open(storage.clone()).await.unwrap();
    let parent = repository.point(parent.id()).await.unwrap();
    let error = back_up_with(&repository, &disk, &parent, &[0..1], |backup| backup).await;
    assert!(matches!(error, Err(Error::DamagedChunk { disk: 2000, .. })), "{error:?}");
    // Nothing is wrong with a point that names none of them.
    let whole = 0..sample().len() as u64;
    back_up_with(&repository, &disk, &parent, &[whole], |backup| backup).await.unwrap();
}
