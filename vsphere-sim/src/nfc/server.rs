//! Listening, and the life of a connection.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use vsphere_nfc::Pin;

use super::backend::NfcBackend;
use super::config::{FaultAction, Injected, NfcServerConfig, Step};
use super::counters::NfcCounters;
use super::metered::Metered;
use super::start::{self, Started};
use super::{authd, classic, replay, session};

/// A certificate and the TLS configuration that presents it.
#[derive(Debug, Clone)]
pub struct NfcIdentity {
    certificate: CertificateDer<'static>,
    config: Arc<ServerConfig>,
}

impl NfcIdentity {
    /// `config` presents `certificate`.
    pub fn new(certificate: CertificateDer<'static>, config: Arc<ServerConfig>) -> Self {
        Self { certificate, config }
    }

    /// The certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The SHA-1 thumbprint, as tickets carry it.
    pub fn thumbprint_sha1(&self) -> String {
        Pin::sha1_of(&self.certificate).to_string()
    }

    /// The SHA-256 thumbprint.
    pub fn thumbprint_sha256(&self) -> String {
        Pin::sha256_of(&self.certificate).to_string()
    }

    pub(super) fn tls(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

/// A running server. Dropping it ends it and all its connections.
pub struct NfcServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    accepting: Option<JoinHandle<()>>,
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) identity: NfcIdentity,
    pub(super) backend: Arc<dyn NfcBackend>,
    pub(super) counters: Arc<NfcCounters>,
    pub(super) injected: Injected,
    config: Mutex<Arc<NfcServerConfig>>,
    /// Incremented to end all connections.
    generation: watch::Sender<u64>,
}

impl NfcServer {
    /// Listens on `address` (port 0 for any) and serves on the current tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be bound.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn bind(
        address: SocketAddr,
        identity: NfcIdentity,
        backend: Arc<dyn NfcBackend>,
        config: NfcServerConfig,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            identity,
            backend,
            counters: Arc::default(),
            injected: Injected::default(),
            config: Mutex::new(Arc::new(config)),
            generation: watch::Sender::new(0),
        });
        let (stop, stopped) = watch::channel(false);
        let accepting = Some(tokio::spawn(accept(listener, Arc::clone(&shared), stopped)));
        Ok(Self { address, shared, stop, accepting })
    }

    /// Where the server listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that the daemon presents.
    pub fn identity(&self) -> &NfcIdentity {
        &self.shared.identity
    }

    /// The server's counters; they outlive it.
    pub fn counters(&self) -> Arc<NfcCounters> {
        Arc::clone(&self.shared.counters)
    }

    /// Changes the behaviour of connections accepted from now on.
    pub fn configure(&self, change: impl FnOnce(&mut NfcServerConfig)) {
        let mut config = self.shared.config.lock().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut config));
    }

    /// Makes `step` fail once, on whichever connection gets there next.
    pub fn inject(&self, step: Step, action: FaultAction) {
        self.inject_after(step, 0, action);
    }

    /// Makes `step` fail once, after it went well `skip` times.
    pub fn inject_after(&self, step: Step, skip: u32, action: FaultAction) {
        self.shared.injected.push(step, skip, action);
    }

    /// Takes back the faults that no connection has met.
    pub fn forget_injected(&self) {
        self.shared.injected.clear();
    }

    /// Ends all connections, as a host does that goes into maintenance. New ones are accepted.
    pub fn disconnect_all(&self) {
        self.shared.generation.send_modify(|generation| *generation += 1);
    }

    /// Stops listening, ends all connections and waits until they are gone.
    ///
    /// # Cancel safety
    /// The server is being stopped even when the future is dropped.
    pub async fn shutdown(mut self) {
        let _ = self.stop.send(true);
        if let Some(accepting) = self.accepting.take() {
            // It ends by itself and does not panic; if it did, it is gone all the same.
            let _ = accepting.await;
        }
    }
}

impl Drop for NfcServer {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // An error means that the handle is gone.
            _ = stopped.changed() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((tcp, peer)) => {
                    shared.counters.accepted();
                    let open = Open(Arc::clone(&shared));
                    connections.spawn(async move {
                        if let Err(end) = serve(tcp, &open.0).await {
                            tracing::debug!(%peer, %end, "NFC connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting an NFC connection failed");
                    // Most likely no file descriptors: wait for some to be freed.
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    }
    connections.shutdown().await;
}

/// Counts a connection as open while it lives, also when its task is aborted.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counters.closed();
    }
}

async fn serve(tcp: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let config = Arc::clone(&shared.config.lock().unwrap_or_else(PoisonError::into_inner));
    let mut generation = shared.generation.subscribe();
    generation.mark_unchanged();
    let stream = Metered::new(tcp, config.cut, config.reset_on_cut);
    let work = async {
        let handed = authd::serve(stream, shared, &config).await?;
        let _place = handed.place;
        let (mut reader, mut writer) = handed.stream;
        if let Some(trace) = &config.replay {
            return replay::serve(reader, writer, trace).await;
        }
        match start::serve(&mut reader, &mut writer, shared, &config, handed.expect_client_random).await? {
            Started::Asynchronous => session::serve(reader, writer, shared, &config, handed.grant).await,
            Started::Classic(first) => classic::serve(&first, reader, writer, shared, &config, handed.grant).await,
        }
    };
    tokio::select! {
        _ = generation.changed() => Err(io::Error::other("all connections were ended")),
        end = work => end,
    }
}

/// An end of the connection that was wished for.
pub(super) fn ended(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, why)
}

/// What the client did wrong.
pub(super) fn violation(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
