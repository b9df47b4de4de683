//! Where a stream goes: the connected server, or a host that it named.

use std::fmt;

use crate::{
    endpoint::Endpoint,
    error::{Error, Result},
    trust::Thumbprint,
};

/// A path on a server.
///
/// The path and query may hold a token (lease URLs do), so neither `Debug` nor `Display` shows more than its first
/// part.
#[derive(Clone, PartialEq, Eq)]
pub struct StreamTarget {
    /// `None`: the server that the client is connected to.
    pub(super) other: Option<Other>,
    pub(super) path: String,
}

/// Another host.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Other {
    pub(super) endpoint: Endpoint,
    pub(super) thumbprint: Option<Thumbprint>,
}

impl StreamTarget {
    /// A path (with query, percent-encoded) on the connected server.
    pub fn on_server(path: impl Into<String>) -> Self {
        Self { other: None, path: path.into() }
    }

    /// A path on another host, trusted by `thumbprint`; without one it has to satisfy what the caller stated for the
    /// connected server.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when `host` is no `host[:port]`.
    pub fn on_host(host: &str, path: impl Into<String>, thumbprint: Option<Thumbprint>) -> Result<Self> {
        let endpoint = Endpoint::parse(host)?;
        Ok(Self { other: Some(Other { endpoint, thumbprint }), path: path.into() })
    }

    /// Understands a URL that the server named. A host of `*` means the server that the client is connected to.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for schemes other than `https` and for malformed addresses. The message does not hold
    /// the URL.
    pub fn parse(url: &str, server: &Endpoint, thumbprint: Option<Thumbprint>) -> Result<Self> {
        let invalid = |why: &str| Error::invalid_input("url", why);
        let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid("it is not absolute"))?;
        if !scheme.eq_ignore_ascii_case("https") {
            return Err(invalid("the scheme is not https; data are not sent in clear"));
        }
        let at = rest.find('/').ok_or_else(|| invalid("it has no path"))?;
        let (authority, path) = rest.split_at(at);
        if !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(invalid("the path holds blanks, fragments or characters outside of ASCII"));
        }
        let host = authority.split_once(':').map_or(authority, |(host, _)| host);
        if host == "*" {
            return Ok(Self::on_server(path));
        }
        let endpoint = Endpoint::parse(authority)?;
        if (endpoint.host(), endpoint.port()) == (server.host(), server.port()) {
            return Ok(Self::on_server(path));
        }
        Ok(Self { other: Some(Other { endpoint, thumbprint }), path: path.to_owned() })
    }

    /// True when it lies on the connected server, where the session's cookie is known. Others never see the cookie.
    pub fn is_on_server(&self) -> bool {
        self.other.is_none()
    }

    /// The other host's name; `None` for the connected server.
    pub fn host(&self) -> Option<&str> {
        self.other.as_ref().map(|other| other.endpoint.host())
    }

    /// The path with its query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `/folder` or `/nfc`: what may be shown.
    fn service(&self) -> &str {
        let end = self.path.get(1..).unwrap_or_default().find(['/', '?']).map_or(self.path.len(), |at| at + 1);
        &self.path[..end]
    }
}

impl fmt::Display for StreamTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/… on {}", self.service(), self.host().unwrap_or("the server"))
    }
}

impl fmt::Debug for StreamTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamTarget({self})")
    }
}

/// Encodes text for a URL: everything but letters, digits, `-._~` and the bytes of `keep`.
pub(crate) fn percent_encode(text: &str, keep: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keep.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<StreamTarget> {
        StreamTarget::parse(url, &Endpoint::parse("https://vc.example:8443/sdk").unwrap(), None)
    }

    #[test]
    fn a_star_is_the_connected_server_and_so_is_its_own_name() {
        for url in [
            "https://*/nfc/52/disk-0.vmdk",
            "https://*:443/nfc/52/disk-0.vmdk",
            "https://VC.example:8443/nfc/52/disk-0.vmdk",
        ] {
            assert_eq!(parse(url).unwrap(), StreamTarget::on_server("/nfc/52/disk-0.vmdk"), "{url}");
        }
        let other = parse("https://esx1.example/nfc/52/disk-0.vmdk").unwrap();
        assert_eq!((other.host(), other.is_on_server()), (Some("esx1.example"), false));
        assert_eq!(parse("https://[2001:db8::1]:902/nfc/x").unwrap().host(), Some("2001:db8::1"));
    }

    #[test]
    fn clear_text_and_nonsense_are_refused() {
        for url in [
            "http://*/nfc/x",
            "/nfc/x",
            "https://*",
            "https://a@b/nfc/x",
            "https://b/n c",
            "https://b:0/x",
            "ftp://b/x",
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn tokens_of_the_path_are_not_shown() {
        let target = parse("https://esx1.example/nfc/52aa-secret/disk-0.vmdk?x=1").unwrap();
        let shown = format!("{target} {target:?}");
        assert!(shown.contains("/nfc/…") && shown.contains("esx1.example") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn everything_but_letters_is_encoded() {
        assert_eq!(percent_encode("dc 1/Ä%2f+&?#", b"/"), "dc%201/%C3%84%252f%2B%26%3F%23");
        assert_eq!(percent_encode("a/b", b""), "a%2Fb");
    }
}
