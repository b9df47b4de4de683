//! Garbage is collected beside everything else, and interrupted at every operation.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::task::JoinHandle;
use vsphere_backup::{
    CancelToken, Clock, ClockHand, Error, Result,
    engine::MemoryDisk,
    repository::{
        Consistency, CreateOptions, GcLimits, GcOptions, GcReport, RecoveryPoint, Repository, VerifyLevel,
        WriterOptions,
        storage::{
            BoxFuture, BoxStream, Fault, Faulty, Key, MemoryStorage, ObjectInfo, Storage, StorageError,
            StorageErrorKind,
        },
    },
};

use crate::{gate::Gate, world::*};

const DAY: Duration = Duration::from_secs(25 * 3600);

/// A repository whose objects are dated by a clock that the test moves.
struct World {
    storage: Arc<MemoryStorage>,
    repository: Repository,
    clock: Clock,
    hand: ClockHand,
    /// What each point must give.
    expected: Vec<(RecoveryPoint, Vec<u8>)>,
}

impl World {
    async fn new() -> Self {
        let (clock, hand) = Clock::by_hand(SystemTime::now());
        let storage = Arc::new(MemoryStorage::with_clock(clock.clone()));
        let options = CreateOptions::default().chunk_size(CHUNK as u32);
        let repository = Repository::create(storage.clone(), options).await.unwrap();
        Self { storage, repository, clock, hand, expected: Vec::new() }
    }

    /// Two points, of which the first is deleted; what only it needed is old enough to be condemned.
    async fn with_garbage() -> Self {
        let mut world = Self::new().await;
        let old = world.back_up(&first_content(), None).await;
        world.back_up(&second_content(), Some(&old)).await;
        world.hand.advance(DAY);
        world.delete(0).await;
        world
    }

    async fn back_up(&mut self, content: &[u8], parent: Option<&RecoveryPoint>) -> RecoveryPoint {
        let disk = MemoryDisk::new(content.to_vec());
        let all = 0..content.len() as u64;
        let (point, _) = back_up(&self.repository, &disk, &[all], parent).await.unwrap();
        self.expected.push((point.clone(), content.to_vec()));
        point
    }

    async fn delete(&mut self, at: usize) {
        self.expected.remove(at).0.delete().await.unwrap();
    }

    fn options(&self) -> GcOptions {
        GcOptions::default().clock(self.clock.clone())
    }

    async fn collect(&self) -> GcReport {
        open(self.storage.clone()).await.unwrap().collect_garbage(&self.options()).await.unwrap()
    }

    /// Collects until nothing is left to do, the dead are fenced, and proves that it comes to an end.
    async fn collect_all(&self) {
        for run in 0.. {
            self.hand.advance(DAY);
            let report = match open(self.storage.clone()).await.unwrap().collect_garbage(&self.options()).await {
                // Of a collector that was cut: seen once, dead a day later.
                Err(Error::Busy { .. }) if run == 0 => continue,
                other => other.unwrap(),
            };
            if report.condemned.is_empty() && report.waiting.is_empty() && report.deleted.is_empty() {
                break;
            }
            assert!(run < 6, "{report:?}");
        }
        for prefix in ["tombs", "leases", "deleted"] {
            assert_eq!(self.count(prefix), 0, "{prefix}: {:?}", self.storage.keys());
        }
    }

    fn count(&self, prefix: &str) -> usize {
        self.storage.keys().iter().filter(|key| key.is_below(prefix)).count()
    }

    /// Every committed point gives its bytes, whoever reads, and the repository is sound.
    async fn prove(&self, what: &str) {
        let fresh = open(self.storage.clone()).await.unwrap();
        let report = fresh.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
        assert!(report.is_sound(), "{what}: {report:?}");
        let points = fresh.points(&vm()).await.unwrap();
        let want: Vec<_> = self.expected.iter().map(|(point, _)| point.id().clone()).collect();
        assert_eq!(points, want, "{what}");
        for (point, bytes) in &self.expected {
            let point = fresh.point(point.id()).await.unwrap();
            assert!(content(&point).await.unwrap() == *bytes, "{what}");
        }
    }
}

fn first_content() -> Vec<u8> {
    noise(11, 20 * CHUNK)
}

/// Shares some chunks with the first.
fn second_content() -> Vec<u8> {
    let mut bytes = noise(12, 20 * CHUNK);
    bytes[..5 * CHUNK as usize].copy_from_slice(&first_content()[..5 * CHUNK as usize]);
    bytes
}

#[tokio::test]
async fn what_no_point_needs_is_condemned_by_one_run_and_deleted_by_the_next() {
    let mut world = World::with_garbage().await;
    let asked = world.repository.collect_garbage(&world.options().dry_run(true)).await.unwrap();
    let before = world.storage.keys();
    assert!(asked.dry_run && asked.condemned.packs > 0);
    assert_eq!(world.count("tombs") + world.count("leases"), 0);

    let first = world.collect().await;
    assert_eq!((first.condemned, first.deleted.is_empty(), first.points), (asked.condemned, true, 1));
    assert!(before.iter().all(|key| key.is_below("deleted") || world.storage.object(key).is_some()));
    world.prove("condemned").await;
    assert_eq!(world.collect().await.deleted.packs, 0, "the grace runs");

    world.hand.advance(DAY);
    let second = world.collect().await;
    assert!(second.deleted.packs > 0 && second.deleted.pages > 0 && second.deleted.objects > 0, "{second:?}");
    assert!(second.refused.is_empty() && second.missing == 0);
    world.prove("deleted").await;
    world.collect_all().await;
    world.prove("all").await;

    world.delete(0).await;
    world.collect_all().await;
    for prefix in ["packs", "pages", "meta", "index", "points"] {
        assert_eq!(world.count(prefix), 0, "{prefix}");
    }
}

#[tokio::test]
async fn what_is_young_is_left_alone() {
    let mut world = World::new().await;
    world.back_up(&first_content(), None).await;
    world.delete(0).await;
    assert!(world.collect().await.condemned.is_empty());
}

#[tokio::test]
async fn a_pack_of_which_little_is_needed_is_rewritten_and_readers_find_its_chunks() {
    let world = World::with_garbage().await;
    // Opened before: its index says where chunks were.
    let reader = open(world.storage.clone()).await.unwrap();
    let reading = reader.point(world.expected[0].0.id()).await.unwrap();
    assert!(content(&reading).await.unwrap() == world.expected[0].1);
    let bytes = || -> usize {
        let packs = world.storage.keys().into_iter().filter(|key| key.is_below("packs"));
        packs.map(|key| world.storage.object(&key).unwrap().len()).sum()
    };
    let before = bytes();
    assert_eq!(before / CHUNK as usize, 35);
    let report = world.collect().await;
    assert!(report.compacted > 0 && report.rewritten > 0, "{report:?}");
    world.collect_all().await;
    assert_eq!(bytes() / CHUNK as usize, 20, "no chunk but those that are needed");
    world.prove("compacted").await;
    assert!(content(&reading).await.unwrap() == world.expected[0].1, "an old view finds what was moved");
}

#[tokio::test]
async fn several_reads_at_once_find_what_was_moved() {
    let world = World::with_garbage().await;
    let gate = Gate::new(world.storage.clone());
    let (through, id) = (gate.clone(), world.expected[0].0.id().clone());
    let opening = tokio::spawn(async move {
        let point = open(through).await.unwrap().point(&id).await.unwrap();
        let disk = point.disk(2000).await.unwrap();
        disk.read_at(10 * CHUNK, 1).await.unwrap();
        disk
    });
    while gate.pass(1, &opening).await {}
    let disk = opening.await.unwrap();
    world.collect().await;
    world.collect_all().await;

    let reads: Vec<_> = [0, 2]
        .map(|chunk| {
            let disk = disk.clone();
            tokio::spawn(async move { disk.read_at(chunk * CHUNK, CHUNK as usize).await })
        })
        .into();
    // Both miss the pack that is gone before either has read the index again.
    gate.pass(2, &reads[0]).await;
    gate.open();
    for (read, chunk) in reads.into_iter().zip([0, 2]) {
        let bytes = read.await.unwrap().unwrap();
        assert!(bytes == world.expected[0].1[(chunk * CHUNK) as usize..][..CHUNK as usize]);
    }
}

#[tokio::test]
async fn a_grace_without_end_lets_nothing_be_deleted() {
    let world = World::with_garbage().await;
    assert!(world.collect().await.condemned.packs > 0);
    world.hand.advance(400 * DAY);
    let report = world.repository.collect_garbage(&world.options().grace(Duration::MAX)).await.unwrap();
    assert!(report.deleted.is_empty() && report.waiting.packs > 0, "{report:?}");
}

#[tokio::test]
async fn what_a_clock_from_the_future_condemned_is_condemned_anew() {
    let world = World::with_garbage().await;
    let (ahead, _) = Clock::by_hand(world.clock.now() + 4000 * DAY);
    let first = world.repository.collect_garbage(&world.options().clock(ahead)).await.unwrap();
    assert!(first.condemned.packs > 0, "{first:?}");
    assert!(world.collect().await.condemned.packs > 0);
    world.collect_all().await;
    world.prove("by two clocks").await;
}

#[tokio::test]
async fn little_memory_takes_more_passes_and_gives_the_same() {
    let world = World::with_garbage().await;
    let dry = world.options().dry_run(true);
    let one = world.repository.collect_garbage(&dry).await.unwrap();
    let mut limits = GcLimits::default();
    limits.memory = 300;
    let many = world.repository.collect_garbage(&dry.limits(limits)).await.unwrap();
    assert!(one.passes == 1 && many.passes > 2, "{} and {}", one.passes, many.passes);
    assert_eq!((one.condemned, one.chunks, one.compacted), (many.condemned, many.chunks, many.compacted));
}

#[tokio::test]
async fn a_pin_keeps_a_point_that_is_deleted() {
    let mut world = World::with_garbage().await;
    let point = world.expected[0].0.clone();
    let bytes = world.expected[0].1.clone();
    let pin = point.pin().await.unwrap();
    world.delete(0).await;
    // Looks less than the time to live apart: alive.
    for _ in 0..4 {
        world.collect_without_time_for_leases().await;
        assert!(content(&point).await.unwrap() == bytes);
    }
    pin.check().unwrap();
    pin.release().await;
    assert!(matches!(point.pin().await, Err(Error::PointNotFound { .. })));
    world.collect_all().await;
    assert_eq!(world.count("packs"), 0);
}

impl World {
    async fn collect_without_time_for_leases(&self) {
        self.hand.advance(Duration::from_secs(60));
        let options = self.options().grace(Duration::from_secs(30));
        self.repository.collect_garbage(&options).await.unwrap();
    }
}

/// How a test's writer is treated by collectors.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Writer {
    /// Its lease is as good as renewed.
    Alive,
    /// It sleeps for days.
    Asleep,
}

/// Begins a backup that brings back what was deleted, on top of the point that is there.
fn spawn_writer(world: &World, gate: &Arc<Gate>, writer: Writer) -> JoinHandle<Result<RecoveryPoint>> {
    let parent = world.expected[0].0.id().clone();
    let storage: Arc<dyn Storage> = gate.clone();
    let ttl = match writer {
        Writer::Alive => 1000 * DAY,
        Writer::Asleep => Duration::from_secs(900),
    };
    tokio::spawn(async move {
        let repository = open(storage).await?;
        let parent = repository.point(&parent).await?;
        let disk = MemoryDisk::new(first_content());
        let options = WriterOptions::default().lease(ttl).workers(1);
        let all = 0..20 * CHUNK;
        Ok(back_up_with(&repository, &disk, &[all], Some(&parent), options).await?.0)
    })
}

/// A writer is stopped before its operation number `k`, collectors run days long, and it goes on; for every `k`.
async fn stop_the_writer_everywhere(writer: Writer, condemned_before: bool, delete_parent: bool) -> (usize, usize) {
    let (mut committed, mut failed) = (0, 0);
    for k in 0.. {
        let what = format!("{writer:?}, condemned before: {condemned_before}, delete: {delete_parent}, at {k}");
        let mut world = World::with_garbage().await;
        if condemned_before {
            world.collect().await;
            world.hand.advance(DAY);
        }
        let gate = Gate::new(world.storage.clone());
        let task = spawn_writer(&world, &gate, writer);
        let stopped = gate.pass(k, &task).await;
        if delete_parent {
            // May be gone only after the writer has pinned it, or the writer must say so.
            world.delete(0).await;
        }
        for _ in 0..3 {
            world.collect().await;
            world.hand.advance(DAY);
        }
        gate.open();
        match task.await.unwrap() {
            Ok(point) => {
                committed += 1;
                world.expected.push((world.repository.point(point.id()).await.unwrap(), first_content()));
            }
            Err(Error::Fenced { .. }) if writer == Writer::Asleep => failed += 1,
            Err(Error::PointNotFound { .. }) if delete_parent => failed += 1,
            Err(error) => panic!("{what}: {error}"),
        }
        world.prove(&what).await;
        world.collect_all().await;
        world.prove(&what).await;
        if !stopped {
            return (committed, failed);
        }
    }
    unreachable!()
}

#[tokio::test]
async fn a_writer_that_lives_is_waited_for_wherever_it_is() {
    for condemned_before in [false, true] {
        let (committed, failed) = stop_the_writer_everywhere(Writer::Alive, condemned_before, false).await;
        assert!(committed > 20 && failed == 0, "{committed} and {failed}");
        eprintln!("a writer that lives: {committed} places");
    }
}

#[tokio::test]
async fn a_writer_that_sleeps_for_days_is_fenced_or_had_committed() {
    for condemned_before in [false, true] {
        let (committed, failed) = stop_the_writer_everywhere(Writer::Asleep, condemned_before, false).await;
        assert!(committed > 2 && failed > 10, "{committed} and {failed}");
        eprintln!("a writer that sleeps: {committed} places committed, {failed} fenced");
    }
}

#[tokio::test]
async fn a_parent_that_is_deleted_stays_for_a_writer_that_pinned_it() {
    for condemned_before in [false, true] {
        let (committed, failed) = stop_the_writer_everywhere(Writer::Alive, condemned_before, true).await;
        assert!(committed > 5 && failed > 2, "{committed} and {failed}");
        eprintln!("a deleted parent: {committed} places committed, {failed} told");
    }
}

/// A collector is stopped before its operation number `k`, somebody else works, and it goes on; for every `k`.
async fn stop_the_collector_everywhere(ripe: bool, asleep: bool) -> usize {
    for k in 0.. {
        let what = format!("ripe: {ripe}, asleep: {asleep}, at {k}");
        let mut world = World::with_garbage().await;
        if ripe {
            world.collect().await;
            world.hand.advance(DAY);
        }
        let gate = Gate::new(world.storage.clone());
        let options = world.options();
        let storage: Arc<dyn Storage> = gate.clone();
        let collector = tokio::spawn(async move { open(storage).await?.collect_garbage(&options).await });
        let stopped = gate.pass(k, &collector).await;
        if asleep {
            // Others take it for dead and do its work.
            for _ in 0..4 {
                let other = open(world.storage.clone()).await.unwrap().collect_garbage(&world.options()).await;
                assert!(matches!(other, Ok(_) | Err(Error::Busy { .. })), "{what}: {other:?}");
                world.hand.advance(DAY);
            }
        }
        // What was deleted comes back, on a parent that goes.
        let parent = world.expected[0].0.clone();
        world.back_up(&first_content(), Some(&parent)).await;
        world.delete(0).await;
        gate.open();
        match collector.await.unwrap() {
            Ok(_) => {}
            Err(Error::Fenced { .. }) if asleep => {}
            // It meets what others did meanwhile.
            Err(Error::Storage(error)) if asleep && error.kind == StorageErrorKind::NotFound => {}
            Err(error) => panic!("{what}: {error}"),
        }
        world.prove(&what).await;
        world.collect_all().await;
        world.prove(&what).await;
        if !stopped {
            return k;
        }
    }
    unreachable!()
}

#[tokio::test]
async fn a_backup_and_a_deletion_at_every_operation_of_a_collector_lose_nothing() {
    for ripe in [false, true] {
        let operations = stop_the_collector_everywhere(ripe, false).await;
        assert!(operations > 30, "{operations}");
        eprintln!("a collector, ripe: {ripe}: {operations} places");
    }
}

#[tokio::test]
async fn a_collector_that_sleeps_for_days_does_no_harm_when_it_goes_on() {
    for ripe in [false, true] {
        let operations = stop_the_collector_everywhere(ripe, true).await;
        assert!(operations > 30, "{operations}");
    }
}

#[tokio::test]
async fn a_fault_at_every_operation_of_a_collector_is_made_good_by_the_next() {
    for fault in [Fault::Error, Fault::LostAnswer, Fault::Cut] {
        for ripe in [false, true] {
            for k in 0.. {
                let what = format!("{fault:?}, ripe: {ripe}, at {k}");
                let world = World::with_garbage().await;
                if ripe {
                    world.collect().await;
                    world.hand.advance(DAY);
                }
                let faulty = Arc::new(Faulty::new(world.storage.clone(), k, fault));
                let work = async { open(faulty.clone()).await?.collect_garbage(&world.options()).await };
                let done = work.await;
                world.prove(&what).await;
                world.collect_all().await;
                world.prove(&what).await;
                let sizes = ["packs", "pages", "meta"].map(|prefix| world.count(prefix));
                assert_eq!((sizes[1], sizes[2]), (1, 1), "{what}: one point is left");
                assert!(sizes[0] <= 4, "{what}: {sizes:?}");
                if faulty.operations() <= k {
                    assert!(done.is_ok());
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn of_two_collectors_one_works() {
    let world = World::with_garbage().await;
    let gate = Gate::new(world.storage.clone());
    let (options, storage): (_, Arc<dyn Storage>) = (world.options(), gate.clone());
    let first = tokio::spawn(async move { open(storage).await?.collect_garbage(&options).await });
    assert!(gate.pass(8, &first).await);
    let second = world.repository.collect_garbage(&world.options()).await;
    let error = second.unwrap_err();
    assert!(matches!(&error, Error::Busy { what } if what.contains("collecting garbage")), "{error}");
    assert!(error.is_retryable());
    gate.open();
    assert!(!first.await.unwrap().unwrap().condemned.is_empty());
}

/// A store that deletes nothing below some prefixes, as one with object lock.
#[derive(Debug)]
struct Locked(Arc<MemoryStorage>, &'static [&'static str]);

impl Storage for Locked {
    fn get<'a>(&'a self, key: &'a Key, limit: u64) -> BoxFuture<'a, Result<bytes::Bytes, StorageError>> {
        self.0.get(key, limit)
    }
    fn get_range<'a>(
        &'a self,
        key: &'a Key,
        range: std::ops::Range<u64>,
    ) -> BoxFuture<'a, Result<bytes::Bytes, StorageError>> {
        self.0.get_range(key, range)
    }
    fn put<'a>(&'a self, key: &'a Key, parts: Vec<bytes::Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
        self.0.put(key, parts)
    }
    fn put_new<'a>(&'a self, key: &'a Key, parts: Vec<bytes::Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
        self.0.put_new(key, parts)
    }
    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<ObjectInfo, StorageError>> {
        self.0.list(prefix)
    }
    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            if self.1.iter().any(|prefix| key.is_below(prefix)) {
                return Err(StorageError::new(StorageErrorKind::PermissionDenied, "delete", key));
            }
            self.0.delete(key).await
        })
    }
    fn location(&self) -> String {
        "locked".into()
    }
}

#[tokio::test]
async fn a_store_that_refuses_deletes_is_told_of_and_not_fought() {
    for locked in [&["packs", "pages"][..], &[""][..]] {
        let world = World::with_garbage().await;
        let refusing = open(Arc::new(Locked(world.storage.clone(), locked))).await.unwrap();
        let mut refused = 0;
        for _ in 0..4 {
            let report = refusing.collect_garbage(&world.options()).await.unwrap();
            refused += report.refused.len();
            assert_eq!(report.deleted.packs, 0);
            world.hand.advance(DAY);
        }
        assert!(refused > 0);
        world.prove("refused").await;
        world.collect_all().await;
        world.prove("allowed later").await;
    }
}

#[tokio::test]
async fn a_damaged_page_or_manifest_stops_a_collection_and_a_damaged_tombstone_does_not() {
    let world = World::with_garbage().await;
    world.collect().await;
    world.hand.advance(DAY);
    let list = world.storage.keys().into_iter().find(|key| key.is_below("tombs") && key.file_name() == "list").unwrap();
    let good = world.storage.object(&list).unwrap();
    world.storage.tamper(&list, Some(good.slice(1..)));
    // A writer that cannot know what is condemned shares nothing, and goes on.
    let disk = MemoryDisk::new(second_content());
    let fresh = open(world.storage.clone()).await.unwrap();
    let (_, done) = back_up(&fresh, &disk, &[0..20 * CHUNK], None).await.unwrap();
    assert_eq!(done.bytes.new, 20 * CHUNK);
    let report = world.collect().await;
    assert!(report.deleted.is_empty() && !report.condemned.is_empty(), "condemned anew");

    for prefix in ["pages", "points"] {
        let world = World::with_garbage().await;
        let point = world.expected[0].0.clone();
        let victims: Vec<_> = world.storage.keys().into_iter().filter(|key| key.is_below(prefix)).collect();
        let mut stopped = 0;
        for key in victims {
            let good = world.storage.object(&key).unwrap();
            world.storage.tamper(&key, Some(good.slice(..good.len() - 1)));
            match world.repository.collect_garbage(&world.options()).await {
                Err(error) if error.is_damage() => stopped += 1,
                // A page of the deleted point.
                other => drop(other.unwrap()),
            }
            world.storage.tamper(&key, Some(good));
        }
        assert_eq!(stopped, 1, "{prefix}");
        assert!(content(&point).await.unwrap() == second_content());
    }
}

#[tokio::test]
async fn a_flipped_bit_in_a_lease_a_tombstone_a_hold_a_record_or_a_fence_is_found() {
    let mut world = World::with_garbage().await;
    world.back_up(&first_content(), None).await;
    world.delete(1).await;
    world.expected[0].0.hold("kept", None).await.unwrap();
    let pin = world.expected[0].0.pin().await.unwrap();
    let writer = world.repository.begin(record(), Consistency::Crash, WriterOptions::default()).await.unwrap();
    world.collect().await;
    world.hand.advance(DAY);
    // Fences the writer and ends the pin.
    world.collect().await;
    world.back_up(&first_content(), None).await;
    world.delete(1).await;
    let again = world.expected[0].0.pin().await.unwrap();
    world.prove("before").await;
    for (prefix, least) in [("leases", 1), ("tombs", 2), ("holds", 1), ("deleted", 1), ("points", 2)] {
        let keys: Vec<_> = world.storage.keys().into_iter().filter(|key| key.is_below(prefix)).collect();
        assert!(keys.len() >= least, "{prefix}: {keys:?}");
        for key in keys {
            let good = world.storage.object(&key).unwrap();
            for bit in [0, 70, good.len() * 4, good.len() * 8 - 1] {
                let mut bad = good.to_vec();
                bad[bit / 8] ^= 1 << (bit % 8);
                world.storage.tamper(&key, Some(bad.into()));
                let report = world.repository.check(VerifyLevel::Structure, &CancelToken::new()).await.unwrap();
                assert!(!report.is_sound(), "bit {bit} of {key}");
            }
            world.storage.tamper(&key, Some(good));
        }
    }
    assert!(matches!(writer.commit().await, Err(Error::Fenced { .. })));
    drop((pin, again));
}

#[tokio::test]
async fn a_local_folder_is_collected_to_the_last_file() {
    let folder = tempfile::tempdir().unwrap();
    let options = CreateOptions::default().chunk_size(CHUNK as u32);
    let repository = Repository::create_local(folder.path(), options).await.unwrap();
    let all = [0..20 * CHUNK];
    let (old, _) = back_up(&repository, &MemoryDisk::new(first_content()), &all, None).await.unwrap();
    let (new, _) = back_up(&repository, &MemoryDisk::new(second_content()), &all, Some(&old)).await.unwrap();
    old.delete().await.unwrap();
    // As a killed writer leaves them.
    for name in ["packs/0a#1", "leases/0a#2"] {
        std::fs::write(folder.path().join(name), "half").unwrap();
    }
    let (clock, hand) = Clock::by_hand(SystemTime::now());
    let options = GcOptions::default().grace(Duration::ZERO).clock(clock);
    assert_eq!(repository.collect_garbage(&options).await.unwrap().unfinished, 0, "they may be written now");
    hand.advance(DAY);
    let options = options.grace(Duration::from_secs(24 * 3600));
    let (mut deleted, mut unfinished) = (0, 0);
    for _ in 0..4 {
        let report = repository.collect_garbage(&options).await.unwrap();
        (deleted, unfinished) = (deleted + report.deleted.packs, unfinished + report.unfinished);
        hand.advance(DAY);
    }
    assert_eq!(unfinished, 2);
    assert!(deleted > 0);
    assert!(content(&new).await.unwrap() == second_content());
    new.delete().await.unwrap();
    for _ in 0..2 {
        repository.collect_garbage(&options).await.unwrap();
        hand.advance(DAY);
    }
    let mut left = Vec::new();
    let mut folders = vec![folder.path().to_path_buf()];
    while let Some(path) = folders.pop() {
        for entry in std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap()) {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => left.push(entry.file_name()),
            }
        }
    }
    assert_eq!(left, ["config"]);
}
