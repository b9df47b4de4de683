//! How the server proves that it is the right one. Stated by the caller, always.
//!
//! There is no mode that accepts any certificate. Hosts with self-signed certificates, the normal case for ESXi,
//! are trusted by their [`Thumbprint`], which [`Thumbprint::fetch`] shows and an administrator confirms once.

mod thumbprint;
mod verifier;

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, pem::PemObject},
};

pub use self::thumbprint::{DigestKind, Thumbprint};
pub(crate) use self::verifier::ThumbprintMismatch;
use crate::{
    credentials::ClientCertificate,
    error::{Error, Result},
};

/// What makes the server's certificate good.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TlsTrust {
    /// It chains to a root of the operating system and names the host.
    SystemRoots,
    /// It chains to one of the certificates (PEM) in this file and names the host.
    CaFile(PathBuf),
    /// It chains to one of these certificates (PEM) and names the host.
    CaPem(Vec<u8>),
    /// It is exactly the certificate with this digest. Names, dates and issuers do not matter.
    Thumbprint(Thumbprint),
}

impl TlsTrust {
    /// Builds the TLS configuration; reads the CA file or the operating system's roots.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when the file cannot be read or holds no usable certificate.
    pub(crate) fn client_config(&self) -> Result<Arc<ClientConfig>> {
        self.client_config_with(None)
    }

    /// The same, with a certificate of the client for servers that ask.
    ///
    /// # Errors
    /// As [`TlsTrust::client_config`]; also when the certificate's key cannot be used.
    pub(crate) fn client_config_with(&self, certificate: Option<&ClientCertificate>) -> Result<Arc<ClientConfig>> {
        let provider = Arc::new(ring::default_provider());
        let builder = config_builder(&provider);
        let builder = match self {
            Self::Thumbprint(thumbprint) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier::PinVerifier::new(*thumbprint, provider))),
            Self::SystemRoots => builder.with_root_certificates(system_roots()?),
            Self::CaFile(path) => {
                let pem = std::fs::read(path).map_err(|error| {
                    Error::invalid_input("ca_file", format!("cannot read {}: {error}", path.display()))
                })?;
                builder.with_root_certificates(roots_of_pem(&pem)?)
            }
            Self::CaPem(pem) => builder.with_root_certificates(roots_of_pem(pem)?),
        };
        let config = match certificate {
            None => builder.with_no_client_auth(),
            Some(certificate) => builder
                .with_client_auth_cert(certificate.chain(), certificate.key())
                .map_err(|error| Error::invalid_input("client certificate", error.to_string()))?,
        };
        Ok(Arc::new(config))
    }
}

impl From<Thumbprint> for TlsTrust {
    fn from(thumbprint: Thumbprint) -> Self {
        Self::Thumbprint(thumbprint)
    }
}

fn config_builder(provider: &Arc<CryptoProvider>) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .expect("the ring provider supports TLS 1.2 and 1.3")
}

fn system_roots() -> Result<RootCertStore> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Roots that webpki cannot use (old, odd) are left out; what remains still has to verify the server.
    let (added, _ignored) = roots.add_parsable_certificates(loaded.certs);
    if added == 0 {
        let why = loaded.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(Error::invalid_input(
            "system_roots",
            format!("no usable root certificate on this machine ({why})"),
        ));
    }
    Ok(roots)
}

fn roots_of_pem(pem: &[u8]) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate
            .map_err(|error| Error::invalid_input("ca_file", format!("not a PEM certificate: {error:?}")))?;
        roots
            .add(certificate)
            .map_err(|error| Error::invalid_input("ca_file", format!("unusable CA certificate: {error}")))?;
    }
    if roots.is_empty() {
        return Err(Error::invalid_input("ca_file", "no PEM certificate in it"));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_or_broken_ca_file_is_refused() {
        assert!(TlsTrust::CaPem(Vec::new()).client_config().is_err());
        assert!(
            TlsTrust::CaPem(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec())
                .client_config()
                .is_err()
        );
        assert!(TlsTrust::CaFile("/nonexistent/ca.pem".into()).client_config().is_err());
    }
}
