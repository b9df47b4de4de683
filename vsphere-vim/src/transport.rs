//! Bytes in, bytes out: the seam between the client and the network.
//!
//! [`HttpTransport`] is the real one. Tests script their own, and a [`Recorder`] wraps any other; see [`recording`]. Sessions, retries and
//! SOAP live above this seam; connections, TLS, time-outs, gzip and size limits live below it.

mod body;
mod cookie;
mod dial;
mod http;
mod io;
mod pool;
pub mod recording;
pub mod stream;
mod tunnel;

use std::{fmt, future::Future, pin::Pin, time::Duration};

use bytes::Bytes;

pub(crate) use self::cookie::{SESSION_COOKIE, session_cookie};
pub use self::{
    http::{HttpOptions, HttpTransport},
    recording::{Recorder, Replay, ReplayMode, Scrub},
};
pub use crate::error::{TransportError, TransportErrorKind};
use crate::secret::Secret;

/// A boxed future, as public `dyn` traits need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Sends one request and returns the whole answer.
///
/// Implementors do not retry, do not follow redirects and do not interpret status codes: a SOAP fault arrives as
/// HTTP 500 with a body, and that is an answer.
pub trait Transport: Send + Sync + fmt::Debug {
    /// Performs the exchange within `request.timeout`.
    ///
    /// # Errors
    /// [`TransportError`] when no complete answer arrived; [`TransportError::was_sent`] tells whether the server may
    /// have acted on the request.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the connection; the server may have acted on the request.
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>>;
}

/// One HTTP request.
#[derive(Clone)]
pub struct Request {
    /// `GET` or `POST`.
    pub verb: Verb,
    /// The path and query on the server, such as `/sdk`.
    pub path: String,
    /// The `SOAPAction` header's value, without quotes. Actions that are `http` URLs (WS-Trust) are sent without too.
    pub soap_action: Option<String>,
    /// The session cookie's value as the server wrote it, quotes included.
    pub cookie: Option<Secret>,
    /// The body; empty for `GET`. Not printed by `Debug`, because it may hold a password.
    pub body: Bytes,
    /// How long to wait for the head of the answer.
    pub timeout: Duration,
    /// True for calls that block on the server until something happens; they do not use up the common connections.
    pub long_poll: bool,
}

/// The HTTP method of a [`Request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Reads a document.
    Get,
    /// Sends a SOAP envelope.
    Post,
}

/// One HTTP answer, its body complete and decompressed.
#[derive(Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The `Content-Type` header, when it is there and is text.
    pub content_type: Option<String>,
    /// The value of a newly issued session cookie.
    pub cookie: Option<Secret>,
    /// The body. Not printed by `Debug`, because it may hold a ticket.
    pub body: Bytes,
}

impl Response {
    /// True when the body may be a SOAP envelope: XML by its type or by its first character.
    pub(crate) fn is_xml(&self) -> bool {
        let by_type = self.content_type.as_deref().is_some_and(|kind| kind.to_ascii_lowercase().contains("xml"));
        let first = self.body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&self.body);
        by_type || first.trim_ascii_start().starts_with(b"<?xml") || first.trim_ascii_start().starts_with(b"<soap")
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("verb", &self.verb)
            .field("path", &self.path)
            .field("soap_action", &self.soap_action)
            .field("cookie", &self.cookie.is_some())
            .field("body_len", &self.body.len())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("content_type", &self.content_type)
            .field("cookie", &self.cookie.is_some())
            .field("body_len", &self.body.len())
            .finish()
    }
}
