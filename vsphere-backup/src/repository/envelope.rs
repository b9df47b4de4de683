//! The frame around every object but packs: what it is, which version, how long, and a checksum; around a body that
//! may be encrypted.
//!
//! Byte layout: `FORMAT.md`, "Envelope".

use bytes::Bytes;

use crate::error::{Error, Result};

use super::{
    cipher::{Cipher, TAG},
    id::{RepositoryId, random},
    keys::SecretKey,
    storage::{Key, Storage, StorageError, StorageErrorKind},
};

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
    Tomb,
    Waits,
    Hold,
    Deleted,
    Set,
    Damage,
    Keys,
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
            Self::Set => b"VSET",
            Self::Damage => b"DMGE",
            Self::Keys => b"KEYS",
        }
    }

    /// Tells whether objects of this kind are encrypted in an encrypted repository.
    pub(crate) const fn is_encrypted(self) -> bool {
        // What is needed before there is a key; and a fence, which a listing tells by its size.
        !matches!(self, Self::Config | Self::Keys | Self::Fence)
    }

    /// Returns the largest body that is written and read, in bytes.
    pub(crate) const fn limit(self) -> u64 {
        match self {
            Self::Fence => 0,
            Self::Seen => 1 << 10,
            Self::Config | Self::Restored | Self::Hold => 1 << 16,
            Self::Lease | Self::Deleted | Self::Waits | Self::Set => 1 << 20,
            Self::Keys => 1 << 22,
            Self::Page => 1 << 18,
            Self::Index => 1 << 27,
            Self::Meta => (1 << 24) + super::META_SALT as u64,
            Self::Point | Self::Tomb | Self::Damage => 1 << 24,
        }
    }
}

/// The data key that an encrypted object is under, and what it is bound to.
#[derive(Debug)]
pub(crate) struct Lock {
    pub(crate) repository: RepositoryId,
    /// Never 0.
    pub(crate) generation: u32,
    pub(crate) data_key: SecretKey,
}

impl Lock {
    fn cipher(&self, salt: &[u8]) -> Cipher {
        Cipher::derive(CONTEXT, self.data_key.expose(), &[salt])
    }

    /// What the body is bound to: one moved to another name, kind or repository does not open.
    fn binding(&self, head: &[u8], object: &Key) -> Vec<u8> {
        [&self.repository.0, head, object.as_str().as_bytes()].concat()
    }
}

/// Puts a body into its envelope; the parts are to be written one after the other.
///
/// # Errors
/// [`Error::Invalid`] when the body is larger than its kind may be.
pub(crate) fn seal(kind: Kind, body: Bytes) -> Result<Vec<Bytes>> {
    let head = head(kind, 0, checked_len(kind, &body)?);
    let sum = checksum(&head, &[&body]);
    Ok(vec![Bytes::copy_from_slice(&head), body, Bytes::copy_from_slice(&sum)])
}

/// Puts a body into its envelope, encrypted; in place where the body is not shared.
///
/// # Errors
/// [`Error::Invalid`] when the body is larger than its kind may be, or there are no random numbers.
pub(crate) fn encrypt(kind: Kind, object: &Key, body: Bytes, lock: &Lock) -> Result<Vec<Bytes>> {
    let head = head(kind, lock.generation, checked_len(kind, &body)? + OVERHEAD as u64);
    let salt: [u8; SALT] = random()?;
    let mut body = Vec::from(body);
    let tag = lock.cipher(&salt).seal(0, &lock.binding(&head, object), &mut body);
    let sum = checksum(&head, &[&salt, &body, &tag]);
    Ok(vec![[&head[..], &salt].concat().into(), body.into(), [&tag[..], &sum].concat().into()])
}

/// An envelope that was checked; its body may be encrypted.
#[derive(Debug)]
pub(crate) struct Opened {
    generation: u32,
    head: [u8; HEAD],
    body: Bytes,
}

impl Opened {
    /// Returns the generation of the data key; 0 when the body is plain.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// Returns the body of an object that must not be encrypted.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub(crate) fn plain(self, object: &Key) -> Result<Bytes> {
        match self.generation {
            0 => Ok(self.body),
            _ => Err(Error::damaged(object, "it is encrypted, as it must not be in this place")),
        }
    }

    /// Decrypts the body.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub(crate) fn decrypt(self, object: &Key, lock: &Lock) -> Result<Bytes> {
        let damaged = |reason: &str| Error::damaged(object, reason);
        let mut bytes = Vec::from(self.body);
        let at = bytes.len().checked_sub(TAG).filter(|&at| at >= SALT);
        let (sealed, tag) =
            bytes.split_at_mut(at.ok_or_else(|| damaged("its body is shorter than any encrypted one"))?);
        let (salt, body) = sealed.split_at_mut(SALT);
        lock.cipher(salt)
            .open(0, &lock.binding(&self.head, object), body, tag)
            .ok_or_else(|| damaged("it does not decrypt: it was changed, or is another object under this name"))?;
        let behind = bytes.len() - TAG;
        Ok(Bytes::from(bytes).slice(SALT..behind))
    }
}

/// Opens an envelope, having checked all of it but what only the keys tell.
///
/// # Errors
/// [`Error::Damaged`], [`Error::UnsupportedVersion`], [`Error::UnsupportedFeature`].
pub(crate) fn open(kind: Kind, object: &Key, bytes: Bytes) -> Result<Opened> {
    let opened = open_any(object, bytes)?;
    if opened.head[4..8] != *kind.tag() {
        return Err(Error::damaged(object, "it is not an object of this kind"));
    }
    Ok(opened)
}

/// Opens an envelope of any kind.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_any(object: &Key, bytes: Bytes) -> Result<Opened> {
    let damaged = |reason: &str| Error::damaged(object, reason);
    if bytes.len() < HEAD + SUM {
        return Err(damaged("it is shorter than its frame"));
    }
    let (head, rest) = bytes.split_at(HEAD);
    let (body, sum) = rest.split_at(rest.len() - SUM);
    // The checksum comes first: a flipped bit in the version is damage, not a future release.
    if checksum(head, &[body]) != *sum {
        return Err(damaged("the checksum does not match"));
    }
    if head[0..4] != *MAGIC {
        return Err(damaged("it is not an object of a repository"));
    }
    let version = u16::from_le_bytes([head[8], head[9]]);
    if version != VERSION {
        return Err(Error::UnsupportedVersion {
            object: object.to_string(),
            found: version.into(),
            supported: VERSION.into(),
        });
    }
    let flags = u16::from_le_bytes([head[10], head[11]]);
    let generation = u32::from_le_bytes(head[12..16].try_into().expect("four bytes"));
    if flags & !ENCRYPTED != 0 || (flags == 0) != (generation == 0) {
        return Err(Error::UnsupportedFeature {
            object: object.to_string(),
            feature: format!("flags {:02x?}", &head[10..16]),
        });
    }
    let len = u64::from_le_bytes(head[16..24].try_into().expect("eight bytes"));
    if len != body.len() as u64 {
        return Err(damaged("its length is not the one that it states"));
    }
    let (head, end) = (head.try_into().expect("split at its length"), HEAD + body.len());
    Ok(Opened { generation, head, body: bytes.slice(HEAD..end) })
}

/// Reads an enveloped object from a storage and opens it.
///
/// # Errors
/// Those of [`open`]; [`Error::Damaged`] when it is too large; [`Error::Storage`], which is
/// [`StorageErrorKind::NotFound`] when it is absent.
pub(crate) async fn read(storage: &dyn Storage, kind: Kind, key: &Key) -> Result<Opened> {
    open(kind, key, fetch(storage, key, kind.limit()).await?)
}

/// Reads an object that is never encrypted.
///
/// # Errors
/// As [`read`].
pub(crate) async fn read_plain(storage: &dyn Storage, kind: Kind, key: &Key) -> Result<Bytes> {
    read(storage, kind, key).await?.plain(key)
}

/// Reads and checks an object of any kind.
///
/// # Errors
/// As [`read`].
pub(crate) async fn check(storage: &dyn Storage, key: &Key) -> Result<()> {
    open_any(key, fetch(storage, key, Kind::Index.limit()).await?).map(drop)
}

async fn fetch(storage: &dyn Storage, key: &Key, limit: u64) -> Result<Bytes> {
    match storage.get(key, limit + (HEAD + OVERHEAD + SUM) as u64).await {
        Err(StorageError { kind: StorageErrorKind::TooLarge, .. }) => {
            Err(Error::damaged(key, "it is larger than an object of this kind can be"))
        }
        other => Ok(other?),
    }
}

fn checked_len(kind: Kind, body: &Bytes) -> Result<u64> {
    let len = body.len() as u64;
    if len > kind.limit() {
        return Err(Error::invalid(format!("{kind:?} of {len} bytes is too large for the format")));
    }
    Ok(len)
}

fn head(kind: Kind, generation: u32, len: u64) -> [u8; HEAD] {
    let flags = if generation == 0 { 0 } else { ENCRYPTED };
    let mut head = [0; HEAD];
    head[0..4].copy_from_slice(MAGIC);
    head[4..8].copy_from_slice(kind.tag());
    head[8..10].copy_from_slice(&VERSION.to_le_bytes());
    head[10..12].copy_from_slice(&flags.to_le_bytes());
    head[12..16].copy_from_slice(&generation.to_le_bytes());
    head[16..24].copy_from_slice(&len.to_le_bytes());
    head
}

fn checksum(head: &[u8], parts: &[&[u8]]) -> [u8; SUM] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// The version of the format that this release reads and writes.
pub(crate) const VERSION: u16 = 1;

const MAGIC: &[u8; 4] = b"VSBK";
const HEAD: usize = 24;
const SUM: usize = 32;
/// The flag of an encrypted body.
const ENCRYPTED: u16 = 1;
const SALT: usize = 32;
/// What an encrypted body is longer than the plain one.
const OVERHEAD: usize = SALT + TAG;
const CONTEXT: &str = "vsphere-backup 2026-11-22 format 1 envelope";

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(body: &[u8]) -> Vec<u8> {
        seal(Kind::Meta, Bytes::copy_from_slice(body)).unwrap().concat()
    }

    fn reopen(bytes: Vec<u8>) -> Result<Bytes> {
        let object = Key::of(&["meta", "x"]);
        open(Kind::Meta, &object, bytes.into())?.plain(&object)
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

    fn lock(byte: u8) -> Lock {
        Lock { repository: RepositoryId([byte; 16]), generation: 3, data_key: SecretKey::new([9; 32]) }
    }

    #[test]
    fn an_encrypted_body_opens_under_its_own_name_and_in_its_own_repository_only() {
        let (name, other) = (Key::of(&["meta", "x"]), Key::of(&["meta", "y"]));
        let sealed = encrypt(Kind::Meta, &name, Bytes::from_static(b"some body"), &lock(1)).unwrap().concat();
        assert!(!sealed.windows(4).any(|part| part == b"some"));
        let opened = |bytes: &[u8]| open(Kind::Meta, &name, Bytes::copy_from_slice(bytes));
        assert_eq!(opened(&sealed).unwrap().generation(), 3);
        assert_eq!(opened(&sealed).unwrap().decrypt(&name, &lock(1)).unwrap(), "some body");
        assert!(opened(&sealed).unwrap().decrypt(&other, &lock(1)).is_err());
        assert!(opened(&sealed).unwrap().decrypt(&name, &lock(2)).is_err());
        assert!(opened(&sealed).unwrap().plain(&name).is_err());
        let again = encrypt(Kind::Meta, &name, Bytes::from_static(b"some body"), &lock(1)).unwrap().concat();
        assert_ne!(sealed, again, "each has its own salt");
    }

    #[test]
    fn every_flipped_bit_of_an_encrypted_object_is_found_with_a_right_checksum_too() {
        let name = Key::of(&["meta", "x"]);
        let good = encrypt(Kind::Meta, &name, Bytes::from_static(b"some body"), &lock(1)).unwrap().concat();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(Kind::Meta, &name, bad.clone().into()).is_err(), "bit {bit}");
            if bit / 8 < good.len() - SUM {
                resum(&mut bad);
                let opened = open(Kind::Meta, &name, bad.into()).and_then(|opened| opened.decrypt(&name, &lock(1)));
                assert!(opened.is_err(), "bit {bit}");
            }
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
