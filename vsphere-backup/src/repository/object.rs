//! The enveloped objects of a repository (everything but packs), and the keys that all its objects are under.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Result};

use super::{
    envelope::{self, Kind, Lock},
    frame::FrameCipher,
    id::{RepositoryId, random},
    keys::KeyHolder,
    pack::PackSeal,
    storage::{Key, Storage, StorageError, StorageErrorKind},
};

/// Reads and writes enveloped objects, encrypted when the repository is. Clones share the storage and the keys.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    storage: Arc<dyn Storage>,
    repository: RepositoryId,
    pub(super) keys: Option<Arc<KeyHolder>>,
}

impl Objects {
    pub(crate) fn new(storage: Arc<dyn Storage>, repository: RepositoryId, keys: Option<Arc<KeyHolder>>) -> Self {
        Self { storage, repository, keys }
    }

    /// Objects of a plain repository.
    #[cfg(test)]
    pub(crate) fn plain(storage: Arc<dyn Storage>) -> Self {
        Self::new(storage, RepositoryId([0; 16]), None)
    }

    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Returns the keys; `None` when the repository is not encrypted.
    pub(crate) fn keys(&self) -> Option<&KeyHolder> {
        self.keys.as_deref()
    }

    /// Learns of data keys that others made, so that what is written from now on is under the newest.
    ///
    /// # Errors
    /// What reading the keys returns.
    pub(crate) async fn refresh_keys(&self) -> Result<()> {
        match &self.keys {
            Some(keys) => keys.refresh(&*self.storage).await,
            None => Ok(()),
        }
    }

    /// Reads an object and takes it out of its envelope.
    ///
    /// # Errors
    /// [`Error::Damaged`], also when it is too large or encrypted where it must not be or the other way around,
    /// [`Error::UnsupportedVersion`], [`Error::UnsupportedFeature`], [`Error::UnknownDataKey`]; [`Error::Storage`],
    /// which is of kind `NotFound` when it is absent.
    pub(crate) async fn read(&self, kind: Kind, key: &Key) -> Result<Bytes> {
        let opened = envelope::read(&*self.storage, kind, key).await?;
        match &self.keys {
            Some(keys) if kind.is_encrypted() => {
                let generation = opened.generation();
                if generation == 0 {
                    return Err(Error::damaged(key, "it is not encrypted, as it has to be in this repository"));
                }
                let data_key = keys.data_key(&*self.storage, key, generation).await?;
                opened.decrypt(key, &Lock { repository: self.repository, generation, data_key })
            }
            _ => opened.plain(key),
        }
    }

    /// Writes an object whose name stands for its content: one of that name is replaced.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is larger than its kind may be, [`Error::Storage`].
    pub(crate) async fn put(&self, kind: Kind, key: &Key, body: Bytes) -> Result<()> {
        let sealed = self.seal(kind, key, body)?;
        Ok(self.storage.put(key, sealed).await?)
    }

    /// Writes an object that must not exist.
    ///
    /// # Errors
    /// As [`put`](Self::put); the storage's error is of kind `AlreadyExists` when it exists.
    pub(crate) async fn create(&self, kind: Kind, key: &Key, body: Bytes) -> Result<()> {
        let sealed = self.seal(kind, key, body)?;
        Ok(self.storage.put_new(key, sealed).await?)
    }

    fn seal(&self, kind: Kind, key: &Key, body: Bytes) -> Result<Vec<Bytes>> {
        match &self.keys {
            Some(keys) if kind.is_encrypted() => {
                let (generation, data_key) = keys.newest();
                envelope::encrypt(kind, key, body, &Lock { repository: self.repository, generation, data_key })
            }
            _ => envelope::seal(kind, body),
        }
    }

    /// Returns what makes a new pack one of its kind, and the cipher of its frames when the repository is encrypted.
    ///
    /// # Errors
    /// When the operating system has no random numbers.
    pub(crate) fn new_pack(&self) -> Result<(PackSeal, Option<FrameCipher>)> {
        let salt = random()?;
        Ok(match &self.keys {
            Some(keys) => {
                let (generation, data_key) = keys.newest();
                let cipher = FrameCipher::new(&data_key, &salt, self.repository);
                (PackSeal { generation, salt }, Some(cipher))
            }
            None => (PackSeal { generation: 0, salt }, None),
        })
    }

    /// Returns the cipher of a pack's frames; `None` when they are plain.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the pack is plain and must not be, or the other way around;
    /// [`Error::UnknownDataKey`], and what reading the keys returns.
    pub(crate) async fn pack_cipher(&self, pack: &Key, seal: PackSeal) -> Result<Option<FrameCipher>> {
        match (&self.keys, seal.generation) {
            (None, 0) => Ok(None),
            (None, _) => Err(Error::damaged(pack, "it is encrypted, and the repository is not")),
            (Some(_), 0) => Err(Error::damaged(pack, "it is not encrypted, as it has to be in this repository")),
            (Some(keys), generation) => {
                let data_key = keys.data_key(&*self.storage, pack, generation).await?;
                Ok(Some(FrameCipher::new(&data_key, &seal.salt, self.repository)))
            }
        }
    }
}

/// Tells whether an error says that there is no such object.
pub(crate) fn is_absent(error: &Error) -> bool {
    matches!(error, Error::Storage(StorageError { kind: StorageErrorKind::NotFound, .. }))
}

/// Tells whether an error says that the object exists already.
pub(crate) fn is_taken(error: &Error) -> bool {
    matches!(error, Error::Storage(StorageError { kind: StorageErrorKind::AlreadyExists, .. }))
}
