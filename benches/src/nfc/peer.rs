//! The other process: the NFC server of `vsphere-sim` over a disk that costs nothing, and the bare streams.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use vsphere_sim::nfc::{Grant, NfcBackend, NfcFile, NfcIdentity, NfcServer, NfcServerConfig, OpenRefused, RedeemError};

use super::{BUFFER, bare, delay};
use crate::process::{self, Server};

/// The bytes of the disk: this, again and again. They do not compress, and nobody tries to.
pub(super) fn pattern() -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN.get_or_init(|| {
        let mut state = 88_172_645_463_325_252u64;
        let mut bytes = Vec::new();
        while bytes.len() < usize::try_from(BUFFER).unwrap_or(0) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        bytes
    })
}

/// The server's process. Dropping it ends it.
pub(super) struct Peer {
    _server: Server,
    pub(super) nfc: SocketAddr,
    pub(super) bare: SocketAddr,
    pub(super) bare_tls: SocketAddr,
    pub(super) certificate: Vec<u8>,
}

impl Peer {
    /// Starts it, so far away that a round trip takes `rtt` longer.
    pub(super) fn start(rtt: Duration) -> Result<Self, Box<dyn Error>> {
        let (server, words) = Server::start(["nfc", "--serve", &rtt.as_micros().to_string()])?;
        let [nfc, bare, bare_tls, digits]: [String; 4] =
            words.try_into().map_err(|_| "the server said something else")?;
        let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2).unwrap_or_default(), 16);
        let certificate = (0..digits.len()).step_by(2).map(byte).collect::<Result<_, _>>()?;
        Ok(Self { _server: server, nfc: nfc.parse()?, bare: bare.parse()?, bare_tls: bare_tls.parse()?, certificate })
    }
}

/// Runs in the other process until its input ends.
pub(super) fn serve(mut arguments: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let rtt = Duration::from_micros(arguments.next().ok_or("--serve wants a round trip in microseconds")?.parse()?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let _server = runtime.block_on(async {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()])?;
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)?;
        let config = Arc::new(config);
        let identity = NfcIdentity::new(certificate.clone(), Arc::clone(&config));
        let any: SocketAddr = "127.0.0.1:0".parse()?;
        let server = NfcServer::bind(any, identity, Arc::new(Disks), NfcServerConfig::default()).await?;
        let (clear, tls) = (TcpListener::bind(any).await?, TcpListener::bind(any).await?);
        let mut addresses = [server.local_addr(), clear.local_addr()?, tls.local_addr()?];
        tokio::spawn(bare::serve(clear, None));
        tokio::spawn(bare::serve(tls, Some(TlsAcceptor::from(config))));
        if !rtt.is_zero() {
            for address in &mut addresses {
                *address = delay::in_front_of(*address, rtt / 2)?;
            }
        }
        let certificate: String = certificate.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut words: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        words.push(certificate);
        process::announce(&words)?;
        Ok::<_, Box<dyn Error>>(server)
    })?;
    Ok(process::until_left()?)
}

/// Any ticket opens a disk that is always there.
struct Disks;

impl NfcBackend for Disks {
    fn redeem(&self, _session_id: &str, _service: &str) -> Result<Grant, RedeemError> {
        Ok(Grant::new(()))
    }

    fn open(&self, _grant: &Grant, _path: &str, _write: bool) -> Result<Arc<dyn NfcFile>, OpenRefused> {
        Ok(Arc::new(Endless))
    }
}

/// A disk whose reads and writes cost nothing: its bytes lie where the bare stream's lie.
struct Endless;

impl NfcFile for Endless {
    fn capacity(&self) -> u64 {
        1 << 40
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let pattern = pattern();
        let mut within = usize::try_from(offset % BUFFER).map_err(io::Error::other)?;
        let mut buf = buf;
        while !buf.is_empty() {
            let part = buf.len().min(pattern.len() - within);
            let (now, later) = buf.split_at_mut(part);
            now.copy_from_slice(&pattern[within..within + part]);
            (buf, within) = (later, 0);
        }
        Ok(())
    }

    fn resident(&self, offset: u64, len: usize) -> Option<Bytes> {
        let within = usize::try_from(offset % BUFFER).ok()?;
        pattern().get(within..within.checked_add(len)?).map(Bytes::from_static)
    }

    fn write_at(&self, _offset: u64, data: &[u8]) -> io::Result<()> {
        std::hint::black_box(data);
        Ok(())
    }

    fn allocated(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        Ok(vec![range])
    }

    fn ddb(&self, _key: &str) -> Option<String> {
        None
    }
}
