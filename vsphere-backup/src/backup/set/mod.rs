//! Several machines as one set: all stand still at about one moment, and only then are they read.

mod gathering;
mod vapp;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use vsphere_vim::{MoRef, Vim, mo};

use crate::{
    cancel::CancelToken,
    error::{Error, Result},
    repository::{RecoveryPoint, Repository, SetOutcome, random_name},
    schedule::{Admission, Demand, Scheduler},
};

use self::gathering::Gathering;
use super::{Backup, BackupReport, RunningBackup};

pub(super) use self::gathering::Seat;
pub(crate) use self::vapp::machines_of_vapp;

/// A backup of several machines that belong together, such as those of a vApp.
///
/// ```no_run
/// # async fn example(vim: vsphere_vim::Vim, vapp: vsphere_vim::MoRef<vsphere_vim::mo::VirtualApp>, repository: vsphere_backup::repository::Repository) -> vsphere_backup::Result<()> {
/// use vsphere_backup::{Backup, BackupSet};
///
/// let set = BackupSet::of_vapp(&vim, &vapp, |vm| Backup::of(&vim, vm).journal("/var/lib/backup")).await?;
/// let report = set.run(&repository).await?;
/// println!("{} within {:?}: {} points", report.name, report.spread, report.points().count());
/// # Ok(())
/// # }
/// ```
///
/// Every member is a [`Backup`] with its own journal, lock, snapshot and point. They meet three times: before the
/// snapshots, so that what takes long is over (pending merges, enabling change tracking); when all snapshots are made,
/// so that none is made while others are read; and, where the set is [all or nothing](Self::all_or_nothing), before the
/// first point is committed. Members do not go on with interrupted backups: their snapshots are of another time.
///
/// The machines are not frozen together: each snapshot is of its own moment, and [`SetReport::spread`] says how far they
/// are apart. Whatever spans machines has to recover from that as from a power cut that took as long.
#[derive(Debug)]
#[must_use]
pub struct BackupSet {
    name: String,
    members: Vec<Backup>,
    all_or_nothing: bool,
    parallel: usize,
    scheduler: Option<Scheduler>,
    /// Its place among the machines of all jobs, where a job has found it one.
    admission: Option<Admission>,
    cancel: CancelToken,
}

/// What became of a set.
#[derive(Debug)]
#[non_exhaustive]
pub struct SetReport {
    /// The set's identity, which stands in each point: 16 hex digits.
    pub id: String,
    /// The set's name.
    pub name: String,
    /// The members, in the caller's order.
    pub members: Vec<SetMember>,
    /// The time from the begin of the first snapshot to the end of the last.
    pub spread: Duration,
    /// Whether all members have a point. When they have not and the set is all or nothing, none has.
    pub outcome: SetOutcome,
}

/// What became of a member of a set.
#[derive(Debug)]
#[non_exhaustive]
pub struct SetMember {
    /// The machine.
    pub vm: MoRef<mo::VirtualMachine>,
    /// What its backup did. Of an all-or-nothing set that is not complete, the point of a member that succeeded is gone
    /// again.
    pub outcome: Result<BackupReport>,
}

impl SetReport {
    /// Returns the points of the set: all, some, or of an all-or-nothing set none.
    pub fn points(&self) -> impl Iterator<Item = &RecoveryPoint> {
        let gone = |point: &&RecoveryPoint| {
            self.outcome == SetOutcome::Complete || point.set().is_some_and(|set| !set.all_or_nothing)
        };
        let made = self.members.iter().filter_map(|member| member.outcome.as_ref().ok());
        made.map(|report| &report.point).filter(gone)
    }

    /// Returns the members that failed, and why. In an all-or-nothing set one failure makes others fail.
    pub fn failures(&self) -> impl Iterator<Item = (&MoRef<mo::VirtualMachine>, &Error)> {
        self.members.iter().filter_map(|member| Some((&member.vm, member.outcome.as_ref().err()?)))
    }
}

impl BackupSet {
    /// Prepares a backup of several machines as one set, under a name for people.
    pub fn of(name: impl Into<String>, members: impl IntoIterator<Item = Backup>) -> Self {
        let members = members.into_iter().collect();
        Self {
            name: name.into(),
            members,
            all_or_nothing: true,
            parallel: 4,
            scheduler: None,
            admission: None,
            cancel: CancelToken::new(),
        }
    }

    /// Prepares a backup of all machines in a vApp, those in nested vApps included, in the order in which they start.
    ///
    /// # Errors
    /// [`Error::Server`] when vApps cannot be read, [`Error::Invalid`] when there is no such vApp or nothing in it.
    ///
    /// # Privileges
    /// `System.Read` on the vApp.
    ///
    /// # Cancel safety
    /// Changes nothing.
    #[doc(alias = "VirtualApp")]
    pub async fn of_vapp(
        vim: &Vim,
        vapp: &MoRef<mo::VirtualApp>,
        prepare: impl Fn(MoRef<mo::VirtualMachine>) -> Backup,
    ) -> Result<Self> {
        let (name, machines) = machines_of_vapp(vim, vapp).await?;
        Ok(Self::of(name, machines.into_iter().map(prepare)))
    }

    /// States whether the set is seen all or nothing, as it is by default: one member's failure gives the set up, and no
    /// point of it is listed before all are committed. Otherwise each member's point counts by itself.
    pub fn all_or_nothing(mut self, yes: bool) -> Self {
        self.all_or_nothing = yes;
        self
    }

    /// Sets how many machines are read at once: 4 by default. The snapshots of the others wait meanwhile.
    pub fn parallel_machines(mut self, count: usize) -> Self {
        self.parallel = count.clamp(1, 50);
        self
    }

    /// Lets the set begin when a scheduler says so, and shares connections, bandwidth and memory with everything else that
    /// the scheduler is given to: without one, a set begins at once.
    ///
    /// All members begin together, so that limits of hosts, vCenters and snapshots on datastores have room for all of them:
    /// see [`ScheduleLimits`](crate::schedule::ScheduleLimits) for sets that are larger than a limit.
    pub fn schedule(mut self, scheduler: &Scheduler) -> Self {
        self.scheduler = Some(scheduler.clone());
        self
    }

    /// Gives the set its place in a scheduler, kept until it has ended, also in the background.
    pub(crate) fn admitted(mut self, admission: Admission) -> Self {
        self.admission = Some(admission);
        self
    }

    /// Lets a token cancel the set, in place of the members' own tokens.
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = token.clone();
        self
    }

    /// Tells whether one member's failure gives the set up.
    pub(crate) fn is_all_or_nothing(&self) -> bool {
        self.all_or_nothing
    }

    /// Returns the machines, in order.
    pub fn machines(&self) -> impl Iterator<Item = &MoRef<mo::VirtualMachine>> {
        self.members.iter().map(|member| &member.vm)
    }

    /// Runs the backups. What goes wrong with a member is in the report.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there are no members or two of one machine; [`Error::Cancelled`] and [`Error::Abandoned`]
    /// while it waits for its turn, and [`Error::Server`] when it cannot be asked what it has to wait for; [`Error::Storage`] when it could not be
    /// written down how the set ended: its points are not listed, and the next backup of the set, or
    /// [`Repository::settle_sets`], ends it.
    ///
    /// # Privileges
    /// Those of [`Backup::run`] on each machine.
    ///
    /// # Cancel safety
    /// When dropped, all members are cancelled and go on in the background, on the runtime, until the server is as it
    /// was and the set is given up.
    pub async fn run(self, repository: &Repository) -> Result<SetReport> {
        let (repository, token) = (repository.clone(), self.cancel.clone());
        let work = move |cancel: CancelToken| async move {
            // Each member makes a child of its own of it.
            let members = CancelToken::new();
            tokio::select! {
                done = self.work(&repository, &members) => done,
                never = cancel.pass_on(&members) => match never {},
            }
        };
        token.outlive(work).await
    }

    async fn work(mut self, repository: &Repository, cancel: &CancelToken) -> Result<SetReport> {
        let machines: BTreeSet<_> = self.machines().cloned().collect();
        if machines.is_empty() || machines.len() < self.members.len() {
            return Err(Error::invalid("a set needs machines, and each of them once"));
        }
        // Held until the last member has ended, and with each, for one that goes on in the background.
        let admission = match (self.admission.take(), &self.scheduler) {
            (None, Some(scheduler)) => Some(turn(scheduler, &self.members, cancel).await?),
            (admission, _) => admission,
        };
        let admission = admission.map(Arc::new);
        let readers = admission.as_ref().and_then(|admission| admission.readers());
        let parallel = readers.map_or(self.parallel, |readers| readers.min(self.parallel));
        let name = (random_name()?, self.name);
        let gathering = Gathering::new(name, self.members.len(), self.all_or_nothing, repository, parallel);
        let start = |(at, member): (usize, Backup)| {
            let (vm, seat) = (member.vm.clone(), gathering.seat(at));
            let member = Backup {
                cancel: cancel.clone(),
                resume_within: Duration::ZERO,
                seat: Some(seat.clone()),
                shared: self.scheduler.clone().or(member.shared),
                admission: admission.clone().or(member.admission),
                ..member
            };
            (vm, seat, member.start(repository))
        };
        let running: Vec<(_, Seat, RunningBackup)> = self.members.into_iter().enumerate().map(start).collect();
        let mut members = Vec::new();
        for (vm, seat, running) in running {
            let outcome = running.finish().await;
            if let Err(error) = &outcome {
                // One that failed before it came to its seat.
                seat.leave(error);
            }
            members.push(SetMember { vm, outcome });
        }
        // An abandoned set is left as it is, like its members.
        let abandoned = members.iter().any(|member| matches!(member.outcome, Err(Error::Abandoned)));
        let outcome = if abandoned { SetOutcome::GivenUp } else { gathering.end().await? };
        let (id, name, spread) = (gathering.id.clone(), gathering.name.clone(), gathering.spread());
        Ok(SetReport { id, name, members, spread, outcome })
    }
}

/// Waits until all members may begin.
async fn turn(scheduler: &Scheduler, members: &[Backup], cancel: &CancelToken) -> Result<Admission> {
    let admitted = async {
        let mut demands = Vec::new();
        for member in members {
            demands.push(Demand::of(&member.vim, &member.vm).await?);
        }
        Ok(scheduler.register().admit_all(&demands).await)
    };
    tokio::select! {
        biased;
        () = cancel.stopping() => Err(cancel.ended()),
        admitted = admitted => admitted,
        never = scheduler.keep_time() => match never {},
    }
}
