//! The repository: recovery points that are full images and share their chunks.
//!
//! A disk is cut on a fixed grid into chunks, which are named by a keyed hash of their bytes,
//! gathered into packs and found through an index. What lies where on a disk is a tree of pages
//! ([`TreeRoot`]); an incremental backup rewrites the pages that its changes touch and shares the
//! rest with its parent. There are no chains to replay: every [`RecoveryPoint`] reads alike, and
//! each chunk is checked against its name before its bytes are used.
//!
//! ```
//! # tokio_test(async {
//! use vsphere_backup::repository::{CreateOptions, Repository};
//!
//! let folder = tempfile::tempdir()?;
//! Repository::create_local(folder.path(), CreateOptions::default()).await?;
//! let repository = Repository::open_local(folder.path()).await?;
//! assert!(repository.vms().await?.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # });
//! # fn tokio_test<T>(work: impl Future<Output = Result<T, Box<dyn std::error::Error>>>) {
//! #     tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work).unwrap();
//! # }
//! ```
//!
//! A repository can be encrypted when it is created, see [`keys`].
//!
//! The format is written down in `FORMAT.md` beside this crate's `Cargo.toml`.

pub mod keys;
pub mod storage;

mod calendar;
mod catalogue;
mod check;
mod cipher;
mod config;
mod copy;
mod damage;
mod deletion;
mod diff;
mod envelope;
mod fence;
mod fetch;
mod frame;
mod gc;
mod hex;
mod hold;
mod id;
mod index;
mod known;
pub(crate) mod lease;
mod manifest;
mod meta;
mod object;
mod open;
mod pack;
mod page;
mod pin;
mod point;
mod points;
mod prune;
mod reader;
mod repair;
pub(crate) mod restored;
mod retention;
mod set;
mod statistics;
mod tree;
mod verify;
mod writer;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, RwLock},
    time::SystemTime,
};

use self::{
    config::{Config, Draft},
    frame::Codec,
    index::Index,
    keys::{KeyHolder, Keys, Unlock},
    object::Objects,
    page::PageStore,
    storage::{LocalStorage, Storage},
};
use crate::error::{Error, Result};

#[cfg(test)]
pub(crate) use self::tree::TreeTotals;
pub use self::{
    catalogue::{Catalogue, NameSpan},
    check::{CheckCursor, CheckOptions, CheckProgress, CheckReport},
    config::CreateOptions,
    copy::{CopiedPoint, CopyOptions, CopyOutcome, CopyReport, Origin},
    gc::{GcLimits, GcOptions, GcReport, Tally},
    hold::Hold,
    id::{ChunkId, MetaId, PackId, PageId, PointId, RecipientKey, RepositoryId, SegmentId, SlotId, VmId},
    manifest::{BackupMode, Consistency, DiskBytes, DiskRecord, Fallback, LeftOut, Manifest, VmRecord},
    open::{Access, OpenOptions},
    pin::Pin,
    point::{PointWriter, RecoveryPoint},
    prune::{Fate, PruneReport, PrunedPoint},
    reader::{DiskReader, Extent, ExtentKind},
    repair::{RepairPlan, RepairReport, RepairStep},
    retention::{KeptBy, Retention, Rule},
    set::{Outcome as SetOutcome, SetRecord},
    statistics::{PointStatistics, Statistics, Volume},
    tree::TreeRoot,
    verify::{VerifyLevel, VerifyReport},
    writer::{Writer, WriterOptions, WriterTotals},
};
pub(crate) use self::{
    frame::is_zero,
    hex::{hex, random_name, unhex},
    id::random,
    manifest::MAX_CAPACITY,
    meta::{META_SALT, meta_key},
    page::{SLOTS, Slot},
    tree::{Leaf, Shape, Tree, TreeUpdate},
    writer::Run,
};

/// An opened repository. Clones share it; it is `Send` and `Sync`.
#[derive(Clone)]
pub struct Repository {
    inner: Arc<Inner>,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Repository({} at {})", self.id(), self.location())
    }
}

struct Inner {
    access: Access,
    objects: Objects,
    config: Config,
    codec: Codec,
    pages: PageStore,
    index: RwLock<Index>,
    /// Held while the index is loaded; `true` once it was.
    loaded: tokio::sync::Mutex<bool>,
}

impl Repository {
    /// Creates a repository in a local folder, which is created when it does not exist.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    ///
    /// # Cancel safety
    /// When dropped, the repository exists or does not.
    pub async fn create_local(root: impl Into<PathBuf>, options: CreateOptions) -> Result<Self> {
        Self::create(Arc::new(LocalStorage::open(root)?), options).await
    }

    /// Opens the repository in a local folder.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn open_local(root: impl Into<PathBuf>) -> Result<Self> {
        Self::open(existing_folder(root.into())?).await
    }

    /// Creates a repository in a storage.
    ///
    /// # Errors
    /// [`Error::RepositoryExists`], [`Error::Storage`], [`Error::Invalid`] for bad options, [`Error::KeyService`].
    ///
    /// # Cancel safety
    /// When dropped, the repository exists or does not.
    pub async fn create(storage: Arc<dyn Storage>, options: CreateOptions) -> Result<Self> {
        let (config, keys) = Config::create(&*storage, options).await?;
        Ok(Self::new(storage, config, keys.map(Arc::new)))
    }

    /// Opens the repository in a storage, which is not encrypted.
    ///
    /// # Errors
    /// [`Error::NotARepository`], [`Error::UnsupportedVersion`], [`Error::UnsupportedFeature`],
    /// [`Error::Encrypted`], [`Error::Damaged`], [`Error::Storage`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn open(storage: Arc<dyn Storage>) -> Result<Self> {
        let config = Draft::read(&*storage).await?.finish(&*storage, None)?;
        Ok(Self::new(storage, config, None))
    }

    /// Opens the encrypted repository in a storage.
    ///
    /// # Errors
    /// As [`open`](Self::open), and: [`Error::WrongKey`], [`Error::NoKeySlot`] when none of its slots is of this kind,
    /// [`Error::KeyService`]; [`Error::NotEncrypted`] when it is plain, so that nobody who believes to write
    /// encrypted data is mistaken.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn open_with(storage: Arc<dyn Storage>, unlock: Unlock) -> Result<Self> {
        let draft = Draft::read(&*storage).await?;
        let scope = draft.scope().ok_or_else(|| Error::NotEncrypted { location: storage.location() })?;
        let keys = Arc::new(KeyHolder::open(&*storage, scope, unlock).await?);
        let config = draft.finish(&*storage, Some(&keys))?;
        Ok(Self::new(storage, config, Some(keys)))
    }

    /// Opens the encrypted repository in a local folder.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn open_local_with(root: impl Into<PathBuf>, unlock: Unlock) -> Result<Self> {
        Self::open_with(existing_folder(root.into())?, unlock).await
    }

    /// Opens the repository again, with the keys in hand: nothing of what was read before is believed.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    async fn reopen(&self) -> Result<Self> {
        let storage = self.objects().storage().clone();
        let draft = Draft::read(&*storage).await?;
        let keys = self.objects().keys.clone();
        let expected = keys.as_ref().map(|keys| keys.scope());
        if draft.scope() != expected {
            return Err(Error::damaged(config::key(), "it is not the one that the keys are bound to"));
        }
        let config = draft.finish(&*storage, keys.as_deref())?;
        Ok(Self::new(storage, config, keys))
    }

    fn new(storage: Arc<dyn Storage>, config: Config, keys: Option<Arc<KeyHolder>>) -> Self {
        Self::over(Objects::new(storage, config.id, keys), config, Access::default())
    }

    fn over(objects: Objects, config: Config, access: Access) -> Self {
        let pages = PageStore::new(objects.clone(), config.keys.clone());
        Self {
            inner: Arc::new(Inner {
                access,
                objects,
                config,
                codec: Codec::default(),
                pages,
                index: RwLock::default(),
                loaded: tokio::sync::Mutex::new(false),
            }),
        }
    }

    /// Returns another view of the same repository, which knows nothing of the index yet.
    fn blank(&self) -> Self {
        self.with_access(self.access())
    }

    /// Returns another view of the same repository, for something else.
    fn with_access(&self, access: Access) -> Self {
        Self::over(self.objects().clone(), self.config().clone(), access)
    }

    /// Returns the repository's identity.
    pub fn id(&self) -> RepositoryId {
        self.inner.config.id
    }

    /// Tells whether the repository is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.objects().keys().is_some()
    }

    /// Returns the keys of an encrypted repository, to be listed and changed.
    ///
    /// # Errors
    /// [`Error::NotEncrypted`].
    pub fn keys(&self) -> Result<Keys> {
        match self.objects().keys() {
            Some(_) => Ok(Keys::new(self.clone())),
            None => Err(Error::NotEncrypted { location: self.location() }),
        }
    }

    /// Returns the size of chunks in bytes.
    pub fn chunk_size(&self) -> u32 {
        self.inner.config.chunk_size
    }

    /// Returns when the repository was created, in seconds since 1970, UTC.
    pub fn created(&self) -> u64 {
        self.inner.config.created
    }

    /// Returns where the repository is, for messages.
    pub fn location(&self) -> String {
        self.storage().location()
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        &**self.inner.objects.storage()
    }

    pub(crate) fn objects(&self) -> &Objects {
        &self.inner.objects
    }

    fn config(&self) -> &Config {
        &self.inner.config
    }

    fn codec(&self) -> &Codec {
        &self.inner.codec
    }

    pub(crate) fn pages(&self) -> &PageStore {
        &self.inner.pages
    }

    pub(crate) fn chunk_id(&self, plain: &[u8]) -> ChunkId {
        self.inner.config.keys.chunk(plain)
    }
}

fn existing_folder(root: PathBuf) -> Result<Arc<dyn Storage>> {
    if !root.is_dir() {
        return Err(Error::NotARepository { location: root.display().to_string() });
    }
    Ok(Arc::new(LocalStorage::open(root)?))
}

/// Returns seconds since 1970, UTC; 0 when the clock is before that.
pub(crate) fn now() -> u64 {
    now_micros() / 1_000_000
}

pub(crate) fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
