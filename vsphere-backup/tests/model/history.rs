//! A history: the machine, its repository, and what every recovery point has to hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use proptest::sample;
use tempfile::TempDir;
use vsphere_backup::{
    Backup, ChangeTracking, Clock, ClockHand, Error, Event, NewVm, PowerPolicy, Restore, RestoreMode, Result, Retries,
    Since,
    engine::Trust,
    journal::Journal,
    repository::{
        BackupMode, CreateOptions, GcOptions, PointId, Repository, Retention, VmId,
        storage::{Fault, Faulty, MemoryStorage},
    },
};
use vsphere_sim::Power;
use vsphere_vim::{Vim, VmLookup};

use crate::{
    login::login,
    machine::{Images, Machine},
    op::{Base, Belief, How, InPlace, Op, Plan, Stop, Way},
    watch::Watch,
    world::CHUNK,
};

pub(crate) struct History {
    pub(crate) machine: Arc<Machine>,
    pub(crate) vim: Vim,
    pub(crate) storage: Arc<MemoryStorage>,
    pub(crate) clock: Clock,
    pub(crate) hand: ClockHand,
    folder: TempDir,
    place: NewVm,
    pub(crate) points: BTreeMap<PointId, Images>,
    /// Points whose deletion may have begun.
    pub(crate) doomed: BTreeSet<PointId>,
    /// A collector was cut off, and its lease may hold.
    collector_left: bool,
    pub(crate) seen: Seen,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) points: u64,
    incremental: u64,
    resumed: u64,
    stopped: u64,
    in_place: u64,
    new_machines: u64,
    pruned: u64,
    /// Packs.
    deleted: u64,
    /// Disks of points that were read and compared.
    pub(crate) proved: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, mut other: Self) {
        self.all().into_iter().zip(other.all()).for_each(|(sum, more)| *sum += *more);
    }

    pub(crate) fn is_everything(mut self) -> bool {
        self.all().iter().all(|count| **count > 0)
    }

    fn all(&mut self) -> [&mut u64; 9] {
        let Self { points, incremental, resumed, stopped, in_place, new_machines, pruned, deleted, proved } = self;
        [points, incremental, resumed, stopped, in_place, new_machines, pruned, deleted, proved]
    }
}

impl History {
    pub(crate) async fn new() -> Self {
        let machine = Machine::new().await;
        let vim = login(&machine.sim).connect().await;
        let (clock, hand) = Clock::by_hand(SystemTime::now());
        let storage = Arc::new(MemoryStorage::with_clock(clock.clone()));
        Repository::create(storage.clone(), CreateOptions::default().chunk_size(CHUNK as u32)).await.unwrap();
        // Journals are synced at every record; memory does that at once.
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let find = async |path: &str| vim.find_by_inventory_path(path).await.unwrap().unwrap();
        let pool = find("dc1/host/esx1.sim.invalid/Resources").await.cast();
        let place = NewVm::named("new", find("dc1/vm").await.cast(), pool);
        Self {
            machine,
            vim,
            storage,
            clock,
            hand,
            folder,
            place,
            points: BTreeMap::new(),
            doomed: BTreeSet::new(),
            collector_left: false,
            seen: Seen::default(),
        }
    }

    pub(crate) async fn take(&mut self, op: &Op) {
        match op {
            Op::Write(write) => self.machine.write(write),
            Op::Snapshot(op) => self.machine.snapshot(op).await,
            Op::ResetTracking(disk) => self.machine.reset_tracking(disk),
            Op::SwitchTracking(on) => self.machine.switch_tracking(*on).await,
            Op::Power(power) => self.machine.set_power(*power),
            Op::Disk(op) => self.machine.disk(op).await,
            Op::Backup(plan) => self.back_up(plan).await,
            Op::InPlace(InPlace { point, way, stop }) => {
                if let Some(point) = self.pick(point) {
                    self.restore(point, *way, *stop).await;
                }
            }
            Op::NewVm { point, stop } => self.restore_to_new(point, *stop).await,
            Op::Prune { keep, cut } => self.prune(*keep, *cut).await,
            Op::Collect { cut } => self.collect(*cut).await,
        }
        if matches!(op, Op::Backup(_) | Op::InPlace(_) | Op::NewVm { .. } | Op::Prune { .. } | Op::Collect { .. }) {
            self.prove(op).await;
        }
    }

    pub(crate) fn journals(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    /// Opens the repository as a new process does.
    pub(crate) async fn repository(&self) -> Repository {
        Repository::open(self.storage.clone()).await.unwrap()
    }

    pub(crate) fn id(&self) -> VmId {
        VmId::parse(&self.machine.sim.vm("web").unwrap().instance_uuid()).unwrap()
    }

    pub(crate) async fn back_up(&mut self, plan: &Plan) {
        let watch = Watch::new(&self.machine, plan.stop, &plan.meanwhile);
        let base = match &plan.base {
            Base::Point(point) => self.pick(point),
            _ => None,
        };
        let keys: Vec<i32> = self.machine.disks().into_keys().collect();
        let excluded = plan.excluded.as_ref().filter(|_| keys.len() > 1).map(|which| keys[which.index(keys.len())]);
        let unmerged = self.is_unmerged();
        let left = !Journal::leftovers(&self.journals()).unwrap().is_empty();
        let distrusted = Arc::new(AtomicBool::new(false));
        let (vm, journals, seen) = (self.machine.vm(), self.journals(), distrusted.clone());
        let (job, hook) = (plan.clone(), watch.clone());
        let outcome = self.run(&watch, async move |vim, repository| {
            let since = match (job.base, base) {
                (Base::Full, _) => Since::Full,
                (Base::Nothing, _) => Since::Nothing,
                (Base::Point(_), Some(id)) => Since::Point(repository.point(&id).await?),
                _ => Since::Latest,
            };
            let trust = match job.belief {
                Belief::All => Trust::Trust,
                Belief::Half => Trust::Sample(0.5),
                Belief::Nothing => Trust::VerifyAll,
            };
            let tracking = if job.enables_tracking { ChangeTracking::Enable } else { ChangeTracking::AsIs };
            let resumes = if job.resumes { Duration::from_secs(3600) } else { Duration::ZERO };
            let backup = Backup::of(&vim, vm)
                .journal(journals)
                .retries(retries())
                .since(since)
                .trust(trust)
                .change_tracking(tracking)
                .resume_within(resumes)
                .checkpoint_every(Duration::ZERO)
                .cancel(&hook.cancel)
                .step_hook(hook.clone())
                .on_event(move |event| {
                    if matches!(event, Event::TrackingDistrusted { .. }) {
                        seen.store(true, Ordering::Relaxed);
                    }
                });
            let backup = excluded.into_iter().fold(backup, Backup::exclude_disk);
            backup.run(&repository).await
        });
        let outcome = outcome.await;
        assert!(!distrusted.load(Ordering::Relaxed), "the server's tracking is right, and was not believed");
        let listed = self.repository().await.points(&self.id()).await.unwrap();
        let mut made: Vec<_> = listed.into_iter().filter(|id| !self.points.contains_key(id)).collect();
        assert!(made.len() <= 1, "two points of one backup");
        if let Some(id) = made.pop() {
            let mut images = self.machine.moment();
            images.retain(|key, _| Some(*key) != excluded);
            self.points.insert(id, images);
            self.seen.points += 1;
        } else {
            assert!(outcome.as_ref().is_none_or(Result::is_err), "a point that was committed is not listed");
        }
        match outcome {
            None => self.seen.stopped += 1,
            Some(Ok(report)) => {
                assert!(report.leftovers.is_empty(), "{:?}", report.leftovers);
                self.seen.resumed += u64::from(report.resumed);
                self.seen.incremental +=
                    u64::from(report.disks.iter().any(|disk| disk.mode == BackupMode::Incremental));
                self.assert_clean(false).await;
            }
            Some(Err(error)) => {
                self.assert_stopped(&watch, &error);
                // One that is cancelled at once undoes nothing of an earlier one.
                if watch.how() == Some(How::Cancel) && !left {
                    self.assert_clean(unmerged).await;
                }
            }
        }
    }

    pub(crate) async fn restore(&mut self, id: PointId, way: Way, stop: Option<Stop>) {
        let (expected, before) = (self.points[&id].clone(), self.machine.disks());
        let mut after = before.clone();
        let mut fitting = Vec::new();
        for (key, image) in &expected {
            if let Some(now) = after.get_mut(key).filter(|now| image.fits(now)) {
                // What grew since keeps what it holds.
                Arc::make_mut(&mut now.bytes)[..image.bytes.len()].copy_from_slice(&image.bytes);
                fitting.push(*key);
            }
        }
        if fitting.is_empty() {
            return;
        }
        let named = if fitting.len() == expected.len() { Vec::new() } else { fitting };
        let watch = Watch::new(&self.machine, stop, &[]);
        let (vm, journals, hook) = (self.machine.vm(), self.journals(), watch.clone());
        let (was, unmerged) = (self.machine.power(), self.is_unmerged());
        let outcome = self.run(&watch, async move |vim, repository| {
            let restore = Restore::of(&repository.point(&id).await?).journal(journals).retries(retries());
            let restore = named.into_iter().fold(restore, Restore::disk).power(PowerPolicy::PowerOff);
            let restore = restore.remove_snapshots(true).cancel(&hook.cancel).step_hook(hook.clone());
            let restore = match way {
                Way::All => restore.mode(RestoreMode::Full),
                Way::OnlyDifferences => restore.mode(RestoreMode::OnlyDifferences),
                Way::ByTracking => restore.mode(RestoreMode::OnlyDifferences).change_tracking(true),
            };
            restore.to_vm(&vim, vm).await
        });
        let outcome = outcome.await;
        self.machine.learn();
        match outcome {
            None => self.seen.stopped += 1,
            Some(Ok(report)) => {
                assert!(report.disks.iter().all(|disk| disk.verified));
                for (key, now) in self.machine.disks() {
                    assert!(now.bytes == after[&key].bytes, "disk {key} is not restored {way:?}");
                }
                let power = if was == Power::On { Power::On } else { Power::Off };
                assert_eq!(self.machine.power(), power);
                self.seen.in_place += 1;
                self.assert_clean(unmerged).await;
            }
            Some(Err(error)) => self.assert_stopped(&watch, &error),
        }
    }

    async fn restore_to_new(&mut self, point: &sample::Index, stop: Option<Stop>) {
        let Some(id) = self.pick(point) else { return };
        let expected = self.points[&id].clone();
        let watch = Watch::new(&self.machine, stop, &[]);
        let (journals, hook, place) = (self.journals(), watch.clone(), self.place.clone());
        let outcome = self.run(&watch, async move |vim, repository| {
            let restore = Restore::of(&repository.point(&id).await?).journal(journals).retries(retries());
            restore.cancel(&hook.cancel).step_hook(hook.clone()).to_new_vm(&vim, place).await
        });
        match outcome.await {
            None => self.seen.stopped += 1,
            Some(Ok(_)) => {
                for (key, image) in expected {
                    assert!(self.machine.content("new", key) == *image.bytes, "disk {key} of the new machine differs");
                }
                self.seen.new_machines += 1;
            }
            Some(Err(error)) => {
                self.assert_stopped(&watch, &error);
            }
        }
        Restore::clean_up(&self.vim, self.journals()).await.unwrap();
        for vm in self.vim.find_vms(&VmLookup::Pattern("**/new".into())).await.unwrap() {
            self.vim.destroy(&vm.moref).await.unwrap();
        }
    }

    async fn prune(&mut self, keep: u32, cut: Option<u64>) {
        let newest: BTreeSet<_> = self.points.keys().rev().take(keep as usize).cloned().collect();
        self.doomed.extend(self.points.keys().filter(|point| !newest.contains(*point)).cloned());
        let retention = Retention::keep().last(keep);
        let pruned = self.apart(cut, async move |repository| repository.prune(None, &retention, false).await);
        match pruned.await {
            Ok(report) => self.seen.pruned += report.deleted().count() as u64,
            Err(error) => assert!(cut.is_some(), "{error}"),
        }
        if cut.is_none() {
            let listed: BTreeSet<_> = self.repository().await.points(&self.id()).await.unwrap().into_iter().collect();
            assert_eq!(listed, newest);
        }
    }

    async fn collect(&mut self, cut: Option<u64>) {
        self.hand.advance(Duration::from_secs(25 * 3600));
        let options = GcOptions::default().clock(self.clock.clone());
        match self.apart(cut, async move |repository| repository.collect_garbage(&options).await).await {
            Ok(report) => {
                assert_eq!(report.missing, 0, "{report:?}");
                self.seen.deleted += report.deleted.packs;
                self.collector_left = cut.is_some();
            }
            // The first look at a dead collector's lease is noted; a run that is cut off may not note it.
            Err(Error::Busy { .. }) if self.collector_left => self.collector_left = cut.is_some(),
            Err(error) => {
                assert!(cut.is_some(), "{error}");
                self.collector_left = true;
            }
        }
    }

    /// Whether layers of removed snapshots wait to be merged.
    fn is_unmerged(&self) -> bool {
        !self.machine.sim.leftovers().unconsolidated.is_empty()
    }

    fn pick(&self, point: &sample::Index) -> Option<PointId> {
        let ids: Vec<_> = self.points.keys().collect();
        (!ids.is_empty()).then(|| ids[point.index(ids.len())].clone())
    }

    /// Runs a job; one that is to be killed as a process of its own, which is `None` when it was.
    async fn run<T, W, F>(&self, watch: &Arc<Watch>, work: W) -> Option<Result<T>>
    where
        W: FnOnce(Vim, Repository) -> F + Send + 'static,
        F: Future<Output = Result<T>> + Send,
        T: Send + 'static,
    {
        if watch.how() != Some(How::Kill) {
            let done = work(self.vim.clone(), self.repository().await).await;
            self.settle().await;
            return Some(done);
        }
        let (login, storage, watch) = (login(&self.machine.sim), self.storage.clone(), watch.clone());
        let process = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let vim = login.connect().await;
                let repository = Repository::open(storage).await.unwrap();
                tokio::select! {
                    biased;
                    () = watch.killed.notified() => None,
                    done = work(vim, repository) => Some(done),
                }
            })
            // No task is polled again: nothing is undone, nothing logged out.
        };
        let done = tokio::task::spawn_blocking(process).await.unwrap();
        self.settle().await;
        done
    }

    /// Runs what works on the repository only as a process of its own, whose storage may be cut off.
    async fn apart<T, W, F>(&self, cut: Option<u64>, work: W) -> Result<T>
    where
        W: FnOnce(Repository) -> F + Send + 'static,
        F: Future<Output = Result<T>> + Send,
        T: Send + 'static,
    {
        let storage = Faulty::new(self.storage.clone(), cut.unwrap_or(u64::MAX), Fault::Cut);
        let process = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { work(Repository::open(Arc::new(storage)).await?).await })
        };
        tokio::task::spawn_blocking(process).await.unwrap()
    }

    fn assert_stopped(&self, watch: &Watch, error: &Error) {
        let expected = match watch.how() {
            Some(How::Cancel) => matches!(error, Error::Cancelled),
            Some(How::Abandon) => matches!(error, Error::Abandoned | Error::Cancelled),
            _ => false,
        };
        assert!(expected, "{:?}: {error:?}", watch.how());
    }
}

fn retries() -> Retries {
    Retries::default().pauses(Duration::from_millis(1), Duration::from_millis(1))
}
