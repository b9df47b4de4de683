//! One case after the other: set up, let it go wrong, and see that all is well.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::TryStreamExt;
use vsphere_backup::{
    CancelToken, Error, Restore, Result,
    journal::Journal,
    repository::{
        GcOptions, PointId, Repository, Retention, VerifyLevel,
        storage::{self, Faulty},
    },
    step::Side,
};

use vsphere_sim::Leftovers;

use crate::{
    case::{Chance, Fault, Flow, Group, Machine, Runner, faults},
    panics,
    scene::{Job, Scene},
    trip::{How, Trip},
};

/// What was tried and what failed.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: Mutex<Counts>,
    failures: Mutex<Vec<String>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    groups: usize,
    cases: usize,
    met: Met,
}

/// In how many cases what was to go wrong did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Met {
    /// Processes that the kernel ended.
    pub(crate) killed: usize,
    /// Flows that never came to the place, as they need not take the same steps each time.
    pub(crate) missed: usize,
}

type Verdict = Result<(), String>;

/// Groups that run one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    pub(crate) runner: Runner,
    pub(crate) groups: Vec<Group>,
    /// For how long, how many cases of each group, and the seed by which they are chosen.
    pub(crate) limit: Option<(Duration, usize, u64)>,
}

impl Tally {
    /// Runs shares, each in a task of its own.
    pub(crate) async fn of(shares: Vec<Share>) -> Arc<Self> {
        let tally = Arc::new(Self::default());
        let mut tasks = tokio::task::JoinSet::new();
        for share in shares {
            let tally = tally.clone();
            tasks.spawn(async move { tally.run(share).await });
        }
        tasks.join_all().await;
        tally
    }

    async fn run(&self, share: Share) {
        let begun = Instant::now();
        panics::watch();
        let is_over = || share.limit.is_some_and(|(limit, ..)| begun.elapsed() > limit);
        for &group in &share.groups {
            if is_over() {
                break;
            }
            let mut scene = Scene::new(group, share.runner).await;
            let mut cases = scene.faults().await;
            if share.runner == Runner::Process {
                cases.retain(Fault::kills_process);
            }
            if let Some((_, each, seed)) = share.limit {
                Chance::new(seed).shuffle(&mut cases);
                cases.truncate(each);
            }
            self.counts.lock().unwrap().groups += 1;
            let (mut kills, mut ran) = (0, 0);
            for case in cases {
                if is_over() {
                    break;
                }
                let kills_runtime = matches!(case, Fault::Step(_, _, how) if how.kills());
                kills += usize::from(share.runner == Runner::Process || kills_runtime);
                self.counts.lock().unwrap().cases += 1;
                ran += 1;
                let verdict = tokio::time::timeout(LIMIT, scene.try_one(case)).await;
                let verdict = verdict.unwrap_or_else(|_| Err(format!("it did not end within {LIMIT:?}")));
                let panics = panics::take();
                let silent = || ensure(panics.is_empty(), || format!("panics: {panics:?}"));
                if let Err(what) = verdict.and_then(|()| silent()) {
                    self.fail(format!("{:?}, {group:?}, {case:?}: {what}", share.runner));
                    self.count(scene.met);
                    // What it left must not be held against the next one.
                    (scene, kills) = (Scene::new(group, share.runner).await, 0);
                }
            }
            if share.limit.is_none() {
                println!("{:?}, {group:?}: {ran} cases after {:?}", share.runner, begun.elapsed());
            }
            self.count(scene.met);
            if let Err(what) = scene.end(kills).await {
                self.fail(format!("{:?}, {group:?}, at the end: {what}", share.runner));
            }
        }
    }

    fn count(&self, met: Met) {
        let sum = &mut self.counts.lock().unwrap().met;
        sum.killed += met.killed;
        sum.missed += met.missed;
    }

    fn fail(&self, what: String) {
        println!("FAILED {what}");
        self.failures.lock().unwrap().push(what);
    }

    /// Prints the counts, and panics when anything failed or too little was tried.
    pub(crate) fn report(&self, cases: usize, killed: usize) {
        let (counts, failures) = (*self.counts.lock().unwrap(), self.failures.lock().unwrap());
        let Counts { groups, cases: tried, met } = counts;
        let Met { killed: processes, missed } = met;
        println!(
            "fault matrix: {tried} cases in {groups} groups, {} failed; {processes} processes were killed, {missed} cases \
             ended before their fault",
            failures.len()
        );
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        assert!(tried >= cases, "too few cases to prove anything: {counts:?}");
        assert!(processes >= killed, "too few processes were killed: {counts:?}");
        assert!(missed <= tried / 10, "too few faults were met: {counts:?}");
    }
}

impl Scene {
    /// Finds out what can go wrong, by running the flow once with nothing going wrong.
    async fn faults(&mut self) -> Vec<Fault> {
        self.prepare().await;
        let counting = Arc::new(Faulty::new(self.storage.clone(), u64::MAX, storage::Fault::Error));
        let repository = Repository::open(counting.clone()).await.unwrap();
        let trip = Trip::new(None);
        let before = self.points().await;
        self.job().run(&self.vim, &repository, &trip, &CancelToken::new()).await.unwrap();
        self.assert_right(&before).await.unwrap_or_else(|what| panic!("{:?}, without a fault: {what}", self.group));
        faults(&trip.steps(), counting.operations())
    }

    async fn try_one(&mut self, case: Fault) -> Verdict {
        self.forget().await;
        self.prepare().await;
        let before = self.points().await;
        let outcome = match case {
            _ if self.runner == Runner::Process => self.kill_process(case).await,
            Fault::Step(step, number, how) => {
                let trip = Trip::new(Some((step, number, how)));
                let outcome = match how {
                    How::Kill | How::KillAfter => self.kill(&trip).await,
                    How::Hang => self.hang(self.repository().await, &trip, trip.tripped.notified()).await,
                    _ => self.job().run(&self.vim, &self.repository().await, &trip, &CancelToken::new()).await,
                };
                // What passes is met by another try, wherever another try is harmless.
                let tried_again = how == How::Passing && step.side() == Side::Server && !ONCE.contains(&step.name());
                if let (true, Err(error)) = (tried_again, &outcome) {
                    return Err(format!("it was not tried again: {error:?}"));
                }
                self.note(case, trip.is_met());
                outcome
            }
            Fault::Storage(at, fault) => {
                let faulty = Arc::new(Faulty::new(self.storage.clone(), at, fault));
                let outcome = match Repository::open(faulty.clone()).await_or_hang().await {
                    None => Err(Error::Abandoned),
                    Some(Err(error)) => Err(error),
                    Some(Ok(repository)) if fault == storage::Fault::Hang => {
                        let trip = Trip::new(None);
                        let reached = async {
                            while faulty.operations() <= at {
                                tokio::time::sleep(Duration::from_millis(2)).await;
                            }
                        };
                        self.hang(repository, &trip, reached).await
                    }
                    Some(Ok(repository)) => {
                        self.job().run(&self.vim, &repository, &Trip::new(None), &CancelToken::new()).await
                    }
                };
                self.note(case, faulty.operations() > at);
                outcome
            }
        };
        let points = self.points().await;
        let made = points.difference(&before).count();
        // A store that takes back what it acknowledged takes back a point, too.
        let keeps = !matches!(case, Fault::Storage(_, storage::Fault::CutLosing(_)));
        let makes = keeps && self.group.flow.backs_up();
        if makes && outcome.is_ok() && made != 1 || made > 1 {
            return Err(format!("{made} points were made: {outcome:?}"));
        }
        self.next_succeeds().await.map_err(|what| format!("{what}\n  after {outcome:?}"))?;
        self.assert_right(&before).await.map_err(|what| format!("{what}\n  after {outcome:?}"))
    }

    /// Notes whether a case's fault was met.
    pub(crate) fn note(&mut self, case: Fault, met: bool) {
        if !met {
            println!("{:?}, {:?}, {case:?}: it ended before", self.runner, self.group);
            self.met.missed += 1;
        } else if self.runner == Runner::Process {
            self.met.killed += 1;
        }
    }

    /// Deletes what thousands of cases would have to look at again and again.
    async fn forget(&self) {
        let adds = self.group.flow.backs_up() || self.group.flow == Flow::InPlace;
        if adds && self.points().await.len() > 6 {
            let keep = Retention::keep().last(3);
            self.repository().await.prune(Some(&self.id()), &keep, false).await.unwrap();
        }
    }

    /// Cancels a job once something was met; undoing that hangs, too, is given up.
    async fn hang(&self, repository: Repository, trip: &Arc<Trip>, met: impl Future<Output = ()>) -> Result<()> {
        let (job, vim, trip, cancel) = (self.job(), self.vim.clone(), trip.clone(), CancelToken::new());
        let token = cancel.clone();
        let mut running = tokio::spawn(async move { job.run(&vim, &repository, &trip, &token).await });
        tokio::select! {
            done = &mut running => return done.unwrap(),
            () = met => {}
        }
        for stop in [CancelToken::cancel, CancelToken::abandon] {
            stop(&cancel);
            if let Ok(done) = tokio::time::timeout(Duration::from_millis(40), &mut running).await {
                return done.unwrap();
            }
        }
        running.await.unwrap()
    }

    /// Runs a job in a runtime of its own that is torn down when the step is met, as a killed process is.
    async fn kill(&self, trip: &Arc<Trip>) -> Result<()> {
        let (job, login, storage, trip): (Job, _, _, _) =
            (self.job(), self.login(), self.storage.clone(), trip.clone());
        let killed = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let vim = login.connect().await;
                let repository = Repository::open(storage).await.unwrap();
                let (job, work) = (job, trip.clone());
                let running = tokio::spawn(async move { job.run(&vim, &repository, &work, &CancelToken::new()).await });
                tokio::select! {
                    biased;
                    () = trip.tripped.notified() => Err(Error::Abandoned),
                    done = running => done.unwrap(),
                }
            })
            // No task is polled again: nothing is undone, nothing logged out.
        };
        tokio::task::spawn_blocking(killed).await.unwrap()
    }

    /// The same flow, or what is called after a crash before it, by a new process.
    async fn next_succeeds(&self) -> Verdict {
        if self.group.flow == Flow::NewVm {
            Restore::clean_up(&self.vim, self.journals()).await.map_err(|error| format!("no clean-up: {error:?}"))?;
            // A restore whose last answer was lost has made it.
            self.destroy_new().await?;
        }
        for _ in 0..4 {
            let next = self.job().run(&self.vim, &self.repository().await, &Trip::new(None), &CancelToken::new()).await;
            match next {
                Ok(()) => return Ok(()),
                // A collector that was cut short is seen once, and dead a day later.
                Err(Error::Busy { .. }) => self.hand.advance(Duration::from_secs(25 * 3600)),
                Err(error) => return Err(format!("the next run fails: {error:?}")),
            }
        }
        Err("a collector is never dead".into())
    }

    async fn points(&self) -> BTreeSet<PointId> {
        self.repository().await.points(&self.id()).await.unwrap().into_iter().collect()
    }

    /// All points are whole, the newest is the disk, the machine is as it is to be, and nothing is left.
    async fn assert_right(&self, before: &BTreeSet<PointId>) -> Verdict {
        let (repository, points) = (self.repository().await, self.points().await);
        let kept = before.iter().rev().take(if self.group.flow == Flow::Prune { 2 } else { usize::MAX });
        for id in kept {
            ensure(points.contains(id), || format!("{id} is gone"))?;
        }
        for id in &points {
            let point = repository.point(id).await.map_err(|error| format!("{id} is listed: {error:?}"))?;
            let report = point.verify(VerifyLevel::Full, &CancelToken::new(), |_, _| {}).await;
            ensure(report.as_ref().is_ok_and(|report| report.is_sound()), || format!("{id}: {report:?}"))?;
        }
        match self.group.flow {
            Flow::Backup | Flow::Resume | Flow::Fcd => {
                let point = repository.point(points.last().ok_or("there is no point")?).await.map_err(debug)?;
                let reader = point.disk(self.group.flow.key()).await.map_err(debug)?;
                let bytes = reader.read_at(0, reader.capacity() as usize).await.map_err(debug)?;
                ensure(bytes == self.content("web"), || "the newest point is not the disk".into())?;
            }
            Flow::InPlace | Flow::FcdInPlace => {
                ensure(self.content("web").starts_with(&self.stored), || "the disk is not restored".into())?
            }
            Flow::NewVm => {
                ensure(self.content("new") == self.stored, || "the new machine's disk is another".into())?;
                self.destroy_new().await?;
            }
            Flow::Reap | Flow::FcdReap | Flow::Prune | Flow::Check => {}
        }
        let left = Journal::leftovers(&self.journals()).map_err(debug)?;
        ensure(left.is_empty(), || format!("journals: {left:?}"))?;
        self.assert_clean().await
    }

    async fn assert_clean(&self) -> Verdict {
        let ours = |mut left: Leftovers| {
            left.snapshots.retain(|name| name != "web/mine");
            // Nobody asked to merge these; and sessions and tickets of the killed end by their time.
            if !self.group.flow.backs_up() && self.group.machine == Machine::Unmerged {
                left.unconsolidated.clear();
            }
            // What killed processes had in their sessions goes with those.
            (left.sessions, left.session_objects, left.tickets) = (0, 0, 0);
            left
        };
        let left = self.sim.settled_in(Duration::from_secs(3), ours).await;
        ensure(left.is_clean(), || format!("left on the server: {left}"))
    }

    async fn destroy_new(&self) -> Verdict {
        let found = self.vim.find_vms(&vsphere_vim::VmLookup::Pattern("**/new".into())).await.map_err(debug)?;
        for vm in found {
            self.vim.destroy(&vm.moref).await.map_err(debug)?;
        }
        Ok(())
    }

    /// No lease stays in the repository, and of the server's sessions only those of processes that were killed.
    async fn end(self, kills: usize) -> Verdict {
        let options = GcOptions::default().clock(self.clock.clone());
        for _ in 0..4 {
            self.hand.advance(Duration::from_secs(25 * 3600));
            match self.repository().await.collect_garbage(&options).await {
                Ok(_) | Err(Error::Busy { .. }) => {}
                Err(error) => return Err(debug(error)),
            }
        }
        let leases: Vec<_> = self.storage.list("leases").try_collect().await.map_err(debug)?;
        ensure(leases.is_empty(), || format!("leases: {leases:?}"))?;
        self.vim.logout().await.map_err(debug)?;
        let left = self.sim.leftovers();
        ensure(left.sessions <= kills, || format!("sessions: {left}"))?;
        let objects = if kills == 0 { left.session_objects } else { 0 };
        ensure(objects == 0, || format!("filters: {left}"))
    }
}

trait OrHang: Future + Sized {
    /// Waits, or not for ever: nobody can cancel what has no token yet.
    async fn await_or_hang(self) -> Option<Self::Output> {
        tokio::time::timeout(Duration::from_secs(1), self).await.ok()
    }
}

impl<F: Future> OrHang for F {}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(what()) }
}

fn debug(error: impl Debug) -> String {
    format!("{error:?}")
}

/// Steps on a server that are tried once, because their failure is an answer that the job goes on with.
const ONCE: &[&str] = &["ReadConfig", "AskChanges", "WriteNvram"];
/// No case takes as long as this.
const LIMIT: Duration = Duration::from_secs(90);
