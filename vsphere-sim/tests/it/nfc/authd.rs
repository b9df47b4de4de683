//! Rows 5 to 8: the daemon's first line, its replies, and the way its TLS session ends.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use vsphere_nfc::wire::classic::{MESSAGE_LEN, Message};
use vsphere_nfc::{Channel, Error, Mode, NfcDisk, NfcOptions, Phase, Retry, Timeouts};
use vsphere_sim::nfc::{FaultAction, Step};

use super::disk::{MIB, MemoryDisk, pattern};
use super::host::{Host, PATH, fixed, new_id, patient};
use super::line::byte_by_byte;

const BANNER: &str = "220 VMware Authentication Daemon Version 1.10: SSL Required, NFCSSL supported/t";

fn quick() -> NfcOptions {
    NfcOptions::default().timeouts(Timeouts::all(Duration::from_millis(500))).retry(Retry::never())
}

/// Opens the disk of a host whose first line is replaced by `banner`.
async fn greeted_with(host: &Host, banner: &[u8]) -> Result<NfcDisk, Error> {
    host.server.inject(Step::Banner, FaultAction::Bytes(banner.to_vec()));
    host.open(Mode::ReadOnly, quick()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_line_decides_whether_there_is_tls_and_whether_the_thumbprint_is_asked_for() {
    let host = Host::reading(MemoryDisk::filled(MIB, MIB)).await;
    // Without SHA256: no THUMBPRINT_SHA2, so the fault that waits for it is never met.
    host.server.inject(Step::ThumbprintSha2, FaultAction::Close);
    let disk = greeted_with(&host, format!("{BANNER}\r\n").as_bytes()).await.unwrap();
    assert!(disk.read_at(0, 512).await.unwrap() == pattern(0, 512));
    disk.close().await.unwrap();

    // Without SSL the ticket would travel in clear.
    let error = greeted_with(&host, b"220 VMware Authentication Daemon Version 1.00\r\n").await.unwrap_err();
    assert!(matches!(error, Error::Tls { phase: Phase::AuthdTls, .. }), "{error}");

    let error = greeted_with(&host, b"421 Service not available: SSL\r\n").await.unwrap_err();
    assert!(matches!(&error, Error::AuthdRefused { line, .. } if line.starts_with("421")), "{error}");
    assert!(error.is_retryable());
    host.assert_no_connections().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_line_without_an_end_is_neither_kept_nor_waited_for() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    let error = greeted_with(&host, &[b'2'; 10 * 1024]).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { phase: Phase::Banner, .. }), "{error}");
    let error = greeted_with(&host, &[b'2'; 100]).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { phase: Phase::Banner, .. }), "{error}");
    assert!(greeted_with(&host, b"\xFF\xFE\r\n").await.is_err());
    host.assert_no_connections().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_over_a_line_of_single_bytes_is_the_same_session() {
    let host = Host::reading(MemoryDisk::filled(MIB, MIB)).await;
    for channel in [Channel::Tls, Channel::Clear] {
        let mut ticket = host.ticket();
        ticket.port = byte_by_byte(host.server.local_addr()).await.port();
        let disk = NfcDisk::open(fixed(ticket), PATH, Mode::ReadOnly, patient().channel(channel)).await.unwrap();
        assert!(disk.read_at(512, 1024).await.unwrap() == pattern(512, 1024));
        disk.close().await.unwrap();
    }
    host.assert_no_connections().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_encryption_does_not_lead_to_a_connection_in_clear() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    for (code, retryable) in [(501, false), (530, true), (421, true)] {
        let refusal = || FaultAction::Error { code, text: "no such service".into() };
        // However often it is tried: never without encryption.
        (0..8).for_each(|_| host.server.inject(Step::Proxy, refusal()));
        let error = host.open(Mode::ReadOnly, patient()).await.unwrap_err();
        let Error::AuthdRefused { command: "PROXY", line, .. } = &error else { panic!("{error}") };
        assert_eq!(*line, format!("{code} no such service"));
        assert_eq!(error.is_retryable(), retryable, "{line}");
        host.server.forget_injected();
    }
    assert_eq!(host.server.counters().files().len(), 0, "a disk was opened");
    host.assert_no_connections().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_notify_at_the_hand_over_is_not_taken_for_data_of_the_disk() {
    let host = Host::reading(MemoryDisk::filled(MIB, MIB)).await;
    host.server.configure(|config| config.close_notify_at_hand_over = true);
    for (channel, phase) in [(Channel::Tls, Phase::ServiceTls), (Channel::Clear, Phase::SessionStart)] {
        // Either it is passed over and all is well, or it is an error where it came.
        match host.open(Mode::ReadOnly, quick().channel(channel)).await {
            Ok(disk) => assert!(disk.read_at(0, 512).await.unwrap() == pattern(0, 512)),
            Err(Error::Protocol { phase: at, .. } | Error::Tls { phase: at, .. }) => {
                assert!(at == phase || at == Phase::Authd)
            }
            Err(other) => panic!("{channel:?}: {other}"),
        }
    }
    host.assert_no_connections().await;
}

/// The daemon's TLS session, driven by hand.
async fn daemon(host: &Host) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(host.server.identity().certificate().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = TcpStream::connect(host.server.local_addr()).await.unwrap();
    while tcp.read_u8().await.unwrap() != b'\n' {}
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap()
}

async fn line(tls: &mut TlsStream<TcpStream>) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(tls.read_u8().await.unwrap());
    }
    String::from_utf8(line).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemon_takes_commands_in_one_record_and_in_a_record_for_every_byte() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    for piece in [usize::MAX, 1, 7] {
        let mut tls = daemon(&host).await;
        let commands = format!("SESSION {}\r\nPROXY vpxa-nfc\r\n", new_id(&host.backend));
        for part in commands.as_bytes().chunks(piece.min(commands.len())) {
            tls.write_all(part).await.unwrap();
            tls.flush().await.unwrap();
        }
        assert_eq!(line(&mut tls).await, "200 Connect ha-nfc\r\n");
        // What follows is in clear, on the stream below.
        let (mut tcp, _) = tls.into_inner();
        tcp.write_all(&Message::SessionParameters.encode().unwrap()).await.unwrap();
        let mut reply = [0; MESSAGE_LEN];
        tcp.read_exact(&mut reply).await.unwrap();
        assert_eq!(Message::decode(&reply), Message::SessionReady { version_follows: 1 });
    }
    host.assert_no_connections().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemon_answers_nothing_to_session_and_530_to_what_it_does_not_know() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    let mut tls = daemon(&host).await;
    for (command, reply) in [
        ("NONSENSE", "530 Please login with USER and PASS\r\n"),
        ("PROXY vpxa-nfc", "530 Please login with USER and PASS\r\n"),
        ("SESSION unknown\r\nPROXY vpxa-nfc", "530 Login incorrect\r\n"),
        ("SESSION unknown\r\nTHUMBPRINT_SHA2 0A:1B", "501 Invalid arguments\r\n"),
    ] {
        tls.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
        assert_eq!(line(&mut tls).await, reply, "{command}");
    }
}
