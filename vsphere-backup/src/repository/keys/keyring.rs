//! The key ring: all keys of a repository in one object, replaced as a whole.
//!
//! Each change creates the next number exclusively, writes a copy, and only then removes the older ones: there is no
//! state in between, and never only one copy of what the next state needs. Layout: `FORMAT.md`, "Key rings".

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    error::{Error, Result},
    repository::{
        cipher::{Cipher, TAG},
        envelope::{self, Kind},
        hex::{hex, parse_hex, random_name, unhex},
        id::{RepositoryId, SlotId, random},
        now,
        storage::{Key, Storage, StorageError, StorageErrorKind},
    },
};

use super::{
    slot::{Attempt, Content, Hex, Slot},
    source::{KeySource, SecretKey, Unlock},
};

/// What a key ring is bound to: the repository, and the content of its `config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) repository: RepositoryId,
    /// BLAKE3 of the body of `config`.
    pub(crate) config: [u8; 32],
}

/// A key ring, opened.
#[derive(Clone, Debug)]
pub(super) struct Keyring {
    pub(super) number: u64,
    /// The last changes, the newest last: by these a change that others built upon is known to have happened.
    pub(super) changes: Vec<String>,
    pub(super) slots: Vec<Slot>,
    kek: SecretKey,
    /// The secret behind identities.
    pub(super) identity: SecretKey,
    /// In ascending order, never empty.
    pub(super) generations: Vec<Generation>,
}

/// A data key.
#[derive(Clone, Debug)]
pub(super) struct Generation {
    /// From 1 on: 0 stands for what is not encrypted.
    pub(super) number: u32,
    /// Seconds since 1970, UTC.
    pub(super) created: u64,
    pub(super) key: SecretKey,
}

/// A change of a key ring.
#[derive(Debug)]
pub(super) enum Change {
    Add(KeySource),
    Remove(SlotId),
    NewDataKey,
    NewKeyEncryptionKey(Vec<KeySource>),
}

impl Keyring {
    /// Makes the keys of a new repository.
    pub(super) async fn new(scope: Scope, sources: &[KeySource]) -> Result<Self> {
        let first = Generation { number: 1, created: now(), key: SecretKey::generate()? };
        let ring = Self {
            number: 0,
            changes: Vec::new(),
            slots: Vec::new(),
            kek: SecretKey::generate()?,
            identity: SecretKey::generate()?,
            generations: vec![first],
        };
        let slots = ring.wrap(scope, sources).await?;
        Ok(Self { slots, changes: vec![random_name()?], ..ring })
    }

    /// Returns the ring as it is after a change, and the slots that are new. It still has its old number.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the change would leave no slot that this release can judge, or makes no sense.
    pub(super) async fn changed(&self, scope: Scope, change: &Change) -> Result<(Self, Vec<SlotId>)> {
        let mut next = self.clone();
        let mut added = Vec::new();
        match change {
            Change::Add(source) => {
                let slots = self.wrap(scope, std::slice::from_ref(source)).await?;
                added.extend(slots.iter().map(|slot| slot.id));
                next.slots.extend(slots);
            }
            Change::Remove(id) => {
                let before = next.slots.len();
                next.slots.retain(|slot| slot.id != *id);
                if next.slots.len() == before {
                    return Err(Error::invalid(format!("there is no key slot {id}")));
                }
                // One that is malformed or of an unknown kind opens nothing, as far as is known here.
                let opens = |slot: &Slot| !matches!(slot.content(), Content::Malformed(_) | Content::Unknown);
                if !next.slots.iter().any(opens) {
                    let what = format!("key slot {id} is the last that opens the repository: add another one first");
                    return Err(Error::invalid(what));
                }
            }
            Change::NewDataKey => {
                let newest = self.newest().number;
                let number = newest.checked_add(1).ok_or_else(|| Error::invalid("there are too many data keys"))?;
                next.generations.push(Generation { number, created: now(), key: SecretKey::generate()? });
            }
            Change::NewKeyEncryptionKey(sources) => {
                next.kek = SecretKey::generate()?;
                next.slots = next.wrap(scope, sources).await?;
                added.extend(next.slots.iter().map(|slot| slot.id));
            }
        }
        if next.slots.len() > MAX_SLOTS {
            return Err(Error::invalid(format!("a repository has at most {MAX_SLOTS} key slots")));
        }
        next.changes.push(random_name()?);
        let old = next.changes.len().saturating_sub(MAX_CHANGES);
        next.changes.drain(..old);
        Ok((next, added))
    }

    async fn wrap(&self, scope: Scope, sources: &[KeySource]) -> Result<Vec<Slot>> {
        if sources.is_empty() {
            return Err(Error::invalid("an encrypted repository needs at least one key slot"));
        }
        let mut slots = Vec::with_capacity(sources.len());
        for source in sources {
            slots.push(Slot::make(scope.repository, &self.kek, source).await?);
        }
        Ok(slots)
    }

    /// Returns the data key for what is written from now on.
    pub(super) fn newest(&self) -> &Generation {
        self.generations.last().expect("a key ring is never without a generation")
    }

    /// Returns the data key of a generation.
    pub(super) fn generation(&self, number: u32) -> Option<&Generation> {
        let at = self.generations.binary_search_by_key(&number, |generation| generation.number).ok()?;
        Some(&self.generations[at])
    }

    /// Encodes the ring as the body of object number `self.number`.
    pub(super) fn encode(&self, scope: Scope) -> Result<Bytes> {
        let mut secret = Zeroizing::new(Vec::with_capacity(SecretKey::LEN + self.generations.len() * GENERATION + TAG));
        secret.extend_from_slice(self.identity.expose());
        for generation in &self.generations {
            secret.extend_from_slice(&generation.number.to_le_bytes());
            secret.extend_from_slice(&generation.created.to_le_bytes());
            secret.extend_from_slice(generation.key.expose());
        }
        let salt: [u8; 32] = random()?;
        let tag =
            Cipher::derive(CONTEXT, self.kek.expose(), &[&salt]).seal(0, &binding(scope, self.number), &mut secret);
        secret.extend_from_slice(&tag);
        let stored = Stored {
            repository: scope.repository,
            number: self.number,
            incompatible_features: Vec::new(),
            changes: self.changes.clone(),
            slots: self.slots.clone(),
            salt: Hex(salt),
            sealed: hex(&secret),
        };
        Ok(serde_json::to_vec(&stored).expect("a struct of plain fields is valid JSON").into())
    }
}

/// The JSON of a key ring.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stored {
    repository: RepositoryId,
    pub(super) number: u64,
    #[serde(default)]
    incompatible_features: Vec<String>,
    #[serde(default)]
    pub(super) changes: Vec<String>,
    slots: Vec<Slot>,
    salt: Hex<32>,
    sealed: String,
}

impl Stored {
    fn parse(key: &Key, body: &[u8]) -> Result<Self> {
        let stored: Self = serde_json::from_slice(body)
            .map_err(|error| Error::damaged(key, format!("its content is not valid: {error}")))?;
        match stored.incompatible_features.first() {
            Some(feature) => Err(Error::UnsupportedFeature { object: key.to_string(), feature: feature.clone() }),
            None => Ok(stored),
        }
    }

    /// Opens the ring through one of its slots.
    ///
    /// # Errors
    /// [`Error::WrongKey`] when the slots of this kind do not open, [`Error::NoKeySlot`] when there is none,
    /// [`Error::UnsupportedFeature`] when there is none but one of an unknown kind, [`Error::Damaged`] when one of
    /// this kind is not as it has to be, [`Error::KeyService`].
    pub(super) async fn unlock(&self, scope: Scope, unlock: &Unlock) -> Result<Keyring> {
        let (mut refused, mut malformed, mut failed) = (0, None, None);
        for slot in &self.slots {
            match slot.open(scope.repository, unlock).await {
                Ok(Attempt::Opened(kek)) => return self.open(scope, &kek),
                Ok(Attempt::Refused) => refused += 1,
                Ok(Attempt::OfAnotherKind) => {}
                Ok(Attempt::Malformed(reason)) => {
                    malformed.get_or_insert_with(|| format!("key slot {}: {reason}", slot.id));
                }
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let object = key(self.number);
        if let Some(reason) = malformed {
            return Err(Error::damaged(object, reason));
        }
        let kind = unlock.kind();
        if refused > 0 {
            return Err(Error::WrongKey { kind, slots: refused });
        }
        match self.slots.iter().find(|slot| matches!(slot.content(), Content::Unknown)) {
            Some(slot) => {
                let feature = format!("key slot of kind {}", slot.kind);
                Err(Error::UnsupportedFeature { object: object.to_string(), feature })
            }
            None => Err(Error::NoKeySlot { kind }),
        }
    }

    /// Opens the ring by its key-encryption key.
    pub(super) fn open(&self, scope: Scope, kek: &SecretKey) -> Result<Keyring> {
        let damaged = |reason: &str| Error::damaged(key(self.number), reason);
        let mut secret = Zeroizing::new(unhex(&self.sealed).ok_or_else(|| damaged("its sealed keys are not in hex"))?);
        let len = secret.len().checked_sub(TAG + SecretKey::LEN + GENERATION);
        if len.is_none_or(|len| len % GENERATION != 0) {
            return Err(damaged("its sealed keys have no valid length"));
        }
        let (bytes, tag) = {
            let at = secret.len() - TAG;
            secret.split_at_mut(at)
        };
        Cipher::derive(CONTEXT, kek.expose(), &[&self.salt.0])
            .open(0, &binding(scope, self.number), bytes, tag)
            .ok_or_else(|| damaged("its keys, or the config that they are bound to, were changed"))?;
        let (identity, generations) = bytes.split_at(SecretKey::LEN);
        let generations: Vec<_> = generations
            .chunks_exact(GENERATION)
            .map(|bytes| Generation {
                number: u32::from_le_bytes(bytes[..4].try_into().expect("4 bytes")),
                created: u64::from_le_bytes(bytes[4..12].try_into().expect("8 bytes")),
                key: secret_of(&bytes[12..]),
            })
            .collect();
        if generations[0].number == 0 || generations.windows(2).any(|pair| pair[0].number >= pair[1].number) {
            return Err(damaged("its data keys are not in order"));
        }
        Ok(Keyring {
            number: self.number,
            changes: self.changes.clone(),
            slots: self.slots.clone(),
            kek: kek.clone(),
            identity: secret_of(identity),
            generations,
        })
    }
}

impl Keyring {
    /// Opens a newer ring, by the same key-encryption key when that is still its.
    pub(super) async fn follow(&self, scope: Scope, newer: &Stored, unlock: Option<&Unlock>) -> Result<Self> {
        let ring = match newer.open(scope, &self.kek) {
            Ok(ring) => ring,
            Err(error) => match unlock {
                Some(unlock) => newer.unlock(scope, unlock).await?,
                None => return Err(error),
            },
        };
        if ring.identity.expose() != self.identity.expose() {
            return Err(Error::damaged(key(newer.number), "it holds the keys of another repository"));
        }
        Ok(ring)
    }
}

/// The newest key ring of a repository.
pub(super) struct Newest {
    pub(super) stored: Stored,
    /// The highest number of any key ring that is there.
    pub(super) highest: u64,
}

/// Finds the newest key ring.
///
/// # Errors
/// [`Error::Damaged`], also when there is none; [`Error::UnsupportedVersion`], [`Error::UnsupportedFeature`],
/// [`Error::Storage`].
pub(super) async fn newest(storage: &dyn Storage, repository: RepositoryId) -> Result<Newest> {
    for _ in 0..ATTEMPTS {
        let numbers = numbers(storage).await?;
        let Some(&highest) = numbers.last() else { break };
        let mut gone = false;
        for &number in numbers.iter().rev() {
            match read(storage, number).await? {
                // One of another repository is what a creation that came too late left.
                Some(stored) if stored.repository != repository => {}
                Some(stored) => return Ok(Newest { stored, highest }),
                // Somebody made a newer one and removed this.
                None => {
                    gone = true;
                    break;
                }
            }
        }
        if !gone {
            break;
        }
    }
    Err(Error::damaged("keys", "no key ring of this repository is there"))
}

/// Reads a key ring or, when it is damaged, its copy; `None` when it is absent.
async fn read(storage: &dyn Storage, number: u64) -> Result<Option<Stored>> {
    let mut damage = None;
    for key in [key(number), copy_key(number)] {
        match read_one(storage, &key, number).await {
            Ok(stored) => return Ok(Some(stored)),
            Err(Error::Storage(StorageError { kind: StorageErrorKind::NotFound, .. })) => {}
            Err(error) if error.is_damage() => {
                tracing::warn!(%error, "a key ring is damaged");
                damage.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    damage.map_or(Ok(None), Err)
}

/// Reads one object that holds key ring `number`.
pub(super) async fn read_one(storage: &dyn Storage, key: &Key, number: u64) -> Result<Stored> {
    let stored = Stored::parse(key, &envelope::read_plain(storage, Kind::Keys, key).await?)?;
    if stored.number != number {
        return Err(Error::damaged(key, format!("it is key ring {}", stored.number)));
    }
    Ok(stored)
}

/// Lists the numbers of all key rings, in ascending order.
pub(super) async fn numbers(storage: &dyn Storage) -> Result<BTreeSet<u64>> {
    let listed: Vec<_> = storage.list("keys").try_collect().await?;
    Ok(listed.iter().filter_map(|object| number_of(&object.key)).collect())
}

/// Returns the number of a key ring or of a copy of one.
pub(super) fn number_of(key: &Key) -> Option<u64> {
    let name = key.file_name();
    let digits = name.strip_suffix(COPY).unwrap_or(name);
    let mut bytes = [0; 8];
    parse_hex(digits, &mut bytes)?;
    Some(u64::from_be_bytes(bytes))
}

/// Creates key ring `number`; tells whether that was done by this call.
///
/// # Errors
/// [`Error::Storage`] when it is not known to be there.
pub(super) async fn commit(storage: &dyn Storage, number: u64, body: &Bytes) -> Result<bool> {
    let error = match storage.put_new(&key(number), envelope::seal(Kind::Keys, body.clone())?).await {
        Ok(()) => return Ok(true),
        Err(error) => error,
    };
    // The answer may have been lost, or a storage that tries again met its own object.
    match envelope::read_plain(storage, Kind::Keys, &key(number)).await {
        Ok(found) if found == *body => Ok(true),
        _ if error.kind == StorageErrorKind::AlreadyExists => Ok(false),
        _ => Err(error.into()),
    }
}

/// Writes the copy of a key ring.
pub(super) async fn write_copy(storage: &dyn Storage, number: u64, body: &Bytes) -> Result<()> {
    Ok(storage.put(&copy_key(number), envelope::seal(Kind::Keys, body.clone())?).await?)
}

fn secret_of(bytes: &[u8]) -> SecretKey {
    let bytes = Zeroizing::new(<[u8; SecretKey::LEN]>::try_from(bytes).expect("the caller splits at its length"));
    SecretKey::new(*bytes)
}

fn binding(scope: Scope, number: u64) -> Vec<u8> {
    [&scope.repository.0[..], &number.to_le_bytes(), &scope.config].concat()
}

pub(super) fn key(number: u64) -> Key {
    Key::of(&["keys", &format!("{number:016x}")])
}

pub(super) fn copy_key(number: u64) -> Key {
    Key::of(&["keys", &format!("{number:016x}{COPY}")])
}

const COPY: &str = ".copy";
const CONTEXT: &str = "vsphere-backup 2026-11-22 format 1 key ring";
/// Number, time, key.
const GENERATION: usize = 12 + SecretKey::LEN;
const MAX_SLOTS: usize = 64;
const MAX_CHANGES: usize = 64;
/// How often a list of key rings is read again when one of it is gone.
const ATTEMPTS: usize = 5;
