//! Hosts with SHA-1 signatures only: OpenSSL behind Python's `ssl`, restricted to them.

use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use vsphere_nfc::{
    Error, LegacyTls, Mode, NfcDisk, NfcOptions, Phase, Pin, Rung, SessionId, Ticket, TicketError, Timeouts,
};

/// TLS 1.2, and signatures with SHA-1 alone, as hosts of 6.5 make them.
const CONFIGURATION: &str = "
openssl_conf = init
[init]
ssl_conf = ssl
[ssl]
system_default = legacy
[legacy]
MinProtocol = TLSv1.2
MaxProtocol = TLSv1.2
SignatureAlgorithms = RSA+SHA1
";

struct LegacyHost {
    process: Child,
    /// What came of each connection.
    told: Lines<BufReader<ChildStdout>>,
    port: u16,
    pin: Pin,
    tickets: Arc<AtomicU32>,
    folder: PathBuf,
}

impl LegacyHost {
    fn start(name: &str) -> Option<Self> {
        let folder = std::env::temp_dir().join(format!("vsphere-nfc-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(folder.join("openssl.cnf"), CONFIGURATION).unwrap();
        if !(make_certificate(&certificate, &key) && runs("python3", &["-c", "import ssl"])) {
            assert!(std::env::var_os("REQUIRE_PEERS").is_none(), "openssl and python3 are required");
            eprintln!("PEER MISSING: openssl and python3 with ssl. This test proves nothing");
            return None;
        }
        let pem = std::fs::read_to_string(&certificate).unwrap();
        let pin = Pin::from_pem(&pem).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/legacy_host.py");
        let mut process = Command::new("python3")
            .args([Path::new(script), &certificate, &key])
            .env("OPENSSL_CONF", folder.join("openssl.cnf"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = told.next().unwrap().unwrap().parse().unwrap();
        Some(Self { process, told, port, pin, tickets: Arc::default(), folder })
    }

    async fn open(&self, options: &NfcOptions) -> Result<NfcDisk, Error> {
        let (port, pin, tickets) = (self.port, self.pin.clone(), Arc::clone(&self.tickets));
        let source = Arc::new(move || {
            let number = tickets.fetch_add(1, Ordering::SeqCst);
            let ticket = Ticket {
                host: "127.0.0.1".to_owned(),
                port,
                pin: Some(pin.clone()),
                service: "vpxa-nfc".to_owned(),
                session_id: SessionId::new(format!("ticket-{number}")),
            };
            async move { Ok::<_, TicketError>(ticket) }
        });
        NfcDisk::open(source, "[ds] web/web.vmdk", Mode::ReadOnly, options.clone()).await
    }

    /// Opens the disk, reads all of it, and closes it.
    async fn reads(&self, options: &NfcOptions) {
        let disk = self.open(options).await.unwrap();
        let info = disk.session_info();
        assert!(info.legacy_tls);
        assert_eq!((info.rung, info.server_version), (Rung::Full, 2));
        assert_eq!(info.tls_version.as_deref(), Some("TLSv1_2"));
        let bytes = disk.read_at(0, 1 << 20).await.unwrap();
        for (sector, bytes) in bytes.chunks(512).enumerate() {
            assert!(bytes.iter().all(|byte| usize::from(*byte) == sector % 251), "sector {sector}");
        }
        disk.close().await.unwrap();
    }

    fn next_told(&mut self) -> String {
        self.told.next().unwrap().unwrap()
    }
}

impl Drop for LegacyHost {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn make_certificate(certificate: &Path, key: &Path) -> bool {
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let usual = ["req", "-x509", "-newkey", "rsa:2048", "-sha1", "-nodes", "-days", "3650", "-subj", "/CN=esx65"];
    runs("openssl", &[&usual[..], &["-keyout", key, "-out", certificate]].concat())
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

fn options(legacy: LegacyTls) -> NfcOptions {
    NfcOptions::default().legacy_tls(legacy).timeouts(Timeouts::all(Duration::from_secs(20)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sha_1_host_is_refused_with_a_hint_unless_legacy_tls_is_allowed() {
    let Some(mut host) = LegacyHost::start("never") else { return };
    let error = host.open(&options(LegacyTls::Never)).await.unwrap_err();
    let Error::Tls { phase: Phase::AuthdTls, nothing_in_common: true, .. } = &error else { panic!("{error}") };
    assert!(error.hint().unwrap().contains("legacy TLS") && !error.is_retryable());
    assert!(host.next_told().starts_with("no handshake"), "the ticket was sent");
    assert_eq!(host.tickets.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn legacy_handshake_is_tried_once_with_the_same_ticket_and_remembered() {
    let Some(mut host) = LegacyHost::start("fallback") else { return };
    let fallback = options(LegacyTls::OnHandshakeFailure);
    host.reads(&fallback).await;
    assert!(host.next_told().starts_with("no handshake"));
    assert_eq!(host.next_told(), "served ticket-0");
    host.reads(&fallback).await;
    assert_eq!(host.next_told(), "served ticket-1");
    host.reads(&options(LegacyTls::Always)).await;
    assert_eq!(host.next_told(), "served ticket-2");
    assert_eq!(host.tickets.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn legacy_handshake_trusts_no_other_certificate() {
    let Some(mut host) = LegacyHost::start("pin") else { return };
    host.pin = Pin::sha1_of(b"another");
    let error = host.open(&options(LegacyTls::Always)).await.unwrap_err();
    assert!(matches!(error, Error::ThumbprintMismatch { phase: Phase::AuthdTls, .. }), "{error}");
    assert!(host.next_told().starts_with("no handshake"), "the ticket was sent");
}
