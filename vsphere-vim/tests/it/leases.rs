//! Leases against the simulator: disks out and in, slow consumers, dead sessions, lost leases.

use std::time::Duration;

use vmdk::stream::{StreamReader, StreamSpec, StreamWriter};
use vsphere_sim::{DiskSpec, Fault, Injection, LeaseConfig, Personality, Power, Simulator, SimulatorBuilder, VmSpec};
use vsphere_vim::{
    CreateSnapshotOptions, Error, ManagedObjectReference, MoRef, Poly, RemoveSnapshotOptions, Vim, VmLookup,
    error::TransportErrorKind,
    lease::{DeviceStream, ImportRequest, LeaseOptions},
    methods::ExportVm,
    mo::{self, VirtualMachine},
    transport::stream::Upload,
    types::{
        HttpNfcLeaseState, VirtualDevice, VirtualDeviceConfigSpec, VirtualDeviceConfigSpecFileOperation,
        VirtualDeviceConfigSpecOperation, VirtualDisk, VirtualLsiLogicController, VirtualMachineConfigSpec,
    },
};

use crate::simulated::connect;

const MIB: u64 = 1 << 20;

fn two_disks() -> SimulatorBuilder {
    let web = VmSpec::new("web").disk(DiskSpec::empty(8 * MIB)).disk(DiskSpec::empty(3 * MIB + 512));
    Simulator::builder().vm(web.power(Power::Off))
}

fn leases(timeout: Duration) -> LeaseConfig {
    let mut config = LeaseConfig::default();
    config.timeout = timeout;
    config
}

async fn web(vim: &Vim) -> MoRef<VirtualMachine> {
    let path = if vim.is_vcenter() { "dc1/vm/web" } else { "ha-datacenter/vm/web" };
    vim.find_vm(&VmLookup::InventoryPath(path.into())).await.unwrap().moref
}

/// Ends the session; no lease may be left.
async fn close(vim: Vim, sim: Simulator) {
    for _ in 0..200 {
        let left = sim.leftovers();
        // The server lets go of a disk a moment after its client is gone.
        if left.leases == 0 && left.session_objects == 0 && left.open_layers == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    vim.logout().await.unwrap();
    let left = sim.leftovers();
    assert!(left.is_clean(), "{left}");
    sim.shutdown().await;
}

/// Bytes that do not compress.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn write(sim: &Simulator, key: i32, offset: u64, bytes: &[u8]) {
    sim.guest("web").unwrap().disk(key).unwrap().write_at(offset, bytes).unwrap();
}

fn content(sim: &Simulator, vm: &str, key: i32) -> Vec<u8> {
    let disk = sim.guest(vm).unwrap().disk(key).unwrap();
    let mut all = vec![0; disk.capacity() as usize];
    disk.read_at(0, &mut all).unwrap();
    all
}

async fn all(mut stream: DeviceStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(piece) = stream.try_next().await.unwrap() {
        bytes.extend_from_slice(&piece);
    }
    bytes
}

/// The disk behind a stream.
fn unpacked(stream: &[u8]) -> Vec<u8> {
    let mut reader = StreamReader::open(stream, "export").unwrap();
    let mut disk = vec![0; reader.capacity() as usize];
    while let Some(grain) = reader.next_grain().unwrap() {
        disk[grain.offset as usize..grain.offset as usize + grain.data.len()].copy_from_slice(grain.data);
    }
    disk
}

fn packed(disk: &[u8]) -> Vec<u8> {
    let mut writer = StreamWriter::new(Vec::new(), &StreamSpec::new(disk.len() as u64)).unwrap();
    writer.write_at(0, disk).unwrap();
    writer.finish().unwrap()
}

fn new_machine(name: &str, disks: &[u64]) -> VirtualMachineConfigSpec {
    let disk = |(unit, bytes): (usize, &u64)| {
        let mut disk = VirtualDisk {
            capacity_in_kb: (bytes / 1024) as i64,
            capacity_in_bytes: Some(*bytes as i64),
            ..Default::default()
        };
        disk.key = -1 - unit as i32;
        disk.unit_number = Some(unit as i32);
        disk.controller_key = Some(-1000);
        Poly::new(VirtualDeviceConfigSpec {
            operation: Some(VirtualDeviceConfigSpecOperation::Add),
            file_operation: Some(VirtualDeviceConfigSpecFileOperation::Create),
            device: Poly::new(disk),
            ..Default::default()
        })
    };
    let mut device: Poly<VirtualDevice> = Poly::new(VirtualLsiLogicController::default());
    device.key = -1000;
    let controller = Poly::new(VirtualDeviceConfigSpec {
        operation: Some(VirtualDeviceConfigSpecOperation::Add),
        device,
        ..Default::default()
    });
    VirtualMachineConfigSpec {
        name: Some(name.into()),
        device_change: std::iter::once(controller).chain(disks.iter().enumerate().map(disk)).collect(),
        ..Default::default()
    }
}

fn import(config: VirtualMachineConfigSpec) -> ImportRequest {
    ImportRequest::machine(config, MoRef::new("resgroup-9")).folder(MoRef::new("group-v3"))
}

#[tokio::test]
async fn a_machine_that_is_off_is_exported_and_the_manifest_agrees() {
    for personality in [Personality::VCenter, Personality::Esxi] {
        for star in [true, false] {
            let mut config = LeaseConfig::default();
            config.star_host = star;
            let sim = two_disks().personality(personality).leases(config).start().await.unwrap();
            write(&sim, 2000, 100_000, &pattern(1, 2_000_000));
            write(&sim, 2001, 3 * MIB, &[7; 512]);
            let vim = connect(&sim).await;
            let lease = vim.export_vm(&web(&vim).await, LeaseOptions::default()).await.unwrap();
            assert_eq!((lease.devices().len(), lease.entity().type_name()), (2, "VirtualMachine"));
            assert!(lease.devices().iter().all(|device| device.is_disk && device.file_size.is_none()));
            // Both at once.
            let [one, two] = [&lease.devices()[0], &lease.devices()[1]];
            let (one, two) =
                futures_util::future::join(async { all(lease.download(one).await.unwrap()).await }, async {
                    all(lease.download(two).await.unwrap()).await
                })
                .await;
            let report = lease.complete().await.unwrap();
            assert_eq!((report.files.len(), report.checked()), (2, 2));
            assert_eq!(report.files.iter().map(|file| file.bytes).sum::<u64>(), (one.len() + two.len()) as u64);
            assert!(unpacked(&one) == content(&sim, "web", 2000));
            assert!(unpacked(&two) == content(&sim, "web", 2001));
            close(vim, sim).await;
        }
    }
}

#[tokio::test]
async fn a_snapshot_is_exported_as_it_was_while_the_machine_writes() {
    let sim = two_disks().start().await.unwrap();
    sim.vm("web").unwrap().set_power(Power::On).unwrap();
    write(&sim, 2000, 0, &pattern(2, 500_000));
    let before = content(&sim, "web", 2000);
    let vim = connect(&sim).await;
    let vm = web(&vim).await;
    assert!(vim.export_vm(&vm, LeaseOptions::default()).await.unwrap_err().is_fault("InvalidPowerState"));
    let snapshot = vim.create_snapshot(&vm, CreateSnapshotOptions::new("backup")).await.unwrap();
    write(&sim, 2000, 1000, &[0xee; 300_000]);
    let lease = vim.export_snapshot(&snapshot, LeaseOptions::default()).await.unwrap();
    // One lease a machine.
    assert!(vim.export_snapshot(&snapshot, LeaseOptions::default()).await.unwrap_err().is_fault("InvalidState"));
    let disk = all(lease.download(&lease.devices()[0]).await.unwrap()).await;
    assert!(unpacked(&disk) == before);
    lease.complete().await.unwrap();
    vim.remove_snapshot(&snapshot, RemoveSnapshotOptions::default()).await.unwrap();
    close(vim, sim).await;
}

#[tokio::test]
async fn what_is_imported_is_on_the_disks_of_the_new_machine() {
    let sim = Simulator::builder().start().await.unwrap();
    let vim = connect(&sim).await;
    let disks = [pattern(3, 5 * MIB as usize + 512), vec![0; MIB as usize]];
    let sizes: Vec<u64> = disks.iter().map(|disk| disk.len() as u64).collect();
    let lease = vim.import(import(new_machine("restored", &sizes)), LeaseOptions::default()).await.unwrap();
    assert_eq!(lease.devices()[1].import_key, "/restored/VirtualLsiLogicController0:1");
    let streams: Vec<_> = disks.iter().map(|disk| packed(disk)).collect();
    lease.expect(streams.iter().map(|stream| stream.len() as u64).sum());
    for (device, stream) in lease.devices().iter().zip(&streams) {
        // Of unknown length, as a pipe would be.
        lease.upload(device, Upload::from_reader(None, std::io::Cursor::new(stream.clone()))).await.unwrap();
    }
    let machine = lease.complete().await.unwrap();
    let name: String = vim.get(&machine, VirtualMachine::NAME).await.unwrap();
    assert_eq!(name, "restored");
    assert!(content(&sim, "restored", 2000) == disks[0]);
    assert!(content(&sim, "restored", 2001) == disks[1]);
    close(vim, sim).await;
}

#[tokio::test]
async fn an_import_that_fails_leaves_no_machine() {
    let sim = Simulator::builder().start().await.unwrap();
    let vim = connect(&sim).await;
    let lease = vim.import(import(new_machine("half", &[MIB])), LeaseOptions::default()).await.unwrap();
    let device = lease.devices()[0].clone();
    let stream = packed(&pattern(4, MIB as usize));
    let cut = stream[..stream.len() / 2].to_vec();
    let error = lease.upload(&device, Upload::from_bytes(cut)).await.unwrap_err();
    assert_eq!(error.transport_kind(), Some(TransportErrorKind::HttpStatus(500)));
    let told = std::error::Error::source(&error).unwrap().to_string();
    assert!(told.contains("too early"), "{told}");
    let larger = packed(&vec![1; 2 * MIB as usize]);
    assert!(lease.upload(&device, Upload::from_bytes(larger)).await.is_err());
    // The device may be written again; here it is given up instead.
    assert!(sim.vm("half").is_ok());
    lease.abort().await;
    assert!(sim.vm("half").is_err());
    // Dropping does the same in the background, and so does a future that is dropped.
    let lease = vim.import(import(new_machine("half", &[MIB])), LeaseOptions::default()).await.unwrap();
    drop(lease);
    for _ in 0..200 {
        if sim.vm("half").is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(sim.vm("half").is_err());
    let no_name = vim.import(import(VirtualMachineConfigSpec::default()), LeaseOptions::default()).await.unwrap_err();
    assert!(no_name.is_fault("InvalidArgument"), "{no_name}");
    close(vim, sim).await;
}

#[tokio::test]
async fn a_lease_lives_as_long_as_its_slow_consumer() {
    let sim = two_disks().leases(leases(Duration::from_secs(1))).start().await.unwrap();
    write(&sim, 2000, 0, &pattern(5, 8 * MIB as usize));
    let vim = connect(&sim).await;
    let lease = vim.export_vm(&web(&vim).await, LeaseOptions::default()).await.unwrap();
    let mut stream = lease.download(&lease.devices()[0]).await.unwrap();
    let mut bytes = stream.try_next().await.unwrap().unwrap().to_vec();
    tokio::time::sleep(Duration::from_millis(3500)).await;
    while let Some(piece) = stream.try_next().await.unwrap() {
        bytes.extend_from_slice(&piece);
    }
    lease.complete().await.unwrap();
    assert!(unpacked(&bytes) == content(&sim, "web", 2000));
    // Nobody who holds it: the server ends it.
    let forgotten = vim.invoke(&web(&vim).await, ExportVm::default()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let state: HttpNfcLeaseState = vim.get(&forgotten, mo::HttpNfcLease::STATE).await.unwrap();
    assert_eq!(state, HttpNfcLeaseState::Error);
    close(vim, sim).await;
}

#[tokio::test]
async fn a_lease_survives_the_death_of_its_session() {
    let sim = two_disks().leases(leases(Duration::from_secs(1))).start().await.unwrap();
    write(&sim, 2000, 0, &pattern(6, 8 * MIB as usize));
    let vim = connect(&sim).await;
    let lease = vim.export_vm(&web(&vim).await, LeaseOptions::default()).await.unwrap();
    let mut stream = lease.download(&lease.devices()[0]).await.unwrap();
    let mut bytes = Vec::new();
    for _ in 0..3 {
        bytes.extend_from_slice(&stream.try_next().await.unwrap().unwrap());
        sim.expire_sessions();
        tokio::time::sleep(Duration::from_millis(700)).await;
        // One login a death.
        assert_eq!(sim.leftovers().sessions, 1);
    }
    while let Some(piece) = stream.try_next().await.unwrap() {
        bytes.extend_from_slice(&piece);
    }
    sim.expire_sessions();
    lease.complete().await.unwrap();
    assert!(unpacked(&bytes) == content(&sim, "web", 2000));
    close(vim, sim).await;
}

#[tokio::test]
async fn when_the_server_cannot_be_told_the_next_read_says_why_and_the_lease_is_aborted() {
    let sim = two_disks().leases(leases(Duration::from_secs(2))).start().await.unwrap();
    write(&sim, 2000, 0, &pattern(7, 8 * MIB as usize));
    let vim = connect(&sim).await;
    let lease = vim.export_vm(&web(&vim).await, LeaseOptions::default()).await.unwrap();
    let mut stream = lease.download(&lease.devices()[0]).await.unwrap();
    stream.try_next().await.unwrap().unwrap();
    sim.faults().fail_next("HttpNfcLeaseProgress", Fault::new("NoPermission", "revoked"));
    tokio::time::sleep(Duration::from_millis(900)).await;
    let error = loop {
        match stream.try_next().await {
            Ok(piece) => assert!(piece.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.fault_name(), Some("NoPermission"));
    assert!(stream.try_next().await.unwrap().is_none());
    let again = lease.download(&lease.devices()[1]).await.unwrap_err();
    assert_eq!(again.fault_name(), Some("NoPermission"));
    let at_the_end = lease.complete().await.unwrap_err();
    assert_eq!(at_the_end.fault_name(), Some("NoPermission"));
    assert_eq!(sim.leftovers().leases, 0);
    close(vim, sim).await;
}

#[tokio::test]
async fn a_stream_that_breaks_is_an_error_and_may_be_read_again() {
    let sim = two_disks().start().await.unwrap();
    write(&sim, 2000, 0, &pattern(8, 4 * MIB as usize));
    let vim = connect(&sim).await;
    let lease = vim.export_vm(&web(&vim).await, LeaseOptions::default()).await.unwrap();
    sim.faults().inject("GET /nfc", Injection::CutBody(1_000_000));
    let mut stream = lease.download(&lease.devices()[0]).await.unwrap();
    let error = loop {
        match stream.try_next().await {
            Ok(piece) => assert!(piece.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.transport_kind(), Some(TransportErrorKind::Disconnected));
    let disk = all(lease.download(&lease.devices()[0]).await.unwrap()).await;
    assert!(unpacked(&disk) == content(&sim, "web", 2000));
    sim.faults().inject("GET /nfc", Injection::Http(503));
    let error = lease.download(&lease.devices()[0]).await.unwrap_err();
    assert_eq!(error.transport_kind(), Some(TransportErrorKind::HttpStatus(503)));
    drop(lease);
    close(vim, sim).await;
}

#[tokio::test]
async fn a_lease_is_waited_for_but_not_for_ever() {
    let mut config = LeaseConfig::default();
    config.ready_after = Duration::from_millis(600);
    config.manifest = false;
    let sim = two_disks().leases(config).start().await.unwrap();
    let vim = connect(&sim).await;
    let vm = web(&vim).await;
    let mut options = LeaseOptions {
        poll_interval: Duration::from_millis(50),
        ready_timeout: Duration::from_millis(200),
        ..LeaseOptions::default()
    };
    let error = vim.export_vm(&vm, options.clone()).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert_eq!(sim.leftovers().leases, 0);
    options.ready_timeout = Duration::from_secs(20);
    // A wait that is dropped leaves no lease either.
    let waiting = tokio::time::timeout(Duration::from_millis(250), vim.export_vm(&vm, options.clone())).await;
    assert!(waiting.is_err());
    for _ in 0..200 {
        if sim.leftovers().leases == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let lease = vim.export_vm(&vm, options).await.unwrap();
    all(lease.download(&lease.devices()[0]).await.unwrap()).await;
    // A server without manifests: nothing is confirmed, nothing fails.
    let report = lease.complete().await.unwrap();
    assert_eq!((report.files.len(), report.checked()), (1, 0));
    let missing: MoRef<VirtualMachine> = ManagedObjectReference::of("VirtualMachine", "vm-99").cast();
    assert!(vim.export_vm(&missing, LeaseOptions::default()).await.unwrap_err().is_fault("ManagedObjectNotFound"));
    close(vim, sim).await;
}
