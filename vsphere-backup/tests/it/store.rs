//! Stores of others: ours and a small one keep the contract, broken ones are caught.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use vsphere_backup::{
    DiskError, Error,
    engine::{DiskSource, MemoryDisk, Source, SourceExtent},
    repository::{
        ExtentKind, WriterOptions,
        storage::{BoxFuture, BoxStream, Timer},
    },
    store::{
        DiskCopy, DiskMeta, DiskRef, DiskWriter, FaultySink, OnePass, PointDisk, PointMeta, RepositorySink, Sink,
        ThrottledSink, Token,
        conformance::{Conformance, Rule},
    },
};

use crate::world::*;

const VM: &str = "5029c440-0000-0000-0000-000000000001";

pub(crate) fn own(flaw: Option<Flaw>) -> Arc<OwnStore> {
    Arc::new(OwnStore { flaw, state: Arc::default() })
}

#[tokio::test]
async fn our_repository_keeps_the_contract_of_stores() {
    let (storage, repository) = repository().await;
    let sink = RepositorySink::new(&repository, WriterOptions::default());
    let suite = Conformance::new(VM).reopen(move || {
        let storage = storage.clone();
        async move {
            let repository = open(storage).await.map_err(DiskError::new)?;
            Ok(Arc::new(RepositorySink::new(&repository, WriterOptions::default())) as Arc<dyn Sink>)
        }
    });
    let report = suite.run(Arc::new(sink)).await.unwrap_or_else(|violation| panic!("{violation}"));
    assert!(report.kept.contains(&Rule::Durable) && report.kept.len() == 14, "{report:?}");
}

#[tokio::test]
async fn a_small_store_and_decorated_ones_keep_the_contract() {
    let timer = Timer::by_hand();
    let throttled = ThrottledSink::new(own(None), 100_000, &timer);
    for sink in [own(None) as Arc<dyn Sink>, Arc::new(throttled), Arc::new(FaultySink::new(own(None), u64::MAX, false))]
    {
        let report = Conformance::new(VM).run(sink).await.unwrap_or_else(|violation| panic!("{violation}"));
        assert!(report.kept.contains(&Rule::Resumed) && report.kept.len() == 13, "{report:?}");
    }
    assert!(timer.now() > Duration::from_secs(1), "{:?}", timer.now());
}

#[tokio::test]
async fn every_broken_store_is_found_by_its_rule() {
    for &(flaw, rule) in FLAWS {
        let suite = match flaw {
            Flaw::MemoryOnly => Conformance::new(VM).reopen(move || async move { Ok(own(None) as Arc<dyn Sink>) }),
            _ => Conformance::new(VM),
        };
        let violation = suite.run(own(Some(flaw))).await.expect_err(&format!("{flaw:?}"));
        assert_eq!(violation.rule, rule, "{flaw:?}: {violation}");
    }
}

#[tokio::test]
async fn a_disk_goes_into_a_store_and_its_changes_after_it() {
    let store = own(None);
    let disk = MemoryDisk::new(sample());
    let all = 0..sample().len() as u64;
    let full = copy(&*store, "1", &disk, &[all], None).await.unwrap();
    disk.edit(|bytes| bytes[2_000_000..2_000_100].fill(9));
    let read = disk.bytes_read();
    let second = copy(&*store, "2", &disk, &[2_000_000..2_000_100], Some(&full)).await.unwrap();
    assert!(disk.bytes_read() - read <= 2 * store.alignment());
    let source = store.open(&second).await.unwrap();
    assert!(source.read_at(0, sample().len()).await.unwrap() == disk.content());
    assert!(store.open(&full).await.unwrap().read_at(0, sample().len()).await.unwrap() == sample());
}

#[tokio::test]
async fn a_fault_at_every_operation_of_a_store_leaves_its_points_as_they_were() {
    let disk = MemoryDisk::new(sample());
    let all = 0..sample().len() as u64;
    let counting = FaultySink::new(own(None), u64::MAX, false);
    copy(&counting, "1", &disk, std::slice::from_ref(&all), None).await.unwrap();
    assert!(counting.operations() > 5);
    let mut told = 0;
    for at in 0..counting.operations() {
        for cut in [false, true] {
            let store = own(None);
            let faulty = FaultySink::new(store.clone(), at, cut);
            let error = copy(&faulty, "1", &disk, std::slice::from_ref(&all), None).await.unwrap_err();
            // What fails within the copy is told as the store's fault.
            let ours = error.downcast_ref::<Error>();
            assert!(ours.is_none_or(|error| matches!(error, Error::Sink { .. })), "{at}: {error}");
            told += usize::from(ours.is_some());
            assert!(store.points(VM).await.unwrap().is_empty(), "{at}");
            copy(&*store, "1", &disk, std::slice::from_ref(&all), None).await.unwrap();
        }
    }
    assert!(told > 5, "{told}");
}

/// Copies a disk into a store and commits a point of it.
async fn copy(
    sink: &dyn Sink,
    name: &str,
    disk: &MemoryDisk,
    areas: &[Range<u64>],
    parent: Option<&DiskRef>,
) -> Result<DiskRef, Box<dyn std::error::Error>> {
    let meta = DiskMeta { vm: VM.into(), key: 2000, capacity: disk.capacity(), job: "0123456789abcdef".into() };
    let writer = sink.begin(meta, parent.cloned()).await?;
    let areas: Vec<_> = areas.iter().cloned().map(Ok).collect();
    let done = DiskCopy::new(2000, disk, sink.alignment()).run(writer, stream::iter(areas)).await?;
    let disk = PointDisk { key: 2000, capacity: disk.capacity(), disk: done.disk.clone(), change_id: None };
    let point = PointMeta { vm: VM.into(), name: name.into(), disks: vec![disk], properties: BTreeMap::new() };
    sink.commit(point).await?;
    Ok(done.disk)
}

/// A store in memory, which may break one promise.
#[derive(Debug)]
pub(crate) struct OwnStore {
    flaw: Option<Flaw>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// With the job of each.
    disks: BTreeMap<String, (String, Image)>,
    /// What is kept of disks that are not finished, by token; with the disk that it is of, by number.
    checkpoints: BTreeMap<String, (u32, Disk)>,
    points: Vec<PointMeta>,
    last: u32,
}

/// Each step is data, zero or unallocated.
#[derive(Clone, Debug)]
struct Image {
    bytes: Vec<u8>,
    kinds: Vec<ExtentKind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    LosesAWrite,
    LosesTheTail,
    Reorders,
    GapsKeepOldBytes,
    ZeroIsUnallocated,
    UnchangedIsZero,
    GapsAreZeroInAChild,
    WritesIntoTheParent,
    GrownTailIsData,
    TakesAnyOrder,
    EndsAtACheckpoint,
    VisibleBeforeFinish,
    VisibleBeforeCommit,
    AbortLeaves,
    KeepsWhatCameBehind,
    ForgetsWhatCameBefore,
    DiscardsNothing,
    DiscardsOnlyTheUnfinished,
    DiscardsPoints,
    DiscardsAllJobs,
    CommitsWhatIsNotThere,
    CommitReplaces,
    LooksThenCommits,
    ForgetsProperties,
    NewestFirst,
    MemoryOnly,
}

const FLAWS: &[(Flaw, Rule)] = &[
    (Flaw::LosesAWrite, Rule::Whole),
    (Flaw::LosesTheTail, Rule::Whole),
    (Flaw::Reorders, Rule::Whole),
    (Flaw::GapsKeepOldBytes, Rule::Whole),
    (Flaw::ZeroIsUnallocated, Rule::Kinds),
    (Flaw::UnchangedIsZero, Rule::Unchanged),
    (Flaw::GapsAreZeroInAChild, Rule::Unchanged),
    (Flaw::WritesIntoTheParent, Rule::Independent),
    (Flaw::GrownTailIsData, Rule::Grown),
    (Flaw::TakesAnyOrder, Rule::OnePass),
    (Flaw::EndsAtACheckpoint, Rule::Checkpoint),
    (Flaw::KeepsWhatCameBehind, Rule::Resumed),
    (Flaw::ForgetsWhatCameBefore, Rule::Resumed),
    (Flaw::DiscardsNothing, Rule::Discarded),
    (Flaw::DiscardsOnlyTheUnfinished, Rule::Discarded),
    (Flaw::DiscardsPoints, Rule::Discarded),
    (Flaw::DiscardsAllJobs, Rule::Discarded),
    (Flaw::VisibleBeforeFinish, Rule::Hidden),
    (Flaw::VisibleBeforeCommit, Rule::Hidden),
    (Flaw::AbortLeaves, Rule::Hidden),
    (Flaw::CommitsWhatIsNotThere, Rule::Finished),
    (Flaw::CommitReplaces, Rule::Exclusive),
    (Flaw::LooksThenCommits, Rule::Exclusive),
    (Flaw::ForgetsProperties, Rule::Listed),
    (Flaw::NewestFirst, Rule::Listed),
    (Flaw::MemoryOnly, Rule::Durable),
];

const STEP: u64 = 4096;

impl OwnStore {
    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }
}

impl OwnStore {
    /// Loses a finished disk, behind the back of the trait.
    pub(crate) fn forget(&self, disk: &DiskRef) {
        self.state.lock().unwrap().disks.remove(disk.as_str());
    }

    /// Loses all checkpoints, behind the back of the trait.
    pub(crate) fn forget_checkpoints(&self) {
        self.state.lock().unwrap().checkpoints.clear();
    }

    /// Counts what is in no point: disks and checkpoints.
    pub(crate) fn unused(&self) -> usize {
        let state = self.state.lock().unwrap();
        let is_used = |name: &String| state.points.iter().any(|point| holds(point, name));
        state.disks.keys().filter(|name| !is_used(name)).count() + state.checkpoints.len()
    }
}

fn holds(point: &PointMeta, name: &str) -> bool {
    point.disks.iter().any(|disk| disk.disk.as_str() == name)
}

impl Sink for OwnStore {
    fn id(&self) -> String {
        format!("own {:p}", Arc::as_ptr(&self.state))
    }

    fn alignment(&self) -> u64 {
        STEP
    }

    fn begin<'a>(
        &'a self,
        disk: DiskMeta,
        parent: Option<DiskRef>,
    ) -> BoxFuture<'a, Result<Box<dyn DiskWriter>, DiskError>> {
        Box::pin(async move {
            let mut state = self.state.lock().unwrap();
            let old = match &parent {
                Some(parent) => {
                    let old = &state.disks.get(parent.as_str()).ok_or_else(|| DiskError::new("no such parent"))?.1;
                    if old.bytes.len() as u64 > disk.capacity {
                        return Err(DiskError::new("the parent is larger"));
                    }
                    Some(old.clone())
                }
                None => None,
            };
            let first = if self.has(Flaw::GapsKeepOldBytes) { 7 } else { 0 };
            let grown = if self.has(Flaw::GrownTailIsData) && parent.is_some() { 7 } else { first };
            let mut image = old.unwrap_or(Image { bytes: Vec::new(), kinds: Vec::new() });
            image.bytes.resize(disk.capacity as usize, grown);
            image.kinds.resize(disk.capacity.div_ceil(STEP) as usize, ExtentKind::Unallocated);
            if self.has(Flaw::VisibleBeforeFinish) {
                state.points.push(PointMeta {
                    vm: disk.vm.clone(),
                    name: "early".into(),
                    disks: vec![],
                    properties: [].into(),
                });
            }
            let pass = OnePass::new(disk.capacity, STEP);
            state.last += 1;
            let (flaw, number, state) = (self.flaw, state.last, self.state.clone());
            let (told, late, ended) = (0, None, false);
            Ok(Box::new(Disk { flaw, state, number, disk, parent, image, pass, told, late, ended }) as _)
        })
    }

    fn resume<'a>(&'a self, disk: DiskMeta, token: &'a Token) -> BoxFuture<'a, Result<Box<dyn DiskWriter>, DiskError>> {
        Box::pin(async move {
            let state = self.state.lock().unwrap();
            let (_, kept) = state.checkpoints.get(&token.state).ok_or_else(|| DiskError::new("no such checkpoint"))?;
            let mut kept = kept.clone();
            assert_eq!(kept.disk, disk);
            if self.has(Flaw::KeepsWhatCameBehind) {
                let newest = state.checkpoints.values().rfind(|(number, _)| *number == kept.number).unwrap();
                let finished = state.disks.get(&format!("disk-{}", kept.number)).map(|(_, image)| image.clone());
                kept.image = finished.unwrap_or_else(|| newest.1.image.clone());
            }
            if self.has(Flaw::ForgetsWhatCameBefore) {
                kept.image.bytes.fill(0);
            }
            Ok(Box::new(kept) as _)
        })
    }

    fn discard<'a>(&'a self, vm: &'a str, job: &'a str) -> BoxFuture<'a, Result<(), DiskError>> {
        Box::pin(async move {
            if self.has(Flaw::DiscardsNothing) {
                return Ok(());
            }
            let mut state = self.state.lock().unwrap();
            let all = self.has(Flaw::DiscardsAllJobs);
            let of_job = |disk: &DiskMeta| disk.vm == vm && (disk.job == job || all);
            state.checkpoints.retain(|_, (_, kept)| !of_job(&kept.disk));
            if !self.has(Flaw::DiscardsOnlyTheUnfinished) {
                let State { disks, points, .. } = &mut *state;
                let stays = |name: &String| points.iter().any(|point| holds(point, name));
                let takes_points = self.has(Flaw::DiscardsPoints);
                disks.retain(|name, (of, _)| *of != job && !all || stays(name) && !takes_points);
            }
            Ok(())
        })
    }

    fn commit<'a>(&'a self, point: PointMeta) -> BoxFuture<'a, Result<(), DiskError>> {
        Box::pin(async move {
            let taken = |state: &State| state.points.iter().any(|old| old.vm == point.vm && old.name == point.name);
            let refused = || Err(DiskError::new("the name is taken"));
            if self.has(Flaw::LooksThenCommits) {
                if taken(&self.state.lock().unwrap()) {
                    return refused();
                }
                tokio::task::yield_now().await;
            }
            let mut state = self.state.lock().unwrap();
            if self.has(Flaw::CommitReplaces) {
                state.points.retain(|old| old.name != point.name);
            } else if taken(&state) && !self.has(Flaw::LooksThenCommits) {
                return refused();
            }
            let there = point.disks.iter().all(|disk| state.disks.contains_key(disk.disk.as_str()));
            if !there && !self.has(Flaw::CommitsWhatIsNotThere) {
                return Err(DiskError::new("a disk is not finished"));
            }
            let properties = if self.has(Flaw::ForgetsProperties) { BTreeMap::new() } else { point.properties.clone() };
            state.points.retain(|old| old.name != "early");
            state.points.push(PointMeta { properties, ..point });
            Ok(())
        })
    }

    fn points<'a>(&'a self, vm: &'a str) -> BoxFuture<'a, Result<Vec<PointMeta>, DiskError>> {
        Box::pin(async move {
            let state = self.state.lock().unwrap();
            let mut found: Vec<_> = state.points.iter().filter(|point| point.vm == vm).cloned().collect();
            if self.has(Flaw::NewestFirst) {
                found.reverse();
            }
            Ok(found)
        })
    }

    fn open<'a>(&'a self, disk: &'a DiskRef) -> BoxFuture<'a, Result<Box<dyn Source>, DiskError>> {
        Box::pin(async move {
            let state = self.state.lock().unwrap();
            let (_, image) = state.disks.get(disk.as_str()).ok_or_else(|| DiskError::new("no such disk"))?;
            Ok(Box::new(image.clone()) as _)
        })
    }
}

#[derive(Clone)]
struct Disk {
    flaw: Option<Flaw>,
    state: Arc<Mutex<State>>,
    number: u32,
    disk: DiskMeta,
    parent: Option<DiskRef>,
    image: Image,
    pass: OnePass,
    told: u32,
    late: Option<(u64, Bytes)>,
    ended: bool,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Its state holds checkpoints of it.
        write!(f, "Disk({})", self.number)
    }
}

impl Disk {
    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn set(&mut self, range: Range<u64>, data: Option<&[u8]>, kind: ExtentKind) -> Result<(), DiskError> {
        let taken = self.pass.take(&range);
        if !self.has(Flaw::TakesAnyOrder) {
            taken?;
        }
        if self.ended {
            return Ok(());
        }
        let end = range.end.min(self.image.bytes.len() as u64);
        let (start, end) = (range.start as usize, end as usize);
        match data {
            Some(data) => self.image.bytes[start..end].copy_from_slice(&data[..end - start]),
            None => self.image.bytes[start..end].fill(0),
        }
        let steps = range.start / STEP..(end as u64).div_ceil(STEP);
        self.image.kinds[steps.start as usize..steps.end as usize].fill(kind);
        Ok(())
    }

    fn publish(&self, name: &str) {
        let point = PointMeta { vm: self.disk.vm.clone(), name: name.into(), disks: vec![], properties: [].into() };
        self.state.lock().unwrap().points.push(point);
    }
}

impl DiskWriter for Disk {
    fn write(&mut self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async move {
            self.told += 1;
            let range = offset..offset + data.len() as u64;
            if self.has(Flaw::LosesAWrite) && self.told == 2 {
                return self.pass.take(&range);
            }
            if self.has(Flaw::LosesTheTail) && range.end == self.disk.capacity {
                return self.pass.take(&range);
            }
            if self.has(Flaw::WritesIntoTheParent)
                && let Some(parent) = &self.parent
            {
                let mut state = self.state.lock().unwrap();
                let (_, old) = state.disks.get_mut(parent.as_str()).unwrap();
                old.bytes[range.start as usize..range.end as usize].copy_from_slice(&data);
            }
            // Two writes of one length change places.
            if self.has(Flaw::Reorders) {
                match self.late.take() {
                    Some((first, late)) if late.len() == data.len() => {
                        self.image.bytes[first as usize..][..data.len()].copy_from_slice(&data);
                        return self.set(range, Some(&late), ExtentKind::Data);
                    }
                    _ => self.late = Some((offset, data.clone())),
                }
            }
            self.set(range, Some(&data), ExtentKind::Data)
        })
    }

    fn zero(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<(), DiskError>> {
        let unallocated = self.has(Flaw::ZeroIsUnallocated);
        let kind = if unallocated { ExtentKind::Unallocated } else { ExtentKind::Zero };
        Box::pin(async move { self.set(range, None, kind) })
    }

    fn unallocated(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async move { self.set(range, None, ExtentKind::Unallocated) })
    }

    fn unchanged(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async move {
            match self.parent {
                None => Err(DiskError::new("there is no parent")),
                Some(_) if self.has(Flaw::UnchangedIsZero) => self.set(range, None, ExtentKind::Zero),
                Some(_) => self.pass.take(&range),
            }
        })
    }

    fn checkpoint(&mut self) -> BoxFuture<'_, Result<Token, DiskError>> {
        Box::pin(async move {
            self.ended = self.has(Flaw::EndsAtACheckpoint);
            if self.has(Flaw::MemoryOnly) {
                return Ok(Token { position: 0, state: String::new() });
            }
            let mut state = self.state.lock().unwrap();
            let position = self.pass.position();
            let token = Token { position, state: format!("{:04}-{position:012}", self.number) };
            state.checkpoints.insert(token.state.clone(), (self.number, self.clone()));
            Ok(token)
        })
    }

    fn finish(mut self: Box<Self>) -> BoxFuture<'static, Result<DiskRef, DiskError>> {
        Box::pin(async move {
            if self.has(Flaw::GapsAreZeroInAChild) && self.parent.is_some() {
                let (from, end) = (8 * STEP as usize, 15 * STEP as usize);
                let end = end.min(self.image.bytes.len());
                self.image.bytes[from.min(end)..end].fill(0);
            }
            if self.has(Flaw::VisibleBeforeCommit) {
                self.publish("finished");
            }
            let mut state = self.state.lock().unwrap();
            // Another one than that of an earlier end, which was gone on with from before.
            let mut name = format!("disk-{}", self.number);
            while state.disks.contains_key(&name) {
                name.push('x');
            }
            state.disks.insert(name.clone(), (self.disk.job.clone(), self.image.clone()));
            Ok(DiskRef::new(name))
        })
    }

    fn abort(self: Box<Self>) -> BoxFuture<'static, Result<(), DiskError>> {
        Box::pin(async move {
            if self.has(Flaw::AbortLeaves) {
                self.publish("aborted");
            }
            self.state.lock().unwrap().checkpoints.retain(|_, (number, _)| *number != self.number);
            Ok(())
        })
    }
}

impl DiskSource for Image {
    fn capacity(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes, DiskError>> {
        Box::pin(async move { Ok(Bytes::copy_from_slice(&self.bytes[offset as usize..offset as usize + len])) })
    }
}

impl Source for Image {
    fn extents(&self, range: Range<u64>) -> BoxStream<'_, SourceExtent> {
        let end = range.end.min(self.capacity());
        let steps = range.start / STEP..end.div_ceil(STEP);
        let extent = move |step: u64| {
            let part = (step * STEP).max(range.start)..((step + 1) * STEP).min(end);
            Ok((part, self.kinds[step as usize]))
        };
        stream::iter(steps.map(extent)).boxed()
    }
}
