//! Restoring disks of a recovery point: into the machine in place, or into files.

mod image;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use vixdisklib::{Access, Connection};
use vsphere_vim::{MoRef, PowerState, Vim, VirtualDiskInfo, mo, vm::VmDetails};

pub use self::image::{FileFormat, ImageTarget};
use crate::{
    cancel::CancelToken,
    engine::{Budget, DiskRestore, DiskTarget, Progress, RestoreMode, RestoredDisk, compare_disk},
    error::{Error, Result},
    event::{Event, Events},
    repository::{DiskReader, DiskRecord, RecoveryPoint},
    server::{self, RemoteDisk},
};

/// A restore of a recovery point's disks.
///
/// Each chunk is checked against its identity before it is written; damage ends the restore with
/// [`Error::DamagedChunk`] and nothing wrong is written. A restore that ended early, however it
/// did, can be run again.
///
/// ```no_run
/// # async fn example(vim: vsphere_vim::Vim, point: vsphere_backup::repository::RecoveryPoint) -> vsphere_backup::Result<()> {
/// use vsphere_backup::{FileFormat, Restore, RestoreMode};
/// use vsphere_vim::MoRef;
///
/// // In place, only what differs now; the machine is off.
/// Restore::of(&point).mode(RestoreMode::OnlyDifferences).to_vm(&vim, MoRef::new("vm-42")).await?;
/// // One disk into a file.
/// Restore::of(&point).to_file(2000, "web.vmdk", FileFormat::VmdkSparse).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Restore {
    point: RecoveryPoint,
    disks: Vec<i32>,
    mode: RestoreMode,
    verify: bool,
    overwrite: bool,
    transports: String,
    parallel_disks: usize,
    memory: u64,
    events: Events,
    cancel: CancelToken,
}

/// What a restore did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RestoreReport {
    /// One report for each disk.
    pub disks: Vec<RestoredDiskReport>,
    /// From begin to end.
    pub elapsed: Duration,
}

/// How one disk was restored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RestoredDiskReport {
    /// The device key.
    pub key: i32,
    /// Its size in bytes.
    pub capacity: u64,
    /// Figures.
    pub bytes: RestoredDisk,
    /// Whether it was read back and found equal to the point.
    pub verified: bool,
    /// How the bytes travelled.
    pub transport: String,
    /// From opening to closing.
    pub elapsed: Duration,
}

impl Restore {
    /// Prepares a restore of a point's disks, all of them by default.
    pub fn of(point: &RecoveryPoint) -> Self {
        Self {
            point: point.clone(),
            disks: Vec::new(),
            mode: RestoreMode::default(),
            verify: true,
            overwrite: false,
            transports: "nbdssl".into(),
            parallel_disks: 4,
            memory: 64 << 20,
            events: Events::default(),
            cancel: CancelToken::new(),
        }
    }

    /// Restores this disk, by its device key, and others that are named; not the rest.
    pub fn disk(mut self, key: i32) -> Self {
        self.disks.push(key);
        self
    }

    /// States what is written in place: [`RestoreMode::Full`] by default.
    pub fn mode(mut self, mode: RestoreMode) -> Self {
        self.mode = mode;
        self
    }

    /// States whether each disk is read back and compared: yes by default.
    pub fn verify(mut self, yes: bool) -> Self {
        self.verify = yes;
        self
    }

    /// States whether existing files are replaced: no by default.
    pub fn overwrite(mut self, yes: bool) -> Self {
        self.overwrite = yes;
        self
    }

    /// Names the transports to try, in order, joined by colons: `nbdssl` by default.
    pub fn transports(mut self, list: impl Into<String>) -> Self {
        self.transports = list.into();
        self
    }

    /// Sets how many disks are written at once: 4 by default, 1 to 50.
    pub fn parallel_disks(mut self, count: usize) -> Self {
        self.parallel_disks = count.clamp(1, 50);
        self
    }

    /// Sets how many bytes of disks may be in memory at once: 64 MiB by default.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// Tells of events. The handler is called from the task that works and must not block.
    pub fn on_event(mut self, handler: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.events = Events::new(handler);
        self
    }

    /// Lets a token cancel the restore; what is written stays.
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = token.clone();
        self
    }

    /// Restores in place, into the machine's own disks.
    ///
    /// The machine has to be off and without snapshots. A disk is found by its device key and the
    /// backing's uuid; it may be larger than the stored one, never smaller.
    ///
    /// The repository notes the restore before anything is written, so that the next backup of these disks reads all
    /// of them: whether change tracking sees a restore is up to the server. Only this repository knows: when the
    /// machine is backed up to another one too, its next backup there has to be one
    /// [since nothing](crate::Since::Nothing).
    ///
    /// # Errors
    /// [`Error::Refused`] before anything is written when the machine or a disk does not fit;
    /// [`Error::DamagedChunk`], [`Error::DamagedPage`], [`Error::Storage`], [`Error::Disk`],
    /// [`Error::Server`], [`Error::Cancelled`]; [`Error::Damaged`] when a disk that was read back
    /// is not equal.
    ///
    /// # Privileges
    /// `VirtualMachine.Provisioning.DiskRandomAccess` on the machine.
    ///
    /// # Cancel safety
    /// When dropped, any part of the disks may be written; run it again.
    pub async fn to_vm(self, vim: &Vim, vm: MoRef<mo::VirtualMachine>) -> Result<RestoreReport> {
        let begun = Instant::now();
        let wrong = || server::failed("reading the configuration", vm.value());
        let details = vim.vm_details(&vm).await.map_err(wrong())?;
        let disks = self.match_disks(&details)?;
        let connection = Connection::connect(vim, &vm, Access::ReadWrite, &self.transports);
        let connection = connection.await.map_err(|error| Error::Server {
            operation: "connecting to the disks",
            vm: vm.value().to_owned(),
            source: server::disk_error(error),
        })?;
        let keys = disks.iter().map(|(record, _)| record.key).collect();
        self.point.repository().note_restore(self.point.id(), keys).await?;
        // Again, now that the mark is there: a backup that snapshots the machine from now on reads the mark, and one
        // that did so before is seen here.
        let disks = self.match_disks(&vim.vm_details(&vm).await.map_err(wrong())?)?;
        let budget = Budget::new(self.memory);
        let (restore, connection, budget) = (&self, &connection, &budget);
        let restored: Vec<_> = stream::iter(disks)
            .map(|(record, path)| async move { restore.remote(connection, &record, path, budget).await })
            .buffered(self.parallel_disks)
            .try_collect()
            .await?;
        Ok(RestoreReport { disks: restored, elapsed: begun.elapsed() })
    }

    /// Restores one disk into a new file.
    ///
    /// # Errors
    /// [`Error::DiskNotFound`]; [`Error::File`], also when the file exists and
    /// [`overwrite`](Self::overwrite) does not allow to replace it; otherwise as
    /// [`to_vm`](Self::to_vm). After an error the file is removed.
    ///
    /// # Cancel safety
    /// When dropped, an incomplete file stays.
    pub async fn to_file(self, key: i32, path: impl Into<PathBuf>, format: FileFormat) -> Result<RestoreReport> {
        let (begun, path) = (Instant::now(), path.into());
        let reader = self.point.disk(key).await?;
        if self.overwrite {
            remove(&path, format)?;
        }
        let target = ImageTarget::create(path.clone(), format, reader.capacity()).await?;
        self.started(reader.record(), "into a file", "file");
        let budget = Budget::new(self.memory);
        let done = self.one(&reader, &target, true, &budget).await;
        drop(target);
        let (bytes, verified) = match done {
            Ok(done) => done,
            Err(error) => {
                if let Err(left) = remove(&path, format) {
                    self.events.warn(format!("an incomplete image stays: {left}"));
                }
                return Err(error);
            }
        };
        let report = RestoredDiskReport {
            key,
            capacity: reader.capacity(),
            bytes,
            verified,
            transport: "file".into(),
            elapsed: begun.elapsed(),
        };
        Ok(RestoreReport { disks: vec![report], elapsed: begun.elapsed() })
    }

    /// Finds for each disk of the point the one of the machine, by nothing but facts; returns the
    /// paths to open.
    fn match_disks(&self, details: &VmDetails) -> Result<Vec<(DiskRecord, String)>> {
        let refused = |reason: String, hint: Option<&str>| Error::Refused {
            vm: details.identity.to_string(),
            reason,
            hint: hint.map(str::to_owned),
        };
        if details.power_state != PowerState::Off {
            let reason = format!("it is {}", details.power_state);
            return Err(refused(reason, Some("power it off first")));
        }
        if !details.snapshots.is_empty() {
            let hint = "remove its snapshots first; those of a backup that crashed go when the \
                        next one runs, or by Backup::clean_up";
            return Err(refused("it has snapshots".into(), Some(hint)));
        }
        let vm = &self.point.manifest().vm.instance_uuid;
        let same = details.identity.instance_uuid.as_ref();
        if !same.is_some_and(|uuid| uuid.eq_ignore_ascii_case(vm.as_str())) {
            return Err(refused(format!("it is not the machine {vm} of the point"), None));
        }
        let mut wanted: Vec<&DiskRecord> = Vec::new();
        for &key in &self.disks {
            wanted.push(self.point.record(key)?);
        }
        if wanted.is_empty() {
            wanted = self.point.disks().iter().collect();
        }
        let find = |record: &DiskRecord| -> Result<String, String> {
            let found = details.disks.iter().find(|disk| disk.key.0 == record.key);
            let disk: &VirtualDiskInfo = found.ok_or_else(|| format!("it has no disk {}", record.key))?;
            if let (Some(then), Some(now)) = (&record.backing_uuid, &disk.backing.uuid)
                && !then.eq_ignore_ascii_case(now)
            {
                return Err(format!("another disk is attached as disk {}", record.key));
            }
            if record.backing_uuid.is_some() != disk.backing.uuid.is_some() {
                return Err(format!("it cannot be told whether its disk {} is the one of the point", record.key));
            }
            if disk.capacity < record.capacity {
                return Err(format!(
                    "its disk {} has {} bytes, the point's {}",
                    record.key, disk.capacity, record.capacity
                ));
            }
            let path = disk.backing.file_name.clone().filter(|path| !path.is_empty());
            path.ok_or_else(|| format!("its disk {} has no file", record.key))
        };
        wanted
            .into_iter()
            .map(|record| {
                let path = find(record).map_err(|reason| refused(reason, None))?;
                Ok((record.clone(), path))
            })
            .collect()
    }

    /// Restores one disk of a machine.
    async fn remote(
        &self,
        connection: &Connection,
        record: &DiskRecord,
        path: String,
        budget: &Budget,
    ) -> Result<RestoredDiskReport> {
        let begun = Instant::now();
        let reader = self.point.disk(record.key).await?;
        let failed = |operation| {
            let disk = record.key;
            move |error| Error::Disk { operation, disk, offset: 0, len: 0, source: server::disk_error(error) }
        };
        let target = RemoteDisk(connection.open(path).await.map_err(failed("opening"))?);
        let transport = target.0.transport().to_string();
        self.started(record, "in place", &transport);
        let done = self.one(&reader, &target, false, budget).await;
        let closed = target.0.close().await;
        let (bytes, verified) = done?;
        // Closing is what makes the last writes count.
        closed.map_err(failed("closing"))?;
        Ok(RestoredDiskReport {
            key: record.key,
            capacity: record.capacity,
            bytes,
            verified,
            transport,
            elapsed: begun.elapsed(),
        })
    }

    async fn one(
        &self,
        reader: &DiskReader,
        target: &dyn DiskTarget,
        new: bool,
        budget: &Budget,
    ) -> Result<(RestoredDisk, bool)> {
        let disk = reader.record().key;
        let progress = |progress: Progress| {
            self.events.send(Event::DiskProgress { disk, progress });
        };
        let done = DiskRestore::new(reader, target)
            .mode(if new { RestoreMode::Full } else { self.mode })
            .target_is_zero(new)
            .budget(budget)
            .cancel(&self.cancel)
            .on_progress(&progress)
            .run()
            .await?;
        self.events.send(Event::DiskFinished { disk, bytes: Default::default() });
        if self.verify {
            let differences = compare_disk(reader, target, budget, &self.cancel, None).await?;
            if let Some(first) = differences.first() {
                return Err(Error::damaged(
                    format!("restored disk {disk}"),
                    format!(
                        "{} parts differ from the point, the first at bytes {}..{}",
                        differences.len(),
                        first.range.start,
                        first.range.end
                    ),
                ));
            }
            self.events.send(Event::DiskVerified { disk });
        }
        Ok((done, self.verify))
    }

    fn started(&self, record: &DiskRecord, reason: &str, transport: &str) {
        self.events.send(Event::DiskStarted {
            disk: record.key,
            label: record.label.clone(),
            capacity: record.capacity,
            mode: None,
            reason: reason.into(),
            transport: transport.into(),
        });
    }
}

/// Removes an image's files, if they are there.
fn remove(path: &Path, format: FileFormat) -> Result<()> {
    let mut files = vec![path.to_owned()];
    if format == FileFormat::VmdkFlat {
        let mut flat = path.file_stem().unwrap_or_default().to_owned();
        flat.push("-flat.vmdk");
        files.push(path.with_file_name(flat));
    }
    for file in files {
        match std::fs::remove_file(&file) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Error::File { operation: "removing an image", path: file, source: error.into() });
            }
        }
    }
    Ok(())
}
