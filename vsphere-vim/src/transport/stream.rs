//! Large bodies in both directions: datastore files and leased disks, to the connected server and to others.
//!
//! [`StreamTransport`] is the seam, [`HttpStreams`] the real one. Nothing is collected: a body is a stream of pieces,
//! and what the consumer does not take is not read from the network. Each exchange has a connection of its own, which
//! is kept for a while for another read when the body came to its end; dropping a body before, or the future of an
//! exchange, closes the connection at once.

mod channel;
mod download;
mod http;
mod kept;
mod steps;
mod target;
mod upload;

use std::{fmt, io, pin::Pin, time::Duration};

use bytes::Bytes;
use futures_core::Stream;
use tokio::time::Instant;

pub use self::{
    channel::UploadSender,
    http::{HttpStreams, StreamOptions, UploadFraming},
    target::StreamTarget,
};
pub(crate) use self::{steps::steps, target::percent_encode};
use super::{BoxFuture, TransportError};
use crate::secret::Secret;

/// The body of an answer, piece by piece. After an error it ends.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, TransportError>> + Send>>;

/// Performs one exchange whose bodies are streams.
///
/// Implementors do not retry, do not follow redirects and do not interpret status codes.
pub trait StreamTransport: Send + Sync + fmt::Debug {
    /// Sends the request with all of its body and returns when the head of the answer is there.
    ///
    /// # Errors
    /// [`TransportError`]; with [`UploadSource`](super::TransportErrorKind::UploadSource) when the body's source failed.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the connection; the server may have kept a part of the body.
    fn exchange(&self, request: StreamRequest) -> BoxFuture<'_, Result<StreamResponse, TransportError>>;
}

/// One HTTP request whose body may be large.
#[non_exhaustive]
pub struct StreamRequest {
    /// The HTTP method.
    pub verb: StreamVerb,
    /// Where it goes.
    pub target: StreamTarget,
    /// Headers besides those that the transport writes itself (`Host`, `Content-Length`, `Cookie`).
    pub headers: Vec<(&'static str, String)>,
    /// The cookie's name and its value as the server wrote it.
    pub cookie: Option<(&'static str, Secret)>,
    /// What is sent.
    pub body: Option<Upload>,
}

impl StreamRequest {
    /// A request without headers, cookie and body.
    pub fn new(verb: StreamVerb, target: StreamTarget) -> Self {
        Self { verb, target, headers: Vec::new(), cookie: None, body: None }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl fmt::Debug for StreamRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamRequest")
            .field("verb", &self.verb)
            .field("target", &self.target)
            .field("headers", &self.headers)
            .field("cookie", &self.cookie.as_ref().map(|(name, _)| name))
            .field("body", &self.body)
            .finish()
    }
}

/// The HTTP method of a [`StreamRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamVerb {
    /// Reads.
    Get,
    /// Asks whether and how large.
    Head,
    /// Writes a file.
    Put,
    /// Writes a leased disk.
    Post,
    /// Deletes a file.
    Delete,
}

/// What is sent, of known or unknown length.
///
/// ```
/// use vsphere_vim::transport::stream::Upload;
///
/// let small = Upload::from_bytes("all of it");
/// assert_eq!(small.len(), Some(9));
/// ```
pub struct Upload {
    len: Option<u64>,
    source: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
}

impl Upload {
    /// Sends what `source` yields; `len` bytes if that is known. A source that yields another number of bytes than
    /// stated fails the exchange.
    pub fn new(len: impl Into<Option<u64>>, source: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self { len: len.into(), source: Box::pin(source) }
    }

    /// Sends these bytes.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let len = bytes.len() as u64;
        Self::new(len, steps(Some(bytes), |left| Box::pin(async move { (None, left.map(Ok)) })))
    }

    /// Sends what `source` gives to `read`: files, pipes, sockets.
    pub fn from_reader(
        len: impl Into<Option<u64>>,
        source: impl tokio::io::AsyncRead + Send + Unpin + 'static,
    ) -> Self {
        Self::new(
            len,
            steps((source, vec![0; READ]), |(mut source, mut buffer)| {
                Box::pin(async move {
                    let read = tokio::io::AsyncReadExt::read(&mut source, &mut buffer).await;
                    let piece = match read {
                        Ok(0) => None,
                        Ok(len) => Some(Ok(Bytes::copy_from_slice(&buffer[..len]))),
                        Err(error) => Some(Err(error)),
                    };
                    ((source, buffer), piece)
                })
            }),
        )
    }

    /// Sends what is given to the [`UploadSender`], and keeps at most `depth` pieces of it waiting.
    ///
    /// ```
    /// use vsphere_vim::transport::stream::Upload;
    ///
    /// # async fn example() -> std::io::Result<()> {
    /// let (sender, upload) = Upload::channel(None, 4);
    /// let sending = async {
    ///     sender.send("some bytes").await?;
    ///     sender.finish().await
    /// };
    /// // … beside it: `datastore.write(&path, upload)`
    /// # drop(upload);
    /// # sending.await
    /// # }
    /// ```
    pub fn channel(len: impl Into<Option<u64>>, depth: usize) -> (UploadSender, Self) {
        channel::channel(len.into(), depth)
    }

    /// Bytes to come, if that is known.
    pub fn len(&self) -> Option<u64> {
        self.len
    }

    /// True when it is known that nothing is to come.
    pub fn is_empty(&self) -> bool {
        self.len == Some(0)
    }

    /// The same with every piece looked at, or turned into an error, on its way.
    pub(crate) fn inspect(self, mut look: impl FnMut(&Bytes) -> io::Result<()> + Send + 'static) -> Self {
        let Self { len, mut source } = self;
        let source = Box::pin(steps::mapped(move |cx| {
            source
                .as_mut()
                .poll_next(cx)
                .map(|piece| piece.map(|piece| piece.and_then(|bytes| look(&bytes).map(|()| bytes))))
        }));
        Self { len, source }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("len", &self.len).finish_non_exhaustive()
    }
}

/// The head of an answer, and its body to come.
#[non_exhaustive]
pub struct StreamResponse {
    /// The status code.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: ByteStream,
}

impl StreamResponse {
    /// For implementors of [`StreamTransport`].
    pub fn new(status: u16, headers: Vec<(String, String)>, body: ByteStream) -> Self {
        Self { status, headers, body }
    }

    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The length that the answer states for its body.
    pub fn content_length(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }

    /// The beginning of a body that explains an error, as text for people: tags removed, at most some hundred bytes.
    pub(crate) async fn explanation(mut self) -> String {
        let mut text = Vec::new();
        while text.len() < EXPLANATION {
            let piece = std::future::poll_fn(|cx| self.body.as_mut().poll_next(cx)).await;
            match piece {
                Some(Ok(bytes)) => text.extend_from_slice(&bytes[..bytes.len().min(EXPLANATION)]),
                Some(Err(_)) | None => break,
            }
        }
        plain(&String::from_utf8_lossy(&text))
    }
}

impl fmt::Debug for StreamResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("StreamResponse").field("status", &self.status).field("headers", &names).finish_non_exhaustive()
    }
}

/// A moment after another one; a limit beyond the clock's range is none, which is as good as a year.
fn later(from: Instant, by: Duration) -> Instant {
    from.checked_add(by).unwrap_or_else(|| from + Duration::from_secs(365 * 24 * 3600))
}

/// Text without tags, on one line and short.
fn plain(html: &str) -> String {
    let mut text = String::new();
    let mut in_tag = false;
    for c in html.chars() {
        match c {
            '<' => in_tag = true,
            '>' if in_tag => {
                in_tag = false;
                text.push(' ');
            }
            _ if in_tag => {}
            c if c.is_control() => text.push(' '),
            c => text.push(c),
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect()
}

/// Bytes read of a body that explains an error.
const EXPLANATION: usize = 4096;

/// Bytes asked of a reader at once.
const READ: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_html_answer_becomes_one_line() {
        assert_eq!(plain("<html><body><h1>500</h1>\n<p>File locked </p></body>"), "500 File locked");
        assert!(plain(&"x".repeat(5000)).len() <= 300);
    }

    #[test]
    fn debug_shows_no_cookie() {
        let mut request = StreamRequest::new(StreamVerb::Get, StreamTarget::on_server("/folder/x"));
        request.cookie = Some(("vmware_soap_session", "52-secret".into()));
        let shown = format!("{request:?}");
        assert!(shown.contains("vmware_soap_session") && !shown.contains("52-secret"), "{shown}");
    }
}
