//! SAML tokens: kept byte by byte, because they are signed.

use std::{fmt, future::Future};

use vsphere_vim_types::{
    DateTime,
    xml::{Limits, Malformed, Reader},
};

use crate::{
    error::{Error, Result},
    secret::Secret,
    transport::BoxFuture,
};

/// A SAML 2.0 bearer token: an `Assertion` element exactly as it was issued.
///
/// The issuer's signature covers the bytes, so they are never written anew. Who holds the text is the user until it
/// expires; `Debug` shows whose it is and how long it lives, not the text.
#[derive(Clone, PartialEq, Eq)]
pub struct SamlToken {
    assertion: Secret,
    subject: Option<String>,
    not_before: Option<DateTime>,
    expires: Option<DateTime>,
}

impl SamlToken {
    /// Takes an assertion. White space around it is not part of it; the signature is not checked here.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when the text is not one `Assertion` element.
    pub fn parse(text: impl Into<Secret>) -> Result<Self> {
        let text: Secret = text.into();
        let trimmed = text.expose().trim();
        let read = Self::read(trimmed)
            .map_err(|error| Error::invalid_input("token", error.to_string()))?
            .ok_or_else(|| Error::invalid_input("token", "not one SAML assertion that declares its own namespace"))?;
        let assertion = if trimmed.len() == text.expose().len() { text } else { Secret::new(trimmed) };
        Ok(Self { assertion, ..read })
    }

    /// What the assertion says of itself; `None` when it is something else.
    fn read(text: &str) -> Result<Option<Self>, Malformed> {
        let mut read = Self { assertion: Secret::new(""), subject: None, not_before: None, expires: None };
        let mut reader = Reader::new(text, LIMITS);
        if reader.next_child()? != Some("Assertion") || reader.declared_namespace().is_none() {
            return Ok(None);
        }
        while let Some(child) = reader.next_child()? {
            match child {
                "Subject" => {
                    while let Some(child) = reader.next_child()? {
                        if child == "NameID" {
                            read.subject = Some(reader.text()?.into_owned());
                        } else {
                            reader.skip()?;
                        }
                    }
                }
                "Conditions" => {
                    let time = |name| reader.attribute(name).and_then(|text| DateTime::parse(&text).ok());
                    (read.not_before, read.expires) = (time("NotBefore"), time("NotOnOrAfter"));
                    reader.skip()?;
                }
                _ => reader.skip()?,
            }
        }
        let alone = reader.next_child()?.is_none() && text.ends_with('>');
        Ok(alone.then_some(read))
    }

    /// The assertion, to be sent.
    pub fn assertion(&self) -> &Secret {
        &self.assertion
    }

    /// Whose token it is: the `NameID`.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// When it begins to be good, by the issuer's clock.
    pub fn not_before(&self) -> Option<DateTime> {
        self.not_before
    }

    /// When it ends, by the issuer's clock.
    #[doc(alias = "NotOnOrAfter")]
    pub fn expires(&self) -> Option<DateTime> {
        self.expires
    }
}

impl fmt::Debug for SamlToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SamlToken")
            .field("subject", &self.subject)
            .field("not_before", &self.not_before)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Fetches a fresh token at each login: a session may live longer than the token that opened it.
///
/// Any `Fn() -> impl Future<Output = Result<SamlToken>>` is one.
pub trait TokenSource: Send + Sync {
    /// A token that is good now.
    ///
    /// # Errors
    /// Whatever keeps the source from it; the login fails with that error.
    ///
    /// # Cancel safety
    /// The future may be dropped at any time.
    fn token(&self) -> BoxFuture<'_, Result<SamlToken>>;
}

impl<F, T> TokenSource for F
where
    F: Fn() -> T + Send + Sync,
    T: Future<Output = Result<SamlToken>> + Send + 'static,
{
    fn token(&self) -> BoxFuture<'_, Result<SamlToken>> {
        Box::pin(self())
    }
}

/// Tokens of real servers have some ten kilobytes and are some ten elements deep.
const LIMITS: Limits = Limits { depth: 64, memory: 1 << 20 };

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "<saml2:Assertion xmlns:saml2=\"urn:oasis:names:tc:SAML:2.0:assertion\" ID=\"_1\">\
        <saml2:Subject><saml2:NameID>Administrator@VSPHERE.LOCAL</saml2:NameID></saml2:Subject>\
        <saml2:Conditions NotBefore=\"2018-03-04T00:22:01.401Z\" NotOnOrAfter=\"2018-03-04T00:27:01.401Z\"/>\
        </saml2:Assertion>";

    #[test]
    fn a_token_says_whose_it_is_and_how_long_it_lives() {
        let token = SamlToken::parse(format!("\n {TOKEN}\r\n")).unwrap();
        assert_eq!(token.assertion().expose(), TOKEN, "not a byte differs");
        assert_eq!(token.subject(), Some("Administrator@VSPHERE.LOCAL"));
        assert_eq!(token.not_before(), DateTime::parse("2018-03-04T00:22:01.401Z").ok());
        assert_eq!(token.expires(), DateTime::parse("2018-03-04T00:27:01.401Z").ok());
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_shown() {
        let cut = &TOKEN[..TOKEN.len() - 3];
        let two = format!("{TOKEN}{TOKEN}");
        let tail = format!("{TOKEN} secret");
        for bad in ["", "secret", "<Assertion/>", "<x xmlns='secret'/>", cut, &two, &tail] {
            let error = SamlToken::parse(bad).unwrap_err();
            assert!(!error.to_string().contains("secret") && !format!("{error:?}").contains("secret"), "{error}");
        }
    }
}
