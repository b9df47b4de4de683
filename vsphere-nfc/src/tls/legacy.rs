//! SHA-1 signatures in handshakes, for hosts that can make no others.

use ring::signature::{RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, UnparsedPublicKey};
use rustls::SignatureScheme;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};

/// The schemes that a legacy handshake offers beyond the usual ones.
pub(super) static LEGACY: WebPkiSupportedAlgorithms =
    WebPkiSupportedAlgorithms { all: &[&RsaSha1], mapping: &[(SignatureScheme::RSA_PKCS1_SHA1, &[&RsaSha1])] };

/// RSA with PKCS #1 padding over a SHA-1 digest.
///
/// What a forger needs is not a collision but a second message with the digest of the first, within
/// the time of a handshake; the certificate itself is pinned. That is why this is bearable at all.
#[derive(Debug)]
struct RsaSha1;

impl SignatureVerificationAlgorithm for RsaSha1 {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        UnparsedPublicKey::new(&RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, public_key)
            .verify(message, signature)
            .map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::RSA_ENCRYPTION
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        SHA1_WITH_RSA_ENCRYPTION
    }
}

/// OID 1.2.840.113549.1.1.5 and a NULL (RFC 3279, section 2.2.1), without the outer SEQUENCE.
const SHA1_WITH_RSA_ENCRYPTION: AlgorithmIdentifier =
    AlgorithmIdentifier::from_slice(&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05, 0x05, 0x00]);
