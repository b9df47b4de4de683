//! Processes that work on one repository, and whoever kills them.
//!
//! Two back up a machine each, out of few different chunks, so that they share them and bring back what was deleted; a
//! third prunes and collects garbage without any grace. Each is this test's binary, started anew to run its test
//! `worker`, which its environment tells what to be. It writes into a log of its own what it is about to commit and
//! what it has committed. Now and then one is killed, or stopped for longer than its lease lasts.

mod log;
mod worker;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use vsphere_backup::{
    CancelToken, Clock, Error,
    repository::{CreateOptions, GcOptions, Repository, VerifyLevel, storage::Storage},
};

pub(crate) use self::worker::work;
use self::{
    log::Log,
    worker::{BACKED_UP, COLLECTOR, KEPT, LEASE, Random},
};
use crate::world::{CHUNK, content};

/// Opens the storage at a place: the same in every process.
pub(crate) type Open = fn(&str) -> Arc<dyn Storage>;

/// A repository and the processes on it.
pub(crate) struct Crowd {
    open: Open,
    place: String,
    folder: PathBuf,
    length: Duration,
    pace: u64,
}

/// What happened.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    kills: usize,
    stops: usize,
    /// Points whose writer was told that they are committed, and how many of all points are there in the end.
    committed: usize,
    there: usize,
    /// Commits that were refused because the writer had been declared dead.
    fenced: usize,
    /// Points that are there although their writer died before it was told so.
    untold: usize,
    collections: usize,
    /// Packs that they deleted.
    deleted: u64,
}

impl Crowd {
    /// Processes on a new repository at `place`, their logs in `folder`.
    pub(crate) fn new(open: Open, place: &str, folder: &Path, length: Duration) -> Self {
        Self { open, place: place.to_owned(), folder: folder.to_owned(), length, pace: 1 }
    }

    /// Kills and stops so many times more rarely and for longer: for a storage on which collections take that long.
    #[allow(dead_code)] // A local one does not.
    pub(crate) fn pace(mut self, pace: u64) -> Self {
        self.pace = pace;
        self
    }

    /// Lets them work for a while, and checks what they leave.
    pub(crate) async fn run(&self) -> Seen {
        let options = CreateOptions::default().chunk_size(CHUNK as u32);
        Repository::create((self.open)(&self.place), options).await.unwrap();
        let mut seen = Seen::default();
        let mut chance = Random::new(self.length.as_secs());
        let roles = [BACKED_UP[0], BACKED_UP[1], COLLECTOR];
        let mut processes: Vec<_> = roles.iter().map(|role| self.start(role, &mut chance)).collect();
        let begun = Instant::now();
        // Which process is stopped, and until when.
        let mut stopped: Option<(usize, Instant)> = None;
        // On a machine that is busy with something else, it takes longer until anything happened at all.
        while begun.elapsed() < self.length || begun.elapsed() < self.length * 3 && !self.is_telling() {
            tokio::time::sleep(Duration::from_millis(self.pace * (50 + chance.below(500)))).await;
            let at = chance.below(3) as usize;
            match stopped {
                Some((which, until)) if until < Instant::now() => {
                    processes[which].signal("-CONT");
                    stopped = None;
                }
                None => {
                    processes[at].signal("-STOP");
                    stopped = Some((
                        at,
                        Instant::now() + LEASE + Duration::from_millis(self.pace * (1500 + chance.below(1500))),
                    ));
                    seen.stops += 1;
                }
                Some((which, _)) if which == at => {}
                Some(_) => {
                    processes[at] = self.start(roles[at], &mut chance);
                    seen.kills += 1;
                }
            }
        }
        drop(processes);
        self.prove(&mut seen).await;
        seen
    }

    fn start(&self, role: &str, chance: &mut Random) -> Process {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["worker", "--exact", "--ignored", "--nocapture"])
            .env("CROWD_ROLE", role)
            .env("CROWD_PLACE", &self.place)
            .env("CROWD_LOG", self.log(role))
            .env("CROWD_SEED", chance.next().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        Process(child.unwrap())
    }

    /// Tells whether a long run has seen a collector delete something and a writer that was declared dead.
    fn is_telling(&self) -> bool {
        let fenced: usize = BACKED_UP.iter().map(|role| Log::read(&self.log(role)).fenced).sum();
        let deleted: u64 = Log::read(&self.log(COLLECTOR)).collected.iter().sum();
        !is_long(self.length) || fenced > 0 && deleted > 0
    }

    fn log(&self, role: &str) -> PathBuf {
        self.folder.join(format!("{role}.log"))
    }

    async fn fresh(&self) -> Repository {
        Repository::open((self.open)(&self.place)).await.unwrap()
    }

    /// Checks that the repository is sound and every point is what its writer wrote: now, and without any garbage.
    async fn prove(&self, seen: &mut Seen) {
        let logs: Vec<_> = BACKED_UP.iter().map(|role| Log::read(&self.log(role))).collect();
        let collector = Log::read(&self.log(COLLECTOR));
        (seen.collections, seen.deleted) = (collector.collected.len(), collector.collected.iter().sum());
        for log in &logs {
            seen.committed += log.points.iter().filter(|logged| logged.told).count();
            seen.fenced += log.fenced;
        }
        self.check(&logs, seen).await;
        let (clock, hand) = Clock::by_hand(SystemTime::now());
        for run in 0.. {
            hand.advance(Duration::from_secs(3600));
            let options = GcOptions::default().grace(Duration::ZERO).clock(clock.clone());
            match self.fresh().await.collect_garbage(&options).await {
                // Of a collector that was killed: seen now, dead an hour later.
                Err(Error::Busy { .. }) if run == 0 => continue,
                Err(error) => panic!("{error}"),
                Ok(report) => {
                    assert_eq!(report.missing, 0, "{report:?}");
                    if report.condemned.is_empty() && report.waiting.is_empty() && report.deleted.is_empty() {
                        break;
                    }
                }
            }
            assert!(run < 8, "garbage without an end");
        }
        self.check(&logs, &mut Seen::default()).await;
    }

    async fn check(&self, logs: &[Log], seen: &mut Seen) {
        let repository = self.fresh().await;
        let report = repository.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
        assert!(report.is_sound(), "{report:?}");
        for (log, role) in logs.iter().zip(BACKED_UP) {
            let there = repository.points(&worker::vm(role)).await.unwrap();
            seen.there += there.len();
            for id in &there {
                let logged = log.points.iter().find(|logged| logged.point == *id);
                let logged = logged.unwrap_or_else(|| panic!("{id} is of nobody"));
                seen.untold += usize::from(!logged.told);
                let point = repository.point(id).await.unwrap();
                assert!(
                    content(&point).await.unwrap() == worker::bytes(&logged.chunks),
                    "{id} is not what was written"
                );
            }
            for (at, logged) in log.points.iter().enumerate().filter(|(_, logged)| logged.told) {
                let newer = log.points.len() - at - 1;
                assert!(
                    newer >= KEPT || there.contains(&logged.point),
                    "{} is gone, the {newer}. from the end",
                    logged.point
                );
            }
        }
    }
}

impl Seen {
    /// Asserts that enough happened for the test to tell anything.
    pub(crate) fn assert_telling(&self, length: Duration) {
        eprintln!("{self:?}");
        let seconds = length.as_secs() as usize;
        assert!(self.kills >= seconds / 5 && self.stops > 0 && self.committed >= seconds / 3, "{self:?}");
        assert!(self.collections > 0 && self.there >= 2, "{self:?}");
        // How many points were committed and not told any more is chance, and may be none.
        assert!(!is_long(length) || (self.deleted > 0 && self.fenced > 0), "{self:?}");
    }
}

fn is_long(length: Duration) -> bool {
    length >= Duration::from_secs(30)
}

/// A process that is killed when this is dropped.
struct Process(Child);

impl Process {
    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success(), "a process ended by itself: see its messages above");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.0.try_wait().unwrap();
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        assert!(ended.is_none() || std::thread::panicking(), "a process ended by itself: {ended:?}");
    }
}
