//! From a passphrase to the key of a volume.

use std::num::NonZeroU32;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use ring::{digest, pbkdf2};
use zeroize::Zeroizing;

use super::{Key, Keys, cipher::Cipher};
use crate::{
    device::{Device, DeviceExt},
    error::{Error, Result},
};

/// How a passphrase becomes the key of a slot.
#[derive(Clone, Debug)]
pub(super) enum Kdf {
    Pbkdf2 {
        hash: Hash,
        iterations: u32,
    },
    /// `memory` is in KiB.
    Argon2 {
        algorithm: Algorithm,
        time: u32,
        memory: u32,
        lanes: u32,
    },
}

/// A place in the header where the key of the volume is kept under a passphrase.
#[derive(Clone, Debug)]
pub(super) struct KeySlot {
    pub(super) kdf: Kdf,
    pub(super) salt: Vec<u8>,
    /// Bytes of the volume's key.
    pub(super) key_len: usize,
    /// Into how many parts it is split, each as long as itself, and by which digest.
    pub(super) stripes: usize,
    pub(super) hash: Hash,
    /// Where they lie in bytes of the device, and how they are enciphered.
    pub(super) offset: u64,
    pub(super) cipher: String,
    /// Bytes of the key by which they are.
    pub(super) area_key_len: usize,
}

/// How the key of a volume is known to be the right one.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    pub(super) hash: Hash,
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) digest: Vec<u8>,
}

/// The digests that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// By its name.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub(super) fn named(name: &str) -> Result<Self> {
        match name {
            "sha1" => Ok(Self::Sha1),
            "sha256" => Ok(Self::Sha256),
            "sha384" => Ok(Self::Sha384),
            "sha512" => Ok(Self::Sha512),
            _ => Err(Error::unsupported(format!("LUKS digest {name}"), "SHA-1 and SHA-2 are read")),
        }
    }

    fn digest(self, number: u32, block: &[u8]) -> digest::Digest {
        let mut context = digest::Context::new(match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        });
        context.update(&number.to_be_bytes());
        context.update(block);
        context.finish()
    }

    fn len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    fn pbkdf2(self, secret: &[u8], salt: &[u8], iterations: u32, out: &mut [u8]) {
        let algorithm = match self {
            Self::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha384 => pbkdf2::PBKDF2_HMAC_SHA384,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        };
        let iterations = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
        pbkdf2::derive(algorithm, iterations, salt, secret, out);
    }
}

/// How much work a header may ask for: it is written by whoever made the volume, and may ask for years.
pub(super) struct Budget(u64);

impl Budget {
    /// Takes the work of one derivation, counted as KiB that Argon2 passes over.
    fn take(&mut self, work: u64) -> Result<()> {
        let left = self.0.checked_sub(work);
        self.0 = left.ok_or_else(|| {
            Error::unsupported("the header of LUKS", "its key slots ask for more work than may be asked for")
        })?;
        Ok(())
    }
}

impl Kdf {
    fn derive(&self, secret: &[u8], salt: &[u8], budget: &mut Budget, out: &mut [u8]) -> Result<()> {
        match *self {
            Self::Pbkdf2 { hash, iterations } => {
                // An iteration takes as long as Argon2 does for a KiB or so.
                budget.take(u64::from(iterations) * out.len().div_ceil(hash.len()) as u64)?;
                hash.pbkdf2(secret, salt, iterations, out);
                Ok(())
            }
            Self::Argon2 { algorithm, time, memory, lanes } => {
                let wrong = |error: argon2::Error| Error::damaged("a key slot of LUKS", error.to_string());
                if memory > MAX_MEMORY {
                    return Err(Error::unsupported(
                        "a key slot of LUKS",
                        format!("it asks for {memory} KiB of memory"),
                    ));
                }
                budget.take(u64::from(time) * u64::from(memory))?;
                let params = Params::new(memory, time, lanes, Some(out.len())).map_err(wrong)?;
                let mut blocks = Vec::new();
                let count = params.block_count();
                blocks.try_reserve_exact(count).map_err(|_| {
                    Error::unsupported("a key slot of LUKS", format!("its {memory} KiB of memory are not to be had"))
                })?;
                blocks.resize(count, Block::default());
                let argon2 = Argon2::new(algorithm, Version::V0x13, params);
                argon2.hash_password_into_with_memory(secret, salt, out, &mut blocks).map_err(wrong)
            }
        }
    }
}

impl KeySlot {
    /// The key that a passphrase opens; the wrong one, when it is not this slot's.
    fn key(&self, device: &dyn Device, passphrase: &[u8], budget: &mut Budget) -> Result<Zeroizing<Vec<u8>>> {
        let split = self.key_len.checked_mul(self.stripes).filter(|len| (1..=MAX_AREA).contains(len));
        let split = split.ok_or_else(|| {
            let problem = format!("its key of {} bytes is in {} parts", self.key_len, self.stripes);
            Error::damaged("a key slot of LUKS", problem)
        })?;
        if !(1..=MAX_KEY).contains(&self.area_key_len) {
            return Err(Error::damaged("a key slot of LUKS", format!("its key has {} bytes", self.area_key_len)));
        }
        let mut area_key = Zeroizing::new(vec![0; self.area_key_len]);
        self.kdf.derive(passphrase, &self.salt, budget, &mut area_key)?;
        let cipher = Cipher::new(&self.cipher, &area_key)?;
        let mut area = Zeroizing::new(device.read_vec(self.offset, split.next_multiple_of(512))?);
        area.chunks_exact_mut(512).zip(0..).for_each(|(sector, number)| cipher.decrypt(sector, number));
        Ok(self.merged(&area[..split]))
    }

    /// Puts the parts of a key together: all are needed, so that a slot is gone for good when a few of its sectors are.
    fn merged(&self, parts: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut key = Zeroizing::new(vec![0; self.key_len]);
        let mut parts = parts.chunks_exact(self.key_len).peekable();
        while let Some(part) = parts.next() {
            key.iter_mut().zip(part).for_each(|(to, from)| *to ^= from);
            if parts.peek().is_some() {
                for (number, block) in (0..).zip(key.chunks_mut(self.hash.len())) {
                    let digest = self.hash.digest(number, block);
                    block.copy_from_slice(&digest.as_ref()[..block.len()]);
                }
            }
        }
        key
    }
}

impl Proof {
    fn is_of(&self, key: &[u8], budget: &mut Budget) -> Result<bool> {
        if !(1..=MAX_KEY).contains(&self.digest.len()) {
            return Err(Error::damaged("a digest of LUKS", format!("it has {} bytes", self.digest.len())));
        }
        let mut digest = vec![0; self.digest.len()];
        let kdf = Kdf::Pbkdf2 { hash: self.hash, iterations: self.iterations };
        kdf.derive(key, &self.salt, budget, &mut digest)?;
        // What is compared is no secret: it stands in the header.
        Ok(digest == self.digest)
    }
}

/// The key of a volume: the first that fits. A slot that cannot be read does not keep others from being tried.
pub(super) fn find_key(
    device: &dyn Device,
    keys: &Keys,
    slots: &[Result<KeySlot>],
    proof: &Proof,
) -> Result<Zeroizing<Vec<u8>>> {
    let Keys { keys, work } = keys;
    let mut budget = Budget(work.unwrap_or(WORK));
    let mut problem = None;
    for key in keys {
        match key {
            Key::Volume(key) => {
                if proof.is_of(key, &mut budget)? {
                    return Ok(key.clone());
                }
            }
            Key::Passphrase(passphrase) => {
                for slot in slots {
                    let key = slot.as_ref().map_err(Error::duplicate);
                    let key = key.and_then(|slot| slot.key(device, passphrase, &mut budget));
                    match key.and_then(|key| Ok(proof.is_of(&key, &mut budget)?.then_some(key))) {
                        Ok(Some(key)) => return Ok(key),
                        Ok(None) => {}
                        Err(error) => problem = problem.or(Some(error)),
                    }
                }
            }
        }
    }
    Err(problem.unwrap_or_else(|| {
        let keys = if keys.len() == 1 { "the key that was given does not fit" } else { "no key that was given fits" };
        Error::Invalid(format!("{} is encrypted with LUKS, and {keys}", device.name()))
    }))
}

/// Sixteen times what cryptsetup takes at most for a slot: a minute or so.
const WORK: u64 = 64 << 20;
/// Bytes of the longest key.
const MAX_KEY: usize = 512;
/// Bytes of the largest area of a slot: a key of 512 bytes in 4000 parts and more.
const MAX_AREA: usize = 4 << 20;
/// KiB that Argon2 may take: what LUKS2 allows.
const MAX_MEMORY: u32 = 4 << 20;
