//! Encrypted repositories: what they hide, what they refuse, and that others can read them.

use std::sync::Arc;

use bytes::Bytes;
use vsphere_backup::{
    CancelToken, Error,
    engine::MemoryDisk,
    repository::{
        PointId, RecoveryPoint, Repository, VerifyLevel,
        keys::{KeySource, RecipientSecret, SecretKey, Unlock},
        storage::{Key, MemoryStorage, Storage},
    },
};

use crate::world::*;

async fn stored() -> (Arc<MemoryStorage>, RecoveryPoint) {
    let (storage, repository) = encrypted_repository().await;
    let disk = MemoryDisk::new(sample());
    let (point, _) = back_up(&repository, &disk, &[0..sample().len() as u64], None).await.unwrap();
    (storage, point)
}

fn keys_of(storage: &MemoryStorage, class: &str) -> Vec<Key> {
    let found: Vec<_> = storage.keys().into_iter().filter(|key| key.as_str().starts_with(class)).collect();
    assert!(!found.is_empty(), "no object of class {class}");
    found
}

#[tokio::test]
async fn what_was_stored_comes_back_and_nothing_of_it_is_seen() {
    let (storage, point) = stored().await;
    let disk = MemoryDisk::new(sample());
    disk.edit(|bytes| bytes[..10].fill(0x55));
    let repository = open_with(storage.clone(), "secret").await.unwrap();
    assert!(repository.is_encrypted());
    let parent = repository.point(point.id()).await.unwrap();
    let (next, _) = back_up(&repository, &disk, &[0..10], Some(&parent)).await.unwrap();
    let fresh = open_with(storage.clone(), "secret").await.unwrap();
    assert!(content(&fresh.point(point.id()).await.unwrap()).await.unwrap() == sample());
    assert!(content(&fresh.point(next.id()).await.unwrap()).await.unwrap() == disk.content());
    let report = fresh.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
    assert!(report.is_sound(), "{report:?}");

    let (noise, disk) = (sample(), sample());
    let secrets =
        [&noise[..16], &disk[3 << 20..(3 << 20) + 16], b"Hard disk 1", b"[ds1]", br#""name""#, b"52 de/7", b"web.vmdk"];
    for key in storage.keys() {
        let bytes = storage.object(&key).unwrap();
        for secret in secrets {
            assert!(!bytes.windows(secret.len()).any(|part| part == secret), "{key} shows {secret:?}");
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_in_any_object_is_found_with_and_without_keys() {
    let (storage, _) = stored().await;
    let none = CancelToken::new();
    let sound = Repository::check_without_keys(storage.clone(), &none).await.unwrap();
    assert!(sound.is_sound() && sound.packs > 0 && sound.chunks > 5, "{sound:?}");
    for class in ["config", "keys", "packs", "index", "pages", "meta", "points"] {
        for key in keys_of(&storage, class) {
            let good = storage.object(&key).unwrap();
            let len = good.len() * 8;
            for bit in (0..6).map(|at| at * len / 6 + at).chain([65, 97, len - 1, len - 300]) {
                let mut bytes = good.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                storage.tamper(&key, Some(bytes.into()));
                let found = match open_with(storage.clone(), "secret").await {
                    Err(error) => error.is_damage(),
                    Ok(repository) => !repository.check(VerifyLevel::Full, &none).await.unwrap().is_sound(),
                };
                assert!(found, "bit {bit} of {key} was not found");
                let report = Repository::check_without_keys(storage.clone(), &none).await.unwrap();
                assert_eq!(report.damage.len(), 1, "bit {bit} of {key} was not found without keys: {report:?}");
                storage.tamper(&key, Some(good.clone()));
            }
        }
    }
}

#[tokio::test]
async fn an_object_under_the_name_of_another_is_refused() {
    for class in ["pages", "meta", "points", "index"] {
        let (storage, first) = stored().await;
        let repository = open_with(storage.clone(), "secret").await.unwrap();
        let disk = MemoryDisk::new(noise(5, 1 << 20));
        back_up(&repository, &disk, &[0..1 << 20], None).await.unwrap();
        let keys = keys_of(&storage, class);
        let other = storage.object(&keys[1]).unwrap();
        storage.tamper(&keys[0], Some(other));
        let report = Repository::check_without_keys(storage.clone(), &CancelToken::new()).await.unwrap();
        assert!(report.is_sound(), "a hash alone cannot tell");
        let fresh = open_with(storage, "secret").await.unwrap();
        let report = fresh.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
        assert!(!report.is_sound(), "{class}");
        let _ = first;
    }
}

#[tokio::test]
async fn plain_objects_in_an_encrypted_repository_are_refused() {
    let (storage, point) = stored().await;
    let (other, plain) = repository().await;
    let disk = MemoryDisk::new(sample());
    let (forged, _) = back_up(&plain, &disk, &[0..sample().len() as u64], None).await.unwrap();
    let name = Key::parse(&format!("points/{}", forged.id())).unwrap();
    storage.tamper(&name, other.object(&name));
    for key in keys_of(&other, "packs") {
        storage.tamper(&key, other.object(&key));
    }
    let repository = open_with(storage.clone(), "secret").await.unwrap();
    assert!(repository.point(forged.id()).await.unwrap_err().is_damage());
    assert!(content(&repository.point(point.id()).await.unwrap()).await.unwrap() == sample());
    let report = repository.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
    assert!(report.damage.len() >= 2, "the manifest and the pack: {report:?}");

    // With a plain config in the place of the encrypted one, nobody who has a key goes on writing.
    storage.tamper(&Key::parse("config").unwrap(), other.object(&Key::parse("config").unwrap()));
    assert!(matches!(open_with(storage, "secret").await, Err(Error::NotEncrypted { .. })));
}

#[tokio::test]
async fn another_config_under_the_same_keys_is_refused() {
    let (storage, _) = stored().await;
    let config = Key::parse("config").unwrap();
    let changed = reseal(&storage.object(&config).unwrap(), |json| json["chunkSize"] = 131_072.into());
    storage.tamper(&config, Some(changed));
    let error = open_with(storage, "secret").await.unwrap_err();
    assert!(error.is_damage(), "{error}");
}

/// Changes the JSON of a plain object and puts it into a right envelope again.
pub(crate) fn reseal(object: &Bytes, change: impl FnOnce(&mut serde_json::Value)) -> Bytes {
    let mut json = serde_json::from_slice(&object[24..object.len() - 32]).unwrap();
    change(&mut json);
    let body = json.to_string();
    let mut bytes = object[..16].to_vec();
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(body.as_bytes());
    let sum = blake3::hash(&bytes);
    bytes.extend_from_slice(sum.as_bytes());
    bytes.into()
}

/// A repository that `encrypted-v1.py` wrote from `FORMAT.md`, with other implementations of everything.
#[tokio::test]
async fn a_repository_of_an_independent_writer_is_read() {
    let text = include_str!("../data/encrypted-v1.txt");
    let storage = Arc::new(MemoryStorage::new());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, digits) = line.split_once(' ').unwrap();
        let pairs = (0..digits.len()).step_by(2);
        let bytes: Vec<_> = pairs.map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect();
        storage.put(&Key::parse(name).unwrap(), vec![bytes.into()]).await.unwrap();
    }
    let recipient = RecipientSecret::new(&SecretKey::new(std::array::from_fn(|at| at as u8 + 1)));
    let ways = [
        Unlock::password("correct horse"),
        Unlock::key_file((0..64).collect::<Vec<u8>>()),
        Unlock::recipient(recipient),
    ];
    for unlock in ways {
        let repository = Repository::open_with(storage.clone(), unlock).await.unwrap();
        let id = PointId::parse("vm-1/20261122T000000.000000Z-0123456789abcdef").unwrap();
        let point = repository.point(&id).await.unwrap();
        assert_eq!(point.object("config.json").await.unwrap().unwrap(), "{}");
        let disk = point.disk(2000).await.unwrap();
        let mut expected = vec![0; 65_536];
        expected.extend((0..1000u32).map(|at| ((at * at) >> 4) as u8));
        assert!(disk.read_at(0, expected.len()).await.unwrap() == expected);
        let report = repository.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
        assert!(report.is_sound(), "{report:?}");
    }
    let wrong = Repository::open_with(storage, Unlock::password("correct hors")).await;
    assert!(matches!(wrong, Err(Error::WrongKey { slots: 1, .. })));
}

#[tokio::test]
async fn a_source_that_protects_nothing_is_refused() {
    let (_, repository) = encrypted_repository().await;
    let keys = repository.keys().unwrap();
    let low_order = vsphere_backup::repository::RecipientKey::parse(&"00".repeat(32)).unwrap();
    for source in [KeySource::password(""), KeySource::key_file(vec![1; 31]), KeySource::recipient(low_order)] {
        let error = keys.add(source).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
    }
    assert_eq!(keys.slots().await.unwrap().len(), 1);
}
