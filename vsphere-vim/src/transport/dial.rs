//! A TLS connection to a host: what calls and streams have in common.

use std::{io, sync::Arc, time::Duration};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{TransportError, TransportErrorKind};
use crate::trust::ThumbprintMismatch;

/// Resolves, connects and shakes hands. Has no time-out of its own.
pub(super) async fn dial(
    host: &str,
    port: u16,
    tls: &Arc<ClientConfig>,
    tcp_keep_alive: Duration,
) -> Result<TlsStream<TcpStream>, TransportError> {
    start_tls(host, tls, connect_tcp(host, port, tcp_keep_alive).await?).await
}

/// The first half of [`dial`], for those who have something to say before TLS begins.
pub(super) async fn connect_tcp(host: &str, port: u16, tcp_keep_alive: Duration) -> Result<TcpStream, TransportError> {
    let refused = |error: io::Error| TransportError::new(TransportErrorKind::Connect, error).not_sent();
    let addresses: Vec<_> = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| TransportError::new(TransportErrorKind::Resolve, error).not_sent())?
        .collect();
    let stream = TcpStream::connect(&addresses[..]).await.map_err(refused)?;
    stream.set_nodelay(true).map_err(refused)?;
    let keep_alive = socket2::TcpKeepalive::new().with_time(tcp_keep_alive).with_interval(tcp_keep_alive);
    socket2::SockRef::from(&stream).set_tcp_keepalive(&keep_alive).map_err(refused)?;
    Ok(stream)
}

/// The second half of [`dial`].
pub(super) async fn start_tls(
    host: &str,
    tls: &Arc<ClientConfig>,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, TransportError> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| TransportError::new(TransportErrorKind::Resolve, error).not_sent())?;
    TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.map_err(tls_error)
}

/// Tells distrust (which no retry heals) from a broken handshake (which one may).
fn tls_error(error: io::Error) -> TransportError {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let kind = match cause {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) => {
            if let Some(mismatch) = other.0.downcast_ref::<ThumbprintMismatch>() {
                return TransportError::new(TransportErrorKind::Untrusted, *mismatch).not_sent();
            }
            TransportErrorKind::Untrusted
        }
        Some(rustls::Error::InvalidCertificate(_)) => TransportErrorKind::Untrusted,
        Some(_) => TransportErrorKind::Tls,
        None => TransportErrorKind::Connect,
    };
    TransportError::new(kind, error).not_sent()
}
