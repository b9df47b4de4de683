//! A folder as storage.

use std::{ops::Range, path::PathBuf, sync::Arc, time::SystemTime};

use bytes::Bytes;
use object_store::local::LocalFileSystem;

use super::{
    BoxFuture, BoxStream, Key, ObjectInfo, Storage, StorageError, StorageErrorKind,
    object::{Ability, ObjectStorage, io_kind},
    unfinished,
};
use crate::{
    error::{Error, Result},
    thread,
};

/// A [`Storage`] in a folder of a local file system (or of one that behaves so, such as NFS).
///
/// Objects are written beside their name and renamed or linked into place; file and folder are
/// synced before a write counts as done. What a crash leaves beside a name (`name#1`) is not listed, and
/// [removed](Storage::remove_unfinished) by collections of garbage.
///
/// Folders that are for one thing only, such as a lease's, go with the last object in them; others stay.
#[derive(Debug)]
pub struct LocalStorage {
    objects: ObjectStorage,
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
        let objects = ObjectStorage::new(Arc::new(store), root.display().to_string(), Ability::FOLDER);
        Ok(Self { objects, root })
    }

    /// Removes the folder of an object that was deleted, where it is empty and nobody but one ever writes to it: of
    /// leases alone there would be hundreds of thousands after a year, and each look at leases goes through all of them.
    async fn remove_folder_of(&self, key: &Key) {
        let Some((folder, _)) = key.as_str().rsplit_once('/') else { return };
        if !FLEETING.iter().any(|all| folder.strip_prefix(all).is_some_and(|one| one.starts_with('/'))) {
            return;
        }
        let path = self.root.join(folder);
        // Most often something else is in it.
        drop(thread::run("removing a folder", move || drop(std::fs::remove_dir(path))).await);
    }
}

impl Storage for LocalStorage {
    fn get<'a>(&'a self, key: &'a Key, limit: u64) -> BoxFuture<'a, Result<Bytes, StorageError>> {
        self.objects.get(key, limit)
    }

    fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, StorageError>> {
        self.objects.get_range(key, range)
    }

    fn put<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
        self.objects.put(key, parts)
    }

    fn put_new<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
        self.objects.put_new(key, parts)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<ObjectInfo, StorageError>> {
        self.objects.list(prefix)
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            self.objects.delete(key).await?;
            self.remove_folder_of(key).await;
            Ok(())
        })
    }

    fn remove_unfinished(&self, before: SystemTime) -> BoxFuture<'_, Result<u64, StorageError>> {
        Box::pin(async move {
            let root = self.root.clone();
            let failed = |kind| StorageError::new(kind, "remove unfinished", self.root.display());
            match thread::run("removing unfinished files", move || unfinished::remove(root, before)).await {
                Ok(Ok(removed)) => Ok(removed),
                Ok(Err(error)) => Err(failed(io_kind(&error)).because(error)),
                Err(error) => Err(failed(StorageErrorKind::Other).because(error)),
            }
        })
    }

    fn location(&self) -> String {
        self.objects.location()
    }
}

/// Below these, each folder is for one lease, one tombstone, or the holds of one point.
const FLEETING: [&str; 3] = ["leases", "tombs", "holds"];

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;

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

    #[tokio::test]
    async fn the_folder_of_a_lease_goes_with_its_last_object() {
        let folder = tempfile::tempdir().unwrap();
        let storage = LocalStorage::open(folder.path()).unwrap();
        for name in ["leases/a/0", "leases/a/1", "packs/ab/x"] {
            storage.put_new(&key(name), vec![Bytes::from("x")]).await.unwrap();
        }
        storage.delete(&key("leases/a/0")).await.unwrap();
        assert!(folder.path().join("leases/a").exists());
        storage.delete(&key("leases/a/1")).await.unwrap();
        storage.delete(&key("packs/ab/x")).await.unwrap();
        assert!(!folder.path().join("leases/a").exists() && folder.path().join("leases").exists());
        assert!(folder.path().join("packs/ab").exists());
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
