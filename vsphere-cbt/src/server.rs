//! The crate against a vCenter or host: everything that calls [`Vim`].

use std::ops::Range;

use futures_core::Stream;
use vsphere_vim::{
    CreateSnapshotOptions, MoRef, PropertyPath, RemoveSnapshotOptions, Vim,
    device::DeviceKey,
    fcd::{FcdRef, FcdSnapshotId, FirstClassDisks},
    mo,
};

use crate::{
    change_id::Since,
    enable::{self, EnableOptions, Enabled, Machine},
    error::{Error, Refused, Result},
    page::Page,
    preflight::{DiskTracking, Preflight, hardware_version},
    query::{AreaSource, Walk},
};

/// Which changes are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct AreaQuery {
    vm: MoRef<mo::VirtualMachine>,
    snapshot: MoRef<mo::VirtualMachineSnapshot>,
    disk: DeviceKey,
    /// The change id; `None` for what is allocated.
    since: Option<String>,
    walk: Walk,
    capacity: u64,
}

impl AreaQuery {
    /// Asks for what changed on `disk` between `since` and `snapshot`.
    ///
    /// `capacity` is in bytes and has to be that of the disk **in the snapshot**
    /// ([`Vim::snapshot_disks`]), not of the running machine, which may have been resized since.
    pub fn new(
        vm: MoRef<mo::VirtualMachine>,
        snapshot: MoRef<mo::VirtualMachineSnapshot>,
        disk: DeviceKey,
        since: Since<'_>,
        capacity: u64,
    ) -> Self {
        Self { vm, snapshot, disk, since: stored(since), walk: Walk::new(capacity), capacity }
    }

    /// States the capacity at the last backup, in bytes. Everything behind it is reported as changed.
    pub fn base_capacity(self, bytes: u64) -> Self {
        Self { walk: self.walk.base_capacity(bytes), ..self }
    }
}

/// Returns the areas of a disk that changed, as ascending byte ranges that neither overlap nor touch.
///
/// Pages are fetched as the stream is polled, so memory is bounded by one answer, whatever the disk's size. An area may
/// be reported although its bytes are equal; a changed byte is never left out. After an error the stream ends; what it
/// yielded before is right, but not all.
///
/// # Errors
/// [`Error::ChangeIdStale`] when tracking was reset: take a full backup. [`Error::NotTracked`] when
/// [`Since::Allocated`] cannot be answered. [`Error::Answer`] when the server contradicts itself.
/// [`Error::needs_full_backup`] sums them up.
///
/// # Privileges
/// `VirtualMachine.Provisioning.DiskRandomRead` on the VM.
///
/// # Cancel safety
/// The stream may be dropped at any time; a question that is under way is forgotten.
///
/// # Since
/// vSphere 4.0.
#[doc(alias = "QueryChangedDiskAreas")]
pub fn changed_areas(vim: &Vim, query: AreaQuery) -> impl Stream<Item = Result<Range<u64>>> + Send + use<> {
    let walk = query.walk;
    walk.areas(ServerSource { vim: vim.clone(), query })
}

/// Which changes of a First Class Disk are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct FcdAreaQuery {
    disk: FcdRef,
    snapshot: FcdSnapshotId,
    /// The change id; `None` for what is allocated.
    since: Option<String>,
    walk: Walk,
    capacity: u64,
}

impl FcdAreaQuery {
    /// Asks for what changed on `disk` between `since` and `snapshot`. `capacity` is in bytes and has to be that of the
    /// disk when the snapshot was taken.
    pub fn new(disk: FcdRef, snapshot: FcdSnapshotId, since: Since<'_>, capacity: u64) -> Self {
        Self { disk, snapshot, since: stored(since), walk: Walk::new(capacity), capacity }
    }

    /// States the capacity at the last backup, in bytes. Everything behind it is reported as changed.
    pub fn base_capacity(self, bytes: u64) -> Self {
        Self { walk: self.walk.base_capacity(bytes), ..self }
    }
}

/// Returns the areas of a First Class Disk that changed, with the checks and the promises of [`changed_areas`].
///
/// # Errors
/// As [`changed_areas`]; [`Error::Server`] with `Unsupported` on ESXi, whose API has no such question.
///
/// # Privileges
/// `System.View`, `Datastore.FileManagement` (by name; not checked on a server).
///
/// # Cancel safety
/// As [`changed_areas`].
///
/// # Since
/// vCenter 6.7.
#[doc(alias = "VstorageObjectVCenterQueryChangedDiskAreas")]
#[doc(alias = "VslmQueryChangedDiskAreas")]
pub fn changed_fcd_areas(
    disks: &FirstClassDisks,
    query: FcdAreaQuery,
) -> impl Stream<Item = Result<Range<u64>>> + Send + use<> {
    let walk = query.walk;
    walk.areas(FcdSource { disks: disks.clone(), query })
}

/// What a question about changes sends as its change id, but for the `*`.
fn stored(since: Since<'_>) -> Option<String> {
    match since {
        Since::Allocated => None,
        Since::Change(id) => Some(id.as_str().to_owned()),
    }
}

/// Looks at what change tracking of a virtual machine needs, without changing anything.
///
/// # Errors
/// [`Error::Server`] when the machine cannot be read.
///
/// # Privileges
/// `System.Read` on the VM.
///
/// # Cancel safety
/// Cancel safe.
pub async fn preflight(vim: &Vim, vm: &MoRef<mo::VirtualMachine>) -> Result<Preflight> {
    ServerMachine { vim, vm }.preflight().await
}

/// Switches change tracking on and makes change ids appear; does nothing where both is so already.
///
/// Checks what stands in the way, reconfigures, reads the setting back, then makes a snapshot and removes it: tracking
/// begins when the VM is stunned. A snapshot that an interrupted attempt left behind, known by its name and
/// description, is removed first.
///
/// # Errors
/// [`Error::Blocked`] before anything is changed, [`Error::NotKept`], and [`Error::Leftover`] when the snapshot stays.
///
/// # Privileges
/// `VirtualMachine.Config.ChangeTracking`, `VirtualMachine.State.CreateSnapshot`,
/// `VirtualMachine.State.RemoveSnapshot` on the VM.
///
/// # Cancel safety
/// Dropping the future may leave the snapshot behind. The next call removes it.
///
/// # Since
/// vSphere 4.0, virtual hardware 7.
#[doc(alias = "changeTrackingEnabled")]
pub async fn enable(vim: &Vim, vm: &MoRef<mo::VirtualMachine>, options: EnableOptions) -> Result<Enabled> {
    enable::run(&ServerMachine { vim, vm }, options).await
}

struct ServerSource {
    vim: Vim,
    query: AreaQuery,
}

impl AreaSource for ServerSource {
    async fn page(&self, start: u64) -> Result<Page> {
        let AreaQuery { vm, snapshot, disk, since, capacity, .. } = &self.query;
        let change_id = since.as_deref().unwrap_or(Since::Allocated.as_str());
        let answer = self.vim.query_changed_disk_areas(vm, Some(snapshot), *disk, start, change_id).await;
        let refused = Refused { of: self.subject(), since: since.as_deref(), start, capacity: *capacity };
        let answer = answer.map_err(|error| refused.because(error))?;
        Ok(Page { window: answer.window, areas: answer.areas })
    }

    fn subject(&self) -> String {
        format!("disk {} of {}", self.query.disk, self.query.vm)
    }
}

struct FcdSource {
    disks: FirstClassDisks,
    query: FcdAreaQuery,
}

impl AreaSource for FcdSource {
    async fn page(&self, start: u64) -> Result<Page> {
        let FcdAreaQuery { disk, snapshot, since, capacity, .. } = &self.query;
        let change_id = since.as_deref().unwrap_or(Since::Allocated.as_str());
        let answer = self.disks.query_changed_areas(disk, snapshot, start, change_id).await;
        let refused = Refused { of: self.subject(), since: since.as_deref(), start, capacity: *capacity };
        let answer = answer.map_err(|error| refused.because(error))?;
        Ok(Page { window: answer.window, areas: answer.areas })
    }

    fn subject(&self) -> String {
        self.query.disk.to_string()
    }
}

struct ServerMachine<'a> {
    vim: &'a Vim,
    vm: &'a MoRef<mo::VirtualMachine>,
}

impl ServerMachine<'_> {
    fn failed(&self, operation: &'static str) -> impl FnOnce(vsphere_vim::Error) -> Error + use<> {
        Error::server(operation, self.vm.to_string())
    }
}

impl Machine for ServerMachine<'_> {
    type Snapshot = MoRef<mo::VirtualMachineSnapshot>;

    fn name(&self) -> String {
        self.vm.to_string()
    }

    fn snapshot_name(&self, snapshot: &Self::Snapshot) -> String {
        snapshot.to_string()
    }

    async fn preflight(&self) -> Result<Preflight> {
        const OPERATION: &str = "reading the state of change tracking";
        const SUPPORTED: PropertyPath<mo::VirtualMachine, bool> =
            PropertyPath::new("capability.changeTrackingSupported");
        const VERSION: PropertyPath<mo::VirtualMachine, String> = PropertyPath::new("config.version");
        let (vim, vm) = (self.vim, self.vm);
        let read = async {
            let supported = vim.get_optional(vm, SUPPORTED).await?;
            let version = vim.get_optional(vm, VERSION).await?;
            let enabled = vim.change_tracking_enabled(vm).await?;
            let snapshots = vim.snapshots(vm).await?;
            let disks = vim.disks(vm).await?;
            Ok((supported, version, enabled, snapshots, disks))
        };
        let (supported, version, enabled, snapshots, disks) = read.await.map_err(self.failed(OPERATION))?;
        Ok(Preflight {
            // A server that says nothing is asked by trying.
            supported: supported.unwrap_or(true),
            hardware_version: version.as_deref().and_then(hardware_version),
            enabled,
            snapshots: snapshots.iter().filter(|found| !is_ours(&found.name, &found.description)).count(),
            disks: disks.iter().map(DiskTracking::of).collect::<Result<_>>()?,
        })
    }

    async fn stale(&self) -> Result<Vec<Self::Snapshot>> {
        let tree = self.vim.snapshots(self.vm).await.map_err(self.failed("listing snapshots"))?;
        let ours = tree.iter().filter(|found| is_ours(&found.name, &found.description));
        Ok(ours.map(|found| found.snapshot.clone()).collect())
    }

    async fn switch_on(&self) -> Result<()> {
        self.vim.set_change_tracking(self.vm, true).await.map_err(self.failed("switching change tracking on"))
    }

    async fn snapshot(&self, mark: Option<&str>) -> Result<Self::Snapshot> {
        let description = mark.map_or_else(|| SNAPSHOT_MARK.to_owned(), |mark| format!("{SNAPSHOT_MARK} {mark}"));
        let options = CreateSnapshotOptions::new(SNAPSHOT_NAME).description(description);
        self.vim
            .create_snapshot(self.vm, options)
            .await
            .map_err(self.failed("the snapshot that starts change tracking"))
    }

    async fn remove(&self, snapshot: &Self::Snapshot) -> Result<(), vsphere_vim::Error> {
        match self.vim.remove_snapshot(snapshot, RemoveSnapshotOptions::default()).await {
            // Whoever removed it did our work.
            Err(error) if error.is_fault("ManagedObjectNotFound") => Ok(()),
            other => other,
        }
    }
}

fn is_ours(name: &str, description: &str) -> bool {
    name == SNAPSHOT_NAME && description.starts_with(SNAPSHOT_MARK)
}

/// Name and description together mark our snapshots.
const SNAPSHOT_NAME: &str = "Start changed block tracking";
const SNAPSHOT_MARK: &str = "Made and removed by vsphere-cbt; may be deleted at any time.";
