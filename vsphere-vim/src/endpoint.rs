//! Where the service is: an `https` address taken apart once, by hand.
//!
//! Only what this API needs is accepted: scheme `https`, a host, an optional port and an optional path.
//! User names in the address are refused, because addresses end up in logs.

use std::fmt;

use crate::error::{Error, Result};

/// The address of a vCenter Server or ESXi host.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: String,
    port: u16,
    path: String,
}

impl Endpoint {
    /// Parses `https://host[:port][/path]`; a bare `host[:port]` is taken as `https`.
    ///
    /// The path defaults to `/sdk`, where every vCenter and ESXi answers.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for another scheme, for user names in the address and for malformed ports.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |why: &str| Error::invalid_input("url", why);
        let text = text.trim();
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") => {
                return Err(invalid("plain http would send the password in clear; use https"));
            }
            Some(_) => return Err(invalid("the scheme is not https")),
            None => text,
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err(invalid("user names and passwords do not belong into the address"));
        }
        if path.contains(['?', '#']) || authority.contains(['?', '#']) {
            return Err(invalid("a query or fragment has no meaning here"));
        }
        let (host, port) = split_port(authority).ok_or_else(|| invalid("the port is not a number from 1 to 65535"))?;
        let printable = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() {
            return Err(invalid("the host is missing"));
        }
        if !printable(host) || !printable(path) {
            return Err(invalid("the address contains blanks or characters outside of ASCII"));
        }
        let path = if path.is_empty() || path == "/" { DEFAULT_PATH } else { path.trim_end_matches('/') };
        Ok(Self { host: host.to_ascii_lowercase(), port, path: path.to_owned() })
    }

    /// The host name or address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port, 443 unless stated.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path of the SOAP endpoint, `/sdk` unless stated.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value of the HTTP `Host` header.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == DEFAULT_PORT { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.authority(), self.path)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

impl std::str::FromStr for Endpoint {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

fn split_port(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
    } else {
        match authority.split_once(':') {
            // More than one colon without brackets: an IPv6 address without a port.
            Some((_, rest)) if rest.contains(':') => (authority, None),
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    match port {
        None => Some((host, DEFAULT_PORT)),
        Some(port) => port.parse().ok().filter(|port| *port != 0).map(|port| (host, port)),
    }
}

const DEFAULT_PORT: u16 = 443;
const DEFAULT_PATH: &str = "/sdk";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_usual_forms() {
        for (text, shown) in [
            ("https://vc.example/sdk", "https://vc.example/sdk"),
            ("https://VC.example", "https://vc.example/sdk"),
            ("vc.example:8443", "https://vc.example:8443/sdk"),
            ("https://[2001:db8::1]:444/sdk/", "https://[2001:db8::1]:444/sdk"),
            ("2001:db8::1", "https://[2001:db8::1]/sdk"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn refuses_clear_text_user_names_and_nonsense() {
        for text in [
            "http://vc/sdk",
            "https://root:secret@vc/sdk",
            "https://",
            "https://vc:0",
            "https://vc:x",
            "ftp://vc",
            "https://v c/",
        ] {
            let error = Endpoint::parse(text).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
