//! Storages that refuse changes: by choice, or as a store with object lock does.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::TryStreamExt;

use super::{
    BoxFuture, Key, Storage, StorageError, StorageErrorKind,
    around::{Answer, Around, Kind, Operation, decorate, total},
    join,
};
use crate::clock::Clock;

/// A decorator that refuses every change with [`StorageErrorKind::PermissionDenied`].
#[derive(Debug)]
pub struct ReadOnly(Arc<dyn Storage>);

impl ReadOnly {
    /// Wraps `inner`.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self(inner)
    }
}

impl Around for ReadOnly {
    fn inner(&self) -> &dyn Storage {
        &*self.0
    }

    async fn around<'a, T: Answer>(
        &'a self,
        operation: Operation<'a>,
        mut attempt: impl FnMut() -> BoxFuture<'a, Result<T, StorageError>> + Send + 'a,
    ) -> Result<T, StorageError> {
        if operation.changes() {
            return Err(operation.failed(StorageErrorKind::PermissionDenied).because("the storage is read-only"));
        }
        attempt().await
    }
}

decorate!(ReadOnly);

/// A decorator that adds objects only: to delete one, or to replace it with other bytes, is refused
/// with [`StorageErrorKind::PermissionDenied`].
///
/// It binds who writes through it and nobody else; against a thief of credentials only the store's
/// own rules help.
#[derive(Debug)]
pub struct AppendOnly(Arc<dyn Storage>);

impl AppendOnly {
    /// Wraps `inner`.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self(inner)
    }
}

/// The one way in which a storage that must not replace an object takes a `put`: as a creation, or as nothing when the
/// object is there with the same bytes.
async fn put_once(inner: &dyn Storage, key: &Key, parts: Vec<Bytes>) -> Result<(), StorageError> {
    match inner.put_new(key, parts.clone()).await {
        Err(error) if error.kind == StorageErrorKind::AlreadyExists => match inner.get(key, total(&parts)).await {
            Ok(found) if found == join(&parts) => Ok(()),
            Err(error) if !matches!(error.kind, StorageErrorKind::TooLarge) => Err(error),
            _ => Err(StorageError::new(StorageErrorKind::PermissionDenied, "put", key)
                .because("the object is there with other bytes, and must not be replaced")),
        },
        other => other,
    }
}

impl Around for AppendOnly {
    fn inner(&self) -> &dyn Storage {
        &*self.0
    }

    async fn around<'a, T: Answer>(
        &'a self,
        operation: Operation<'a>,
        mut attempt: impl FnMut() -> BoxFuture<'a, Result<T, StorageError>> + Send + 'a,
    ) -> Result<T, StorageError> {
        if operation.kind == Kind::Delete {
            let refused = operation.failed(StorageErrorKind::PermissionDenied);
            return Err(refused.because("the storage only takes new objects"));
        }
        attempt().await
    }

    fn replacement<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(put_once(self.inner(), key, parts))
    }
}

decorate!(AppendOnly);

/// A decorator that behaves as a store with object lock does: until an object is so old, deleting
/// and replacing it is refused with [`StorageErrorKind::PermissionDenied`].
///
/// The age is taken from the listing of the inner storage; an object of unknown age is locked.
#[derive(Debug)]
pub struct ObjectLocked {
    inner: Arc<dyn Storage>,
    kept_for: Duration,
    clock: Clock,
}

impl ObjectLocked {
    /// Wraps `inner`: objects are locked for the time `kept_for` after they were written, by `clock`.
    pub fn new(inner: Arc<dyn Storage>, kept_for: Duration, clock: Clock) -> Self {
        Self { inner, kept_for, clock }
    }

    /// Returns until when an object is locked; `None` when it is not, or absent.
    async fn locked(&self, key: &str) -> Result<Option<String>, StorageError> {
        let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut listing = self.inner.list(folder);
        while let Some(object) = listing.try_next().await? {
            if object.key.as_str() != key {
                continue;
            }
            let Some(end) = object.modified.and_then(|modified| modified.checked_add(self.kept_for)) else {
                return Ok(Some("the object is locked for a time that is not known".into()));
            };
            let seconds = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            let locked = self.clock.now() < end;
            return Ok(locked.then(|| format!("the object is locked until {seconds} seconds after 1970")));
        }
        Ok(None)
    }
}

impl Around for ObjectLocked {
    fn inner(&self) -> &dyn Storage {
        &*self.inner
    }

    async fn around<'a, T: Answer>(
        &'a self,
        operation: Operation<'a>,
        mut attempt: impl FnMut() -> BoxFuture<'a, Result<T, StorageError>> + Send + 'a,
    ) -> Result<T, StorageError> {
        if operation.kind == Kind::Delete
            && let Some(reason) = self.locked(operation.key).await?
        {
            return Err(operation.failed(StorageErrorKind::PermissionDenied).because(reason));
        }
        attempt().await
    }

    fn replacement<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            match self.locked(key.as_str()).await? {
                Some(_) => put_once(self.inner(), key, parts).await,
                None => self.inner.put(key, parts).await,
            }
        })
    }
}

decorate!(ObjectLocked);
