//! The rustls verifier behind a pin: checks that the peer holds the key of exactly one certificate.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use super::Pin;
use super::legacy::LEGACY;

/// Whom to trust.
#[derive(Debug, Clone)]
pub(crate) enum Trust {
    /// One certificate.
    Pin(Pin),
    /// Anyone; only on the user's explicit word.
    Anyone,
}

/// What was presented when it was not what is trusted: expected and actual.
pub(crate) type Seen = Arc<OnceLock<(Pin, Pin)>>;

/// Verifies the handshake's signature, and of the certificate only that it is the pinned one.
#[derive(Debug)]
pub(crate) struct PinVerifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
    /// SHA-1 signatures are taken too.
    legacy: bool,
    seen: Seen,
}

impl PinVerifier {
    pub(crate) fn new(trust: Trust, provider: Arc<CryptoProvider>, legacy: bool) -> (Self, Seen) {
        let seen = Seen::default();
        (Self { trust, provider, legacy, seen: Arc::clone(&seen) }, seen)
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Trust::Pin(pin) = &self.trust
            && !pin.matches(end_entity)
        {
            // Set once: a verifier serves one handshake.
            let _ = self.seen.set((pin.clone(), pin.same_kind(end_entity)));
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let is_legacy = self.legacy && LEGACY.supported_schemes().contains(&dss.scheme);
        let algorithms = if is_legacy { &LEGACY } else { &self.provider.signature_verification_algorithms };
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.provider.signature_verification_algorithms.supported_schemes();
        if self.legacy {
            // Last: a host that can do better shall.
            schemes.extend(LEGACY.supported_schemes());
        }
        schemes
    }
}
