//! Rows 22 and 23: connections that end while a disk is open.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use vsphere_nfc::{BoxFuture, Error, Mode, NfcDisk, NfcOptions, Retry, Ticket, TicketError, TicketSource};
use vsphere_sim::nfc::{FaultAction, NfcServerConfig, Step};

use super::disk::{CHUNK, MIB, MemoryDisk, pattern};
use super::host::{Host, PATH, patient};

fn quick() -> NfcOptions {
    patient().retry(Retry { attempts: 3, pause: Duration::from_millis(20), ..Retry::default() })
}

/// Tickets of one host after the other's, and their number.
struct Moving {
    hosts: Vec<Arc<dyn TicketSource>>,
    /// Tickets of the first host.
    stays: u32,
    issued: AtomicU32,
}

impl Moving {
    fn between(hosts: &[&Host], stays: u32) -> Arc<Self> {
        let hosts = hosts.iter().map(|host| host.tickets()).collect();
        Arc::new(Self { hosts, stays, issued: AtomicU32::new(0) })
    }

    fn issued(&self) -> u32 {
        self.issued.load(Ordering::SeqCst)
    }
}

impl TicketSource for Moving {
    fn ticket(&self) -> BoxFuture<'_, Result<Ticket, TicketError>> {
        let has_moved = self.issued.fetch_add(1, Ordering::SeqCst) >= self.stays;
        let host = if has_moved { self.hosts.last() } else { self.hosts.first() };
        host.unwrap().ticket()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_goes_on_at_the_missing_part_on_the_host_that_the_new_ticket_names() {
    let first = Host::reading(MemoryDisk::filled(MIB, MIB)).await;
    let second = Host::reading(MemoryDisk::filled(MIB, MIB)).await;
    let tickets = Moving::between(&[&first, &second], 1);
    // One buffer: a part is here before the next is asked for.
    let options = quick().buffers(64 * 1024, 1);
    let disk = NfcDisk::open(Arc::clone(&tickets) as _, PATH, Mode::ReadOnly, options).await.unwrap();
    let endpoint = disk.session_info().endpoint;
    first.server.inject_after(Step::Read, 5, FaultAction::Close);
    assert!(disk.read_at(0, MIB as usize).await.unwrap() == pattern(0, MIB));
    assert_ne!(disk.session_info().endpoint, endpoint);
    assert_eq!(first.server.counters().file(PATH).read, 5 * CHUNK);
    assert_eq!(second.server.counters().file(PATH).read, 11 * CHUNK, "bytes were read twice");
    assert_eq!(tickets.issued(), 2);
    disk.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_survives_as_many_losses_as_it_makes_progress_and_no_more() {
    let host = Host::reading(MemoryDisk::filled(MIB, MIB)).await;
    let options = quick().buffers(64 * 1024, 1);
    let disk = host.open(Mode::ReadOnly, options.clone()).await.unwrap();
    // Every second read ends the connection: more often than there are tries in a row.
    (0..8).for_each(|_| host.server.inject_after(Step::Read, 1, FaultAction::Close));
    assert!(disk.read_at(0, MIB as usize).await.unwrap() == pattern(0, MIB));
    assert_eq!(host.server.counters().file(PATH).read, MIB);

    (0..4).for_each(|_| host.server.inject(Step::Read, FaultAction::Close));
    let error = disk.read_at(0, 512).await.unwrap_err();
    assert!(matches!(error, Error::Disconnected { .. }), "{error}");
    assert!(disk.read_at(0, 512).await.unwrap() == pattern(0, 512), "the handle is lost for ever");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn allocation_and_metadata_go_on_after_a_loss() {
    let host = Host::reading(MemoryDisk::filled(MIB, MIB)).await;
    let mut options = quick();
    options.allocation_page = 4;
    let disk = host.open(Mode::ReadOnly, options).await.unwrap();
    host.server.inject_after(Step::QueryAllocated, 1, FaultAction::Close);
    assert_eq!(disk.query_allocated(0..MIB, CHUNK).await.unwrap(), vec![0..MIB; 1]);
    host.server.inject(Step::DdbGet, FaultAction::Close);
    assert_eq!(disk.metadata("adapterType").await.unwrap().as_deref(), Some("lsilogic"));
    assert_eq!(host.server.counters().connections_total(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_that_is_gone_is_tried_a_few_times_by_one_caller_for_all() {
    let host = Host::reading(MemoryDisk::filled(MIB, MIB)).await;
    let tickets = Moving::between(&[&host], 1);
    let disk = NfcDisk::open(Arc::clone(&tickets) as _, PATH, Mode::ReadOnly, quick()).await.unwrap();
    let disk = Arc::new(disk);
    host.server.shutdown().await;
    let mut readers = tokio::task::JoinSet::new();
    for at in 0..20 {
        let disk = Arc::clone(&disk);
        readers.spawn(async move { disk.read_at(at * 512, 512).await });
    }
    while let Some(read) = readers.join_next().await {
        let error = read.unwrap().unwrap_err();
        assert!(matches!(error, Error::Connect { .. } | Error::Disconnected { .. }), "{error}");
        assert!(error.is_retryable());
    }
    // The first one, and a try at once with three more; twice where a caller came late.
    assert!(tickets.issued() <= 1 + 2 * 4, "{} tickets", tickets.issued());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_that_changed_its_size_is_not_read_on() {
    let small = Host::reading(MemoryDisk::filled(MIB, MIB)).await;
    let large = Host::reading(MemoryDisk::filled(2 * MIB, MIB)).await;
    let tickets = Moving::between(&[&small, &large], 1);
    let disk = NfcDisk::open(tickets, PATH, Mode::ReadOnly, quick()).await.unwrap();
    small.server.disconnect_all();
    small.assert_no_connections().await;
    let error = disk.read_at(0, 512).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writing_goes_on_only_after_an_explicit_reopen() {
    let host = Host::writing(MemoryDisk::new(MIB)).await;
    let disk = host.open(Mode::ReadWrite, quick()).await.unwrap();
    disk.write_at(0, Bytes::from(pattern(0, CHUNK))).await.unwrap();
    host.server.inject(Step::Write, FaultAction::Close);
    let error = disk.write_at(CHUNK, Bytes::from(pattern(CHUNK, CHUNK))).await.unwrap_err();
    let Error::WriteInDoubt { range, .. } = &error else { panic!("{error}") };
    assert_eq!(*range, CHUNK..2 * CHUNK);
    for _ in 0..2 {
        let error = disk.write_at(CHUNK, Bytes::from(vec![0; 512])).await.unwrap_err();
        assert!(matches!(error, Error::Disconnected { phase: vsphere_nfc::Phase::Write, .. }), "{error}");
        assert!(disk.read_at(0, 512).await.is_err());
    }
    assert_eq!(host.server.counters().connections_total(), 1);
    disk.reopen().await.unwrap();
    disk.write_at(CHUNK, Bytes::from(pattern(CHUNK, CHUNK))).await.unwrap();
    assert!(disk.read_at(0, 2 * CHUNK as usize).await.unwrap() == pattern(0, 2 * CHUNK));
    // One that works is closed first: no two handles write to one disk.
    disk.reopen().await.unwrap();
    assert_eq!(host.server.counters().connections_total(), 3);
    disk.close().await.unwrap();
    host.assert_no_connections().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_session_is_kept_alive_or_made_anew() {
    let mut config = NfcServerConfig::default();
    config.idle_limit = Some(Duration::from_millis(400));
    let host = Host::start(MemoryDisk::filled(MIB, MIB), false, config).await;
    let kept = host.open(Mode::ReadOnly, quick().keep_alive(Duration::from_millis(100))).await.unwrap();
    let dropped = host.open(Mode::ReadOnly, quick()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert_eq!(host.server.counters().connections_open(), 1);
    assert!(host.server.counters().file(PATH).read >= 5 * 512, "nothing was read in between");
    for (disk, connections) in [(&kept, 2), (&dropped, 3)] {
        assert!(disk.read_at(4096, 4096).await.unwrap() == pattern(4096, 4096));
        assert_eq!(host.server.counters().connections_total(), connections);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keep_alive_waits_for_writes_and_ends_with_the_disk() {
    let mut config = NfcServerConfig::default();
    config.idle_limit = Some(Duration::from_millis(400));
    let host = Host::start(MemoryDisk::new(MIB), true, config).await;
    let disk = host.open(Mode::ReadWrite, quick().keep_alive(Duration::from_millis(100))).await.unwrap();
    for round in 0..3u8 {
        disk.write_at(0, Bytes::from(vec![round; 512])).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(disk.read_at(0, 512).await.unwrap() == vec![round; 512]);
    }
    assert_eq!(host.server.counters().connections_total(), 1);
    drop(disk);
    host.assert_no_connections().await;
    // An empty disk has no sector to read.
    let host = Host::reading(MemoryDisk::new(0)).await;
    let disk = host.open(Mode::ReadOnly, quick().keep_alive(Duration::from_millis(20))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    disk.close().await.unwrap();
}
