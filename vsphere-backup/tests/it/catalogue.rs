//! Questions about what a repository holds.

use std::{ops::Range, time::SystemTime};

use futures_util::TryStreamExt;
use proptest::prelude::*;
use vsphere_backup::{
    engine::MemoryDisk,
    repository::{BackupMode, Consistency, RecoveryPoint, Repository, VmRecord},
};

use crate::world::{CHUNK, back_up, content, noise, record, repository, vm};

async fn changed(one: &RecoveryPoint, other: &RecoveryPoint) -> Vec<Range<u64>> {
    let (one, other) = (one.disk(2000).await.unwrap(), other.disk(2000).await.unwrap());
    let areas: Vec<_> = one.changed_since(&other).try_collect().await.unwrap();
    let sum = areas.iter().map(|area| area.end - area.start).sum::<u64>();
    assert_eq!(one.changed_bytes_since(&other).await.unwrap(), sum);
    areas
}

/// What differs, by the bytes themselves.
async fn by_bytes(one: &RecoveryPoint, other: &RecoveryPoint) -> Vec<u64> {
    let (mut one, mut other) = (content(one).await.unwrap(), content(other).await.unwrap());
    let len = one.len().max(other.len());
    one.resize(len, 0);
    other.resize(len, 0);
    let size = CHUNK as usize;
    (0..len.div_ceil(size) as u64)
        .filter(|&at| {
            let range = at as usize * size..((at as usize + 1) * size).min(len);
            one[range.clone()] != other[range]
        })
        .collect()
}

async fn store(repository: &Repository, bytes: Vec<u8>) -> RecoveryPoint {
    let len = bytes.len() as u64;
    back_up(repository, &MemoryDisk::new(bytes), &[0..len], None).await.unwrap().0
}

/// A disk of `chunks` chunks and a bit, of which those named hold data.
fn disk(chunks: u64, data: &[(u64, u64)]) -> Vec<u8> {
    let mut bytes = vec![0; (chunks * CHUNK + 512) as usize];
    for &(at, seed) in data {
        let at = (at * CHUNK) as usize;
        bytes[at..at + 1000].copy_from_slice(&noise(seed, 1000));
    }
    bytes
}

#[tokio::test]
async fn changed_areas_are_those_whose_bytes_differ() {
    let (_, repository) = repository().await;
    let first = store(&repository, disk(20, &[(1, 1), (2, 2), (9, 3)])).await;
    let second = store(&repository, disk(20, &[(1, 1), (2, 7), (3, 8), (9, 3)])).await;
    assert_eq!(changed(&second, &first).await, [2 * CHUNK..4 * CHUNK]);
    assert_eq!(changed(&first, &first).await, []);
    // One that grew beyond what one page describes, and so has a higher tree.
    let grown = store(&repository, disk(1030, &[(1, 1), (2, 7), (3, 8), (9, 3), (1029, 5)])).await;
    assert_eq!(changed(&grown, &second).await, [1029 * CHUNK..1030 * CHUNK]);
    assert_eq!(changed(&second, &grown).await, [1029 * CHUNK..1030 * CHUNK]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn changed_areas_equal_a_comparison_of_bytes(
        sizes in (1u64..40, 1u64..40),
        one in proptest::collection::vec((0u64..40, 1u64..4), 0..20),
        other in proptest::collection::vec((0u64..40, 1u64..4), 0..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_, repository) = repository().await;
            let cut = |chunks: u64, data: Vec<(u64, u64)>| {
                disk(chunks, &data.into_iter().filter(|&(at, _)| at < chunks).collect::<Vec<_>>())
            };
            let one = store(&repository, cut(sizes.0, one)).await;
            let other = store(&repository, cut(sizes.1, other)).await;
            let areas = changed(&one, &other).await;
            let chunks: Vec<u64> =
                areas.iter().flat_map(|area| area.start / CHUNK..area.end.div_ceil(CHUNK)).collect();
            let expected = by_bytes(&one, &other).await;
            // The chunk that the shorter disk cuts off may be told although only its length differs.
            let cut = sizes.0.min(sizes.1);
            assert!(expected.iter().all(|at| chunks.contains(at)), "{chunks:?} {expected:?}");
            assert!(chunks.iter().all(|at| *at == cut || expected.contains(at)), "{chunks:?} {expected:?}");
        });
    }
}

#[tokio::test]
async fn points_are_found_by_name_disk_and_time() {
    let (_, repository) = repository().await;
    let mut ids = Vec::new();
    for name in ["web", "web", "www", "web"] {
        let record = VmRecord { name: name.into(), ..record() };
        let mut point = repository.begin(record, Consistency::Crash, Default::default()).await.unwrap();
        if name == "www" {
            let first: RecoveryPoint = repository.latest(&vm()).await.unwrap().unwrap();
            assert!(first.disks().is_empty());
            point.add_disk(disk_record()).unwrap();
        }
        ids.push(point.commit().await.unwrap().0.id().clone());
    }
    let ask = async |catalogue: vsphere_backup::repository::Catalogue| {
        let points: Vec<RecoveryPoint> = catalogue.points().try_collect().await.unwrap();
        points.iter().map(|point| ids.iter().position(|id| id == point.id()).unwrap()).collect::<Vec<_>>()
    };
    let all = repository.catalogue();
    assert_eq!(ask(all.clone()).await, [0, 1, 2, 3]);
    assert_eq!(ask(all.clone().vm(vm()).named("web")).await, [0, 1, 3]);
    assert_eq!(ask(all.clone().disk("6000c29A")).await, [2]);
    let at = |at: usize| SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(ids[at].micros());
    assert_eq!(ask(all.clone().between(at(1)..at(3))).await, [1, 2]);
    let names = all.names(&vm()).await.unwrap();
    let names: Vec<_> = names.iter().map(|span| (span.name.as_str(), &span.first, &span.last)).collect();
    assert_eq!(names, [("web", &ids[0], &ids[1]), ("www", &ids[2], &ids[2]), ("web", &ids[3], &ids[3])]);
}

fn disk_record() -> vsphere_backup::repository::DiskRecord {
    vsphere_backup::repository::DiskRecord {
        key: 2000,
        label: "Hard disk 1".into(),
        backing_uuid: Some("6000C29a".into()),
        path: "[ds1] web/web.vmdk".into(),
        capacity: CHUNK,
        change_id: None,
        root: vsphere_backup::repository::TreeRoot::Zero,
        mode: BackupMode::Full,
        reason: String::new(),
        bytes: Default::default(),
        distrust: None,
        metadata: Default::default(),
    }
}
