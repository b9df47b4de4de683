//! How a disk is opened: every default, every time-out, and a switch for every fact about real
//! hosts that is not proved.

use std::time::Duration;

use crate::trace::Recorder;
use crate::wire::authd;
use crate::wire::classic;
use crate::wire::compress::Compression;

/// Options of a disk handle. The defaults are meant to be right for ESXi 7 and 8.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NfcOptions {
    /// Encrypted or clear. Default: encrypted.
    pub channel: Channel,
    /// The buffers to ask for. Default: 4 of 1 MiB.
    pub buffers: Buffers,
    /// The buffers to ask for, on a new connection, when the first were refused. Default: 4 of
    /// 64 KiB, which are VDDK's own.
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
    /// connection was lost. Default: yes.
    pub reconnect: bool,
    /// Keeps what is said on every connection, scrubbed. Default: nobody listens.
    pub trace: Option<Recorder>,
    /// Doubtful facts about the servers.
    pub quirks: Quirks,
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
            trace: None,
            quirks: Quirks::default(),
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
        if self.operation_id.len() > 256 || self.quirks.client_name.len() > 256 {
            return Err("the operation id and the client's name must have at most 256 bytes");
        }
        if self.quirks.client_random.len() > 260 {
            return Err("the client's random word must have at most 260 bytes");
        }
        Ok(())
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

/// Facts about servers that rest on a capture of one release or on inference. The defaults are what
/// was captured from VDDK 8 with ESXi 8; each can be changed without a new release of this crate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quirks {
    /// When `THUMBPRINT_SHA2`, and with it message 43, is sent. Default: when the banner says so.
    pub thumbprint_sha2: ThumbprintSha2,
    /// The word of `THUMBPRINT_SHA2` and of message 43. Default: VDDK's constant `PlainText`.
    pub client_random: String,
    /// Whether `BANNER` is sent, as VDDK does. Default: no.
    pub ask_banner: bool,
    /// Whether the second certificate is checked against the reply to `THUMBPRINT_SHA2`, when that
    /// is a SHA-256 thumbprint, and not against the ticket. Default: yes.
    pub trust_announced_thumbprint: bool,
    /// Whether a reply 36 that does not announce the version message ends the start. Default: yes.
    pub require_version_flag: bool,
    /// The version told in message 51. Default: 11.
    pub version: u32,
    /// Whether message 54 is sent to servers of version 3 and later. Default: yes.
    pub send_connection_data: bool,
    /// The client's name in message 54. Default: `vddk`.
    pub client_name: String,
    /// The value of message 55 (1 interruption, 2 host switch), `None` to leave it out.
    /// Default: 3, as captured.
    pub send_features: Option<u32>,
    /// Whether SET_SOCK_OPTS is sent. Default: yes.
    pub set_sock_opts: bool,
    /// The pool of SET_RES_POOL, `None` to leave it out. Default: 1.
    pub set_res_pool: Option<u32>,
    /// Whether closing waits for the server's answer to the last classic message. Default: no.
    pub await_session_complete: bool,
    /// The most bytes of one read or write request; `None` means one buffer, which keeps several
    /// requests in flight. VDDK sends one request of any length. Default: `None`.
    pub max_request: Option<u32>,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            thumbprint_sha2: ThumbprintSha2::Auto,
            client_random: authd::CLIENT_RANDOM.to_owned(),
            ask_banner: false,
            trust_announced_thumbprint: true,
            require_version_flag: true,
            version: classic::VERSION,
            send_connection_data: true,
            client_name: "vddk".to_owned(),
            send_features: Some(3),
            set_sock_opts: true,
            set_res_pool: Some(1),
            await_session_complete: false,
            max_request: None,
        }
    }
}

/// When `THUMBPRINT_SHA2` is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ThumbprintSha2 {
    /// When the banner has `SHA256 supported`.
    #[default]
    Auto,
    /// Never.
    Never,
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
