//! The keys of an opened repository, kept up to date with what others change.

use std::sync::{Arc, PoisonError, RwLock};

use futures_util::TryStreamExt;

use crate::{
    error::{Error, Result},
    repository::{
        id::SlotId,
        storage::{Key, Storage, StorageError, StorageErrorKind},
    },
};

use super::{
    keyring::{self, Change, Keyring, Scope},
    source::{KeySource, SecretKey, Unlock},
};

/// The keys of an opened repository. Shared by its clones.
#[derive(Debug)]
pub(crate) struct KeyHolder {
    scope: Scope,
    /// By what to open a key ring whose key-encryption key is another one now.
    unlock: Option<Unlock>,
    ring: RwLock<Arc<Keyring>>,
}

/// What a change of the keys did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyChange {
    /// The slots that are new.
    pub added: Vec<SlotId>,
    /// Objects that could not be removed although they hold older keys wrapped in older slots: what was removed still
    /// opens them. The next change tries again.
    pub left: Vec<Key>,
}

impl KeyHolder {
    /// Makes the keys of a new repository and stores them, with the number of their key ring.
    pub(crate) async fn create(storage: &dyn Storage, scope: Scope, sources: &[KeySource]) -> Result<(Self, u64)> {
        let mut ring = Keyring::new(scope, sources).await?;
        for _ in 0..ATTEMPTS {
            // Others may try to create a repository at the same place: `config` decides whose this is.
            ring.number = keyring::numbers(storage).await?.last().map_or(1, |highest| highest.saturating_add(1));
            let body = ring.encode(scope)?;
            if keyring::commit(storage, ring.number, &body).await? {
                keyring::write_copy(storage, ring.number, &body).await?;
                let (number, unlock) = (ring.number, sources.iter().find_map(KeySource::unlock));
                return Ok((Self { scope, unlock, ring: RwLock::new(Arc::new(ring)) }, number));
            }
        }
        Err(contended())
    }

    /// Removes what [`create`](Self::create) stored: another one was first.
    pub(crate) async fn withdraw(storage: &dyn Storage, number: u64) {
        for key in [keyring::copy_key(number), keyring::key(number)] {
            if let Err(error) = storage.delete(&key).await {
                tracing::warn!(%error, "a key ring that belongs to nothing could not be removed");
            }
        }
    }

    /// Opens the keys of a repository.
    pub(crate) async fn open(storage: &dyn Storage, scope: Scope, unlock: Unlock) -> Result<Self> {
        let newest = keyring::newest(storage, scope.repository).await?;
        let ring = newest.stored.unlock(scope, &unlock).await?;
        Ok(Self { scope, unlock: Some(unlock), ring: RwLock::new(Arc::new(ring)) })
    }

    pub(crate) fn scope(&self) -> Scope {
        self.scope
    }

    /// Returns the secret behind identities.
    pub(crate) fn identity(&self) -> SecretKey {
        self.ring().identity.clone()
    }

    /// Returns the generation and the data key for what is written from now on.
    pub(crate) fn newest(&self) -> (u32, SecretKey) {
        let ring = self.ring();
        let newest = ring.newest();
        (newest.number, newest.key.clone())
    }

    /// Returns the data key of a generation; one that is not known yet is looked for in the storage.
    ///
    /// # Errors
    /// [`Error::UnknownDataKey`], and what reading the keys returns.
    pub(crate) async fn data_key(&self, storage: &dyn Storage, object: &Key, generation: u32) -> Result<SecretKey> {
        let known = |ring: &Keyring| ring.generation(generation).map(|generation| generation.key.clone());
        if let Some(key) = known(&self.ring()) {
            return Ok(key);
        }
        self.refresh(storage).await?;
        known(&self.ring()).ok_or_else(|| Error::UnknownDataKey { object: object.to_string(), generation })
    }

    /// Reads the keys again when others changed them.
    pub(crate) async fn refresh(&self, storage: &dyn Storage) -> Result<()> {
        let ring = self.ring();
        if keyring::numbers(storage).await?.last() == Some(&ring.number) {
            return Ok(());
        }
        let newest = keyring::newest(storage, self.scope.repository).await?;
        if newest.stored.number != ring.number {
            self.set(ring.follow(self.scope, &newest.stored, self.unlock.as_ref()).await?);
        }
        Ok(())
    }

    /// Makes a change, beside whatever others change.
    pub(super) async fn change(&self, storage: &dyn Storage, change: &Change) -> Result<KeyChange> {
        for _ in 0..ATTEMPTS {
            let newest = keyring::newest(storage, self.scope.repository).await?;
            let mut ring = (*self.ring()).clone();
            if newest.stored.number != ring.number {
                ring = ring.follow(self.scope, &newest.stored, self.unlock.as_ref()).await?;
            }
            let (mut next, added) = ring.changed(self.scope, change).await?;
            let full = || Error::invalid("the key rings' numbers are used up");
            next.number = newest.highest.checked_add(1).ok_or_else(full)?;
            let body = next.encode(self.scope)?;
            if !keyring::commit(storage, next.number, &body).await? || !self.holds(storage, &next).await? {
                continue;
            }
            let number = next.number;
            self.set(next);
            let left = match keyring::write_copy(storage, number, &body).await {
                Ok(()) => remove_older(storage, ring.number, number).await,
                Err(error) => {
                    // The change is made. What is older stays: it is the second copy of all older keys.
                    tracing::warn!(%error, "the copy of a key ring could not be written");
                    older(storage, ring.number, number).await
                }
            };
            return Ok(KeyChange { added, left });
        }
        Err(contended())
    }

    /// Tells whether a key ring that was created is the newest, or one that the newest was made of. It is neither when
    /// others were faster by more than one change, so that its name was free again.
    async fn holds(&self, storage: &dyn Storage, made: &Keyring) -> Result<bool> {
        let newest = keyring::newest(storage, self.scope.repository).await?;
        let change = made.changes.last().expect("every change is noted");
        if newest.stored.changes.contains(change) {
            return Ok(true);
        }
        storage.delete(&keyring::key(made.number)).await?;
        Ok(false)
    }

    /// Reads the newest key ring and its copy and returns what is damaged.
    pub(crate) async fn check(&self, storage: &dyn Storage) -> Result<Vec<Error>> {
        let newest = match keyring::newest(storage, self.scope.repository).await {
            Err(error) if error.is_damage() => return Ok(vec![error]),
            other => other?.stored.number,
        };
        let mut damage = Vec::new();
        for key in [keyring::key(newest), keyring::copy_key(newest)] {
            let ring = match keyring::read_one(storage, &key, newest).await {
                Ok(stored) => self.ring().follow(self.scope, &stored, self.unlock.as_ref()).await.map(drop),
                Err(Error::Storage(error)) if error.kind == StorageErrorKind::NotFound => {
                    Err(Error::damaged(&key, "it is absent"))
                }
                Err(error) => Err(error),
            };
            match ring {
                Ok(()) => {}
                Err(error) if error.is_damage() => damage.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok(damage)
    }

    pub(super) fn ring(&self) -> Arc<Keyring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, ring: Keyring) {
        let mut held = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        if held.number < ring.number {
            *held = Arc::new(ring);
        }
    }
}

/// Removes all key rings below `number`; returns those that stay.
async fn remove_older(storage: &dyn Storage, previous: u64, number: u64) -> Vec<Key> {
    let mut left = Vec::new();
    for key in older(storage, previous, number).await {
        if let Err(error) = storage.delete(&key).await {
            tracing::warn!(%error, "an older key ring could not be removed");
            left.push(key);
        }
    }
    left
}

/// Returns the key rings below `number`, and their copies; when they cannot be listed, those of the previous one.
async fn older(storage: &dyn Storage, previous: u64, number: u64) -> Vec<Key> {
    match storage.list("keys").try_collect::<Vec<_>>().await {
        Ok(listed) => {
            let below = |key: &Key| keyring::number_of(key).is_some_and(|other| other < number);
            listed.into_iter().map(|object| object.key).filter(below).collect()
        }
        Err(error) => {
            tracing::warn!(%error, "older key rings could not be listed");
            vec![keyring::key(previous), keyring::copy_key(previous)]
        }
    }
}

fn contended() -> Error {
    StorageError::new(StorageErrorKind::Unavailable, "change", "keys")
        .because("others change the keys all the time")
        .into()
}

const ATTEMPTS: usize = 16;
