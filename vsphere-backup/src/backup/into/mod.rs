//! A machine's backup into a store of somebody else: the same order, guards and ways as into a repository.
//!
//! What differs is what a [`Sink`] cannot do: it keeps no hashes by which unchanged blocks could be compared, and no marks
//! of restores. What a job leaves in it is freed by the job, or by the next that finds it in the journal ([`discard`]).

mod discard;
mod disk;
mod properties;

use std::{sync::Arc, time::Duration, time::Instant};

use futures_util::{StreamExt, TryStreamExt, stream};

use self::{
    disk::{SinkDisk, StoredInSink},
    properties::{Properties, is_full, is_of_job, name_of, next_id},
};
use super::{
    Backup, DiskReport, RunningBackup, Since,
    disk::{self as disks, FrozenDisk},
    flow::{self, Frozen},
    guard::Guard,
    machine::Machine,
    resume::Resume,
};
use crate::{
    error::{DiskError, Error, Result},
    event::Event,
    journal::{Abandoned, Leftover, Record},
    repository::{Consistency, Fallback, LeftOut, VmId, storage::BoxFuture},
    step::Step,
    store::{PointMeta, Sink},
};

/// What a backup into a [`Sink`] did.
#[derive(Debug)]
#[non_exhaustive]
pub struct SinkReport {
    /// The point, as the store was given it.
    pub point: PointMeta,
    /// The point's name that incremental disks build on.
    pub base: Option<String>,
    /// One report for each disk in it.
    pub disks: Vec<DiskReport>,
    /// Disks that are not in it, and why.
    pub left_out: Vec<LeftOut>,
    /// In which state the guest's data is.
    pub consistency: Consistency,
    /// The ways to quiesce the guest that were given up before that, and why.
    pub fallbacks: Vec<Fallback>,
    /// Whether the backup enabled change tracking.
    pub tracking_enabled: bool,
    /// What an earlier job had left on the server and this one undid.
    pub recovered: Option<Leftover>,
    /// Whether it went on with an interrupted backup, on the snapshot of that.
    pub resumed: bool,
    /// What could not be undone on the server or discarded in the store, and why. The journal keeps it for the next run.
    pub leftovers: Vec<String>,
    /// From begin to end.
    pub elapsed: Duration,
}

impl Backup {
    /// Runs the backup into a store of somebody else, by the trait [`Sink`].
    ///
    /// Journal, lock, snapshot and undoing are those of [`run`](Self::run), and so are the reasons for which a disk is
    /// read in full. An incremental disk is begun with the store's own disk of the machine's newest point
    /// ([`Since::Latest`]) or of its newest point that was read in full ([`Since::Full`]). Where a store does less than
    /// a repository:
    /// - With another [`trust`](Self::trust) than [`Trust::Trust`](crate::Trust::Trust) every disk is read in full.
    /// - An interrupted backup goes on with its snapshot, as one into a repository does, where the store can go on with
    ///   its disks ([`Sink::resume`]); those that were finished are not read again, others at the last checkpoint
    ///   ([`checkpoint_every`](Self::checkpoint_every)). A disk with which the store does not go on is begun anew.
    /// - What is in no point is freed at the end of the backup, however it ends ([`Sink::discard`]); what a killed one
    ///   left, or what could not be freed then, by the next into the same store with the same journal.
    /// - **Restores leave no marks.** After one over the disks of the machine itself, the next backup is to be one with
    ///   [`Since::Nothing`], unless the disks were made anew.
    /// - A store that does not answer [`Sink::commit`] holds the backup: whether a point is visible has to be known.
    ///
    /// The name of a point is its time in UTC with a random end. Its properties: `job`, `vm.name`, `vm.moRef`, `consistency`;
    /// `fallback.<way>`, `leftOut.<key>`, `objectLeftOut.<name>`, each with the reason; for each disk `disk.<key>.` with
    /// `label`, `uuid`, `path`, `mode` (`full`, `incremental`), `reason` and `metadata.<name>`; and `object.<name>` with
    /// the machine's small files, which [`PointMeta::object`] gives back.
    ///
    /// # Errors
    /// As [`run`](Self::run); [`Error::Sink`] when the store fails; [`Error::Invalid`] for [`Since::Point`], which is a
    /// repository's. No point appears then, unless the store's commit failed after it.
    ///
    /// # Privileges
    /// As [`run`](Self::run).
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn run_into(self, sink: Arc<dyn Sink>) -> Result<SinkReport> {
        self.start_into(sink).finish().await
    }

    /// Starts what [`run_into`](Self::run_into) does on the current runtime and returns a handle on it.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start_into(self, sink: Arc<dyn Sink>) -> RunningBackup<SinkReport> {
        RunningBackup::start(self, |backup, abandoned| {
            Box::pin(async move { backup.work_into(&*sink, &abandoned).await })
        })
    }

    async fn work_into(&self, sink: &dyn Sink, abandoned: &Abandoned) -> Result<SinkReport> {
        let begun = Instant::now();
        let (machine, vm, guard) = self.open().await?;
        abandoned.note(guard.journal());
        let resume = self.resumable_into(&guard, &machine, sink, &vm).await;
        let recovered = match &resume {
            Some(_) => None,
            None => guard.recover().await?,
        };
        let goes_on = resume.as_ref().map(|resume| resume.leftover.job.id.as_str());
        discard::all(&guard, sink, &vm, goes_on, &self.events).await;
        let done = Box::pin(self.guarded_into(&guard, &machine, &vm, sink, resume.as_ref(), begun)).await;
        let mut leftovers = guard.undo().await;
        leftovers.extend(discard::all(&guard.undoing(), sink, &vm, None, &self.events).await);
        let (resumed, elapsed) = (resume.is_some(), begun.elapsed());
        done.map(|report| SinkReport { recovered, resumed, leftovers, elapsed, ..report })
    }

    /// Returns the interrupted job that this one is to go on with, if there is one.
    async fn resumable_into(&self, guard: &Guard, machine: &Machine, sink: &dyn Sink, vm: &VmId) -> Option<Resume> {
        let not_committed = async |leftover: &Leftover| {
            let points = guard.steps().once(Step::FindBase, self.points_of(sink, vm)).await?;
            let committed = points.iter().any(|point| is_of_job(point, &leftover.job.id));
            Ok(if committed { Err("its point is visible") } else { Ok(()) })
        };
        self.resumable_where(guard, machine, &place_of(sink), not_committed).await
    }

    /// Everything between the journal's begin and its end.
    async fn guarded_into(
        &self,
        guard: &Guard,
        machine: &Machine,
        vm: &VmId,
        sink: &dyn Sink,
        resume: Option<&Resume>,
        begun: Instant,
    ) -> Result<SinkReport> {
        let (steps, details) = (guard.steps(), &machine.details);
        self.admit(machine, sink.encrypts())?;
        let mut left_out = self.left_out_of_some(machine)?;
        let points = steps.once(Step::FindBase, self.points_of(sink, vm)).await?;
        let id = next_id(vm, points.last())?;
        let base = self.base_among(points)?;

        let job = match resume {
            Some(resume) => resume.leftover.job.clone(),
            None => self.job(vm, place_of(sink), None)?,
        };
        let frozen = match resume {
            Some(Resume { leftover, snapshot, fallbacks }) => {
                self.events.send(Event::Resumed { leftover: leftover.clone() });
                guard.lock(&job).await?;
                Frozen { snapshot: Some(snapshot.clone()), fallbacks: fallbacks.clone(), ..Frozen::default() }
            }
            None => {
                guard.begin(job.clone()).await?;
                guard.lock(&job).await?;
                Box::pin(self.freeze(guard, &job, machine, &id)).await?
            }
        };
        let intent = Record::StoreIntent { job: job.id.clone(), store: sink.id() };
        guard.record(Step::RecordStore, intent).await?;
        let Frozen { snapshot, fallbacks, tracking_enabled, .. } = frozen;
        let snapshot = snapshot.as_ref();
        let consistency = flow::consistency(snapshot, details);
        let mut properties = Properties::of(self, &job.id, machine, consistency, &fallbacks);
        self.store_objects(steps, &mut properties, machine, snapshot).await?;
        let disks = self.disks(steps, details, snapshot, &mut left_out).await?;

        let connection = steps.take(Step::Connect, || disks::connect(self)).await?;
        let budget = self.budget();
        let job_of = |info| SinkDisk {
            frozen: FrozenDisk::new(self, guard, &connection, snapshot, info),
            resume,
            vm,
            job: &job.id,
            sink,
            base: base.as_ref(),
            host: machine.host,
            tracking_enabled,
            budget: budget.clone(),
            begun,
        };
        let jobs: Vec<BoxFuture<'_, _>> = disks.into_iter().map(|disk| Box::pin(job_of(disk).run()) as _).collect();
        // The first error drops the others, and with them their writers.
        let done: Vec<StoredInSink> = stream::iter(jobs).buffered(self.parallel_disks).try_collect().await?;
        if self.cancel.is_stopping() {
            return Err(Error::Cancelled);
        }
        if snapshot.is_none() {
            self.confirm_template(steps, machine).await?;
        }

        left_out.iter().for_each(|disk| properties.leave_out_disk(disk));
        let (mut stored, mut reports) = (Vec::new(), Vec::new());
        for disk in done {
            properties.add_disk(&disk);
            stored.push(disk.point);
            reports.push(disk.report);
        }
        let properties = properties.into_map();
        let point = PointMeta { vm: vm.to_string(), name: name_of(&id), disks: stored, properties };
        let commit = async { sink.commit(point.clone()).await.map_err(failed("the commit")) };
        steps.once(Step::Commit, commit).await?;
        self.note_commit(guard, &id).await;
        Ok(SinkReport {
            point,
            base: base.map(|base| base.name),
            disks: reports,
            left_out,
            consistency,
            fallbacks,
            tracking_enabled,
            recovered: None,
            resumed: false,
            leftovers: Vec::new(),
            elapsed: Duration::ZERO,
        })
    }

    async fn points_of(&self, sink: &dyn Sink, vm: &VmId) -> Result<Vec<PointMeta>> {
        sink.points(vm.as_str()).await.map_err(failed("the list"))
    }

    /// Returns the point that incremental disks begin with.
    fn base_among(&self, mut points: Vec<PointMeta>) -> Result<Option<PointMeta>> {
        match &self.since {
            Since::Nothing => Ok(None),
            Since::Latest => Ok(points.pop()),
            Since::Full => Ok(points.into_iter().rfind(is_full)),
            Since::Point(point) => {
                let what = format!("{} is a repository's point, and the backup goes into a store", point.id());
                Err(Error::invalid(what))
            }
        }
    }
}

/// How a journal names a store, among repositories.
fn place_of(sink: &dyn Sink) -> String {
    format!("store {}", sink.id())
}

fn failed(operation: &'static str) -> impl FnOnce(DiskError) -> Error {
    move |source| Error::Sink { operation, source }
}
