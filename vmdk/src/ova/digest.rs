//! The digests of manifests.

use std::{
    fmt,
    io::{self, Write},
};

use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};

/// A digest that a manifest may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DigestAlgorithm {
    /// SHA-1: all that OVF 1.0 knew; notices accidents, not forgers.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl DigestAlgorithm {
    /// All, in the order of age.
    pub(super) const ALL: [Self; 3] = [Self::Sha1, Self::Sha256, Self::Sha512];

    /// The word in a manifest, written in any case, with or without a hyphen.
    pub(super) fn from_name(word: &str) -> Option<Self> {
        let plain = word.replace('-', "");
        Self::ALL.into_iter().find(|algorithm| plain.eq_ignore_ascii_case(algorithm.name()))
    }

    /// The word as manifests have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
            Self::Sha512 => "SHA512",
        }
    }

    fn len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

impl fmt::Display for DigestAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A digest and how it was made. Displayed as hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest {
    algorithm: DigestAlgorithm,
    /// Zero behind the algorithm's length.
    bytes: [u8; 64],
}

impl Digest {
    /// Reads hexadecimal digits; `None` when they are not as many as the algorithm gives.
    pub fn from_hex(algorithm: DigestAlgorithm, digits: &str) -> Option<Self> {
        let mut bytes = [0; 64];
        if digits.len() != algorithm.len() * 2 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        for (index, byte) in bytes[..algorithm.len()].iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[index * 2..index * 2 + 2], 16).ok()?;
        }
        Some(Self { algorithm, bytes })
    }

    /// How it was made.
    pub fn algorithm(&self) -> DigestAlgorithm {
        self.algorithm
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.len()]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{self}", self.algorithm)
    }
}

/// A digest in the making.
#[derive(Debug, Clone)]
pub(super) enum Hasher {
    Sha1(Sha1),
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub(super) fn new(algorithm: DigestAlgorithm) -> Self {
        match algorithm {
            DigestAlgorithm::Sha1 => Self::Sha1(Sha1::new()),
            DigestAlgorithm::Sha256 => Self::Sha256(Sha256::new()),
            DigestAlgorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(state) => state.update(bytes),
            Self::Sha256(state) => state.update(bytes),
            Self::Sha512(state) => state.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Digest {
        let mut bytes = [0; 64];
        let mut keep = |digest: &[u8]| bytes[..digest.len()].copy_from_slice(digest);
        let algorithm = match self {
            Self::Sha1(state) => {
                keep(&state.finalize());
                DigestAlgorithm::Sha1
            }
            Self::Sha256(state) => {
                keep(&state.finalize());
                DigestAlgorithm::Sha256
            }
            Self::Sha512(state) => {
                keep(&state.finalize());
                DigestAlgorithm::Sha512
            }
        };
        Digest { algorithm, bytes }
    }

    pub(super) fn digest(algorithm: DigestAlgorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Self::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }
}

/// A sink that counts and digests what passes.
#[derive(Debug)]
pub(super) struct Measuring<W> {
    inner: W,
    len: u64,
    hasher: Hasher,
}

impl<W> Measuring<W> {
    pub(super) fn new(inner: W, algorithm: DigestAlgorithm) -> Self {
        Self { inner, len: 0, hasher: Hasher::new(algorithm) }
    }

    /// The sink, how many bytes it got, and their digest.
    pub(super) fn finish(self) -> (W, u64, Digest) {
        (self.inner, self.len, self.hasher.finish())
    }
}

impl<W: Write> Write for Measuring<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.len += written as u64;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standards_examples() {
        let known = [
            (DigestAlgorithm::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (DigestAlgorithm::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                DigestAlgorithm::Sha512,
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                 2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
        ];
        for (algorithm, hex) in known {
            let digest = Hasher::digest(algorithm, b"abc");
            assert_eq!(digest.to_string(), hex);
            assert_eq!(Digest::from_hex(algorithm, &hex.to_uppercase()), Some(digest));
            assert_eq!(Digest::from_hex(algorithm, &hex[1..]), None);
        }
        assert_eq!(Digest::from_hex(DigestAlgorithm::Sha1, &"é".repeat(20)), None);
    }
}
