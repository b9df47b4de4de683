//! Datastore files and imports.
//!
//! vcsim keeps uploaded datastore files, asks for no login at `/folder`, throws the bytes of leased disks away and has
//! no exports.

use vsphere_vim::{
    Error, MoRef, Poly, PropertyPath, Vim,
    datastore::{Existing, Search},
    error::TransportErrorKind,
    lease::{ImportRequest, LeaseOptions},
    mo,
    transport::stream::Upload,
    types::{
        VirtualDeviceConfigSpec, VirtualDeviceConfigSpecFileOperation, VirtualDeviceConfigSpecOperation,
        VirtualDeviceFileBackingInfo, VirtualDisk, VirtualDiskFlatVer2BackingInfo, VirtualMachineConfigSpec,
        VirtualMachineFileInfo,
    },
};

use super::Vcsim;

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

#[tokio::test]
async fn datastore_files_go_up_and_down_whole_and_in_part() {
    for options in [&["-folder", "1"][..], &["-esx"]] {
        let Some(vcsim) = Vcsim::start(options) else { return };
        let vim = vcsim.connect().await;
        let store = vim.find_datastore("LocalDS_0", None).await.unwrap();
        if vim.is_vcenter() {
            assert!(store.datacenter_path().ends_with("/DC0"), "{}", store.datacenter_path());
        } else {
            assert_eq!(store.datacenter_path(), "ha-datacenter");
        }
        let folder = store.path("backup/a b").unwrap();
        store.make_folder(&folder, true).await.unwrap();
        let again = store.make_folder(&folder, false).await.unwrap_err();
        assert!(again.is_fault("FileAlreadyExists"), "{again}");
        let (file, bytes) = (folder.join("x+y.bin").unwrap(), content(1_000_003));
        store.write(&file, Upload::from_bytes(bytes.clone())).await.unwrap();
        assert_eq!(store.stat(&file).await.unwrap().unwrap().size, Some(1_000_003));
        assert!(store.read(&file).open().await.unwrap().collect(2_000_000).await.unwrap() == bytes);
        let part = store.read(&file).range(999_000..u64::MAX).open().await.unwrap();
        assert_eq!(part.len(), Some(1003));
        assert!(part.collect(2000).await.unwrap() == bytes[999_000..]);
        let unknown = Upload::from_reader(None, std::io::Cursor::new(bytes.clone()));
        store.write(&folder.join("chunked").unwrap(), unknown).await.unwrap();
        assert_eq!(store.stat(&folder.join("chunked").unwrap()).await.unwrap().unwrap().size, Some(1_000_003));

        let (copy, moved) = (folder.join("copy").unwrap(), folder.join("moved").unwrap());
        store.copy(&file, (&store, &copy), Existing::Keep).await.unwrap();
        let again = store.copy(&file, (&store, &copy), Existing::Keep).await.unwrap_err();
        assert!(again.is_fault("FileAlreadyExists"), "{again}");
        store.rename(&copy, (&store, &moved), Existing::Keep).await.unwrap();
        let listed = store.search(&folder, &Search::new().matching("*")).await.unwrap();
        let mut names: Vec<_> = listed.iter().map(|file| (file.path.file_name().to_owned(), file.size)).collect();
        names.sort();
        assert_eq!(names, ["chunked", "moved", "x+y.bin"].map(|name| (name.to_owned(), Some(1_000_003))));
        assert!(listed.iter().all(|file| file.modified.is_some()));
        let everything = store.search(&store.path("").unwrap(), &Search::new().recursive()).await.unwrap();
        assert!(everything.iter().any(|found| found.path == moved), "{everything:?}");
        store.delete(&moved).await.unwrap();
        assert!(matches!(store.read(&moved).open().await.unwrap_err(), Error::NotFound { .. }));
        assert!(store.delete(&moved).await.unwrap_err().is_fault("FileNotFound"));
        assert!(store.list(&store.path("nowhere").unwrap()).await.unwrap_err().is_fault("FileNotFound"));
        vim.logout().await.unwrap();
    }
}

#[tokio::test]
async fn a_search_finds_the_machines_disks() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    let vim = vcsim.connect().await;
    let store = vim.find_datastore("LocalDS_0", None).await.unwrap();
    let disks = store.search(&store.path("DC0_H0_VM0").unwrap(), &Search::new().disks()).await.unwrap();
    let names: Vec<_> = disks.iter().map(|disk| disk.path.to_string()).collect();
    assert_eq!(names, ["[LocalDS_0] DC0_H0_VM0/disk1.vmdk"]);
    vim.logout().await.unwrap();
}

/// A machine with one disk on the first IDE controller, which vcsim gives every machine.
fn machine_with_a_disk(name: &str) -> VirtualMachineConfigSpec {
    let base = VirtualDeviceFileBackingInfo { file_name: "[LocalDS_0]".into(), ..Default::default() };
    let backing = VirtualDiskFlatVer2BackingInfo {
        disk_mode: "persistent".into(),
        thin_provisioned: Some(true),
        base,
        ..Default::default()
    };
    let mut disk = VirtualDisk { capacity_in_kb: 1024, ..Default::default() };
    disk.key = -1;
    disk.controller_key = Some(200);
    disk.unit_number = Some(0);
    disk.backing = Some(Poly::new(backing));
    VirtualMachineConfigSpec {
        name: Some(name.into()),
        guest_id: Some("otherGuest".into()),
        num_cpus: Some(1),
        memory_mb: Some(64),
        files: Some(VirtualMachineFileInfo { vm_path_name: Some("[LocalDS_0]".into()), ..Default::default() }),
        device_change: vec![Poly::new(VirtualDeviceConfigSpec {
            operation: Some(VirtualDeviceConfigSpecOperation::Add),
            file_operation: Some(VirtualDeviceConfigSpecFileOperation::Create),
            device: Poly::new(disk),
            ..Default::default()
        })],
        ..Default::default()
    }
}

async fn first<T: vsphere_vim::types::Managed>(vim: &Vim) -> MoRef<T> {
    let names = (PropertyPath::<T, String>::new("name"),);
    let rows = vim.properties::<T>().under(vim.root()).by_view().select(names).collect().await.unwrap();
    rows.first().unwrap().object.clone()
}

#[tokio::test]
async fn a_machine_is_imported_over_a_lease() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    let vim = vcsim.connect().await;
    let datacenter: MoRef<mo::Datacenter> = first(&vim).await;
    let folder: MoRef<mo::Folder> = vim.get(&datacenter, PropertyPath::new("vmFolder")).await.unwrap();
    let pool: MoRef<mo::ResourcePool> = first(&vim).await;
    let request = ImportRequest::machine(machine_with_a_disk("restored"), pool).folder(folder);
    let lease = vim.import(request.clone(), LeaseOptions::default()).await.unwrap();
    assert_eq!(lease.devices().len(), 1);
    let device = lease.devices()[0].clone();
    assert!(device.is_disk && device.host().is_none(), "{device:?}");
    lease.upload(&device, Upload::from_bytes(content(3_000_000))).await.unwrap();
    let slow = Upload::from_reader(None, std::io::Cursor::new(content(100_000)));
    lease.upload(&device, slow).await.unwrap();
    let machine = lease.complete().await.unwrap();
    let name: String = vim.get(&machine, mo::VirtualMachine::NAME).await.unwrap();
    assert_eq!(name, "restored");
    // vcsim takes the same name again; it knows no total and no end of an aborted import but the lease's own.
    let again = vim.import(request, LeaseOptions::default()).await.unwrap();
    let device = again.devices()[0].clone();
    again.abort().await;
    let other =
        vim.import(ImportRequest::machine(machine_with_a_disk("third"), first(&vim).await), LeaseOptions::default());
    let other = other.await.unwrap();
    let late = other.upload(&device, Upload::from_bytes("late")).await.unwrap_err();
    assert_eq!(late.transport_kind(), Some(TransportErrorKind::HttpStatus(404)));
    other.abort().await;
    // It has no exports; that is told as what it is.
    let export = vim.export_vm(&machine, LeaseOptions::default()).await.unwrap_err();
    assert!(export.fault_name().is_some(), "{export}");
    vim.logout().await.unwrap();
}
