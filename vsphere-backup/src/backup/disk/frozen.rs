//! A disk that stands still, wherever its bytes go: opened, read step by step, closed.

use std::{collections::BTreeMap, time::Duration};

use vixdisklib::Connection;
use vsphere_vim::{MoRef, VirtualDiskInfo, mo, vm::Snapshot};

use crate::{
    error::{Error, Result, in_one_line},
    event::Event,
    repository::BackupMode,
    server::{self, RemoteDisk},
    step::{Step, SteppedDisk, Steps},
};

use super::super::{Backup, guard::Guard};

/// A disk of a snapshot, or of a template.
pub(in crate::backup) struct FrozenDisk<'a> {
    pub(in crate::backup) backup: &'a Backup,
    pub(in crate::backup) guard: &'a Guard,
    pub(in crate::backup) connection: &'a Connection,
    /// `None` for a template, whose disks have no change ids either.
    pub(in crate::backup) snapshot: Option<&'a MoRef<mo::VirtualMachineSnapshot>>,
    pub(in crate::backup) info: VirtualDiskInfo,
}

impl<'a> FrozenDisk<'a> {
    pub(in crate::backup) fn new(
        backup: &'a Backup,
        guard: &'a Guard,
        connection: &'a Connection,
        snapshot: Option<&'a Snapshot>,
        info: VirtualDiskInfo,
    ) -> Self {
        Self { backup, guard, connection, snapshot: snapshot.map(|snapshot| &snapshot.snapshot), info }
    }

    pub(in crate::backup) fn steps(&self) -> &Steps {
        self.guard.steps()
    }

    /// Opens the disk; one that is not as large as the snapshot says is refused.
    pub(in crate::backup) async fn open(&self) -> Result<RemoteDisk> {
        let path = self.info.backing.file_name.clone().unwrap_or_default();
        let open =
            || async { self.connection.open(path.as_str()).await.map_err(|error| self.failed("opening", error)) };
        let source = RemoteDisk(self.steps().take(Step::OpenDisk, open).await?);
        let (by_file, by_snapshot) = (source.0.capacity(), self.info.capacity);
        if by_file == by_snapshot {
            return Ok(source);
        }
        let key = self.info.key.0;
        Err(Error::Refused {
            vm: self.backup.vm.value().to_owned(),
            reason: format!("disk {key} has {by_file} bytes by its file and {by_snapshot} by the snapshot"),
            hint: None,
        })
    }

    /// Closes the disk, after a failure too: the host counts open disks. One that does not close is told of.
    pub(in crate::backup) async fn close(&self, source: RemoteDisk) {
        let close = async { source.0.close().await.map_err(|error| self.failed("closing", error)) };
        let undoing = self.steps().undoing();
        // A host that does not answer must not keep the snapshot.
        match tokio::time::timeout(CLOSE_LIMIT, undoing.once(Step::CloseDisk, close)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.backup.events.warn(in_one_line(&error)),
            Err(_) => self.backup.events.warn(format!("disk {} is not closed after {CLOSE_LIMIT:?}", self.info.key.0)),
        }
    }

    /// The disk database as far as the transport gives it out.
    pub(in crate::backup) async fn metadata(&self, source: &RemoteDisk) -> BTreeMap<String, String> {
        let ask = async { Ok(self.known_metadata(source).await) };
        // What cannot be told is left out.
        self.steps().once(Step::ReadMetadata, ask).await.unwrap_or_default()
    }

    async fn known_metadata(&self, source: &RemoteDisk) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for key in METADATA {
            match source.0.metadata(key).await {
                Ok(Some(value)) => drop(found.insert((*key).to_owned(), value)),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(disk = self.info.key.0, key, %error, "no disk metadata");
                    break;
                }
            }
        }
        found
    }

    /// Tells that the disk is about to be read.
    pub(in crate::backup) fn started(&self, mode: BackupMode, reason: String, transport: &str) {
        self.backup.events.send(Event::DiskStarted {
            disk: self.info.key.0,
            label: self.info.label.clone(),
            capacity: self.info.capacity,
            mode: Some(mode),
            reason,
            transport: transport.into(),
        });
    }

    /// The opened disk with every read a step.
    pub(in crate::backup) fn stepped<'b>(&'b self, source: &'b RemoteDisk) -> SteppedDisk<'b, RemoteDisk> {
        SteppedDisk::new(self.info.key.0, source, self.steps())
    }

    fn failed(&self, operation: &'static str, error: vixdisklib::Error) -> Error {
        Error::Disk { operation, disk: self.info.key.0, offset: 0, len: 0, source: server::disk_error(error) }
    }
}

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
