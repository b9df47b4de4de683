//! One disk of a backup: opened ([`frozen`]), decided upon ([`ways`]), read ([`areas`], [`transfer`]), closed.

mod areas;
mod frozen;
mod transfer;
mod ways;

use std::{collections::BTreeMap, time::Instant};

use vixdisklib::{Access, Connection, ConnectionOptions};

use crate::{
    engine::Budget,
    error::{Error, Result},
    event::Event,
    journal::{Record, StoredDisk},
    repository::{DiskBytes, DiskRecord, PointId, RecoveryPoint, TreeRoot, Writer, restored::Marked},
    server,
    step::Step,
};

use self::ways::Way;
pub(super) use self::{
    areas::{Areas, needs_full},
    frozen::FrozenDisk,
};
use super::{
    Backup,
    report::DiskReport,
    resume::{self, Resume},
    tracking::{Choice, HostVersion, Tracking},
};

/// Opens the way to a machine's disks.
pub(super) async fn connect(backup: &Backup) -> Result<Connection> {
    let options = match &backup.shared {
        Some(shared) => ConnectionOptions::new().governor(shared.governor().clone()),
        None => ConnectionOptions::new(),
    };
    server::connect(&backup.vim, &backup.vm, Access::ReadOnly, &backup.transports, options).await
}

/// The backup of one disk into a repository.
pub(super) struct DiskJob<'a> {
    pub(super) frozen: FrozenDisk<'a>,
    pub(super) resume: Option<&'a Resume>,
    pub(super) base: Option<&'a RecoveryPoint>,
    /// The machine's newest point, when that may be another one than the base.
    pub(super) newest: Option<&'a RecoveryPoint>,
    pub(super) host: Option<HostVersion>,
    /// What marks say that came after the base.
    pub(super) marked: &'a Marked,
    /// The backup itself enabled change tracking.
    pub(super) tracking_enabled: bool,
    /// The point that the disk will be in.
    pub(super) point: &'a PointId,
    pub(super) writer: Writer,
    pub(super) budget: Budget,
    /// When the whole backup began.
    pub(super) begun: Instant,
}

impl DiskJob<'_> {
    pub(super) async fn run(self) -> Result<(DiskRecord, DiskReport)> {
        let begun = Instant::now();
        let key = self.frozen.info.key.0;
        if self.frozen.backup.cancel.is_stopping() {
            return Err(Error::Cancelled);
        }
        let of_disk = |point: &'_ RecoveryPoint| point.record(key).ok().cloned();
        let (base, newest) = (self.base.and_then(of_disk), self.newest.and_then(of_disk));
        let choice = Tracking {
            host: self.host,
            base: base.as_ref(),
            newest: newest.as_ref(),
            restored: self.marked.restored.contains(&key),
            found_wrong: self.marked.distrusted.get(&key).map(String::as_str),
            enabled_now: self.tracking_enabled,
            trust: self.frozen.backup.trust,
        }
        .choose(&self.frozen.info);
        let stored = self.stored(&choice).await?;
        if let Some(StoredDisk { position: None, record, .. }) = stored {
            let report = report(&record, "none: it was stored by an interrupted backup", begun);
            return Ok((record, report));
        }
        let source = self.frozen.open().await?;
        let transport = source.0.transport().to_string();
        let read = self.read(&source, &transport, choice, stored).await;
        let metadata = match &read {
            Ok(_) => self.frozen.metadata(&source).await,
            Err(_) => Default::default(),
        };
        self.frozen.close(source).await;
        let (done, way) = read?;
        self.frozen.backup.events.send(Event::DiskFinished { disk: key, bytes: done.bytes });
        let record = DiskRecord { metadata, ..self.record(done.root, done.bytes, &way) };
        if self.keeps_checkpoints() && self.begun.elapsed() >= self.frozen.backup.checkpoint_every {
            self.keep(StoredDisk { position: None, record: record.clone(), store: None }).await?;
        }
        let report = report(&record, &transport, begun);
        Ok((record, report))
    }

    /// The disk as it stands in the point, or in the journal.
    fn record(&self, root: TreeRoot, bytes: DiskBytes, way: &Way) -> DiskRecord {
        DiskRecord {
            key: self.frozen.info.key.0,
            label: self.frozen.info.label.clone(),
            backing_uuid: self.frozen.info.backing.uuid.clone(),
            path: self.frozen.info.base_disk_name().unwrap_or_default(),
            capacity: self.frozen.info.capacity,
            change_id: self.frozen.info.backing.change_id.clone(),
            root,
            mode: way.mode,
            reason: way.reason.clone(),
            bytes,
            distrust: way.distrust.clone(),
            metadata: BTreeMap::new(),
        }
    }

    /// Returns what an interrupted backup stored of the disk, when that is of use and the repository still has it.
    async fn stored(&self, choice: &Choice) -> Result<Option<StoredDisk>> {
        let Some(stored) = self.resume.and_then(|resume| resume.stored(&self.frozen.info)) else { return Ok(None) };
        if !resume::fits(stored, choice) {
            return Ok(None);
        }
        if self.writer.repository().may_lose_uncommitted() {
            let disk = stored.record.key;
            let warning =
                format!("disk {disk} is begun anew: garbage is collected, which may include what was stored of it");
            self.frozen.backup.events.warn(warning);
            return Ok(None);
        }
        let record = stored.record.clone();
        let check = async {
            let disk = self.writer.reopen(self.point, record).await?;
            disk.first_damage(&self.frozen.backup.cancel).await
        };
        Ok(match self.frozen.steps().once(Step::CheckParent, check).await? {
            None => Some(stored.clone()),
            Some(damage) => {
                let disk = stored.record.key;
                self.frozen
                    .backup
                    .events
                    .warn(format!("disk {disk} is begun anew, what was stored of it is damaged: {damage}"));
                None
            }
        })
    }

    fn keeps_checkpoints(&self) -> bool {
        !self.frozen.backup.resume_within.is_zero()
    }

    /// Makes durable what is stored of the disk, and writes down that it is.
    async fn keep(&self, stored: StoredDisk) -> Result<()> {
        self.frozen.steps().once(Step::Flush, self.writer.finish()).await?;
        self.frozen.guard.record(Step::RecordProgress, Record::DiskStored(stored)).await
    }

    fn started(&self, way: &Way, transport: &str) {
        let reason = match way.from {
            Some(from) => format!("{}; goes on at byte {}", way.reason, from.position),
            None => way.reason.clone(),
        };
        self.frozen.started(way.mode, reason, transport);
    }
}

fn report(record: &DiskRecord, transport: &str, begun: Instant) -> DiskReport {
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
