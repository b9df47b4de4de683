//! The simulator's disks through tickets and the 902 server.

use std::sync::Arc;

use bytes::Bytes;
use vsphere_nfc::{Error, Mode, NfcDisk, NfcOptions, Pin, SessionId, Ticket, TicketError};
use vsphere_sim::{DiskSpec, Power, Simulator, VmSpec};
use vsphere_vim_types::internal::{
    NfcGetServerNfcLibVersion, NfcGetVmFiles, NfcRandomAccessOpenDisk, NfcRandomAccessOpenReadonly,
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

async fn ticket(client: &mut Client, vm: &ManagedObjectReference, key: i32, write: bool) -> HostServiceTicket {
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

/// Opens a disk with one ticket; a second request for one fails.
async fn open(ticket: HostServiceTicket, path: &str, mode: Mode) -> Result<NfcDisk, Error> {
    let ticket = Ticket {
        host: ticket.host.unwrap(),
        port: ticket.port.unwrap().try_into().unwrap(),
        pin: Some(ticket.ssl_thumbprint.unwrap().parse::<Pin>().unwrap()),
        service: ticket.service,
        session_id: SessionId::new(ticket.session_id),
    };
    let once = std::sync::Mutex::new(Some(ticket));
    let source = move || {
        let next = once.lock().unwrap().take().ok_or_else(|| TicketError::new("only one ticket", false));
        async move { next }
    };
    NfcDisk::open(Arc::new(source), path, mode, NfcOptions::default()).await
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
