//! Trust: one certificate, named by the ticket. No authority, no host name, no dates.
//!
//! A connection has two TLS sessions on one TCP stream: the daemon's, driven by hand record by
//! record ([`records`]) because it is abandoned half-way, and the service's, an ordinary one.

mod legacy;
mod pin;
pub(crate) mod records;
mod verifier;

use std::sync::Arc;

use rustls::pki_types::{IpAddr, Ipv4Addr, ServerName};
use rustls::{AlertDescription, ClientConfig, PeerMisbehaved, client::Resumption};

pub use pin::{ParsePinError, Pin};
pub(crate) use verifier::{PinVerifier, Seen, Trust};

/// What a handshake offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offer {
    /// SHA-1 signatures.
    pub(crate) legacy: bool,
    /// TLS 1.3 beside 1.2.
    pub(crate) tls13: bool,
}

/// A configuration that trusts `trust` and tells through `Seen` what was presented.
pub(crate) fn client_config(trust: Trust, offer: Offer) -> Result<(Arc<ClientConfig>, Seen), rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (verifier, seen) = PinVerifier::new(trust, Arc::clone(&provider), offer.legacy);
    let versions = if offer.tls13 { rustls::DEFAULT_VERSIONS } else { &[&rustls::version::TLS12] };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    // A resumed session presents no certificate, so there would be nothing to check.
    config.resumption = Resumption::disabled();
    // Hosts are known by address; authd has one certificate and needs no name.
    config.enable_sni = false;
    Ok((Arc::new(config), seen))
}

/// rustls wants a name although neither SNI nor the verifier uses it.
pub(crate) fn server_name(host: &str) -> ServerName<'static> {
    ServerName::try_from(host.to_owned()).unwrap_or(ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0]))))
}

/// Whether a host that knows only SHA-1 signatures may be behind an error of a handshake.
pub(crate) fn nothing_in_common(error: &std::io::Error) -> bool {
    let error = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(
        error,
        Some(
            rustls::Error::AlertReceived(AlertDescription::HandshakeFailure)
                | rustls::Error::PeerIncompatible(_)
                | rustls::Error::PeerMisbehaved(
                    PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme
                        | PeerMisbehaved::SignedKxWithWrongAlgorithm
                )
        )
    )
}
