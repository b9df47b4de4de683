//! Opening a repository for less than everything.

use std::{path::PathBuf, sync::Arc};

use crate::error::{Error, Result};

use super::{
    Repository, existing_folder,
    keys::Unlock,
    storage::{AppendOnly, Key, ReadOnly, Storage, StorageError, StorageErrorKind},
};

/// What an opened repository is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Access {
    /// Everything.
    #[default]
    ReadWrite,
    /// Restores, checks, instant access. Nothing is written, so nothing can be pinned: what is pruned and collected
    /// meanwhile may vanish while it is read.
    ReadOnly,
    /// Backups too. Nothing is deleted: points stay, leases that ended stay until somebody with all access collects
    /// garbage. It binds this process; against a thief of its credentials only the store's own rules help.
    AppendOnly,
}

/// How a repository is opened.
///
/// ```no_run
/// # use vsphere_backup::repository::{Access, OpenOptions, keys::Unlock};
/// # async fn example() -> vsphere_backup::Result<()> {
/// let options = OpenOptions::new().access(Access::ReadOnly).unlock(Unlock::password("secret"));
/// let repository = options.open_local("/backup").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct OpenOptions {
    access: Access,
    unlock: Option<Unlock>,
}

impl OpenOptions {
    /// Everything is allowed, of a repository that is not encrypted.
    pub fn new() -> Self {
        Self::default()
    }

    /// States what the repository is opened for.
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Opens an encrypted repository.
    pub fn unlock(mut self, unlock: Unlock) -> Self {
        self.unlock = Some(unlock);
        self
    }

    /// Opens the repository in a storage.
    ///
    /// # Errors
    /// As [`Repository::open`], with a key as [`Repository::open_with`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn open(self, storage: Arc<dyn Storage>) -> Result<Repository> {
        let storage: Arc<dyn Storage> = match self.access {
            Access::ReadWrite => storage,
            Access::ReadOnly => Arc::new(ReadOnly::new(storage)),
            Access::AppendOnly => Arc::new(AppendOnly::new(storage)),
        };
        let repository = match self.unlock {
            Some(unlock) => Repository::open_with(storage, unlock).await?,
            None => Repository::open(storage).await?,
        };
        Ok(repository.with_access(self.access))
    }

    /// Opens the repository in a local folder.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn open_local(self, root: impl Into<PathBuf>) -> Result<Repository> {
        self.open(existing_folder(root.into())?).await
    }
}

impl Repository {
    /// Returns what the repository was opened for.
    pub fn access(&self) -> Access {
        self.inner.access
    }

    /// Refuses to delete where that is not what the repository was opened for: before anything is written, so that no
    /// other process takes the attempt for a deletion that was cut short, and ends it.
    pub(super) fn may_delete(&self, key: &Key) -> Result<()> {
        if self.access() == Access::ReadWrite {
            return Ok(());
        }
        let refused = StorageError::new(StorageErrorKind::PermissionDenied, "delete", key);
        Err(Error::Storage(refused.because(format!("the repository was opened as {:?}", self.access()))))
    }
}
