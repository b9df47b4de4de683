//! Keys: who opens a repository, and that changing that never loses anything.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use proptest::prelude::*;
use vsphere_backup::{
    CancelToken, DiskError, Error,
    engine::MemoryDisk,
    repository::{
        CreateOptions, PointId, Repository, SlotId, VerifyLevel,
        keys::{KeyService, KeySource, RecipientSecret, SecretKey, SlotKind, Unlock},
        storage::{BoxFuture, Fault, Faulty, Key, MemoryStorage},
    },
};

use crate::{encryption::reseal, world::*};

/// A service that turns over all bits and can be out of order.
#[derive(Debug, Default)]
struct Inverting {
    down: AtomicBool,
}

impl Inverting {
    fn check(&self) -> Result<(), DiskError> {
        match self.down.load(Ordering::Relaxed) {
            true => Err(DiskError::new("out of order").retryable(true)),
            false => Ok(()),
        }
    }
}

impl KeyService for Inverting {
    fn name(&self) -> &str {
        "inverting"
    }

    fn wrap<'a>(&'a self, key: &'a SecretKey, context: &'a str) -> BoxFuture<'a, Result<Bytes, DiskError>> {
        Box::pin(async move {
            self.check()?;
            let bytes = key.expose().iter().map(|byte| !byte).chain(context.bytes());
            Ok(bytes.collect())
        })
    }

    fn unwrap<'a>(
        &'a self,
        wrapped: &'a [u8],
        context: &'a str,
    ) -> BoxFuture<'a, Result<Option<SecretKey>, DiskError>> {
        Box::pin(async move {
            self.check()?;
            let (key, bound) = wrapped.split_at(32);
            let key = std::array::from_fn(|at| !key[at]);
            Ok((bound == context.as_bytes()).then(|| SecretKey::new(key)))
        })
    }
}

async fn open_by(storage: &Arc<MemoryStorage>, unlock: Unlock) -> Result<Repository, Error> {
    Repository::open_with(storage.clone(), unlock).await
}

#[tokio::test]
async fn each_kind_of_slot_opens_and_each_failure_is_its_own_error() {
    let (storage, repository) = encrypted_repository().await;
    let recipient = RecipientSecret::generate().unwrap();
    let service = Arc::new(Inverting::default());
    let file = noise(1, 64);
    assert!(matches!(open(storage.clone()).await, Err(Error::Encrypted { .. })));
    for unlock in
        [Unlock::key_file(file.clone()), Unlock::recipient(recipient.clone()), Unlock::service(service.clone())]
    {
        assert!(matches!(open_by(&storage, unlock).await, Err(Error::NoKeySlot { .. })));
    }
    let keys = repository.keys().unwrap();
    keys.add(KeySource::key_file(file.clone()).label("file")).await.unwrap();
    keys.add(KeySource::recipient(recipient.public())).await.unwrap();
    keys.add(KeySource::service(service.clone())).await.unwrap();
    let unlocks = [
        Unlock::password("secret"),
        Unlock::key_file(file.clone()),
        Unlock::recipient(recipient.clone()),
        Unlock::service(service.clone()),
    ];
    for unlock in unlocks {
        let opened = open_by(&storage, unlock).await.unwrap();
        let slots = opened.keys().unwrap().slots().await.unwrap();
        let kinds: Vec<_> = slots.iter().map(|slot| &slot.kind).collect();
        assert!(matches!(
            &kinds[..],
            [SlotKind::Password(_), SlotKind::KeyFile, SlotKind::Recipient(key), SlotKind::Service(name)]
                if *key == recipient.public() && name == "inverting"
        ));
        assert_eq!(slots[1].label, "file");
    }
    let other = RecipientSecret::generate().unwrap();
    for unlock in [Unlock::password("Secret"), Unlock::key_file(noise(2, 64)), Unlock::recipient(other)] {
        let error = open_by(&storage, unlock).await.unwrap_err();
        assert!(matches!(error, Error::WrongKey { slots: 1, .. }), "{error}");
        assert!(!format!("{error:?}{error}").contains("Secret"));
    }
    service.down.store(true, Ordering::Relaxed);
    let error = open_by(&storage, Unlock::service(service)).await.unwrap_err();
    assert!(matches!(&error, Error::KeyService { .. }) && error.is_retryable(), "{error}");
    let (plain, _) = crate::world::repository().await;
    assert!(matches!(open_with(plain, "secret").await, Err(Error::NotEncrypted { .. })));
}

#[tokio::test]
async fn a_slot_of_the_future_and_a_slot_that_is_cut_are_their_own_errors() {
    let (storage, _) = encrypted_repository().await;
    let ring = Key::parse("keys/0000000000000001").unwrap();
    let good = storage.object(&ring).unwrap();
    let future = reseal(&good, |json| json["slots"][0]["kind"] = "moonlight".into());
    let cut = reseal(&good, |json| json["slots"][0]["wrapped"] = "0123".into());
    let costly = reseal(&good, |json| json["slots"][0]["memoryKib"] = (1u32 << 31).into());
    let feature = reseal(&good, |json| json["incompatibleFeatures"] = serde_json::json!(["two of three"]));
    for (bytes, expected) in [(future, "moonlight"), (feature, "two of three")] {
        storage.tamper(&ring, Some(bytes));
        match open_with(storage.clone(), "secret").await.unwrap_err() {
            Error::UnsupportedFeature { feature, .. } => assert!(feature.contains(expected), "{feature}"),
            other => panic!("{other}"),
        }
    }
    for bytes in [cut, costly] {
        storage.tamper(&ring, Some(bytes));
        assert!(matches!(open_with(storage.clone(), "secret").await, Err(Error::Damaged { .. })));
    }
    storage.tamper(&ring, Some(good.slice(..100)));
    open_with(storage.clone(), "secret").await.expect("the copy is whole");
    storage.tamper(&Key::parse("keys/0000000000000001.copy").unwrap(), Some(good.slice(..50)));
    assert!(matches!(open_with(storage.clone(), "secret").await, Err(Error::Damaged { .. })));
}

#[tokio::test]
async fn a_slot_of_the_future_is_kept_when_keys_are_changed_and_does_not_count_as_a_way_in() {
    let (storage, repository) = encrypted_repository().await;
    let keys = repository.keys().unwrap();
    let added = keys.add(password("second")).await.unwrap().added;
    for name in ["keys/0000000000000002", "keys/0000000000000002.copy"] {
        let name = Key::parse(name).unwrap();
        let changed = reseal(&storage.object(&name).unwrap(), |json| json["slots"][0]["kind"] = "moonlight".into());
        storage.tamper(&name, Some(changed));
    }
    let keys = open_with(storage.clone(), "second").await.unwrap().keys().unwrap();
    assert!(matches!(keys.remove(added[0]).await, Err(Error::Invalid { .. })));
    keys.rotate_data_key().await.unwrap();
    let slots = keys.slots().await.unwrap();
    assert_eq!(slots.len(), 2);
    assert_eq!(slots[0].kind, SlotKind::Other("moonlight".into()));
}

#[tokio::test]
async fn an_old_key_ring_under_a_new_number_is_refused() {
    let (storage, repository) = encrypted_repository().await;
    let old = storage.object(&Key::parse("keys/0000000000000001").unwrap()).unwrap();
    let keys = repository.keys().unwrap();
    let first = keys.slots().await.unwrap()[0].id;
    keys.add(password("second")).await.unwrap();
    keys.remove(first).await.unwrap();
    assert!(matches!(open_with(storage.clone(), "secret").await, Err(Error::WrongKey { .. })));
    let replayed = Key::parse("keys/0000000000000009").unwrap();
    storage.tamper(&replayed, Some(old.clone()));
    assert!(open_with(storage.clone(), "secret").await.unwrap_err().is_damage());
    storage.tamper(&replayed, Some(reseal(&old, |json| json["number"] = 9.into())));
    assert!(open_with(storage, "secret").await.unwrap_err().is_damage());
}

#[tokio::test]
async fn writers_go_on_beside_rotations_and_everything_stays_readable() {
    let (storage, first) = encrypted_repository().await;
    let whole = 0..sample().len() as u64;
    let disk = MemoryDisk::new(sample());
    // This writer has begun before the rotations and commits after them.
    let begun =
        first.begin(record(), vsphere_backup::repository::Consistency::Crash, Default::default()).await.unwrap();
    let second = open_with(storage.clone(), "secret").await.unwrap();
    second.keys().unwrap().rotate_data_key().await.unwrap();
    second.keys().unwrap().rotate_key_encryption_key(vec![password("secret"), password("new")]).await.unwrap();
    let (old, _) = begun.commit().await.unwrap();
    let (one, _) = back_up(&second, &disk, std::slice::from_ref(&whole), None).await.unwrap();
    // The first handle meets a data key and a key-encryption key that it has never seen.
    assert!(content(&first.point(one.id()).await.unwrap()).await.unwrap() == sample());
    disk.edit(|bytes| bytes[..10].fill(0x55));
    let parent = first.point(one.id()).await.unwrap();
    let (two, _) = back_up(&first, &disk, &[0..10], Some(&parent)).await.unwrap();
    let fresh = open_with(storage.clone(), "new").await.unwrap();
    assert!(content(&fresh.point(two.id()).await.unwrap()).await.unwrap() == disk.content());
    fresh.point(old.id()).await.unwrap();
    let generations: Vec<_> =
        fresh.keys().unwrap().data_keys().await.unwrap().iter().map(|key| key.generation).collect();
    assert_eq!(generations, [1, 2]);
    let report = fresh.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    // What was written after the rotation is under the new key: its packs say so.
    let news = storage.keys().into_iter().filter(|key| key.is_below("packs"));
    let generations: Vec<_> = news.map(|key| storage.object(&key).unwrap()[12]).collect();
    assert!(generations.iter().all(|&generation| generation == 2), "{generations:?}");
}

#[tokio::test]
async fn without_the_data_key_an_object_is_its_own_error() {
    let (storage, repository) = encrypted_repository().await;
    let old = ["keys/0000000000000001", "keys/0000000000000001.copy"].map(|name| Key::parse(name).unwrap());
    let bytes = old.clone().map(|key| storage.object(&key));
    repository.keys().unwrap().rotate_data_key().await.unwrap();
    let disk = MemoryDisk::new(sample());
    let (point, _) = back_up(&repository, &disk, &[0..100], None).await.unwrap();
    for key in storage.keys().into_iter().filter(|key| key.is_below("keys")) {
        storage.tamper(&key, None);
    }
    old.iter().zip(bytes).for_each(|(key, bytes)| storage.tamper(key, bytes));
    let rolled_back = open_with(storage, "secret").await.unwrap();
    let error = rolled_back.point(point.id()).await.unwrap_err();
    assert!(matches!(error, Error::UnknownDataKey { generation: 2, .. }), "{error}");
}

#[tokio::test]
async fn many_change_keys_at_once_and_no_change_is_lost() {
    let (storage, _) = encrypted_repository().await;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let repository = open_with(storage.clone(), "secret").await.unwrap();
        tasks.spawn(async move {
            for turn in 0..3 {
                let keys = repository.keys().unwrap();
                keys.add(password(&format!("{writer}-{turn}"))).await.unwrap();
                keys.rotate_data_key().await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    for writer in 0..4 {
        for turn in 0..3 {
            let keys = open_with(storage.clone(), &format!("{writer}-{turn}")).await.unwrap().keys().unwrap();
            assert_eq!((keys.slots().await.unwrap().len(), keys.data_keys().await.unwrap().len()), (13, 13));
        }
    }
    assert_eq!(storage.keys().iter().filter(|key| key.is_below("keys")).count(), 2, "older key rings are removed");
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    Add,
    Remove,
    DataKey,
    KeyEncryptionKey,
}

async fn turn(repository: &Repository, turn: Turn, old: SlotId) -> Result<(), Error> {
    let keys = repository.keys()?;
    match turn {
        Turn::Add => keys.add(password("new")).await,
        Turn::Remove => keys.remove(old).await,
        Turn::DataKey => keys.rotate_data_key().await,
        Turn::KeyEncryptionKey => keys.rotate_key_encryption_key(vec![password("new"), password("other")]).await,
    }
    .map(drop)
}

/// A repository of two passwords with a point, and the first password's slot.
async fn two_slots() -> (Arc<MemoryStorage>, PointId, SlotId) {
    let (memory, repository) = encrypted_repository().await;
    repository.keys().unwrap().add(password("other")).await.unwrap();
    let disk = MemoryDisk::new(sample()[..CHUNK as usize].to_vec());
    let (point, _) = back_up(&repository, &disk, &[0..CHUNK], None).await.unwrap();
    (memory, point.id().clone(), repository.keys().unwrap().slots().await.unwrap()[0].id)
}

#[tokio::test]
async fn a_fault_at_every_operation_of_a_change_leaves_the_old_state_or_the_new_one() {
    for step in [Turn::Add, Turn::Remove, Turn::DataKey, Turn::KeyEncryptionKey] {
        let (memory, _, old) = two_slots().await;
        let counting = Arc::new(Faulty::new(memory, u64::MAX, Fault::Error));
        let repository = open_with(counting.clone(), "secret").await.unwrap();
        let opening = counting.operations();
        turn(&repository, step, old).await.unwrap();
        assert!(counting.operations() > opening + 6);
        for (fault, at) in [Fault::Error, Fault::LostAnswer, Fault::Cut]
            .into_iter()
            .flat_map(|fault| (opening..counting.operations()).map(move |at| (fault, at)))
        {
            let (memory, point, old) = two_slots().await;
            let faulty = Arc::new(Faulty::new(memory.clone(), at, fault));
            let result = turn(&open_with(faulty, "secret").await.unwrap(), step, old).await;
            let before = [true, true, false];
            let wanted = match step {
                Turn::Add => [true, true, true],
                Turn::Remove => [false, true, false],
                Turn::DataKey => before,
                Turn::KeyEncryptionKey => [false, true, true],
            };
            let after = opens(&memory, &["secret", "other", "new"]).await;
            assert!(after == wanted || (result.is_err() && after == before), "{step:?} {fault:?} {at}: {after:?}");
            let fresh = open_with(memory.clone(), "other").await.unwrap();
            assert!(content(&fresh.point(&point).await.unwrap()).await.unwrap() == sample()[..CHUNK as usize]);
            // The next change heals what was left: a missing copy, older key rings.
            fresh.keys().unwrap().rotate_data_key().await.unwrap();
            assert_eq!(memory.keys().iter().filter(|key| key.is_below("keys")).count(), 2);
            assert!(fresh.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap().is_sound());
        }
    }
}

async fn opens<const N: usize>(storage: &Arc<MemoryStorage>, passwords: &[&str; N]) -> [bool; N] {
    let mut open = [false; N];
    for (open, password) in open.iter_mut().zip(passwords) {
        *open = match open_with(storage.clone(), password).await {
            Ok(_) => true,
            Err(Error::WrongKey { .. }) => false,
            Err(other) => panic!("{other}"),
        };
    }
    open
}

#[tokio::test]
async fn a_fault_at_every_operation_of_creating_leaves_a_place_where_it_can_be_created() {
    let options = || CreateOptions::default().encrypted(password("secret"));
    for fault in [Fault::Error, Fault::LostAnswer, Fault::Cut] {
        for at in 0..8 {
            let memory = Arc::new(MemoryStorage::new());
            let faulty = Arc::new(Faulty::new(memory.clone(), at, fault));
            let made = Repository::create(faulty, options()).await;
            match Repository::create(memory.clone(), options()).await {
                Ok(_) => assert!(made.is_err(), "{fault:?} at {at}"),
                Err(Error::RepositoryExists { .. }) => {}
                Err(other) => panic!("{fault:?} at {at}: {other}"),
            }
            let repository = open_with(memory, "secret").await.unwrap();
            assert!(repository.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap().is_sound());
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Add(u8),
    Remove(u8),
    DataKey,
    KeyEncryptionKey(Vec<u8>),
    BackUp(u8),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0u8..6).prop_map(Step::Add),
        3 => (0u8..6).prop_map(Step::Remove),
        1 => Just(Step::DataKey),
        1 => proptest::collection::vec(0u8..6, 0..3).prop_map(Step::KeyEncryptionKey),
        2 => any::<u8>().prop_map(Step::BackUp),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..16)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn all_data_stays_readable_by_exactly_the_live_slots(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let storage = Arc::new(MemoryStorage::new());
            let options = CreateOptions::default().chunk_size(CHUNK as u32).encrypted(password("0"));
            let mut repository = Repository::create(storage.clone(), options).await.unwrap();
            let first = repository.keys().unwrap().slots().await.unwrap()[0].id;
            let mut live = vec![(0u8, first)];
            let mut points = Vec::new();
            for step in steps {
                let keys = repository.keys().unwrap();
                match step {
                    Step::Add(name) => {
                        let added = keys.add(password(&name.to_string())).await.unwrap().added;
                        live.push((name, added[0]));
                    }
                    Step::Remove(name) => {
                        let Some(at) = live.iter().position(|(other, _)| *other == name) else { continue };
                        let removed = keys.remove(live[at].1).await;
                        assert_eq!(removed.is_ok(), live.len() > 1);
                        if removed.is_ok() {
                            live.remove(at);
                        }
                    }
                    Step::DataKey => drop(keys.rotate_data_key().await.unwrap()),
                    Step::KeyEncryptionKey(names) => {
                        let sources = names.iter().map(|name| password(&name.to_string())).collect();
                        let rotated = keys.rotate_key_encryption_key(sources).await;
                        assert_eq!(rotated.is_ok(), !names.is_empty());
                        if let Ok(rotated) = rotated {
                            live = names.into_iter().zip(rotated.added).collect();
                        }
                    }
                    Step::BackUp(seed) => {
                        let disk = MemoryDisk::new(vec![seed; 3 * CHUNK as usize - 512]);
                        let (point, _) = back_up(&repository, &disk, &[0..disk.content().len() as u64], None).await.unwrap();
                        points.push((point.id().clone(), disk.content()));
                    }
                    Step::Reopen => repository = open_with(storage.clone(), &live[0].0.to_string()).await.unwrap(),
                }
            }
            for name in 0u8..6 {
                let opened = open_with(storage.clone(), &name.to_string()).await;
                if !live.iter().any(|(other, _)| *other == name) {
                    assert!(matches!(opened, Err(Error::WrongKey { .. })));
                    continue;
                }
                let opened = opened.unwrap();
                for (point, model) in &points {
                    assert!(content(&opened.point(point).await.unwrap()).await.unwrap() == *model);
                }
            }
            let report = repository.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
            assert!(report.is_sound(), "{report:?}");
        });
    }
}
