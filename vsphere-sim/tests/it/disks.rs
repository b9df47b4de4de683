//! The simulator's disks through tickets and the 902 server.

use std::sync::Arc;

use bytes::Bytes;
use vsphere_nfc::{
    Ancestors, DiskPart, DiskSpec as NewDisk, Error, FilesOptions, Mode, NfcDisk, NfcFiles, NfcOptions, Pin, SessionId,
    Ticket, TicketError, TicketSource,
};
use vsphere_sim::{DiskSpec, Power, Simulator, VmSpec};
use vsphere_vim_types::internal::{
    NfcFileManagement, NfcGetServerNfcLibVersion, NfcGetVmFiles, NfcRandomAccessOpenDisk, NfcRandomAccessOpenReadonly,
    RetrieveInternalContent,
};
use vsphere_vim_types::methods::PowerOnVM_Task;
use vsphere_vim_types::{HostServiceTicket, ManagedObjectReference};

use crate::client::{Client, root, vm};

const BLOCK: u64 = 65536;
const CAPACITY: u64 = 100 * BLOCK;

async fn simulator() -> Simulator {
    let spec = |name: &str| VmSpec::new(name).change_tracking(true).disk(DiskSpec::empty(CAPACITY));
    Simulator::builder().vm(spec("web").disk(DiskSpec::empty(1 << 20))).vm(spec("db")).start().await.unwrap()
}

async fn service(client: &mut Client) -> ManagedObjectReference {
    let content =
        client.call(&root("ServiceInstance", "ServiceInstance"), &RetrieveInternalContent::default()).await.unwrap();
    content.nfc_service.unwrap().erase()
}

pub(crate) async fn ticket(
    client: &mut Client,
    vm: &ManagedObjectReference,
    key: i32,
    write: bool,
) -> HostServiceTicket {
    let service = service(client).await;
    let host = Some(root("HostSystem", "host-8").cast());
    if write {
        let args = NfcRandomAccessOpenDisk {
            vm: vm.cast(),
            disk_device_key: key,
            host_for_access: host,
            ..Default::default()
        };
        client.call(&service, &args).await.unwrap()
    } else {
        let args = NfcRandomAccessOpenReadonly {
            vm: vm.cast(),
            disk_device_key: key,
            host_for_access: host,
            ..Default::default()
        };
        client.call(&service, &args).await.unwrap()
    }
}

/// A ticket as the client of 902 takes it.
pub(crate) fn taken(ticket: HostServiceTicket) -> Ticket {
    Ticket {
        host: ticket.host.unwrap(),
        port: ticket.port.unwrap().try_into().unwrap(),
        pin: Some(ticket.ssl_thumbprint.unwrap().parse::<Pin>().unwrap()),
        service: ticket.service,
        session_id: SessionId::new(ticket.session_id),
    }
}

/// Opens a disk with one ticket; a second request for one fails.
async fn open(ticket: HostServiceTicket, path: &str, mode: Mode) -> Result<NfcDisk, Error> {
    NfcDisk::open(Arc::new(once(ticket)), path, mode, NfcOptions::default()).await
}

/// A connection for files with one ticket.
async fn files(ticket: HostServiceTicket) -> NfcFiles {
    NfcFiles::connect(&once(ticket), FilesOptions::default()).await.unwrap()
}

/// A source of one ticket.
fn once(ticket: HostServiceTicket) -> impl TicketSource {
    let once = std::sync::Mutex::new(Some(taken(ticket)));
    move || {
        let next = once.lock().unwrap().take().ok_or_else(|| TicketError::new("only one ticket", false));
        async move { next }
    }
}

/// What a fetched disk reads as, and its disk database.
async fn fetch_disk(files: &mut NfcFiles, path: &str) -> (Vec<u8>, Vec<(String, String)>) {
    let mut stream = files.get_disk(path).await.unwrap();
    let (mut bytes, mut database) = (vec![0; stream.capacity() as usize], Vec::new());
    while let Some(part) = stream.next().await.unwrap() {
        match part {
            DiskPart::Metadata(entries) => database.extend(entries),
            DiskPart::Data { offset, bytes: data } => bytes[offset as usize..][..data.len()].copy_from_slice(&data),
            DiskPart::Zeros(_) => {}
        }
    }
    (bytes, database)
}

async fn fetch_file(files: &mut NfcFiles, path: &str) -> Result<Vec<u8>, Error> {
    let mut stream = files.get_file(path).await?;
    let mut content = Vec::new();
    while let Some(bytes) = stream.next().await? {
        content.extend_from_slice(&bytes);
    }
    Ok(content)
}

#[tokio::test]
async fn a_snapshots_disk_is_read_while_the_guest_writes_on() {
    let sim = simulator().await;
    let mut client = Client::login(&sim).await;
    let vm = vm(&sim, "web");
    let disk = sim.guest("web").unwrap().disk(2000).unwrap();
    disk.write_at(5 * BLOCK, &[7; 1024]).unwrap();

    let running = open(ticket(&mut client, &vm, 2000, false).await, "[ds1] web/web.vmdk", Mode::ReadOnly).await;
    assert!(running.is_err(), "the running VM holds its disk locked");

    let snapshot = client.snapshot(&vm, "backup").await;
    disk.write_at(5 * BLOCK, &[8; 1024]).unwrap();
    let path = client.backing(&snapshot, 2000).await.0;
    let remote = open(ticket(&mut client, &vm, 2000, false).await, &path, Mode::ReadOnly).await.unwrap();
    assert_eq!(remote.capacity(), CAPACITY);
    assert_eq!(remote.read_at(5 * BLOCK, 1024).await.unwrap(), [7; 1024][..], "as it was at the snapshot");
    assert_eq!(remote.query_allocated(0..CAPACITY, BLOCK).await.unwrap(), [5 * BLOCK..6 * BLOCK]);
    assert_eq!(remote.metadata("adapterType").await.unwrap().as_deref(), Some("lsilogic"));
    assert_eq!(remote.metadata("nosuch").await.unwrap(), None);
    assert_eq!(disk.counters().nfc_read, 1024);
    assert_eq!(sim.nfc().counters().file("[ds1] web/web.vmdk").read, 1024);

    // The open layer keeps the snapshot from being merged; a host does the same.
    client.remove_snapshot(&snapshot, false).await;
    assert!(client.get::<bool>(&vm, "runtime.consolidationNeeded").await.unwrap());
    assert_eq!(remote.read_at(5 * BLOCK, 1024).await.unwrap(), [7; 1024][..]);
    remote.close().await.unwrap();
    while sim.leftovers().nfc_connections > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    client.done(&vm, &vsphere_vim_types::methods::ConsolidateVMDisks_Task::default()).await;
    client.logout().await;
    assert!(sim.leftovers().is_clean(), "{}", sim.leftovers());
}

#[tokio::test]
async fn a_disk_is_written_when_the_vm_is_off_and_tracking_sees_it() {
    let sim = simulator().await;
    let mut client = Client::login(&sim).await;
    let vm = vm(&sim, "web");
    let before = client.snapshot(&vm, "before").await;
    let base = client.backing(&before, 2000).await.1.unwrap();
    client.remove_snapshot(&before, false).await;
    let path = "[ds1] web/web.vmdk";
    let in_use = open(ticket(&mut client, &vm, 2000, true).await, path, Mode::ReadWrite).await;
    assert!(in_use.is_err(), "the VM runs");
    client.power_off(&vm).await;

    let refused = open(ticket(&mut client, &vm, 2000, false).await, path, Mode::ReadWrite).await;
    assert!(matches!(refused, Err(Error::ReadOnly { .. })), "a ticket for reading: {:?}", refused.err());
    let remote = open(ticket(&mut client, &vm, 2000, true).await, path, Mode::ReadWrite).await.unwrap();
    remote.write_at(20 * BLOCK, Bytes::from(vec![3; 4096])).await.unwrap();
    assert_eq!(client.fails(&vm, &PowerOnVM_Task::default()).await, "FileLocked", "somebody writes to its disk");
    let locked = vsphere_vim_types::methods::CreateSnapshot_Task { name: "s".into(), ..Default::default() };
    assert_eq!(client.fails(&vm, &locked).await, "FileLocked");
    remote.close().await.unwrap();
    while sim.leftovers().nfc_connections > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    client.done(&vm, &PowerOnVM_Task::default()).await;
    let mut back = [0; 4096];
    sim.guest("web").unwrap().disk(2000).unwrap().read_at(20 * BLOCK, &mut back).unwrap();
    assert_eq!(back, [3; 4096]);
    let after = client.snapshot(&vm, "after").await;
    assert_eq!(client.areas(&vm, &after, CAPACITY as i64, &base).await, [(20 * BLOCK as i64, BLOCK as i64)]);
}

#[tokio::test]
async fn a_ticket_opens_its_own_disk_once_and_no_other() {
    let sim = simulator().await;
    sim.vm("web").unwrap().set_power(Power::Off).unwrap();
    let mut client = Client::login(&sim).await;
    let web = vm(&sim, "web");
    let one = ticket(&mut client, &web, 2000, false).await;
    assert_eq!((one.service.as_str(), one.service_version.as_str()), ("vpxa-nfc", "1.1"));
    let first = open(one.clone(), "[] /vmfs/volumes/ds1/web/web.vmdk", Mode::ReadOnly).await.unwrap();
    assert!(open(one, "[ds1] web/web.vmdk", Mode::ReadOnly).await.is_err(), "used");
    first.close().await.unwrap();
    for path in ["[ds1] db/db.vmdk", "[ds1] web/web_1.vmdk", "[ds1] web/nosuch.vmdk", "[ds1] ../etc/passwd"] {
        let opened = open(ticket(&mut client, &web, 2000, false).await, path, Mode::ReadOnly).await;
        assert!(opened.is_err(), "{path}");
    }
    let service = service(&mut client).await;
    let any = client.call(&service, &NfcGetVmFiles { vm: web.cast(), ..Default::default() }).await.unwrap();
    open(any, "[ds1] web/web_1.vmdk", Mode::ReadOnly).await.unwrap().close().await.unwrap();
    assert_eq!(sim.leftovers().tickets, 0);
}

#[tokio::test]
async fn the_service_checks_its_arguments_and_tells_its_version() {
    let sim = simulator().await;
    let mut client = Client::login(&sim).await;
    let service = service(&mut client).await;
    let version =
        NfcGetServerNfcLibVersion { host_for_access: root("HostSystem", "host-8").cast(), ..Default::default() };
    assert_eq!(client.call(&service, &version).await.unwrap(), 11);
    assert_eq!(client.refused(&service, &NfcGetServerNfcLibVersion::default()).await, "InvalidArgument");
    let no_disk =
        NfcRandomAccessOpenReadonly { vm: vm(&sim, "web").cast(), disk_device_key: 2099, ..Default::default() };
    assert_eq!(client.refused(&service, &no_disk).await, "InvalidArgument");
    let no_vm = NfcGetVmFiles { vm: root("VirtualMachine", "vm-9").cast(), ..Default::default() };
    assert_eq!(client.refused(&service, &no_vm).await, "ManagedObjectNotFound");
}

#[tokio::test]
async fn a_bare_host_leaves_its_name_out_of_tickets() {
    let spec = VmSpec::new("esx").disk(DiskSpec::empty(1 << 20));
    let sim = Simulator::builder().personality(vsphere_sim::Personality::Esxi).vm(spec).start().await.unwrap();
    let mut client = Client::login(&sim).await;
    let service = service(&mut client).await;
    assert_eq!(service.value(), "ha-nfc-service");
    let args = NfcRandomAccessOpenReadonly { vm: vm(&sim, "esx").cast(), disk_device_key: 2000, ..Default::default() };
    let ticket = client.call(&service, &args).await.unwrap();
    assert_eq!((ticket.host, ticket.service.as_str()), (None, "nfc"));
}

#[tokio::test]
async fn a_ticket_for_the_datastore_stores_and_fetches_files_and_disks() {
    let sim = simulator().await;
    let mut client = Client::login(&sim).await;
    let service = service(&mut client).await;
    let ds = root("Datastore", "datastore-10").cast();
    let args = NfcFileManagement { ds, ..Default::default() };
    let mut nfc = files(client.call(&service, &args).await.unwrap()).await;
    nfc.make_directory("[ds1] restored/web", Ancestors::Make).await.unwrap();
    let mut file = nfc.put_file("[ds1] restored/web/notes.txt", 300_000).await.unwrap();
    file.write(Bytes::from(vec![b'x'; 300_000])).await.unwrap();
    file.finish().await.unwrap();
    assert_eq!(fetch_file(&mut nfc, "[] /vmfs/volumes/ds1/restored/web/notes.txt").await.unwrap(), [b'x'; 300_000]);

    let path = "[ds1] restored/web/web.vmdk";
    let spec = NewDisk::new(CAPACITY).adapter("ide").metadata("comment", "from afar");
    for byte in [5, 6] {
        // The second time over what is there.
        let mut disk = nfc.put_disk(path, &spec).await.unwrap();
        disk.zeros(3 * BLOCK).await.unwrap();
        disk.data(Bytes::from(vec![byte; 4096])).await.unwrap();
        disk.finish().await.unwrap();
        let (content, database) = fetch_disk(&mut nfc, path).await;
        let mut expected = vec![0; CAPACITY as usize];
        expected[3 * BLOCK as usize..][..4096].fill(byte);
        assert!(content == expected);
        for entry in [("adapterType", "ide"), ("comment", "from afar")] {
            assert!(database.iter().any(|(key, value)| (key.as_str(), value.as_str()) == entry), "{database:?}");
        }
    }
    nfc.delete("[ds1] restored/web/notes.txt").await.unwrap();
    nfc.close().await.unwrap();

    for (path, word) in [
        ("[ds1] restored/web/notes.txt", "not found"),
        ("[ds1] web/web-flat.vmdk", "part of a disk"),
        ("[ds1] ../etc/passwd", "path"),
        ("[ds2] web/web.vmdk", "datastore"),
    ] {
        let mut nfc = files(client.call(&service, &args).await.unwrap()).await;
        let error = fetch_file(&mut nfc, path).await.unwrap_err();
        assert!(error.to_string().contains(word), "{path}: {error}");
    }
    // A virtual machine's own disk is in use.
    let mut nfc = files(client.call(&service, &args).await.unwrap()).await;
    let error = nfc.delete("[ds1] web/web.vmdk").await.unwrap_err();
    assert!(matches!(error, Error::Server { .. }), "{error}");
    let other = NfcFileManagement { ds: root("Datastore", "datastore-99").cast(), ..Default::default() };
    assert_eq!(client.refused(&service, &other).await, "ManagedObjectNotFound");
}

#[tokio::test]
async fn a_ticket_for_a_machine_fetches_its_files_and_changes_none() {
    let sim = simulator().await;
    sim.vm("web").unwrap().set_power(Power::Off).unwrap();
    sim.guest("web").unwrap().disk(2000).unwrap().write_at(5 * BLOCK, &[7; 1024]).unwrap();
    let mut client = Client::login(&sim).await;
    let (service, web) = (service(&mut client).await, vm(&sim, "web"));
    let args = NfcGetVmFiles { vm: web.cast(), ..Default::default() };
    let mut nfc = files(client.call(&service, &args).await.unwrap()).await;
    let vmx = fetch_file(&mut nfc, "[ds1] web/web.vmx").await.unwrap();
    assert!(String::from_utf8(vmx).unwrap().contains("displayName = \"web\""));
    let (content, database) = fetch_disk(&mut nfc, "[ds1] web/web.vmdk").await;
    assert_eq!(content.iter().map(|byte| usize::from(*byte == 7)).sum::<usize>(), 1024);
    assert!(content[5 * BLOCK as usize..][..1024].iter().all(|byte| *byte == 7));
    assert!(database.iter().any(|(key, _)| key == "adapterType"), "{database:?}");
    nfc.close().await.unwrap();

    let mut nfc = files(client.call(&service, &args).await.unwrap()).await;
    assert!(fetch_file(&mut nfc, "[ds1] db/db.vmx").await.is_err());
    let mut nfc = files(client.call(&service, &args).await.unwrap()).await;
    let error = nfc.make_directory("[ds1] web/more", Ancestors::Expect).await.unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
    let one = ticket(&mut client, &web, 2000, true).await;
    assert!(fetch_file(&mut files(one).await, "[ds1] web/web.vmx").await.is_err());
}
