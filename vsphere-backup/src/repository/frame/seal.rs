//! Encryption of frames.

use super::{
    super::{
        cipher::{Cipher, TAG},
        id::RepositoryId,
        keys::SecretKey,
    },
    CONTEXT, SUMMED, number,
};

/// The cipher of the frames of one pack.
#[derive(Debug)]
pub(crate) struct FrameCipher {
    cipher: Cipher,
    repository: RepositoryId,
}

impl FrameCipher {
    /// Derives the cipher of the pack with this salt.
    pub(crate) fn new(data_key: &SecretKey, salt: &[u8; 32], repository: RepositoryId) -> Self {
        Self { cipher: Cipher::derive(CONTEXT, data_key.expose(), &[salt]), repository }
    }

    /// Encrypts what follows the head, whose last 16 bytes are room for the tag, in place.
    pub(super) fn seal(&self, head: &[u8], stored: &mut [u8]) {
        let (bytes, tag) = stored.split_at_mut(stored.len() - TAG);
        tag.copy_from_slice(&self.cipher.seal(number(head), &self.binding(head), bytes));
    }

    /// Decrypts what follows the head.
    pub(super) fn open(&self, head: &[u8], stored: &[u8]) -> Option<Vec<u8>> {
        let (bytes, tag) = stored.split_at_checked(stored.len().checked_sub(TAG)?)?;
        let mut plain = bytes.to_vec();
        self.cipher.open(number(head), &self.binding(head), &mut plain, tag)?;
        Some(plain)
    }

    /// What a frame is bound to: all of its head but the checksum, and the repository.
    fn binding(&self, head: &[u8]) -> [u8; 16 + SUMMED] {
        let mut bound = [0; 16 + SUMMED];
        bound[..16].copy_from_slice(&self.repository.0);
        bound[16..].copy_from_slice(&head[..SUMMED]);
        bound
    }
}
