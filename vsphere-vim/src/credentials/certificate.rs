//! The certificate of a client, and where vCenter looks at it.

use std::{fmt, sync::Arc};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::error::{Error, Result};

/// A client certificate with its private key, for TLS.
#[derive(Clone)]
pub struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
}

impl ClientCertificate {
    /// Reads both from PEM texts: one or more certificates, the client's own first, and one unencrypted key.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when there is no certificate or no key that can be used.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self> {
        let invalid = |what: &'static str| {
            move |why: rustls::pki_types::pem::Error| {
                // The error names PEM sections, never their content.
                Error::invalid_input(what, format!("not usable: {why:?}"))
            }
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(invalid("client certificate"))?;
        if chain.is_empty() {
            return Err(Error::invalid_input("client certificate", "no PEM certificate in it"));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(invalid("client key"))?;
        Ok(Self { chain, key: Arc::new(key) })
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

/// The way to the place where vCenter asks for a client certificate. Only the login goes there.
///
/// Which vCenter version accepts which is not established; the default is the way that VMware documents
/// (<https://kb.vmware.com/s/article/2004305>) and that its own Go library takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExtensionRoute {
    /// `CONNECT sdkTunnel:8089` through the HTTP proxy on this port of the server, then TLS inside. Port 80.
    Tunnel {
        /// The proxy's port.
        proxy_port: u16,
    },
    /// TLS on this port of the server: 8089 where it is reachable.
    Port(u16),
    /// The ordinary address, which has to ask for the certificate then.
    Direct,
}

impl Default for ExtensionRoute {
    fn default() -> Self {
        Self::Tunnel { proxy_port: 80 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_texts_without_certificate_or_key_are_refused() {
        let made = rcgen::generate_simple_self_signed(["ext".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        ClientCertificate::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
        for (certificate, key) in [("", key.as_str()), (&*certificate, ""), (&*certificate, &*certificate), ("x", "y")]
        {
            let error = ClientCertificate::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap_err();
            assert!(matches!(error, Error::InvalidInput { .. }), "{error}");
        }
    }
}
