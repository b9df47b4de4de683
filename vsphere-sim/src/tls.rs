//! The simulator's certificate and its thumbprints.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};

use crate::{Error, Result};

/// A self-signed certificate with its key, shared by the HTTPS endpoint and the 902 server.
pub(crate) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    pem: String,
}

impl Identity {
    /// A new certificate for `localhost`, the loopback addresses and `address`.
    pub(crate) fn generate(address: IpAddr) -> Result<Self> {
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        let own = address.to_string();
        if !names.contains(&own) {
            names.push(own);
        }
        let made = rcgen::generate_simple_self_signed(names).map_err(|error| Error::Certificate(error.to_string()))?;
        Ok(Self {
            certificate: made.cert.der().clone(),
            key: PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()),
            pem: made.cert.pem(),
        })
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// SHA-1 of the certificate, as vSphere writes it: `0A:1B:..`.
    pub(crate) fn sha1(&self) -> String {
        self.thumbprint(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY)
    }

    /// SHA-256 of the certificate.
    pub(crate) fn sha256(&self) -> String {
        self.thumbprint(&ring::digest::SHA256)
    }

    pub(crate) fn server_config(&self) -> Result<Arc<ServerConfig>> {
        self.config(None)
    }

    /// The same, and clients are asked for a certificate; any will do, and none too.
    pub(crate) fn asking_server_config(&self) -> Result<Arc<ServerConfig>> {
        let provider = rustls::crypto::ring::default_provider();
        self.config(Some(Arc::new(AnyClient(provider.signature_verification_algorithms))))
    }

    fn config(&self, clients: Option<Arc<AnyClient>>) -> Result<Arc<ServerConfig>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map(|builder| match clients {
                Some(clients) => builder.with_client_cert_verifier(clients),
                None => builder.with_no_client_auth(),
            })
            .and_then(|builder| {
                builder.with_single_cert(vec![self.certificate.clone()], PrivateKeyDer::Pkcs8(self.key.clone_key()))
            })
            .map_err(|error| Error::Certificate(error.to_string()))?;
        Ok(Arc::new(config))
    }

    fn thumbprint(&self, algorithm: &'static ring::digest::Algorithm) -> String {
        let digest = ring::digest::digest(algorithm, &self.certificate);
        digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    }
}

/// Lets in whoever owns the key of the certificate that it shows, and whoever shows none. What a certificate is good
/// for is decided at the login.
#[derive(Debug)]
struct AnyClient(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
