//! AES-256-GCM under keys that are derived for one object each.
//!
//! A derived key seals one object only, so its nonces are small numbers that never repeat: 0 for an envelope, the
//! frame's number in a pack. Which derivation belongs to what: `FORMAT.md`, "Encryption".
//!
//! All secrets that are kept are zeroed when they are dropped. Not zeroed is ring's expanded form of a derived key, which
//! lives as long as one pack is written, or one read takes, and opens that one object.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};
use zeroize::{Zeroize, Zeroizing};

use super::keys::SecretKey;

/// The cipher of one object.
pub(crate) struct Cipher(LessSafeKey);

impl Cipher {
    /// Derives the key of one object out of a secret and of material that no other object has, such as a salt.
    pub(crate) fn derive(context: &str, secret: &[u8], material: &[&[u8]]) -> Self {
        Self::new(&derive(context, secret, material))
    }

    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("the key has the cipher's length")))
    }

    /// Encrypts in place and returns the tag. Each number is used once.
    pub(crate) fn seal(&self, number: u32, associated: &[u8], bytes: &mut [u8]) -> [u8; TAG] {
        let tag = self.0.seal_in_place_separate_tag(nonce(number), Aad::from(associated), bytes);
        let tag = tag.expect("objects are far below the cipher's limit of 64 GiB");
        tag.as_ref().try_into().expect("the tag has its length")
    }

    /// Decrypts in place; `None` when the bytes, their tag or what they are bound to are not those that were sealed.
    pub(crate) fn open(&self, number: u32, associated: &[u8], bytes: &mut [u8], tag: &[u8]) -> Option<()> {
        let tag = Tag::try_from(tag).ok()?;
        let opened = self.0.open_in_place_separate_tag(nonce(number), Aad::from(associated), tag, bytes, 0..);
        opened.ok().map(drop)
    }

    /// Encrypts a key; the result is [`WRAPPED`] bytes long. For a cipher that seals nothing else.
    pub(crate) fn wrap(&self, associated: &[u8], key: &SecretKey) -> [u8; WRAPPED] {
        let mut wrapped = [0; WRAPPED];
        wrapped[..SecretKey::LEN].copy_from_slice(key.expose());
        let tag = self.seal(0, associated, &mut wrapped[..SecretKey::LEN]);
        wrapped[SecretKey::LEN..].copy_from_slice(&tag);
        wrapped
    }

    /// Decrypts a key; `None` when this is not the right cipher, or the bytes were changed.
    pub(crate) fn unwrap(&self, associated: &[u8], wrapped: &[u8; WRAPPED]) -> Option<SecretKey> {
        let (bytes, tag) = wrapped.split_at(SecretKey::LEN);
        let mut key: [u8; SecretKey::LEN] = bytes.try_into().expect("split at its length");
        self.open(0, associated, &mut key, tag)?;
        let secret = SecretKey::new(key);
        key.zeroize();
        Some(secret)
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(redacted)")
    }
}

fn derive(context: &str, secret: &[u8], material: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(secret);
    for part in material {
        hasher.update(part);
    }
    let mut hash = hasher.finalize();
    let key = Zeroizing::new(*hash.as_bytes());
    hasher.zeroize();
    hash.zeroize();
    key
}

/// The number in little endian, filled up with zeros.
fn nonce(number: u32) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Bytes of a tag.
pub(crate) const TAG: usize = 16;
/// Bytes of a wrapped key.
pub(crate) const WRAPPED: usize = SecretKey::LEN + TAG;

#[cfg(test)]
mod tests {
    use super::{super::hex::hex, *};

    #[test]
    fn keys_are_derived_as_the_vector_of_the_format_says() {
        let (key, salt): ([u8; 32], [u8; 32]) =
            (std::array::from_fn(|at| at as u8), std::array::from_fn(|at| at as u8 + 32));
        for (name, stated) in [("envelope", "the key of an envelope is"), ("pack", "and that of a pack")] {
            let context = format!("vsphere-backup 2026-11-22 format 1 {name}");
            let derived = hex(&*derive(&context, &key, &[&salt]));
            let (_, vector) = include_str!("../../FORMAT.md").split_once(stated).unwrap();
            assert!(vector.trim_start().starts_with(&derived), "{name}: {derived}");
        }
    }

    #[test]
    fn a_wrapped_key_opens_under_the_same_key_and_binding_only() {
        let (key, secret) = (Cipher::derive("test", b"secret", &[b"salt"]), SecretKey::new([7; 32]));
        let wrapped = key.wrap(b"slot", &secret);
        assert_eq!(key.unwrap(b"slot", &wrapped).unwrap().expose(), secret.expose());
        assert!(key.unwrap(b"other", &wrapped).is_none());
        assert!(Cipher::derive("test", b"secret", &[b"salT"]).unwrap(b"slot", &wrapped).is_none());
        assert!(Cipher::derive("tesT", b"secret", &[b"salt"]).unwrap(b"slot", &wrapped).is_none());
        for bit in 0..WRAPPED * 8 {
            let mut bad = wrapped;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(key.unwrap(b"slot", &bad).is_none(), "bit {bit}");
        }
        assert_eq!(format!("{key:?}{secret:?}"), "Cipher(redacted)SecretKey(redacted)");
    }
}
