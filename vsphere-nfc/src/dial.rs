//! From a ticket to a stream that the NFC service listens on: TCP, the daemon, both TLS sessions.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::authd;
use crate::error::{Blame, Error, Phase, Result};
use crate::ladder::{Found, Rung};
use crate::options::{Channel, LegacyTls, NfcOptions, UnpinnedTickets};
use crate::ticket::Ticket;
use crate::tls::{self, Offer, Pin, Seen, Trust};

/// The half that is read.
pub(crate) type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;
/// The half that is written.
pub(crate) type WriteHalf = Box<dyn AsyncWrite + Send + Unpin>;

/// A connection that the NFC service listens on.
pub(crate) struct Dialled {
    pub(crate) reader: ReadHalf,
    pub(crate) writer: WriteHalf,
    /// THUMBPRINT_SHA2 was accepted, so message 43 is expected.
    pub(crate) send_client_random: bool,
    /// The version of the second TLS session, or of the first where there is no second.
    pub(crate) tls_version: Option<String>,
}

/// Connects with `ticket` and has the daemon hand the connection over.
pub(crate) async fn dial(
    blame: &Blame,
    ticket: &Ticket,
    options: &NfcOptions,
    rung: Rung,
    found: &mut Found,
) -> Result<Dialled> {
    let trust = trust(ticket, options)?;
    let known = options.hosts.known(&blame.endpoint).is_some_and(|known| known.legacy_tls);
    let legacy = match options.legacy_tls {
        LegacyTls::Never => false,
        LegacyTls::OnHandshakeFailure => known,
        LegacyTls::Always => true,
    };
    let mut offer = Offer { legacy, tls13: options.quirks.tls13 };
    let mut reached = authd::reach(blame, tcp(blame, ticket, options).await?, ticket, &trust, offer, options).await;
    if let Err(Error::Tls { nothing_in_common: true, reason, .. }) = &reached
        && options.legacy_tls == LegacyTls::OnHandshakeFailure
        && !offer.legacy
    {
        tracing::warn!(endpoint = %blame.endpoint, %reason, "offering SHA-1 signatures to an NFC host, as legacy TLS is allowed");
        offer.legacy = true;
        // The ticket has not been sent, so it is still good.
        reached = authd::reach(blame, tcp(blame, ticket, options).await?, ticket, &trust, offer, options).await;
    }
    let daemon = reached?;
    found.legacy_tls = offer.legacy;
    found.banner_sha256 = daemon.banner().sha256;
    let handed = daemon.hand_over(ticket, rung, options).await?;
    let send_client_random = handed.announced.is_some();
    if options.channel == Channel::Clear {
        let (reader, writer) = handed.tcp.into_split();
        return Ok(Dialled {
            reader: Box::new(reader),
            writer: Box::new(writer),
            send_client_random,
            tls_version: None,
        });
    }
    let trust = match handed.announced.flatten() {
        Some(pin) if options.quirks.trust_announced_thumbprint => Trust::Pin(pin),
        _ => trust,
    };
    let (config, seen) = client_config(blame, Phase::ServiceTls, trust, offer)?;
    let name = tls::server_name(&ticket.host);
    let stream = blame
        .within(Phase::ServiceTls, options.timeouts.authd, async {
            TlsConnector::from(config)
                .connect(name, tokio::io::BufReader::with_capacity(READ_AHEAD, handed.tcp))
                .await
                .map_err(|error| tls_error(blame, Phase::ServiceTls, &seen, &error))
        })
        .await?;
    let tls_version = stream.get_ref().1.protocol_version().map(|version| format!("{version:?}"));
    let (reader, writer) = tokio::io::split(stream);
    Ok(Dialled { reader: Box::new(reader), writer: Box::new(writer), send_client_random, tls_version })
}

/// Encrypted bytes that are taken off the socket at once: TLS alone takes a record's, 16 KiB, which costs a system call
/// each.
const READ_AHEAD: usize = 128 << 10;

async fn tcp(blame: &Blame, ticket: &Ticket, options: &NfcOptions) -> Result<TcpStream> {
    blame.within(Phase::Connect, options.timeouts.connect, connect(blame, ticket, options)).await
}

/// Whom the ticket names.
fn trust(ticket: &Ticket, options: &NfcOptions) -> Result<Trust> {
    match (&ticket.pin, options.unpinned) {
        (Some(pin), _) => Ok(Trust::Pin(pin.clone())),
        (None, UnpinnedTickets::Refuse) => Err(Error::InvalidTicket("it names neither a thumbprint nor a certificate")),
        (None, UnpinnedTickets::Accept) => {
            tracing::warn!(host = %ticket.host, "connecting to an NFC server without checking its certificate");
            Ok(Trust::Anyone)
        }
    }
}

async fn connect(blame: &Blame, ticket: &Ticket, options: &NfcOptions) -> Result<TcpStream> {
    let failed = |error: io::Error| Error::Connect { endpoint: Arc::clone(&blame.endpoint), source: Arc::new(error) };
    let addresses = lookup_host((ticket.host.as_str(), ticket.port)).await.map_err(failed)?.collect();
    first_of(addresses, options.timeouts.connect, |address| connect_to(address, options)).await.map_err(failed)
}

/// Tries addresses in turn. One that does not answer leaves the others their part of the time.
async fn first_of<T, F>(addresses: Vec<SocketAddr>, limit: Duration, connect: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let start = Instant::now();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let part = limit.saturating_sub(start.elapsed()) / left.max(1);
        left = left.saturating_sub(1);
        last = match tokio::time::timeout(part, connect(address)).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => error,
            Err(_) => io::Error::new(io::ErrorKind::TimedOut, format!("{address} did not answer within {part:?}")),
        };
    }
    Err(last)
}

async fn connect_to(address: SocketAddr, options: &NfcOptions) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(size) = options.socket_buffer {
        // Before connecting: the window's scale is agreed on in the first packets.
        socket.set_recv_buffer_size(size)?;
        socket.set_send_buffer_size(size)?;
    }
    let tcp = socket.connect(address).await?;
    tcp.set_nodelay(true)?;
    // AIO has no keep-alive message; this finds hosts that vanished while the session was idle.
    let keepalive =
        socket2::TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    socket2::SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
    Ok(tcp)
}

/// A client configuration for one handshake.
pub(crate) fn client_config(
    blame: &Blame,
    phase: Phase,
    trust: Trust,
    offer: Offer,
) -> Result<(Arc<rustls::ClientConfig>, Seen)> {
    tls::client_config(trust, offer).map_err(|error| Error::Tls {
        endpoint: Arc::clone(&blame.endpoint),
        phase,
        reason: error.to_string(),
        nothing_in_common: false,
    })
}

/// Sorts an error of a handshake: the wrong certificate, TLS, or the network.
pub(crate) fn tls_error(blame: &Blame, phase: Phase, seen: &Seen, error: &io::Error) -> Error {
    let endpoint = Arc::clone(&blame.endpoint);
    if let Some((expected, actual)) = seen.get() {
        let show = |pin: &Pin| pin.to_string();
        return Error::ThumbprintMismatch { endpoint, phase, expected: show(expected), actual: show(actual) };
    }
    if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
        let nothing_in_common = tls::nothing_in_common(error);
        return Error::Tls { endpoint, phase, reason: error.to_string(), nothing_in_common };
    }
    blame.io(phase, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn address_that_does_not_answer_leaves_the_next_one_its_time() {
        let (silent, refusing, good) = ("[2001:db8::1]:902", "192.0.2.1:902", "192.0.2.2:902");
        let addresses = |of: &[&str]| of.iter().map(|address| address.parse().unwrap()).collect();
        let limit = Duration::from_secs(30);
        let connect = |address: SocketAddr| async move {
            match address.to_string() {
                address if address == silent => std::future::pending().await,
                address if address == good => Ok(address),
                _ => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
            }
        };
        let start = Instant::now();
        let found = first_of(addresses(&[silent, refusing, good]), limit, connect).await;
        assert_eq!(found.unwrap(), good);
        assert_eq!(start.elapsed(), limit / 3);
        let error = first_of(addresses(&[refusing, silent]), limit, connect).await.unwrap_err();
        assert!(error.kind() == io::ErrorKind::TimedOut && error.to_string().contains(silent), "{error}");
        assert_eq!(first_of(Vec::new(), limit, connect).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
