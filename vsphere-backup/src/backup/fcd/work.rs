//! The order of the backup of a First Class Disk: hold, snapshot, read, commit, undo.

use std::{collections::BTreeMap, time::Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use vixdisklib::{Access, Connection};
use vsphere_cbt::{FcdAreaQuery, Since, changed_fcd_areas};
use vsphere_vim::{
    MoRef,
    fcd::{Fcd, FcdSnapshotDetails, FcdSnapshotId},
    mo,
};

use crate::{
    engine::{BackedUpDisk, Budget, DiskBackup, DiskSource, Parent, Progress},
    error::{DiskError, Error, Result, in_one_line},
    event::Event,
    journal::{Abandoned, Job, Record, marker},
    repository::{
        self, BackupMode, Consistency, DiskRecord, RecoveryPoint, Repository, VmId, VmRecord, Writer, random_name,
    },
    server::{self, RemoteDisk, failed},
    step::{Step, SteppedDisk, Steps},
};

use super::{
    super::{
        disk::{Areas, needs_full},
        machine::ChangeTracking,
        plan::{self, Decision, Tracked},
    },
    FCD_KEY, FCD_OBJECT, FcdBackup, FcdReport, fcd_vm_id,
    guard::DiskGuard,
    restore::closing,
};

/// The snapshot that is read.
struct Frozen {
    id: FcdSnapshotId,
    details: FcdSnapshotDetails,
    /// In bytes, when it was taken.
    capacity: u64,
}

impl FcdBackup {
    pub(super) async fn work(&self, repository: &Repository, abandoned: &Abandoned) -> Result<FcdReport> {
        let begun = Instant::now();
        let id = fcd_vm_id(&self.disk.id)?;
        let guard = self.hold(&id).await?;
        abandoned.note(guard.journal());
        let recovered = guard.recover().await?;
        let done = self.guarded(&guard, &id, repository).await;
        let leftovers = guard.undo().await;
        done.map(|report| FcdReport { recovered, leftovers, elapsed: begun.elapsed(), ..report })
    }

    async fn guarded(&self, guard: &DiskGuard, id: &VmId, repository: &Repository) -> Result<FcdReport> {
        let steps = guard.steps();
        let disk = steps.take(Step::DescribeDisk, || self.retrieve()).await?;
        if disk.lun_uuid.is_some() {
            return Err(self.refused("it is a raw device", Some("back it up in the guest or on the storage")));
        }
        let vm = self.machine(steps, &disk).await?;
        if self.tracking == ChangeTracking::Enable && disk.change_tracking != Some(true) {
            let wrong = || failed("enabling change tracking", self.disk.id.as_str());
            let enable = || async { self.disks.set_change_tracking(&self.disk, true).await.map_err(wrong()) };
            match steps.take(Step::EnableDiskTracking, enable).await {
                Ok(()) => self.events.send(Event::TrackingEnabled),
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(error) => self.events.warn(format!("change tracking is not enabled: {}", in_one_line(&error))),
            }
        }
        let base = match self.full {
            true => None,
            false => steps.once(Step::FindBase, repository.latest(id)).await?,
        };
        let record = VmRecord { instance_uuid: id.clone(), mo_ref: self.disk.id.to_string(), name: disk.name.clone() };
        let job = self.job(id, repository, base.as_ref())?;
        // The job is alive with the point's lease, wherever a reaper asks.
        let begin = repository.begin_for(Some(&job.id), record, Consistency::Crash, self.writer);
        let mut point = steps.once(Step::BeginPoint, begin).await?;
        let (snapshot, details) = guard.snapshot(job).await?;
        // Again, now that the snapshot is there: the disk may have grown.
        let capacity = steps.take(Step::DescribeDisk, || self.retrieve()).await?.capacity;
        let frozen = Frozen { id: snapshot, details, capacity };
        let restored = match &base {
            Some(base) => {
                let asked = repository.may_be_restored_since(base.id(), FCD_KEY);
                steps.once(Step::ReadMarks, asked).await?
            }
            None => false,
        };
        steps.once(Step::StoreConfig, point.put_object(FCD_OBJECT, describe(&disk).into())).await?;
        let read = self.read(steps, &vm, &disk, &frozen, (base.as_ref(), restored), point.writer());
        let record = self.cancel.run(read).await?;
        let (mode, reason, bytes) = (record.mode, record.reason.clone(), record.bytes);
        point.add_disk(record)?;
        point.set_parent(base.filter(|_| mode == BackupMode::Incremental).map(|base| base.id().clone()));
        let (point, stored) = steps.once(Step::Commit, point.commit()).await?;
        if let Err(error) = guard.record(Step::RecordCommit, Record::Committed { point: point.id().clone() }).await {
            self.events.warn(format!("{}: {}", point.id(), in_one_line(&error)));
        }
        self.events.send(Event::Committed { point: point.id().clone() });
        let (recovered, leftovers, elapsed) = Default::default();
        Ok(FcdReport { point, mode, reason, bytes, stored, recovered, leftovers, elapsed })
    }

    fn job(&self, id: &VmId, repository: &Repository, base: Option<&RecoveryPoint>) -> Result<Job> {
        let job = random_name()?;
        Ok(Job {
            server: server::server_name(self.disks.vim()),
            vm: id.to_string(),
            vm_ref: self.disk.id.to_string(),
            snapshot_name: String::new(),
            marker: marker::of(&job),
            created: repository::now(),
            repository: repository.id().to_string(),
            base: base.map(|base| base.id().clone()),
            id: job,
        })
    }

    /// Reads the snapshot into the repository.
    async fn read(
        &self,
        steps: &Steps,
        vm: &MoRef<mo::VirtualMachine>,
        disk: &Fcd,
        frozen: &Frozen,
        (base, restored): (Option<&RecoveryPoint>, bool),
        writer: &Writer,
    ) -> Result<DiskRecord> {
        let path = frozen.details.path.clone().or_else(|| disk.path.clone());
        let path = path.ok_or_else(|| self.refused("the server does not say where its bytes are", None))?;
        let connection = steps.take(Step::Connect, || self.connect(vm, Access::ReadOnly)).await?;
        let open = || async { connection.open(path.as_str()).await.map_err(opening) };
        let opened = RemoteDisk(steps.take(Step::OpenDisk, open).await?);
        let transport = opened.0.transport().to_string();
        let source = SteppedDisk::new(FCD_KEY, &opened, steps);
        let read = async {
            if opened.0.capacity() != frozen.capacity {
                return Err(self.refused("its file and its description differ in size: it was resized", None));
            }
            let record = base.and_then(|base| base.record(FCD_KEY).ok());
            let tracked = Tracked {
                key: FCD_KEY,
                uuid: Some(self.disk.id.as_str()),
                change_id: frozen.details.change_id.as_deref(),
                capacity: frozen.capacity,
            };
            let mut decision = plan::decide_tracked(tracked, record, restored, None);
            if let (Decision::Incremental { .. }, Some(base)) = (&decision, base)
                && let Some(damage) = steps.once(Step::CheckParent, self.probe(base)).await?
            {
                self.events.warn(format!("{} is read in full, its last point is damaged: {damage}", self.disk.id));
                decision = Decision::full("its last point is damaged");
            }
            if let (Decision::Incremental { since, .. }, Some(base)) = (&decision, base) {
                let reason = format!("changes since {} are known", base.id());
                self.started(disk, frozen, BackupMode::Incremental, (&reason, &transport));
                let parent = Parent::new(base.disk(FCD_KEY).await?);
                let changes = async {
                    let areas = self.areas(steps, frozen, Since::Change(since)).await?;
                    self.transfer(&source, writer, Some(parent), areas).await
                };
                match changes.await {
                    Err(Error::Areas { source, .. }) if needs_full(&source) => {
                        decision = Decision::full(format!("its changes could not be told: {source}"));
                    }
                    other => return other.map(|done| (done, BackupMode::Incremental, reason)),
                }
            }
            let reason = match decision {
                Decision::Full { reason } => reason,
                Decision::Incremental { .. } => "there is no earlier point of this disk".into(),
            };
            self.started(disk, frozen, BackupMode::Full, (&reason, &transport));
            let done = self.read_all(steps, &source, writer, frozen).await?;
            Ok((done, BackupMode::Full, reason))
        };
        let read = read.await;
        // Closed in either case: the host counts open disks.
        let close = async { opened.0.close().await.map_err(closing) };
        if let Err(error) = steps.undoing().once(Step::CloseDisk, close).await {
            self.events.warn(format!("{} is not closed: {}", self.disk.id, in_one_line(&error)));
        }
        let (done, mode, reason) = read?;
        self.events.send(Event::DiskFinished { disk: FCD_KEY, bytes: done.bytes });
        Ok(DiskRecord {
            key: FCD_KEY,
            label: disk.name.clone(),
            backing_uuid: Some(self.disk.id.to_string()),
            path: disk.path.clone().unwrap_or_default(),
            capacity: frozen.capacity,
            change_id: frozen.details.change_id.clone(),
            root: done.root,
            mode,
            reason,
            bytes: done.bytes,
            distrust: None,
            metadata: BTreeMap::new(),
        })
    }

    /// Reads all that is allocated, as far as change tracking can tell, else everything.
    async fn read_all(
        &self,
        steps: &Steps,
        source: &dyn DiskSource,
        writer: &Writer,
        frozen: &Frozen,
    ) -> Result<BackedUpDisk> {
        if frozen.details.change_id.is_some() {
            let read = async {
                let areas = self.areas(steps, frozen, Since::Allocated).await?;
                self.transfer(source, writer, None, areas).await
            };
            match read.await {
                Err(Error::Areas { source, .. }) if needs_full(&source) => {
                    self.events.warn(format!("{} is read to its last byte: {source}", self.disk.id));
                }
                other => return other,
            }
        }
        self.transfer(source, writer, None, stream::iter([Ok(0..frozen.capacity)]).boxed()).await
    }

    /// Asks which areas of the snapshot changed. The first answer is awaited here.
    async fn areas(&self, steps: &Steps, frozen: &Frozen, since: Since<'_>) -> Result<Areas<'static>> {
        let query = FcdAreaQuery::new(self.disk.clone(), frozen.id.clone(), since, frozen.capacity);
        let ask = async {
            let mut areas = changed_fcd_areas(&self.disks, query).boxed();
            let wrong = |error| Error::Areas { disk: FCD_KEY, source: server::cbt_error(error) };
            let first = areas.try_next().await.map_err(wrong)?;
            Ok::<_, Error>(stream::iter(first.map(Ok)).chain(areas.map_err(server::cbt_error)).boxed())
        };
        steps.once(Step::AskChanges, ask).await
    }

    /// Returns what is damaged of an earlier point, if anything is.
    async fn probe(&self, base: &RecoveryPoint) -> Result<Option<String>> {
        let damage = base.disk(FCD_KEY).await?.probe(&self.cancel).await?;
        Ok(damage.map(|damage| damage.to_string()))
    }

    async fn transfer(
        &self,
        source: &dyn DiskSource,
        writer: &Writer,
        parent: Option<Parent>,
        areas: Areas<'_>,
    ) -> Result<BackedUpDisk> {
        let progress = |progress: Progress| self.events.send(Event::DiskProgress { disk: FCD_KEY, progress });
        let work = DiskBackup::new(FCD_KEY, source, writer).parent(parent).budget(&Budget::new(self.memory));
        work.cancel(&self.cancel).on_progress(&progress).run(areas).await
    }

    pub(super) async fn connect(&self, vm: &MoRef<mo::VirtualMachine>, access: Access) -> Result<Connection> {
        let connection = Connection::connect(self.disks.vim(), vm, access, &self.transports).await;
        connection.map_err(|error| Error::Server {
            operation: "connecting to the disk",
            vm: vm.value().to_owned(),
            source: server::disk_error(error),
        })
    }

    fn started(&self, disk: &Fcd, frozen: &Frozen, mode: BackupMode, (reason, transport): (&str, &str)) {
        self.events.send(Event::DiskStarted {
            disk: FCD_KEY,
            label: disk.name.clone(),
            capacity: frozen.capacity,
            mode: Some(mode),
            reason: reason.to_owned(),
            transport: transport.to_owned(),
        });
    }
}

pub(super) fn opening(error: vixdisklib::Error) -> Error {
    let source: DiskError = server::disk_error(error);
    Error::Disk { operation: "opening", disk: FCD_KEY, offset: 0, len: 0, source }
}

/// What a disk is, for whoever makes it anew.
fn describe(disk: &Fcd) -> Vec<u8> {
    let description = json!({
        "id": disk.id.as_str(),
        "name": disk.name,
        "capacity": disk.capacity,
        "datastore": disk.disk.datastore.as_ref().map(|store| store.value()),
        "path": disk.path,
        "provisioning": disk.provisioning.as_ref().map(|kind| kind.as_str()),
        "keepAfterDeleteVm": disk.keep_after_delete_vm,
        "consumers": disk.consumers.iter().map(|consumer| consumer.id.as_str()).collect::<Vec<_>>(),
    });
    description.to_string().into_bytes()
}
