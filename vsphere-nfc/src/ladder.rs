//! How a session is started: from the most that a host may understand down to the least.
//!
//! A host that does not know a message of the session start answers with another one, or closes the
//! connection. The session is then tried without the message, on a new connection with a new
//! ticket, and what worked is remembered for the host ([`NfcHosts`](crate::NfcHosts)). What has
//! nothing to do with the messages (a ticket, a certificate, a disk that is in use) fails at once.

use std::fmt;
use std::sync::Arc;

use crate::aio::Connection;
use crate::disk::Mode;
use crate::error::{Error, Phase, Result};
use crate::hosts::Known;
use crate::options::{Buffers, NfcOptions};
use crate::retry::Patience;
use crate::ticket::{ServerVersion, Ticket, TicketSource};
use crate::wire::classic::VERSION_CONNECTION_DATA;

/// A way to start a session. Each asks less of the host than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rung {
    /// Everything that banner and versions allow: ESXi 8 needs no less, ESXi 7 gets no more than it
    /// understands.
    Full,
    /// Without `THUMBPRINT_SHA2` and message 43.
    WithoutClientRandom,
    /// Without messages 54 and 55 too.
    WithoutConnectionData,
    /// Without the asynchronous layer: FSSRVR, for reading, one request after the other. All that
    /// ESXi 6.0 has. The disk's size has to be known ([`TicketSource::capacity`]); allocation and
    /// metadata are not to be had ([`Error::NotOffered`]).
    Synchronous,
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::WithoutClientRandom => "without 43",
            Self::WithoutConnectionData => "without 43, 54 and 55",
            Self::Synchronous => "synchronous",
        })
    }
}

/// Where a session starts, and whether it settles for less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Ladder {
    /// Where the host's version says, or on the rung that worked last, and down from there.
    #[default]
    Auto,
    /// On this rung, and down from there.
    From(Rung),
    /// On this rung and no other.
    Only(Rung),
}

/// What a connection is made for.
pub(crate) struct Target {
    pub(crate) tickets: Arc<dyn TicketSource>,
    pub(crate) path: Arc<str>,
    pub(crate) mode: Mode,
    pub(crate) options: NfcOptions,
}

impl Target {
    /// The disk's size, as far as it is known without the host.
    pub(crate) fn capacity(&self) -> Option<u64> {
        self.tickets.capacity().or(self.options.capacity_hint)
    }
}

/// What one try asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) rung: Rung,
    pub(crate) buffers: Buffers,
}

/// What one try found out, also when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Found {
    /// The banner says `SHA256 supported`: ESXi 8.
    pub(crate) banner_sha256: bool,
    /// Message 43 was sent.
    pub(crate) client_random: bool,
    /// Message 54 or 55 was sent.
    pub(crate) connection_data: bool,
    /// What message 51 said.
    pub(crate) server_version: Option<u32>,
    /// The handshakes offered SHA-1 signatures.
    pub(crate) legacy_tls: bool,
}

impl Found {
    /// The host is known to have the asynchronous layer.
    fn is_modern(&self, known: Option<Known>) -> bool {
        let modern = |version: u32| version >= VERSION_CONNECTION_DATA;
        let told = known.is_some_and(|known| {
            matches!(known.version, ServerVersion::Known(version) if modern(version))
                || known.rung.is_some_and(|rung| rung != Rung::Synchronous)
        });
        self.banner_sha256 || self.server_version.is_some_and(modern) || told
    }
}

/// Opens the disk: down the ladder, with fewer buffers where they are refused, patient where the
/// host is out of memory.
pub(crate) async fn connect(target: &Target, buffers: Buffers) -> Result<Connection> {
    let options = &target.options;
    let mut patience = Patience::new(options.retry);
    let mut setup = Setup { rung: Rung::Full, buffers };
    // By host: the machine may move between two tries, and back.
    let mut descents: Vec<Descent> = Vec::new();
    let mut ticket_retried = false;
    loop {
        let ticket = target.tickets.ticket().await.map_err(Error::Ticket)?;
        let endpoint: Arc<str> = ticket.endpoint().into();
        let known = learn_version(target, &endpoint).await;
        let descent = descents.iter().position(|descent| descent.endpoint == endpoint);
        setup.rung = match descent {
            Some(at) => descents[at].rung,
            None => first_rung(options.ladder, known, target.mode),
        };
        let mut found = Found::default();
        let error = match Connection::open(&ticket, target, &setup, &mut found).await {
            Ok(connection) => {
                options.hosts.learn(&endpoint, |known| {
                    known.rung = Some(setup.rung);
                    known.legacy_tls |= found.legacy_tls;
                });
                report(target, &connection);
                return Ok(connection);
            }
            Err(error) => error,
        };
        if is_start_failure(&error) {
            let synchronous = target.mode == Mode::ReadOnly && target.capacity().is_some() && !found.is_modern(known);
            let Some(rung) = next_rung(options.ladder, setup.rung, &found, synchronous) else {
                return Err(descent.map_or(error, |at| descents.swap_remove(at).first));
            };
            tracing::info!(%endpoint, %error, from = %setup.rung, to = %rung, "asking less of an NFC host");
            match descent {
                Some(at) => descents[at].rung = rung,
                None => descents.push(Descent { endpoint, rung, first: error }),
            }
        } else if is_out_of_memory(&error) {
            if !patience.wait().await {
                return Err(error);
            }
            setup.buffers = fewer(setup.buffers, options);
            tracing::warn!(%endpoint, %error, size = setup.buffers.size, count = setup.buffers.count,
                "an NFC host is out of memory; trying again");
        } else if are_buffers_refused(&error) && Some(setup.buffers) != options.fallback_buffers {
            let Some(smaller) = options.fallback_buffers else { return Err(error) };
            tracing::info!(%endpoint, %error, size = smaller.size, count = smaller.count, "trying smaller NFC buffers");
            setup.buffers = smaller;
        } else if is_ticket_refused(&error) && !ticket_retried {
            ticket_retried = true;
            tracing::info!(%endpoint, %error, "trying another ticket");
        } else {
            return Err(error);
        }
    }
}

/// The way down on one host.
struct Descent {
    endpoint: Arc<str>,
    /// What comes next.
    rung: Rung,
    /// The most capable try says most about what is wrong.
    first: Error,
}

/// Asks for the host's version, once.
async fn learn_version(target: &Target, endpoint: &Arc<str>) -> Option<Known> {
    let hosts = &target.options.hosts;
    if target.options.ladder != Ladder::Auto {
        return hosts.known(endpoint);
    }
    if hosts.known(endpoint).is_none() {
        let version = target.tickets.server_version().await;
        tracing::debug!(%endpoint, ?version, "NFC library of a host");
        hosts.learn(endpoint, |known| known.version = version);
    }
    hosts.known(endpoint)
}

fn first_rung(ladder: Ladder, known: Option<Known>, mode: Mode) -> Rung {
    match (ladder, known) {
        (Ladder::From(rung) | Ladder::Only(rung), _) => rung,
        (Ladder::Auto, None) => Rung::Full,
        (Ladder::Auto, Some(known)) => {
            let by_version = match known.version {
                // Writing needs more; perhaps the host has it all the same.
                ServerVersion::Missing if mode == Mode::ReadOnly => Rung::Synchronous,
                ServerVersion::Missing => Rung::WithoutConnectionData,
                ServerVersion::Known(version) if version < VERSION_CONNECTION_DATA => Rung::WithoutConnectionData,
                _ => Rung::Full,
            };
            match known.rung {
                // It was a handle for reading that settled for this.
                Some(Rung::Synchronous) if mode == Mode::ReadWrite => Rung::WithoutConnectionData,
                rung => rung.unwrap_or(by_version),
            }
        }
    }
}

/// The next rung that says something else to the host than the last one did.
fn next_rung(ladder: Ladder, current: Rung, found: &Found, synchronous: bool) -> Option<Rung> {
    if matches!(ladder, Ladder::Only(_)) {
        return None;
    }
    let differs = |rung: &Rung| match rung {
        Rung::Full => false,
        Rung::WithoutClientRandom => found.client_random,
        Rung::WithoutConnectionData => found.client_random || found.connection_data,
        Rung::Synchronous => synchronous,
    };
    let below = [Rung::WithoutClientRandom, Rung::WithoutConnectionData, Rung::Synchronous];
    below.into_iter().filter(|rung| *rung > current).find(differs)
}

/// The host did not understand how the session was to start.
fn is_start_failure(error: &Error) -> bool {
    matches!(
        error,
        Error::StartRefused { .. }
            | Error::Server { phase: Phase::SessionStart, .. }
            | Error::Protocol { phase: Phase::SessionStart, .. }
            | Error::Disconnected { phase: Phase::SessionStart, .. }
    )
}

/// Others may give memory back.
pub(crate) fn is_out_of_memory(error: &Error) -> bool {
    matches!(error, Error::OutOfNfcMemory { .. })
}

fn are_buffers_refused(error: &Error) -> bool {
    matches!(error, Error::SessionRefused { .. } | Error::Disconnected { phase: Phase::OpenSession, .. })
}

/// Used, expired, or not yet known to the host.
fn is_ticket_refused(error: &Error) -> bool {
    matches!(error, Error::AuthdRefused { command: "PROXY", line, .. } if line.starts_with("530"))
}

/// Buffers for a host that has no memory for `buffers`.
pub(crate) fn fewer(buffers: Buffers, options: &NfcOptions) -> Buffers {
    match options.fallback_buffers {
        None => buffers,
        Some(smaller) if smaller.budget() < buffers.budget() => smaller,
        Some(_) => Buffers { count: (buffers.count / 2).max(1), ..buffers },
    }
}

/// The one line that says how a disk is read.
fn report(target: &Target, connection: &Connection) {
    let info = connection.info();
    tracing::info!(
        endpoint = %info.endpoint,
        path = %target.path,
        rung = %info.rung,
        client_version = target.options.quirks.version,
        server_version = info.server_version,
        channel = ?target.options.channel,
        tls = info.tls_version.as_deref().unwrap_or("none"),
        legacy_tls = info.legacy_tls,
        buffer_size = info.buffers.size,
        buffer_count = info.buffers.count,
        capacity = connection.disk.capacity,
        "NFC disk open"
    );
    tracing::debug!(quirks = ?target.options.quirks, "doubtful facts are taken as");
}

impl Ticket {
    /// Host and port.
    fn endpoint(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::NfcHosts;

    fn known(version: ServerVersion, rung: Option<Rung>) -> Option<Known> {
        let hosts = NfcHosts::new();
        hosts.learn(&"esx:902".into(), |known| (known.version, known.rung) = (version, rung));
        hosts.known("esx:902")
    }

    #[test]
    fn way_down_skips_what_would_say_the_same_again() {
        let all = Found { client_random: true, connection_data: true, ..Found::default() };
        let plain = Found::default();
        let data = Found { connection_data: true, ..plain };
        let next = |rung, found: &Found, synchronous| next_rung(Ladder::Auto, rung, found, synchronous);
        assert_eq!(next(Rung::Full, &all, true), Some(Rung::WithoutClientRandom));
        assert_eq!(next(Rung::Full, &data, true), Some(Rung::WithoutConnectionData));
        assert_eq!(next(Rung::Full, &plain, true), Some(Rung::Synchronous));
        assert_eq!(next(Rung::Full, &plain, false), None);
        assert_eq!(next(Rung::WithoutClientRandom, &data, false), Some(Rung::WithoutConnectionData));
        assert_eq!(next(Rung::WithoutConnectionData, &plain, true), Some(Rung::Synchronous));
        assert_eq!(next(Rung::Synchronous, &plain, true), None);
        assert_eq!(next_rung(Ladder::Only(Rung::Full), Rung::Full, &all, true), None);
    }

    #[test]
    fn first_rung_follows_what_worked_then_the_version() {
        let first = |version, rung| first_rung(Ladder::Auto, known(version, rung), Mode::ReadOnly);
        assert_eq!(first(ServerVersion::Unknown, None), Rung::Full);
        assert_eq!(first(ServerVersion::Known(11), None), Rung::Full);
        assert_eq!(first(ServerVersion::Known(2), None), Rung::WithoutConnectionData);
        assert_eq!(first(ServerVersion::Missing, None), Rung::Synchronous);
        assert_eq!(first(ServerVersion::Known(11), Some(Rung::WithoutClientRandom)), Rung::WithoutClientRandom);
        let synchronous = known(ServerVersion::Known(0), Some(Rung::Synchronous));
        assert_eq!(first_rung(Ladder::Auto, synchronous, Mode::ReadWrite), Rung::WithoutConnectionData);
        assert_eq!(first_rung(Ladder::Only(Rung::Full), synchronous, Mode::ReadOnly), Rung::Full);
    }

    #[test]
    fn modern_host_never_falls_to_the_synchronous_layer() {
        let banner = Found { banner_sha256: true, ..Found::default() };
        let version = Found { server_version: Some(7), ..Found::default() };
        assert!(banner.is_modern(None) && version.is_modern(None));
        assert!(Found::default().is_modern(known(ServerVersion::Known(7), None)));
        assert!(Found::default().is_modern(known(ServerVersion::Unknown, Some(Rung::Full))));
        assert!(!Found::default().is_modern(known(ServerVersion::Known(2), None)));
        assert!(!Found { server_version: Some(2), ..Found::default() }.is_modern(None));
    }

    #[test]
    fn buffers_shrink_to_the_smaller_ones_and_then_to_one() {
        let options = NfcOptions::default();
        let mut buffers = options.buffers;
        let mut seen = Vec::new();
        for _ in 0..4 {
            buffers = fewer(buffers, &options);
            seen.push((buffers.size, buffers.count));
        }
        assert_eq!(seen, [(65536, 4), (65536, 2), (65536, 1), (65536, 1)]);
        let fixed = NfcOptions { fallback_buffers: None, ..NfcOptions::default() };
        assert_eq!(fewer(fixed.buffers, &fixed), fixed.buffers);
    }
}
