//! Every storage and decorator keeps the contract, and whoever breaks it is caught.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use vsphere_backup::{
    Clock,
    repository::storage::{
        AppendOnly, BoxFuture, BoxStream, Fault, Faulty, Key, Limited, LocalStorage, MemoryStorage, ObjectInfo,
        ObjectLocked, ObjectStorage, ReadOnly, Retried, Storage, StorageError, StorageErrorKind, Throttled, Timer,
        conformance::{Conformance, Report, Rule, Violation},
    },
};

/// Small enough for every run of the tests; the whole suite is for stores of others.
fn suite() -> Conformance {
    Conformance::new().large(1 << 20).many(60).races(8, 6)
}

async fn keeps(storage: Arc<dyn Storage>) -> Report {
    suite().run(storage).await.unwrap_or_else(|violation| panic!("{violation}"))
}

fn memory() -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::new())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let reopened = path.clone();
    let suite = suite().reopen(move || {
        let opened = LocalStorage::open(&reopened).unwrap();
        async { Ok(Arc::new(opened) as Arc<dyn Storage>) }
    });
    let report = suite.run(Arc::new(LocalStorage::open(path).unwrap())).await.unwrap();
    assert!(report.kept.contains(&Rule::Durable) && report.kept.len() == 12, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract() {
    keeps(memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_store_keeps_the_contract_also_with_objects_in_parts() {
    let report = suite().large(40 << 20).run(Arc::new(ObjectStorage::memory())).await.unwrap();
    assert!(report.kept.contains(&Rule::Large));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decorators_keep_the_contract() {
    let timer = Timer::by_hand();
    keeps(Arc::new(Throttled::new(memory()).up(1 << 20).down(1 << 20).timer(&timer))).await;
    assert!(timer.now() > Duration::from_secs(3), "megabytes at a megabyte a second: {:?}", timer.now());
    keeps(Arc::new(Limited::new(memory(), 2))).await;
    keeps(Arc::new(Retried::new(memory()))).await;
    keeps(Arc::new(Faulty::new(memory(), u64::MAX, Fault::Error))).await;
    let unlocked = ObjectLocked::new(memory(), Duration::ZERO, Clock::default());
    keeps(Arc::new(unlocked)).await;
    let many = Limited::new(Arc::new(Retried::new(Arc::new(Throttled::new(memory())))), 7);
    keeps(Arc::new(many)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_takes_new_objects_keeps_the_rest_of_the_contract() {
    let locked = ObjectLocked::new(memory(), Duration::from_secs(3600), Clock::default());
    let storages: [Arc<dyn Storage>; 2] = [Arc::new(AppendOnly::new(memory())), Arc::new(locked)];
    for storage in storages {
        let report = suite().append_only().run(storage).await.unwrap();
        assert!(report.kept.contains(&Rule::Refused) && !report.kept.contains(&Rule::Deleted), "{report:?}");
    }
    let violation = suite().append_only().run(memory()).await.unwrap_err();
    assert_eq!(violation.rule, Rule::Refused);
}

#[tokio::test]
async fn a_lock_ends_with_its_time() {
    let (clock, hand) = Clock::by_hand(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1000));
    let inner = Arc::new(MemoryStorage::with_clock(clock.clone()));
    let locked = ObjectLocked::new(inner, Duration::from_secs(60), clock);
    let key = Key::parse("packs/a").unwrap();
    locked.put(&key, vec![Bytes::from("a")]).await.unwrap();
    hand.advance(Duration::from_secs(59));
    let error = locked.delete(&key).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::PermissionDenied);
    assert!(error.source.unwrap().to_string().contains("1060"));
    hand.advance(Duration::from_secs(1));
    locked.delete(&key).await.unwrap();
}

#[tokio::test]
async fn a_read_only_storage_gives_and_refuses() {
    let inner = memory();
    let key = Key::parse("a/b").unwrap();
    inner.put(&key, vec![Bytes::from("a")]).await.unwrap();
    let storage = ReadOnly::new(inner.clone());
    assert_eq!(storage.get(&key, 1).await.unwrap(), "a");
    assert_eq!(storage.list("a").count().await, 1);
    for refused in [
        storage.put(&key, vec![]).await,
        storage.put_new(&Key::parse("c").unwrap(), vec![]).await,
        storage.delete(&key).await,
    ] {
        assert_eq!(refused.unwrap_err().kind, StorageErrorKind::PermissionDenied);
    }
    assert_eq!(inner.keys(), [key]);
}

#[tokio::test]
async fn passing_failures_are_met_and_lasting_ones_told() {
    let timer = Timer::by_hand();
    let retried = |fault| {
        let faulty = Arc::new(Faulty::new(memory(), 1, fault));
        Retried::new(faulty).tries(3).pauses(Duration::from_secs(1), Duration::from_secs(60)).timer(&timer)
    };
    let key = |name: &str| Key::parse(name).unwrap();
    for fault in [Fault::Throttled(2), Fault::LostAnswer] {
        let storage = retried(fault);
        storage.put_new(&key("a"), vec![Bytes::from("a")]).await.unwrap();
        storage.put_new(&key("b"), vec![Bytes::from("b")]).await.unwrap();
        let others = storage.put_new(&key("b"), vec![Bytes::from("c")]).await.unwrap_err();
        assert_eq!(others.kind, StorageErrorKind::AlreadyExists);
    }
    assert_eq!(timer.now(), Duration::from_secs(1 + 2 + 1));
    let storage = retried(Fault::Throttled(2));
    storage.put(&key("a"), vec![]).await.unwrap();
    assert_eq!(storage.list("").collect::<Vec<_>>().await.len(), 1, "a listing that was turned away is begun again");
    let storage = retried(Fault::Cut);
    storage.put(&key("a"), vec![]).await.unwrap();
    assert_eq!(storage.get(&key("a"), 1).await.unwrap_err().kind, StorageErrorKind::Unavailable);
}

#[tokio::test]
async fn limited_lets_no_more_through_and_a_listing_that_rests_holds_no_place() {
    let hanging = Arc::new(Faulty::new(memory(), 0, Fault::Hang));
    let storage = Limited::new(hanging.clone(), 2);
    let key = Key::parse("a").unwrap();
    let mut stuck = storage.get(&key, 1);
    assert!(futures_util::poll!(&mut stuck).is_pending());
    let mut listing = storage.list("");
    assert!(futures_util::poll!(listing.next()).is_ready(), "the second place");
    assert!(futures_util::poll!(storage.get(&key, 1)).is_ready(), "free again while nothing of it is waited for");
    drop(listing);
    assert_eq!(hanging.operations(), 3);
    let full = Limited::new(Arc::new(Faulty::new(memory(), 0, Fault::Hang)), 1);
    let mut stuck = full.get(&key, 1);
    assert!(futures_util::poll!(&mut stuck).is_pending());
    assert!(
        futures_util::poll!(full.list("").next()).is_pending() && futures_util::poll!(full.get(&key, 1)).is_pending()
    );
}

/// A storage that breaks one promise.
#[derive(Debug)]
struct Broken {
    flaw: Flaw,
    objects: Mutex<BTreeMap<String, Bytes>>,
    deleted: Mutex<BTreeMap<String, Bytes>>,
}

#[derive(Clone, Copy, Debug)]
enum Flaw {
    AbsentIsEmpty,
    DeletingNothingFails,
    LastPartLost,
    LimitIgnored,
    RangeCutShort,
    RangeBehindTheEndIsEmpty,
    FirstWriteStays,
    OldTailStays,
    DeletedIsListed,
    CreationReplaces,
    CreationOfTheSameBytesSucceeds,
    LookThenWrite,
    NobodyWins,
    HalfIsSeen,
    ListedByBytes,
    ListingEnds,
    ListedTwice,
    SizesAreWrong,
    CaseIsIgnored,
    LargeIsCut,
    MemoryOnly,
}

/// Each flaw, and the rule that has to find it.
const FLAWS: &[(Flaw, Rule)] = &[
    (Flaw::AbsentIsEmpty, Rule::Absent),
    (Flaw::DeletingNothingFails, Rule::Absent),
    (Flaw::LastPartLost, Rule::Whole),
    (Flaw::LimitIgnored, Rule::Whole),
    (Flaw::RangeCutShort, Rule::Ranges),
    (Flaw::RangeBehindTheEndIsEmpty, Rule::Ranges),
    (Flaw::FirstWriteStays, Rule::Replaced),
    (Flaw::OldTailStays, Rule::Replaced),
    (Flaw::DeletedIsListed, Rule::Deleted),
    (Flaw::CreationReplaces, Rule::Exclusive),
    (Flaw::CreationOfTheSameBytesSucceeds, Rule::Exclusive),
    (Flaw::LookThenWrite, Rule::Exclusive),
    (Flaw::NobodyWins, Rule::Exclusive),
    (Flaw::HalfIsSeen, Rule::Atomic),
    (Flaw::ListedByBytes, Rule::Listed),
    (Flaw::ListingEnds, Rule::Listed),
    (Flaw::ListedTwice, Rule::Listed),
    (Flaw::SizesAreWrong, Rule::Listed),
    (Flaw::CaseIsIgnored, Rule::Named),
    (Flaw::LargeIsCut, Rule::Large),
    (Flaw::MemoryOnly, Rule::Durable),
];

#[tokio::test]
async fn every_broken_promise_is_found_by_its_rule() {
    for &(flaw, rule) in FLAWS {
        let broken: Arc<dyn Storage> = Arc::new(Broken { flaw, objects: Mutex::default(), deleted: Mutex::default() });
        let again = broken.clone();
        let suite = suite().reopen(move || {
            let anew: Arc<dyn Storage> =
                if matches!(flaw, Flaw::MemoryOnly) { Arc::new(MemoryStorage::new()) } else { again.clone() };
            async { Ok(anew) }
        });
        let Violation { rule: found, what, .. } = suite.run(broken).await.expect_err(&format!("{flaw:?}"));
        // Sizes and lines of listings are already looked at by earlier rules.
        let earlier = matches!(flaw, Flaw::SizesAreWrong | Flaw::ListedTwice) && found < rule;
        assert!(found == rule || earlier, "{flaw:?} was found by {found:?}: {what}");
    }
}

impl Broken {
    fn name(&self, key: &Key) -> String {
        if matches!(self.flaw, Flaw::CaseIsIgnored) { key.as_str().to_lowercase() } else { key.to_string() }
    }

    fn find(&self, operation: &'static str, key: &Key) -> Result<Bytes, StorageError> {
        match self.objects.lock().unwrap().get(&self.name(key)) {
            Some(bytes) => Ok(bytes.clone()),
            None if matches!(self.flaw, Flaw::AbsentIsEmpty) => Ok(Bytes::new()),
            None => Err(StorageError::new(StorageErrorKind::NotFound, operation, key)),
        }
    }

    fn store(&self, key: &Key, mut bytes: Bytes) {
        let name = self.name(key);
        self.deleted.lock().unwrap().remove(&name);
        let mut objects = self.objects.lock().unwrap();
        match (self.flaw, objects.get(&name)) {
            (Flaw::FirstWriteStays, Some(_)) => return,
            (Flaw::OldTailStays, Some(old)) if old.len() > bytes.len() => {
                bytes = [&bytes, &old[bytes.len()..]].concat().into();
            }
            (Flaw::LargeIsCut, _) => bytes.truncate(1_000_000),
            _ => {}
        }
        objects.insert(name, bytes);
    }

    fn join(&self, mut parts: Vec<Bytes>) -> Bytes {
        if matches!(self.flaw, Flaw::LastPartLost) && parts.len() > 1 {
            parts.pop();
        }
        parts.concat().into()
    }
}

impl Storage for Broken {
    fn get<'a>(&'a self, key: &'a Key, limit: u64) -> BoxFuture<'a, Result<Bytes, StorageError>> {
        Box::pin(async move {
            let bytes = self.find("get", key)?;
            if bytes.len() as u64 > limit && !matches!(self.flaw, Flaw::LimitIgnored) {
                return Err(StorageError::new(StorageErrorKind::TooLarge, "get", key));
            }
            Ok(bytes)
        })
    }

    fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, StorageError>> {
        Box::pin(async move {
            let bytes = self.find("get range", key)?;
            let len = bytes.len() as u64;
            let lenient = match self.flaw {
                Flaw::RangeCutShort => range.start < len,
                Flaw::RangeBehindTheEndIsEmpty => range.start >= len,
                _ => false,
            };
            if range.end > len && !lenient {
                return Err(StorageError::new(StorageErrorKind::OutOfRange, "get range", key));
            }
            Ok(bytes.slice(range.start.min(len) as usize..range.end.min(len) as usize))
        })
    }

    fn put<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            let bytes = self.join(parts);
            if matches!(self.flaw, Flaw::HalfIsSeen) {
                self.store(key, bytes.slice(..bytes.len() / 2));
                tokio::task::yield_now().await;
            }
            self.store(key, bytes);
            Ok(())
        })
    }

    fn put_new<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            let bytes = self.join(parts);
            let there = self.objects.lock().unwrap().get(&self.name(key)).cloned();
            let taken = || Err(StorageError::new(StorageErrorKind::AlreadyExists, "create", key));
            match (self.flaw, there) {
                (Flaw::CreationReplaces, _) => {}
                (Flaw::CreationOfTheSameBytesSucceeds, Some(there)) if there == bytes => {}
                (_, Some(_)) => return taken(),
                (Flaw::LookThenWrite, None) => tokio::task::yield_now().await,
                (Flaw::NobodyWins, None) if key.as_str().contains("race") => {
                    self.store(key, bytes);
                    return taken();
                }
                _ => {}
            }
            self.store(key, bytes);
            Ok(())
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<ObjectInfo, StorageError>> {
        let mut objects = self.objects.lock().unwrap().clone();
        if matches!(self.flaw, Flaw::DeletedIsListed) {
            objects.extend(self.deleted.lock().unwrap().clone());
        }
        let bytewise = matches!(self.flaw, Flaw::ListedByBytes);
        let mut found: Vec<_> = objects
            .into_iter()
            .map(|(name, bytes)| {
                let wrong = u64::from(matches!(self.flaw, Flaw::SizesAreWrong));
                let size = bytes.len() as u64 + wrong;
                ObjectInfo { key: Key::parse(&name).unwrap(), size, modified: None }
            })
            .filter(|object| object.key.is_below(prefix) || bytewise && object.key.as_str().starts_with(prefix))
            .collect();
        match self.flaw {
            Flaw::ListingEnds => found.truncate(50),
            Flaw::ListedTwice => found.extend(found.first().cloned()),
            _ => {}
        }
        stream::iter(found.into_iter().map(Ok)).boxed()
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            let name = self.name(key);
            match self.objects.lock().unwrap().remove(&name) {
                Some(bytes) => drop(self.deleted.lock().unwrap().insert(name, bytes)),
                None if matches!(self.flaw, Flaw::DeletingNothingFails) => {
                    return Err(StorageError::new(StorageErrorKind::NotFound, "delete", key));
                }
                None => {}
            }
            Ok(())
        })
    }

    fn location(&self) -> String {
        "broken".into()
    }
}
