//! The limit: streams that carry nothing but the bytes.
//!
//! What arrives goes to as much memory as a session of ours has in flight, one buffer after the other: bytes that are to
//! be used have to be put somewhere, and one small buffer that never leaves the cache would be no limit for that.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::client::Way;
use super::peer::{Peer, pattern};
use super::{Amount, BUFFER, BUFFERS, Channel, Rate};
use crate::process;

/// A request: what, and how many bytes.
const READ: u8 = b'r';
const WRITE: u8 = b'w';
const PING: u8 = b'p';

/// Serves requests of one connection after the other, encrypted where there is an acceptor.
pub(super) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let tls = tls.clone();
        tokio::spawn(async move {
            tcp.set_nodelay(true)?;
            match tls {
                Some(tls) => answer(tls.accept(tcp).await?).await,
                None => answer(tcp).await,
            }
        });
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let data = pattern();
    let mut window = Window::new();
    loop {
        let what = stream.read_u8().await?;
        let mut left = stream.read_u64().await?;
        match what {
            READ => {
                while left > 0 {
                    let part = left.min(BUFFER);
                    stream.write_all(&data[..size(part)]).await?;
                    left -= part;
                }
            }
            WRITE => {
                while left > 0 {
                    left -= window.read(&mut stream, left).await?;
                }
                stream.write_u8(WRITE).await?;
            }
            _ => stream.write_u8(PING).await?,
        }
        stream.flush().await?;
    }
}

/// A byte there and back: the shortest of a few.
pub(super) async fn round_trip(peer: &Peer) -> io::Result<Duration> {
    let mut stream = TcpStream::connect(peer.bare).await?;
    stream.set_nodelay(true)?;
    let mut shortest = Duration::MAX;
    for _ in 0..20 {
        let begun = Instant::now();
        request(&mut stream, PING, 0).await?;
        stream.read_u8().await?;
        shortest = shortest.min(begun.elapsed());
    }
    Ok(shortest)
}

/// Moves that amount.
pub(super) async fn stream(peer: Arc<Peer>, channel: Channel, way: Way, amount: Amount) -> io::Result<Rate> {
    match channel {
        Channel::Clear => {
            let tcp = TcpStream::connect(peer.bare).await?;
            tcp.set_nodelay(true)?;
            transfer(tcp, way, amount).await
        }
        Channel::Tls => {
            let tcp = TcpStream::connect(peer.bare_tls).await?;
            tcp.set_nodelay(true)?;
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from(peer.certificate.clone())).map_err(io::Error::other)?;
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(io::Error::other)?
                .with_root_certificates(roots)
                .with_no_client_auth();
            let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
            transfer(TlsConnector::from(Arc::new(config)).connect(name, tcp).await?, way, amount).await
        }
    }
}

async fn transfer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    way: Way,
    Amount { bytes, patience, .. }: Amount,
) -> io::Result<Rate> {
    let (begun, before) = (Instant::now(), process::own_time()?);
    let mut moved = 0;
    match way {
        Way::Read => {
            request(&mut stream, READ, bytes).await?;
            let mut window = Window::new();
            while moved < bytes && begun.elapsed() < patience {
                moved += window.read(&mut stream, bytes - moved).await?;
            }
        }
        Way::Write => {
            let data = pattern();
            // In rounds that are told apart by a reply, so that time may run out.
            let round = bytes.min(1 << 30);
            while moved < bytes && begun.elapsed() < patience {
                request(&mut stream, WRITE, round).await?;
                for _ in 0..round / BUFFER {
                    stream.write_all(data).await?;
                }
                stream.flush().await?;
                stream.read_u8().await?;
                moved += round;
            }
        }
    }
    Ok(Rate { bytes: moved, wall: begun.elapsed(), cpu: process::own_time()?.saturating_sub(before) })
}

async fn request(stream: &mut (impl AsyncWrite + Unpin), what: u8, bytes: u64) -> io::Result<()> {
    let mut message = vec![what];
    message.extend_from_slice(&bytes.to_be_bytes());
    stream.write_all(&message).await?;
    stream.flush().await
}

/// Where the bytes go.
struct Window {
    memory: Vec<u8>,
    next: usize,
}

impl Window {
    fn new() -> Self {
        Self { memory: vec![0; size(BUFFER * BUFFERS)], next: 0 }
    }

    /// Reads what is there, at most `most` bytes, to where the last ones ended.
    async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin), most: u64) -> io::Result<u64> {
        if self.next == self.memory.len() {
            self.next = 0;
        }
        let end = self.memory.len().min(self.next.saturating_add(size(most)));
        match stream.read(&mut self.memory[self.next..end]).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.next += read;
                Ok(read as u64)
            }
        }
    }
}

/// Lengths here fit.
fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
