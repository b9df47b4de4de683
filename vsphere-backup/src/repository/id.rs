//! Identities: chunks, pages, objects, points.

use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

use super::{
    calendar::{TIME_LEN, compact_utc, days_from_civil},
    hex::{hex, parse_hex, random_name},
    storage::Key,
};

/// Writes and reads an array of `$len` bytes as hex digits in lower case.
macro_rules! hex_text {
    ($name:ident, $len:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                let mut bytes = [0; $len];
                parse_hex(text, &mut bytes)
                    .ok_or_else(|| Error::invalid(format!("{text:?} is not {} hex digits", $len * 2)))?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Defines an identity of `$len` bytes that is written in hex.
macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub(crate) [u8; $len]);

        impl $name {
            /// The length in bytes.
            pub const LEN: usize = $len;

            /// Parses hex digits in lower case.
            ///
            /// # Errors
            /// [`Error::Invalid`] when the length or a digit is wrong.
            pub fn parse(text: &str) -> Result<Self> {
                text.parse()
            }

            /// Returns the bytes.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        hex_text!($name, $len);
    };
}

hex_id! {
    /// The identity of a chunk: the keyed BLAKE3 of its plain bytes.
    ChunkId, 32
}
hex_id! {
    /// The identity of a page of a disk's index: the keyed BLAKE3 of its body.
    PageId, 32
}
hex_id! {
    /// The identity of a small object (a configuration, disk metadata): the keyed BLAKE3 of its bytes.
    MetaId, 32
}
hex_id! {
    /// The identity of a pack: the plain BLAKE3 of the whole object, so that a holder without any
    /// key can check it.
    PackId, 32
}
hex_id! {
    /// The identity of a segment of the chunk index: the plain BLAKE3 of its body.
    SegmentId, 32
}
hex_id! {
    /// The identity of a repository, random.
    RepositoryId, 16
}

hex_id! {
    /// The identity of a key slot, random.
    SlotId, 8
}
hex_text!(LeaseId, 8);

/// The name of a lease, random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LeaseId(pub(crate) [u8; 8]);
hex_id! {
    /// The public key (X25519) of a recipient: who holds the secret can open the repository.
    RecipientKey, 32
}

/// The identity of a virtual machine in a repository: its `instanceUuid`.
///
/// Never a path or a name, which change. Any text of `[A-Za-z0-9._-]` up to 128 bytes is accepted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct VmId(Box<str>);

impl VmId {
    /// Parses an identity.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is empty, too long, or has characters that are not allowed.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() <= 128 && super::storage::is_segment(text) {
            Ok(Self(text.into()))
        } else {
            Err(Error::invalid(format!("{text:?} cannot be the identity of a virtual machine")))
        }
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for VmId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The identity of a recovery point: `<instanceUuid>/<time>-<16 hex digits>`, with the time in UTC
/// down to the microsecond, such as `20261122T033511.000123Z`.
///
/// Ordered by virtual machine, then by time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PointId {
    vm: VmId,
    name: Box<str>,
}

impl PointId {
    /// Makes the identity of a point of `vm` that is made `micros` microseconds after 1970 in UTC.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the operating system has no random numbers.
    pub(crate) fn new(vm: VmId, micros: u64) -> Result<Self> {
        let name = format!("{}-{}", compact_utc(micros), random_name()?);
        Ok(Self { vm, name: name.into() })
    }

    /// Parses `<instanceUuid>/<name>`.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("{text:?} is not the identity of a recovery point"));
        let (vm, name) = text.split_once('/').ok_or_else(wrong)?;
        let sound = name.len() == NAME_LEN
            && name.is_ascii()
            && name.bytes().enumerate().all(|(at, byte)| match at {
                8 => byte == b'T',
                15 => byte == b'.',
                22 => byte == b'Z',
                23 => byte == b'-',
                24.. => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
                _ => byte.is_ascii_digit(),
            });
        if !sound {
            return Err(wrong());
        }
        Ok(Self { vm: VmId::parse(vm)?, name: name.into() })
    }

    /// Returns the virtual machine.
    pub fn vm(&self) -> &VmId {
        &self.vm
    }

    /// Returns the time in the name, in microseconds since 1970, UTC; a date that no calendar has
    /// gives some time.
    pub fn micros(&self) -> u64 {
        let part = |range: std::ops::Range<usize>| {
            self.name[range].bytes().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))
        };
        let days = days_from_civil(part(0..4), part(4..6), part(6..8));
        let seconds = days * 86_400 + part(9..11) * 3600 + part(11..13) * 60 + part(13..15);
        seconds * 1_000_000 + part(16..22)
    }

    /// Returns the part behind the machine.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn key(&self) -> Key {
        Key::of(&["points", self.vm.as_str(), &self.name])
    }
}

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.vm, self.name)
    }
}

impl fmt::Debug for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for PointId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PointId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The keys by which content becomes an identity, derived from the repository's secret.
#[derive(Clone)]
pub(crate) struct IdKeys {
    chunk: Zeroizing<[u8; 32]>,
    page: Zeroizing<[u8; 32]>,
    meta: Zeroizing<[u8; 32]>,
}

impl IdKeys {
    /// Derives the keys; the contexts are part of the format.
    pub(crate) fn derive(secret: &[u8; 32]) -> Self {
        let derive = |context| Zeroizing::new(blake3::derive_key(context, secret));
        Self {
            chunk: derive("vsphere-backup 2026-11-22 format 1 chunk id"),
            page: derive("vsphere-backup 2026-11-22 format 1 page id"),
            meta: derive("vsphere-backup 2026-11-22 format 1 meta id"),
        }
    }

    pub(crate) fn chunk(&self, plain: &[u8]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(&self.chunk, plain).as_bytes())
    }

    pub(crate) fn page(&self, body: &[u8]) -> PageId {
        PageId(*blake3::keyed_hash(&self.page, body).as_bytes())
    }

    pub(crate) fn meta(&self, body: &[u8]) -> MetaId {
        MetaId(*blake3::keyed_hash(&self.meta, body).as_bytes())
    }
}

impl fmt::Debug for IdKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdKeys(redacted)")
    }
}

/// Returns random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::invalid("the operating system gives no random numbers"))?;
    Ok(bytes)
}

/// The time, `-` and 16 hex digits.
const NAME_LEN: usize = TIME_LEN + 17;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_a_round_trip_as_text() {
        let id = ChunkId([0xa5; 32]);
        assert_eq!(ChunkId::parse(&id.to_string()).unwrap(), id);
        for bad in ["", "a5", &"A5".repeat(32), &"g0".repeat(32)] {
            assert!(ChunkId::parse(bad).is_err());
        }
    }

    #[test]
    fn point_ids_sort_by_time_and_survive_a_round_trip() {
        let vm = VmId::parse("5029-ab").unwrap();
        let early = PointId::new(vm.clone(), 1_700_000_000_000_000).unwrap();
        let late = PointId::new(vm, 1_700_000_000_000_001).unwrap();
        assert!(early < late);
        for micros in [0, 951_827_696_000_042, 1_700_000_000_000_001, 253_402_300_799_999_999] {
            assert_eq!(PointId::new(early.vm().clone(), micros).unwrap().micros(), micros);
        }
        assert_eq!(PointId::parse(&early.to_string()).unwrap(), early);
        for bad in [
            "",
            "vm",
            "vm/x",
            "vm/20260101T000000.000000Z-0123456789abcdeX",
            "../20260101T000000.000000Z-0123456789abcdef",
        ] {
            assert!(PointId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn equal_bytes_of_different_kinds_have_different_ids() {
        let keys = IdKeys::derive(&[7; 32]);
        let bytes = b"the same";
        assert_ne!(keys.chunk(bytes).0, keys.page(bytes).0);
        assert_ne!(keys.chunk(bytes).0, keys.meta(bytes).0);
        assert_ne!(keys.chunk(bytes), IdKeys::derive(&[8; 32]).chunk(bytes));
        assert!(!format!("{keys:?}").contains('7'));
    }
}
