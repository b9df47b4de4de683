//! A storage in memory, for tests.

use std::{collections::BTreeMap, ops::Range, sync::RwLock, time::SystemTime};

use bytes::Bytes;
use futures_util::stream;

use crate::clock::Clock;

use super::{BoxFuture, BoxStream, Key, ObjectInfo, Storage, StorageError, StorageErrorKind, join};

/// A [`Storage`] in memory: for tests and for trying things out. Nothing is kept when it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    objects: RwLock<BTreeMap<Key, Object>>,
    clock: Clock,
}

#[derive(Clone, Debug)]
struct Object {
    bytes: Bytes,
    modified: SystemTime,
}

impl MemoryStorage {
    /// Makes an empty storage.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an empty storage whose objects are dated by `clock`.
    pub fn with_clock(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }

    /// Returns the names of all objects, in order.
    pub fn keys(&self) -> Vec<Key> {
        self.read().keys().cloned().collect()
    }

    /// Returns the bytes of an object.
    pub fn object(&self, key: &Key) -> Option<Bytes> {
        self.read().get(key).map(|object| object.bytes.clone())
    }

    /// Replaces the bytes of an object, as damage on a disk would, or removes it.
    pub fn tamper(&self, key: &Key, bytes: Option<Bytes>) {
        let mut objects = self.write();
        match bytes {
            Some(bytes) => objects.insert(key.clone(), self.dated(bytes)),
            None => objects.remove(key),
        };
    }

    fn dated(&self, bytes: Bytes) -> Object {
        Object { bytes, modified: self.clock.now() }
    }

    // A panic of another holder leaves the map whole: each holder makes one change.
    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Key, Object>> {
        self.objects.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<Key, Object>> {
        self.objects.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Storage for MemoryStorage {
    fn get<'a>(&'a self, key: &'a Key, limit: u64) -> BoxFuture<'a, Result<Bytes, StorageError>> {
        Box::pin(async move {
            let bytes = self.object(key).ok_or_else(|| StorageError::new(StorageErrorKind::NotFound, "get", key))?;
            if bytes.len() as u64 > limit {
                return Err(StorageError::new(StorageErrorKind::TooLarge, "get", key));
            }
            Ok(bytes)
        })
    }

    fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, StorageError>> {
        Box::pin(async move {
            let bytes =
                self.object(key).ok_or_else(|| StorageError::new(StorageErrorKind::NotFound, "get range", key))?;
            if range.start > range.end || range.end > bytes.len() as u64 {
                return Err(StorageError::new(StorageErrorKind::OutOfRange, "get range", key));
            }
            Ok(bytes.slice(range.start as usize..range.end as usize))
        })
    }

    fn put<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            self.write().insert(key.clone(), self.dated(join(&parts)));
            Ok(())
        })
    }

    fn put_new<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            let mut objects = self.write();
            if objects.contains_key(key) {
                return Err(StorageError::new(StorageErrorKind::AlreadyExists, "create", key));
            }
            objects.insert(key.clone(), self.dated(join(&parts)));
            Ok(())
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<ObjectInfo, StorageError>> {
        let found: Vec<_> = self
            .read()
            .iter()
            .filter(|(key, _)| key.is_below(prefix))
            .map(|(key, object)| {
                let (size, modified) = (object.bytes.len() as u64, Some(object.modified));
                Ok(ObjectInfo { key: key.clone(), size, modified })
            })
            .collect();
        Box::pin(stream::iter(found))
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            self.write().remove(key);
            Ok(())
        })
    }

    fn location(&self) -> String {
        "memory".into()
    }
}
