//! Whole disks through leases, both ways.

use std::{collections::BTreeMap, time::Duration};

use vixdisklib::{
    Access, Connection, Error,
    lease::{LeaseSource, LeaseTarget, Piece},
};
use vmdk::stream::StreamSpec;
use vsphere_sim::{DiskSpec, Injection, LeaseConfig, Power, Simulator, VmSpec};
use vsphere_vim::{
    CreateSnapshotOptions, MoRef, Poly, RemoveSnapshotOptions, Vim,
    lease::{ImportRequest, LeaseOptions},
    types::{
        VirtualDevice, VirtualDeviceConfigSpec, VirtualDeviceConfigSpecFileOperation, VirtualDeviceConfigSpecOperation,
        VirtualDisk, VirtualLsiLogicController, VirtualMachineConfigSpec,
    },
};

use crate::lab::{self, Random};

const MIB: u64 = 1 << 20;
const SIZES: [u64; 2] = [24 * MIB, 3 * MIB + 512];

async fn site(power: Power) -> (Simulator, Vim) {
    let vm = SIZES.iter().fold(VmSpec::new("web"), |vm, size| vm.disk(DiskSpec::empty(*size)));
    let mut leases = LeaseConfig::default();
    leases.timeout = Duration::from_secs(2);
    let sim = Simulator::builder().vm(vm.power(power)).leases(leases).start().await.unwrap();
    let vim = lab::connect(&sim).await;
    (sim, vim)
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

/// Reads all disks of a lease to their ends; checks that pieces come in order and cover each disk without gaps.
async fn read_all(source: &LeaseSource) -> BTreeMap<String, Vec<u8>> {
    let mut disks = BTreeMap::new();
    for device in source.disks() {
        let mut disk = source.read(device).await.unwrap();
        let mut bytes = Vec::new();
        while let Some(piece) = disk.next().await.unwrap() {
            assert_eq!(piece.range().start, bytes.len() as u64, "{}", device.key);
            assert!(!piece.range().is_empty());
            match piece {
                Piece::Data { bytes: data, .. } => bytes.extend_from_slice(&data),
                Piece::Zeros(range) => bytes.resize(range.end as usize, 0),
            }
        }
        assert_eq!(bytes.len() as u64, disk.capacity());
        assert!(disk.next().await.unwrap().is_none());
        disks.insert(device.key.clone(), bytes);
    }
    disks
}

fn new_machine(name: &str, disks: &[u64]) -> ImportRequest {
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
    let config = VirtualMachineConfigSpec {
        name: Some(name.into()),
        device_change: std::iter::once(controller).chain(disks.iter().enumerate().map(disk)).collect(),
        ..Default::default()
    };
    ImportRequest::machine(config, MoRef::new("resgroup-9")).folder(MoRef::new("group-v3"))
}

/// Waits until the machine is gone, and its lease.
async fn no_machine(sim: &Simulator, name: &str) {
    for _ in 0..500 {
        if sim.vm(name).is_err() && sim.leftovers().leases == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{name} is there: {}, leases: {}", sim.vm(name).is_ok(), sim.leftovers().leases);
}

#[tokio::test]
async fn the_disks_of_a_machine_that_is_off_come_whole_and_in_order() {
    let (sim, vim) = site(Power::Off).await;
    write(&sim, 2000, 0, b"boot");
    write(&sim, 2000, 5 * MIB + 100, &Random::new(1).bytes(3_000_000));
    write(&sim, 2001, 3 * MIB, &[7; 512]);
    let source = LeaseSource::of_vm(&vim, &lab::machine(&sim, "web"), LeaseOptions::default()).await.unwrap();
    let disks = read_all(&source).await;
    let report = source.complete().await.unwrap();
    assert_eq!((report.files.len(), report.checked()), (2, 2));
    let read: Vec<_> = disks.into_values().collect();
    assert!(read == [content(&sim, "web", 2000), content(&sim, "web", 2001)]);
    lab::close(vim, sim).await;
}

#[tokio::test]
async fn a_snapshot_comes_as_it_was_and_a_slow_reader_keeps_its_lease() {
    let (sim, vim) = site(Power::On).await;
    let vm = lab::machine(&sim, "web");
    write(&sim, 2000, 0, &Random::new(2).bytes(4_000_000));
    let before = content(&sim, "web", 2000);
    let snapshot = vim.create_snapshot(&vm, CreateSnapshotOptions::new("backup")).await.unwrap();
    write(&sim, 2000, 1000, &[0xee; 300_000]);
    let source = LeaseSource::of_snapshot(&vim, &snapshot, LeaseOptions::default()).await.unwrap();
    let device = source.disks().next().unwrap().clone();
    let mut disk = source.read(&device).await.unwrap();
    let first = disk.next().await.unwrap().unwrap();
    assert_eq!(first.range(), 0..65536);
    // Longer than the server waits.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    drop(disk);
    let disks = read_all(&source).await;
    assert!(disks[&device.key] == before);
    source.complete().await.unwrap();
    vim.remove_snapshot(&snapshot, RemoveSnapshotOptions::default()).await.unwrap();
    lab::close(vim, sim).await;
}

#[tokio::test]
async fn an_export_that_breaks_or_is_given_up_leaves_no_lease() {
    let (sim, vim) = site(Power::Off).await;
    let vm = lab::machine(&sim, "web");
    write(&sim, 2000, 0, &Random::new(3).bytes(8_000_000));
    let lease = || LeaseSource::of_vm(&vim, &vm, LeaseOptions::default());
    // The connection breaks; the disk may be read again from its beginning.
    let source = lease().await.unwrap();
    let device = source.disks().next().unwrap().clone();
    sim.faults().inject("GET /nfc", Injection::CutBody(3_000_000));
    let mut disk = source.read(&device).await.unwrap();
    let mut told = 0;
    let error = loop {
        match disk.next().await {
            Ok(piece) => told = piece.unwrap().range().end,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Server { .. }) && error.is_retryable() && told > MIB, "{error}");
    // A stream that was broken is no disk that was read.
    let error = source.complete().await.unwrap_err();
    assert!(matches!(&error, Error::Unfinished { disk, .. } if *disk == device.key), "{error}");
    assert_eq!(sim.leftovers().leases, 0);
    // All bytes come, and then the connection breaks instead of ending: asking again does not make a whole of it.
    let whole = lease().await.unwrap();
    let sent: u64 = {
        let mut disk = whole.read(whole.disks().next().unwrap()).await.unwrap();
        while disk.next().await.unwrap().is_some() {}
        whole.complete().await.unwrap().files[0].bytes
    };
    let source = lease().await.unwrap();
    sim.faults().inject("GET /nfc", Injection::CutBody(sent));
    let mut disk = source.read(source.disks().next().unwrap()).await.unwrap();
    while let Ok(piece) = disk.next().await {
        assert!(piece.is_some());
    }
    for _ in 0..2 {
        assert!(matches!(disk.next().await, Err(Error::Unfinished { .. })));
    }
    assert!(matches!(source.complete().await, Err(Error::Unfinished { .. })));
    // Given up, and dropped in the middle of a read.
    lease().await.unwrap().abort().await;
    assert_eq!(sim.leftovers().leases, 0);
    let source = lease().await.unwrap();
    let mut disk = source.read(source.disks().next().unwrap()).await.unwrap();
    disk.next().await.unwrap();
    drop(source);
    for _ in 0..300 {
        if sim.leftovers().leases == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(sim.leftovers().leases, 0);
    drop(disk);
    lab::close(vim, sim).await;
}

#[tokio::test]
async fn disks_of_any_transport_become_those_of_a_new_machine() {
    let (sim, vim) = site(Power::Off).await;
    write(&sim, 2000, MIB, &Random::new(4).bytes(5_000_000));
    write(&sim, 2001, 0, &Random::new(5).bytes(3 << 20));
    let connection =
        Connection::connect(&vim, &lab::machine(&sim, "web"), Access::ReadOnly, "nbdssl:https").await.unwrap();
    let target = LeaseTarget::import(&vim, new_machine("restored", &SIZES), LeaseOptions::default()).await.unwrap();
    for (device, path) in target.disks().zip(["[ds1] web/web.vmdk", "[ds1] web/web_1.vmdk"]) {
        let disk = connection.open(path).await.unwrap();
        target.write_disk(device, &disk).await.unwrap();
        disk.close().await.unwrap();
    }
    let machine = target.complete().await.unwrap();
    assert_eq!(vim.get(&machine, vsphere_vim::mo::VirtualMachine::NAME).await.unwrap(), "restored");
    for key in [2000, 2001] {
        assert!(content(&sim, "restored", key) == content(&sim, "web", key), "{key}");
    }
    lab::close(vim, sim).await;
}

#[tokio::test]
async fn a_lease_in_is_a_lease_out() {
    let (sim, vim) = site(Power::Off).await;
    write(&sim, 2000, 7 * MIB + 3, &Random::new(6).bytes(2_000_000));
    let source = LeaseSource::of_vm(&vim, &lab::machine(&sim, "web"), LeaseOptions::default()).await.unwrap();
    let target = LeaseTarget::import(&vim, new_machine("copy", &SIZES), LeaseOptions::default()).await.unwrap();
    for (from, to) in source.disks().zip(target.disks()) {
        let mut disk = source.read(from).await.unwrap();
        let mut writer = target.write(to, &StreamSpec::new(disk.capacity())).await.unwrap();
        while let Some(piece) = disk.next().await.unwrap() {
            writer.put(&piece).await.unwrap();
        }
        writer.finish().await.unwrap();
    }
    source.complete().await.unwrap();
    target.complete().await.unwrap();
    for key in [2000, 2001] {
        assert!(content(&sim, "copy", key) == content(&sim, "web", key), "{key}");
    }
    lab::close(vim, sim).await;
}

#[tokio::test]
async fn an_import_that_fails_or_is_given_up_leaves_no_machine() {
    let (sim, vim) = site(Power::Off).await;
    let import = || LeaseTarget::import(&vim, new_machine("half", &SIZES[..1]), LeaseOptions::default());
    let spec = StreamSpec::new(SIZES[0]);
    let bytes = Random::new(7).bytes(4 << 20);
    // The host refuses in the middle; its reason is told.
    let target = import().await.unwrap();
    let device = target.disks().next().unwrap().clone();
    sim.faults().inject("POST /nfc", Injection::Http(503));
    let mut writer = target.write(&device, &spec).await.unwrap();
    let error = match writer.write_at(0, &bytes).await {
        Ok(()) => writer.finish().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(&error, Error::Server { .. }) && error.vim().is_some(), "{error:?}");
    // Completing it now is refused, and the machine goes.
    assert!(matches!(target.complete().await, Err(Error::Unfinished { .. })));
    no_machine(&sim, "half").await;
    // A disk that is too large for its machine.
    let target = import().await.unwrap();
    let device = target.disks().next().unwrap().clone();
    let mut writer = target.write(&device, &StreamSpec::new(2 * SIZES[0])).await.unwrap();
    let failed = match writer.write_at(2 * SIZES[0] - 512, &[1; 512]).await {
        Ok(()) => writer.finish().await,
        Err(error) => Err(error),
    };
    assert!(matches!(failed, Err(Error::Server { .. })), "{failed:?}");
    target.abort().await;
    no_machine(&sim, "half").await;
    // Writer and target are dropped in the middle of a transfer.
    let target = import().await.unwrap();
    let device = target.disks().next().unwrap().clone();
    let mut writer = target.write(&device, &spec).await.unwrap();
    writer.write_at(0, &bytes).await.unwrap();
    assert!(sim.vm("half").is_ok());
    drop(target);
    drop(writer);
    no_machine(&sim, "half").await;
    // A transfer that was just broken off holds nothing up: the machine is gone when giving up returns.
    let target = import().await.unwrap();
    let device = target.disks().next().unwrap().clone();
    drop(target.write(&device, &spec).await.unwrap());
    target.abort().await;
    assert!(sim.vm("half").is_err() && sim.leftovers().leases == 0);
    let target = import().await.unwrap();
    let device = target.disks().next().unwrap().clone();
    drop(target.write(&device, &spec).await.unwrap());
    target.leave_empty(&device);
    let machine = target.complete().await.unwrap();
    vim.destroy(&machine).await.unwrap();
    // A writer that is still there has not filled its disk, whatever was said of it.
    let target = import().await.unwrap();
    let device = target.disks().next().unwrap().clone();
    let writer = target.write(&device, &spec).await.unwrap();
    target.leave_empty(&device);
    assert!(matches!(target.complete().await, Err(Error::Unfinished { .. })));
    drop(writer);
    no_machine(&sim, "half").await;
    // A disk that was forgotten; said to be empty it is none.
    let target = import().await.unwrap();
    assert!(matches!(target.complete().await, Err(Error::Unfinished { .. })));
    no_machine(&sim, "half").await;
    let target = import().await.unwrap();
    let device = target.disks().next().unwrap().clone();
    target.leave_empty(&device);
    target.complete().await.unwrap();
    assert!(sim.vm("half").is_ok());
    lab::close(vim, sim).await;
}
