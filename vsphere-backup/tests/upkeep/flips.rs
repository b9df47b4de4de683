//! A flipped bit in any object of any class is found, with and without keys, and never reaches a restored disk.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use vsphere_backup::{
    CancelToken, Clock, Error,
    engine::MemoryDisk,
    repository::{
        CheckOptions, Consistency, CreateOptions, GcOptions, PointId, RecoveryPoint, Repository, VerifyLevel,
        WriterOptions,
        storage::{Key, MemoryStorage},
    },
};

use crate::{machine::restored_and_in_a_set, world::*};

/// A repository with an object of every class.
struct World {
    storage: Arc<MemoryStorage>,
    encrypted: bool,
    /// What each point gives.
    content: BTreeMap<PointId, Vec<u8>>,
}

/// Beside `keys`, which an encrypted repository has only.
const CLASSES: [&str; 13] = [
    "config", "packs", "index", "pages", "meta", "points", "leases", "tombs", "holds", "deleted", "damage", "restored",
    "sets",
];

async fn world(encrypted: bool) -> World {
    let (clock, hand) = Clock::by_hand(SystemTime::now());
    let storage = Arc::new(MemoryStorage::with_clock(clock.clone()));
    let mut options = CreateOptions::default().chunk_size(CHUNK as u32);
    if encrypted {
        options = options.encrypted(password("secret"));
    }
    let repository = Repository::create(storage.clone(), options).await.unwrap();
    let mut points = Vec::new();
    for seed in 0..4 {
        let bytes = [noise(seed, 2 * CHUNK), vec![7; CHUNK as usize], noise(seed + 10, 512)].concat();
        let disk = MemoryDisk::new(bytes.clone());
        let all = 0..bytes.len() as u64;
        points.push((back_up(&repository, &disk, &[all], None).await.unwrap().0, bytes));
    }
    let gc = async || repository.collect_garbage(&GcOptions::default().clock(clock.clone())).await.unwrap();
    // A writer that dies: a fence. What only the first point needs is condemned, in the second run what the next does.
    let dead = repository.begin(record(), Consistency::Crash, WriterOptions::default()).await.unwrap();
    std::mem::forget(dead);
    points.remove(0).0.delete().await.unwrap();
    hand.advance(Duration::from_secs(25 * 3600));
    gc().await;
    points.remove(0).0.delete().await.unwrap();
    hand.advance(Duration::from_secs(25 * 3600));
    gc().await;
    points[0].0.hold("a court wants it", None).await.unwrap();
    // A reader, whose lease was seen by somebody.
    std::mem::forget(points[0].0.pin().await.unwrap());
    gc().await;
    // A deletion of which no collector knows yet.
    let bytes = points[1].1.clone();
    let disk = MemoryDisk::new(bytes);
    back_up(&repository, &disk, &[0..CHUNK], None).await.unwrap().0.delete().await.unwrap();
    let mut world = World {
        storage,
        encrypted,
        content: points.into_iter().map(|(point, bytes)| (point.id().clone(), bytes)).collect(),
    };
    // Damage that was marked, and went away by itself.
    let pack = world.keys("packs").into_iter().max_by_key(|key| world.storage.object(key).unwrap().len()).unwrap();
    let good = world.storage.object(&pack).unwrap();
    world.flip(&pack, 8 * 200);
    let marked =
        world.open().await.unwrap().check_with(&CheckOptions::new(VerifyLevel::Full).mark(true)).await.unwrap();
    assert_eq!(marked.marked, 1, "{marked:?}");
    for (id, bytes) in world.content.clone() {
        let disk = MemoryDisk::new(bytes.clone());
        let all = 0..bytes.len() as u64;
        let (again, _) = back_up(&world.open().await.unwrap(), &disk, &[all], None).await.unwrap();
        world.content.insert(again.id().clone(), bytes.clone());
        assert!(content(&world.open().await.unwrap().point(&id).await.unwrap()).await.unwrap() == bytes);
    }
    world.storage.tamper(&pack, Some(good));
    let opened = async |storage| match encrypted {
        true => open_with(storage, "secret").await.unwrap(),
        false => open(storage).await.unwrap(),
    };
    let (id, bytes) = restored_and_in_a_set(&world.storage, opened).await;
    world.content.insert(id, bytes);
    for class in CLASSES {
        assert!(!world.keys(class).is_empty(), "there is no object of class {class}");
    }
    assert!(world.storage.keys().iter().any(|key| key.as_str().ends_with("-seen")));
    assert_eq!(world.keys("sets").len(), 2, "a set's members and its end: {:?}", world.keys("sets"));
    assert_eq!(world.keys("keys").is_empty(), !encrypted);
    assert!(world.keys("points").iter().any(|key| world.storage.object(key).unwrap().len() == 56), "no fence");
    world
}

impl World {
    fn keys(&self, class: &str) -> Vec<Key> {
        let of = |key: &Key| key.as_str().split('/').next() == Some(class);
        self.storage.keys().into_iter().filter(of).collect()
    }

    fn flip(&self, key: &Key, bit: usize) {
        let mut bytes = self.storage.object(key).unwrap().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        self.storage.tamper(key, Some(bytes.into()));
    }

    async fn open(&self) -> Result<Repository, Error> {
        match self.encrypted {
            true => open_with(self.storage.clone(), "secret").await,
            false => open(self.storage.clone()).await,
        }
    }

    /// Tells whether check finds damage.
    async fn is_found(&self) -> bool {
        match self.open().await {
            Err(error) => error.is_damage(),
            Ok(repository) => !repository.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap().is_sound(),
        }
    }

    /// Reads all disks: each gives its bytes, or an error.
    async fn nothing_wrong_is_restored(&self, what: &str) {
        let Ok(repository) = self.open().await else { return };
        for (id, right) in &self.content {
            let Ok(point) = repository.point(id).await else { continue };
            match content(&point).await {
                Ok(bytes) => assert!(bytes == *right, "{what}: wrong bytes were restored"),
                Err(error) => assert!(error.is_damage(), "{what}: {error}"),
            }
        }
    }
}

/// Flips bits at random places of every object, `each` of them; returns how many were tried.
async fn flip_everywhere(encrypted: bool, each: usize) -> usize {
    let world = world(encrypted).await;
    let none = CancelToken::new();
    let sound = world.open().await.unwrap().check(VerifyLevel::Full, &none).await.unwrap();
    assert!(sound.is_sound(), "{sound:?}");
    let seed = u64::from_le_bytes(
        *blake3::hash(format!("{:?}", SystemTime::now()).as_bytes()).as_bytes().first_chunk().unwrap(),
    );
    println!("encrypted: {encrypted}, seed {seed:#x}");
    let mut random = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut tried = 0;
    for key in world.storage.keys() {
        let good = world.storage.object(&key).unwrap();
        for _ in 0..each {
            let mut bytes = [0; 8];
            random.fill(&mut bytes);
            let bit = u64::from_le_bytes(bytes) as usize % (good.len() * 8);
            let what = format!("bit {bit} of {key}, encrypted: {encrypted}, seed {seed:#x}");
            world.flip(&key, bit);
            assert!(world.is_found().await, "{what} was not found");
            let report = Repository::check_without_keys(world.storage.clone(), &none).await.unwrap();
            assert_eq!(report.damage_count, 1, "{what} was not found without keys: {report:?}");
            world.nothing_wrong_is_restored(&what).await;
            world.storage.tamper(&key, Some(good.clone()));
            tried += 1;
        }
    }
    tried
}

#[tokio::test]
async fn a_flipped_bit_in_every_object_is_found_and_never_restored() {
    let mut tried = 0;
    for encrypted in [false, true] {
        tried += flip_everywhere(encrypted, 2).await;
    }
    println!("{tried} flips");
}

/// The full matrix: `cargo test -p vsphere-backup --test upkeep -- --ignored full_flip_matrix --nocapture`.
#[tokio::test]
#[ignore = "some minutes"]
async fn full_flip_matrix() {
    let mut tried = 0;
    for encrypted in [false, true] {
        tried += flip_everywhere(encrypted, 200).await;
    }
    println!("{tried} flips");
}

#[tokio::test]
async fn what_is_missing_or_cut_is_found_or_of_no_consequence() {
    for encrypted in [false, true] {
        let world = world(encrypted).await;
        for key in world.storage.keys() {
            let good = world.storage.object(&key).unwrap();
            for cut in [None, Some(0), Some(good.len() / 2), Some(good.len() - 1)] {
                world.storage.tamper(&key, cut.map(|len| good.slice(..len)));
                let what = format!("{key} cut to {cut:?}");
                world.nothing_wrong_is_restored(&what).await;
                let class = key.as_str().split('/').next().unwrap();
                let found = match world.open().await {
                    Err(error) => error.is_damage() || matches!(error, Error::NotARepository { .. }),
                    Ok(repository) => {
                        !repository.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap().is_sound()
                    }
                };
                // What is gone and needed by a point is missed; a lost segment is made up for by its packs' ends.
                let needed = match (cut, class) {
                    (None, "config" | "keys") => true,
                    (None, _) => {
                        let repository = world.open().await.unwrap();
                        let mut whole = true;
                        for id in world.content.keys() {
                            whole &= match repository.point(id).await {
                                Ok(point) => is_whole(&point).await,
                                // A point that is not there is not listed either: nothing tells that it ever was.
                                Err(_) => continue,
                            };
                        }
                        !whole
                    }
                    (Some(_), _) => true,
                };
                // Without the pack that replaced it, a chunk is in one only that a mark calls damaged, and which is not: it can
                // be read, and no new point may rely on it.
                let marked = class == "packs" && found;
                assert!(found == needed || marked, "{what}, encrypted: {encrypted}");
                world.storage.tamper(&key, Some(good.clone()));
            }
        }
    }
}

/// Tells whether everything of a point can be read.
async fn is_whole(point: &RecoveryPoint) -> bool {
    let mut whole = content(point).await.is_ok();
    for name in point.manifest().objects.keys() {
        whole &= point.object(name).await.is_ok();
    }
    whole
}

#[tokio::test]
async fn each_cause_has_its_own_error() {
    for encrypted in [false, true] {
        let mut texts = Vec::new();
        let world = world(encrypted).await;
        let id = world.content.keys().next().unwrap().clone();
        let manifest = Key::parse(&format!("points/{id}")).unwrap();
        let good = world.storage.object(&manifest).unwrap();
        let try_point = async || world.open().await.unwrap().point(&id).await.unwrap_err();
        if encrypted {
            texts.push(open_with(world.storage.clone(), "wrong").await.unwrap_err());
            assert!(matches!(texts[0], Error::WrongKey { .. }));
            assert!(matches!(open(world.storage.clone()).await, Err(Error::Encrypted { .. })));
        }
        // Cut short.
        world.storage.tamper(&manifest, Some(good.slice(..good.len() - 9)));
        texts.push(try_point().await);
        // Missing.
        world.storage.tamper(&manifest, None);
        texts.push(try_point().await);
        assert!(matches!(texts.last(), Some(Error::PointNotFound { .. })));
        // Of a future version, and with an unknown feature.
        for (at, bits) in [(8, 2), (10, 0x80)] {
            let mut bytes = good.to_vec();
            bytes[at] |= bits;
            bytes[at] &= if at == 8 { 2 } else { 0xff };
            let sum = bytes.len() - 32;
            let hash = blake3::hash(&bytes[..sum]);
            bytes[sum..].copy_from_slice(hash.as_bytes());
            world.storage.tamper(&manifest, Some(bytes.into()));
            texts.push(try_point().await);
        }
        assert!(matches!(texts[texts.len() - 2], Error::UnsupportedVersion { .. }), "{texts:?}");
        assert!(matches!(texts[texts.len() - 1], Error::UnsupportedFeature { .. }), "{texts:?}");
        world.storage.tamper(&manifest, Some(good.clone()));
        // An old manifest under a new name.
        let copy = Key::parse(&format!("{}0", &manifest.as_str()[..manifest.as_str().len() - 1])).unwrap();
        let copy = if copy == manifest {
            Key::parse(&format!("{}1", &manifest.as_str()[..manifest.as_str().len() - 1])).unwrap()
        } else {
            copy
        };
        world.storage.tamper(&copy, Some(good));
        let report = world.open().await.unwrap().check(VerifyLevel::Structure, &CancelToken::new()).await.unwrap();
        assert_eq!(report.damage_count, 1);
        texts.extend(report.damage);
        world.storage.tamper(&copy, None);
        // Another segment under the name of one.
        let segments = world.keys("index");
        let one = world.storage.object(&segments[0]).unwrap();
        world.storage.tamper(&segments[0], Some(world.storage.object(&segments[1]).unwrap()));
        let report = world.open().await.unwrap().check(VerifyLevel::Structure, &CancelToken::new()).await.unwrap();
        texts.extend(report.damage);
        world.storage.tamper(&segments[0], Some(one));
        // Without the names: what is left says what is wrong with what kind of object.
        let said = |error: &Error| match error {
            Error::Damaged { object, reason } => format!("{}: {reason}", object.split('/').next().unwrap()),
            other => format!("{:?}", std::mem::discriminant(other)),
        };
        let distinct: std::collections::BTreeSet<_> = texts.iter().map(said).collect();
        assert_eq!(distinct.len(), texts.len(), "{texts:?}");
        println!("{texts:#?}");
    }
}

#[tokio::test]
async fn an_old_segment_that_comes_back_is_told_and_does_no_harm() {
    let (clock, hand) = Clock::by_hand(SystemTime::now());
    let storage = Arc::new(MemoryStorage::with_clock(clock.clone()));
    let repository =
        Repository::create(storage.clone(), CreateOptions::default().chunk_size(CHUNK as u32)).await.unwrap();
    let disk = MemoryDisk::new(noise(1, MIB));
    let (gone, _) = back_up(&repository, &disk, &[0..MIB], None).await.unwrap();
    let old: Vec<_> = storage
        .keys()
        .into_iter()
        .filter(|key| key.is_below("index"))
        .map(|key| (storage.object(&key).unwrap(), key))
        .collect();
    gone.delete().await.unwrap();
    for _ in 0..3 {
        hand.advance(Duration::from_secs(25 * 3600));
        repository.collect_garbage(&GcOptions::default().clock(clock.clone())).await.unwrap();
    }
    assert!(storage.keys().iter().all(|key| !key.is_below("index") && !key.is_below("packs")));
    for (bytes, key) in &old {
        storage.tamper(key, Some(bytes.clone()));
    }
    let fresh = open(storage.clone()).await.unwrap();
    let report = fresh.check(VerifyLevel::Structure, &CancelToken::new()).await.unwrap();
    assert_eq!((report.is_sound(), report.stale_segments.len()), (true, old.len()), "{report:?}");
    // What it promises is not believed.
    let (point, done) = back_up(&fresh, &disk, &[0..MIB], None).await.unwrap();
    assert_eq!(done.bytes.new, MIB);
    assert!(content(&point).await.unwrap() == noise(1, MIB));
}
