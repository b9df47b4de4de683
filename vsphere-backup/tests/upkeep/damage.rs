//! Damage of every class of object is found, named, and never restored.

use std::sync::Arc;

use bytes::Bytes;
use vsphere_backup::{
    CancelToken, Error,
    engine::{DiskRestore, MemoryDisk},
    repository::{
        Consistency, RecoveryPoint, Repository, VerifyLevel,
        storage::{Key, MemoryStorage, Storage},
    },
};

use crate::world::*;

struct Stored {
    storage: Arc<MemoryStorage>,
    point: RecoveryPoint,
}

async fn stored() -> Stored {
    let (storage, repository) = repository().await;
    let disk = MemoryDisk::new(sample());
    let (point, _) = back_up(&repository, &disk, &[0..sample().len() as u64], None).await.unwrap();
    Stored { storage, point }
}

impl Stored {
    fn keys(&self, class: &str) -> Vec<Key> {
        let found: Vec<_> = self.storage.keys().into_iter().filter(|key| key.as_str().starts_with(class)).collect();
        assert!(!found.is_empty(), "no object of class {class}");
        found
    }

    fn flip(&self, key: &Key, bit: usize) {
        let mut bytes = self.storage.object(key).unwrap().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        self.storage.tamper(key, Some(bytes.into()));
    }

    /// A fresh view of the storage, as another process has it.
    async fn reopen(&self) -> Result<Repository, Error> {
        open(self.storage.clone()).await
    }
}

/// Bytes before the first frame of a pack and before the bytes of a chunk.
const PACK_HEADER: usize = 64;
const FRAME_HEADER: usize = 56;

/// Bits spread over an object: its begin, its end, and some between.
fn bits(object: &Bytes) -> Vec<usize> {
    let len = object.len() * 8;
    let mut bits: Vec<_> = (0..12).map(|at| at * len / 12 + at % 8).collect();
    bits.extend([0, 65, len - 1, len - 300]);
    bits
}

#[tokio::test]
async fn a_flipped_bit_in_any_object_is_found_by_check() {
    for class in ["config", "packs", "index", "pages", "meta", "points"] {
        let world = stored().await;
        for key in world.keys(class) {
            let good = world.storage.object(&key).unwrap();
            for bit in bits(&good) {
                world.flip(&key, bit);
                let found = match world.reopen().await {
                    Err(error) => error.is_damage(),
                    Ok(repository) => {
                        let report = repository.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
                        !report.is_sound()
                    }
                };
                assert!(found, "bit {bit} of {key} was not found");
                world.storage.tamper(&key, Some(good.clone()));
            }
        }
        let report = world.reopen().await.unwrap();
        let report = report.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
        assert!(report.is_sound(), "{report:?}");
    }
}

#[tokio::test]
async fn a_missing_or_cut_object_is_found_by_check() {
    for class in ["packs", "pages", "meta"] {
        for cut in [None, Some(0), Some(60)] {
            let world = stored().await;
            for key in world.keys(class) {
                let shorter = cut.map(|len| world.storage.object(&key).unwrap().slice(..len));
                world.storage.tamper(&key, shorter);
            }
            let repository = world.reopen().await.unwrap();
            for level in [VerifyLevel::Structure, VerifyLevel::Full] {
                let report = repository.check(level, &CancelToken::new()).await.unwrap();
                assert!(!report.is_sound(), "{class} cut to {cut:?}");
                assert!(!report.points[0].is_sound(), "{class} cut to {cut:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_in_a_chunk_names_disk_offset_and_chunk_and_nothing_wrong_is_written() {
    let world = stored().await;
    let pack = &world.keys("packs")[0];
    // The third chunk's frame: noise, so stored as it is.
    let at = PACK_HEADER + 2 * (FRAME_HEADER + CHUNK as usize) + FRAME_HEADER + 1000;
    world.flip(pack, at * 8 + 3);

    let repository = world.reopen().await.unwrap();
    let point = repository.point(world.point.id()).await.unwrap();
    let none = CancelToken::new();
    let report = point.verify(VerifyLevel::Full, &none, |_, _| {}).await.unwrap();
    let chunk = match &report.damage[..] {
        [Error::DamagedChunk { disk: 2000, offset, chunk, .. }] if *offset == 2 * CHUNK => *chunk,
        other => panic!("{other:?}"),
    };
    let whole = repository.check(VerifyLevel::Full, &none).await.unwrap();
    assert!(matches!(
        &whole.points[0].damage[..],
        [Error::DamagedChunk { disk: 2000, chunk: found, .. }] if *found == chunk
    ));

    let before = vec![0xee; sample().len()];
    let target = MemoryDisk::new(before.clone());
    let reader = point.disk(2000).await.unwrap();
    let error = DiskRestore::new(&reader, &target).run().await.unwrap_err();
    assert!(
        matches!(error, Error::DamagedChunk { disk: 2000, offset, chunk: found, .. }
            if offset == 2 * CHUNK && found == chunk),
        "{error}"
    );
    let text = error.to_string();
    assert!(text.contains("disk 2000") && text.contains("131072") && text.contains(&chunk.to_string()));
    // Every byte of the target is the old or the right one; the damaged chunk's are the old ones.
    let (after, right) = (target.content(), sample());
    assert!((0..after.len()).all(|at| after[at] == before[at] || after[at] == right[at]));
    let damaged = 2 * CHUNK as usize..3 * CHUNK as usize;
    assert_eq!(after[damaged.clone()], before[damaged]);
    // What is not damaged can still be read.
    assert_eq!(reader.read_at(0, CHUNK as usize).await.unwrap(), sample()[..CHUNK as usize]);
}

#[tokio::test]
async fn all_damage_is_reported_not_only_the_first() {
    let world = stored().await;
    let pack = &world.keys("packs")[0];
    for chunk in [0, 4, 7] {
        world.flip(pack, (PACK_HEADER + chunk * (FRAME_HEADER + CHUNK as usize) + 60) * 8);
    }
    let repository = world.reopen().await.unwrap();
    let point = repository.point(world.point.id()).await.unwrap();
    let report = point.verify(VerifyLevel::Full, &CancelToken::new(), |_, _| {}).await.unwrap();
    let offsets: Vec<_> = report
        .damage
        .iter()
        .map(|error| match error {
            Error::DamagedChunk { offset, .. } => offset / CHUNK,
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(offsets, [0, 4, 7]);
    let point = world.reopen().await.unwrap().point(world.point.id()).await.unwrap();
    let structure = point.verify(VerifyLevel::Structure, &CancelToken::new(), |_, _| {}).await.unwrap();
    assert!(structure.is_sound(), "only a full verification reads chunks");
}

#[tokio::test]
async fn a_lost_index_is_rebuilt_from_the_packs() {
    let world = stored().await;
    for key in world.keys("index") {
        world.storage.tamper(&key, None);
    }
    let repository = world.reopen().await.unwrap();
    let point = repository.point(world.point.id()).await.unwrap();
    assert!(content(&point).await.unwrap() == sample());
}

#[tokio::test]
async fn a_full_backup_stores_again_what_a_missing_pack_held() {
    let world = stored().await;
    for key in world.keys("packs") {
        world.storage.tamper(&key, None);
    }
    let repository = world.reopen().await.unwrap();
    let disk = MemoryDisk::new(sample());
    back_up(&repository, &disk, &[0..sample().len() as u64], None).await.unwrap();
    let old = world.reopen().await.unwrap().point(world.point.id()).await.unwrap();
    assert!(content(&old).await.unwrap() == sample());
}

#[tokio::test]
async fn a_pack_that_goes_missing_under_an_open_repository_is_stored_again() {
    let (storage, repository) = repository().await;
    let disk = MemoryDisk::new(sample());
    let whole = 0..sample().len() as u64;
    let (first, _) = back_up(&repository, &disk, std::slice::from_ref(&whole), None).await.unwrap();
    for cut in [None, Some(100)] {
        for key in storage.keys().into_iter().filter(|key| key.is_below("packs")) {
            let shorter = cut.map(|len| storage.object(&key).unwrap().slice(..len));
            storage.tamper(&key, shorter);
        }
        // The same handle, whose index was loaded when the packs were there.
        let (_, done) = back_up(&repository, &disk, std::slice::from_ref(&whole), None).await.unwrap();
        assert!(done.bytes.new > 0, "{done:?}");
        let fresh = open(storage.clone()).await.unwrap();
        assert!(content(&fresh.point(first.id()).await.unwrap()).await.unwrap() == sample());
        assert!(content(&first).await.unwrap() == sample());
    }
}

#[tokio::test]
async fn future_versions_of_each_object_are_refused_as_such() {
    for class in ["config", "index", "pages", "meta", "points"] {
        let world = stored().await;
        for key in world.keys(class) {
            let mut bytes = world.storage.object(&key).unwrap().to_vec();
            bytes[8] = 2;
            let at = bytes.len() - 32;
            let sum = blake3::hash(&bytes[..at]);
            bytes[at..].copy_from_slice(sum.as_bytes());
            world.storage.tamper(&key, Some(bytes.into()));
        }
        let error = async {
            let repository = world.reopen().await?;
            let point = repository.point(world.point.id()).await?;
            point.object("config.json").await?;
            content(&point).await
        }
        .await
        .unwrap_err();
        assert!(matches!(error, Error::UnsupportedVersion { found: 2, supported: 1, .. }), "{class}: {error}");
    }
}

#[tokio::test]
async fn a_manifest_under_another_name_is_refused() {
    let world = stored().await;
    let key = &world.keys("points")[0];
    let copy = key.as_str().replace("-0000-0000-", "-0000-0001-");
    let other = Key::parse(&copy).unwrap();
    world.storage.put(&other, vec![world.storage.object(key).unwrap()]).await.unwrap();
    let repository = world.reopen().await.unwrap();
    let report = repository.check(VerifyLevel::Structure, &CancelToken::new()).await.unwrap();
    assert_eq!((report.damage.len(), report.points.len()), (1, 1));
}

#[tokio::test]
async fn disks_that_together_are_larger_than_numbers_go_are_verified_all_the_same() {
    let (_, repository) = repository().await;
    let mut point = repository.begin(record(), Consistency::Crash, Default::default()).await.unwrap();
    for key in 0..17 {
        let disk = serde_json::json!({ "key": key, "capacity": 1u64 << 60, "root": "zero", "mode": "full" });
        point.add_disk(serde_json::from_value(disk).unwrap()).unwrap();
    }
    let (point, _) = point.commit().await.unwrap();
    let report = point.verify(VerifyLevel::Full, &CancelToken::new(), |_, _| {}).await.unwrap();
    assert!(report.is_sound());
}

#[tokio::test]
async fn a_file_that_no_pack_can_be_is_damage_and_does_not_end_a_check() {
    let folder = tempfile::tempdir().unwrap();
    let repository = Repository::create_local(folder.path(), Default::default()).await.unwrap();
    std::fs::create_dir_all(folder.path().join("packs/00")).unwrap();
    let pack = std::fs::File::create(folder.path().join("packs/00").join("0".repeat(64))).unwrap();
    pack.set_len((1 << 30) + 1).unwrap();
    let report = repository.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert!(report.damage[0].is_damage(), "{report:?}");
}
