//! The crate's error: what was being done, to what, whose fault it is, and whether a retry helps.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::ticket::TicketError;
use crate::wire::WireError;
use crate::wire::fault::{self, Fault};

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something over NFC failed.
///
/// Cheap to clone: one lost connection fails every request that was in flight with the same error.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The ticket source gave no ticket.
    #[error("getting an NFC ticket failed")]
    Ticket(#[source] TicketError),

    /// The ticket cannot be used: what is wrong with it. Fault of whoever made it.
    #[error("the NFC ticket cannot be used: {0}")]
    InvalidTicket(&'static str),

    /// The host could not be reached.
    #[error("connecting to {endpoint} failed")]
    Connect {
        /// Host and port.
        endpoint: Arc<str>,
        /// What the system said.
        source: Arc<io::Error>,
    },

    /// The certificate is not the one that the ticket names. Nothing was sent to the host.
    #[error("{endpoint} presented the certificate {actual} in {phase}, but {expected} is trusted")]
    ThumbprintMismatch {
        /// Host and port.
        endpoint: Arc<str>,
        /// Which of the two TLS sessions.
        phase: Phase,
        /// What was expected.
        expected: String,
        /// What was presented.
        actual: String,
    },

    /// A TLS handshake or record failed for another reason than the certificate's identity.
    #[error("TLS with {endpoint} failed in {phase}: {reason}")]
    Tls {
        /// Host and port.
        endpoint: Arc<str>,
        /// Which of the two TLS sessions.
        phase: Phase,
        /// What the TLS library said.
        reason: String,
        /// The host and the handshake have nothing in common, as it is with hosts whose
        /// certificates are signed with SHA-1.
        nothing_in_common: bool,
    },

    /// The authentication daemon refused a command, or greeted with something else than `220`.
    #[error("the authd of {endpoint} refused {command}: {line}")]
    AuthdRefused {
        /// Host and port.
        endpoint: Arc<str>,
        /// The command without its argument.
        command: &'static str,
        /// The whole line of the reply.
        line: String,
    },

    /// The server did not start a session of the kind that this client speaks.
    #[error("{endpoint} did not start an NFC session: {reason}")]
    StartRefused {
        /// Host and port.
        endpoint: Arc<str>,
        /// What it did instead.
        reason: String,
    },

    /// The server refused the session's buffers.
    #[error("{endpoint} refused an NFC session with {buffer_count} buffers of {buffer_size} bytes: {fault}")]
    SessionRefused {
        /// Host and port.
        endpoint: Arc<str>,
        /// Bytes of a buffer.
        buffer_size: u32,
        /// How many.
        buffer_count: u32,
        /// The server's words.
        fault: Fault,
    },

    /// The server refused to open the disk.
    #[error("opening {path} on {endpoint} was refused: {fault}")]
    OpenRefused {
        /// Host and port.
        endpoint: Arc<str>,
        /// The disk.
        path: Arc<str>,
        /// The server's words.
        fault: Fault,
    },

    /// The disk or the ticket is read-only (NFC code 0x0B), or the handle was opened for reading.
    #[error("{path} is read-only{}", .fault.as_ref().map(|fault| format!(": {fault}")).unwrap_or_default())]
    ReadOnly {
        /// The disk.
        path: Arc<str>,
        /// The server's words; `None` when this crate refused.
        fault: Option<Fault>,
    },

    /// The server is out of NFC memory (code 5): too many or too large buffers on this host.
    #[error("{endpoint} is out of NFC memory in {phase}: {fault}")]
    OutOfNfcMemory {
        /// Host and port.
        endpoint: Arc<str>,
        /// What was going on.
        phase: Phase,
        /// The server's words.
        fault: Fault,
    },

    /// Any other error told by the server.
    #[error("{endpoint} reported an error in {phase}: {fault}")]
    Server {
        /// Host and port.
        endpoint: Arc<str>,
        /// What was going on.
        phase: Phase,
        /// The server's words.
        fault: Fault,
    },

    /// The server sent bytes that do not follow the protocol. The connection was dropped.
    #[error("{endpoint} broke the NFC protocol in {phase}: {what}")]
    Protocol {
        /// Host and port.
        endpoint: Arc<str>,
        /// What was going on.
        phase: Phase,
        /// What is wrong with the bytes.
        what: String,
    },

    /// The server did not answer in time. The connection was dropped.
    #[error("{endpoint} did not answer within {after:?} in {phase}")]
    Timeout {
        /// Host and port.
        endpoint: Arc<str>,
        /// What was going on.
        phase: Phase,
        /// The limit.
        after: Duration,
    },

    /// The connection is gone.
    #[error("the connection to {endpoint} was lost in {phase}: {reason}")]
    Disconnected {
        /// Host and port.
        endpoint: Arc<str>,
        /// What was going on.
        phase: Phase,
        /// How it ended.
        reason: String,
    },

    /// A write did not come to its end: the disk may hold old, new or mixed bytes in the range.
    #[error("writing bytes {}..{} of {path} failed; their content is in doubt", range.start, range.end)]
    WriteInDoubt {
        /// The disk.
        path: Arc<str>,
        /// The bytes whose content is not known.
        range: Range<u64>,
        /// Why.
        source: Box<Error>,
    },

    /// The host has only the synchronous layer, which is not known to have such a request: nothing was
    /// sent, and the connection goes on.
    #[error("the synchronous layer, all that {endpoint} has, knows nothing of {phase}")]
    NotOffered {
        /// Host and port.
        endpoint: Arc<str>,
        /// What was asked for.
        phase: Phase,
    },

    /// The caller asked for something that cannot be: nothing was sent.
    #[error("{path}: {what}")]
    InvalidRequest {
        /// The disk.
        path: Arc<str>,
        /// What is wrong with the request.
        what: String,
    },
}

impl Error {
    /// Whether the same call may succeed later, on a new connection with a new ticket.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Ticket(error) => error.is_retryable(),
            Self::Connect { .. } | Self::OutOfNfcMemory { .. } | Self::Timeout { .. } | Self::Disconnected { .. } => {
                true
            }
            // A used or expired ticket and an overloaded daemon; wrong rights are found by SOAP.
            Self::AuthdRefused { line, .. } => line.starts_with("530") || line.starts_with('4'),
            Self::WriteInDoubt { source, .. } => source.is_retryable(),
            Self::InvalidTicket(_)
            | Self::ThumbprintMismatch { .. }
            | Self::Tls { .. }
            | Self::StartRefused { .. }
            | Self::SessionRefused { .. }
            | Self::OpenRefused { .. }
            | Self::ReadOnly { .. }
            | Self::Server { .. }
            | Self::Protocol { .. }
            | Self::NotOffered { .. }
            | Self::InvalidRequest { .. } => false,
        }
    }

    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::ThumbprintMismatch { .. } => Some(
                "the host's certificate changed after vCenter learnt it, or something stands in \
                 between; reconnect the host in vCenter",
            ),
            Self::Tls { nothing_in_common: true, .. } => Some(
                "the host may know only SHA-1 signatures, as ESXi 6.5 and 6.7 do: update it, or \
                 allow legacy TLS in the options",
            ),
            Self::InvalidTicket(_) => Some("ask the host that issued the ticket for a new one"),
            Self::AuthdRefused { line, .. } if line.starts_with("530") => {
                Some("the ticket was used, expired or belongs to another service; get a new one")
            }
            Self::StartRefused { .. } => Some(
                "hosts older than ESXi 6.7 have only the synchronous layer: over it disks are read, not \
                 written, and their capacity has to be told by the ticket source or the options",
            ),
            Self::NotOffered { phase: Phase::QueryAllocated, .. } => Some("take all as allocated"),
            Self::NotOffered { phase: Phase::Metadata, .. } => Some("fetch the disk's descriptor file"),
            Self::SessionRefused { .. } | Self::OutOfNfcMemory { .. } => Some(
                "use fewer or smaller buffers, open fewer disks of this host at once, or raise \
                 the host's NFC memory",
            ),
            Self::OpenRefused { .. } => Some(
                "the disk in use of a running VM cannot be opened: take a snapshot and open the \
                 parent's file; check that the file belongs to the VM of the ticket",
            ),
            Self::ReadOnly { .. } => Some("open the disk with a read-write ticket and mode"),
            Self::WriteInDoubt { .. } => Some("write the range again, or read it to see"),
            _ => None,
        }
    }

    /// The server's own words, when the server reported the error.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Self::SessionRefused { fault, .. }
            | Self::OpenRefused { fault, .. }
            | Self::OutOfNfcMemory { fault, .. }
            | Self::Server { fault, .. } => Some(fault),
            Self::ReadOnly { fault, .. } => fault.as_ref(),
            Self::WriteInDoubt { source, .. } => source.fault(),
            _ => None,
        }
    }

    /// An error told by the server, sorted by its code.
    pub(crate) fn server(endpoint: &Arc<str>, phase: Phase, path: &Arc<str>, fault: Fault) -> Self {
        let endpoint = Arc::clone(endpoint);
        match fault.code {
            Some(fault::CODE_OUT_OF_MEMORY) => Self::OutOfNfcMemory { endpoint, phase, fault },
            Some(fault::CODE_READ_ONLY) => Self::ReadOnly { path: Arc::clone(path), fault: Some(fault) },
            _ if phase == Phase::OpenFile => Self::OpenRefused { endpoint, path: Arc::clone(path), fault },
            _ => Self::Server { endpoint, phase, fault },
        }
    }
}

/// What a connection was doing when something went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Looking up the host and connecting to it.
    Connect,
    /// Waiting for the daemon's first line.
    Banner,
    /// The TLS handshake with the daemon.
    AuthdTls,
    /// Commands to the daemon.
    Authd,
    /// The TLS handshake with the NFC service.
    ServiceTls,
    /// Classic messages that start a session.
    SessionStart,
    /// Opening the asynchronous session.
    OpenSession,
    /// Opening the disk.
    OpenFile,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Asking which chunks are allocated.
    QueryAllocated,
    /// Looking up a disk database entry.
    Metadata,
    /// Fetching a file or a disk as a whole.
    GetFile,
    /// Storing a file or a disk as a whole.
    PutFile,
    /// Making a directory or deleting a file.
    FileOperation,
    /// Closing disk and session.
    Close,
    /// Nothing in particular: the connection was idle.
    Idle,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting",
            Self::Banner => "the authd banner",
            Self::AuthdTls => "the authd TLS session",
            Self::Authd => "the authd dialogue",
            Self::ServiceTls => "the NFC TLS session",
            Self::SessionStart => "the session start",
            Self::OpenSession => "OPEN_SESSION",
            Self::OpenFile => "OPEN_FILE",
            Self::Read => "a read",
            Self::Write => "a write",
            Self::QueryAllocated => "an allocation query",
            Self::Metadata => "a disk database look-up",
            Self::GetFile => "fetching a file",
            Self::PutFile => "storing a file",
            Self::FileOperation => "a file operation",
            Self::Close => "closing",
            Self::Idle => "the idle session",
        })
    }
}

/// Makes errors of one connection: knows its endpoint, takes the phase.
#[derive(Debug, Clone)]
pub(crate) struct Blame {
    pub(crate) endpoint: Arc<str>,
    pub(crate) path: Arc<str>,
}

impl Blame {
    pub(crate) fn new(host: &str, port: u16, path: &Arc<str>) -> Self {
        Self { endpoint: format!("{host}:{port}").into(), path: Arc::clone(path) }
    }

    pub(crate) fn io(&self, phase: Phase, error: &io::Error) -> Error {
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof => "the other side closed it".to_owned(),
            _ => error.to_string(),
        };
        self.lost(phase, reason)
    }

    pub(crate) fn lost(&self, phase: Phase, reason: impl Into<String>) -> Error {
        Error::Disconnected { endpoint: Arc::clone(&self.endpoint), phase, reason: reason.into() }
    }

    pub(crate) fn protocol(&self, phase: Phase, what: impl Into<String>) -> Error {
        Error::Protocol { endpoint: Arc::clone(&self.endpoint), phase, what: what.into() }
    }

    pub(crate) fn wire(&self, phase: Phase, error: &WireError) -> Error {
        self.protocol(phase, error.to_string())
    }

    pub(crate) fn timeout(&self, phase: Phase, after: Duration) -> Error {
        Error::Timeout { endpoint: Arc::clone(&self.endpoint), phase, after }
    }

    pub(crate) fn server(&self, phase: Phase, fault: Fault) -> Error {
        Error::server(&self.endpoint, phase, &self.path, fault)
    }

    pub(crate) fn invalid(&self, what: impl Into<String>) -> Error {
        Error::InvalidRequest { path: Arc::clone(&self.path), what: what.into() }
    }

    /// Runs `work`, and makes a time-out of it when it takes longer than `limit`.
    pub(crate) async fn within<T>(
        &self,
        phase: Phase,
        limit: Duration,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err(self.timeout(phase, limit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blame() -> Blame {
        Blame::new("esx1", 902, &Arc::from("[ds] a.vmdk"))
    }

    #[test]
    fn codes_of_the_server_become_distinct_errors() {
        let error = |phase, code| blame().server(phase, Fault::new(1, code, "text"));
        assert!(matches!(error(Phase::Read, 5), Error::OutOfNfcMemory { .. }));
        assert!(error(Phase::Read, 5).is_retryable());
        assert!(matches!(error(Phase::OpenFile, 0x0B), Error::ReadOnly { .. }));
        assert!(matches!(error(Phase::OpenFile, 99), Error::OpenRefused { .. }));
        assert!(matches!(error(Phase::Read, 99), Error::Server { .. }));
        assert_eq!(error(Phase::Read, 99).fault().unwrap().code, Some(99));
    }

    #[test]
    fn message_names_endpoint_phase_and_text() {
        let text = blame().server(Phase::Read, Fault::new(1, 99, "disk on fire")).to_string();
        for part in ["esx1:902", "a read", "99", "disk on fire"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn write_in_doubt_names_the_range_and_keeps_the_cause() {
        let error = Error::WriteInDoubt {
            path: "[ds] a.vmdk".into(),
            range: 512..1024,
            source: Box::new(blame().lost(Phase::Write, "reset")),
        };
        assert!(error.to_string().contains("512..1024"));
        assert!(error.is_retryable());
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("reset"));
    }
}
