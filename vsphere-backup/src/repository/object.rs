//! The enveloped objects of a repository: everything but packs.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Result};

use super::{
    envelope::{self, Kind},
    storage::{Key, Storage, StorageError, StorageErrorKind},
};

/// Reads and writes enveloped objects. Clones share the storage.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    storage: Arc<dyn Storage>,
}

impl Objects {
    pub(crate) fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage }
    }

    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Reads an object and takes it out of its envelope.
    ///
    /// # Errors
    /// [`Error::Damaged`](crate::Error::Damaged), also when it is too large,
    /// [`Error::UnsupportedVersion`](crate::Error::UnsupportedVersion),
    /// [`Error::UnsupportedFeature`](crate::Error::UnsupportedFeature);
    /// [`Error::Storage`](crate::Error::Storage), which is of kind `NotFound` when it is absent.
    pub(crate) async fn read(&self, kind: Kind, key: &Key) -> Result<Bytes> {
        envelope::read(&*self.storage, kind, key).await
    }

    /// Writes an object whose name stands for its content: one of that name is replaced.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) when it is larger than its kind may be,
    /// [`Error::Storage`](crate::Error::Storage).
    pub(crate) async fn put(&self, kind: Kind, key: &Key, body: Bytes) -> Result<()> {
        let sealed = envelope::seal(kind, body)?;
        Ok(self.storage.put(key, sealed).await?)
    }

    /// Writes an object that must not exist.
    ///
    /// # Errors
    /// As [`put`](Self::put); the storage's error is of kind `AlreadyExists` when it exists.
    pub(crate) async fn create(&self, kind: Kind, key: &Key, body: Bytes) -> Result<()> {
        let sealed = envelope::seal(kind, body)?;
        Ok(self.storage.put_new(key, sealed).await?)
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
