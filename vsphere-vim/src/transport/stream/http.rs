//! Streams over HTTP/1.1 and TLS.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{Method, client::conn::http1::SendRequest, header};
use rustls::ClientConfig;
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    StreamRequest, StreamResponse, StreamTarget, StreamTransport, StreamVerb,
    download::{Connection, Download},
    upload::{Outgoing, Watch},
};
use crate::{
    endpoint::Endpoint,
    error::Result as VimResult,
    transport::{
        BoxFuture, TransportError, TransportErrorKind,
        dial::dial,
        http::{USER_AGENT, unusable},
        io::HyperIo,
    },
    trust::TlsTrust,
};

/// Limits of streams. Begin from the default: further limits may come.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// Time for name resolution, TCP and TLS together. 30 s.
    pub connect_timeout: Duration,
    /// Longest wait for the head of an answer, from the end of what is sent. 150 s: a host opens a disk first, and
    /// answers an upload only when all of it is written.
    pub head_timeout: Duration,
    /// Longest silence of the network in the middle of a body; a slow consumer or source does not count. 60 s.
    pub idle_timeout: Duration,
    /// Longest time for a whole exchange, the consumer's pace included. Unlimited.
    pub total_timeout: Option<Duration>,
    /// How the length of what is sent is told.
    pub framing: UploadFraming,
    /// TCP keep-alive probes start after this much silence. 30 s.
    pub tcp_keep_alive: Duration,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(30),
            head_timeout: Duration::from_secs(150),
            idle_timeout: Duration::from_secs(60),
            total_timeout: None,
            framing: UploadFraming::default(),
            tcp_keep_alive: Duration::from_secs(30),
        }
    }
}

/// How the length of an upload is told to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UploadFraming {
    /// `Content-Length` where the length is known, chunks where it is not.
    #[default]
    WhenKnown,
    /// Always in chunks.
    Chunked,
}

/// The real transport of streams. See [`StreamOptions`] for its limits.
#[derive(Debug)]
pub struct HttpStreams {
    server: Endpoint,
    tls: Arc<ClientConfig>,
    options: StreamOptions,
}

impl HttpStreams {
    /// Prepares a transport; nothing is connected yet.
    ///
    /// # Errors
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) when the trust cannot be set up.
    pub fn new(server: Endpoint, trust: &TlsTrust, options: StreamOptions) -> VimResult<Self> {
        Ok(Self { server, tls: trust.client_config()?, options })
    }

    async fn perform(&self, request: StreamRequest) -> Result<StreamResponse, TransportError> {
        let options = &self.options;
        let deadline = options.total_timeout.and_then(|limit| Instant::now().checked_add(limit));
        let watch = Arc::new(Watch::new());
        let endpoint = request.target.other.as_ref().map_or(&self.server, |other| &other.endpoint).clone();
        let (mut sender, connection) = self.connect(&endpoint, &request.target).await?;
        let message = self.message(request, &endpoint, &watch)?;
        let answer = sender.send_request(message);
        let mut answer = std::pin::pin!(answer);
        let response = loop {
            let (due, why) = watch.due(options.head_timeout, options.idle_timeout);
            let due = deadline.map_or(due, |deadline| deadline.min(due));
            tokio::select! {
                biased;
                response = &mut answer => break response,
                () = sleep_until(due) => {
                    let (now_due, _) = watch.due(options.head_timeout, options.idle_timeout);
                    let over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                    if over || Instant::now() >= now_due {
                        let why = if over { "the whole transfer took too long" } else { why };
                        return Err(TransportError::new(TransportErrorKind::Timeout, why));
                    }
                }
            }
        };
        let response = response.map_err(|error| match watch.failure() {
            Some(failure) => TransportError::new(TransportErrorKind::UploadSource, failure),
            None => TransportError::new(TransportErrorKind::Disconnected, error),
        })?;
        let (head, body) = response.into_parts();
        if head.status.is_success() && !watch.is_sent() {
            let text = format!("HTTP status {} came before all the data were sent", head.status.as_u16());
            return Err(TransportError::new(TransportErrorKind::Disconnected, text));
        }
        let headers: Vec<_> = head
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
            .collect();
        let body = Download::new(body, options.idle_timeout, deadline, connection);
        let response = StreamResponse::new(head.status.as_u16(), headers, Box::pin(body));
        match response.header("content-encoding") {
            Some(coding) if !coding.eq_ignore_ascii_case("identity") => {
                let text = format!("content encoding {coding:?} was not asked for");
                Err(TransportError::new(TransportErrorKind::Malformed, text))
            }
            _ => Ok(response),
        }
    }

    fn message(
        &self,
        request: StreamRequest,
        endpoint: &Endpoint,
        watch: &Arc<Watch>,
    ) -> Result<hyper::Request<Outgoing>, TransportError> {
        let method = match request.verb {
            StreamVerb::Get => Method::GET,
            StreamVerb::Head => Method::HEAD,
            StreamVerb::Put => Method::PUT,
            StreamVerb::Post => Method::POST,
            StreamVerb::Delete => Method::DELETE,
        };
        let mut builder = hyper::Request::builder()
            .method(method)
            .uri(request.target.path())
            .header(header::HOST, endpoint.authority())
            .header(header::USER_AGENT, USER_AGENT);
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        if let Some((name, value)) = &request.cookie {
            let pair = Bytes::from(format!("{name}={}", value.expose()));
            let mut value = header::HeaderValue::from_maybe_shared(pair).map_err(unusable)?;
            value.set_sensitive(true);
            builder = builder.header(header::COOKIE, value);
        }
        let chunked = self.options.framing == UploadFraming::Chunked;
        builder.body(Outgoing::new(request.body, chunked, Arc::clone(watch))).map_err(unusable)
    }

    async fn connect(
        &self,
        endpoint: &Endpoint,
        target: &StreamTarget,
    ) -> Result<(SendRequest<Outgoing>, Connection), TransportError> {
        let pinned = match target.other.as_ref().and_then(|other| other.thumbprint) {
            Some(thumbprint) => TlsTrust::Thumbprint(thumbprint).client_config().map(Some).map_err(unusable)?,
            None => None,
        };
        let tls = pinned.as_ref().unwrap_or(&self.tls);
        let limit = self.options.connect_timeout;
        let connecting = async {
            let stream = dial(endpoint.host(), endpoint.port(), tls, self.options.tcp_keep_alive).await?;
            hyper::client::conn::http1::handshake(HyperIo::new(stream))
                .await
                .map_err(|error| TransportError::new(TransportErrorKind::Connect, error).not_sent())
        };
        let (sender, connection) = timeout(limit, connecting).await.map_err(|_| {
            let text = format!("no connection to {} within {} s", endpoint.authority(), limit.as_secs_f32());
            TransportError::new(TransportErrorKind::Connect, text).not_sent()
        })??;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
        Ok((sender, Connection(driver)))
    }
}

impl StreamTransport for HttpStreams {
    fn exchange(&self, request: StreamRequest) -> BoxFuture<'_, Result<StreamResponse, TransportError>> {
        Box::pin(self.perform(request))
    }
}
