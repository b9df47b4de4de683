//! Jobs: many machines, one report.
//!
//! A job looks its machines up, lets each begin when the [`Scheduler`] says so, backs it up by [`Backup`], verifies the
//! new point and applies retention if asked to, and writes down what became of it. The failure of one machine never stops
//! another, unless [`OnFailure::Stop`] says so.
//!
//! Machines that belong together are backed up as one consistent set: a vApp ([`Selection::vapp`]), a list
//! ([`Selection::set`]), or all that a job selects ([`Job::as_set`]).

mod report;
mod run;
mod running;
mod select;
mod set;
mod tasks;
mod unit;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use vsphere_vim::{Vim, VirtualDiskInfo};

pub use self::{
    report::{ErrorReport, JobReport, MachineReport, MachineState, Retained, SetSummary, Verified},
    running::RunningJob,
    select::{Candidate, Resolved, Selection},
    unit::SelectedSet,
};
use crate::{
    backup::{Backup, BackupSet},
    cancel::CancelToken,
    clock::Clock,
    error::Result,
    repository::{Repository, Retention, VerifyLevel},
    schedule::Scheduler,
    task::{TaskEvent, TaskEvents, Tasks},
};

/// A backup of many machines.
///
/// ```no_run
/// # async fn example(vim: vsphere_vim::Vim, repository: vsphere_backup::repository::Repository) -> vsphere_backup::Result<()> {
/// use vsphere_backup::{Job, job::Selection, repository::VerifyLevel};
///
/// let report = Job::new("nightly", Selection::path("dc1/vm/production/**"))
///     .journal("/var/lib/backup/journal")
///     .configure(|machine, backup| backup.quiesce(machine.guest_id.is_some()))
///     .disks(|_, disk| !disk.label.contains("swap"))
///     .verify(VerifyLevel::Structure)
///     .run(&vim, &repository)
///     .await?;
/// for machine in &report.machines {
///     println!("{}: {:?} {:?}", machine.name, machine.state, machine.error);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct Job {
    name: String,
    selection: Selection,
    configure: Option<Configure>,
    disks: Option<DiskFilter>,
    one_set: Option<String>,
    configure_set: Option<ConfigureSet>,
    journal: Option<PathBuf>,
    scheduler: Scheduler,
    on_failure: OnFailure,
    attempts: u32,
    retry_after: Duration,
    verify: Option<VerifyLevel>,
    retention: Option<Retention>,
    clock: Clock,
    tasks: Tasks,
    cancel: CancelToken,
}

type Configure = Arc<dyn Fn(&Candidate, Backup) -> Backup + Send + Sync>;
type ConfigureSet = Arc<dyn Fn(&str, BackupSet) -> BackupSet + Send + Sync>;
type DiskFilter = Arc<dyn Fn(&Candidate, &VirtualDiskInfo) -> bool + Send + Sync>;

/// What the failure of one machine means for the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFailure {
    /// Nothing.
    #[default]
    Continue,
    /// No further machine is begun; those that run go on.
    Stop,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("name", &self.name).field("selection", &self.selection).finish_non_exhaustive()
    }
}

impl Job {
    /// Prepares a job of the machines of a selection.
    pub fn new(name: impl Into<String>, selection: Selection) -> Self {
        Self {
            name: name.into(),
            selection,
            configure: None,
            disks: None,
            one_set: None,
            configure_set: None,
            journal: None,
            scheduler: Scheduler::default(),
            on_failure: OnFailure::default(),
            attempts: 2,
            retry_after: Duration::from_secs(60),
            verify: None,
            retention: None,
            clock: Clock::default(),
            tasks: Tasks::new(),
            cancel: CancelToken::new(),
        }
    }

    /// Names the folder of the journals of all machines: see [`Backup::journal`].
    pub fn journal(mut self, folder: impl Into<PathBuf>) -> Self {
        self.journal = Some(folder.into());
        self
    }

    /// Sets options of each machine's backup. Journal, scheduler and cancelling are set already.
    pub fn configure(mut self, configure: impl Fn(&Candidate, Backup) -> Backup + Send + Sync + 'static) -> Self {
        self.configure = Some(Arc::new(configure));
        self
    }

    /// Backs up only the disks for which a predicate holds; the others are listed as left out.
    ///
    /// It is asked just before the machine begins. A disk that is attached between that and the snapshot is backed up.
    pub fn disks(mut self, include: impl Fn(&Candidate, &VirtualDiskInfo) -> bool + Send + Sync + 'static) -> Self {
        self.disks = Some(Arc::new(include));
        self
    }

    /// Backs all selected machines up as one consistent [set](BackupSet) of this name, whatever the selection says of sets.
    ///
    /// A set is tried again, verified and kept as a whole: retention comes when every machine of it has a new, sound point,
    /// and keeps or deletes the [points of a set together](Repository::prune_machines).
    pub fn as_set(mut self, name: impl Into<String>) -> Self {
        self.one_set = Some(name.into());
        self
    }

    /// Sets options of each set, by its name: whether it is [all or nothing](BackupSet::all_or_nothing), which it is by
    /// default, and how many of its machines are read at once.
    pub fn configure_set(mut self, configure: impl Fn(&str, BackupSet) -> BackupSet + Send + Sync + 'static) -> Self {
        self.configure_set = Some(Arc::new(configure));
        self
    }

    /// Shares limits, turns, bandwidth and memory with other jobs: by default a job has a scheduler of its own.
    pub fn scheduler(mut self, scheduler: &Scheduler) -> Self {
        self.scheduler = scheduler.clone();
        self
    }

    /// States what the failure of one machine means for the others: nothing by default.
    pub fn on_failure(mut self, policy: OnFailure) -> Self {
        self.on_failure = policy;
        self
    }

    /// States how often a machine is tried whose failure may pass, and how long after the failure: twice, after a
    /// minute, by default. Meanwhile its place is another's.
    pub fn attempts(mut self, count: u32, retry_after: Duration) -> Self {
        self.attempts = count.max(1);
        self.retry_after = retry_after;
        self
    }

    /// Checks each new recovery point: not by default. The machine has no snapshot any more by then.
    pub fn verify(mut self, level: VerifyLevel) -> Self {
        self.verify = Some(level);
        self
    }

    /// Deletes the points of each machine that retention does not keep, after its new one: not by default.
    ///
    /// A machine without a new, sound point keeps all it has. What the deleted points needed is freed by
    /// [`Repository::collect_garbage`], which is run by itself, once for all jobs.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = Some(retention);
        self
    }

    /// Sets where the report's time comes from.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Calls a function at each event of each task, in order. It must not block.
    pub fn on_event(self, handler: impl Fn(&TaskEvent) + Send + Sync + 'static) -> Self {
        self.tasks.on_event(handler);
        self
    }

    /// Tells figures to the recorder of the [`metrics`](https://docs.rs/metrics) crate that the program has installed: see
    /// [`metrics`](crate::metrics).
    #[cfg(feature = "metrics")]
    pub fn metrics(self) -> Self {
        let metrics = crate::metrics::JobMetrics::new(self.name.as_str());
        self.on_event(move |event| metrics.on(event))
    }

    /// Returns a stream of what happens, which ends with the job. It has to be asked for before the job runs to have
    /// all of it.
    pub fn events(&self) -> TaskEvents {
        self.tasks.events()
    }

    /// Lets a token cancel the job: each running machine is cancelled, no other is begun.
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = token.clone();
        self
    }

    /// Runs the job.
    ///
    /// # Errors
    /// [`Error::Server`](crate::Error::Server) when the machines cannot be looked up. What goes wrong with one machine
    /// is in the report.
    ///
    /// # Privileges
    /// As [`Selection::resolve`] and [`Backup::run`].
    ///
    /// # Cancel safety
    /// When dropped, each running machine is cancelled and goes on in the background until the server is as it was.
    pub async fn run(self, vim: &Vim, repository: &Repository) -> Result<JobReport> {
        let (stopped, _) = tokio::sync::watch::channel(false);
        self.work(vim, repository, &stopped).await
    }

    /// Begins the job on the current runtime and returns a handle on it.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(self, vim: &Vim, repository: &Repository) -> RunningJob {
        RunningJob::start(self, vim.clone(), repository.clone())
    }
}
