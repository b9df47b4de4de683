//! Where calls go: the main service, or one beside it on the same server that shares the session.

use std::borrow::Cow;

use bytes::Bytes;
use vsphere_vim_types::{ApiVersion, soap};

use crate::{secret::Secret, version::WireVersion};

/// One SOAP service: its path and the dialect that it is spoken to in.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    path: Cow<'static, str>,
    soap_action: String,
    version: ApiVersion,
    kind: Kind,
}

/// How a service knows whose session a call belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// By the cookie that it has issued itself.
    Main,
    /// By the main service's cookie, carried in the envelope. Cookies that it issues are its own affair.
    Beside,
}

impl Service {
    /// The service that the client logs in to.
    pub(crate) fn main(path: &str, version: &WireVersion) -> Self {
        Self {
            path: Cow::Owned(path.to_owned()),
            soap_action: version.soap_action(),
            version: version.api_version(),
            kind: Kind::Main,
        }
    }

    /// A service that takes the main one's session.
    pub(crate) fn beside(path: &'static str, namespace: &str, version: &WireVersion) -> Self {
        Self {
            path: Cow::Borrowed(path),
            soap_action: format!("{namespace}/{version}"),
            version: version.api_version(),
            kind: Kind::Beside,
        }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn soap_action(&self) -> &str {
        &self.soap_action
    }

    /// Whether cookies in its answers are the session's.
    pub(crate) fn issues_session(&self) -> bool {
        self.kind == Kind::Main
    }

    /// What the service knows; anything newer it refuses without saying what.
    pub(crate) fn version(&self) -> ApiVersion {
        self.version
    }

    /// The request as it is sent in the session of `cookie`. Made anew for each try: the session may have been
    /// replaced since the last one.
    pub(crate) fn dress(&self, body: &Bytes, cookie: Option<&Secret>) -> Bytes {
        match (self.kind, cookie, std::str::from_utf8(body)) {
            (Kind::Beside, Some(cookie), Ok(text)) => soap::with_session_header(text, cookie.expose()).into(),
            _ => body.clone(),
        }
    }
}
