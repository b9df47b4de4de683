//! Who logs in, and how.

mod certificate;
mod token;

use std::{fmt, sync::Arc};

pub use self::{
    certificate::{ClientCertificate, ExtensionRoute},
    token::{SamlToken, TokenSource},
};
use crate::{error::Result, secret::Secret};

/// Who logs in, and how. Cheap to clone; prints no secret.
///
/// | constructor | the server's method | logs in again when the session dies |
/// |---|---|---|
/// | [`password`](Self::password) | `Login` | yes |
/// | [`token`](Self::token) | `LoginByToken` | as long as the token lives |
/// | [`token_source`](Self::token_source) | `LoginByToken` | yes, each time with a fresh token |
/// | [`extension`](Self::extension) | `LoginExtensionByCertificate` | yes |
/// | [`clone_of`](Self::clone_of) | `CloneSession` | no: the ticket works once |
/// | [`adopted_cookie`](Self::adopted_cookie) | none | no: the session is somebody else's |
///
/// Secrets are wiped when the last clone goes. Buffers of the HTTP and TLS libraries below are not under this crate's
/// control and are not wiped.
#[derive(Clone)]
pub struct Credentials {
    kind: Kind,
}

#[derive(Clone)]
pub(crate) enum Kind {
    Password { user: String, password: Secret },
    Token(SamlToken),
    TokenSource(Arc<dyn TokenSource>),
    Extension(Extension),
    Clone(Secret),
    Cookie(Secret),
}

/// An extension (a registered solution) and the way to its login.
#[derive(Clone)]
pub(crate) struct Extension {
    pub(crate) key: String,
    pub(crate) certificate: ClientCertificate,
    pub(crate) route: ExtensionRoute,
}

impl Credentials {
    /// A user name as the server knows it (`svc-backup@vsphere.local`, `root`) and the password.
    #[doc(alias = "Login")]
    pub fn password(user: impl Into<String>, password: impl Into<Secret>) -> Self {
        Kind::Password { user: user.into(), password: password.into() }.into()
    }

    /// A SAML bearer token. When the session dies after the token has expired, calls fail with `InvalidLogin`.
    ///
    /// # Since
    /// vCenter 5.1.
    #[doc(alias = "LoginByToken")]
    pub fn token(token: SamlToken) -> Self {
        Kind::Token(token).into()
    }

    /// Whatever fetches a SAML bearer token, asked again at each login: a
    /// [`TokenIssuer`](crate::sts::TokenIssuer), or a closure.
    ///
    /// ```
    /// use vsphere_vim::{Credentials, credentials::SamlToken};
    /// # fn read_from_vault() -> vsphere_vim::Result<SamlToken> { unimplemented!() }
    /// let credentials = Credentials::token_source(|| async { read_from_vault() });
    /// ```
    ///
    /// # Since
    /// vCenter 5.1.
    #[doc(alias = "LoginByToken")]
    pub fn token_source(source: impl TokenSource + 'static) -> Self {
        Kind::TokenSource(Arc::new(source)).into()
    }

    /// An extension's key, and the certificate that was registered for it (`SetExtensionCertificate`) with its
    /// private key, both PEM.
    ///
    /// vCenter asks for client certificates only behind its SDK tunnel; see [`ExtensionRoute`] for the way there,
    /// and [`Credentials::route`] to choose another.
    ///
    /// # Errors
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) when the PEM texts hold no usable certificate and key.
    ///
    /// # Since
    /// vCenter 4.0. VMware calls it deprecated since 6.0, in favour of tokens.
    #[doc(alias = "LoginExtensionByCertificate")]
    pub fn extension(key: impl Into<String>, certificate_pem: &[u8], key_pem: &[u8]) -> Result<Self> {
        let certificate = ClientCertificate::from_pem(certificate_pem, key_pem)?;
        Ok(Kind::Extension(Extension { key: key.into(), certificate, route: ExtensionRoute::default() }).into())
    }

    /// For an extension: the way to the place where vCenter looks at client certificates. Others ignore it.
    #[must_use]
    pub fn route(mut self, route: ExtensionRoute) -> Self {
        if let Kind::Extension(extension) = &mut self.kind {
            extension.route = route;
        }
        self
    }

    /// A ticket of [`Vim::clone_ticket`](crate::Vim::clone_ticket): another session of the same user.
    ///
    /// The ticket works once. When the session dies, calls fail with
    /// [`Error::SessionEnded`](crate::Error::SessionEnded).
    #[doc(alias = "CloneSession")]
    pub fn clone_of(ticket: impl Into<Secret>) -> Self {
        Kind::Clone(ticket.into()).into()
    }

    /// The session of another program, by its cookie's value (`vmware_soap_session`), with or without quotes.
    ///
    /// It is used and never ended: no login, no logout, no login again. When it dies, calls fail with
    /// [`Error::SessionEnded`](crate::Error::SessionEnded).
    #[doc(alias = "vmware_soap_session")]
    pub fn adopted_cookie(cookie: impl Into<Secret>) -> Self {
        Kind::Cookie(cookie.into()).into()
    }

    /// The user name or extension key, where the credentials say it.
    pub fn user(&self) -> Option<&str> {
        match &self.kind {
            Kind::Password { user, .. } => Some(user),
            Kind::Token(token) => token.subject(),
            Kind::Extension(extension) => Some(&extension.key),
            Kind::TokenSource(_) | Kind::Clone(_) | Kind::Cookie(_) => None,
        }
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }
}

impl From<Kind> for Credentials {
    fn from(kind: Kind) -> Self {
        Self { kind }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Password { .. } => "password",
            Kind::Token(_) => "token",
            Kind::TokenSource(_) => "token source",
            Kind::Extension(_) => "extension",
            Kind::Clone(_) => "clone of a session",
            Kind::Cookie(_) => "adopted session",
        };
        f.debug_struct("Credentials").field("kind", &kind).field("user", &self.user()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let made = rcgen::generate_simple_self_signed(["ext".to_owned()]).unwrap();
        let key = made.signing_key.serialize_pem();
        let token = SamlToken::parse(
            "<a:Assertion xmlns:a='urn:oasis:names:tc:SAML:2.0:assertion' ID='_hunter2'><a:Subject><a:NameID>me</a:NameID></a:Subject></a:Assertion>",
        )
        .unwrap();
        let all = [
            Credentials::password("root", "hunter2"),
            Credentials::token(token.clone()),
            Credentials::token_source(move || std::future::ready(Ok(token.clone()))),
            Credentials::extension("com.example", made.cert.pem().as_bytes(), key.as_bytes()).unwrap(),
            Credentials::clone_of("hunter2"),
            Credentials::adopted_cookie("hunter2"),
        ];
        let shown = format!("{all:?}");
        assert!(shown.contains("root") && shown.contains("com.example") && shown.contains("me"), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains("PRIVATE") && !shown.contains(&key[40..80]), "{shown}");
    }
}
