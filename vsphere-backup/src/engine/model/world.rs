//! A disk, its repository, and what every point has to hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use proptest::sample;

use super::{
    Seen,
    guest::{CHUNK, ChangeId, Guest},
    job::{Interrupted, Job, KEY, Way, vm},
    op::{Broken, Op, Plan, RestoreWay},
};
use crate::{
    cancel::CancelToken,
    clock::{Clock, ClockHand},
    engine::{DiskRestore, MemoryDisk, RestoreMode},
    error::{Error, Result},
    repository::{
        BackupMode, CreateOptions, GcOptions, PointId, Repository, Retention, VerifyLevel,
        storage::{Fault, Faulty, MemoryStorage, Storage},
    },
};

pub(super) struct World {
    storage: Arc<MemoryStorage>,
    repository: Repository,
    clock: Clock,
    hand: ClockHand,
    guest: Guest,
    points: BTreeMap<PointId, Expected>,
    /// Points whose deletion may have begun.
    doomed: BTreeSet<PointId>,
    interrupted: Option<Interrupted>,
    /// A collector was cut off, and its lease may hold.
    collector_left: bool,
    pub(super) seen: Seen,
}

impl World {
    pub(super) async fn new() -> Self {
        let (clock, hand) = Clock::by_hand(SystemTime::now());
        let storage = Arc::new(MemoryStorage::with_clock(clock.clone()));
        let options = CreateOptions::default().chunk_size(CHUNK as u32);
        let repository = Repository::create(storage.clone(), options).await.unwrap();
        Self {
            storage,
            repository,
            clock,
            hand,
            guest: Guest::new(),
            points: BTreeMap::new(),
            doomed: BTreeSet::new(),
            interrupted: None,
            collector_left: false,
            seen: Seen::default(),
        }
    }

    /// Opens the repository as another process does, whose storage meets a fault.
    async fn view(&self, broken: Option<Broken>) -> Result<Repository> {
        match broken {
            None => Repository::open(self.storage.clone()).await,
            Some(Broken { at, fault }) => {
                Repository::open(Arc::new(Faulty::new(self.storage.clone(), at, fault)) as Arc<dyn Storage>).await
            }
        }
    }

    pub(super) async fn take(&mut self, op: &Op) {
        match *op {
            Op::Write { at, sectors, fill } => {
                let range = self.guest.range(at, sectors);
                self.guest.write(range, fill);
            }
            Op::Trim { at, sectors } => {
                let range = self.guest.range(at, sectors);
                self.guest.trim(range);
            }
            Op::Grow { sectors } => self.guest.grow(sectors),
            Op::ResetTracking => self.guest.change = ChangeId { epoch: self.guest.change.epoch + 1, moment: 0 },
            Op::Backup(plan) => {
                self.interrupted = None;
                let snapshot = self.guest.snapshot();
                self.back_up(snapshot, plan, None).await;
            }
            Op::Resume(plan) => {
                let Some(interrupted) = self.interrupted.take() else { return };
                let snapshot = interrupted.snapshot.clone();
                // It had its reason to read all.
                let full = interrupted.mode == BackupMode::Full;
                self.back_up(snapshot, Plan { full, ..plan }, Some(interrupted)).await;
            }
            Op::Prune { keep, broken } => self.prune(keep, broken).await,
            Op::Collect { broken } => self.collect(broken).await,
            Op::Restore { ref point, way } => self.restore(point, way).await,
            Op::Reopen => self.repository = Repository::open(self.storage.clone()).await.unwrap(),
        }
    }

    async fn back_up(&mut self, snapshot: Guest, plan: Plan, interrupted: Option<Interrupted>) {
        let Plan { full, broken, .. } = plan;
        let (begun, kept) = (Mutex::new(None), Mutex::new(None));
        let base = self.repository.latest(&vm()).await.unwrap().map(|base| base.id().clone());
        // What was read of changes since another point does not fit.
        let interrupted = interrupted.filter(|interrupted| interrupted.base == base);
        let areas = base.as_ref().filter(|_| !full).and_then(|base| snapshot.changes_since(self.points[base].change));
        let mode = if areas.is_some() { BackupMode::Incremental } else { BackupMode::Full };
        let interrupted = interrupted.filter(|interrupted| interrupted.mode == mode);
        let job =
            Job { snapshot: &snapshot, base: base.as_ref(), areas, plan, interrupted, begun: &begun, kept: &kept };
        self.seen.broken += u64::from(broken.is_some());
        let done = if broken.is_none() && plan.dies_at.is_none() {
            job.run(&self.repository).await
        } else {
            let world = &*self;
            apart(async move { job.run(&world.view(broken).await?).await })
        };
        let begun: Option<PointId> = begun.into_inner().unwrap();
        let there = self.repository.points(&vm()).await.unwrap();
        let loses = matches!(broken, Some(Broken { fault: Fault::CutLosing(_), .. }));
        let is_there = begun.as_ref().is_some_and(|point| there.contains(point));
        match &done {
            Ok(_) => assert!(is_there || loses, "a point that was committed is not there"),
            Err(error) => assert!(broken.is_some() || plan.dies_at.is_some(), "{error}"),
        }
        match begun {
            Some(point) if is_there => {
                let (bytes, change) = (snapshot.bytes, snapshot.change);
                self.points.insert(point, Expected { bytes, change });
                match done {
                    Ok(Way { resumed: true, .. }) => self.seen.resumed += 1,
                    Ok(Way { mode: BackupMode::Incremental, .. }) => self.seen.incremental += 1,
                    _ => self.seen.full += 1,
                }
            }
            Some(point) => {
                let stored = kept.into_inner().unwrap();
                self.interrupted = stored.map(|stored| Interrupted { snapshot, base, point, mode, stored });
            }
            None => {}
        }
    }

    async fn prune(&mut self, keep: u32, broken: Option<Broken>) {
        let newest: BTreeSet<_> = self.points.keys().rev().take(keep as usize).cloned().collect();
        let prunable = |point: &&PointId| !newest.contains(*point);
        self.doomed.extend(self.points.keys().filter(prunable).cloned());
        let (world, retention) = (&*self, Retention::keep().last(keep));
        let pruned = apart(async { world.view(broken).await?.prune(None, &retention, false).await });
        match pruned {
            Ok(report) => self.seen.pruned += report.deleted().count() as u64,
            Err(error) => assert!(broken.is_some(), "{error}"),
        }
        if broken.is_none() {
            assert_eq!(self.repository.points(&vm()).await.unwrap(), newest.into_iter().collect::<Vec<_>>());
        }
    }

    async fn collect(&mut self, broken: Option<Broken>) {
        self.hand.advance(Duration::from_secs(25 * 3600));
        let options = GcOptions::default().clock(self.clock.clone());
        let world = &*self;
        let collected = apart(async { world.view(broken).await?.collect_garbage(&options).await });
        match collected {
            Ok(report) => {
                assert_eq!(report.missing, 0, "{report:?}");
                self.seen.deleted += report.deleted.packs;
                self.collector_left = broken.is_some();
            }
            // The first look at a dead collector's lease is noted; a run that loses its writes may lose the note.
            Err(Error::Busy { .. }) if self.collector_left => self.collector_left = broken.is_some(),
            Err(error) => {
                assert!(broken.is_some(), "{error}");
                self.collector_left = true;
            }
        }
    }

    async fn restore(&mut self, point: &sample::Index, way: RestoreWay) {
        // No restore begins while there is a snapshot of a backup: it is undone first.
        self.interrupted = None;
        let points: Vec<_> = self.points.iter().collect();
        if points.is_empty() {
            return;
        }
        let (id, expected) = points[point.index(points.len())];
        let disk = self.repository.point(id).await.unwrap().disk(KEY).await.unwrap();
        let target = MemoryDisk::new(self.guest.bytes.clone());
        let restore = DiskRestore::new(&disk, &target);
        let restore = match (way, self.guest.changes_since(expected.change)) {
            (RestoreWay::OnlyDifferences, _) => restore.mode(RestoreMode::OnlyDifferences),
            (RestoreWay::OnlyChanges, Some(changes)) => {
                let inside = |area: Range<u64>| area.start..area.end.min(disk.capacity());
                restore.only(changes.into_iter().map(inside).filter(|area| area.start < area.end).collect())
            }
            _ => restore,
        };
        restore.run().await.unwrap();
        let bytes = target.content();
        assert!(bytes[..expected.bytes.len()] == expected.bytes, "{way:?}");
        let all = 0..bytes.len() as u64;
        self.guest.bytes = bytes;
        self.guest.allocated = vec![all];
        // Tracking may not have seen it: nothing is known of changes since any earlier moment.
        self.guest.change = ChangeId { epoch: self.guest.change.epoch + 1, moment: 0 };
        self.seen.restored += 1;
    }

    /// Every point is there and gives its bytes, whoever reads.
    pub(super) async fn prove(&mut self, op: &Op) {
        let there = self.repository.points(&vm()).await.unwrap();
        for id in &there {
            let expected = self.points.get(id).unwrap_or_else(|| panic!("{id} came from nothing by {op:?}"));
            let disk = self.repository.point(id).await.unwrap().disk(KEY).await.unwrap();
            assert_eq!(disk.capacity(), expected.bytes.len() as u64);
            let bytes = disk.read_at(0, expected.bytes.len()).await.unwrap();
            assert!(bytes == expected.bytes, "{id} has other bytes after {op:?}");
        }
        for id in self.points.keys() {
            assert!(there.contains(id) || self.doomed.contains(id), "{id} is gone after {op:?}");
        }
        self.points.retain(|id, _| there.contains(id));
    }

    pub(super) async fn end(&mut self) {
        self.repository = Repository::open(self.storage.clone()).await.unwrap();
        let report = self.repository.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
        assert!(report.is_sound(), "{report:?}");
        self.prove(&Op::Reopen).await;
    }
}

/// A point as it has to be.
#[derive(Clone, Debug)]
struct Expected {
    bytes: Vec<u8>,
    change: ChangeId,
}

/// Runs something as a process of its own does: what it leaves running in the background ends with it.
fn apart<T: Send>(work: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let process = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(work)
        });
        process.join().unwrap()
    })
}
