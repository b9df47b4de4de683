//! Digests of certificates, as VMware writes them.

use std::{fmt, io, sync::Arc, time::Duration};

use ring::digest;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::{net::TcpStream, time::timeout};

use super::{config_builder, verifier::CaptureVerifier};
use crate::{
    endpoint::Endpoint,
    error::{Error, Result, TransportError, TransportErrorKind},
};

/// The digest function of a [`Thumbprint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DigestKind {
    /// 20 bytes. What vCenter and ESXi before 9.0 print; accepted as a pin because the whole certificate is pinned.
    Sha1,
    /// 32 bytes. Preferred.
    Sha256,
}

/// A digest over a certificate's DER form, SHA-1 or SHA-256.
///
/// ```
/// use vsphere_vim::trust::{DigestKind, Thumbprint};
/// let pin: Thumbprint = "0a1b2c3d4e5f60718293a4b5c6d7e8f901020304".parse()?;
/// assert_eq!(pin.kind(), DigestKind::Sha1);
/// assert_eq!(pin.to_string(), "0A:1B:2C:3D:4E:5F:60:71:82:93:A4:B5:C6:D7:E8:F9:01:02:03:04");
/// # Ok::<(), vsphere_vim::Error>(())
/// ```
#[doc(alias = "sslThumbprint")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thumbprint {
    /// SHA-1.
    Sha1([u8; 20]),
    /// SHA-256.
    Sha256([u8; 32]),
}

impl Thumbprint {
    /// The digest of a certificate in DER form.
    pub fn of(kind: DigestKind, certificate: &[u8]) -> Self {
        match kind {
            DigestKind::Sha1 => Self::Sha1(hash(&digest::SHA1_FOR_LEGACY_USE_ONLY, certificate)),
            DigestKind::Sha256 => Self::Sha256(hash(&digest::SHA256, certificate)),
        }
    }

    /// Which digest this is.
    pub fn kind(&self) -> DigestKind {
        match self {
            Self::Sha1(_) => DigestKind::Sha1,
            Self::Sha256(_) => DigestKind::Sha256,
        }
    }

    /// The digest's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha1(bytes) => bytes,
            Self::Sha256(bytes) => bytes,
        }
    }

    /// True when `certificate` (DER) has this digest.
    pub fn matches(&self, certificate: &[u8]) -> bool {
        Self::of(self.kind(), certificate) == *self
    }

    /// Asks a server for its certificate and returns the digest, for a human to confirm.
    ///
    /// The handshake is broken off before anything is sent. The answer proves nothing by itself: whoever sits
    /// between here and the server answers too. Compare it with what the server's own console shows.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a malformed address, [`Error::Transport`] when there is no TLS server.
    ///
    /// # Cancel safety
    /// Cancel safe; nothing is left behind.
    pub async fn fetch(address: &str, kind: DigestKind) -> Result<Self> {
        let endpoint = Endpoint::parse(address)?;
        let certificate = fetch_certificate(&endpoint, FETCH_TIMEOUT)
            .await
            .map_err(|source| Error::transport("fetch thumbprint", source))?;
        Ok(Self::of(kind, &certificate))
    }
}

/// Reads the server's leaf certificate and breaks off the handshake.
async fn fetch_certificate(endpoint: &Endpoint, limit: Duration) -> Result<CertificateDer<'static>, TransportError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let capture = Arc::new(CaptureVerifier::new(&provider));
    let config = config_builder(&provider)
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&capture) as Arc<_>)
        .with_no_client_auth();
    let name = ServerName::try_from(endpoint.host().to_owned())
        .map_err(|error| TransportError::new(TransportErrorKind::Connect, error))?;
    let handshake = async {
        let stream = TcpStream::connect((endpoint.host(), endpoint.port())).await?;
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.map(drop)
    };
    let outcome = timeout(limit, handshake).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match (capture.take(), outcome) {
        (Some(certificate), _) => Ok(certificate),
        (None, Err(error)) => Err(TransportError::new(TransportErrorKind::Connect, error)),
        (None, Ok(())) => Err(TransportError::new(TransportErrorKind::Tls, "the server showed no certificate")),
    }
}

fn hash<const N: usize>(algorithm: &'static digest::Algorithm, data: &[u8]) -> [u8; N] {
    digest::digest(algorithm, data).as_ref().try_into().expect("the algorithm's output length is N")
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.as_bytes().iter().enumerate() {
            if index > 0 {
                f.write_str(":")?;
            }
            write!(f, "{byte:02X}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.kind())
    }
}

impl std::str::FromStr for Thumbprint {
    type Err = Error;

    /// Accepts hexadecimal digits of either case, plain or separated by colons, with or without `sha1:`/`sha256:` or
    /// OpenSSL's `SHA256 Fingerprint=` in front; the length tells the digest.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::invalid_input("thumbprint", "not 20 (SHA-1) or 32 (SHA-256) bytes in hexadecimal");
        let text = text.trim();
        let text = text.rsplit_once('=').map_or(text, |(_, digits)| digits);
        let lower = text.to_ascii_lowercase();
        let digits = ["sha1:", "sha-1:", "sha256:", "sha-256:"]
            .iter()
            .find_map(|prefix| lower.strip_prefix(prefix))
            .unwrap_or(&lower)
            .trim();
        let mut bytes = Vec::with_capacity(32);
        let pairs: Vec<&str> = if digits.contains(':') {
            digits.split(':').collect()
        } else if digits.is_ascii() && digits.len() <= 64 {
            (0..digits.len()).step_by(2).map(|at| &digits[at..(at + 2).min(digits.len())]).collect()
        } else {
            return Err(invalid());
        };
        for pair in pairs {
            if pair.len() != 2 || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) || bytes.len() == 32 {
                return Err(invalid());
            }
            bytes.push(u8::from_str_radix(pair, 16).map_err(|_| invalid())?);
        }
        match bytes.len() {
            20 => Ok(Self::Sha1(bytes.try_into().map_err(|_| invalid())?)),
            32 => Ok(Self::Sha256(bytes.try_into().map_err(|_| invalid())?)),
            _ => Err(invalid()),
        }
    }
}

/// How long [`Thumbprint::fetch`] waits altogether.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_common_spelling_parses_to_the_same_pin() {
        let expected = Thumbprint::of(DigestKind::Sha256, b"certificate");
        let colons = expected.to_string();
        let plain = colons.replace(':', "");
        for text in [
            colons.clone(),
            plain.clone(),
            plain.to_lowercase(),
            format!("sha256:{plain}"),
            format!("SHA256 Fingerprint={colons}"),
            format!("  {colons}\n"),
        ] {
            assert_eq!(text.parse::<Thumbprint>().unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn known_digests() {
        assert_eq!(
            Thumbprint::of(DigestKind::Sha1, b"abc").to_string(),
            "A9:99:3E:36:47:06:81:6A:BA:3E:25:71:78:50:C2:6C:9C:D0:D8:9D"
        );
    }

    #[test]
    fn wrong_lengths_and_digits_are_refused() {
        for text in
            ["", "AB", "zz", "a:b", "äöü", &"a".repeat(41), &"a".repeat(63), &"ab:".repeat(32), &"ab".repeat(33)]
        {
            assert!(text.parse::<Thumbprint>().is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn text_form_round_trips(bytes in proptest::array::uniform32(0u8..)) {
            let pin = Thumbprint::Sha256(bytes);
            proptest::prop_assert_eq!(pin.to_string().parse::<Thumbprint>().unwrap(), pin);
        }

        #[test]
        fn no_text_panics(text in ".{0,120}") {
            let _ = text.parse::<Thumbprint>();
        }
    }
}
