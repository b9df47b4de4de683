//! Backup and restore of one disk, without a server.

use std::{ops::Range, sync::Mutex};

use futures_util::{TryStreamExt, stream};
use proptest::prelude::*;
use vsphere_backup::{
    CancelToken, DiskError, Error,
    engine::{Budget, DiskBackup, DiskRestore, MemoryDisk, RestoreMode, compare_disk},
    repository::{Consistency, ExtentKind, Repository, VerifyLevel, WriterOptions, storage::MemoryStorage},
};

use crate::world::*;

#[tokio::test]
async fn a_point_reads_as_the_disk_did_and_equal_chunks_are_stored_once() {
    let (_, repository) = repository().await;
    let disk = MemoryDisk::new(sample());
    let whole = 0..sample().len() as u64;
    let (first, done) = back_up(&repository, &disk, std::slice::from_ref(&whole), None).await.unwrap();
    assert!(content(&first).await.unwrap() == sample());
    assert_eq!(done.bytes.read, whole.end);
    assert!(done.bytes.stored < 900_000, "{:?}", done.bytes);
    let (second, done) = back_up(&repository, &disk, &[whole], None).await.unwrap();
    assert_eq!((done.bytes.new, done.bytes.stored), (0, 0));
    assert!(content(&second).await.unwrap() == sample());
    assert_eq!(repository.points(&vm()).await.unwrap(), [first.id().clone(), second.id().clone()]);
    assert_eq!(repository.latest(&vm()).await.unwrap().unwrap().id(), second.id());
}

#[tokio::test]
async fn an_incremental_backup_reads_only_the_chunks_that_areas_touch() {
    let (storage, repository) = repository().await;
    let disk = MemoryDisk::new(sample());
    let (full, _) = back_up(&repository, &disk, &[0..sample().len() as u64], None).await.unwrap();
    let before = disk.bytes_read();
    let packs = storage.keys().len();
    disk.edit(|bytes| bytes[200_000..200_010].fill(9));
    let areas = [200_000..200_010, 3 * MIB + 512..3 * MIB + 1024];
    let (point, done) = back_up(&repository, &disk, &areas, Some(&full)).await.unwrap();
    assert_eq!(disk.bytes_read() - before, CHUNK + 1536);
    assert_eq!((done.bytes.changed, done.bytes.read), (10 + 512, CHUNK + 1536));
    assert_eq!(done.bytes.new, CHUNK);
    // One pack, one segment, one page, one small object, one manifest.
    assert_eq!(storage.keys().len() - packs, 5);
    assert!(content(&point).await.unwrap() == disk.content());
    assert!(content(&full).await.unwrap() == sample());
}

#[tokio::test]
async fn what_was_deleted_is_never_made_again_under_its_name() {
    let (storage, repository) = repository().await;
    let disk = MemoryDisk::new(sample());
    back_up(&repository, &disk, &[0..sample().len() as u64], None).await.unwrap();
    let first: Vec<_> = storage.keys().into_iter().filter(|key| key.as_str() != "config").collect();
    for key in &first {
        storage.tamper(key, None);
    }
    back_up(&open(storage.clone()).await.unwrap(), &disk, &[0..sample().len() as u64], None).await.unwrap();
    let again = storage.keys();
    assert_eq!(again.len(), first.len() + 1, "as many objects as before, and config");
    assert!(first.iter().all(|key| !again.contains(key)));
}

#[tokio::test]
async fn unallocated_zero_and_data_are_told_apart() {
    let (_, repository) = repository().await;
    let disk = MemoryDisk::new(sample());
    let areas = [0..CHUNK, 16 * CHUNK..17 * CHUNK, 40 * CHUNK..41 * CHUNK];
    let (point, _) = back_up(&repository, &disk, &areas, None).await.unwrap();
    let reader = point.disk(2000).await.unwrap();
    let extents: Vec<_> = reader.extents(100..reader.capacity()).try_collect().await.unwrap();
    let expected: [(Range<u64>, ExtentKind); 6] = [
        (100..CHUNK, ExtentKind::Data),
        (CHUNK..16 * CHUNK, ExtentKind::Unallocated),
        (16 * CHUNK..17 * CHUNK, ExtentKind::Data),
        (17 * CHUNK..40 * CHUNK, ExtentKind::Unallocated),
        (40 * CHUNK..41 * CHUNK, ExtentKind::Zero),
        (41 * CHUNK..reader.capacity(), ExtentKind::Unallocated),
    ];
    let found: Vec<_> = extents.into_iter().map(|extent| (extent.range, extent.kind)).collect();
    assert_eq!(found, expected);
    assert!(reader.read_at(reader.capacity() - 1, 2).await.is_err());
    assert_eq!(reader.read_at(CHUNK - 1, 2).await.unwrap()[1], 0);
}

#[tokio::test]
async fn a_disk_that_grew_has_its_new_part_read_whatever_the_areas_say() {
    let (_, repository) = repository().await;
    let disk = MemoryDisk::new(sample());
    let (full, _) = back_up(&repository, &disk, &[0..sample().len() as u64], None).await.unwrap();
    disk.edit(|bytes| bytes.extend(noise(5, 5 * CHUNK + 512)));
    let (point, done) = back_up(&repository, &disk, &[0..1], Some(&full)).await.unwrap();
    assert!(content(&point).await.unwrap() == disk.content());
    assert_eq!(done.bytes.read, CHUNK + 1536 + 5 * CHUNK + 512);
    let smaller = MemoryDisk::new(vec![0; 512]);
    let error = back_up(&repository, &smaller, &[], Some(&full)).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }));
}

#[tokio::test]
async fn a_parent_of_another_repository_is_refused() {
    let ((_, here), (_, there)) = (repository().await, repository().await);
    let disk = MemoryDisk::new(sample());
    let (parent, _) = back_up(&there, &disk, &[0..sample().len() as u64], None).await.unwrap();
    let error = back_up(&here, &disk, &[0..1], Some(&parent)).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
}

#[tokio::test]
async fn pages_go_where_chunks_go_when_the_parent_was_opened_through_a_copy() {
    let (storage, repository) = repository().await;
    let disk = MemoryDisk::new(sample());
    let (full, _) = back_up(&repository, &disk, &[0..sample().len() as u64], None).await.unwrap();
    let copy = std::sync::Arc::new(MemoryStorage::new());
    for key in storage.keys() {
        copy.tamper(&key, storage.object(&key));
    }
    let parent = open(copy.clone()).await.unwrap().point(full.id()).await.unwrap();
    let objects = copy.keys().len();
    disk.edit(|bytes| bytes[0] ^= 1);
    let (point, _) = back_up(&repository, &disk, &[0..1], Some(&parent)).await.unwrap();
    assert_eq!(copy.keys().len(), objects, "something was written to the copy");
    let fresh = open(storage).await.unwrap().point(point.id()).await.unwrap();
    assert!(content(&fresh).await.unwrap() == disk.content());
}

#[tokio::test]
async fn a_full_restore_writes_all_and_one_of_differences_only_what_differs() {
    let (_, repository) = repository().await;
    let disk = MemoryDisk::new(sample());
    let (point, _) = back_up(&repository, &disk, &[0..sample().len() as u64], None).await.unwrap();
    let reader = point.disk(2000).await.unwrap();
    let none = CancelToken::new();

    let target = MemoryDisk::new(vec![0xee; sample().len()]);
    let done = DiskRestore::new(&reader, &target).run().await.unwrap();
    assert!(target.content() == sample());
    assert_eq!(done.written + done.zeroed, sample().len() as u64);
    let same = compare_disk(&reader, &target, &Budget::default(), &none, None).await.unwrap();
    assert_eq!(same, []);

    // One byte of data, one byte in a zero chunk.
    target.edit(|bytes| {
        bytes[CHUNK as usize + 5] ^= 1;
        bytes[40 * CHUNK as usize] = 1;
    });
    let differ = compare_disk(&reader, &target, &Budget::default(), &none, None).await.unwrap();
    let ranges: Vec<_> = differ.into_iter().map(|difference| difference.range).collect();
    assert_eq!(ranges, [CHUNK..2 * CHUNK, 40 * CHUNK..41 * CHUNK]);
    let written = target.bytes_written();
    let restore = DiskRestore::new(&reader, &target).mode(RestoreMode::OnlyDifferences);
    let done = restore.run().await.unwrap();
    assert!(target.content() == sample());
    assert_eq!((done.written, done.zeroed), (CHUNK, CHUNK));
    assert_eq!(target.bytes_written() - written, 2 * CHUNK);

    let empty = MemoryDisk::new(vec![0; sample().len()]);
    let done = DiskRestore::new(&reader, &empty).target_is_zero(true).run().await.unwrap();
    assert!(empty.content() == sample() && done.zeroed == 0);
    let small = MemoryDisk::new(vec![0; 512]);
    assert!(DiskRestore::new(&reader, &small).run().await.is_err());
}

#[tokio::test]
async fn progress_ends_at_the_end_and_a_cancelled_backup_leaves_no_point() {
    let (_, repository) = repository().await;
    let disk = MemoryDisk::new(noise(3, 20 * MIB));
    let cancel = CancelToken::new();
    let seen = Mutex::new(Vec::new());
    let progress = |progress: vsphere_backup::engine::Progress| {
        seen.lock().unwrap().push(progress.position);
        if progress.position >= 8 * MIB {
            cancel.cancel();
        }
    };
    let point = repository.begin(record(), Consistency::Crash, WriterOptions::default()).await.unwrap();
    let done = DiskBackup::new(2000, &disk, point.writer())
        .cancel(&cancel)
        .on_progress(&progress)
        .run(stream::iter([Ok(0..20 * MIB)]))
        .await;
    assert!(matches!(done, Err(Error::Cancelled)));
    assert_eq!(*seen.lock().unwrap(), [4 * MIB, 8 * MIB]);
    drop(point);
    assert!(repository.vms().await.unwrap().is_empty());
}

#[tokio::test]
async fn areas_that_fail_end_the_backup_with_their_own_error() {
    let (_, repository) = repository().await;
    let disk = MemoryDisk::new(sample());
    let point = repository.begin(record(), Consistency::Crash, WriterOptions::default()).await.unwrap();
    let areas = stream::iter([Ok(0..10), Err(DiskError::new("stale").retryable(true))]);
    let error = DiskBackup::new(2000, &disk, point.writer()).run(areas).await.unwrap_err();
    assert!(matches!(error, Error::Areas { disk: 2000, .. }) && error.is_retryable());
}

#[tokio::test]
async fn the_local_folder_holds_a_repository_that_another_process_can_open() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("repo");
    assert!(matches!(Repository::open_local(&root).await, Err(Error::NotARepository { .. })));
    let repository = Repository::create_local(&root, Default::default()).await.unwrap();
    let disk = MemoryDisk::new(sample());
    let (point, _) = back_up(&repository, &disk, &[0..sample().len() as u64], None).await.unwrap();
    let other = Repository::open_local(&root).await.unwrap();
    let again = other.point(point.id()).await.unwrap();
    assert!(content(&again).await.unwrap() == sample());
    assert_eq!(again.object("config.json").await.unwrap().unwrap(), r#"{"name":"web"}"#);
    assert_eq!(again.object("nvram").await.unwrap(), None);
    let report = again.verify(VerifyLevel::Full, &CancelToken::new(), |_, _| {}).await.unwrap();
    assert!(report.is_sound() && report.chunks > 5);
}

#[tokio::test]
async fn a_reader_finds_chunks_that_another_process_stored_after_it_opened() {
    let (storage, repository) = repository().await;
    let disk = MemoryDisk::new(sample());
    back_up(&repository, &disk, &[0..sample().len() as u64], None).await.unwrap();
    let reader = open(storage.clone()).await.unwrap();
    let old = reader.latest(&vm()).await.unwrap().unwrap();
    assert!(content(&old).await.unwrap() == sample());
    disk.edit(|bytes| bytes[..10].fill(0x55));
    back_up(&repository, &disk, &[0..10], Some(&old)).await.unwrap();
    let new = reader.latest(&vm()).await.unwrap().unwrap();
    assert!(content(&new).await.unwrap() == disk.content());
}

#[derive(Clone, Debug)]
enum Step {
    Write { at: u64, len: u64, seed: u8 },
    Grow { chunks: u64 },
    BackUp,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write =
        (0u64..40 * CHUNK, 1u64..3 * CHUNK, any::<u8>()).prop_map(|(at, len, seed)| Step::Write { at, len, seed });
    let step =
        prop_oneof![4 => write, 1 => (1u64..4).prop_map(|chunks| Step::Grow { chunks }), 3 => Just(Step::BackUp)];
    proptest::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_point_equals_the_model(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (_, repository) = repository().await;
            let disk = MemoryDisk::new(vec![0; 20 * CHUNK as usize - 512]);
            let mut changed: Vec<Range<u64>> = Vec::new();
            let mut points = Vec::new();
            for step in steps {
                match step {
                    Step::Write { at, len, seed } => disk.edit(|bytes| {
                        let end = (at + len).min(bytes.len() as u64);
                        if at < end {
                            bytes[at as usize..end as usize].fill(seed);
                            changed.push(at..end);
                        }
                    }),
                    Step::Grow { chunks } => disk.edit(|bytes| {
                        bytes.resize(bytes.len() + (chunks * CHUNK) as usize, 0);
                    }),
                    Step::BackUp => {
                        let parent = points.last().map(|(point, _)| point);
                        let areas = merge(&mut changed);
                        let (point, _) = back_up(&repository, &disk, &areas, parent).await.unwrap();
                        points.push((point, disk.content()));
                    }
                }
            }
            for (point, model) in &points {
                assert!(content(point).await.unwrap() == *model);
            }
            let report = repository.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
            assert!(report.is_sound(), "{report:?}");
        });
    }
}

fn merge(changed: &mut Vec<Range<u64>>) -> Vec<Range<u64>> {
    changed.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in changed.drain(..) {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}
