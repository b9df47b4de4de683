//! The authentication daemon: first line, TLS, commands, and the hand-over to the service.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use vsphere_nfc::wire::authd::{Command, LineBuffer, SSL_SUFFIX};

use super::backend::Grant;
use super::config::{FaultAction, NfcServerConfig, OverLimit, Step, TicketRefusal};
use super::holding::Holding;
use super::metered::Metered;
use super::server::{Shared, ended, violation};

/// The half that is read.
pub(super) type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;
/// The half that is written.
pub(super) type WriteHalf = Box<dyn AsyncWrite + Send + Unpin>;

/// A connection that was handed over to the NFC service.
pub(super) struct HandedOver {
    pub(super) stream: (ReadHalf, WriteHalf),
    pub(super) grant: Grant,
    /// `THUMBPRINT_SHA2` was accepted.
    pub(super) expect_client_random: bool,
    /// The connection's place among those that the host allows.
    pub(super) place: Place,
}

/// A connection among those of the host, and among those of vCenter where its ticket is from there.
#[derive(Debug)]
pub(super) struct Place {
    _on_host: Holding,
    _via_vcenter: Option<Holding>,
}

const PLEASE_LOG_IN: &str = "530 Please login with USER and PASS";
const TOO_MANY: &str = "421 Too many connections";
/// The service of tickets from vCenter.
const VCENTER_SERVICE: &str = "vpxa-nfc";
const LOGIN_INCORRECT: &str = "530 Login incorrect";

/// Serves the daemon's part of a connection.
pub(super) async fn serve(
    mut tcp: Metered,
    shared: &Arc<Shared>,
    config: &Arc<NfcServerConfig>,
) -> io::Result<HandedOver> {
    let banner = format!("{}\r\n", config.gates().banner());
    match shared.injected.take(Step::Banner) {
        None => tcp.write_all(banner.as_bytes()).await?,
        Some(action) => answer_with(&mut tcp, action).await?,
    }
    let tls = accept(tcp, shared.identity.tls()).await?;
    let mut daemon = Daemon { tls, shared, config, lines: LineBuffer::default(), rest: Vec::new() };
    let Agreed { grant, ssl, expect_client_random, place } = daemon.run().await?;
    if !daemon.rest.is_empty() || !daemon.lines.is_empty() {
        return Err(violation("the client sent more after PROXY"));
    }
    if config.close_notify_at_hand_over {
        daemon.tls.get_mut().1.send_close_notify();
        daemon.tls.flush().await?;
    }
    // Abandoned without close_notify: the stream below goes on with something else.
    let (tcp, _) = daemon.tls.into_inner();
    let stream: (ReadHalf, WriteHalf) = if ssl {
        let identity = config.service_identity.as_ref().unwrap_or(&shared.identity);
        let (reader, writer) = tokio::io::split(accept(tcp, identity.tls()).await?);
        (Box::new(reader), Box::new(writer))
    } else {
        let (reader, writer) = tokio::io::split(tcp);
        (Box::new(reader), Box::new(writer))
    };
    Ok(HandedOver { stream, grant, expect_client_random, place })
}

async fn accept(tcp: Metered, config: Arc<ServerConfig>) -> io::Result<TlsStream<Metered>> {
    TlsAcceptor::from(config).accept(tcp).await
}

/// What the dialogue led to.
struct Agreed {
    grant: Grant,
    /// Whether the service is asked for with TLS.
    ssl: bool,
    /// `THUMBPRINT_SHA2` was accepted.
    expect_client_random: bool,
    place: Place,
}

struct Daemon<'a> {
    tls: TlsStream<Metered>,
    shared: &'a Arc<Shared>,
    config: &'a Arc<NfcServerConfig>,
    lines: LineBuffer,
    /// Decrypted bytes that are not yet in `lines`.
    rest: Vec<u8>,
}

impl Daemon<'_> {
    /// Answers commands until one hands the connection over.
    async fn run(&mut self) -> io::Result<Agreed> {
        let mut session = None;
        let mut thumbprint = false;
        loop {
            match Command::parse(&self.line().await?) {
                // No reply, whatever the id is.
                Command::Session(id) => session = Some(id.to_string()),
                Command::Banner => self.say(&self.config.gates().banner()).await?,
                Command::ThumbprintSha2(word) => {
                    if let Some(action) = self.shared.injected.take(Step::ThumbprintSha2) {
                        answer_with(&mut self.tls, action).await?;
                    } else if !self.config.gates().thumbprint_sha2 {
                        self.say(PLEASE_LOG_IN).await?;
                    } else if word.contains(':') {
                        self.say("501 Invalid arguments").await?;
                    } else {
                        let identity = match &self.config.service_identity {
                            Some(other) if !self.config.announce_wrong_thumbprint => other,
                            _ => &self.shared.identity,
                        };
                        self.say(&format!("200 {}", identity.thumbprint_sha256())).await?;
                        thumbprint = true;
                    }
                }
                Command::Proxy(service) => {
                    if let Some(action) = self.shared.injected.take(Step::Proxy) {
                        answer_with(&mut self.tls, action).await?;
                        continue;
                    }
                    let (service, ssl) = match service.strip_suffix(SSL_SUFFIX) {
                        Some(service) => (service.to_owned(), true),
                        None => (service, false),
                    };
                    let Some(place) = self.place(&service) else {
                        self.shared.counters.refuse();
                        match self.config.over_limit {
                            OverLimit::Line => self.say(TOO_MANY).await?,
                            OverLimit::Close => return Err(ended("too many connections")),
                            OverLimit::Silence => stall(&mut self.tls).await?,
                        }
                        continue;
                    };
                    if let Some(grant) = self.redeem(session.take(), service).await? {
                        let suffix = if ssl { SSL_SUFFIX } else { "" };
                        self.say(&format!("200 Connect ha-nfc{suffix}")).await?;
                        return Ok(Agreed { grant, ssl, expect_client_random: thumbprint, place });
                    }
                }
                _ => self.say(PLEASE_LOG_IN).await?,
            }
        }
    }

    /// A place for a connection to `service`, unless there are too many.
    fn place(&self, service: &str) -> Option<Place> {
        let counters = &self.shared.counters;
        let on_host = counters.handed_over.take(1, self.config.max_connections)?;
        let via_vcenter = match service {
            VCENTER_SERVICE => Some(counters.via_vcenter.take(1, self.config.max_connections_via_vcenter)?),
            _ => None,
        };
        Some(Place { _on_host: on_host, _via_vcenter: via_vcenter })
    }

    async fn redeem(&mut self, session: Option<String>, service: String) -> io::Result<Option<Grant>> {
        let Some(session) = session else {
            self.say(PLEASE_LOG_IN).await?;
            return Ok(None);
        };
        let backend = Arc::clone(&self.shared.backend);
        let redeemed = tokio::task::spawn_blocking(move || backend.redeem(&session, &service)).await;
        match redeemed.map_err(io::Error::other)? {
            Ok(grant) => Ok(Some(grant)),
            Err(why) => {
                tracing::debug!(%why, "an NFC ticket was refused");
                match self.config.ticket_refusal {
                    TicketRefusal::Line => self.say(LOGIN_INCORRECT).await?,
                    TicketRefusal::Close => return Err(ended("the ticket was refused")),
                }
                Ok(None)
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            let taken = self.lines.push(&self.rest).map_err(violation)?;
            self.rest.drain(..taken);
            if let Some(line) = self.lines.take_line() {
                return Ok(line);
            }
            if self.tls.read_buf(&mut self.rest).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn say(&mut self, line: &str) -> io::Result<()> {
        self.tls.write_all(format!("{line}\r\n").as_bytes()).await?;
        self.tls.flush().await
    }
}

/// Does an injected fault; returns when the dialogue may go on.
async fn answer_with(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), action: FaultAction) -> io::Result<()> {
    match action {
        FaultAction::Error { code, text } => stream.write_all(format!("{code} {text}\r\n").as_bytes()).await?,
        FaultAction::Bytes(bytes) => stream.write_all(&bytes).await?,
        FaultAction::Close | FaultAction::Complete => return Err(ended("closed by an injected fault")),
        FaultAction::Stall => return stall(stream).await,
    }
    stream.flush().await
}

/// Says nothing more until the client is gone.
pub(super) async fn stall(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    tokio::io::copy(stream, &mut tokio::io::sink()).await?;
    Err(ended("the client lost patience"))
}
