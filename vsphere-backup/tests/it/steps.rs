//! A failure at every step of a backup: an error, a lost answer, a hang, a kill.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use tokio::sync::Notify;
use vsphere_backup::{
    BackupReport, CancelToken, Error, Result, Since,
    journal::Journal,
    repository::{Repository, storage::BoxFuture},
    step::{Step, StepCall, StepHook},
};
use vsphere_sim::DiskSpec;

use crate::{
    site::Site,
    world::{KIB, MIB},
};

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// It fails and was not tried.
    Error,
    /// It succeeds, and its answer is lost.
    LostAnswer,
    /// It does not end.
    Hang,
}

/// Makes the first call of a step go wrong, and notes which steps were taken.
pub(crate) struct Trip {
    at: Option<(Step, How)>,
    seen: Mutex<Vec<Step>>,
    pub(crate) tripped: Notify,
}

impl Trip {
    pub(crate) fn new(at: Option<(Step, How)>) -> Arc<Self> {
        Arc::new(Self { at, seen: Mutex::default(), tripped: Notify::new() })
    }

    fn steps(&self) -> BTreeSet<Step> {
        self.seen.lock().unwrap().iter().copied().collect()
    }

    async fn meet(&self, call: &StepCall, now: bool) -> Result<()> {
        let Some((step, how)) = self.at else { return Ok(()) };
        let first = self.seen.lock().unwrap().iter().filter(|seen| **seen == step).count() == 1;
        if call.step != step || !first || now != (how != How::LostAnswer) {
            return Ok(());
        }
        self.tripped.notify_one();
        match how {
            How::Hang => std::future::pending().await,
            _ => Err(Error::Refused { vm: step.to_string(), reason: "injected".into(), hint: None }),
        }
    }
}

impl StepHook for Trip {
    fn before<'a>(&'a self, call: &'a StepCall) -> BoxFuture<'a, Result<()>> {
        self.seen.lock().unwrap().push(call.step);
        Box::pin(self.meet(call, true))
    }

    fn after<'a>(&'a self, call: &'a StepCall) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.meet(call, false))
    }
}

/// A machine with one small disk that has a point already.
async fn site() -> Site {
    let site = Site::with([DiskSpec::empty(512 * KIB)]).await;
    site.guest_writes(2000, 0, &[7; 4096]);
    site.backup().run(&site.repository).await.unwrap();
    site
}

/// The steps that a backup takes when nothing goes wrong.
async fn steps_of(site: &Site, since: Since) -> BTreeSet<Step> {
    let trip = Trip::new(None);
    site.backup().since(since).step_hook(trip.clone()).run(&site.repository).await.unwrap();
    trip.steps()
}

/// The next run succeeds, its point is the disk, and nothing is left.
async fn assert_made_good(site: &Site, what: &str) -> BackupReport {
    let content = [(2000, site.content(2000))];
    let next = site.backup().run(&site.repository).await;
    let next = next.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    site.assert_point_equals(&next.point, &content).await;
    site.assert_clean();
    next
}

fn change(site: &Site, round: usize) {
    site.guest_writes(2000, (round as u64 % 8) * 64 * KIB, &round.to_le_bytes());
}

async fn fails_at_every_step(since: fn() -> Since, how: How) {
    let site = site().await;
    let steps = steps_of(&site, since()).await;
    for (round, &step) in steps.iter().enumerate() {
        change(&site, round);
        let what = format!("{how:?} at {step}");
        let trip = Trip::new(Some((step, how)));
        let backup = site.backup().since(since()).step_hook(trip.clone());
        let before = site.repository.points(&site.id()).await.unwrap().len();
        let outcome = match how {
            How::Hang => {
                let running = backup.start(&site.repository);
                trip.tripped.notified().await;
                running.cancel();
                // Undoing that hangs ends only when it is given up.
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                let undoing = site.sim.vm("web").unwrap().snapshots().len() + usize::from(step >= Step::RemoveSnapshot);
                if undoing > 0 && !running.is_finished() {
                    running.abandon();
                }
                running.finish().await
            }
            _ => backup.run(&site.repository).await,
        };
        let points = site.repository.points(&site.id()).await.unwrap().len();
        match &outcome {
            Ok(_) => assert_eq!(points, before + 1, "{what}"),
            // Only the answer to the commit can be lost with the point there.
            Err(_) => assert!(points == before || step >= Step::Commit, "{what}: {outcome:?}"),
        }
        assert_made_good(&site, &what).await;
    }
    assert!(steps.len() > 25, "{steps:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_at_every_step_of_an_incremental_backup_is_undone_and_made_good() {
    fails_at_every_step(|| Since::Latest, How::Error).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_at_every_step_of_a_full_backup_is_undone_and_made_good() {
    fails_at_every_step(|| Since::Nothing, How::Error).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_at_every_step_is_undone_and_made_good() {
    fails_at_every_step(|| Since::Latest, How::LostAnswer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hang_at_every_step_ends_by_cancel_or_abandon_and_is_made_good() {
    fails_at_every_step(|| Since::Latest, How::Hang).await;
}

/// Runs a backup in a runtime of its own that is torn down when the step is met, as a killed process is.
fn kill_at(site: &Site, since: Since, step: Step) {
    let trip = Trip::new(Some((step, How::Hang)));
    let (login, vm, journals) = (site.login(), site.vm(), site.journals());
    let folder = site.folder.path().join("repo");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let vim = login.connect().await;
        let repository = Repository::open_local(folder).await.unwrap();
        let since = match since {
            Since::Point(point) => Since::Point(repository.point(point.id()).await.unwrap()),
            other => other,
        };
        let backup = vsphere_backup::Backup::of(&vim, vm).journal(journals).since(since).step_hook(trip.clone());
        tokio::select! {
            biased;
            () = trip.tripped.notified() => {}
            done = backup.run(&repository) => panic!("{step} was not met: {done:?}"),
        }
    });
    // No task is polled again: nothing is undone, nothing logged out.
    drop(runtime);
}

async fn killed_at_every_step(since: fn() -> Since) {
    let site = Arc::new(site().await);
    let steps = steps_of(&site, since()).await;
    for (round, &step) in steps.iter().enumerate() {
        change(&site, round);
        let killed = site.clone();
        tokio::task::spawn_blocking(move || kill_at(&killed, since(), step)).await.unwrap();
        assert_made_good(&site, &format!("killed at {step}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_every_step_of_an_incremental_backup_is_made_good() {
    killed_at_every_step(|| Since::Latest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_every_step_of_a_full_backup_is_made_good() {
    killed_at_every_step(|| Since::Nothing).await;
}

/// Runs a backup whose future is dropped when the step is met; the rest happens behind the caller's back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_dropped_at_any_step_cleans_up_behind_its_caller() {
    let site = site().await;
    let steps = steps_of(&site, Since::Latest).await;
    // A disk that does not close is waited for, for half a minute.
    let forward = |step: &Step| *step < Step::Commit && *step != Step::CloseDisk;
    for (round, &step) in steps.iter().enumerate().filter(|(_, step)| forward(step)) {
        change(&site, round);
        let trip = Trip::new(Some((step, How::Hang)));
        let (over, mut ended) = tokio::sync::mpsc::unbounded_channel::<()>();
        let backup = site.backup().step_hook(trip.clone()).on_event(move |_| {
            let _ = &over;
        });
        {
            let mut run = std::pin::pin!(backup.run(&site.repository));
            tokio::select! {
                biased;
                () = trip.tripped.notified() => {}
                done = &mut run => panic!("{step} was not met: {done:?}"),
            }
        }
        // The last clone of the handler goes with the job.
        assert_eq!(ended.recv().await, None);
        site.assert_clean();
        assert_eq!(Journal::leftovers(&site.journals()).unwrap(), [], "{step}");
    }
    assert_made_good(&site, "drops").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gracefully_cancelled_backup_finishes_the_disk_in_flight_and_the_next_one_uses_it() {
    let site = Site::with([DiskSpec::empty(MIB), DiskSpec::empty(MIB)]).await;
    for key in [2000, 2001] {
        site.guest_writes(key, 0, &crate::world::noise(key as u64, 512 * KIB));
    }
    let token = CancelToken::new();
    let cancel = token.clone();
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = events.clone();
    let outcome = site
        .backup()
        .parallel_disks(1)
        .cancel(&token)
        .on_event(move |event| {
            let text = format!("{event:?}");
            if text.starts_with("DiskStarted") {
                cancel.cancel_gracefully();
            }
            told.lock().unwrap().push(text);
        })
        .run(&site.repository)
        .await;
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    site.assert_clean();
    assert!(site.repository.points(&site.id()).await.unwrap().is_empty());
    let count = |what: &str| events.lock().unwrap().iter().filter(|event| event.starts_with(what)).count();
    assert_eq!((count("DiskStarted"), count("DiskFinished")), (1, 1));
    // Another process: what the first disk stored is durable and known.
    let repository = Repository::open_local(site.folder.path().join("repo")).await.unwrap();
    let next = site.backup().run(&repository).await.unwrap();
    assert_eq!(next.disks[0].bytes.new, 0, "it was stored before");
    assert!(next.disks[1].bytes.new > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_backup_returns_at_once_and_leaves_all_to_the_next_run() {
    let site = site().await;
    let trip = Trip::new(Some((Step::ReadDisk, How::Hang)));
    change(&site, 1);
    let running = site.backup().step_hook(trip.clone()).start(&site.repository);
    trip.tripped.notified().await;
    running.abandon();
    assert!(matches!(running.finish().await, Err(Error::Abandoned)));
    let left = site.sim.leftovers();
    assert_eq!((left.snapshots.len(), left.locks.len()), (1, 1), "{left:?}");
    assert_eq!(Journal::leftovers(&site.journals()).unwrap().len(), 1);
    // The journal is free: the next run need not wait.
    let next = assert_made_good(&site, "abandoned").await;
    assert!(next.recovered.is_some());
}
