//! A folder as storage.

use std::{io, ops::Range, path::PathBuf};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{GetOptions, GetRange, ObjectStore, PutMode, PutPayload, local::LocalFileSystem, path::Path};

use super::{BoxFuture, BoxStream, Key, ObjectInfo, Storage, StorageError, StorageErrorKind};
use crate::error::{Error, Result};

/// A [`Storage`] in a folder of a local file system (or of one that behaves so, such as NFS).
///
/// Objects are written beside their name and renamed or linked into place; file and folder are
/// synced before a write counts as done.
#[derive(Debug)]
pub struct LocalStorage {
    // Behind our own trait and not in any signature: object_store changes its API often.
    store: LocalFileSystem,
    root: PathBuf,
}

impl LocalStorage {
    /// Uses the folder `root`, which is created when it does not exist.
    ///
    /// # Errors
    /// [`Error::Storage`] when it cannot be created or opened.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        let failed = |kind, source: Box<dyn std::error::Error + Send + Sync>| {
            Error::Storage(StorageError::new(kind, "open", root.display()).because(source))
        };
        std::fs::create_dir_all(&root).map_err(|error| failed(io_kind(&error), error.into()))?;
        let store = LocalFileSystem::new_with_prefix(&root)
            .map_err(|error| failed(StorageErrorKind::Other, error.into()))?
            .with_fsync(true);
        Ok(Self { store, root })
    }

    async fn write(
        &self,
        operation: &'static str,
        key: &Key,
        parts: Vec<Bytes>,
        mode: PutMode,
    ) -> Result<(), StorageError> {
        let payload: PutPayload = parts.into_iter().collect();
        self.store
            .put_opts(&path(key), payload, mode.into())
            .await
            .map(drop)
            .map_err(|error| convert(operation, key.as_str(), error))
    }
}

impl Storage for LocalStorage {
    fn get<'a>(&'a self, key: &'a Key, limit: u64) -> BoxFuture<'a, Result<Bytes, StorageError>> {
        Box::pin(async move {
            let wrong = |error| convert("get", key.as_str(), error);
            let answer = self.store.get_opts(&path(key), GetOptions::default()).await.map_err(wrong)?;
            if answer.meta.size > limit {
                return Err(StorageError::new(StorageErrorKind::TooLarge, "get", key));
            }
            answer.bytes().await.map_err(wrong)
        })
    }

    fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, StorageError>> {
        Box::pin(async move {
            let short = || StorageError::new(StorageErrorKind::OutOfRange, "get range", key);
            if range.is_empty() {
                return if range.start == range.end { Ok(Bytes::new()) } else { Err(short()) };
            }
            let wrong = |error| convert("get range", key.as_str(), error);
            let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
            let answer = match self.store.get_opts(&path(key), options).await {
                Ok(answer) => answer,
                // A range that begins behind the end is an error of the store's own kind. So is what the operating
                // system says (no descriptors left, a disk that fails), which must not pass for a short object.
                Err(error @ object_store::Error::Generic { .. }) if find_io(&error).is_none() => return Err(short()),
                Err(error) => return Err(wrong(error)),
            };
            // A range that only ends behind the end is cut short in silence.
            if answer.range != range {
                return Err(short());
            }
            answer.bytes().await.map_err(wrong)
        })
    }

    fn put<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(self.write("put", key, parts, PutMode::Overwrite))
    }

    fn put_new<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(self.write("create", key, parts, PutMode::Create))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<ObjectInfo, StorageError>> {
        let below = (!prefix.is_empty()).then(|| Path::from(prefix));
        let found = self.store.list(below.as_ref());
        Box::pin(
            found
                .map_err(move |error| convert("list", prefix, error))
                // Names that are not ours (a stray file of the administrator) are not listed.
                .try_filter_map(|meta| async move {
                    let key = Key::parse(meta.location.as_ref()).ok();
                    let modified = Some(meta.last_modified.into());
                    Ok(key.map(|key| ObjectInfo { key, size: meta.size, modified }))
                }),
        )
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            let location = path(key);
            let one = stream::once(async move { Ok(location) }).boxed();
            match self.store.delete_stream(one).try_collect::<Vec<_>>().await {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(convert("delete", key.as_str(), error)),
            }
        })
    }

    fn location(&self) -> String {
        self.root.display().to_string()
    }
}

fn path(key: &Key) -> Path {
    Path::from(key.as_str())
}

fn convert(operation: &'static str, key: &str, error: object_store::Error) -> StorageError {
    use object_store::Error as Theirs;
    let kind = match &error {
        Theirs::NotFound { .. } => StorageErrorKind::NotFound,
        Theirs::AlreadyExists { .. } => StorageErrorKind::AlreadyExists,
        Theirs::PermissionDenied { .. } | Theirs::Unauthenticated { .. } => StorageErrorKind::PermissionDenied,
        other => find_io(other).map_or(StorageErrorKind::Other, io_kind),
    };
    StorageError::new(kind, operation, key).because(error)
}

fn find_io<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        next = error.source();
    }
    None
}

fn io_kind(error: &io::Error) -> StorageErrorKind {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StorageErrorKind::PermissionDenied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageErrorKind::Full,
        io::ErrorKind::TimedOut | io::ErrorKind::Interrupted | io::ErrorKind::StaleNetworkFileHandle => {
            StorageErrorKind::Unavailable
        }
        _ => StorageErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    #[tokio::test]
    async fn keeps_the_contract_of_storage() {
        let folder = tempfile::tempdir().unwrap();
        let storage = LocalStorage::open(folder.path().join("new")).unwrap();
        let (a, b) = (key("packs/ab/x"), key("points/vm/y"));

        assert_eq!(storage.get(&a, 10).await.unwrap_err().kind, StorageErrorKind::NotFound);
        storage.put(&a, vec![Bytes::from("012"), Bytes::from("345")]).await.unwrap();
        storage.put(&a, vec![Bytes::from("012345")]).await.unwrap();
        assert_eq!(storage.get(&a, 6).await.unwrap(), "012345");
        assert_eq!(storage.get(&a, 5).await.unwrap_err().kind, StorageErrorKind::TooLarge);
        assert_eq!(storage.get_range(&a, 2..4).await.unwrap(), "23");
        assert_eq!(storage.get_range(&a, 3..3).await.unwrap(), "");
        for short in [4..7, 6..7, 100..200] {
            let error = storage.get_range(&a, short).await.unwrap_err();
            assert_eq!(error.kind, StorageErrorKind::OutOfRange);
        }

        storage.put_new(&b, vec![Bytes::from("first")]).await.unwrap();
        let again = storage.put_new(&b, vec![Bytes::from("second")]).await.unwrap_err();
        assert_eq!(again.kind, StorageErrorKind::AlreadyExists);
        assert_eq!(storage.get(&b, 9).await.unwrap(), "first");

        let listed: Vec<_> = storage.list("packs").try_collect().await.unwrap();
        let age = listed[0].modified.unwrap().elapsed().unwrap_or_default();
        assert!(age < std::time::Duration::from_secs(60), "{age:?}");
        assert_eq!(listed, [ObjectInfo { key: a.clone(), size: 6, modified: listed[0].modified }]);
        assert_eq!(storage.list("").try_collect::<Vec<_>>().await.unwrap().len(), 2);
        assert_eq!(storage.list("none").try_collect::<Vec<_>>().await.unwrap().len(), 0);
        storage.delete(&a).await.unwrap();
        storage.delete(&a).await.unwrap();
        assert_eq!(storage.list("packs").try_collect::<Vec<_>>().await.unwrap().len(), 0);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_failure_of_the_operating_system_is_not_taken_for_a_short_object() {
        let folder = tempfile::tempdir().unwrap();
        let storage = LocalStorage::open(folder.path()).unwrap();
        // A link to itself cannot be opened: ELOOP stands for EMFILE and EIO, which tests cannot make.
        std::os::unix::fs::symlink("loop", folder.path().join("loop")).unwrap();
        let error = storage.get_range(&key("loop"), 0..10).await.unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Other, "{error:?}");
    }

    #[tokio::test]
    async fn a_file_that_a_crash_left_beside_its_name_is_not_listed() {
        let folder = tempfile::tempdir().unwrap();
        let storage = LocalStorage::open(folder.path()).unwrap();
        storage.put(&key("meta/a"), vec![Bytes::from("x")]).await.unwrap();
        std::fs::write(folder.path().join("meta/b#1"), "half").unwrap();
        std::fs::write(folder.path().join("meta/not ours"), "stray").unwrap();
        assert_eq!(storage.list("meta").try_collect::<Vec<_>>().await.unwrap().len(), 1);
    }
}
