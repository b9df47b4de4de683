//! The transports `nbdssl` and `nbd` against the simulator.

use bytes::Bytes;
use vixdisklib::{Access, Connection, ConnectionOptions, Error, Holes, OpenOptions, TransportMode};
use vsphere_sim::{
    DiskSpec, Personality, Power, Simulator, VmSpec,
    nfc::{AllocationAnswers, FaultAction, HostVersion, NfcServerConfig, Step},
};
use vsphere_vim::{CreateSnapshotOptions, Credentials, MoRef, RemoveSnapshotOptions, RetryPolicy, Vim, mo};

pub(crate) const BASE: &str = "[ds1] web/web.vmdk";

use crate::images::MIB;

/// A simulator with one VM `web` with a disk of 32 MiB, and a client that is logged in.
pub(crate) struct Lab {
    pub(crate) sim: Simulator,
    pub(crate) vim: Vim,
    pub(crate) vm: MoRef<mo::VirtualMachine>,
    pub(crate) snapshot: Option<MoRef<mo::VirtualMachineSnapshot>>,
}

impl Lab {
    pub(crate) async fn new(power: Power) -> Self {
        Self::with(power, NfcServerConfig::default()).await
    }

    pub(crate) async fn with(power: Power, nfc: NfcServerConfig) -> Self {
        Self::on(Personality::VCenter, power, nfc).await
    }

    pub(crate) async fn on(server: Personality, power: Power, nfc: NfcServerConfig) -> Self {
        let vm = VmSpec::new("web").disk(DiskSpec::empty(32 * MIB)).power(power);
        let sim = Simulator::builder().personality(server).vm(vm).nfc(nfc).start().await.unwrap();
        let credentials = Credentials::password(sim.username(), sim.password());
        let builder = Vim::builder(sim.url()).credentials(credentials).retry(RetryPolicy::never());
        let vim = builder.thumbprint(sim.thumbprint_sha256().parse().unwrap()).connect().await.unwrap();
        let vm = MoRef::new(sim.vm("web").unwrap().id());
        Self { sim, vim, vm, snapshot: None }
    }

    /// A running VM whose guest wrote pattern 5 at 1 MiB before a snapshot and 6 after it.
    pub(crate) async fn with_snapshot(nfc: NfcServerConfig) -> Self {
        Self::with(Power::On, nfc).await.snapshotted().await
    }

    pub(crate) async fn snapshotted(mut self) -> Self {
        self.guest_writes(MIB, 5);
        let options = CreateSnapshotOptions::new("backup");
        self.snapshot = Some(self.vim.create_snapshot(&self.vm, options).await.unwrap());
        self.guest_writes(MIB, 6);
        self
    }

    pub(crate) fn guest_writes(&self, at: u64, byte: u8) {
        self.sim.guest("web").unwrap().disk(2000).unwrap().write_at(at, &vec![byte; 200_000]).unwrap();
    }

    pub(crate) fn guest_reads(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.sim.guest("web").unwrap().disk(2000).unwrap().read_at(at, &mut bytes).unwrap();
        bytes
    }

    pub(crate) async fn connect(&self, access: Access, transports: &str) -> Connection {
        Connection::connect(&self.vim, &self.vm, access, transports).await.unwrap()
    }

    /// Logs out and checks that nothing is left on the server.
    pub(crate) async fn end(self) {
        if let Some(snapshot) = &self.snapshot {
            self.vim.remove_snapshot(snapshot, RemoveSnapshotOptions::default()).await.unwrap();
        }
        self.vim.logout().await.unwrap();
        // The server notices the end of a connection a moment after the client.
        let left = self.sim.settled(std::time::Duration::from_secs(1)).await;
        assert!(left.is_clean(), "{left:?}");
        self.sim.shutdown().await;
    }
}

#[tokio::test]
async fn the_path_decides_which_point_in_time_is_read() {
    for (transports, mode) in [("nbdssl", TransportMode::NbdSsl), ("nbd", TransportMode::Nbd)] {
        let lab = Lab::with_snapshot(NfcServerConfig::default()).await;
        let disk = lab.connect(Access::ReadOnly, transports).await.open(BASE).await.unwrap();
        assert_eq!((disk.transport(), disk.capacity(), disk.alignment()), (mode, 32 * MIB, 512));
        let (old, zeros) = tokio::join!(disk.read_at(MIB, 199_680), disk.read_at(20 * MIB, 4 << 20));
        assert_eq!(old.unwrap(), vec![5; 199_680]);
        assert_eq!(zeros.unwrap(), vec![0; 4 << 20]);
        assert_eq!(lab.guest_reads(MIB, 4), [6; 4]);
        disk.close().await.unwrap();
        lab.end().await;
    }
}

#[tokio::test]
async fn a_connection_to_a_snapshot_lists_its_disks_and_opens_no_others() {
    let lab = Lab::with_snapshot(NfcServerConfig::default()).await;
    let options = ConnectionOptions::new().snapshot(lab.snapshot.clone().unwrap());
    let connection = Connection::connect_with(&lab.vim, &lab.vm, Access::ReadOnly, "nbdssl", options).await.unwrap();
    let disks = connection.disks().await.unwrap();
    let listed: Vec<_> = disks.iter().map(|disk| (disk.key.0, &*disk.path, disk.capacity)).collect();
    assert_eq!(listed, [(2000, BASE, 32 * MIB)]);
    let disk = connection.open(BASE).await.unwrap();
    assert_eq!(disk.read_at(MIB, 512).await.unwrap(), vec![5; 512]);
    disk.close().await.unwrap();

    let now = lab.connect(Access::ReadOnly, "nbdssl").await.disks().await.unwrap();
    assert_ne!(now[0].path, BASE, "the VM writes to a child by now");
    let error = connection.open(&*now[0].path).await.unwrap_err();
    assert!(matches!(&error, Error::NotOfVm { .. }), "{error}");
    lab.end().await;
}

#[tokio::test]
async fn a_single_link_reads_what_it_holds_itself_and_its_holes_ask_the_parent() {
    for transports in ["nbdssl", "nbd"] {
        let lab = Lab::with(Power::On, NfcServerConfig::default()).await;
        lab.guest_writes(4 * MIB, 5);
        let first = lab.vim.create_snapshot(&lab.vm, CreateSnapshotOptions::new("first")).await.unwrap();
        lab.guest_writes(8 * MIB, 6);
        // The child is readable when the machine writes to the next one.
        let second = lab.vim.create_snapshot(&lab.vm, CreateSnapshotOptions::new("second")).await.unwrap();
        let child = lab.vim.snapshot_disks(&second).await.unwrap().remove(0).backing.file_name.unwrap();
        let connection = lab.connect(Access::ReadOnly, transports).await;

        let alone = connection.open_with(&child, OpenOptions::new().single_link(true)).await.unwrap();
        assert_eq!(alone.info().await.unwrap().links, Some(1));
        assert_eq!(alone.read_at(8 * MIB, 4096).await.unwrap(), vec![6; 4096]);
        assert_eq!(alone.read_at(4 * MIB, 4096).await.unwrap(), vec![0; 4096]);
        let allocation = alone.allocated(0..32 * MIB).await.unwrap();
        assert_eq!(allocation.holes, Holes::AskParent);
        assert_eq!(allocation.areas, [8 * MIB..8 * MIB + (256 << 10)]);
        alone.close().await.unwrap();

        let chain = connection.open(&child).await.unwrap();
        assert_eq!(chain.read_at(4 * MIB, 4096).await.unwrap(), vec![5; 4096]);
        assert_eq!(chain.allocated(0..32 * MIB).await.unwrap().holes, Holes::ReadAsZeros);
        chain.close().await.unwrap();

        // The file below all others is the same with and without.
        let base = connection.open_with(BASE, OpenOptions::new().single_link(true)).await.unwrap();
        assert_eq!(base.read_at(4 * MIB, 4096).await.unwrap(), vec![5; 4096]);
        base.close().await.unwrap();
        for snapshot in [second, first] {
            lab.vim.remove_snapshot(&snapshot, RemoveSnapshotOptions::default()).await.unwrap();
        }
        lab.end().await;
    }
}

#[tokio::test]
async fn hosts_without_the_asynchronous_layer_are_read_all_the_same() {
    for version in [HostVersion::Esxi80, HostVersion::Esxi65, HostVersion::Esxi60] {
        let lab = Lab::with_snapshot(NfcServerConfig::of(version)).await;
        let connection = lab.connect(Access::ReadOnly, "nbdssl").await;
        let disk = connection.open(BASE).await.unwrap();
        assert_eq!((disk.transport(), disk.capacity()), (TransportMode::NbdSsl, 32 * MIB), "{version:?}");
        let (old, zeros) = tokio::join!(disk.read_at(MIB, 199_680), disk.read_at(20 * MIB, 4 << 20));
        assert_eq!(old.unwrap(), vec![5; 199_680], "{version:?}");
        assert_eq!(zeros.unwrap(), vec![0; 4 << 20]);
        let info = disk.info().await.unwrap();
        let is_told = version == HostVersion::Esxi80;
        assert_eq!((info.capacity, info.adapter_type.is_some()), (32 * MIB, is_told), "{version:?}");
        let allocation = disk.allocated(0..disk.capacity()).await.unwrap();
        assert_eq!(allocation.is_assumed(), !is_told, "{version:?}");
        disk.close().await.unwrap();
        lab.end().await;
    }
}

#[tokio::test]
async fn allocation_is_known_over_nfc() {
    let lab = Lab::with_snapshot(NfcServerConfig::default()).await;
    let disk = lab.connect(Access::ReadOnly, "nbdssl").await.open(BASE).await.unwrap();
    let allocation = disk.allocated(0..disk.capacity()).await.unwrap();
    assert!(!allocation.is_assumed());
    assert_eq!(allocation.areas, [MIB..MIB + 4 * 65536]);
    disk.close().await.unwrap();
    lab.end().await;
}

#[tokio::test]
async fn a_refused_allocation_query_counts_everything_and_reading_goes_on() {
    let mut nfc = NfcServerConfig::default();
    nfc.allocation = AllocationAnswers::Refused;
    let lab = Lab::with_snapshot(nfc).await;
    let disk = lab.connect(Access::ReadOnly, "nbdssl").await.open(BASE).await.unwrap();
    for _ in 0..2 {
        let allocation = disk.allocated(MIB..3 * MIB).await.unwrap();
        assert!(allocation.is_assumed());
        assert_eq!(allocation.areas, [MIB..3 * MIB]);
    }
    assert_eq!(disk.read_at(MIB, 512).await.unwrap(), vec![5; 512]);
    // One connection that the refusal ended, and one after it: the second query was not sent.
    assert_eq!(lab.sim.nfc().counters().connections_total(), 2);
    disk.close().await.unwrap();
    lab.end().await;
}

#[tokio::test]
async fn a_connection_lost_while_asking_for_allocation_is_not_a_refusal() {
    let lab = Lab::with_snapshot(NfcServerConfig::default()).await;
    lab.sim.nfc().inject(Step::QueryAllocated, FaultAction::Close);
    let disk = lab.connect(Access::ReadOnly, "nbdssl").await.open(BASE).await.unwrap();
    assert!(!disk.allocated(0..disk.capacity()).await.unwrap().is_assumed());
    disk.close().await.unwrap();
    lab.end().await;
}

#[tokio::test]
async fn info_and_metadata_come_over_the_wire() {
    let lab = Lab::with_snapshot(NfcServerConfig::default()).await;
    let disk = lab.connect(Access::ReadOnly, "nbdssl").await.open(BASE).await.unwrap();
    let info = disk.info().await.unwrap();
    assert_eq!((info.capacity, info.logical_sector_size), (32 * MIB, 512));
    assert!(info.uuid.is_some() && info.adapter_type.is_some(), "{info:?}");
    assert_eq!(disk.metadata("adapterType").await.unwrap(), info.adapter_type);
    assert_eq!(disk.metadata("nonsense").await.unwrap(), None);
    assert_eq!((info.links, info.parent_hint), (Some(1), None));
    let keys = disk.metadata_keys().await.unwrap();
    assert!(keys.iter().any(|key| key == "uuid") && !keys.iter().any(|key| key == "comment"), "{keys:?}");
    disk.close().await.unwrap();
    lab.end().await;
}

#[tokio::test]
async fn a_disk_of_a_vm_that_is_off_is_written_and_read_back() {
    let lab = Lab::new(Power::Off).await;
    let connection = lab.connect(Access::ReadWrite, "nbdssl").await;
    let disk = connection.open(BASE).await.unwrap();
    disk.write_at(MIB, vec![8; 3 << 20].into()).await.unwrap();
    disk.zero_range(2 * MIB..2 * MIB + 512).await.unwrap();
    assert!(disk.allocated(0..MIB).await.unwrap().is_assumed(), "never asked on a disk open for writing");
    disk.flush().await.unwrap();
    disk.close().await.unwrap();
    assert_eq!(lab.guest_reads(2 * MIB - 1, 514), [&[8][..], &[0; 512], &[8]].concat());
    lab.end().await;
}

#[tokio::test]
async fn unaligned_requests_are_refused_before_anything_is_sent() {
    let lab = Lab::with_snapshot(NfcServerConfig::default()).await;
    let disk = lab.connect(Access::ReadOnly, "nbdssl").await.open(BASE).await.unwrap();
    for (offset, len) in [(1, 512), (0, 100)] {
        let error = disk.read_at(offset, len).await.unwrap_err();
        assert!(matches!(error, Error::Unaligned { alignment: 512, .. }), "{error}");
    }
    assert!(matches!(disk.write_at(0, Bytes::new()).await, Err(Error::ReadOnly { .. })));
    assert!(matches!(disk.read_at(32 * MIB, 512).await, Err(Error::OutOfRange { .. })));
    disk.close().await.unwrap();
    lab.end().await;
}

#[tokio::test]
async fn a_file_of_another_machine_is_not_asked_for() {
    let lab = Lab::new(Power::Off).await;
    let connection = lab.connect(Access::ReadOnly, "nbdssl").await;
    let error = connection.open("[ds1] other/other.vmdk").await.unwrap_err();
    assert!(matches!(&error, Error::NotOfVm { found, .. } if found == &[BASE]), "{error}");
    assert_eq!(lab.sim.nfc().counters().connections_total(), 0);
    lab.end().await;
}

#[tokio::test]
async fn the_disk_in_use_of_a_running_vm_is_refused_by_every_transport_with_its_reason() {
    let lab = Lab::new(Power::On).await;
    let connection = lab.connect(Access::ReadOnly, "san:nbdssl:nbd:file").await;
    let error = connection.open(BASE).await.unwrap_err();
    let Error::NoTransport { attempts, .. } = &error else { panic!("{error}") };
    let modes: Vec<_> = attempts.iter().map(|attempt| attempt.mode.name()).collect();
    assert_eq!(modes, ["san", "nbdssl", "nbd", "file"]);
    assert!(matches!(attempts[1].error, Error::Nfc { .. }));
    assert!(error.hint().is_some());
    lab.end().await;
}

#[tokio::test]
async fn after_a_revert_a_disk_of_the_other_branch_is_found_through_its_snapshot() {
    let mut lab = Lab::with_snapshot(NfcServerConfig::default()).await;
    let child = lab.vim.create_snapshot(&lab.vm, CreateSnapshotOptions::new("child")).await.unwrap();
    let disks = lab.vim.snapshot_disks(&child).await.unwrap();
    let path = disks[0].backing.file_name.clone().unwrap();
    lab.vim.revert_to_snapshot(lab.snapshot.as_ref().unwrap()).await.unwrap();
    assert_eq!(lab.guest_reads(MIB, 4), [5; 4]);

    let disk = lab.connect(Access::ReadOnly, "nbdssl").await.open(path).await.unwrap();
    assert_eq!(disk.read_at(MIB, 512).await.unwrap(), vec![6; 512]);
    disk.close().await.unwrap();
    lab.vim.remove_snapshot(&child, RemoveSnapshotOptions::default()).await.unwrap();
    lab.vim.remove_snapshot(&lab.snapshot.take().unwrap(), RemoveSnapshotOptions::default()).await.unwrap();
    lab.end().await;
}

#[tokio::test]
async fn transports_that_this_version_lacks_say_so() {
    let lab = Lab::new(Power::Off).await;
    for (list, what) in [("hotadd", "disk library"), ("san:hotadd", "disk library"), ("nfs", "no transport")] {
        let error = Connection::connect(&lab.vim, &lab.vm, Access::ReadOnly, list).await.unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
    lab.end().await;
}

#[tokio::test]
async fn a_lost_connection_is_made_anew_with_a_new_ticket() {
    let lab = Lab::with_snapshot(NfcServerConfig::default()).await;
    let disk = lab.connect(Access::ReadOnly, "nbdssl").await.open(BASE).await.unwrap();
    assert_eq!(disk.read_at(MIB, 512).await.unwrap(), vec![5; 512]);
    lab.sim.nfc().disconnect_all();
    let mut read = disk.read_at(MIB, 512).await;
    if let Err(error) = &read {
        // The request may have been under way before the loss was seen.
        assert!(error.is_retryable(), "{error}");
        read = disk.read_at(MIB, 512).await;
    }
    assert_eq!(read.unwrap(), vec![5; 512]);
    assert_eq!(lab.sim.nfc().counters().connections_total(), 2);
    disk.close().await.unwrap();
    lab.end().await;
}

#[tokio::test]
async fn a_missing_right_is_told_with_the_servers_own_fault() {
    let lab = Lab::with_snapshot(NfcServerConfig::default()).await;
    let fault = vsphere_sim::Fault::new("NoPermission", "denied");
    lab.sim.faults().fail_next("NfcRandomAccessOpenReadonly", fault);
    let error = lab.connect(Access::ReadOnly, "nbdssl").await.open(BASE).await.unwrap_err();
    assert_eq!(error.vim().unwrap().fault_name(), Some("NoPermission"));
    assert!(error.hint().is_some() && !error.is_retryable());
    lab.end().await;
}
