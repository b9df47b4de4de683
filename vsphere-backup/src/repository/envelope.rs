//! The frame around every object but packs: what it is, which version, how long, and a checksum.
//!
//! Byte layout: `FORMAT.md`, "Envelope".

use bytes::Bytes;

use crate::error::{Error, Result};

use super::storage::{Key, Storage, StorageError, StorageErrorKind};

/// The kinds of enveloped objects, by their four letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Config,
    Index,
    Page,
    Meta,
    Point,
    Restored,
    Lease,
    Seen,
    Fence,
    #[allow(dead_code)] // The collector of garbage writes these.
    Tomb,
    #[allow(dead_code)]
    Waits,
    #[allow(dead_code)]
    Hold,
    #[allow(dead_code)]
    Deleted,
}

impl Kind {
    const fn tag(self) -> &'static [u8; 4] {
        match self {
            Self::Config => b"CONF",
            Self::Index => b"INDX",
            Self::Page => b"PAGE",
            Self::Meta => b"META",
            Self::Point => b"PONT",
            Self::Restored => b"RSTR",
            Self::Lease => b"LEAS",
            Self::Seen => b"SEEN",
            Self::Fence => b"FNCE",
            Self::Tomb => b"TOMB",
            Self::Waits => b"WAIT",
            Self::Hold => b"HOLD",
            Self::Deleted => b"DELE",
        }
    }

    /// Returns the largest body that is written and read, in bytes.
    pub(crate) const fn limit(self) -> u64 {
        match self {
            Self::Fence => 0,
            Self::Seen => 1 << 10,
            Self::Config | Self::Restored | Self::Hold => 1 << 16,
            Self::Lease | Self::Deleted | Self::Waits => 1 << 20,
            Self::Page => 1 << 18,
            Self::Index => 1 << 27,
            Self::Meta => (1 << 24) + super::META_SALT as u64,
            Self::Point | Self::Tomb => 1 << 24,
        }
    }
}

/// Puts a body into its envelope; the parts are to be written one after the other.
///
/// # Errors
/// [`Error::Invalid`] when the body is larger than its kind may be.
pub(crate) fn seal(kind: Kind, body: Bytes) -> Result<Vec<Bytes>> {
    let len = body.len() as u64;
    if len > kind.limit() {
        return Err(Error::invalid(format!("{kind:?} of {len} bytes is too large for the format")));
    }
    let mut head = Vec::with_capacity(HEAD);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(kind.tag());
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&0u16.to_le_bytes());
    head.extend_from_slice(&0u32.to_le_bytes());
    head.extend_from_slice(&len.to_le_bytes());
    let sum = checksum(&head, &body);
    Ok(vec![head.into(), body, Bytes::copy_from_slice(&sum)])
}

/// Takes the body out of an envelope, having checked all of it.
///
/// # Errors
/// [`Error::Damaged`], [`Error::UnsupportedVersion`], [`Error::UnsupportedFeature`].
pub(crate) fn open(kind: Kind, object: &Key, bytes: &Bytes) -> Result<Bytes> {
    let damaged = |reason: &str| Error::damaged(object, reason);
    if bytes.len() < HEAD + SUM {
        return Err(damaged("it is shorter than its frame"));
    }
    let (head, rest) = bytes.split_at(HEAD);
    let (body, sum) = rest.split_at(rest.len() - SUM);
    // The checksum comes first: a flipped bit in the version is damage, not a future release.
    if checksum(head, body) != *sum {
        return Err(damaged("the checksum does not match"));
    }
    if head[0..4] != *MAGIC || head[4..8] != *kind.tag() {
        return Err(damaged("it is not an object of this kind"));
    }
    let version = u16::from_le_bytes([head[8], head[9]]);
    if version != VERSION {
        return Err(Error::UnsupportedVersion {
            object: object.to_string(),
            found: version.into(),
            supported: VERSION.into(),
        });
    }
    if head[10..16].iter().any(|&byte| byte != 0) {
        return Err(Error::UnsupportedFeature {
            object: object.to_string(),
            feature: format!("flags {:02x?}", &head[10..16]),
        });
    }
    let len = u64::from_le_bytes(head[16..24].try_into().expect("eight bytes"));
    if len != body.len() as u64 {
        return Err(damaged("its length is not the one that it states"));
    }
    Ok(bytes.slice(HEAD..HEAD + body.len()))
}

/// Reads an enveloped object from a storage and opens it.
///
/// # Errors
/// Those of [`open`]; [`Error::Damaged`] when it is too large; [`Error::Storage`], which is
/// [`StorageErrorKind::NotFound`] when it is absent.
pub(crate) async fn read(storage: &dyn Storage, kind: Kind, key: &Key) -> Result<Bytes> {
    let limit = kind.limit() + (HEAD + SUM) as u64;
    match storage.get(key, limit).await {
        Ok(bytes) => open(kind, key, &bytes),
        Err(StorageError { kind: StorageErrorKind::TooLarge, .. }) => {
            Err(Error::damaged(key, "it is larger than an object of this kind can be"))
        }
        Err(error) => Err(error.into()),
    }
}

fn checksum(head: &[u8], body: &[u8]) -> [u8; SUM] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head);
    hasher.update(body);
    *hasher.finalize().as_bytes()
}

/// The version of the format that this release reads and writes.
pub(crate) const VERSION: u16 = 1;

const MAGIC: &[u8; 4] = b"VSBK";
const HEAD: usize = 24;
const SUM: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(body: &[u8]) -> Vec<u8> {
        seal(Kind::Meta, Bytes::copy_from_slice(body)).unwrap().concat()
    }

    fn reopen(bytes: Vec<u8>) -> Result<Bytes> {
        open(Kind::Meta, &Key::of(&["meta", "x"]), &bytes.into())
    }

    fn resum(bytes: &mut [u8]) {
        let at = bytes.len() - SUM;
        let sum = blake3::hash(&bytes[..at]);
        bytes[at..].copy_from_slice(sum.as_bytes());
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let good = sealed(b"some body");
        assert_eq!(reopen(good.clone()).unwrap(), "some body");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(reopen(bad), Err(Error::Damaged { .. })), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(reopen(good[..len].to_vec()).is_err());
        }
    }

    #[test]
    fn a_future_version_and_an_unknown_flag_are_refused_by_name() {
        let mut future = sealed(b"x");
        future[8] = 2;
        resum(&mut future);
        assert!(matches!(reopen(future), Err(Error::UnsupportedVersion { found: 2, supported: 1, .. })));
        let mut flagged = sealed(b"x");
        flagged[10] = 1;
        resum(&mut flagged);
        assert!(matches!(reopen(flagged), Err(Error::UnsupportedFeature { .. })));
    }

    #[test]
    fn an_object_of_another_kind_is_refused() {
        let page = seal(Kind::Page, Bytes::from_static(b"x")).unwrap().concat();
        assert!(matches!(reopen(page), Err(Error::Damaged { .. })));
        assert!(seal(Kind::Config, vec![0; 1 << 17].into()).is_err());
    }
}
