//! Where the members of a set wait for each other.
//!
//! A member is somewhere on its way: prepared, standing still, read, committed; or it gave up. What is to be waited for
//! is decided from these facts alone ([`Progress`]), which the members share.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{OnceCell, Semaphore, SemaphorePermit, watch};

use crate::{
    error::{Error, Result, in_one_line},
    repository::{PointId, Repository, SetOutcome, SetRecord},
};

/// How far a member is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    #[default]
    Preparing,
    /// Locked, and nothing is in the way of its snapshot.
    Ready,
    /// Its snapshot is made.
    Still,
    /// All its chunks are durable.
    Stored,
    Committed,
}

/// What is known of a member.
#[derive(Clone, Debug, Default)]
struct Member {
    phase: Phase,
    point: Option<PointId>,
    /// When its snapshot was begun and when it was made; a template has none.
    snapshot: Option<(Instant, Instant)>,
    /// Why it gave up.
    failed: Option<String>,
}

/// All members.
#[derive(Clone, Debug, Default)]
struct Progress(Vec<Member>);

/// A set that is being backed up.
#[derive(Debug)]
pub(super) struct Gathering {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) all_or_nothing: bool,
    repository: Repository,
    progress: watch::Sender<Progress>,
    reading: Semaphore,
    settled: OnceCell<()>,
    opened: OnceCell<()>,
}

/// The place of one machine in a set. Clones are the same place.
#[derive(Clone, Debug)]
pub(in crate::backup) struct Seat {
    gathering: Arc<Gathering>,
    at: usize,
}

impl Progress {
    /// Tells whether nobody has to be waited for to be at `phase`: who gave up is not; nor is anybody when all is lost.
    fn is_over(&self, phase: Phase, all_or_nothing: bool) -> bool {
        (all_or_nothing && self.failure().is_some())
            || self.0.iter().all(|member| member.phase >= phase || member.failed.is_some())
    }

    fn failure(&self) -> Option<(usize, &str)> {
        self.0.iter().enumerate().find_map(|(at, member)| Some((at, member.failed.as_deref()?)))
    }

    fn points(&self) -> Vec<PointId> {
        let there = self.0.iter().filter(|member| member.failed.is_none());
        there.filter_map(|member| member.point.clone()).collect()
    }

    /// Returns the time from the begin of the first snapshot to the end of the last.
    fn spread(&self) -> Duration {
        let made = || self.0.iter().filter(|member| member.failed.is_none()).filter_map(|member| member.snapshot);
        let (first, last) = (made().map(|(begun, _)| begun).min(), made().map(|(_, made)| made).max());
        first.zip(last).map_or(Duration::ZERO, |(first, last)| last.saturating_duration_since(first))
    }
}

impl Gathering {
    pub(super) fn new(
        (id, name): (String, String),
        members: usize,
        all_or_nothing: bool,
        repository: &Repository,
        parallel: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            name,
            all_or_nothing,
            repository: repository.clone(),
            progress: watch::Sender::new(Progress(vec![Member::default(); members])),
            reading: Semaphore::new(parallel),
            settled: OnceCell::new(),
            opened: OnceCell::new(),
        })
    }

    pub(super) fn seat(self: &Arc<Self>, at: usize) -> Seat {
        Seat { gathering: self.clone(), at }
    }

    pub(super) fn spread(&self) -> Duration {
        self.progress.borrow().spread()
    }

    /// Ends a set that is to be seen all or nothing, as far as its members are.
    ///
    /// # Errors
    /// [`Error::Storage`]: its points are withheld.
    pub(super) async fn end(&self) -> Result<SetOutcome> {
        let (points, whole) = {
            let progress = self.progress.borrow();
            let whole = progress.0.iter().all(|member| member.phase == Phase::Committed && member.failed.is_none());
            (progress.0.iter().filter_map(|member| member.point.clone()).collect::<Vec<_>>(), whole)
        };
        let outcome = if whole { SetOutcome::Complete } else { SetOutcome::GivenUp };
        if !self.all_or_nothing || self.opened.get().is_none() {
            return Ok(outcome);
        }
        self.repository.end_set(&self.id, &points, outcome).await
    }

    /// Ends what an earlier backup of these machines left open; all of them are held now.
    async fn settle(&self) -> Result<()> {
        let settled = self.settled.get_or_try_init(|| async {
            let machines: BTreeSet<_> =
                self.progress.borrow().points().iter().map(|point| point.vm().clone()).collect();
            for (set, outcome) in self.repository.settle_sets_of_machines(&machines).await? {
                tracing::warn!(set, ?outcome, "ended a set whose backup was cut short");
            }
            Ok(())
        });
        settled.await.copied()
    }

    fn record(&self) -> SetRecord {
        let progress = self.progress.borrow();
        SetRecord {
            id: self.id.clone(),
            name: self.name.clone(),
            points: progress.points(),
            all_or_nothing: self.all_or_nothing,
            spread_millis: u64::try_from(progress.spread().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Seat {
    /// States that nothing is in the way of the snapshot any more, and waits until that is so for all.
    ///
    /// # Errors
    /// [`Error::Refused`] when the set is given up; [`Error::Storage`].
    pub(in crate::backup) async fn ready(&self, point: &PointId) -> Result<()> {
        self.arrive(Phase::Ready, |member| member.point = Some(point.clone())).await?;
        self.gathering.settle().await
    }

    /// States that the machine stands still, and waits until all do. Returns what the point is to say of the set.
    ///
    /// # Errors
    /// [`Error::Refused`] when the set is given up.
    pub(in crate::backup) async fn still(&self, snapshot: Option<(Instant, Instant)>) -> Result<SetRecord> {
        self.arrive(Phase::Still, |member| member.snapshot = snapshot).await?;
        Ok(self.gathering.record())
    }

    /// Waits for leave to read the machine's disks.
    pub(in crate::backup) async fn reading(&self) -> Result<SemaphorePermit<'_>> {
        let closed = |_| Error::invalid("nobody closes the permits to read");
        self.gathering.reading.acquire().await.map_err(closed)
    }

    /// Tells whether the points of the set are seen all or nothing.
    pub(in crate::backup) fn is_all_or_nothing(&self) -> bool {
        self.gathering.all_or_nothing
    }

    /// States that all chunks of the machine are durable, and waits until all are where that matters. The points may be
    /// committed then.
    ///
    /// # Errors
    /// [`Error::Refused`] when the set is given up; [`Error::Storage`].
    pub(in crate::backup) async fn stored(&self) -> Result<()> {
        if !self.gathering.all_or_nothing {
            return Ok(());
        }
        self.arrive(Phase::Stored, |_| ()).await?;
        let open = || async { self.gathering.repository.open_set(&self.gathering.record()).await };
        self.gathering.opened.get_or_try_init(open).await.copied()
    }

    /// States that the point is committed. The last one completes the set.
    pub(in crate::backup) async fn committed(&self) {
        let gathering = &self.gathering;
        gathering.progress.send_modify(|progress| progress.0[self.at].phase = Phase::Committed);
        let last = gathering.progress.borrow().0.iter().all(|member| member.phase == Phase::Committed);
        if last && let Err(error) = gathering.end().await {
            // Tried again when all members are done.
            tracing::warn!(set = gathering.id, %error, "the set is not complete yet");
        }
    }

    /// States that the machine is not in the set, so that nobody waits for it.
    pub(in crate::backup) fn leave(&self, error: &Error) {
        self.gathering.progress.send_modify(|progress| {
            progress.0[self.at].failed.get_or_insert_with(|| in_one_line(error));
        });
    }

    async fn arrive(&self, phase: Phase, tell: impl FnOnce(&mut Member)) -> Result<()> {
        let Gathering { progress, all_or_nothing, .. } = &*self.gathering;
        progress.send_modify(|progress| {
            let member = &mut progress.0[self.at];
            tell(member);
            member.phase = phase;
        });
        let mut seen = progress.subscribe();
        let over = seen.wait_for(|progress| progress.is_over(phase, *all_or_nothing)).await;
        let over = over.map_err(|_| Error::invalid("the set is gone"))?;
        match over.failure().filter(|_| *all_or_nothing) {
            Some((at, reason)) => Err(Error::Refused {
                vm: over.0[self.at].point.as_ref().map(|point| point.vm().to_string()).unwrap_or_default(),
                reason: format!(
                    "the set {:?} is given up, its member {} failed: {reason}",
                    self.gathering.name,
                    at + 1
                ),
                hint: None,
            }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(phases: &[(Phase, bool)]) -> Progress {
        let member = |&(phase, failed): &(Phase, bool)| Member {
            phase,
            failed: failed.then(|| "a reason".to_owned()),
            ..Member::default()
        };
        Progress(phases.iter().map(member).collect())
    }

    #[test]
    fn a_member_waits_for_those_that_are_behind_and_not_for_those_that_gave_up() {
        let behind = members(&[(Phase::Ready, false), (Phase::Preparing, false)]);
        assert!(!behind.is_over(Phase::Ready, false) && !behind.is_over(Phase::Ready, true));
        let ahead = members(&[(Phase::Ready, false), (Phase::Committed, false)]);
        assert!(ahead.is_over(Phase::Ready, true));
        let gone = members(&[(Phase::Ready, false), (Phase::Preparing, true)]);
        assert!(gone.is_over(Phase::Ready, false) && gone.is_over(Phase::Ready, true));
        let both = members(&[(Phase::Ready, false), (Phase::Preparing, true), (Phase::Preparing, false)]);
        assert!(!both.is_over(Phase::Ready, false), "the third is on its way");
        assert!(both.is_over(Phase::Ready, true), "and need not be waited for when all is lost");
    }

    #[test]
    fn the_spread_is_from_the_first_begin_to_the_last_end() {
        let start = Instant::now();
        let at = |begun, made| {
            let after = |millis| start + Duration::from_millis(millis);
            Member { snapshot: Some((after(begun), after(made))), ..Member::default() }
        };
        let failed = Member { failed: Some(String::new()), ..at(0, 900) };
        let progress = Progress(vec![at(10, 40), Member::default(), at(15, 60), failed]);
        assert_eq!(progress.spread(), Duration::from_millis(50));
        assert_eq!(Progress::default().spread(), Duration::ZERO);
    }
}
