//! One disk of a backup: opened, decided upon, read, closed.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Instant,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use vixdisklib::{Access, Connection};
use vsphere_cbt::{AreaQuery, changed_areas};
use vsphere_vim::{MoRef, VirtualDiskInfo, mo};

use crate::{
    engine::{BackedUpDisk, Budget, DiskBackup, Parent, Progress},
    error::{DiskError, Error, Result},
    event::Event,
    repository::{BackupMode, DiskRecord, RecoveryPoint, Writer, storage::BoxStream},
    server::{self, RemoteDisk},
};

use super::{
    Backup,
    plan::{self, Decision},
    report::DiskReport,
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
    pub(super) connection: &'a Connection,
    pub(super) snapshot: &'a MoRef<mo::VirtualMachineSnapshot>,
    pub(super) disk: VirtualDiskInfo,
    pub(super) base: Option<&'a RecoveryPoint>,
    /// Disks that were restored since the base.
    pub(super) restored: &'a BTreeSet<i32>,
    pub(super) writer: Writer,
    pub(super) budget: Budget,
}

type Areas<'a> = BoxStream<'a, Result<Range<u64>, DiskError>>;

impl DiskJob<'_> {
    pub(super) async fn run(self) -> Result<(DiskRecord, DiskReport)> {
        let begun = Instant::now();
        let key = self.disk.key.0;
        let path = self.disk.backing.file_name.clone().unwrap_or_default();
        let cancel = &self.backup.cancel;
        let opened =
            cancel.run(async { self.connection.open(path).await.map_err(|error| self.failed("opening", error)) });
        let source = RemoteDisk(opened.await?);
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
        let read = self.read(&source, &transport).await;
        let metadata = match &read {
            Ok(_) => self.metadata(&source).await,
            Err(_) => Default::default(),
        };
        // Closed in either case: the host counts open disks.
        let closed = source.0.close().await;
        let (done, mode, reason) = read?;
        if let Err(error) = closed {
            let text = format!("closing disk {key} failed: {error}");
            self.backup.events.warn(text);
        }
        self.backup.events.send(Event::DiskFinished { disk: key, bytes: done.bytes });
        let record = DiskRecord {
            key,
            label: self.disk.label.clone(),
            backing_uuid: self.disk.backing.uuid.clone(),
            path: self.disk.base_disk_name().unwrap_or_default(),
            capacity: done.capacity,
            change_id: self.disk.backing.change_id.clone(),
            root: done.root,
            mode,
            reason: reason.clone(),
            bytes: done.bytes,
            metadata,
        };
        let report = DiskReport {
            key,
            label: self.disk.label,
            capacity: done.capacity,
            mode,
            reason,
            transport,
            bytes: done.bytes,
            elapsed: begun.elapsed(),
        };
        Ok((record, report))
    }

    /// Reads the changes where that can be trusted, else all.
    async fn read(&self, source: &RemoteDisk, transport: &str) -> Result<(BackedUpDisk, BackupMode, String)> {
        let key = self.disk.key.0;
        let base = self.base.and_then(|base| base.record(key).ok());
        let mut decision = plan::decide(&self.disk, base, self.restored.contains(&key));
        if let (Decision::Incremental { .. }, Some(base)) = (&decision, self.base)
            && let Some(damage) = base.disk(key).await?.first_damage(&self.backup.cancel).await?
        {
            let text = format!("disk {key} is read in full, its last point is damaged: {damage}");
            self.backup.events.warn(text);
            decision = Decision::full("its last point is damaged");
        }
        let reason = match decision {
            Decision::Full { reason } => reason,
            Decision::Incremental { since, warning } => {
                if let Some(warning) = warning {
                    self.backup.events.warn(warning);
                }
                let base = self.base.expect("an incremental decision has a base");
                let parent = Parent::new(base.disk(key).await?);
                let reason = format!("changes since {} are known", base.id());
                self.started(BackupMode::Incremental, &reason, transport);
                let areas = self.changed(vsphere_cbt::Since::Change(&since));
                match self.transfer(source, Some(parent), areas).await {
                    Err(Error::Areas { source, .. }) if needs_full(&source) => {
                        let text = format!("disk {key} is read in full: {source}");
                        self.backup.events.warn(text);
                        format!("its changes could not be told: {source}")
                    }
                    other => return Ok((other?, BackupMode::Incremental, reason)),
                }
            }
        };
        self.started(BackupMode::Full, &reason, transport);
        let done = self.read_all(source).await?;
        Ok((done, BackupMode::Full, reason))
    }

    /// Reads all that is allocated: by the transport's word, else by that of change tracking,
    /// else everything.
    async fn read_all(&self, source: &RemoteDisk) -> Result<BackedUpDisk> {
        let key = self.disk.key.0;
        let whole = 0..self.disk.capacity;
        let asked = self.backup.cancel.run(async { Ok(source.0.allocated(whole.clone()).await) });
        match asked.await? {
            Ok(allocation) if !allocation.is_assumed() => {
                let areas = stream::iter(allocation.areas).map(Ok).boxed();
                return self.transfer(source, None, areas).await;
            }
            Ok(_) => {}
            Err(error) => {
                let text = format!("disk {key}: its allocated areas could not be told: {error}");
                self.backup.events.warn(text);
            }
        }
        if self.disk.backing.change_id.is_some() {
            let areas = self.changed(vsphere_cbt::Since::Allocated);
            match self.transfer(source, None, areas).await {
                Err(Error::Areas { source, .. }) if needs_full(&source) => {
                    self.backup.events.warn(format!("disk {key} is read to its last byte: {source}"));
                }
                other => return other,
            }
        }
        self.transfer(source, None, stream::iter([Ok(whole)]).boxed()).await
    }

    fn changed(&self, since: vsphere_cbt::Since<'_>) -> Areas<'static> {
        let query =
            AreaQuery::new(self.backup.vm.clone(), self.snapshot.clone(), self.disk.key, since, self.disk.capacity);
        changed_areas(&self.backup.vim, query).map_err(server::cbt_error).boxed()
    }

    async fn transfer(&self, source: &RemoteDisk, parent: Option<Parent>, areas: Areas<'_>) -> Result<BackedUpDisk> {
        let (disk, events) = (self.disk.key.0, &self.backup.events);
        let progress = |progress: Progress| events.send(Event::DiskProgress { disk, progress });
        DiskBackup::new(disk, source, &self.writer)
            .parent(parent)
            .budget(&self.budget)
            .cancel(&self.backup.cancel)
            .on_progress(&progress)
            .run(areas)
            .await
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

    fn started(&self, mode: BackupMode, reason: &str, transport: &str) {
        self.backup.events.send(Event::DiskStarted {
            disk: self.disk.key.0,
            label: self.disk.label.clone(),
            capacity: self.disk.capacity,
            mode: Some(mode),
            reason: reason.into(),
            transport: transport.into(),
        });
    }

    fn failed(&self, operation: &'static str, error: vixdisklib::Error) -> Error {
        Error::Disk { operation, disk: self.disk.key.0, offset: 0, len: 0, source: server::disk_error(error) }
    }
}

/// Tells whether areas failed for a reason that a full backup does away with.
fn needs_full(error: &DiskError) -> bool {
    error.inner().downcast_ref::<vsphere_cbt::Error>().is_some_and(vsphere_cbt::Error::needs_full_backup)
}

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
