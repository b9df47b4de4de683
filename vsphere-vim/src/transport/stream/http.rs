//! Streams over HTTP/1.1 and TLS.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{Method, header};
use rustls::ClientConfig;
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    StreamRequest, StreamResponse, StreamTransport, StreamVerb,
    download::Download,
    kept::{Kept, Link, Peer},
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
    /// Connections whose exchange has ended that are kept for reads to come: many small ranges need no handshake each.
    /// 8; with 0 every exchange has a connection of its own.
    pub keep: usize,
    /// How long such a connection is kept. 10 s.
    pub keep_for: Duration,
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
            keep: 8,
            keep_for: Duration::from_secs(10),
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
    kept: Arc<Kept>,
}

impl HttpStreams {
    /// Prepares a transport; nothing is connected yet.
    ///
    /// # Errors
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) when the trust cannot be set up.
    pub fn new(server: Endpoint, trust: &TlsTrust, options: StreamOptions) -> VimResult<Self> {
        let kept = Arc::new(Kept::new(options.keep, options.keep_for));
        Ok(Self { server, tls: trust.client_config()?, options, kept })
    }

    /// Uses a connection that was kept, if there is one and the request may be sent twice: the server may have closed
    /// it in this moment.
    async fn perform(&self, mut request: StreamRequest) -> Result<StreamResponse, TransportError> {
        let deadline = self.options.total_timeout.and_then(|limit| Instant::now().checked_add(limit));
        let other = request.target.other.as_ref();
        let peer = Peer {
            endpoint: other.map_or(&self.server, |other| &other.endpoint).clone(),
            thumbprint: other.and_then(|other| other.thumbprint),
        };
        if request.body.is_none()
            && let StreamVerb::Get | StreamVerb::Head = request.verb
            && let Some(link) = self.kept.take(&peer).await
        {
            match self.exchange_over(link, &mut request, deadline).await {
                Err(error) if error.kind() == TransportErrorKind::Disconnected => {
                    tracing::debug!(%error, "a kept connection was gone; making a new one");
                }
                other => return other,
            }
        }
        let link = self.connect(&peer).await?;
        self.exchange_over(link, &mut request, deadline).await
    }

    async fn exchange_over(
        &self,
        mut link: Link,
        request: &mut StreamRequest,
        deadline: Option<Instant>,
    ) -> Result<StreamResponse, TransportError> {
        let options = &self.options;
        let watch = Arc::new(Watch::new());
        let message = self.message(request, &link.to.endpoint, &watch)?;
        let answer = link.sender.send_request(message);
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
        let body = Download::new(body, options.idle_timeout, deadline, link, Arc::clone(&self.kept));
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
        request: &mut StreamRequest,
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
        builder.body(Outgoing::new(request.body.take(), chunked, Arc::clone(watch))).map_err(unusable)
    }

    async fn connect(&self, peer: &Peer) -> Result<Link, TransportError> {
        let endpoint = &peer.endpoint;
        let pinned = match peer.thumbprint {
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
        Ok(Link { to: peer.clone(), sender, driver })
    }
}

impl StreamTransport for HttpStreams {
    fn exchange(&self, request: StreamRequest) -> BoxFuture<'_, Result<StreamResponse, TransportError>> {
        Box::pin(self.perform(request))
    }
}
