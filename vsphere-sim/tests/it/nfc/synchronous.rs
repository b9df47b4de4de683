//! Disks of hosts without the asynchronous layer: the same handle, one request after the other.

use std::sync::Arc;
use std::time::Duration;

use vsphere_nfc::{
    BoxFuture, Error, Ladder, Mode, NfcDisk, NfcOptions, Phase, Rung, ServerVersion, Ticket, TicketError, TicketSource,
    Timeouts,
};
use vsphere_sim::nfc::{FaultAction, HostVersion, NfcServerConfig, Step};

use super::disk::{MIB, MemoryDisk, pattern};
use super::host::{Host, PATH, patient};

const CAPACITY: u64 = 5 * MIB;
/// What has data; the rest are zeros.
const FILLED: u64 = 3 * MIB;

const OLD: [HostVersion; 3] = [HostVersion::Apache2015, HostVersion::Esxi60, HostVersion::Esxi65];

async fn host(version: HostVersion) -> Host {
    Host::start(MemoryDisk::filled(CAPACITY, FILLED), true, NfcServerConfig::of(version)).await
}

/// Options of a caller who knows how large the disk is.
fn knowing() -> NfcOptions {
    patient().capacity_hint(CAPACITY)
}

async fn open(host: &Host, options: &NfcOptions) -> NfcDisk {
    host.open(Mode::ReadOnly, options.clone()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_hosts_give_the_same_bytes_as_new_ones() {
    let new = host(HostVersion::Esxi80).await;
    let disk = open(&new, &knowing()).await;
    let expected = disk.read_at(0, CAPACITY as usize).await.unwrap();
    disk.close().await.unwrap();
    for version in OLD {
        let old = host(version).await;
        let disk = open(&old, &knowing()).await;
        assert_eq!(disk.session_info().rung, Rung::Synchronous, "{version:?}");
        assert_eq!((disk.capacity(), disk.sector_size()), (CAPACITY, 512));
        assert!(disk.read_at(0, CAPACITY as usize).await.unwrap() == expected, "{version:?}");
        let odd = |at: u64| disk.read_at(at * 512, (at * 1536) as usize);
        let together = tokio::join!(odd(1), odd(700), odd(3), odd(0));
        assert!(together.0.unwrap() == pattern(512, 1536) && together.2.unwrap() == pattern(1536, 4608));
        assert!(together.1.unwrap() == pattern(700 * 512, 700 * 1536) && together.3.unwrap().is_empty());
        disk.close().await.unwrap();
        old.assert_no_connections().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_worked_is_remembered_and_what_is_known_before_is_not_tried() {
    let host = host(HostVersion::Esxi65).await;
    let options = knowing();
    for connections in [2, 3] {
        open(&host, &options).await.close().await.unwrap();
        assert_eq!(host.server.counters().connections_total(), connections);
    }
    // Writing asks for the asynchronous layer all the same, and for no disk that it cannot write.
    let error = host.open(Mode::ReadWrite, options).await.unwrap_err();
    assert!(matches!(error, Error::StartRefused { .. }), "{error}");

    struct Sized(Arc<dyn TicketSource>);
    impl TicketSource for Sized {
        fn ticket(&self) -> BoxFuture<'_, Result<Ticket, TicketError>> {
            self.0.ticket()
        }
        fn capacity(&self) -> Option<u64> {
            Some(CAPACITY)
        }
        fn server_version(&self) -> BoxFuture<'_, ServerVersion> {
            Box::pin(std::future::ready(ServerVersion::Missing))
        }
    }
    let before = host.server.counters().connections_total();
    let source = Arc::new(Sized(host.tickets()));
    let disk = NfcDisk::open(source, PATH, Mode::ReadOnly, patient().capacity_hint(7)).await.unwrap();
    assert_eq!((disk.capacity(), disk.session_info().rung), (CAPACITY, Rung::Synchronous));
    assert_eq!(host.server.counters().connections_total(), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layer_can_be_chosen_on_any_host_for_reading() {
    let host = host(HostVersion::Esxi80).await;
    let only = knowing().ladder(Ladder::Only(Rung::Synchronous));
    let disk = open(&host, &only).await;
    assert_eq!(disk.session_info().rung, Rung::Synchronous);
    assert!(disk.read_at(0, FILLED as usize).await.unwrap() == pattern(0, FILLED));
    disk.close().await.unwrap();
    let unknown = patient().ladder(Ladder::Only(Rung::Synchronous));
    for (mode, options) in [(Mode::ReadWrite, only), (Mode::ReadOnly, unknown)] {
        let error = host.open(mode, options).await.unwrap_err();
        assert!(matches!(error, Error::StartRefused { .. }), "{error}");
    }
    assert_eq!(host.server.counters().connections_total(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_layer_does_not_have_is_said_and_costs_nothing() {
    let host = host(HostVersion::Esxi60).await;
    let disk = open(&host, &knowing()).await;
    let connections = host.server.counters().connections_total();
    let error = disk.query_allocated(0..CAPACITY, 65536).await.unwrap_err();
    assert!(matches!(error, Error::NotOffered { phase: Phase::QueryAllocated, .. }), "{error}");
    let error = disk.metadata("uuid").await.unwrap_err();
    assert!(matches!(error, Error::NotOffered { phase: Phase::Metadata, .. }), "{error}");
    assert!(!error.is_retryable() && error.hint().is_some());
    assert!(disk.read_at(0, 512).await.unwrap() == pattern(0, 512));
    assert_eq!(host.server.counters().connections_total(), connections);
    disk.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_connection_is_made_anew_and_only_what_is_missing_is_read_again() {
    let host = host(HostVersion::Esxi60).await;
    let disk = open(&host, &knowing()).await;
    assert!(disk.read_at(0, 4096).await.unwrap() == pattern(0, 4096));
    host.server.inject(Step::Read, FaultAction::Close);
    assert!(disk.read_at(0, FILLED as usize).await.unwrap() == pattern(0, FILLED));
    // Errors of the host are told, and the next call connects.
    host.server.inject(Step::Read, FaultAction::Error { code: 77, text: "a bad block".into() });
    let error = disk.read_at(0, 4096).await.unwrap_err();
    assert!(matches!(error, Error::Server { phase: Phase::Read, .. }), "{error}");
    assert_eq!(error.fault().unwrap().text, "a bad block");
    assert!(disk.read_at(512, 4096).await.unwrap() == pattern(512, 4096));
    disk.close().await.unwrap();
    let missing = NfcDisk::open(host.tickets(), "[ds1] none.vmdk", Mode::ReadOnly, knowing()).await.unwrap_err();
    assert!(matches!(missing, Error::OpenRefused { .. }), "{missing}");
    host.assert_no_connections().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_nobody_waits_for_leave_the_connection_in_step() {
    let host = host(HostVersion::Esxi60).await;
    let disk = open(&host, &knowing()).await;
    let connections = host.server.counters().connections_total();
    for at in 0..20u64 {
        let cut = tokio::time::timeout(Duration::from_micros(at * 150), disk.read_at(at * MIB / 8, MIB as usize)).await;
        if let Ok(read) = cut {
            assert!(read.unwrap() == disk.read_at(at * MIB / 8, MIB as usize).await.unwrap());
        }
        assert!(disk.read_at(at * 512, 512).await.unwrap() == pattern(at * 512, 512));
    }
    assert_eq!(host.server.counters().connections_total(), connections);
    drop(disk);
    host.assert_no_connections().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_host_ends_in_a_time_out_that_names_the_phase() {
    let host = host(HostVersion::Esxi60).await;
    let mut timeouts = Timeouts::all(Duration::from_secs(20));
    (timeouts.read, timeouts.session) = (Duration::from_millis(150), Duration::from_millis(150));
    let options = knowing().timeouts(timeouts).ladder(Ladder::Only(Rung::Synchronous));
    let disk = open(&host, &options).await;
    host.server.inject(Step::Read, FaultAction::Stall);
    let error = disk.read_at(0, 512).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { phase: Phase::Read, .. }), "{error}");
    assert!(disk.read_at(0, 512).await.unwrap() == pattern(0, 512));
    host.server.inject(Step::OpenFile, FaultAction::Stall);
    let error = host.open(Mode::ReadOnly, options).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { phase: Phase::OpenFile, .. }), "{error}");
    drop(disk);
    host.assert_no_connections().await;
}
