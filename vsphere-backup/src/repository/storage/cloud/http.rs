//! How the stores are spoken to.

use std::{fmt, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, RetryConfig,
    client::{HttpClient, HttpConnector},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::error::{Error, Result};

/// How an object store is spoken to: trust, proxy, patience.
#[derive(Clone)]
#[must_use]
pub struct HttpOptions {
    plain: bool,
    trust: Option<Vec<u8>>,
    proxy: Option<String>,
    connect: Duration,
    silence: Duration,
    retries: usize,
    longest: Duration,
}

impl Default for HttpOptions {
    /// TLS with the system's roots, no proxy; 10 s to connect, 30 s of silence; 8 retries within 2 minutes.
    fn default() -> Self {
        Self {
            plain: false,
            trust: None,
            proxy: None,
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            retries: 8,
            longest: Duration::from_secs(120),
        }
    }
}

impl fmt::Debug for HttpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address of a proxy may hold a password.
        let Self { plain, retries, silence, .. } = self;
        f.debug_struct("HttpOptions").field("plain", plain).field("retries", retries).field("silence", silence).finish()
    }
}

impl HttpOptions {
    /// Allows an address that begins with `http://`: for a server on this computer or behind a tunnel.
    pub fn plain(mut self, allowed: bool) -> Self {
        self.plain = allowed;
        self
    }

    /// Trusts the certificates of a PEM text, and no others.
    pub fn trust_only(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.trust = Some(pem.into());
        self
    }

    /// Sends everything through a proxy, such as `http://proxy:3128`.
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.proxy = Some(url.into());
        self
    }

    /// Sets how long connecting may take, and how long a server may be silent within an answer.
    pub fn patience(mut self, connect: Duration, silence: Duration) -> Self {
        (self.connect, self.silence) = (connect, silence);
        self
    }

    /// Sets how often a request is sent again that failed for a moment, and for how long at most.
    pub fn retries(mut self, count: usize, longest: Duration) -> Self {
        (self.retries, self.longest) = (count, longest);
        self
    }

    pub(super) fn allows_plain(&self) -> bool {
        self.plain
    }

    pub(super) fn client_options(&self) -> ClientOptions {
        ClientOptions::new().with_allow_http(self.plain)
    }

    pub(super) fn retry(&self) -> RetryConfig {
        let backoff = BackoffConfig { max_backoff: Duration::from_secs(10), ..BackoffConfig::default() };
        RetryConfig { backoff, max_retries: self.retries, retry_timeout: self.longest }
    }

    /// Makes what object_store opens its connections with.
    ///
    /// # Errors
    /// [`Error::Invalid`] for certificates or a proxy that cannot be used.
    pub(super) fn connector(&self) -> Result<Connector> {
        let mut roots = rustls::RootCertStore::empty();
        match &self.trust {
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let certificate =
                        certificate.map_err(|error| Error::invalid(format!("trusted certificates: {error}")))?;
                    roots
                        .add(certificate)
                        .map_err(|error| Error::invalid(format!("a trusted certificate: {error}")))?;
                }
                if roots.is_empty() {
                    return Err(Error::invalid("the trusted certificates hold none"));
                }
            }
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions of TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let proxy = match &self.proxy {
            Some(url) => {
                // Without the cause, which quotes the address.
                Some(reqwest::Proxy::all(url).map_err(|_| Error::invalid("the proxy's address is not valid"))?)
            }
            None => None,
        };
        Ok(Connector { tls, proxy, connect: self.connect, silence: self.silence })
    }
}

/// Opens connections with our TLS, and without a look at the environment.
pub(super) struct Connector {
    tls: rustls::ClientConfig,
    proxy: Option<reqwest::Proxy>,
    connect: Duration,
    silence: Duration,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let plain = options.get_config_value(&object_store::ClientConfigKey::AllowHttp);
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .https_only(plain.as_deref() != Some("true"))
            .http1_only()
            .no_proxy()
            .connect_timeout(self.connect)
            .read_timeout(self.silence)
            .user_agent(concat!("vsphere-backup/", env!("CARGO_PKG_VERSION")));
        let builder = match &self.proxy {
            Some(proxy) => builder.proxy(proxy.clone()),
            None => builder,
        };
        let client =
            builder.build().map_err(|error| object_store::Error::Generic { store: "HTTP", source: Box::new(error) })?;
        Ok(HttpClient::new(client))
    }
}
