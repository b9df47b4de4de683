//! One disk of a machine into a store: what changed where that can be trusted, else all of it.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use vsphere_cbt::ChangeId;
use vsphere_vim::VirtualDiskInfo;

use crate::{
    engine::{Budget, Progress, Trust},
    error::{Error, Result},
    event::Event,
    journal::{InStore, Record, StoredDisk},
    repository::{BackupMode, DiskBytes, DiskRecord, TreeRoot, VmId, storage::BoxFuture},
    server::RemoteDisk,
    step::Step,
    store::{CopiedDisk, DiskCopy, DiskMeta, DiskRef, DiskWriter, PointDisk, PointMeta, Sink, Token, Told},
};

use super::{
    super::{
        disk::{Areas, FrozenDisk, needs_full},
        plan::Decision,
        report::DiskReport,
        resume::Resume,
        tracking::{HostVersion, Tracking},
    },
    failed,
    properties::record_of,
};

/// The backup of one disk into a store.
pub(super) struct SinkDisk<'a> {
    pub(super) frozen: FrozenDisk<'a>,
    pub(super) resume: Option<&'a Resume>,
    pub(super) vm: &'a VmId,
    pub(super) job: &'a str,
    pub(super) sink: &'a dyn Sink,
    pub(super) base: Option<&'a PointMeta>,
    pub(super) host: Option<HostVersion>,
    /// The backup itself enabled change tracking.
    pub(super) tracking_enabled: bool,
    pub(super) budget: Budget,
    /// When the whole backup began.
    pub(super) begun: Instant,
}

/// A finished disk, which a commit is to name.
pub(super) struct StoredInSink {
    pub(super) point: PointDisk,
    pub(super) report: DiskReport,
    pub(super) info: VirtualDiskInfo,
    pub(super) metadata: BTreeMap<String, String>,
}

/// What changed since a disk of the store, with which the new one begins.
struct Changes {
    since: ChangeId,
    parent: PointDisk,
}

/// How a disk is read.
#[derive(Clone, Copy)]
struct Way<'a> {
    mode: BackupMode,
    reason: &'a str,
    /// The disk that it begins with.
    parent: Option<&'a PointDisk>,
}

/// How a disk was read.
struct Done {
    copied: CopiedDisk,
    mode: BackupMode,
    reason: String,
    parent: Option<DiskRef>,
}

/// A disk under way in the store: up to where, and what was told of it by then.
struct Begun {
    writer: Box<dyn DiskWriter>,
    position: u64,
    told: Told,
}

impl<'a> SinkDisk<'a> {
    pub(super) async fn run(self) -> Result<StoredInSink> {
        let begun = Instant::now();
        if self.frozen.backup.cancel.is_stopping() {
            return Err(Error::Cancelled);
        }
        let decision = self.decide();
        let (stored, going_on) = match self.stored(&decision) {
            Some(stored) => (Some(stored), self.go_on(stored).await?),
            None => (None, None),
        };
        // What the store does not go on with is of no use.
        let stored = stored.filter(|_| going_on.is_some());
        let going_on = match (stored, going_on) {
            (Some(StoredDisk { position: None, record, .. }), Some(Begun { writer, .. })) => {
                let finish = async { writer.finish().await.map_err(failed("the end of a disk")) };
                let disk = self.frozen.steps().unless_cancelled(finish).await?;
                let transport = "none: it was stored by an interrupted backup";
                return Ok(self.stored_in_sink(disk, record.clone(), transport, begun));
            }
            (_, going_on) => going_on,
        };
        let source = self.frozen.open().await?;
        let transport = source.0.transport().to_string();
        let read = Box::pin(self.read(&source, &transport, decision, stored, going_on)).await;
        let metadata = match &read {
            Ok(_) => self.frozen.metadata(&source).await,
            Err(_) => BTreeMap::new(),
        };
        self.frozen.close(source).await;
        let Done { copied, mode, reason, parent } = read?;
        let CopiedDisk { changed, read, zero, unallocated, disk, token, .. } = copied;
        let record = DiskRecord { metadata, ..self.record(mode, &reason, Told { changed, read, zero, unallocated }) };
        if let Some(token) = token {
            self.keep(None, token, record.clone(), parent).await?;
        }
        self.frozen.backup.events.send(Event::DiskFinished { disk: record.key, bytes: record.bytes });
        Ok(self.stored_in_sink(disk, record, &transport, begun))
    }

    fn stored_in_sink(&self, disk: DiskRef, record: DiskRecord, transport: &str, begun: Instant) -> StoredInSink {
        let DiskRecord { key, label, capacity, change_id, mode, reason, bytes, metadata, .. } = record;
        let (transport, elapsed) = (transport.to_owned(), begun.elapsed());
        let report = DiskReport { key, label, capacity, mode, reason, transport, bytes, elapsed };
        let point = PointDisk { key, capacity, disk, change_id };
        StoredInSink { point, report, info: self.frozen.info.clone(), metadata }
    }

    /// The disk as a point has it, or the journal, were this all of it.
    fn record(&self, mode: BackupMode, reason: &str, told: Told) -> DiskRecord {
        let info = &self.frozen.info;
        let Told { changed, read, zero, unallocated } = told;
        let written = read - zero;
        DiskRecord {
            key: info.key.0,
            label: info.label.clone(),
            backing_uuid: info.backing.uuid.clone(),
            path: info.base_disk_name().unwrap_or_default(),
            capacity: info.capacity,
            change_id: info.backing.change_id.clone(),
            // The store knows.
            root: TreeRoot::Zero,
            mode,
            reason: reason.to_owned(),
            bytes: DiskBytes { changed, read, zero, unallocated, new: written, stored: written, ..Default::default() },
            distrust: None,
            metadata: BTreeMap::new(),
        }
    }

    /// Writes down how far the disk is stored; `None` when that is all of it.
    async fn keep(
        &self,
        position: Option<u64>,
        token: Token,
        record: DiskRecord,
        parent: Option<DiskRef>,
    ) -> Result<()> {
        if token.position == 0 {
            // The store goes on with nothing.
            return Ok(());
        }
        let store = Some(InStore { token, parent });
        let stored = Record::DiskStored(StoredDisk { position, record, store });
        self.frozen.guard.record(Step::RecordProgress, stored).await
    }

    /// Returns what an interrupted backup stored of the disk, when it was read as it would be now: in full, for a reason
    /// that it had, or the changes since the same disk.
    fn stored(&self, decision: &Result<Changes, String>) -> Option<&'a StoredDisk> {
        let stored = self.resume?.stored(&self.frozen.info)?;
        let begun_with = stored.store.as_ref()?.parent.as_ref();
        let same_parent = decision.as_ref().is_ok_and(|changes| begun_with == Some(&changes.parent.disk));
        (stored.record.mode == BackupMode::Full || same_parent).then_some(stored)
    }

    /// Goes on with what is stored; `None` when the store does not.
    async fn go_on(&self, stored: &StoredDisk) -> Result<Option<Begun>> {
        let Some(InStore { token, .. }) = &stored.store else { return Ok(None) };
        let resume = async { self.sink.resume(self.meta(), token).await.map_err(failed("the resumption of a disk")) };
        match self.frozen.steps().unless_cancelled(resume).await {
            Ok(writer) => {
                let DiskBytes { changed, read, zero, unallocated, .. } = stored.record.bytes;
                let told = Told { changed, read, zero, unallocated };
                Ok(Some(Begun { writer, position: token.position, told }))
            }
            Err(Error::Sink { source, .. }) if !source.retryable => {
                let disk = stored.record.key;
                let warning = format!("disk {disk} is begun anew, the store does not go on with it: {source}");
                self.frozen.backup.events.warn(warning);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the changes where that can be trusted, else all; goes on with what is begun.
    async fn read(
        &self,
        source: &RemoteDisk,
        transport: &str,
        decision: Result<Changes, String>,
        stored: Option<&StoredDisk>,
        going_on: Option<Begun>,
    ) -> Result<Done> {
        let going_on = Mutex::new(going_on);
        let reason = match (stored, decision) {
            (Some(stored), _) if stored.record.mode == BackupMode::Full => stored.record.reason.clone(),
            (_, Err(reason)) => reason,
            (_, Ok(changes)) => match self.read_changes(source, transport, changes, &going_on).await? {
                Ok(done) => return Ok(done),
                Err(reason) => reason,
            },
        };
        let way = Way { mode: BackupMode::Full, reason: &reason, parent: None };
        self.started(way, position_of(&going_on), transport);
        let going_on = &going_on;
        let read = |areas: Areas<'static>| -> BoxFuture<'_, Result<CopiedDisk>> {
            Box::pin(async move {
                let begun = self.writer(going_on, None).await?;
                self.copy(source, begun, way, None, areas).await
            })
        };
        let copied = self.frozen.read_all(source, read).await?;
        Ok(Done { copied, mode: BackupMode::Full, reason, parent: None })
    }

    /// Decides whether changes are read, or why all of the disk is.
    fn decide(&self) -> Result<Changes, String> {
        let (backup, info) = (self.frozen.backup, &self.frozen.info);
        let base = self.base.and_then(|base| record_of(base, info.key.0));
        let tracking = Tracking {
            host: self.host,
            base: base.as_ref(),
            newest: None,
            restored: false,
            found_wrong: None,
            enabled_now: self.tracking_enabled,
            trust: backup.trust,
        };
        let (since, warning) = match tracking.choose(info).decision {
            Decision::Full { reason } => return Err(reason),
            Decision::Incremental { since, warning } => (since, warning),
        };
        if backup.trust != Trust::Trust {
            return Err("change tracking is not to be believed unseen, and the store has no hashes to compare".into());
        }
        let parent = self.base.and_then(|base| base.disks.iter().find(|disk| disk.key == info.key.0));
        let parent = parent.ok_or("there is no earlier point of this disk")?.clone();
        if parent.capacity != info.capacity && !parent.capacity.is_multiple_of(self.sink.alignment().max(1)) {
            return Err("it grew, and its old end is no multiple of the store's alignment".into());
        }
        if let Some(warning) = warning {
            backup.events.warn(warning);
        }
        Ok(Changes { since, parent })
    }

    /// Reads the changes; the inner error is why all of the disk has to be read instead.
    async fn read_changes(
        &self,
        source: &RemoteDisk,
        transport: &str,
        Changes { since, parent }: Changes,
        going_on: &Mutex<Option<Begun>>,
    ) -> Result<Result<Done, String>> {
        let mode = BackupMode::Incremental;
        let reason = format!("changes since {} are known", self.base.map_or("", |base| base.name.as_str()));
        let way = Way { mode, reason: &reason, parent: Some(&parent) };
        let resumes_at = position_of(going_on);
        let begun = match self.writer(going_on, Some(parent.disk.clone())).await {
            Ok(begun) => begun,
            // The store may not have it any more, or may not be able to begin with it.
            Err(Error::Sink { source, .. }) if !source.retryable => {
                return Ok(Err(format!("the store does not begin with the last point's disk: {source}")));
            }
            Err(error) => return Err(error),
        };
        self.started(way, resumes_at, transport);
        let read = async {
            let allocated = self.frozen.allocated(source).await?;
            let areas = self.frozen.changed(vsphere_cbt::Since::Change(&since)).await?;
            self.copy(source, begun, way, allocated, areas).await
        };
        match read.await {
            Err(Error::Areas { source, .. }) if needs_full(&source) => {
                self.frozen.backup.events.warn(format!("disk {} is read in full: {source}", parent.key));
                Ok(Err(format!("its changes could not be told: {source}")))
            }
            done => done.map(|copied| Ok(Done { copied, mode, reason, parent: Some(parent.disk) })),
        }
    }

    /// Tells that the disk is about to be read.
    fn started(&self, way: Way<'_>, resumes_at: Option<u64>, transport: &str) {
        let reason = match resumes_at {
            Some(position) => format!("{}; goes on at byte {position}", way.reason),
            None => way.reason.to_owned(),
        };
        self.frozen.started(way.mode, reason, transport);
    }

    fn meta(&self) -> DiskMeta {
        let info = &self.frozen.info;
        DiskMeta { vm: self.vm.to_string(), key: info.key.0, capacity: info.capacity, job: self.job.to_owned() }
    }

    /// Takes what is begun, or begins the disk.
    async fn writer(&self, going_on: &Mutex<Option<Begun>>, parent: Option<DiskRef>) -> Result<Begun> {
        let begun = going_on.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(begun) = begun {
            return Ok(begun);
        }
        let begin = async { self.sink.begin(self.meta(), parent).await.map_err(failed("the begin of a disk")) };
        let writer = self.frozen.steps().unless_cancelled(begin).await?;
        Ok(Begun { writer, position: 0, told: Told::default() })
    }

    /// Copies areas. A parent that is smaller than the disk ends where the rest is read, whatever the areas say.
    async fn copy(
        &self,
        source: &RemoteDisk,
        begun: Begun,
        way: Way<'_>,
        allocated: Option<Vec<Range<u64>>>,
        areas: Areas<'_>,
    ) -> Result<CopiedDisk> {
        let (disk, backup) = (self.frozen.info.key.0, self.frozen.backup);
        let progress = |progress: Progress| backup.events.send(Event::DiskProgress { disk, progress });
        let keep = |token: Token, told: Told| -> BoxFuture<'_, Result<()>> {
            let parent = way.parent.map(|parent| parent.disk.clone());
            Box::pin(self.keep(Some(token.position), token, self.record(way.mode, way.reason, told), parent))
        };
        let source = self.frozen.stepped(source);
        let mut copy = DiskCopy::new(disk, &source, self.sink.alignment())
            .allocated(allocated)
            .grown_from(way.parent.map_or(self.frozen.info.capacity, |parent| parent.capacity))
            .resume(begun.position, begun.told)
            .checkpoints(backup.checkpoint_every)
            .budget(&self.budget)
            .cancel(&backup.cancel)
            .on_progress(&progress);
        if !backup.resume_within.is_zero() {
            copy = copy.keep_tokens(self.begun, &keep);
        }
        copy.run(begun.writer, areas).await
    }
}

fn position_of(going_on: &Mutex<Option<Begun>>) -> Option<u64> {
    going_on.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|begun| begun.position)
}
