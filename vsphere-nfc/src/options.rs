//! How a disk is opened: every default and every time-out.

use std::time::Duration;

use crate::classic::ClassicQuirks;
use crate::hosts::NfcHosts;
use crate::ladder::Ladder;
use crate::quirks::Quirks;
use crate::retry::Retry;
use crate::trace::Recorder;
use crate::wire::compress::Compression;

/// Options of a disk handle. The defaults are meant to be right for ESXi 7 and 8.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NfcOptions {
    /// Encrypted or clear. Default: encrypted.
    pub channel: Channel,
    /// The buffers to ask for. Default: 4 of 1 MiB.
    pub buffers: Buffers,
    /// The buffers to ask for, on a new connection, when the first were refused. When a host is out
    /// of NFC memory even for these, their count is halved down to one; `None` keeps to the first.
    /// Default: 4 of 64 KiB, which are VDDK's own.
    pub fallback_buffers: Option<Buffers>,
    /// The compression wished for. Default: none.
    pub compression: CompressionWish,
    /// Reported to the host in its log. Default: `nbdmode`, as VDDK does.
    pub operation_id: String,
    /// Limits of waiting.
    pub timeouts: Timeouts,
    /// What to do with a ticket that names no certificate. Default: refuse.
    pub unpinned: UnpinnedTickets,
    /// Size of the socket's buffers in bytes; `None` leaves them to the system, which on Linux
    /// grows them as the line needs and further than an application may ask. Default: `None`.
    pub socket_buffer: Option<u32>,
    /// Chunks of one allocation query, at most 524288. Default: 16384.
    pub allocation_page: u32,
    /// Whether a disk that was opened for reading connects again, with a new ticket, after its
    /// connection was lost, and reads what is missing. Default: yes.
    pub reconnect: bool,
    /// How often, and after what pauses, that is tried; and how a host without NFC memory is waited
    /// for. Default: 5 times, within about 4 s.
    pub retry: Retry,
    /// A session that is idle for this long reads a sector, for hosts that drop idle ones: VMware
    /// suggests no more than to read now and then. Never reads where a write is under way. Reading
    /// handles connect again anyway; for writing ones a minute is a good choice. Default: never.
    pub keep_alive: Option<Duration>,
    /// What the client asks of a host, and whether it settles for less. Default: all of it, and yes.
    pub ladder: Ladder,
    /// SHA-1 signatures of hosts of 6.5 and 6.7. Default: not accepted.
    pub legacy_tls: LegacyTls,
    /// What is known of hosts. Shared by the clones of these options. Default: nothing.
    pub hosts: NfcHosts,
    /// Whether only the file itself is opened, without its parents: what it does not hold reads as zeros. Refused by
    /// hosts without the asynchronous layer. Default: no.
    pub single_link: bool,
    /// Keeps what is said on every connection, scrubbed. Default: nobody listens.
    pub trace: Option<Recorder>,
    /// The disk's size in bytes, for hosts before ESXi 6.7, which do not tell it, where
    /// [`TicketSource::capacity`](crate::TicketSource::capacity) knows none. Default: `None`.
    pub capacity_hint: Option<u64>,
    /// Doubtful facts about the servers.
    pub quirks: Quirks,
    /// Doubtful facts about the synchronous layer of hosts before ESXi 6.7.
    pub classic_quirks: ClassicQuirks,
}

impl Default for NfcOptions {
    fn default() -> Self {
        Self {
            channel: Channel::Tls,
            buffers: Buffers { size: 1024 * 1024, count: 4 },
            fallback_buffers: Some(Buffers { size: 64 * 1024, count: 4 }),
            compression: CompressionWish::None,
            operation_id: "nbdmode".to_owned(),
            timeouts: Timeouts::default(),
            unpinned: UnpinnedTickets::Refuse,
            socket_buffer: None,
            allocation_page: 16384,
            reconnect: true,
            retry: Retry::default(),
            keep_alive: None,
            ladder: Ladder::Auto,
            legacy_tls: LegacyTls::Never,
            hosts: NfcHosts::new(),
            single_link: false,
            trace: None,
            capacity_hint: None,
            quirks: Quirks::default(),
            classic_quirks: ClassicQuirks::default(),
        }
    }
}

impl NfcOptions {
    /// Chooses between encrypted and clear.
    #[must_use]
    pub fn channel(mut self, channel: Channel) -> Self {
        self.channel = channel;
        self
    }

    /// Asks for `count` buffers of `size` bytes.
    #[must_use]
    pub fn buffers(mut self, size: u32, count: u32) -> Self {
        self.buffers = Buffers { size, count };
        self
    }

    /// Wishes for compression.
    #[must_use]
    pub fn compression(mut self, wish: CompressionWish) -> Self {
        self.compression = wish;
        self
    }

    /// Sets the limits of waiting.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Sets how often, and after what pauses, a lost connection is made anew.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Reads a sector whenever a session was idle for `idle`.
    #[must_use]
    pub fn keep_alive(mut self, idle: Duration) -> Self {
        self.keep_alive = Some(idle);
        self
    }

    /// Sets what is asked of hosts.
    #[must_use]
    pub fn ladder(mut self, ladder: Ladder) -> Self {
        self.ladder = ladder;
        self
    }

    /// Allows SHA-1 signatures in TLS.
    #[must_use]
    pub fn legacy_tls(mut self, legacy: LegacyTls) -> Self {
        self.legacy_tls = legacy;
        self
    }

    /// Shares what is known of hosts with others.
    #[must_use]
    pub fn hosts(mut self, hosts: &NfcHosts) -> Self {
        self.hosts = hosts.clone();
        self
    }

    /// Opens only the file itself, without its parents.
    #[doc(alias = "VIXDISKLIB_FLAG_OPEN_SINGLE_LINK")]
    #[must_use]
    pub fn single_link(mut self, single_link: bool) -> Self {
        self.single_link = single_link;
        self
    }

    /// Has `recorder` listen to every connection.
    #[must_use]
    pub fn trace(mut self, recorder: &Recorder) -> Self {
        self.trace = Some(recorder.clone());
        self
    }

    /// Sets the switches for doubtful facts.
    #[must_use]
    pub fn quirks(mut self, quirks: Quirks) -> Self {
        self.quirks = quirks;
        self
    }

    /// Says how large the disk is, for hosts that do not.
    #[must_use]
    pub fn capacity_hint(mut self, bytes: u64) -> Self {
        self.capacity_hint = Some(bytes);
        self
    }

    /// The first thing that is wrong with the options.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        for buffers in [Some(self.buffers), self.fallback_buffers].into_iter().flatten() {
            let in_range = (1..=64).contains(&buffers.count) && buffers.size <= 64 * 1024 * 1024;
            if buffers.size == 0 || buffers.size % (64 * 1024) != 0 || !in_range {
                return Err("buffers must be multiples of 64 KiB up to 64 MiB, and 1 to 64 of them");
            }
        }
        if !(1..=524_288).contains(&self.allocation_page) {
            return Err("an allocation page must have 1 to 524288 chunks");
        }
        if self.operation_id.len() > 256 {
            return Err("the operation id must have at most 256 bytes");
        }
        if self.keep_alive.is_some_and(|idle| idle < Duration::from_millis(10)) {
            return Err("a keep-alive must leave at least 10 ms between its reads");
        }
        self.quirks.check()
    }
}

/// How data travels once the daemon has handed the connection over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Channel {
    /// Inside a second TLS session on the same connection: VMware's `nbdssl`.
    #[doc(alias = "nbdssl")]
    #[default]
    Tls,
    /// Without encryption: VMware's `nbd`. The ticket is still sent inside TLS.
    #[doc(alias = "nbd")]
    Clear,
}

/// Session buffers. Their product is what may be in flight.
///
/// Known of ESXi 8: 2 MiB times 4 is accepted, 16 MiB is refused; documented: at most 16 MiB in all
/// and multiples of 64 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffers {
    /// Bytes of a buffer, a multiple of 64 KiB.
    pub size: u32,
    /// How many.
    pub count: u32,
}

impl Buffers {
    /// Bytes that may be in flight.
    pub fn budget(&self) -> u64 {
        u64::from(self.size) * u64::from(self.count)
    }
}

/// The compression that requests wish for. A server may always send data as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum CompressionWish {
    /// None.
    #[default]
    None,
    /// zlib at its fastest level; written data is compressed too.
    Zlib,
    /// FastLZ: less work and less effect than zlib; written data is compressed too.
    FastLz,
    /// Zeros are left out and nothing else is done; in written data too.
    SkipZ,
}

impl CompressionWish {
    pub(crate) fn on_wire(self) -> Compression {
        match self {
            Self::None => Compression::None,
            Self::Zlib => Compression::Zlib,
            Self::FastLz => Compression::FastLz,
            Self::SkipZ => Compression::SkipZ,
        }
    }
}

/// Whether handshakes offer SHA-1 signatures.
///
/// Hosts of ESXi 6.5 and 6.7.0 may have SHA-1-signed certificates, and answer a handshake without
/// such signatures with an alert. The certificate is pinned by the ticket all the same; what gets
/// weaker is the proof that the host has its key.
///
/// This covers RSA with SHA-1 in TLS 1.2. What the TLS library behind this crate cannot do: TLS 1.0
/// and 1.1, key exchange with RSA or DHE, ciphers in CBC mode, ECDSA with SHA-1. A host that offers
/// nothing else is out of reach, whatever is chosen here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum LegacyTls {
    /// Never.
    #[default]
    Never,
    /// When the host finds nothing in common with a modern handshake: once more on a new connection,
    /// with the same ticket, which is not used up by then. Logged as a warning, and remembered.
    OnHandshakeFailure,
    /// From the start.
    Always,
}

/// What to do with a ticket that has neither thumbprint nor certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum UnpinnedTickets {
    /// Refuse to connect.
    #[default]
    Refuse,
    /// Connect to whoever answers. The ticket and all data can be read by someone in between.
    Accept,
}

/// Limits of waiting, by phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// Looking up the host and connecting. Default: 30 s.
    pub connect: Duration,
    /// The daemon's dialogue and both TLS handshakes, each. Default: 60 s.
    pub authd: Duration,
    /// Every step of the session start, up to the open disk. Default: 3 min, as VMware suggests.
    pub session: Duration,
    /// A read, from being sent to its last byte. Default: 1 min.
    pub read: Duration,
    /// A write, from being sent to its reply. Default: 10 min.
    pub write: Duration,
    /// Allocation queries and look-ups. Default: 3 min.
    pub query: Duration,
    /// Closing, as a whole. Default: 30 s.
    pub close: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            authd: Duration::from_secs(60),
            session: Duration::from_secs(180),
            read: Duration::from_secs(60),
            write: Duration::from_secs(600),
            query: Duration::from_secs(180),
            close: Duration::from_secs(30),
        }
    }
}

impl Timeouts {
    /// The same limit for everything.
    pub fn all(limit: Duration) -> Self {
        Self { connect: limit, authd: limit, session: limit, read: limit, write: limit, query: limit, close: limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(NfcOptions::default().check(), Ok(()));
    }

    #[test]
    fn odd_buffers_are_refused_before_anything_is_sent() {
        for (size, count) in [(0, 4), (65536, 0), (65537, 4), (65536, 65), (128 << 20, 1)] {
            assert!(NfcOptions::default().buffers(size, count).check().is_err());
        }
    }
}
