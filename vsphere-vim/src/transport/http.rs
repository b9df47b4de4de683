//! HTTP/1.1 over TLS: the transport that real servers get.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, header};
use rustls::ClientConfig;
use tokio::time::timeout;

use super::{
    BoxFuture, Request, Response, Transport, TransportError, TransportErrorKind, Verb,
    body::{BodyLimits, Encoding, collect},
    cookie::{SESSION_COOKIE, session_cookie},
    dial::{connect_tcp, dial, start_tls},
    io::HyperIo,
    pool::{Pool, Sender},
    tunnel,
};
use crate::{
    credentials::{ClientCertificate, ExtensionRoute},
    endpoint::Endpoint,
    error::Result as VimResult,
    trust::TlsTrust,
};

/// Limits of the HTTP transport. Begin from the default: further limits may come.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Time for name resolution, TCP and TLS together. 30 s.
    pub connect_timeout: Duration,
    /// Longest silence in the middle of an answer's body. 60 s.
    pub body_idle_timeout: Duration,
    /// Longest time from the head of an answer to its end, however steadily it drips. 10 minutes.
    pub body_timeout: Duration,
    /// Requests at once, besides long polls. 16.
    pub max_connections: usize,
    /// Long polls at once (one for each running wait for a task). 64.
    pub max_long_polls: usize,
    /// How long an unused connection is kept. 60 s, below the two minutes after which vCenter's proxy closes it.
    pub max_idle: Duration,
    /// Largest accepted answer after decompression, in bytes. 256 MiB.
    pub max_body: usize,
    /// Whether gzip is offered. Yes.
    pub gzip: bool,
    /// TCP keep-alive probes start after this much silence, so that a long poll notices a dead peer. 30 s.
    pub tcp_keep_alive: Duration,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(30),
            body_idle_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(600),
            max_connections: 16,
            max_long_polls: 64,
            max_idle: Duration::from_secs(60),
            max_body: 256 << 20,
            gzip: true,
            tcp_keep_alive: Duration::from_secs(30),
        }
    }
}

/// HTTP/1.1 over TLS with kept connections. See [`HttpOptions`] for its limits.
#[derive(Debug)]
pub struct HttpTransport {
    endpoint: Endpoint,
    tls: Arc<ClientConfig>,
    options: HttpOptions,
    pool: Pool,
    way: Way,
}

/// Where the TCP connection goes.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// To the endpoint.
    Endpoint,
    /// To another port of its host.
    Port(u16),
    /// To the HTTP proxy on this port of its host, and through it to the SDK tunnel.
    Tunnel(u16),
}

impl HttpTransport {
    /// Prepares a transport; nothing is connected yet.
    ///
    /// # Errors
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) when the trust cannot be set up (CA file missing, no
    /// system roots).
    pub fn new(endpoint: Endpoint, trust: &TlsTrust, options: HttpOptions) -> VimResult<Self> {
        Ok(Self::with(endpoint, trust.client_config()?, options, Way::Endpoint))
    }

    /// Prepares a transport that shows a client certificate, for the login of an extension.
    ///
    /// # Errors
    /// As [`HttpTransport::new`]; also when the certificate's key cannot be used.
    pub fn for_extension(
        endpoint: Endpoint,
        trust: &TlsTrust,
        options: HttpOptions,
        certificate: &ClientCertificate,
        route: ExtensionRoute,
    ) -> VimResult<Self> {
        let way = match route {
            ExtensionRoute::Tunnel { proxy_port } => Way::Tunnel(proxy_port),
            ExtensionRoute::Port(port) => Way::Port(port),
            ExtensionRoute::Direct => Way::Endpoint,
        };
        Ok(Self::with(endpoint, trust.client_config_with(Some(certificate))?, options, way))
    }

    fn with(endpoint: Endpoint, tls: Arc<ClientConfig>, options: HttpOptions, way: Way) -> Self {
        let pool = Pool::new(options.max_connections, options.max_long_polls, options.max_idle);
        Self { endpoint, tls, options, pool, way }
    }

    async fn exchange(&self, request: Request) -> Result<Response, TransportError> {
        let _admission = self.pool.admit(request.long_poll).await;
        let mut message = self.message(&request)?;
        // A kept connection may have died unnoticed. As long as hyper hands the message back, nothing of it was
        // sent, and the next connection may be tried whatever the call means.
        let (response, sender) = loop {
            let (mut sender, fresh) = match self.pool.take() {
                Some(sender) => (sender, false),
                None => (self.connect().await?, true),
            };
            let head = timeout(request.timeout, sender.try_send_request(message)).await.map_err(|_| {
                let text = format!("no answer within {} s", request.timeout.as_secs_f32());
                TransportError::new(TransportErrorKind::Timeout, text)
            })?;
            match head {
                Ok(response) => break (response, sender),
                Err(mut failure) => match failure.take_message() {
                    Some(unsent) if !fresh => message = unsent,
                    unsent => {
                        let error = TransportError::new(TransportErrorKind::Disconnected, failure.into_error());
                        return Err(if unsent.is_some() { error.not_sent() } else { error });
                    }
                },
            }
        };

        let (head, body) = response.into_parts();
        let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let encoding = match text(header::CONTENT_ENCODING) {
            None => Encoding::Identity,
            Some(name) if name.eq_ignore_ascii_case("identity") => Encoding::Identity,
            Some(name) if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => Encoding::Gzip,
            Some(other) => {
                let text = format!("content encoding {other:?} was not offered");
                return Err(TransportError::new(TransportErrorKind::Malformed, text));
            }
        };
        let content_type = text(header::CONTENT_TYPE).map(str::to_owned);
        let cookies = head.headers.get_all(header::SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
        let cookie = session_cookie(cookies);
        let HttpOptions { max_body: size, body_idle_timeout: idle, body_timeout: total, .. } = self.options;
        let body = collect(body, encoding, BodyLimits { size, idle, total }).await?;
        self.pool.put_back(sender);
        Ok(Response { status: head.status.as_u16(), content_type, cookie, body })
    }

    fn message(&self, request: &Request) -> Result<hyper::Request<Full<Bytes>>, TransportError> {
        let method = match request.verb {
            Verb::Get => Method::GET,
            Verb::Post => Method::POST,
        };
        let mut builder = hyper::Request::builder()
            .method(method)
            .uri(&request.path)
            .header(header::HOST, self.endpoint.authority())
            .header(header::USER_AGENT, USER_AGENT);
        if self.options.gzip {
            builder = builder.header(header::ACCEPT_ENCODING, "gzip");
        }
        if request.verb == Verb::Post {
            builder = builder.header(header::CONTENT_TYPE, "text/xml; charset=utf-8");
        }
        if let Some(action) = &request.soap_action {
            // SOAP 1.1 wants quotes. VMware's own clients name WS-Trust actions without, and services compare them so.
            let bare = action.starts_with("http");
            let value = if bare { action.clone() } else { format!("\"{action}\"") };
            builder = builder.header("SOAPAction", value);
        }
        if let Some(cookie) = &request.cookie {
            let pair = format!("{SESSION_COOKIE}={}", cookie.expose());
            let mut value = header::HeaderValue::from_maybe_shared(Bytes::from(pair)).map_err(unusable)?;
            value.set_sensitive(true);
            builder = builder.header(header::COOKIE, value);
        }
        builder.body(Full::new(request.body.clone())).map_err(unusable)
    }

    async fn connect(&self) -> Result<Sender, TransportError> {
        let limit = self.options.connect_timeout;
        match timeout(limit, self.connect_unbounded()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(TransportError::new(
                TransportErrorKind::Connect,
                format!("no connection to {} within {} s", self.endpoint.authority(), limit.as_secs_f32()),
            )
            .not_sent()),
        }
    }

    async fn connect_unbounded(&self) -> Result<Sender, TransportError> {
        let (host, keep_alive) = (self.endpoint.host(), self.options.tcp_keep_alive);
        let stream = match self.way {
            Way::Endpoint => dial(host, self.endpoint.port(), &self.tls, keep_alive).await?,
            Way::Port(port) => dial(host, port, &self.tls, keep_alive).await?,
            Way::Tunnel(proxy_port) => {
                let mut stream = connect_tcp(host, proxy_port, keep_alive).await?;
                tunnel::open(&mut stream).await.map_err(|error| {
                    TransportError::new(TransportErrorKind::Connect, format!("the SDK tunnel: {error}")).not_sent()
                })?;
                // Behind the tunnel too it is the server's own certificate that has to be good.
                start_tls(host, &self.tls, stream).await?
            }
        };
        let (sender, connection) = hyper::client::conn::http1::handshake(HyperIo::new(stream))
            .await
            .map_err(|error| TransportError::new(TransportErrorKind::Connect, error).not_sent())?;
        tokio::spawn(async move {
            // Ends when the sender is dropped or the peer closes; a request in flight reports the error itself.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
        Ok(sender)
    }
}

impl Transport for HttpTransport {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        Box::pin(self.exchange(request))
    }
}

/// A request that cannot be written, such as a path with blanks: the caller's mistake, nothing was sent.
pub(super) fn unusable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TransportError {
    TransportError::new(TransportErrorKind::Malformed, error).not_sent()
}

pub(super) const USER_AGENT: &str = concat!("vsphere-vim/", env!("CARGO_PKG_VERSION"));
