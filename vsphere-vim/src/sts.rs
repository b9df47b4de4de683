//! Tokens from vCenter's security token service (WS-Trust 1.3).
//!
//! ```no_run
//! use std::sync::Arc;
//! use vsphere_vim::{Credentials, Endpoint, Thumbprint, TlsTrust, Vim};
//! use vsphere_vim::{sts::{TokenIssuer, TokenRequest}, transport::{HttpOptions, HttpTransport}};
//!
//! # async fn example(pin: Thumbprint, secret: String) -> vsphere_vim::Result<()> {
//! let vcenter = Endpoint::parse("https://vc.example/sdk")?;
//! let transport = HttpTransport::new(vcenter, &TlsTrust::from(pin), HttpOptions::default())?;
//! let request = TokenRequest::new("svc-backup@vsphere.local", secret);
//! let issuer = TokenIssuer::new(request, Arc::new(transport));
//! // A fresh token at each login: a session may live longer than the token that opened it.
//! let vim = Vim::builder("https://vc.example/sdk").credentials(Credentials::token_source(issuer)).thumbprint(pin);
//! # let _ = vim.connect().await?;
//! # Ok(()) }
//! ```
//!
//! Bearer tokens only: holder-of-key tokens need XML signatures, which this crate does not make.

mod message;
mod refusal;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

pub(crate) use self::message::security_header;
pub use self::refusal::{TokenFault, TokenRefusal};
use crate::{
    credentials::{SamlToken, TokenSource},
    error::{Call, Error, Result, TransportError, TransportErrorKind},
    secret::Secret,
    transport::{BoxFuture, Request, Transport, Verb},
};

/// Asks for a bearer token with a user name and a password.
#[derive(Clone)]
#[must_use = "a request does nothing until `issue` is awaited"]
pub struct TokenRequest {
    user: String,
    password: Secret,
    lifetime: Duration,
    renewable: bool,
    delegatable: bool,
    path: String,
    timeout: Duration,
}

impl TokenRequest {
    /// For this user (`user@domain`).
    pub fn new(user: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self {
            user: user.into(),
            password: password.into(),
            lifetime: Duration::from_secs(600),
            renewable: false,
            delegatable: false,
            path: "/sts/STSService".to_owned(),
            timeout: Duration::from_secs(60),
        }
    }

    /// How long the token is to live; the service may grant less. 10 minutes: it is needed for one login.
    pub fn lifetime(self, lifetime: Duration) -> Self {
        Self { lifetime, ..self }
    }

    /// Whether the token may be renewed.
    pub fn renewable(self, renewable: bool) -> Self {
        Self { renewable, ..self }
    }

    /// Whether the token may be handed on to other services.
    pub fn delegatable(self, delegatable: bool) -> Self {
        Self { delegatable, ..self }
    }

    /// Where the service is, as the lookup service names it. `/sts/STSService`.
    pub fn path(self, path: impl Into<String>) -> Self {
        Self { path: path.into(), ..self }
    }

    /// How long to wait for the answer. 60 s.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Fetches a token. Once: repeating a wrong password can lock the account.
    ///
    /// # Errors
    /// [`Error::Token`] when the service refuses, [`Error::Transport`] when there is none, [`Error::Protocol`] when
    /// the answer holds no token.
    ///
    /// # Cancel safety
    /// Cancel safe; a token that nobody receives expires.
    #[doc(alias = "RequestSecurityToken")]
    pub async fn issue(&self, transport: &dyn Transport) -> Result<SamlToken> {
        let request = Request {
            verb: Verb::Post,
            path: self.path.clone(),
            soap_action: Some(message::ACTION.to_owned()),
            cookie: None,
            body: Bytes::from_owner(message::encode(self)),
            timeout: self.timeout,
            long_poll: false,
        };
        let response = transport.send(request).await.map_err(|source| Error::transport(OPERATION, source))?;
        match message::decode(&response.body) {
            Ok(Ok(token)) => Ok(token),
            Ok(Err(refusal)) => Err(Error::Token(Box::new(refusal))),
            // What is no XML, or comes with an error status, is not the service speaking.
            Err(_) if response.status != 200 || !response.body.trim_ascii_start().starts_with(b"<") => {
                let kind = TransportErrorKind::HttpStatus(response.status);
                let text = format!("{} bytes that are no SOAP answer", response.body.len());
                Err(Error::transport(OPERATION, TransportError::new(kind, text)))
            }
            Err(what) => Err(Error::protocol(Call::named(OPERATION), what)),
        }
    }
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRequest")
            .field("user", &self.user)
            .field("lifetime", &self.lifetime)
            .field("renewable", &self.renewable)
            .field("delegatable", &self.delegatable)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// A [`TokenSource`] that asks the token service at each login.
#[derive(Clone, Debug)]
pub struct TokenIssuer {
    request: TokenRequest,
    transport: Arc<dyn Transport>,
}

impl TokenIssuer {
    /// Sends `request` over `transport` whenever a token is needed.
    pub fn new(request: TokenRequest, transport: Arc<dyn Transport>) -> Self {
        Self { request, transport }
    }
}

impl TokenSource for TokenIssuer {
    fn token(&self) -> BoxFuture<'_, Result<SamlToken>> {
        Box::pin(self.request.issue(&*self.transport))
    }
}

const OPERATION: &str = "RequestSecurityToken";
