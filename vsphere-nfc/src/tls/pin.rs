//! The certificate that a ticket names: by thumbprint, or whole.

use std::fmt;

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Which leaf certificate to trust.
///
/// ```
/// use vsphere_nfc::Pin;
/// let pin: Pin = "0A:1B:2C:3D:4E:5F:60:71:82:93:A4:B5:C6:D7:E8:F9:0A:1B:2C:3D".parse()?;
/// assert!(matches!(pin, Pin::Sha1(_)));
/// # Ok::<(), vsphere_nfc::ParsePinError>(())
/// ```
#[doc(alias = "sslThumbprint")]
#[doc(alias = "sslCertificate")]
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pin {
    /// The SHA-1 of the DER certificate. Weak, but all that tickets before API 9.0 give.
    Sha1([u8; 20]),
    /// The SHA-256 of the DER certificate.
    Sha256([u8; 32]),
    /// The DER certificate itself.
    Certificate(Box<[u8]>),
}

impl Pin {
    /// The certificate of a ticket of API 9.0 and later, in PEM.
    ///
    /// # Errors
    /// When there is no certificate in the text.
    pub fn from_pem(pem: &str) -> Result<Self, ParsePinError> {
        let der =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| ParsePinError("there is no PEM certificate"))?;
        Ok(Self::Certificate(der.as_ref().into()))
    }

    /// The SHA-256 pin of a DER certificate.
    pub fn sha256_of(der: &[u8]) -> Self {
        Self::Sha256(array(digest(&SHA256, der).as_ref()))
    }

    /// The SHA-1 pin of a DER certificate.
    pub fn sha1_of(der: &[u8]) -> Self {
        Self::Sha1(array(digest(&SHA1_FOR_LEGACY_USE_ONLY, der).as_ref()))
    }

    /// Whether `der` is the certificate.
    pub fn matches(&self, der: &[u8]) -> bool {
        *self == self.same_kind(der)
    }

    /// The pin of the same kind for another certificate, to compare and to show.
    pub(crate) fn same_kind(&self, der: &[u8]) -> Self {
        match self {
            Self::Sha1(_) => Self::sha1_of(der),
            Self::Sha256(_) => Self::sha256_of(der),
            Self::Certificate(_) => Self::Certificate(der.into()),
        }
    }
}

impl std::str::FromStr for Pin {
    type Err = ParsePinError;

    /// Reads a thumbprint in hexadecimal, with or without colons; its length tells its kind.
    fn from_str(text: &str) -> Result<Self, ParsePinError> {
        const WHAT: ParsePinError = ParsePinError("a thumbprint must have 20 or 32 bytes in hexadecimal");
        let digits: Vec<u8> = text
            .trim()
            .bytes()
            .filter(|byte| *byte != b':')
            .map(|byte| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect::<Option<_>>()
            .ok_or(WHAT)?;
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        match digits.len() {
            40 => Ok(Self::Sha1(array(&bytes))),
            64 => Ok(Self::Sha256(array(&bytes))),
            _ => Err(WHAT),
        }
    }
}

/// Upper-case hexadecimal with colons, as vSphere writes it; a certificate shows its SHA-256.
impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha1(bytes) => colons(f, bytes),
            Self::Sha256(bytes) => colons(f, bytes),
            Self::Certificate(der) => Self::sha256_of(der).fmt(f),
        }
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Sha1(_) => "Sha1",
            Self::Sha256(_) => "Sha256",
            Self::Certificate(_) => "Certificate",
        };
        write!(f, "{kind}({self})")
    }
}

/// Why a pin could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParsePinError(&'static str);

fn colons(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for (at, byte) in bytes.iter().enumerate() {
        let colon = if at == 0 { "" } else { ":" };
        write!(f, "{colon}{byte:02X}")?;
    }
    Ok(())
}

/// The first `N` bytes; callers pass exactly as many.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thumbprints_are_told_apart_by_length_and_survive_a_round_trip() {
        for pin in [Pin::sha1_of(b"certificate"), Pin::sha256_of(b"certificate")] {
            let text = pin.to_string();
            assert_eq!(text.parse::<Pin>().unwrap(), pin);
            assert_eq!(text.replace(':', "").to_lowercase().parse::<Pin>().unwrap(), pin);
            assert!(pin.matches(b"certificate"));
            assert!(!pin.matches(b"Certificate"));
        }
    }

    #[test]
    fn certificate_must_be_the_same_byte_for_byte() {
        let pin = Pin::Certificate(b"der".as_slice().into());
        assert!(pin.matches(b"der"));
        assert!(!pin.matches(b"der "));
        assert!(Pin::from_pem("not a certificate").is_err());
    }

    #[test]
    fn other_lengths_and_letters_are_refused() {
        for bad in ["", "0A:1B", &"0".repeat(41), &"g".repeat(40), &"é".repeat(20)] {
            assert!(bad.parse::<Pin>().is_err(), "{bad}");
        }
    }
}
