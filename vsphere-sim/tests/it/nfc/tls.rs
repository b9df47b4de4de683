//! Rows 3, 4, 7 and 8: certificates, TLS versions, the two stages.

use std::sync::{Arc, Mutex};

use vsphere_nfc::{Error, Mode, NfcDisk, Phase, Pin};
use vsphere_sim::nfc::{NfcServer, NfcServerConfig};

use super::disk::{MIB, MemoryDisk, pattern};
use super::host::{Backend, Host, PATH, fixed, identity, identity_with, patient, ticket};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_tls_versions_work_in_both_stages() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let disk = MemoryDisk::filled(MIB, MIB);
        let backend = Arc::new(Backend { disk: Mutex::new(Some(Arc::new(disk))), ..Backend::default() });
        let server = NfcServer::bind(
            "127.0.0.1:0".parse().unwrap(),
            identity_with(&[version]),
            Arc::clone(&backend) as _,
            NfcServerConfig::default(),
        );
        let server = server.await.unwrap();
        let pin = server.identity().thumbprint_sha256().parse().unwrap();
        let tickets = fixed(ticket(&backend, &server, Some(pin)));
        let disk = NfcDisk::open(tickets, PATH, Mode::ReadOnly, patient()).await.unwrap();
        let info = disk.session_info();
        let wanted = if version.version == rustls::ProtocolVersion::TLSv1_2 { "TLSv1_2" } else { "TLSv1_3" };
        assert_eq!(info.tls_version.as_deref(), Some(wanted));
        assert!(disk.read_at(0, 4096).await.unwrap() == pattern(0, 4096));
        disk.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_certificate_is_noticed_before_the_ticket_is_sent() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    for pin in [Pin::sha1_of(b"other"), Pin::sha256_of(b"other"), Pin::Certificate(b"other".as_slice().into())] {
        let tickets = fixed(ticket(&host.backend, &host.server, Some(pin)));
        let error = NfcDisk::open(tickets, PATH, Mode::ReadOnly, patient()).await.unwrap_err();
        assert!(matches!(error, Error::ThumbprintMismatch { phase: Phase::AuthdTls, .. }), "{error}");
        assert!(!error.is_retryable());
    }
    assert_eq!(host.backend.tickets.lock().unwrap().len(), 3, "a ticket was used up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_certificate_may_differ_only_when_it_was_announced() {
    let host = Host::reading(MemoryDisk::filled(MIB, MIB)).await;
    host.server.configure(|config| config.service_identity = Some(identity()));
    let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
    disk.close().await.unwrap();

    host.server.configure(|config| config.announce_wrong_thumbprint = true);
    let error = host.open(Mode::ReadOnly, patient()).await.unwrap_err();
    assert!(matches!(error, Error::ThumbprintMismatch { phase: Phase::ServiceTls, .. }), "{error}");
    assert_eq!(host.server.counters().file(PATH).opens, 1);
}
