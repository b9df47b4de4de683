//! Row 9: how a session starts with hosts of every release.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vsphere_nfc::{
    BoxFuture, Error, Ladder, Mode, NfcDisk, NfcOptions, Rung, ServerVersion, Ticket, TicketError, TicketSource,
};
use vsphere_sim::nfc::{FaultAction, HostVersion, NfcServerConfig, Step};

use super::disk::{MIB, MemoryDisk, pattern};
use super::host::{Host, PATH, patient};

async fn host(config: NfcServerConfig) -> Host {
    Host::start(MemoryDisk::filled(MIB, MIB), false, config).await
}

async fn reads(host: &Host, options: &NfcOptions) -> Rung {
    let disk = host.open(Mode::ReadOnly, options.clone()).await.unwrap();
    assert!(disk.read_at(4096, 4096).await.unwrap() == pattern(4096, 4096));
    let rung = disk.session_info().rung;
    disk.close().await.unwrap();
    rung
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_release_is_met_on_the_first_rung_that_it_understands() {
    for version in [HostVersion::Esxi67, HostVersion::Esxi70, HostVersion::Esxi80, HostVersion::Esxi90] {
        let host = host(NfcServerConfig::of(version)).await;
        assert_eq!(reads(&host, &patient()).await, Rung::Full, "{version:?}");
        assert_eq!(host.server.counters().connections_total(), 1, "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn release_without_the_asynchronous_layer_is_refused_with_a_hint_where_nobody_knows_the_size_of_the_disk() {
    for version in [HostVersion::Apache2015, HostVersion::Esxi60, HostVersion::Esxi65] {
        let host = host(NfcServerConfig::of(version)).await;
        let error = host.open(Mode::ReadOnly, patient()).await.unwrap_err();
        assert!(matches!(error, Error::StartRefused { .. }), "{version:?}: {error}");
        assert!(error.hint().unwrap().contains("synchronous"));
        assert_eq!(host.server.counters().connections_total(), 1, "{version:?}");
        assert_eq!(host.backend.issued.load(Ordering::SeqCst), 1, "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_that_refuses_a_message_is_asked_without_it_and_remembered() {
    // One that takes THUMBPRINT_SHA2 and does not know message 43.
    let without_43 = host(NfcServerConfig::default()).await;
    without_43.server.inject(Step::SessionStart, FaultAction::Complete);
    let options = patient();
    assert_eq!(reads(&without_43, &options).await, Rung::WithoutClientRandom);
    assert_eq!(without_43.server.counters().connections_total(), 2);
    assert_eq!(reads(&without_43, &options).await, Rung::WithoutClientRandom);
    assert_eq!(without_43.server.counters().connections_total(), 3, "nothing was remembered");
    // Others know nothing of it.
    assert_eq!(reads(&without_43, &patient()).await, Rung::Full);

    let mut config = NfcServerConfig::of(HostVersion::Esxi70);
    let mut gates = config.version.gates();
    gates.features = false;
    config.gates = Some(gates);
    let without_55 = host(config).await;
    assert_eq!(reads(&without_55, &patient()).await, Rung::WithoutConnectionData);
    assert_eq!(without_55.server.counters().connections_total(), 2);
    let error = without_55.open(Mode::ReadOnly, patient().ladder(Ladder::Only(Rung::Full))).await.unwrap_err();
    assert!(matches!(error, Error::StartRefused { .. }), "{error}");
    let forced = patient().ladder(Ladder::From(Rung::WithoutConnectionData));
    assert_eq!(reads(&without_55, &forced).await, Rung::WithoutConnectionData);
    assert_eq!(without_55.server.counters().connections_total(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn start_that_fails_on_every_rung_ends_with_the_first_words_of_the_host() {
    let host = host(NfcServerConfig::default()).await;
    let busy = |text: &str| FaultAction::Error { code: 77, text: text.into() };
    for text in ["first", "second", "third"] {
        host.server.inject(Step::AioOpen, busy(text));
    }
    let error = host.open(Mode::ReadOnly, patient()).await.unwrap_err();
    let Error::Server { fault, .. } = &error else { panic!("{error}") };
    assert_eq!(fault.text, "first");
    assert_eq!(host.server.counters().connections_total(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_of_the_server_decide_what_it_is_told() {
    for version in [0, 2, 7, 11, 12, u32::MAX] {
        let mut config = NfcServerConfig::default();
        let mut gates = config.version.gates();
        gates.library_version = Some(version);
        // A message that is not understood would cost a connection.
        (gates.connection_data, gates.features) = (version >= 3, version >= 3);
        config.gates = Some(gates);
        let host = host(config).await;
        let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
        assert_eq!(disk.session_info().server_version, version);
        assert_eq!(host.server.counters().connections_total(), 1, "version {version}");
        disk.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_about_ticket_certificate_and_disk_do_not_lead_down() {
    let host = host(NfcServerConfig::default()).await;
    let missing = NfcDisk::open(host.tickets(), "[ds1] none.vmdk", Mode::ReadOnly, patient()).await.unwrap_err();
    assert!(matches!(missing, Error::OpenRefused { .. }), "{missing}");
    assert_eq!(host.server.counters().connections_total(), 1);
    host.server.inject(Step::Proxy, FaultAction::Error { code: 501, text: "Invalid arguments".into() });
    let refused = host.open(Mode::ReadOnly, patient()).await.unwrap_err();
    assert!(matches!(refused, Error::AuthdRefused { .. }), "{refused}");
    assert_eq!(host.server.counters().connections_total(), 2);
    // A ticket that the host does not know (yet) is worth another one, once.
    host.server.inject(Step::Proxy, FaultAction::Error { code: 530, text: "Login incorrect".into() });
    assert_eq!(reads(&host, &patient()).await, Rung::Full);
    assert_eq!(host.server.counters().connections_total(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ping_and_rate_control_are_passed_over_a_few_times() {
    let mut config = NfcServerConfig::default();
    config.interjections = vec![8, 6, 8];
    let host = host(config).await;
    assert_eq!(reads(&host, &patient()).await, Rung::Full);
    host.server.configure(|config| config.interjections = vec![8; 6]);
    let only = patient().ladder(Ladder::Only(Rung::Full));
    let error = host.open(Mode::ReadOnly, only.clone()).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
    let mut more = only;
    more.quirks.max_noise = 18;
    assert_eq!(reads(&host, &more).await, Rung::Full);
}

/// Tickets of a host, and what is known of its version.
struct Versioned {
    tickets: Arc<dyn TicketSource>,
    version: ServerVersion,
    asked: AtomicU32,
}

impl TicketSource for Versioned {
    fn ticket(&self) -> BoxFuture<'_, Result<Ticket, TicketError>> {
        self.tickets.ticket()
    }

    fn server_version(&self) -> BoxFuture<'_, ServerVersion> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(self.version))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_of_a_host_is_asked_for_once_and_chooses_the_first_rung() {
    let host = host(NfcServerConfig::of(HostVersion::Esxi67)).await;
    let version = ServerVersion::Known(2);
    let source = Arc::new(Versioned { tickets: host.tickets(), version, asked: AtomicU32::new(0) });
    let options = patient();
    for _ in 0..3 {
        let disk = NfcDisk::open(Arc::clone(&source) as _, PATH, Mode::ReadOnly, options.clone()).await.unwrap();
        assert_eq!(disk.session_info().rung, Rung::WithoutConnectionData);
        disk.close().await.unwrap();
    }
    assert_eq!(source.asked.load(Ordering::SeqCst), 1);
    assert_eq!(host.server.counters().connections_total(), 3);
}

/// Tickets of two hosts in turn.
struct Flapping {
    hosts: [Arc<dyn TicketSource>; 2],
    asked: AtomicU32,
}

impl TicketSource for Flapping {
    fn ticket(&self) -> BoxFuture<'_, Result<Ticket, TicketError>> {
        self.hosts[self.asked.fetch_add(1, Ordering::SeqCst) as usize % 2].ticket()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machine_that_goes_to_and_fro_between_two_hosts_is_not_tried_for_ever() {
    let mut gates = HostVersion::Esxi80.gates();
    gates.asynchronous = false;
    let mut config = NfcServerConfig::default();
    config.gates = Some(gates);
    let (one, two) = (host(config.clone()).await, host(config).await);
    let source = Arc::new(Flapping { hosts: [one.tickets(), two.tickets()], asked: AtomicU32::new(0) });
    let opening = NfcDisk::open(Arc::clone(&source) as _, PATH, Mode::ReadOnly, patient());
    let error = tokio::time::timeout(std::time::Duration::from_secs(5), opening).await.expect("no end").unwrap_err();
    assert!(matches!(error, Error::StartRefused { .. }), "{error}");
    // Two hosts with three rungs each at most; the last of them is the end.
    assert!(source.asked.load(Ordering::SeqCst) <= 6);
}
