//! A switch for every fact about real hosts that is not proved.

use crate::wire::aio;
use crate::wire::authd;
use crate::wire::classic;
use crate::wire::file;

/// Facts about servers that rest on a capture of one release or on inference. The defaults are what
/// was captured from VDDK 8 with ESXi 8, or the careful choice where nothing was; each can be
/// changed without a new release of this crate. Opening a disk logs them all at level `debug`, and
/// the place where one makes a difference logs that.
///
/// | Doubt | Switch | Default |
/// |-|-|-|
/// | a daemon without TLS, of releases long gone | [`clear_authd`](Self::clear_authd) | refused |
/// | TLS 1.3 of the daemon and the service | [`tls13`](Self::tls13) | offered with 1.2 |
/// | SHA-1 certificates of 6.5 and 6.7 | [`NfcOptions::legacy_tls`](crate::NfcOptions::legacy_tls) | not offered |
/// | when `THUMBPRINT_SHA2` and message 43 are understood | [`thumbprint_sha2`](Self::thumbprint_sha2) | where the banner says `SHA256` |
/// | the word that they carry | [`client_random`](Self::client_random) | `PlainText` |
/// | which certificate its reply names | [`trust_announced_thumbprint`](Self::trust_announced_thumbprint) | the second |
/// | whether `BANNER` has to be sent | [`ask_banner`](Self::ask_banner) | not sent |
/// | PING and RATE_CONTROL during the start | [`max_noise`](Self::max_noise) | 16 skipped, without an answer |
/// | what offset 16 of reply 36 says | [`require_version_flag`](Self::require_version_flag) | whether 51 is understood |
/// | versions | [`version`](Self::version) | 11; the lower of both counts |
/// | since when message 54 is understood | [`connection_data_since`](Self::connection_data_since) | 3 |
/// | since when message 55 is understood | [`features_since`](Self::features_since) | 3 |
/// | what message 55 promises | [`features`](Self::features) | 3, as captured |
/// | whether SET_SOCK_OPTS and SET_RES_POOL are needed | [`set_sock_opts`](Self::set_sock_opts), [`set_res_pool`](Self::set_res_pool) | sent |
/// | which layer a host has | [`NfcOptions::ladder`](crate::NfcOptions::ladder) | tried from the top |
/// | open flag 0x10 | [`open_flag_10`](Self::open_flag_10) | set |
/// | the open flag that asks for the parents | [`parents_flag`](Self::parents_flag) | 0x08 |
/// | requests in flight | [`max_in_flight`](Self::max_in_flight) | as many as buffers |
/// | the longest request | [`max_request`](Self::max_request) | a buffer |
/// | messages of unknown kinds | [`max_unknown_message`](Self::max_unknown_message) | skipped up to 64 KiB |
/// | what a host says to a misaligned allocation query | [`allocation_shift`](Self::allocation_shift) | none is sent |
/// | what follows an error | [`survive_errors`](Self::survive_errors) | nothing: the connection is dropped |
/// | whether the end is answered | [`await_session_complete`](Self::await_session_complete) | not waited for |
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quirks {
    /// Whether a daemon that offers no TLS is talked to, and given the ticket, in clear.
    /// Default: no.
    pub clear_authd: bool,
    /// Whether TLS 1.3 is offered beside 1.2. Default: yes.
    pub tls13: bool,
    /// When `THUMBPRINT_SHA2`, and with it message 43, is sent. Default: when the banner says so.
    pub thumbprint_sha2: ThumbprintSha2,
    /// The word of `THUMBPRINT_SHA2` and of message 43. Default: VDDK's constant `PlainText`.
    pub client_random: String,
    /// Whether `BANNER` is sent, as VDDK does. Default: no.
    pub ask_banner: bool,
    /// Whether the second certificate is checked against the reply to `THUMBPRINT_SHA2`, when that
    /// is a SHA-256 thumbprint, and not against the ticket. Default: yes.
    pub trust_announced_thumbprint: bool,
    /// The most PING and RATE_CONTROL messages that are skipped in a session start. Default: 16.
    pub max_noise: u32,
    /// Whether a reply 36 that does not announce the version message ends the start. Default: yes.
    pub require_version_flag: bool,
    /// The version told in message 51. Default: 11.
    pub version: u32,
    /// The first version of servers that are sent message 54; 0 sends it always, [`u32::MAX`]
    /// never. Default: 3.
    pub connection_data_since: u32,
    /// The client's name in message 54. Default: `vddk`.
    pub client_name: String,
    /// The first version of servers that are sent message 55, as above. Default: 3.
    pub features_since: u32,
    /// The value of message 55: 1 interruption, 2 host switch. Default: 3, as captured. A host that
    /// closes the connection to switch is answered with a new one to where the new ticket says.
    pub features: u32,
    /// Whether SET_SOCK_OPTS is sent. Default: yes.
    pub set_sock_opts: bool,
    /// The pool of SET_RES_POOL, `None` to leave it out. Default: 1.
    pub set_res_pool: Option<u32>,
    /// Whether disks are opened with the flag 0x10, whose meaning is not known. Default: yes.
    pub open_flag_10: bool,
    /// The flags that are left out when a file is opened without its parents. Default: 0x08, inferred.
    pub parents_flag: u32,
    /// The most requests in flight; `None` leaves it to the buffers. Default: `None`.
    pub max_in_flight: Option<u32>,
    /// The most bytes of one read or write request; `None` means one buffer, which keeps several
    /// requests in flight. VDDK sends one request of any length. Default: `None`.
    pub max_request: Option<u32>,
    /// The largest payload of a message of an unknown kind that is skipped when nobody waits for
    /// it; 0 drops the connection. Default: 64 KiB, which is also the most.
    pub max_unknown_message: u32,
    /// Bytes that are added to the start of every allocation query, to see what a host says to one that is not
    /// aligned. Default: 0.
    pub allocation_shift: u32,
    /// Whether a connection goes on after the server reported an error for a request. Only for
    /// hosts whose errors are known to have no bytes that their header does not count: else what
    /// follows is taken for a message. Default: no.
    pub survive_errors: bool,
    /// Whether closing waits for the server's answer to the last classic message. Default: no.
    pub await_session_complete: bool,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            clear_authd: false,
            tls13: true,
            thumbprint_sha2: ThumbprintSha2::Auto,
            client_random: authd::CLIENT_RANDOM.to_owned(),
            ask_banner: false,
            trust_announced_thumbprint: true,
            max_noise: 16,
            require_version_flag: true,
            version: classic::VERSION,
            connection_data_since: classic::VERSION_CONNECTION_DATA,
            client_name: "vddk".to_owned(),
            features_since: classic::VERSION_CONNECTION_DATA,
            features: 3,
            set_sock_opts: true,
            set_res_pool: Some(1),
            open_flag_10: true,
            parents_flag: file::flags::PARENTS_BIT,
            max_in_flight: None,
            max_request: None,
            max_unknown_message: aio::MAX_PAYLOAD,
            allocation_shift: 0,
            survive_errors: false,
            await_session_complete: false,
        }
    }
}

impl Quirks {
    /// The first thing that is wrong with them.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.client_name.len() > 256 {
            return Err("the client's name must have at most 256 bytes");
        }
        if self.client_random.len() > 260 {
            return Err("the client's random word must have at most 260 bytes");
        }
        if self.max_in_flight == Some(0) {
            return Err("at least one request must be in flight");
        }
        Ok(())
    }
}

/// When `THUMBPRINT_SHA2` is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ThumbprintSha2 {
    /// When the banner has `SHA256 supported`.
    #[default]
    Auto,
    /// Always; a refusal does no harm.
    Always,
    /// Never.
    Never,
}
