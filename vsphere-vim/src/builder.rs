//! How a connection is described before it is made.

use std::{sync::Arc, time::Duration};

use crate::{
    client::{Routes, Vim},
    credentials::{Credentials, Kind},
    endpoint::Endpoint,
    error::{Error, Result},
    gate::{NewerFields, NewerMethods},
    retry::RetryPolicy,
    transport::{
        HttpOptions, HttpTransport, Transport,
        stream::{HttpStreams, StreamOptions, StreamTransport},
    },
    trust::{Thumbprint, TlsTrust},
    version::WireVersion,
};

/// Describes a connection to a vCenter Server or ESXi host; made by [`Vim::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `connect` is awaited"]
pub struct VimBuilder {
    url: String,
    credentials: Option<Credentials>,
    trust: Option<TlsTrust>,
    transport: Option<Arc<dyn Transport>>,
    http: HttpOptions,
    streams: StreamOptions,
    pub(crate) settings: Settings,
}

/// What the client needs to know after it is connected.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) retry: RetryPolicy,
    pub(crate) version: Option<WireVersion>,
    pub(crate) fallback_version: WireVersion,
    pub(crate) locale: Option<String>,
    pub(crate) request_timeout: Duration,
    pub(crate) keep_alive: Option<Duration>,
    pub(crate) renew_after: Option<Duration>,
    pub(crate) max_answer: usize,
    /// Where large bodies go; none when the caller replaced the network and stated no trust.
    pub(crate) streams: Option<Arc<dyn StreamTransport>>,
    pub(crate) newer_methods: NewerMethods,
    pub(crate) newer_fields: NewerFields,
}

impl VimBuilder {
    pub(crate) fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            credentials: None,
            trust: None,
            transport: None,
            http: HttpOptions::default(),
            streams: StreamOptions::default(),
            settings: Settings {
                retry: RetryPolicy::default(),
                version: None,
                fallback_version: WireVersion::fallback(),
                locale: None,
                request_timeout: Duration::from_secs(150),
                keep_alive: Some(Duration::from_secs(300)),
                renew_after: None,
                max_answer: HttpOptions::default().max_body,
                streams: None,
                newer_methods: NewerMethods::default(),
                newer_fields: NewerFields::default(),
            },
        }
    }

    /// Who logs in. Required.
    pub fn credentials(self, credentials: Credentials) -> Self {
        Self { credentials: Some(credentials), ..self }
    }

    /// States what makes the server's certificate good. One of these is required; the last one stated counts.
    pub fn trust(self, trust: impl Into<TlsTrust>) -> Self {
        Self { trust: Some(trust.into()), ..self }
    }

    /// Trusts exactly the certificate with this thumbprint: the usual way for hosts with self-signed certificates.
    pub fn thumbprint(self, thumbprint: Thumbprint) -> Self {
        self.trust(thumbprint)
    }

    /// Trusts certificates issued by the authorities in this PEM file.
    pub fn ca_file(self, path: impl Into<std::path::PathBuf>) -> Self {
        self.trust(TlsTrust::CaFile(path.into()))
    }

    /// Trusts certificates issued by the authorities that the operating system trusts.
    pub fn system_roots(self) -> Self {
        self.trust(TlsTrust::SystemRoots)
    }

    /// Replaces the network, for tests, recording and replay. TLS trust is then the transport's business, and so is
    /// the client certificate of an extension.
    pub fn transport(self, transport: Arc<dyn Transport>) -> Self {
        Self { transport: Some(transport), ..self }
    }

    /// Limits of connections and answers.
    pub fn http_options(self, http: HttpOptions) -> Self {
        let mut settings = self.settings;
        settings.max_answer = http.max_body;
        Self { http, settings, ..self }
    }

    /// Replaces the network for large bodies (datastore files, leased disks), for tests.
    pub fn stream_transport(mut self, streams: Arc<dyn StreamTransport>) -> Self {
        self.settings.streams = Some(streams);
        self
    }

    /// Limits of large bodies.
    pub fn stream_options(self, streams: StreamOptions) -> Self {
        Self { streams, ..self }
    }

    /// How failures of the network are met.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.settings.retry = retry;
        self
    }

    /// How long to wait for the answer to an ordinary call; waiting for tasks has its own limits. 150 s.
    pub fn request_timeout(mut self, limit: Duration) -> Self {
        self.settings.request_timeout = limit;
        self
    }

    /// How long the session may lie unused before it is touched; `None` leaves it to die. 5 minutes.
    pub fn keep_alive(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.settings.keep_alive = interval.into();
        self
    }

    /// Replaces the session by a new one when it reaches this age: a server ends it at some age however busy it is
    /// (86 400 s have been seen). Off, because a session takes with it what belongs to it: views, property collectors,
    /// leases. Without this a session that the server ends is replaced all the same, when that is noticed.
    pub fn renew_session_after(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.settings.renew_after = age.into();
        self
    }

    /// What becomes of methods that are newer than the negotiated version. They are refused.
    pub fn newer_methods(mut self, newer: NewerMethods) -> Self {
        self.settings.newer_methods = newer;
        self
    }

    /// What becomes of fields that are newer than the negotiated version. They are left out.
    pub fn newer_fields(mut self, newer: NewerFields) -> Self {
        self.settings.newer_fields = newer;
        self
    }

    /// Speaks this version instead of negotiating one.
    pub fn api_version(mut self, version: WireVersion) -> Self {
        self.settings.version = Some(version);
        self
    }

    /// The version to speak to a server that publishes no list of versions. 4.0, the first with changed block tracking.
    pub fn fallback_version(mut self, version: WireVersion) -> Self {
        self.settings.fallback_version = version;
        self
    }

    /// The language of the server's messages, such as `en_US`.
    pub fn locale(mut self, locale: impl Into<String>) -> Self {
        self.settings.locale = Some(locale.into());
        self
    }

    /// Connects, negotiates the version, reads the service content and logs in.
    ///
    /// The first contact is not repeated when the network fails, so that a wrong address is reported at once.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when credentials or trust are not stated or unusable, [`Error::Transport`] when there
    /// is no such server or it is not trusted, [`Error::Fault`] with `InvalidLogin`, [`Error::Unsupported`] when no
    /// version is common or it has no such login, [`Error::Token`] when no token was issued,
    /// [`Error::SessionEnded`] when an adopted session is dead.
    ///
    /// # Cancel safety
    /// A dropped future may leave a session on the server, which ends by itself.
    #[doc(alias = "Login")]
    pub async fn connect(self) -> Result<Vim> {
        let endpoint = Endpoint::parse(&self.url)?;
        let credentials =
            self.credentials.ok_or_else(|| Error::invalid_input("credentials", "not stated; who logs in?"))?;
        let mut settings = self.settings;
        if let (None, Some(trust)) = (&settings.streams, &self.trust) {
            settings.streams = Some(Arc::new(HttpStreams::new(endpoint.clone(), trust, self.streams)?));
        }
        let mut login_route: Option<Arc<dyn Transport>> = None;
        let transport: Arc<dyn Transport> = match (self.transport, self.trust) {
            (Some(transport), _) => transport,
            (None, Some(trust)) => {
                if let Kind::Extension(extension) = credentials.kind() {
                    let (certificate, route) = (&extension.certificate, extension.route);
                    let http = self.http.clone();
                    let transport = HttpTransport::for_extension(endpoint.clone(), &trust, http, certificate, route)?;
                    login_route = Some(Arc::new(transport));
                }
                Arc::new(HttpTransport::new(endpoint.clone(), &trust, self.http)?)
            }
            (None, None) => {
                let why = "not stated; choose thumbprint, ca_file or system_roots (nothing is trusted silently)";
                return Err(Error::invalid_input("trust", why));
            }
        };
        Vim::connect(endpoint, credentials, Routes { transport, login: login_route }, settings).await
    }
}
