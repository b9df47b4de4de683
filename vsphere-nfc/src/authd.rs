//! The dialogue with the authentication daemon on port 902.
//!
//! ```text
//! S 220 ... SSL Required ...          in clear
//!   TLS handshake
//! C SESSION <ticket>                  no reply
//! C THUMBPRINT_SHA2 PlainText         only where the banner knows it
//! S 200 <SHA-256>
//! C PROXY vpxa-nfcssl
//! S 200 Connect ha-nfcssl             the TLS session is abandoned here
//! ```

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use crate::dial;
use crate::error::{Blame, Error, Phase, Result};
use crate::ladder::Rung;
use crate::options::{Channel, NfcOptions};
use crate::quirks::ThumbprintSha2;
use crate::ticket::Ticket;
use crate::tls::records::RecordTls;
use crate::tls::{self, Offer, Pin, Trust};
use crate::wire::authd::{Banner, Command, LineBuffer, Reply, SSL_SUFFIX};

/// A connection that the daemon has handed over.
pub(crate) struct HandedOver {
    pub(crate) tcp: TcpStream,
    /// `None`: THUMBPRINT_SHA2 was not sent or not accepted. `Some(None)`: accepted, but the reply
    /// is no SHA-256 thumbprint.
    pub(crate) announced: Option<Option<Pin>>,
}

/// A daemon that has been greeted and is trusted. It has not seen the ticket.
pub(crate) struct Daemon<'a> {
    blame: &'a Blame,
    banner: Banner,
    talk: Talk,
    lines: LineBuffer,
    /// Bytes that are not yet in `lines`.
    rest: Vec<u8>,
}

/// Reads the daemon's first line, and shakes hands.
pub(crate) async fn reach<'a>(
    blame: &'a Blame,
    mut tcp: TcpStream,
    ticket: &Ticket,
    trust: &Trust,
    offer: Offer,
    options: &NfcOptions,
) -> Result<Daemon<'a>> {
    let limit = options.timeouts.authd;
    let banner = blame.within(Phase::Banner, limit, banner(blame, ticket, &mut tcp)).await?;
    tracing::debug!(endpoint = %blame.endpoint, banner = %shown(&banner.line, ticket), "authd");
    let talk = if banner.ssl {
        let (config, seen) = dial::client_config(blame, Phase::AuthdTls, trust.clone(), offer)?;
        let name = tls::server_name(&ticket.host);
        let session = blame
            .within(Phase::AuthdTls, limit, async {
                RecordTls::handshake(tcp, config, name)
                    .await
                    .map_err(|error| dial::tls_error(blame, Phase::AuthdTls, &seen, &error))
            })
            .await?;
        tracing::debug!(endpoint = %blame.endpoint, version = ?session.version(), ?offer, "authd TLS");
        Talk::Tls(Box::new(session))
    } else if options.quirks.clear_authd {
        tracing::warn!(endpoint = %blame.endpoint, "the ticket is sent in clear: the daemon offers no TLS");
        Talk::Clear(tcp)
    } else {
        // Only releases long out of support; the ticket would travel in clear.
        return Err(Error::Tls {
            endpoint: Arc::clone(&blame.endpoint),
            phase: Phase::AuthdTls,
            reason: "the daemon does not offer TLS".to_owned(),
            nothing_in_common: false,
        });
    };
    Ok(Daemon { blame, banner, talk, lines: LineBuffer::default(), rest: Vec::new() })
}

/// Reads the first line, and not a byte more.
async fn banner(blame: &Blame, ticket: &Ticket, tcp: &mut TcpStream) -> Result<Banner> {
    let failed = |error: io::Error| blame.io(Phase::Banner, &error);
    let mut lines = LineBuffer::default();
    let mut bytes = [0; 1024];
    loop {
        let waiting = tcp.peek(&mut bytes).await.map_err(failed)?;
        if waiting == 0 {
            return Err(blame.lost(Phase::Banner, "the other side closed it"));
        }
        let taken = lines.push(&bytes[..waiting]).map_err(|error| blame.wire(Phase::Banner, &error))?;
        tcp.read_exact(&mut bytes[..taken]).await.map_err(failed)?;
        if let Some(line) = lines.take_line() {
            return Banner::parse(&line).map_err(|_| refused(blame, ticket, "the connection", &line));
        }
    }
}

fn refused(blame: &Blame, ticket: &Ticket, command: &'static str, line: &str) -> Error {
    let line = shown(line, ticket);
    Error::AuthdRefused { endpoint: Arc::clone(&blame.endpoint), command, line }
}

/// A line of the daemon as it may be told: it cannot break a log line, and a daemon that repeats what it was
/// sent does not give the ticket away.
fn shown(line: &str, ticket: &Ticket) -> String {
    let line = crate::wire::fault::text(line.as_bytes());
    match ticket.session_id.expose() {
        "" => line,
        secret => line.replace(secret, "(redacted)"),
    }
}

/// The SHA-256 thumbprint in a reply. Anything shorter would weaken what the ticket says.
fn thumbprint_of(reply: &Reply) -> Option<Pin> {
    reply.text.parse::<Pin>().ok().filter(|pin| matches!(pin, Pin::Sha256(_)))
}

impl Daemon<'_> {
    pub(crate) fn banner(&self) -> &Banner {
        &self.banner
    }

    /// Presents the ticket and asks for the service.
    pub(crate) async fn hand_over(self, ticket: &Ticket, rung: Rung, options: &NfcOptions) -> Result<HandedOver> {
        let blame = self.blame;
        blame.within(Phase::Authd, options.timeouts.authd, self.run(ticket, rung, options)).await
    }

    async fn run(mut self, ticket: &Ticket, rung: Rung, options: &NfcOptions) -> Result<HandedOver> {
        self.send(&Command::Session(Zeroizing::new(ticket.session_id.expose().to_owned()))).await?;
        if options.quirks.ask_banner {
            let line = self.ask(&Command::Banner).await?;
            Banner::parse(&line).map_err(|_| refused(self.blame, ticket, "BANNER", &line))?;
        }
        let wished = match options.quirks.thumbprint_sha2 {
            ThumbprintSha2::Auto => self.banner.sha256,
            ThumbprintSha2::Always => true,
            ThumbprintSha2::Never => false,
        };
        let mut announced = None;
        if wished && rung == Rung::Full {
            let line = self.ask(&Command::ThumbprintSha2(options.quirks.client_random.clone())).await?;
            let reply = self.reply(&line)?;
            if reply.code == 200 {
                announced = Some(thumbprint_of(&reply));
            } else {
                let line = shown(&line, ticket);
                tracing::debug!(endpoint = %self.blame.endpoint, %line, "THUMBPRINT_SHA2 refused");
            }
        }
        let service = match options.channel {
            Channel::Tls if ticket.service.ends_with(SSL_SUFFIX) => ticket.service.clone(),
            Channel::Tls => format!("{}{SSL_SUFFIX}", ticket.service),
            Channel::Clear => ticket.service.clone(),
        };
        let line = self.ask(&Command::Proxy(service)).await?;
        if self.reply(&line)?.code != 200 {
            return Err(refused(self.blame, ticket, "PROXY", &line));
        }
        if !self.rest.is_empty() || !self.lines.is_empty() {
            // The client speaks first on the service: whatever this is, it is not NFC.
            return Err(self.blame.protocol(Phase::Authd, "there are bytes after the last reply"));
        }
        Ok(HandedOver { tcp: self.talk.into_tcp(), announced })
    }

    async fn ask(&mut self, command: &Command) -> Result<String> {
        self.send(command).await?;
        self.line().await
    }

    async fn send(&mut self, command: &Command) -> Result<()> {
        let bytes =
            command.encode().map_err(|_| Error::InvalidTicket("its session id or service has control characters"))?;
        self.talk.send(&bytes).await.map_err(|error| self.failed(&error))
    }

    async fn line(&mut self) -> Result<String> {
        loop {
            let taken = self.lines.push(&self.rest).map_err(|error| self.blame.wire(Phase::Authd, &error))?;
            self.rest.drain(..taken);
            if let Some(line) = self.lines.take_line() {
                return Ok(line);
            }
            if let Err(error) = self.talk.receive(&mut self.rest).await {
                return Err(self.failed(&error));
            }
        }
    }

    fn reply(&self, line: &str) -> Result<Reply> {
        Reply::parse(line).map_err(|error| self.blame.wire(Phase::Authd, &error))
    }

    fn failed(&self, error: &io::Error) -> Error {
        dial::tls_error(self.blame, Phase::Authd, &tls::Seen::default(), error)
    }
}

/// What commands and replies travel in.
enum Talk {
    Tls(Box<RecordTls>),
    Clear(TcpStream),
}

impl Talk {
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tls(session) => session.send(bytes).await,
            Self::Clear(tcp) => tcp.write_all(bytes).await,
        }
    }

    /// Waits for bytes and appends them.
    async fn receive(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Tls(session) => session.receive(into).await,
            Self::Clear(tcp) => match tcp.read_buf(into).await? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(()),
            },
        }
    }

    fn into_tcp(self) -> TcpStream {
        match self {
            Self::Tls(session) => session.into_tcp(),
            Self::Clear(tcp) => tcp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sha_256_thumbprint_takes_the_place_of_the_tickets() {
        let reply = |text: &str| Reply { code: 200, text: text.to_owned() };
        let (long, short) = (Pin::sha256_of(b"certificate"), Pin::sha1_of(b"certificate"));
        assert_eq!(thumbprint_of(&reply(&long.to_string())), Some(long));
        assert_eq!(thumbprint_of(&reply(&short.to_string())), None);
        assert_eq!(thumbprint_of(&reply("Connect ha-nfc")), None);
    }

    /// A daemon without TLS, for one connection: its end of the dialogue.
    async fn daemon_in_clear(listener: tokio::net::TcpListener) -> String {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"220 VMware Authentication Daemon Version 1.0\r\n").await.unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"PROXY nfc\r\n") {
            if tcp.read_buf(&mut said).await.unwrap() == 0 {
                return String::from_utf8(said).unwrap();
            }
        }
        tcp.write_all(b"200 Connect ha-nfc\r\n").await.unwrap();
        String::from_utf8(said).unwrap()
    }

    #[tokio::test]
    async fn daemon_without_tls_gets_the_ticket_only_when_that_is_allowed() {
        for allowed in [false, true] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let daemon = tokio::spawn(daemon_in_clear(listener));
            let ticket = Ticket {
                host: "127.0.0.1".to_owned(),
                port: 902,
                pin: None,
                service: "nfc".to_owned(),
                session_id: crate::ticket::SessionId::new("52-secret"),
            };
            let mut options = NfcOptions::default().channel(Channel::Clear);
            options.quirks.clear_authd = allowed;
            let blame = Blame::new("127.0.0.1", 902, &Arc::from("[ds] a.vmdk"));
            let offer = Offer { legacy: false, tls13: true };
            match reach(&blame, tcp, &ticket, &Trust::Anyone, offer, &options).await {
                Err(error) => assert!(!allowed && matches!(error, Error::Tls { .. }), "{error}"),
                Ok(reached) => {
                    assert!(allowed && reached.hand_over(&ticket, Rung::Full, &options).await.is_ok());
                }
            }
            let said = daemon.await.unwrap();
            assert_eq!(said, if allowed { "SESSION 52-secret\r\nPROXY nfc\r\n" } else { "" });
        }
    }
}
