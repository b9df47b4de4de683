//! What the server is, and how it misbehaves.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vsphere_nfc::trace::Trace;
use vsphere_nfc::wire::compress::Compression;
use vsphere_nfc::wire::fault::{CODE_OUT_OF_MEMORY, Layout};

use super::server::NfcIdentity;
use super::version::{Gates, HostVersion};

/// The server's behaviour. Connections take it as it is when they are accepted.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NfcServerConfig {
    /// Which release to be. Default: ESXi 8.0.
    pub version: HostVersion,
    /// Other gates than the release has.
    pub gates: Option<Gates>,
    /// Numbers of classic messages, all zero else, that are sent before every answer of the session
    /// start: PING (8) and RATE_CONTROL (6) have unknown uses. Default: none.
    pub interjections: Vec<u32>,
    /// What a client sees whose ticket is not redeemed. Real hosts: unknown. Default: a line.
    pub ticket_refusal: TicketRefusal,
    /// Another certificate for the second TLS session; the daemon announces it where it can.
    pub service_identity: Option<NfcIdentity>,
    /// Whether the reply to `THUMBPRINT_SHA2` names the first certificate whatever the second is.
    pub announce_wrong_thumbprint: bool,
    /// The largest buffer of a session, in bytes. Default: 2 MiB, which ESXi 8 was seen to accept.
    pub max_buffer_size: u32,
    /// The most bytes of all buffers of a session. Default: 16 MiB, as documented.
    pub max_session_bytes: u64,
    /// The NFC memory of the host: buffers of all sessions together, in bytes. A session that finds
    /// too little is refused with code 5. Real hosts have 48 or 96 MiB. Default: unlimited.
    pub memory: Option<u64>,
    /// The most connections that are handed over to the service. Default: unlimited.
    pub max_connections: Option<u64>,
    /// The most of them with tickets from vCenter, which documents 52. Default: unlimited.
    pub max_connections_via_vcenter: Option<u64>,
    /// What a client sees that is one too many. Real hosts: unknown. Default: a line.
    pub over_limit: OverLimit,
    /// Whether the daemon's TLS session ends with a close_notify at the hand-over. Default: no.
    pub close_notify_at_hand_over: bool,
    /// The code of a refused session. Real hosts: unknown. Default: 5, out of memory.
    pub session_refusal_code: u32,
    /// In which order the fragments of a read are sent. Default: ascending.
    pub fragment_order: FragmentOrder,
    /// The largest fragment of a read in bytes; `None` means the session's buffer.
    pub fragment_size: Option<u32>,
    /// How the fragments of reads are compressed. Default: as the client wishes.
    pub compression: ReplyCompression,
    /// The most sectors of a run of data in a fetched disk. Default: 32767, all that there is.
    pub run_sectors: u16,
    /// How many frames the disk database of a fetched disk is cut into. Default: 1.
    pub metadata_frames: u32,
    /// Whether an empty frame follows a fetched disk. Real hosts: unknown. Default: no.
    pub empty_frame_after_disk: bool,
    /// Whether a disk that is fetched is announced as a child disk. Default: no.
    pub answers_delta_disk: bool,
    /// What means a read in synchronous access. Real hosts: unknown. Default: 0, as 1 is a write.
    pub synchronous_read_direction: u32,
    /// The largest request of synchronous access, in bytes. Default: 2 MiB.
    pub max_synchronous_request: u32,
    /// The layout of AIO errors. Real hosts: unknown.
    pub error_layout: Layout,
    /// Whether allocation queries are answered. Default: yes.
    pub allocation: AllocationAnswers,
    /// A delay before every reply of the asynchronous layer.
    pub delay: Duration,
    /// How long a session of the asynchronous layer may be without a request before it is dropped.
    /// Real hosts: unknown. Default: for ever.
    pub idle_limit: Option<Duration>,
    /// Where every connection is cut off.
    pub cut: Option<Cut>,
    /// Whether a cut is a reset (RST) instead of an end (FIN).
    pub reset_on_cut: bool,
    /// Whether the server answers the last classic message. Default: yes.
    pub answer_session_complete: bool,
    /// A recorded conversation that is played behind the hand-over, to a client that says what one said then. No file
    /// is opened for it.
    pub replay: Option<Arc<Trace>>,
}

impl Default for NfcServerConfig {
    fn default() -> Self {
        Self {
            version: HostVersion::Esxi80,
            gates: None,
            interjections: Vec::new(),
            ticket_refusal: TicketRefusal::Line,
            service_identity: None,
            announce_wrong_thumbprint: false,
            max_buffer_size: 2 * 1024 * 1024,
            max_session_bytes: 16 * 1024 * 1024,
            memory: None,
            max_connections: None,
            max_connections_via_vcenter: None,
            over_limit: OverLimit::Line,
            close_notify_at_hand_over: false,
            session_refusal_code: CODE_OUT_OF_MEMORY,
            fragment_order: FragmentOrder::InOrder,
            fragment_size: None,
            compression: ReplyCompression::AsWished,
            run_sectors: u16::MAX,
            metadata_frames: 1,
            empty_frame_after_disk: false,
            answers_delta_disk: false,
            synchronous_read_direction: 0,
            max_synchronous_request: 2 * 1024 * 1024,
            error_layout: Layout::default(),
            allocation: AllocationAnswers::Bitmap,
            delay: Duration::ZERO,
            idle_limit: None,
            cut: None,
            reset_on_cut: false,
            answer_session_complete: true,
            replay: None,
        }
    }
}

impl NfcServerConfig {
    /// The default behaviour of a release.
    pub fn of(version: HostVersion) -> Self {
        Self { version, ..Self::default() }
    }

    /// What the server understands of the way to a session.
    pub fn gates(&self) -> Gates {
        self.gates.unwrap_or_else(|| self.version.gates())
    }
}

/// What a client sees whose ticket is not redeemed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TicketRefusal {
    /// `530 Login incorrect` at PROXY.
    #[default]
    Line,
    /// The end of the connection.
    Close,
}

/// What a client sees whose connection is one too many; its ticket is not used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OverLimit {
    /// `421 Too many connections` at PROXY.
    #[default]
    Line,
    /// The end of the connection.
    Close,
    /// Nothing, as when VDDK reports that reading from authd timed out.
    Silence,
}

/// In which order the fragments of a read are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FragmentOrder {
    /// Ascending.
    #[default]
    InOrder,
    /// Descending.
    Reversed,
    /// Any, but the same one for the same operation.
    Shuffled,
}

/// How the fragments of reads are compressed, where they get smaller by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReplyCompression {
    /// As the client wishes.
    #[default]
    AsWished,
    /// In this way, whatever the client wishes.
    Always(Compression),
    /// Each fragment in another way: raw, zlib, FastLZ, SkipZ, and again.
    Mixed,
}

impl ReplyCompression {
    /// How to compress the fragment with the number `index` of a read with the wish `wish`.
    pub(super) fn of(self, wish: Compression, index: usize) -> Compression {
        match self {
            Self::AsWished => wish,
            Self::Always(compression) => compression,
            Self::Mixed => {
                const ALL: [Compression; 4] =
                    [Compression::None, Compression::Zlib, Compression::FastLz, Compression::SkipZ];
                ALL[index % ALL.len()]
            }
        }
    }
}

/// Whether allocation queries are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AllocationAnswers {
    /// With a bitmap.
    #[default]
    Bitmap,
    /// With an error, as on datastores that are not VMFS.
    Refused,
}

/// Where a connection is cut off, in bytes of the TCP stream since it was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cut {
    /// After so many bytes were sent to the client.
    Sent(u64),
    /// After so many bytes were received from the client.
    Received(u64),
}

/// A step that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// The daemon's first line.
    Banner,
    /// `THUMBPRINT_SHA2`.
    ThumbprintSha2,
    /// `PROXY`.
    Proxy,
    /// The reply to message 33.
    SessionStart,
    /// The reply to message 51.
    Version,
    /// The reply to message 52.
    AioOpen,
    /// OPEN_SESSION.
    OpenSession,
    /// OPEN_FILE.
    OpenFile,
    /// A read.
    Read,
    /// The first fragment of a write.
    Write,
    /// QUERY_ALLOCATED.
    QueryAllocated,
    /// DDB_GET.
    DdbGet,
    /// CLOSE_FILE.
    CloseFile,
    /// CLOSE_SESSION.
    CloseSession,
    /// A file or a disk is asked for as a whole.
    GetFile,
    /// A frame of it.
    GetData,
    /// A file or a disk is announced, to be stored as a whole.
    PutFile,
    /// A frame of it.
    PutData,
    /// The answer when it is stored.
    PutDone,
    /// A directory is made, a file deleted.
    FileOperation,
}

/// What happens instead of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultAction {
    /// An error message; to the daemon's commands, a line of code and text.
    Error {
        /// The code.
        code: u32,
        /// The text.
        text: String,
    },
    /// The session is ended with a classic message 4 (in the classic phase), else as `Close`.
    Complete,
    /// The connection is closed.
    Close,
    /// No answer ever.
    Stall,
    /// These bytes, as they are.
    Bytes(Vec<u8>),
}

/// Faults that wait for their step. Every one strikes once.
#[derive(Debug, Default)]
pub(super) struct Injected {
    queue: Mutex<VecDeque<(Step, u32, FaultAction)>>,
}

impl Injected {
    pub(super) fn push(&self, step: Step, skip: u32, action: FaultAction) {
        self.lock().push_back((step, skip, action));
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    /// The fault of `step`, if it is its turn.
    pub(super) fn take(&self, step: Step) -> Option<FaultAction> {
        let mut queue = self.lock();
        let at = queue.iter().position(|(of, ..)| *of == step)?;
        if let Some((_, skip, _)) = queue.get_mut(at)
            && *skip > 0
        {
            *skip -= 1;
            return None;
        }
        queue.remove(at).map(|(.., action)| action)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(Step, u32, FaultAction)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
