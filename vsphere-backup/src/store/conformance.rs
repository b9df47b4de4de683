//! A suite that any [`Sink`] has to pass before backups may go there. It needs no test framework.
//!
//! ```
//! use std::sync::Arc;
//! use vsphere_backup::{repository::{CreateOptions, Repository, WriterOptions, storage::MemoryStorage}};
//! use vsphere_backup::store::{RepositorySink, conformance::Conformance};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let options = CreateOptions::default().chunk_size(64 << 10);
//! let repository = Repository::create(Arc::new(MemoryStorage::new()), options).await?;
//! let sink = RepositorySink::new(&repository, WriterOptions::default());
//! let report = Conformance::new("00000000-0000-0000-0000-000000000001").run(Arc::new(sink)).await?;
//! println!("kept: {:?}", report.kept);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{FutureExt, TryStreamExt, future};

use super::{DiskMeta, DiskRef, DiskWriter, PointDisk, PointMeta, Sink};
use crate::{
    error::DiskError,
    repository::{ExtentKind, storage::BoxFuture},
};

/// The suite and where it writes.
#[derive(Clone)]
#[must_use]
pub struct Conformance {
    vm: String,
    reopen: Option<Reopen>,
}

type Reopen = Arc<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Sink>, DiskError>> + Send + Sync>;

/// A part of the contract of [`Sink`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A disk is given back as it was told, byte by byte.
    Whole,
    /// Data, zeros and what is unallocated are told apart.
    Kinds,
    /// What is unchanged or not told is the parent's.
    Unchanged,
    /// A disk does not change when a child of it is written.
    Independent,
    /// A disk that grew has nothing allocated behind its parent's end.
    Grown,
    /// Ranges that are out of order, not aligned or behind the end are refused.
    OnePass,
    /// A writer goes on after a checkpoint.
    Checkpoint,
    /// Nothing is visible before its commit, nor what was given up.
    Hidden,
    /// What is not finished cannot be committed.
    Finished,
    /// The name of a point is given once.
    Exclusive,
    /// Points are listed as they were committed, the oldest first.
    Listed,
    /// Another handle, opened afterwards, sees the same.
    Durable,
}

/// What was found to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The rules that were checked, all of which were kept.
    pub kept: Vec<Rule>,
}

/// The first breach of the contract.
#[derive(Debug)]
#[non_exhaustive]
pub struct Violation {
    /// The broken rule.
    pub rule: Rule,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

impl std::error::Error for Violation {}

impl fmt::Debug for Conformance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conformance({})", self.vm)
    }
}

impl Conformance {
    /// The suite, which writes points of the machine `vm` (a UUID); there must be none yet. They stay.
    pub fn new(vm: impl Into<String>) -> Self {
        Self { vm: vm.into(), reopen: None }
    }

    /// Gives a way to open the same store anew.
    pub fn reopen<F>(mut self, open: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Arc<dyn Sink>, DiskError>> + Send + 'static,
    {
        self.reopen = Some(Arc::new(move || Box::pin(open())));
        self
    }

    /// Checks a store, one rule after the other. Needs a tokio runtime.
    ///
    /// # Errors
    /// The first [`Violation`]. A store that fails otherwise breaks the rule that was being checked.
    ///
    /// # Cancel safety
    /// When dropped, points stay.
    pub async fn run(&self, sink: Arc<dyn Sink>) -> Result<Report, Violation> {
        let mut kept = Vec::new();
        for &(rule, check) in ALL {
            if rule == Rule::Durable && self.reopen.is_none() {
                continue;
            }
            let place = Place { sink: &*sink, suite: self, rule, step: sink.alignment() };
            check(&place).await.map_err(|what| Violation { rule, what })?;
            kept.push(rule);
        }
        Ok(Report { kept })
    }
}

struct Place<'a> {
    sink: &'a dyn Sink,
    suite: &'a Conformance,
    rule: Rule,
    step: u64,
}

type Seen<T = ()> = Result<T, String>;
type Check = for<'a> fn(&'a Place<'a>) -> BoxFuture<'a, Seen>;

const ALL: &[(Rule, Check)] = &[
    (Rule::Whole, |place| whole(place).boxed()),
    (Rule::Kinds, |place| kinds(place).boxed()),
    (Rule::Unchanged, |place| unchanged(place).boxed()),
    (Rule::Independent, |place| independent(place).boxed()),
    (Rule::Grown, |place| grown(place).boxed()),
    (Rule::OnePass, |place| one_pass(place).boxed()),
    (Rule::Checkpoint, |place| checkpoint(place).boxed()),
    (Rule::Hidden, |place| hidden(place).boxed()),
    (Rule::Finished, |place| finished(place).boxed()),
    (Rule::Exclusive, |place| exclusive(place).boxed()),
    (Rule::Listed, |place| listed(place).boxed()),
    (Rule::Durable, |place| durable(place).boxed()),
];

/// What a writer is told of, in steps of the store's alignment.
#[derive(Clone, Debug)]
enum Told {
    Data(Range<u64>, u8),
    Zero(Range<u64>),
    Unallocated(Range<u64>),
    Unchanged(Range<u64>),
}

use Told::{Data, Unallocated, Unchanged, Zero};

impl Place<'_> {
    /// The whole steps of most disks here; half a kilobyte more ends them within a step where that is longer.
    fn capacity(&self) -> u64 {
        STEPS * self.step + 512
    }

    fn name(&self, number: u32) -> String {
        format!("{:02}-{number:02}", self.rule as u8)
    }

    async fn begin(&self, capacity: u64, parent: Option<&DiskRef>) -> Seen<Box<dyn DiskWriter>> {
        let disk = DiskMeta { vm: self.suite.vm.clone(), key: 2000, capacity };
        self.sink.begin(disk, parent.cloned()).await.map_err(told("begin"))
    }

    /// A range of steps in bytes; behind the last whole step the disk ends.
    fn bytes(&self, steps: &Range<u64>, capacity: u64) -> Range<u64> {
        (steps.start * self.step).min(capacity)..(steps.end * self.step).min(capacity)
    }

    async fn tell(&self, writer: &mut dyn DiskWriter, capacity: u64, all: &[Told]) -> Seen {
        for part in all {
            let done = match part {
                Data(steps, fill) => {
                    let range = self.bytes(steps, capacity);
                    writer.write(range.start, pattern(*fill, &range)).await
                }
                Zero(steps) => writer.zero(self.bytes(steps, capacity)).await,
                Unallocated(steps) => writer.unallocated(self.bytes(steps, capacity)).await,
                Unchanged(steps) => writer.unchanged(self.bytes(steps, capacity)).await,
            };
            done.map_err(told(format!("{part:?}")))?;
        }
        Ok(())
    }

    /// What a disk holds after it was told so.
    fn model(&self, capacity: u64, parent: &[u8], all: &[Told]) -> Vec<u8> {
        let mut model = parent.to_vec();
        model.resize(capacity as usize, 0);
        for part in all {
            match part {
                Data(steps, fill) => {
                    let range = self.bytes(steps, capacity);
                    model[range.start as usize..range.end as usize].copy_from_slice(&pattern(*fill, &range));
                }
                Zero(steps) | Unallocated(steps) => {
                    let range = self.bytes(steps, capacity);
                    model[range.start as usize..range.end as usize].fill(0);
                }
                Unchanged(_) => {}
            }
        }
        model
    }

    fn point(&self, number: u32, disks: &[(DiskRef, u64)]) -> PointMeta {
        let disks = disks.iter().map(|(disk, capacity)| PointDisk {
            key: 2000,
            capacity: *capacity,
            disk: disk.clone(),
            change_id: Some(format!("52 de/{number}")),
        });
        PointMeta {
            vm: self.suite.vm.clone(),
            name: self.name(number),
            disks: disks.collect(),
            properties: [("config".to_owned(), format!("{{\"number\":{number}}}"))].into(),
        }
    }

    /// Writes a disk and commits a point of it.
    async fn store(&self, number: u32, capacity: u64, parent: Option<&DiskRef>, all: &[Told]) -> Seen<DiskRef> {
        let mut writer = self.begin(capacity, parent).await?;
        self.tell(&mut *writer, capacity, all).await?;
        let disk = writer.finish().await.map_err(told("finish"))?;
        self.sink.commit(self.point(number, &[(disk.clone(), capacity)])).await.map_err(told("commit"))?;
        Ok(disk)
    }

    /// Expects a disk to be just so, read at once and in pieces.
    async fn holds(&self, sink: &dyn Sink, disk: &DiskRef, model: &[u8]) -> Seen {
        let source = sink.open(disk).await.map_err(told("open"))?;
        let capacity = source.capacity();
        ensure(capacity == model.len() as u64, || format!("the disk has {capacity} bytes, not {}", model.len()))?;
        for piece in [model.len(), 3 * 512, self.step as usize * 3 / 2 / 512 * 512] {
            for at in (0..model.len()).step_by(piece.max(512)) {
                let len = piece.max(512).min(model.len() - at);
                let found = source.read_at(at as u64, len).await.map_err(told(format!("read_at {at}, {len}")))?;
                let differs = found.iter().zip(&model[at..]).position(|(a, b)| a != b);
                ensure(found.len() == len && differs.is_none(), || {
                    let place = differs.map_or(at + found.len().min(len), |differs| at + differs);
                    format!("byte {place}, in step {}, is not what was told", place as u64 / self.step)
                })?;
            }
        }
        Ok(())
    }

    async fn names(&self, sink: &dyn Sink) -> Seen<Vec<String>> {
        let points = sink.points(&self.suite.vm).await.map_err(told("points"))?;
        Ok(points.into_iter().map(|point| point.name).collect())
    }
}

/// All kinds, gaps between them, and the disk's end.
fn mixed() -> Vec<Told> {
    vec![Data(0..2, 1), Zero(2..4), Data(5..6, 2), Data(6..7, 3), Unallocated(7..9), Data(11..12, 4), Data(15..17, 5)]
}

async fn whole(place: &Place<'_>) -> Seen {
    let capacity = place.capacity();
    let disk = place.store(0, capacity, None, &mixed()).await?;
    place.holds(place.sink, &disk, &place.model(capacity, &[], &mixed())).await?;
    let nothing = place.store(1, capacity, None, &[]).await?;
    place.holds(place.sink, &nothing, &place.model(capacity, &[], &[])).await?;
    let all = [Data(0..STEPS + 1, 9)];
    let full = place.store(2, capacity, None, &all).await?;
    place.holds(place.sink, &full, &place.model(capacity, &[], &all)).await
}

async fn kinds(place: &Place<'_>) -> Seen {
    let capacity = place.capacity();
    let disk = place.store(0, capacity, None, &mixed()).await?;
    let source = place.sink.open(&disk).await.map_err(told("open"))?;
    let extents: Vec<_> = source.extents(0..capacity).try_collect().await.map_err(told("extents"))?;
    let mut at = 0;
    let mut found = Vec::new();
    for (range, kind) in extents {
        ensure(range.start == at && range.end > at, || format!("an extent {range:?} follows byte {at}"))?;
        at = range.end;
        found.extend((range.start.div_ceil(place.step)..range.end.div_ceil(place.step)).map(|_| kind));
    }
    ensure(at == capacity, || format!("extents end at byte {at} of {capacity}"))?;
    let mut expected = vec![ExtentKind::Unallocated; STEPS as usize + 1];
    for part in mixed() {
        let (steps, kind) = match part {
            Data(steps, _) => (steps, ExtentKind::Data),
            Zero(steps) => (steps, ExtentKind::Zero),
            Unallocated(steps) | Unchanged(steps) => (steps, ExtentKind::Unallocated),
        };
        expected[steps.start as usize..steps.end as usize].fill(kind);
    }
    ensure(found == expected, || format!("extents are {found:?}, not {expected:?}"))
}

/// What a child is told of: some of everything, beside what is left out.
fn changes() -> Vec<Told> {
    vec![
        Unchanged(0..1),
        Data(1..2, 21),
        Zero(5..6),
        Unallocated(6..7),
        Data(7..8, 22),
        Unchanged(15..16),
        Data(16..17, 23),
    ]
}

async fn unchanged(place: &Place<'_>) -> Seen {
    let capacity = place.capacity();
    let parent = place.store(0, capacity, None, &mixed()).await?;
    let child = place.store(1, capacity, Some(&parent), &changes()).await?;
    let model = place.model(capacity, &place.model(capacity, &[], &mixed()), &changes());
    place.holds(place.sink, &child, &model).await?;
    let grandchild = place.store(2, capacity, Some(&child), &[]).await?;
    place.holds(place.sink, &grandchild, &model).await?;
    let mut alone = place.begin(capacity, None).await?;
    ensure(alone.unchanged(0..place.step).await.is_err(), || "unchanged without a parent was taken".into())?;
    alone.abort().await.map_err(told("abort"))
}

async fn independent(place: &Place<'_>) -> Seen {
    let capacity = place.capacity();
    let parent = place.store(0, capacity, None, &mixed()).await?;
    place.store(1, capacity, Some(&parent), &[Data(0..STEPS + 1, 7)]).await?;
    let mut given_up = place.begin(capacity, Some(&parent)).await?;
    place.tell(&mut *given_up, capacity, &[Data(0..3, 8)]).await?;
    given_up.abort().await.map_err(told("abort"))?;
    place.holds(place.sink, &parent, &place.model(capacity, &[], &mixed())).await
}

async fn grown(place: &Place<'_>) -> Seen {
    let (small, large) = (8 * place.step, 12 * place.step);
    let told_first = [Data(0..8, 1)];
    let parent = place.store(0, small, None, &told_first).await?;
    let more = [Data(3..4, 2), Data(10..11, 3)];
    let child = place.store(1, large, Some(&parent), &more).await?;
    let model = place.model(large, &place.model(small, &[], &told_first), &more);
    place.holds(place.sink, &child, &model).await?;
    let shrunk = place.begin(small, Some(&child)).await;
    ensure(shrunk.is_err(), || "a disk smaller than its parent was begun".into())
}

async fn one_pass(place: &Place<'_>) -> Seen {
    let (capacity, step) = (place.capacity(), place.step);
    let odd = |range: &Range<u64>| pattern(1, range);
    for (range, what) in [
        (0..step, "a range before the last one"),
        (step..3 * step, "a range that overlaps the last one"),
        (3 * step + 1..4 * step, "a start that is not aligned"),
        (3 * step..4 * step - 1, "an end that is not aligned"),
        (STEPS * step..capacity + 1, "a range behind the end"),
    ] {
        let mut writer = place.begin(capacity, None).await?;
        place.tell(&mut *writer, capacity, &[Data(1..2, 1)]).await?;
        let taken = writer.write(range.start, odd(&range)).await.is_ok() && writer.finish().await.is_ok();
        ensure(!taken, || format!("{what} was taken"))?;
    }
    Ok(())
}

async fn checkpoint(place: &Place<'_>) -> Seen {
    let capacity = place.capacity();
    let all = mixed();
    let mut writer = place.begin(capacity, None).await?;
    for part in all.chunks(2) {
        place.tell(&mut *writer, capacity, part).await?;
        let token = writer.checkpoint().await.map_err(told("checkpoint"))?;
        ensure(token.position <= capacity, || format!("a token says {} of {capacity}", token.position))?;
    }
    let disk = writer.finish().await.map_err(told("finish"))?;
    place.sink.commit(place.point(0, &[(disk.clone(), capacity)])).await.map_err(told("commit"))?;
    place.holds(place.sink, &disk, &place.model(capacity, &[], &all)).await
}

async fn hidden(place: &Place<'_>) -> Seen {
    let capacity = place.capacity();
    let before = place.names(place.sink).await?;
    let same = |now: Vec<String>, when: &str| ensure(now == before, || format!("{now:?} are listed {when}"));
    for end in ["abort", "drop"] {
        let mut writer = place.begin(capacity, None).await?;
        place.tell(&mut *writer, capacity, &mixed()).await?;
        same(place.names(place.sink).await?, "while a disk is written")?;
        match end {
            "abort" => writer.abort().await.map_err(told("abort"))?,
            _ => drop(writer),
        }
        same(place.names(place.sink).await?, &format!("after {end}"))?;
    }
    let mut writer = place.begin(capacity, None).await?;
    place.tell(&mut *writer, capacity, &mixed()).await?;
    let disk = writer.finish().await.map_err(told("finish"))?;
    same(place.names(place.sink).await?, "after finish, before commit")?;
    place.sink.commit(place.point(0, &[(disk, capacity)])).await.map_err(told("commit"))?;
    let now = place.names(place.sink).await?;
    ensure(now.len() == before.len() + 1, || format!("{now:?} are listed after a commit"))
}

async fn finished(place: &Place<'_>) -> Seen {
    let capacity = place.capacity();
    let mut writer = place.begin(capacity, None).await?;
    place.tell(&mut *writer, capacity, &mixed()).await?;
    let disk = writer.finish().await.map_err(told("finish"))?;
    let never = DiskRef::new(format!("{}-never", disk.as_str()));
    let before = place.names(place.sink).await?;
    let committed = place.sink.commit(place.point(0, &[(disk, capacity), (never.clone(), capacity)])).await;
    ensure(committed.is_err(), || "a disk that was never finished was committed".into())?;
    let now = place.names(place.sink).await?;
    ensure(now == before, || format!("{now:?} are listed after a commit that failed"))?;
    ensure(place.sink.open(&never).await.is_err(), || "a disk that was never written was opened".into())
}

async fn exclusive(place: &Place<'_>) -> Seen {
    let capacity = place.capacity();
    let first = place.store(0, capacity, None, &mixed()).await?;
    ensure(place.store(0, capacity, None, &[Data(0..1, 99)]).await.is_err(), || "a name was given twice".into())?;
    place.holds(place.sink, &first, &place.model(capacity, &[], &mixed())).await?;
    for round in 1..4 {
        let mut disks = Vec::new();
        for fill in [1, 2] {
            let mut writer = place.begin(capacity, None).await?;
            place.tell(&mut *writer, capacity, &[Data(0..1, fill)]).await?;
            disks.push(writer.finish().await.map_err(told("finish"))?);
        }
        let commits = disks.iter().map(|disk| place.sink.commit(place.point(round, &[(disk.clone(), capacity)])));
        let won: Vec<_> = future::join_all(commits).await.into_iter().map(|done| done.is_ok()).collect();
        let winners = won.iter().filter(|won| **won).count();
        ensure(winners == 1, || format!("{winners} of two commits of one name at once succeeded"))?;
    }
    let names = place.names(place.sink).await?;
    let ours = names.iter().filter(|name| **name == place.name(0)).count();
    ensure(ours == 1, || format!("a name is listed {ours} times"))
}

async fn listed(place: &Place<'_>) -> Seen {
    let capacity = place.capacity();
    let mut expected = Vec::new();
    for number in 0..3 {
        let disk = place.store(number, capacity, None, &[Data(0..1, number as u8 + 1)]).await?;
        expected.push(place.point(number, &[(disk, capacity)]));
    }
    let points = place.sink.points(&place.suite.vm).await.map_err(told("points"))?;
    let last = &points[points.len().saturating_sub(3)..];
    ensure(last == expected, || format!("{last:?} are listed last, not {expected:?}"))?;
    let other =
        place.sink.points("ffffffff-0000-0000-0000-00000000ffff").await.map_err(told("points of no machine"))?;
    ensure(other.is_empty(), || format!("a machine without points has {other:?}"))
}

async fn durable(place: &Place<'_>) -> Seen {
    let capacity = place.capacity();
    let disk = place.store(0, capacity, None, &mixed()).await?;
    let open = place.suite.reopen.as_ref().expect("the rule applies with a way to reopen only");
    let other = open().await.map_err(told("opening the store anew"))?;
    let (ours, theirs) = (place.names(place.sink).await?, place.names(&*other).await?);
    ensure(ours == theirs, || format!("a new handle lists {theirs:?}, not {ours:?}"))?;
    place.holds(&*other, &disk, &place.model(capacity, &[], &mixed())).await
}

/// Bytes that tell their place and who wrote them; not one of them is zero.
fn pattern(fill: u8, range: &Range<u64>) -> Bytes {
    range.clone().map(|at| (at / 512 % 251) as u8 ^ fill | 1).collect()
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Seen {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn told(what: impl fmt::Display) -> impl FnOnce(DiskError) -> String {
    move |error| format!("{what} failed: {error}")
}

/// Whole steps of most disks.
const STEPS: u64 = 16;
