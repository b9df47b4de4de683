//! Failures below SOAP.

use std::{error::Error as StdError, fmt};

/// What failed on the way to the server and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportErrorKind {
    /// The host's name has no address.
    Resolve,
    /// No TCP connection, or it broke during the handshake.
    Connect,
    /// The TLS handshake failed for another reason than trust.
    Tls,
    /// The server's certificate is not the one that the caller trusts.
    Untrusted,
    /// No answer, or a silence in the middle of it, beyond the time-out.
    Timeout,
    /// The connection broke.
    Disconnected,
    /// An HTTP status without a SOAP envelope, or with a fault that has no detail: a proxy, or a server that is starting.
    /// For files and leased disks, any status that is no success.
    HttpStatus(u16),
    /// The answer is larger than the configured limit.
    BodyTooLarge,
    /// The HTTP message or its compression is broken.
    Malformed,
    /// What was to be sent could not be read, or had another length than was stated.
    UploadSource,
}

/// No complete answer arrived.
#[derive(Debug)]
pub struct TransportError {
    kind: TransportErrorKind,
    cause: Box<dyn StdError + Send + Sync>,
    sent: bool,
}

impl TransportError {
    /// An error after which the server may have acted on the request.
    pub fn new(kind: TransportErrorKind, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind, cause: cause.into(), sent: true }
    }

    /// States that nothing of the request was sent, so that any call may be repeated.
    #[must_use]
    pub fn not_sent(self) -> Self {
        Self { sent: false, ..self }
    }

    /// What failed.
    pub fn kind(&self) -> TransportErrorKind {
        self.kind
    }

    /// True when the server may have seen the request and acted on it.
    pub fn was_sent(&self) -> bool {
        self.sent
    }

    /// True when trying again can help.
    pub fn is_retryable(&self) -> bool {
        use TransportErrorKind as Kind;
        match self.kind {
            Kind::Resolve | Kind::Connect | Kind::Timeout | Kind::Disconnected => true,
            Kind::HttpStatus(status) => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            Kind::Tls | Kind::Untrusted | Kind::BodyTooLarge | Kind::Malformed | Kind::UploadSource => false,
        }
    }

    pub(super) fn hint(&self) -> Option<&'static str> {
        use TransportErrorKind as Kind;
        match self.kind {
            Kind::Resolve => Some("check the host name and this machine's DNS"),
            Kind::Untrusted => Some(
                "compare the certificate's thumbprint with the one on the server's console; if the certificate was \
                 renewed, configure the new thumbprint or the issuing CA",
            ),
            Kind::BodyTooLarge => Some("ask for smaller pages or raise the limit of the answer's size"),
            Kind::HttpStatus(404) => {
                Some("the path is not that of a vSphere SOAP endpoint (usually /sdk), or of a lease that is over")
            }
            Kind::HttpStatus(503) => Some("the server is starting or overloaded"),
            _ => None,
        }
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use TransportErrorKind as Kind;
        match self.kind {
            Kind::Resolve => f.write_str("the host's address could not be found")?,
            Kind::Connect => f.write_str("no connection")?,
            Kind::Tls => f.write_str("the TLS handshake failed")?,
            Kind::Untrusted => f.write_str("the server is not trusted")?,
            Kind::Timeout => f.write_str("time-out")?,
            Kind::Disconnected => f.write_str("the connection broke")?,
            Kind::HttpStatus(status) => write!(f, "HTTP status {status}")?,
            Kind::BodyTooLarge => f.write_str("the answer is too large")?,
            Kind::Malformed => f.write_str("the HTTP exchange is malformed")?,
            Kind::UploadSource => f.write_str("the data to be sent are not usable")?,
        }
        write!(f, ": {}", self.cause)?;
        // hyper and rustls keep the reason one level further down.
        let mut inner = self.cause.source();
        while let Some(error) = inner {
            write!(f, ": {error}")?;
            inner = error.source();
        }
        Ok(())
    }
}

// The causes are part of the text above; handing them out as sources too would print them twice.
impl StdError for TransportError {}
