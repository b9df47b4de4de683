//! Ciphers as dm-crypt names them: `aes-xts-plain64` and those before it.

use aes::{
    Aes128, Aes192, Aes256,
    cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit},
};
use ring::digest;
use xts_mode::Xts128;

use crate::error::{Error, Result};

/// Deciphers sectors with one key.
pub(super) struct Cipher {
    mode: Mode,
    tweak: Tweak,
}

enum Mode {
    Xts128(Box<Xts128<Aes128>>),
    Xts256(Box<Xts128<Aes256>>),
    Cbc(Box<Block>),
}

/// AES with a key of any of its lengths.
enum Block {
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
}

/// How the number of a sector becomes what its cipher begins with.
enum Tweak {
    /// 32 bits of it.
    Plain,
    /// 64 bits of it.
    Plain64,
    /// 64 bits, enciphered with a digest of the key.
    Essiv(Box<Aes256>),
}

impl Cipher {
    /// By its name.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the name of a cipher that is not read; [`Error::Damaged`] for a key of a length that
    /// it does not have.
    pub(super) fn new(name: &str, key: &[u8]) -> Result<Self> {
        let wrong_key = || Error::damaged(format!("LUKS cipher {name}"), format!("its key has {} bytes", key.len()));
        let unknown = || Error::unsupported(format!("LUKS cipher {name}"), "AES with XTS or CBC is read");
        let mut parts = name.splitn(3, '-');
        let (Some("aes"), Some(mode), Some(tweak)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(unknown());
        };
        let mode = match mode {
            "xts" => {
                let (first, second) = key.split_at(key.len() / 2);
                match key.len() {
                    32 => Mode::Xts128(Box::new(Xts128::new(aes(first)?, aes(second)?))),
                    64 => Mode::Xts256(Box::new(Xts128::new(aes(first)?, aes(second)?))),
                    _ => return Err(wrong_key()),
                }
            }
            "cbc" => Mode::Cbc(Box::new(match key.len() {
                16 => Block::Aes128(aes(key)?),
                24 => Block::Aes192(aes(key)?),
                32 => Block::Aes256(aes(key)?),
                _ => return Err(wrong_key()),
            })),
            _ => return Err(unknown()),
        };
        let tweak = match tweak {
            "plain" => Tweak::Plain,
            "plain64" => Tweak::Plain64,
            "essiv:sha256" => Tweak::Essiv(Box::new(aes(digest::digest(&digest::SHA256, key).as_ref())?)),
            _ => return Err(unknown()),
        };
        Ok(Self { mode, tweak })
    }

    /// Deciphers one sector in its place. Its number counts units of 512 bytes, whatever its size.
    pub(super) fn decrypt(&self, sector: &mut [u8], number: u64) {
        let mut tweak = [0; 16];
        match &self.tweak {
            Tweak::Plain => tweak[..4].copy_from_slice(&(number as u32).to_le_bytes()),
            Tweak::Plain64 => tweak[..8].copy_from_slice(&number.to_le_bytes()),
            Tweak::Essiv(cipher) => {
                tweak[..8].copy_from_slice(&number.to_le_bytes());
                cipher.encrypt_block((&mut tweak).into());
            }
        }
        match &self.mode {
            Mode::Xts128(cipher) => cipher.decrypt_sector(sector, tweak.into()),
            Mode::Xts256(cipher) => cipher.decrypt_sector(sector, tweak.into()),
            Mode::Cbc(cipher) => {
                for block in sector.chunks_exact_mut(16) {
                    let mut before = [0; 16];
                    before.copy_from_slice(block);
                    cipher.decrypt(block);
                    block.iter_mut().zip(tweak).for_each(|(byte, last)| *byte ^= last);
                    tweak = before;
                }
            }
        }
    }
}

impl Block {
    fn decrypt(&self, block: &mut [u8]) {
        let Ok(block) = block.try_into() else { return };
        match self {
            Self::Aes128(cipher) => cipher.decrypt_block(block),
            Self::Aes192(cipher) => cipher.decrypt_block(block),
            Self::Aes256(cipher) => cipher.decrypt_block(block),
        }
    }
}

/// A cipher of one of AES's lengths; callers have looked at that of the key.
fn aes<C: KeyInit>(key: &[u8]) -> Result<C> {
    C::new_from_slice(key).map_err(|error| Error::damaged("a key of LUKS", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_read_is_named() {
        for name in ["serpent-xts-plain64", "aes-xts-benbi", "aes-lrw-plain", "aes", "capi:xts(aes)-plain64", ""] {
            let Err(error) = Cipher::new(name, &[0; 64]) else { panic!("{name}") };
            assert!(matches!(&error, Error::Unsupported { what, .. } if what.ends_with(name)), "{error}");
        }
        for len in [0, 16, 31, 33, 65, 128] {
            assert!(matches!(Cipher::new("aes-xts-plain64", &vec![0; len]), Err(Error::Damaged { .. })), "{len}");
        }
    }
}
