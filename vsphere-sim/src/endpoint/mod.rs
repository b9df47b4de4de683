//! The HTTPS endpoint: connections, paths, cookies, compression. What a body means is [`crate::service`]'s.

mod body;
mod control;
mod folder;
mod http;
mod io;
mod nfc;

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use io::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::world::World;
use crate::{Error, Result};

/// A running endpoint. Stops when the sender of `stop` goes away or says so.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) task: tokio::task::JoinHandle<()>,
}

impl Endpoint {
    /// Opens the port and serves until `stop` becomes true.
    pub(crate) fn start(
        world: Arc<World>,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        stop: watch::Receiver<bool>,
    ) -> Result<Self> {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let address = listener.local_addr().map_err(|source| Error::Listen { address: unknown, source })?;
        let acceptor = TlsAcceptor::from(tls);
        let task = tokio::spawn(accept(world, listener, acceptor, stop));
        Ok(Self { address, task })
    }
}

async fn accept(world: Arc<World>, listener: TcpListener, acceptor: TlsAcceptor, mut stop: watch::Receiver<bool>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    world.folder.connected();
                    connections.spawn(serve(world.clone(), stream, acceptor.clone()));
                }
                Err(error) => {
                    // Out of file descriptors, as a rule: give the others a moment to close theirs.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

/// Returns when the simulator is to stop.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the simulator's handle is gone: stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn serve(world: Arc<World>, stream: tokio::net::TcpStream, acceptor: TlsAcceptor) {
    let stream = match acceptor.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "TLS handshake failed");
            return;
        }
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate: Option<Arc<[u8]>> = certificates.and_then(<[_]>::first).map(|first| first.as_ref().into());
    let service = service_fn(move |request| http::answer(world.clone(), certificate.clone(), request));
    if let Err(error) = http1::Builder::new().keep_alive(true).serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "connection ended");
    }
}
