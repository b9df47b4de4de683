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

mod cipher;
mod config;
mod deletion;
mod envelope;
mod fence;
mod frame;
mod gc;
mod hashes;
mod hold;
mod housekeeping;
mod id;
mod index;
mod lease;
mod manifest;
mod object;
mod pack;
mod page;
mod pin;
mod point;
mod prune;
mod reader;
mod restored;
mod retention;
mod tree;
mod verify;
mod writer;

use std::{
    collections::BTreeSet,
    fmt,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use bytes::Bytes;
use futures_util::TryStreamExt;

use self::{
    config::{Config, Draft},
    envelope::Kind,
    frame::Codec,
    gc::Condemned,
    index::Index,
    keys::{KeyHolder, Keys, Unlock},
    lease::{
        Lease,
        record::{Purpose, Roots},
    },
    object::Objects,
    pack::PackEntries,
    page::PageStore,
    storage::{Key, LocalStorage, Storage, StorageError, StorageErrorKind},
};
use crate::error::{Error, Result};

#[cfg(test)]
pub(crate) use self::tree::TreeTotals;
pub use self::{
    config::CreateOptions,
    gc::{GcLimits, GcOptions, GcReport, Tally},
    hold::Hold,
    id::{ChunkId, MetaId, PackId, PageId, PointId, RecipientKey, RepositoryId, SegmentId, SlotId, VmId},
    manifest::{BackupMode, Consistency, DiskBytes, DiskRecord, Fallback, LeftOut, Manifest, VmRecord},
    pin::Pin,
    point::{PointWriter, RecoveryPoint},
    prune::{Fate, PruneReport, PrunedPoint},
    reader::{DiskReader, Extent, ExtentKind},
    retention::{KeptBy, Retention, Rule},
    tree::TreeRoot,
    verify::{CheckReport, VerifyLevel, VerifyReport},
    writer::{Writer, WriterOptions, WriterTotals},
};
pub(crate) use self::{
    frame::is_zero,
    id::random,
    manifest::MAX_CAPACITY,
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
        Self::over(Objects::new(storage, config.id, keys), config)
    }

    fn over(objects: Objects, config: Config) -> Self {
        let pages = PageStore::new(objects.clone(), config.keys.clone());
        Self {
            inner: Arc::new(Inner {
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
        Self::over(self.objects().clone(), self.config().clone())
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

    /// Lists the virtual machines that have recovery points.
    ///
    /// # Errors
    /// [`Error::Storage`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn vms(&self) -> Result<BTreeSet<VmId>> {
        Ok(self.list_points("points").await?.into_iter().map(|id| id.vm().clone()).collect())
    }

    /// Lists the recovery points of a virtual machine, the oldest first.
    ///
    /// Only committed points are listed, by name; a point's content is checked when it is opened.
    ///
    /// # Errors
    /// [`Error::Storage`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn points(&self, vm: &VmId) -> Result<Vec<PointId>> {
        self.list_points(&format!("points/{vm}")).await
    }

    async fn list_points(&self, prefix: &str) -> Result<Vec<PointId>> {
        let mut found = Vec::new();
        let mut listing = self.storage().list(prefix);
        while let Some(object) = listing.try_next().await? {
            if object.size == fence::SIZE {
                continue;
            }
            let id = object.key.as_str().strip_prefix("points/").map(PointId::parse);
            match id {
                Some(Ok(id)) => found.push(id),
                _ => tracing::warn!(object = %object.key, "not a recovery point's name"),
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Opens a recovery point, having checked its manifest.
    ///
    /// # Errors
    /// [`Error::PointNotFound`], [`Error::Damaged`], [`Error::UnsupportedVersion`],
    /// [`Error::UnsupportedFeature`], [`Error::Storage`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn point(&self, id: &PointId) -> Result<RecoveryPoint> {
        let body = match self.objects().read(Kind::Point, &id.key()).await {
            Ok(body) => body,
            Err(Error::Storage(StorageError { kind: StorageErrorKind::NotFound, .. })) => {
                return Err(Error::PointNotFound { point: id.clone() });
            }
            Err(error) if error.is_damage() && fence::stands(self.storage(), id).await? => {
                return Err(Error::PointNotFound { point: id.clone() });
            }
            Err(error) => return Err(error),
        };
        let manifest = Manifest::decode(&body, id, self.id())?;
        Ok(RecoveryPoint::new(self.clone(), manifest))
    }

    /// Opens the newest recovery point of a virtual machine whose manifest is sound, if any.
    ///
    /// # Errors
    /// [`Error::Storage`]; [`Error::UnsupportedVersion`] and [`Error::UnsupportedFeature`] of the
    /// newest point.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn latest(&self, vm: &VmId) -> Result<Option<RecoveryPoint>> {
        self.newest(vm, |_| true).await
    }

    /// Opens the newest recovery point of a virtual machine whose manifest is sound and of which every disk was read in
    /// full, if any.
    ///
    /// # Errors
    /// As [`latest`](Self::latest).
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn latest_full(&self, vm: &VmId) -> Result<Option<RecoveryPoint>> {
        self.newest(vm, |point| point.disks().iter().all(|disk| disk.mode == BackupMode::Full)).await
    }

    async fn newest(&self, vm: &VmId, suits: impl Fn(&RecoveryPoint) -> bool) -> Result<Option<RecoveryPoint>> {
        for id in self.points(vm).await?.iter().rev() {
            match self.point(id).await {
                Ok(point) if suits(&point) => return Ok(Some(point)),
                Ok(_) => {}
                Err(error) if error.is_damage() => {
                    tracing::warn!(point = %id, %error, "passed over a damaged recovery point");
                }
                Err(Error::PointNotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Begins a new recovery point of a virtual machine, which becomes visible when it is
    /// committed.
    ///
    /// Takes a lease for writing, which is renewed until the point is committed or dropped. A writer that does not
    /// renew it in time ([`WriterOptions::lease`]) may be declared dead, and then cannot commit.
    ///
    /// # Errors
    /// Those of loading the index: [`Error::Storage`], [`Error::UnsupportedVersion`].
    ///
    /// # Cancel safety
    /// When dropped, a lease may be left, which ends by its time to live.
    pub async fn begin(&self, vm: VmRecord, consistency: Consistency, options: WriterOptions) -> Result<PointWriter> {
        // Others may have rotated keys.
        self.objects().refresh_keys().await?;
        let micros = self.next_micros(&vm.instance_uuid).await?;
        let id = PointId::new(vm.instance_uuid.clone(), micros)?;
        let purpose = Purpose::Write { point: id.clone() };
        let lease = Lease::begin(self.objects(), purpose, Roots::default(), options.lease).await?;
        // Again for each point: others write too, and what is gone must be stored again.
        if let Err(error) = self.refresh_index_to_write().await {
            lease.release().await;
            return Err(error);
        }
        Ok(PointWriter::new(self.clone(), id, vm, consistency, options, lease))
    }

    /// Stores a small object of at most 16 MiB and returns its identity.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is too large, [`Error::Storage`].
    ///
    /// # Cancel safety
    /// When dropped, the object is stored or not.
    pub async fn put_meta(&self, body: Bytes) -> Result<MetaId> {
        // The salt makes the object one of its kind: the same bytes stored again get another name.
        let salt: [u8; META_SALT] = random()?;
        let body = Bytes::from([&salt, &*body].concat());
        let id = self.inner.config.keys.meta(&body);
        self.objects().put(Kind::Meta, &meta_key(id), body).await?;
        Ok(id)
    }

    /// Reads a small object, checked against its identity.
    ///
    /// # Errors
    /// [`Error::Damaged`], also when it is absent; [`Error::Storage`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn meta(&self, id: MetaId) -> Result<Bytes> {
        let key = meta_key(id);
        let body = match self.objects().read(Kind::Meta, &key).await {
            Err(Error::Storage(StorageError { kind: StorageErrorKind::NotFound, .. })) => {
                return Err(Error::damaged(key, "it is absent"));
            }
            other => other?,
        };
        if body.len() < META_SALT || self.inner.config.keys.meta(&body) != id {
            return Err(Error::damaged(key, "its content does not match its name"));
        }
        Ok(body.slice(META_SALT..))
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

    /// Loads the chunk index unless that was done before.
    pub(crate) async fn load_index(&self) -> Result<()> {
        let mut loaded = self.inner.loaded.lock().await;
        if !*loaded {
            self.load_new_segments(None).await?;
            *loaded = true;
        }
        Ok(())
    }

    /// Loads what other writers added to the chunk index since, and forgets packs that are gone.
    pub(crate) async fn refresh_index(&self) -> Result<()> {
        let mut loaded = self.inner.loaded.lock().await;
        self.load_new_segments(None).await?;
        *loaded = true;
        Ok(())
    }

    /// As [`refresh_index`](Self::refresh_index), and notes which packs must not be relied on. To be called by a
    /// holder of a lease for writing.
    async fn refresh_index_to_write(&self) -> Result<()> {
        // One lock around both: what is condemned is never replaced by what was read of tombstones earlier.
        let mut loaded = self.inner.loaded.lock().await;
        // In this order: a tombstone goes after what it names, so what is in neither list is not there.
        let condemned = Condemned::read(self.objects()).await?;
        self.load_new_segments(Some(condemned)).await?;
        *loaded = true;
        Ok(())
    }

    async fn load_new_segments(&self, condemned: Option<Condemned>) -> Result<()> {
        let known = self.read_index().known();
        let mut found = index::load(self.objects(), &known).await?;
        let lost = found.lost;
        if lost > 0 {
            // Their chunks must not count as known, or new points would be built on them; some may be in other packs.
            tracing::warn!(packs = lost, "packs are gone or have another size: the chunk index is loaded afresh");
            found = index::load(self.objects(), &Default::default()).await?;
        }
        for error in &found.damage {
            tracing::warn!(%error, "damage met while the chunk index was loaded");
        }
        let mut index = self.write_index();
        if lost > 0 {
            index.clear();
        }
        // In one step with what was loaded: a pack that is no longer condemned may be gone.
        if let Some(condemned) = condemned {
            index.condemn(condemned);
        }
        found.merge_into(&mut index);
        Ok(())
    }

    fn knows_chunk(&self, id: &ChunkId) -> bool {
        self.read_index().contains(id)
    }

    /// Tells whether what an earlier writer stored and did not commit may be deleted although somebody relies on it: there
    /// was a tombstone when the newest writer began, and nothing reachable protects what it may name.
    pub(crate) fn may_lose_uncommitted(&self) -> bool {
        self.read_index().has_condemned()
    }

    fn may_reuse_chunk(&self, id: &ChunkId) -> bool {
        self.read_index().may_reuse(id)
    }

    fn add_to_index(&self, segment: SegmentId, packs: &[PackEntries]) {
        let mut index = self.write_index();
        packs.iter().for_each(|pack| index.add(pack));
        index.note_segment(segment);
    }

    // Writers of the index only add; after a panic it is whole but for what was being added.
    fn read_index(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.inner.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_index(&self) -> std::sync::RwLockWriteGuard<'_, Index> {
        self.inner.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn existing_folder(root: PathBuf) -> Result<Arc<dyn Storage>> {
    if !root.is_dir() {
        return Err(Error::NotARepository { location: root.display().to_string() });
    }
    Ok(Arc::new(LocalStorage::open(root)?))
}

fn meta_key(id: MetaId) -> Key {
    Key::of(&["meta", &id.to_string()])
}

/// Bytes of the salt before the bytes of a small object.
pub(crate) const META_SALT: usize = 16;

/// Returns seconds since 1970, UTC; 0 when the clock is before that.
pub(crate) fn now() -> u64 {
    now_micros() / 1_000_000
}

fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
