//! Against the simulator: what a backup program does.

use std::ops::Range;

use futures_util::TryStreamExt as _;
use vsphere_cbt::{
    AreaQuery, Areas, Blocker, ChangeId, Continuity, EnableOptions, Error, Since, changed_areas, enable, preflight,
};
use vsphere_sim::{DiskSpec, Simulator, SimulatorBuilder, VmSpec, storage::TrackingOptions};
use vsphere_vim::{CreateSnapshotOptions, Credentials, DeviceKey, MoRef, RemoveSnapshotOptions, RetryPolicy, Vim, mo};

const MIB: u64 = 1 << 20;
const CELL: u64 = 64 << 10;
const DISK: DeviceKey = DeviceKey(2000);

type Vm = MoRef<mo::VirtualMachine>;
type Snapshot = MoRef<mo::VirtualMachineSnapshot>;

/// A simulator with one VM `web`, and a client that is logged in.
struct Lab {
    sim: Simulator,
    vim: Vim,
    vm: Vm,
}

impl Lab {
    async fn new(vm: VmSpec) -> Self {
        Self::with(vm, |builder| builder).await
    }

    async fn with(vm: VmSpec, change: impl FnOnce(SimulatorBuilder) -> SimulatorBuilder) -> Self {
        let sim = change(Simulator::builder().vm(vm)).start().await.unwrap();
        let credentials = Credentials::password(sim.username(), sim.password());
        let builder = Vim::builder(sim.url()).credentials(credentials).retry(RetryPolicy::never());
        let vim = builder.thumbprint(sim.thumbprint_sha256().parse().unwrap()).connect().await.unwrap();
        let vm = MoRef::new(sim.vm("web").unwrap().id());
        Self { sim, vim, vm }
    }

    fn guest_writes(&self, at: u64, len: usize) {
        self.sim.guest("web").unwrap().disk(DISK.0).unwrap().write_at(at, &vec![7; len]).unwrap();
    }

    /// A snapshot, the change id and the capacity of its disk.
    async fn snapshot(&self, name: &str) -> (Snapshot, Option<ChangeId>, u64) {
        let snapshot = self.vim.create_snapshot(&self.vm, CreateSnapshotOptions::new(name)).await.unwrap();
        let disks = self.vim.snapshot_disks(&snapshot).await.unwrap();
        let disk = disks.into_iter().find(|disk| disk.key == DISK).unwrap();
        (snapshot, disk.backing.change_id.map(|id| id.parse().unwrap()), disk.capacity)
    }

    async fn remove(&self, snapshot: &Snapshot) {
        self.vim.remove_snapshot(snapshot, RemoveSnapshotOptions::default()).await.unwrap();
    }

    async fn areas(&self, snapshot: &Snapshot, since: Since<'_>, capacity: u64) -> Result<Areas, Error> {
        let query = AreaQuery::new(self.vm.clone(), snapshot.clone(), DISK, since, capacity);
        changed_areas(&self.vim, query).try_collect::<Vec<_>>().await.map(|all| all.into_iter().collect())
    }

    /// Logs out and checks that nothing is left on the server.
    async fn end(self) {
        self.vim.logout().await.unwrap();
        let left = self.sim.leftovers();
        assert!(left.is_clean(), "{left:?}");
        self.sim.shutdown().await;
    }
}

fn disk_of(size: u64) -> VmSpec {
    VmSpec::new("web").disk(DiskSpec::empty(size))
}

#[tokio::test]
async fn enabling_makes_change_ids_appear_and_leaves_no_snapshot() {
    let lab = Lab::new(disk_of(16 * MIB)).await;
    let before = preflight(&lab.vim, &lab.vm).await.unwrap();
    assert!(before.supported && !before.enabled && before.blockers().is_empty());
    assert_eq!((before.hardware_version, before.disks.len()), (Some(19), 1));

    let done = enable(&lab.vim, &lab.vm, EnableOptions::default()).await.unwrap();
    assert!(done.switched_on && done.stunned);
    assert_eq!(done.without_change_id().count(), 0);
    assert!(preflight(&lab.vim, &lab.vm).await.unwrap().is_active());

    let again = enable(&lab.vim, &lab.vm, EnableOptions::default()).await.unwrap();
    assert!(!again.switched_on && !again.stunned);
    lab.end().await;
}

#[tokio::test]
async fn independent_disks_do_not_keep_tracking_from_being_active() {
    let vm = disk_of(MIB).disk(DiskSpec::empty(MIB).independent());
    let lab = Lab::new(vm).await;
    let done = enable(&lab.vim, &lab.vm, EnableOptions::default()).await.unwrap();
    assert_eq!(done.disks.len(), 2);
    assert!(done.disks[0].change_id.is_some() && done.disks[1].untrackable.is_some());
    assert!(!enable(&lab.vim, &lab.vm, EnableOptions::default()).await.unwrap().stunned);
    lab.end().await;
}

#[tokio::test]
async fn snapshots_and_old_hardware_stop_enabling_before_anything_is_changed() {
    let lab = Lab::new(disk_of(MIB)).await;
    let (snapshot, change_id, _) = lab.snapshot("mine").await;
    assert_eq!(change_id, None);
    let error = enable(&lab.vim, &lab.vm, EnableOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Blocked { blocker: Blocker::Snapshots { count: 1 }, .. }), "{error}");
    assert!(!lab.vim.change_tracking_enabled(&lab.vm).await.unwrap());
    lab.remove(&snapshot).await;
    lab.end().await;

    let old = Lab::new(disk_of(MIB).hardware_version(4)).await;
    let error = enable(&old.vim, &old.vm, EnableOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Blocked { .. }) && error.hint().is_some(), "{error}");
    old.end().await;
}

#[tokio::test]
async fn changes_between_two_snapshots_are_what_the_guest_wrote() {
    let mut tracking = TrackingOptions::default();
    tracking.max_areas = 3;
    let lab = Lab::with(disk_of(64 * MIB).change_tracking(true), |builder| builder.tracking(tracking)).await;
    let (first, base, _) = lab.snapshot("first").await;
    let base = base.unwrap();
    lab.remove(&first).await;

    // More areas than fit in several answers; two of them touch each other, one lies at the very end.
    let mut written: Vec<Range<u64>> = (0..20).map(|n| n * 3 * MIB + 100..n * 3 * MIB + 5000).collect();
    written.extend([CELL..2 * CELL, 64 * MIB - 512..64 * MIB]);
    for range in &written {
        lab.guest_writes(range.start, (range.end - range.start) as usize);
    }
    let (second, now, capacity) = lab.snapshot("second").await;
    assert_eq!(now.unwrap().follows(&base), Continuity::Unbroken);
    lab.guest_writes(33 * MIB, 512); // After the snapshot: must not be reported.

    let changed = lab.areas(&second, Since::Change(&base), capacity).await.unwrap();
    let exact: Areas = written.into_iter().collect();
    assert_eq!(changed, exact.align(CELL.try_into().unwrap(), capacity));
    lab.remove(&second).await;
    lab.end().await;
}

#[tokio::test]
async fn nothing_written_is_nothing_changed() {
    let lab = Lab::new(disk_of(8 * MIB).change_tracking(true)).await;
    let (first, base, _) = lab.snapshot("first").await;
    lab.remove(&first).await;
    let (second, _, capacity) = lab.snapshot("second").await;
    let changed = lab.areas(&second, Since::Change(&base.unwrap()), capacity).await.unwrap();
    assert!(changed.is_empty(), "{changed:?}");
    lab.remove(&second).await;
    lab.end().await;
}

#[tokio::test]
async fn allocated_areas_cover_what_was_ever_written() {
    let lab = Lab::new(disk_of(8 * MIB).change_tracking(true)).await;
    lab.guest_writes(MIB, 4096);
    let (snapshot, _, capacity) = lab.snapshot("full").await;
    let allocated = lab.areas(&snapshot, Since::Allocated, capacity).await.unwrap();
    assert!(allocated.covers(&(MIB..MIB + 4096)), "{allocated:?}");
    lab.remove(&snapshot).await;
    lab.end().await;
}

#[tokio::test]
async fn a_reset_makes_the_old_change_id_stale() {
    let lab = Lab::new(disk_of(8 * MIB).change_tracking(true)).await;
    let (first, base, _) = lab.snapshot("first").await;
    let base = base.unwrap();
    lab.remove(&first).await;
    lab.sim.vm("web").unwrap().disk(DISK.0).unwrap().reset_tracking();
    let (second, now, capacity) = lab.snapshot("second").await;
    assert_eq!(now.unwrap().follows(&base), Continuity::Reset);
    let error = lab.areas(&second, Since::Change(&base), capacity).await.unwrap_err();
    assert!(matches!(error, Error::ChangeIdStale { .. }), "{error}");
    assert!(error.needs_full_backup() && error.vim().unwrap().is_fault("FileFault"));
    lab.remove(&second).await;
    lab.end().await;
}

#[tokio::test]
async fn an_untracked_disk_is_told_apart_from_a_stale_id() {
    let lab = Lab::new(disk_of(8 * MIB)).await;
    let (snapshot, change_id, capacity) = lab.snapshot("untracked").await;
    assert_eq!(change_id, None);
    let error = lab.areas(&snapshot, Since::Allocated, capacity).await.unwrap_err();
    assert!(matches!(error, Error::NotTracked { .. }), "{error}");
    lab.remove(&snapshot).await;
    lab.end().await;
}

#[tokio::test]
async fn a_capacity_that_is_not_the_snapshots_is_an_error_and_no_loss() {
    let lab = Lab::new(disk_of(8 * MIB).change_tracking(true)).await;
    let (first, base, _) = lab.snapshot("first").await;
    let base = base.unwrap();
    lab.remove(&first).await;
    lab.guest_writes(6 * MIB, 512);
    let (second, _, capacity) = lab.snapshot("second").await;
    let since = Since::Change(&base);
    let beyond = lab.areas(&second, since, capacity + MIB).await.unwrap_err();
    assert!(matches!(beyond, Error::OffsetRefused { .. }), "{beyond}");
    let short = lab.areas(&second, since, 4 * MIB).await.unwrap_err();
    assert!(matches!(short, Error::Answer { .. }), "{short}");
    lab.remove(&second).await;
    lab.end().await;
}

#[tokio::test]
async fn a_snapshot_left_by_an_interrupted_enabling_is_removed_by_the_next() {
    let lab = Lab::new(disk_of(MIB)).await;
    let fault = vsphere_sim::Fault::new("TaskInProgress", "busy");
    lab.sim.faults().fail_next("RemoveSnapshot_Task", fault);
    let error = enable(&lab.vim, &lab.vm, EnableOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Leftover { .. }), "{error}");
    assert_eq!(lab.sim.vm("web").unwrap().snapshots().len(), 1);
    let done = enable(&lab.vim, &lab.vm, EnableOptions::default()).await.unwrap();
    assert_eq!(done.without_change_id().count(), 0);
    assert!(lab.sim.vm("web").unwrap().snapshots().is_empty());
    lab.end().await;
}
