//! One disk of a backup: opened, decided upon, read, closed.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use vixdisklib::{Access, Allocation, AllocationBasis, Connection, Holes};
use vsphere_cbt::{AreaQuery, ChangeId, changed_areas};
use vsphere_vim::{MoRef, VirtualDiskInfo, mo};

use crate::{
    engine::{BackedUpDisk, Budget, Checkpoint, DiskBackup, DiskSource, Parent, Progress, Trust},
    error::{DiskError, Error, Result, in_one_line},
    event::Event,
    journal::{Record, StoredDisk},
    repository::{
        BackupMode, DiskBytes, DiskRecord, PointId, RecoveryPoint, TreeRoot, Writer,
        storage::{BoxFuture, BoxStream},
    },
    server::{self, RemoteDisk},
    step::{Step, Steps},
};

use super::{
    Backup,
    guard::Guard,
    plan::Decision,
    report::DiskReport,
    resume::{self, Resume},
    tracking::{Choice, HostVersion, Tracking},
};

/// Opens the way to a machine's disks.
pub(super) async fn connect(backup: &Backup) -> Result<Connection> {
    Connection::connect(&backup.vim, &backup.vm, Access::ReadOnly, &backup.transports).await.map_err(|error| {
        Error::Server {
            operation: "connecting to the disks",
            vm: backup.vm.value().to_owned(),
            source: server::disk_error(error),
        }
    })
}

/// The backup of one disk.
pub(super) struct DiskJob<'a> {
    pub(super) backup: &'a Backup,
    pub(super) guard: &'a Guard,
    pub(super) resume: Option<&'a Resume>,
    pub(super) connection: &'a Connection,
    /// `None` for a template, whose disks have no change ids either.
    pub(super) snapshot: Option<&'a MoRef<mo::VirtualMachineSnapshot>>,
    pub(super) disk: VirtualDiskInfo,
    pub(super) base: Option<&'a RecoveryPoint>,
    /// The machine's newest point, when that may be another one than the base.
    pub(super) newest: Option<&'a RecoveryPoint>,
    pub(super) host: Option<HostVersion>,
    /// Disks that were restored since the base.
    pub(super) restored: &'a BTreeSet<i32>,
    /// The point that the disk will be in.
    pub(super) point: &'a PointId,
    pub(super) writer: Writer,
    pub(super) budget: Budget,
    /// When the whole backup began.
    pub(super) begun: Instant,
}

/// How a disk is read.
#[derive(Clone, Debug)]
struct Way {
    mode: BackupMode,
    reason: String,
    /// Where an interrupted backup was.
    from: Option<Checkpoint>,
    trust: Trust,
    /// Why change tracking will not be believed by the next backup.
    distrust: Option<String>,
}

impl Way {
    fn full(reason: impl Into<String>) -> Self {
        Self { mode: BackupMode::Full, reason: reason.into(), from: None, trust: Trust::Trust, distrust: None }
    }
}

type Areas<'a> = BoxStream<'a, Result<Range<u64>, DiskError>>;

impl DiskJob<'_> {
    pub(super) async fn run(self) -> Result<(DiskRecord, DiskReport)> {
        let begun = Instant::now();
        let key = self.disk.key.0;
        if self.backup.cancel.is_stopping() {
            return Err(Error::Cancelled);
        }
        let of_disk = |point: &'_ RecoveryPoint| point.record(key).ok().cloned();
        let (base, newest) = (self.base.and_then(of_disk), self.newest.and_then(of_disk));
        let choice = Tracking {
            host: self.host,
            base: base.as_ref(),
            newest: newest.as_ref(),
            restored: self.restored.contains(&key),
            trust: self.backup.trust,
        }
        .choose(&self.disk);
        let stored = self.stored(&choice.decision).await?;
        if let Some(StoredDisk { position: None, record }) = stored {
            let report = self.report(&record, "none: it was stored by an interrupted backup", begun);
            return Ok((record, report));
        }
        let path = self.disk.backing.file_name.clone().unwrap_or_default();
        let open =
            || async { self.connection.open(path.as_str()).await.map_err(|error| self.failed("opening", error)) };
        let source = RemoteDisk(self.steps().take(Step::OpenDisk, open).await?);
        let transport = source.0.transport().to_string();
        if source.0.capacity() != self.disk.capacity {
            return Err(Error::Refused {
                vm: self.backup.vm.value().to_owned(),
                reason: format!(
                    "disk {key} has {} bytes by its file and {} by the snapshot",
                    source.0.capacity(),
                    self.disk.capacity
                ),
                hint: None,
            });
        }
        let read = self.read(&source, &transport, choice, stored).await;
        let metadata = match &read {
            Ok(_) => self.metadata(&source).await,
            Err(_) => Default::default(),
        };
        // Closed in either case: the host counts open disks.
        let close = async { source.0.close().await.map_err(|error| self.failed("closing", error)) };
        let undoing = self.steps().undoing();
        // A host that does not answer must not keep the snapshot.
        let closed = tokio::time::timeout(CLOSE_LIMIT, undoing.once(Step::CloseDisk, close)).await;
        let (done, way) = read?;
        match closed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.backup.events.warn(in_one_line(&error)),
            Err(_) => self.backup.events.warn(format!("disk {key} is not closed after {CLOSE_LIMIT:?}")),
        }
        self.backup.events.send(Event::DiskFinished { disk: key, bytes: done.bytes });
        let record = DiskRecord { metadata, ..self.record(done.root, done.bytes, &way) };
        if self.keeps_checkpoints() && self.begun.elapsed() >= self.backup.checkpoint_every {
            self.keep(StoredDisk { position: None, record: record.clone() }).await?;
        }
        let report = self.report(&record, &transport, begun);
        Ok((record, report))
    }

    fn steps(&self) -> &Steps {
        self.guard.steps()
    }

    /// The disk as it stands in the point, or in the journal.
    fn record(&self, root: TreeRoot, bytes: DiskBytes, way: &Way) -> DiskRecord {
        DiskRecord {
            key: self.disk.key.0,
            label: self.disk.label.clone(),
            backing_uuid: self.disk.backing.uuid.clone(),
            path: self.disk.base_disk_name().unwrap_or_default(),
            capacity: self.disk.capacity,
            change_id: self.disk.backing.change_id.clone(),
            root,
            mode: way.mode,
            reason: way.reason.clone(),
            bytes,
            distrust: way.distrust.clone(),
            metadata: BTreeMap::new(),
        }
    }

    fn report(&self, record: &DiskRecord, transport: &str, begun: Instant) -> DiskReport {
        DiskReport {
            key: record.key,
            label: record.label.clone(),
            capacity: record.capacity,
            mode: record.mode,
            reason: record.reason.clone(),
            transport: transport.to_owned(),
            bytes: record.bytes,
            elapsed: begun.elapsed(),
        }
    }

    /// Returns what an interrupted backup stored of the disk, when that is of use and the repository still has it.
    async fn stored(&self, decision: &Decision) -> Result<Option<StoredDisk>> {
        let Some(stored) = self.resume.and_then(|resume| resume.stored(&self.disk)) else { return Ok(None) };
        if !resume::fits(stored, decision) {
            return Ok(None);
        }
        if self.writer.repository().may_lose_uncommitted() {
            let disk = stored.record.key;
            let warning =
                format!("disk {disk} is begun anew: garbage is collected, which may include what was stored of it");
            self.backup.events.warn(warning);
            return Ok(None);
        }
        let record = stored.record.clone();
        let check = async {
            let disk = self.writer.reopen(self.point, record).await?;
            disk.first_damage(&self.backup.cancel).await
        };
        Ok(match self.steps().once(Step::CheckParent, check).await? {
            None => Some(stored.clone()),
            Some(damage) => {
                let disk = stored.record.key;
                self.backup
                    .events
                    .warn(format!("disk {disk} is begun anew, what was stored of it is damaged: {damage}"));
                None
            }
        })
    }

    fn keeps_checkpoints(&self) -> bool {
        !self.backup.resume_within.is_zero()
    }

    /// Makes durable what is stored of the disk, and writes down that it is.
    async fn keep(&self, stored: StoredDisk) -> Result<()> {
        self.steps().once(Step::Flush, self.writer.finish()).await?;
        self.guard.record(Step::RecordProgress, Record::DiskStored(stored)).await
    }

    /// Reads the changes where that can be trusted, else all.
    async fn read(
        &self,
        source: &RemoteDisk,
        transport: &str,
        Choice { mut decision, trust, distrust }: Choice,
        stored: Option<StoredDisk>,
    ) -> Result<(BackedUpDisk, Way)> {
        let key = self.disk.key.0;
        let from = stored.as_ref().and_then(resume::checkpoint);
        if let Some(StoredDisk { record, .. }) = stored.filter(|stored| stored.record.mode == BackupMode::Full) {
            // It had its reason.
            decision = Decision::full(record.reason);
        }
        if let (Decision::Incremental { .. }, Some(base), None) = (&decision, self.base, from)
            && let Some(damage) = self.damage_of(base).await?
        {
            self.warn_of_damage(&damage);
            decision = Decision::full(DAMAGED);
        }
        let way = match decision {
            Decision::Full { reason } => Way { from, distrust, ..Way::full(reason) },
            Decision::Incremental { since, warning } => {
                if let Some(warning) = warning {
                    self.backup.events.warn(warning);
                }
                let base = self.base.expect("an incremental decision has a base");
                let reason = format!("changes since {} are known", base.id());
                let way = Way { mode: BackupMode::Incremental, reason, from, trust, distrust };
                self.started(&way, transport);
                match self.read_changes(source, &way, base, &since).await {
                    Ok(done) if way.distrust.is_some() => {
                        // All of the disk was read, and nothing had changed that was called unchanged.
                        self.backup.events.send(Event::TrackingTrusted { disk: key });
                        return Ok((done, Way { distrust: None, ..way }));
                    }
                    Ok(done) => return Ok((done, way)),
                    Err(error) => self.fall_back(error, way.distrust)?,
                }
            }
        };
        self.started(&way, transport);
        let done = self.read_all(source, &way).await?;
        Ok((done, way))
    }

    async fn read_changes(
        &self,
        source: &RemoteDisk,
        way: &Way,
        base: &RecoveryPoint,
        since: &ChangeId,
    ) -> Result<BackedUpDisk> {
        let parent = Parent::new(base.disk(self.disk.key.0).await?);
        let allocated = self.allocated(source).await?;
        let areas = self.changed(vsphere_cbt::Since::Change(since)).await?;
        self.transfer(source, way, Some((parent, allocated)), areas).await
    }

    /// Turns what went wrong with reading changes into a full backup, where that helps.
    fn fall_back(&self, error: Error, distrust: Option<String>) -> Result<Way> {
        let key = self.disk.key.0;
        match error {
            Error::Areas { source, .. } if needs_full(&source) => {
                self.backup.events.warn(format!("disk {key} is read in full: {source}"));
                Ok(Way { distrust, ..Way::full(format!("its changes could not be told: {source}")) })
            }
            Error::MissedChange { offset, .. } => {
                self.backup.events.send(Event::TrackingDistrusted { disk: key, offset });
                let found = format!("bytes at {offset} had changed that change tracking called unchanged");
                Ok(Way { distrust: Some(found.clone()), ..Way::full(found) })
            }
            damage @ (Error::DamagedChunk { .. } | Error::DamagedPage { .. }) => {
                self.warn_of_damage(&damage);
                Ok(Way { distrust, ..Way::full(DAMAGED) })
            }
            other => Err(other),
        }
    }

    fn warn_of_damage(&self, damage: &Error) {
        let text = format!("disk {} is read in full, its last point is damaged: {damage}", self.disk.key.0);
        self.backup.events.warn(text);
    }

    /// Asks where anything is; `None` unless the answer is exact. It is where the host maps the disk's file (NFC from
    /// ESXi 6.7 on, on VMFS) or the file does itself (`file`); over `https`, on other datastores and after a refusal
    /// everything counts as allocated.
    async fn allocated(&self, source: &RemoteDisk) -> Result<Option<Vec<Range<u64>>>> {
        let ask = async { Ok(source.0.allocated(0..self.disk.capacity).await) };
        Ok(match self.steps().once(Step::AskAllocated, ask).await? {
            Ok(Allocation { areas, basis: AllocationBasis::Known, holes: Holes::ReadAsZeros, .. }) => Some(areas),
            Ok(_) => None,
            Err(error) => {
                let text = format!("disk {}: its allocated areas could not be told: {error}", self.disk.key.0);
                self.backup.events.warn(text);
                None
            }
        })
    }

    /// Finds what the repository no longer has of a disk's earlier state.
    async fn damage_of(&self, base: &RecoveryPoint) -> Result<Option<Error>> {
        let check = async { base.disk(self.disk.key.0).await?.probe(&self.backup.cancel).await };
        self.steps().once(Step::CheckParent, check).await
    }

    /// Reads all that is allocated: by the transport's word, else by that of change tracking,
    /// else everything.
    async fn read_all(&self, source: &RemoteDisk, way: &Way) -> Result<BackedUpDisk> {
        let key = self.disk.key.0;
        let whole = 0..self.disk.capacity;
        if let Some(areas) = self.allocated(source).await? {
            let areas = stream::iter(areas).map(Ok).boxed();
            return self.transfer(source, way, None, areas).await;
        }
        if self.disk.backing.change_id.is_some() {
            let read = async {
                let areas = self.changed(vsphere_cbt::Since::Allocated).await?;
                self.transfer(source, way, None, areas).await
            };
            match read.await {
                Err(Error::Areas { source, .. }) if needs_full(&source) => {
                    self.backup.events.warn(format!("disk {key} is read to its last byte: {source}"));
                }
                other => return other,
            }
        }
        self.transfer(source, way, None, stream::iter([Ok(whole)]).boxed()).await
    }

    /// Asks which areas changed. The first answer is awaited here, so that it can be asked for again.
    async fn changed(&self, since: vsphere_cbt::Since<'_>) -> Result<Areas<'static>> {
        let (disk, capacity) = (self.disk.key.0, self.disk.capacity);
        let wrong = |error| Error::Areas { disk, source: server::cbt_error(error) };
        let ask = || async {
            let snapshot = self.snapshot.expect("disks without a snapshot have no change ids by which to ask");
            let (vm, snapshot) = (self.backup.vm.clone(), snapshot.clone());
            let query = AreaQuery::new(vm, snapshot, self.disk.key, since, capacity);
            let mut areas = changed_areas(&self.backup.vim, query).boxed();
            let first = areas.try_next().await.map_err(wrong)?;
            Ok(stream::iter(first.map(Ok)).chain(areas.map_err(server::cbt_error)).boxed())
        };
        self.steps().take(Step::AskChanges, ask).await
    }

    async fn transfer(
        &self,
        source: &RemoteDisk,
        way: &Way,
        parent: Option<(Parent, Option<Vec<Range<u64>>>)>,
        areas: Areas<'_>,
    ) -> Result<BackedUpDisk> {
        let (disk, events) = (self.disk.key.0, &self.backup.events);
        let progress = |progress: Progress| events.send(Event::DiskProgress { disk, progress });
        let source = SteppedDisk { disk, source, steps: self.steps() };
        let keep = |at: Checkpoint| -> BoxFuture<'_, Result<()>> {
            let record = self.record(at.root, at.bytes, way);
            Box::pin(self.keep(StoredDisk { position: Some(at.position), record }))
        };
        let (parent, allocated) = parent.map_or((None, None), |(parent, allocated)| (Some(parent), allocated));
        let mut work = DiskBackup::new(disk, &source, &self.writer)
            .parent(parent)
            .allocated(allocated)
            .trust(way.trust)
            .resume(way.from)
            .budget(&self.budget)
            .cancel(&self.backup.cancel)
            .on_progress(&progress);
        if self.keeps_checkpoints() {
            work = work.checkpoints(self.backup.checkpoint_every, &keep);
        }
        work.run(areas).await
    }

    /// The disk database as far as the transport gives it out.
    async fn metadata(&self, source: &RemoteDisk) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for key in METADATA {
            match source.0.metadata(key).await {
                Ok(Some(value)) => drop(found.insert((*key).to_owned(), value)),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(disk = self.disk.key.0, key, %error, "no disk metadata");
                    break;
                }
            }
        }
        found
    }

    fn started(&self, way: &Way, transport: &str) {
        let reason = match way.from {
            Some(from) => format!("{}; goes on at byte {}", way.reason, from.position),
            None => way.reason.clone(),
        };
        self.backup.events.send(Event::DiskStarted {
            disk: self.disk.key.0,
            label: self.disk.label.clone(),
            capacity: self.disk.capacity,
            mode: Some(way.mode),
            reason,
            transport: transport.into(),
        });
    }

    fn failed(&self, operation: &'static str, error: vixdisklib::Error) -> Error {
        Error::Disk { operation, disk: self.disk.key.0, offset: 0, len: 0, source: server::disk_error(error) }
    }
}

/// A disk whose every read is a step.
struct SteppedDisk<'a> {
    disk: i32,
    source: &'a RemoteDisk,
    steps: &'a Steps,
}

impl DiskSource for SteppedDisk<'_> {
    fn capacity(&self) -> u64 {
        self.source.capacity()
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes, DiskError>> {
        let disk = self.disk;
        let wrong = move |source| Error::Disk { operation: "reading", disk, offset, len: len as u64, source };
        let read = async move { self.source.read_at(offset, len).await.map_err(wrong) };
        Box::pin(async move {
            match self.steps.once(Step::ReadDisk, read).await {
                Ok(bytes) => Ok(bytes),
                // Told once, by the engine.
                Err(Error::Disk { source, .. }) => Err(source),
                Err(error) => Err(DiskError::from_error(error)),
            }
        })
    }
}

/// Tells whether areas failed for a reason that a full backup does away with.
fn needs_full(error: &DiskError) -> bool {
    error.inner().downcast_ref::<vsphere_cbt::Error>().is_some_and(vsphere_cbt::Error::needs_full_backup)
}

const DAMAGED: &str = "its last point is damaged";
/// How long a disk may take to be closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(30);
/// What a restore to a new disk has to set again.
const METADATA: &[&str] = &[
    "adapterType",
    "geometry.cylinders",
    "geometry.heads",
    "geometry.sectors",
    "uuid",
    "virtualHWVersion",
    "toolsVersion",
    "thinProvisioned",
    "longContentID",
];
