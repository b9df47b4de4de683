//! A host with one disk: the simulator's 902 server, tickets for it, and a disk in memory.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::PrivatePkcs8KeyDer;
use vsphere_nfc::{Error, Mode, NfcDisk, NfcOptions, Pin, SessionId, Ticket, TicketError, TicketSource, Timeouts};
use vsphere_sim::nfc::{Grant, NfcBackend, NfcFile, NfcIdentity, NfcServer, NfcServerConfig, OpenRefused, RedeemError};

use super::disk::MemoryDisk;

pub(super) const PATH: &str = "[ds1] web/web.vmdk";

#[derive(Default)]
pub(super) struct Backend {
    pub(super) disk: Mutex<Option<Arc<MemoryDisk>>>,
    pub(super) tickets: Mutex<HashSet<String>>,
    pub(super) issued: AtomicU32,
    pub(super) redeemed: AtomicU32,
    pub(super) write: bool,
}

pub(super) struct Allowed {
    pub(super) write: bool,
}

impl NfcBackend for Backend {
    fn redeem(&self, session_id: &str, service: &str) -> Result<Grant, RedeemError> {
        if service != "vpxa-nfc" {
            return Err(RedeemError::WrongService);
        }
        if !self.tickets.lock().unwrap().remove(session_id) {
            return Err(RedeemError::Used);
        }
        self.redeemed.fetch_add(1, Ordering::SeqCst);
        Ok(Grant::new(Allowed { write: self.write }))
    }

    fn open(&self, grant: &Grant, path: &str, write: bool) -> Result<Arc<dyn NfcFile>, OpenRefused> {
        let allowed: &Allowed = grant.downcast().unwrap();
        if write && !allowed.write {
            return Err(OpenRefused::read_only());
        }
        match &*self.disk.lock().unwrap() {
            Some(disk) if path == PATH => Ok(Arc::clone(disk) as Arc<dyn NfcFile>),
            _ => Err(OpenRefused::new(99, "File not found")),
        }
    }
}

/// A server with one disk, and tickets for it.
pub(super) struct Host {
    pub(super) server: NfcServer,
    pub(super) backend: Arc<Backend>,
    pub(super) disk: Arc<MemoryDisk>,
}

impl Host {
    pub(super) async fn start(disk: MemoryDisk, write: bool, config: NfcServerConfig) -> Self {
        let disk = Arc::new(disk);
        let backend = Arc::new(Backend { disk: Mutex::new(Some(Arc::clone(&disk))), write, ..Backend::default() });
        let address = "127.0.0.1:0".parse().unwrap();
        let server = NfcServer::bind(address, identity(), Arc::clone(&backend) as _, config).await.unwrap();
        Self { server, backend, disk }
    }

    pub(super) async fn reading(disk: MemoryDisk) -> Self {
        Self::start(disk, false, NfcServerConfig::default()).await
    }

    pub(super) async fn writing(disk: MemoryDisk) -> Self {
        Self::start(disk, true, NfcServerConfig::default()).await
    }

    pub(super) fn ticket(&self) -> Ticket {
        ticket(&self.backend, &self.server, Some(self.pin()))
    }

    fn pin(&self) -> Pin {
        self.server.identity().thumbprint_sha1().parse().unwrap()
    }

    pub(super) fn tickets(&self) -> Arc<dyn TicketSource> {
        let backend = Arc::clone(&self.backend);
        let (port, pin) = (self.server.local_addr().port(), self.pin());
        Arc::new(move || {
            let ticket = ticket_at(port, Some(pin.clone()), new_id(&backend));
            async move { Ok::<_, TicketError>(ticket) }
        })
    }

    pub(super) async fn open(&self, mode: Mode, options: NfcOptions) -> Result<NfcDisk, Error> {
        NfcDisk::open(self.tickets(), PATH, mode, options).await
    }

    /// Waits until the server has noticed that its clients are gone.
    pub(super) async fn assert_no_connections(&self) {
        for _ in 0..500 {
            if self.server.counters().connections_open() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} connections are still open", self.server.counters().connections_open());
    }
}

pub(super) fn new_id(backend: &Backend) -> String {
    let id = format!("52000000-{:08}", backend.issued.fetch_add(1, Ordering::SeqCst));
    backend.tickets.lock().unwrap().insert(id.clone());
    id
}

pub(super) fn ticket(backend: &Backend, server: &NfcServer, pin: Option<Pin>) -> Ticket {
    ticket_at(server.local_addr().port(), pin, new_id(backend))
}

fn ticket_at(port: u16, pin: Option<Pin>, id: String) -> Ticket {
    Ticket { host: "127.0.0.1".to_owned(), port, pin, service: "vpxa-nfc".to_owned(), session_id: SessionId::new(id) }
}

pub(super) fn fixed(ticket: Ticket) -> Arc<dyn TicketSource> {
    Arc::new(move || {
        let ticket = ticket.clone();
        async move { Ok::<_, TicketError>(ticket) }
    })
}

pub(super) fn identity() -> NfcIdentity {
    identity_with(rustls::DEFAULT_VERSIONS)
}

pub(super) fn identity_with(versions: &[&'static rustls::SupportedProtocolVersion]) -> NfcIdentity {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())
        .unwrap();
    NfcIdentity::new(certificate, Arc::new(config))
}

pub(super) fn patient() -> NfcOptions {
    NfcOptions::default().timeouts(Timeouts::all(Duration::from_secs(20)))
}
