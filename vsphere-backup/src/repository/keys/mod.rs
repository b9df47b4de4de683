//! The keys of an encrypted repository.
//!
//! All data is encrypted under *data keys*, of which there is one generation after the other. They are sealed under
//! one *key-encryption key*, and that is wrapped in *slots*: one for each password, key file, recipient or key service
//! that opens the repository. So slots come and go, and data keys are rotated, without rewriting any data.
//!
//! ```
//! # tokio_test(async {
//! use vsphere_backup::repository::{
//!     CreateOptions, Repository,
//!     keys::{KeySource, PasswordCost, RecipientSecret, Unlock},
//! };
//!
//! let folder = tempfile::tempdir()?;
//! # let cost = PasswordCost::new(64, 1, 1)?;
//! let password = KeySource::password("correct horse").label("ops");
//! # let password = password.cost(cost);
//! Repository::create_local(folder.path(), CreateOptions::default().encrypted(password)).await?;
//!
//! let repository = Repository::open_local_with(folder.path(), Unlock::password("correct horse")).await?;
//! // A recipient's secret stays in the safe; only its public part is needed here.
//! let recipient = RecipientSecret::generate()?;
//! repository.keys()?.add(KeySource::recipient(recipient.public()).label("safe")).await?;
//! // From now on, new data is under a new key.
//! repository.keys()?.rotate_data_key().await?;
//!
//! let repository = Repository::open_local_with(folder.path(), Unlock::recipient(recipient)).await?;
//! assert_eq!(repository.keys()?.slots().await?.len(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # });
//! # fn tokio_test<T>(work: impl Future<Output = Result<T, Box<dyn std::error::Error>>>) {
//! #     tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work).unwrap();
//! # }
//! ```
//!
//! # What removing a slot means
//! A slot that was removed opens nothing any more. But who used it before may have kept the key that was in it:
//! [`rotate_key_encryption_key`](Keys::rotate_key_encryption_key) makes that key useless for the stored key rings, and
//! [`rotate_data_key`](Keys::rotate_data_key) protects what is written from then on. Nothing takes back what somebody
//! could read and copy before.

mod holder;
mod keyring;
mod slot;
mod source;

use crate::error::{Error, Result};

use super::{
    Repository,
    id::{RecipientKey, SlotId},
};

pub use self::{
    holder::KeyChange,
    source::{KeyService, KeySource, PasswordCost, RecipientSecret, SecretKey, Unlock},
};
pub(crate) use self::{holder::KeyHolder, keyring::Scope};
use self::{
    keyring::Change,
    slot::{Content, Slot},
};

/// The keys of an opened encrypted repository, out of [`Repository::keys`].
///
/// Each change is one exclusive create: after a crash it was made or not. Several processes may change keys at once,
/// beside running backups; a backup that runs goes on with the data key with which it began.
#[derive(Clone, Debug)]
pub struct Keys {
    repository: Repository,
}

/// A key slot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotInfo {
    /// Its identity.
    pub id: SlotId,
    /// What people call it.
    pub label: String,
    /// When it was made, seconds since 1970, UTC.
    pub created: u64,
    /// What opens it.
    pub kind: SlotKind,
}

/// What opens a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotKind {
    /// A password, at this cost.
    Password(PasswordCost),
    /// A key file.
    KeyFile,
    /// The secret of this public key.
    Recipient(RecipientKey),
    /// The key service of this name.
    Service(String),
    /// Something that this release does not know, or a slot that is not as it has to be.
    Other(String),
}

/// A generation of the data key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DataKeyInfo {
    /// Its number; the highest is the one in use.
    pub generation: u32,
    /// When it was made, seconds since 1970, UTC.
    pub created: u64,
}

impl Keys {
    pub(super) fn new(repository: Repository) -> Self {
        Self { repository }
    }

    /// Lists the slots, as they are stored now.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Damaged`]; [`Error::WrongKey`] when others rotated the keys and this process can
    /// no longer open them.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn slots(&self) -> Result<Vec<SlotInfo>> {
        let holder = self.holder()?;
        holder.refresh(self.repository.storage()).await?;
        Ok(holder.ring().slots.iter().map(describe).collect())
    }

    /// Lists the generations of the data key, the newest last.
    ///
    /// # Errors
    /// As [`slots`](Self::slots).
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn data_keys(&self) -> Result<Vec<DataKeyInfo>> {
        let holder = self.holder()?;
        holder.refresh(self.repository.storage()).await?;
        let ring = holder.ring();
        let info = ring.generations.iter().map(|key| DataKeyInfo { generation: key.number, created: key.created });
        Ok(info.collect())
    }

    /// Adds a slot.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a source that protects nothing, [`Error::KeyService`], and as [`slots`](Self::slots).
    ///
    /// # Cancel safety
    /// When dropped, the slot is there or not; listing the slots tells.
    pub async fn add(&self, source: KeySource) -> Result<KeyChange> {
        self.change(Change::Add(source)).await
    }

    /// Removes a slot, never the last one that opens the repository.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is the last one or there is none of this identity, and as [`slots`](Self::slots).
    ///
    /// # Cancel safety
    /// As [`add`](Self::add).
    pub async fn remove(&self, slot: SlotId) -> Result<KeyChange> {
        self.change(Change::Remove(slot)).await
    }

    /// Makes a new data key for all that is written from now on; what is stored stays under the older ones.
    ///
    /// # Errors
    /// As [`slots`](Self::slots).
    ///
    /// # Cancel safety
    /// As [`add`](Self::add).
    pub async fn rotate_data_key(&self) -> Result<KeyChange> {
        self.change(Change::NewDataKey).await
    }

    /// Makes a new key-encryption key, which only these sources open from now on: all slots are made again.
    ///
    /// # Errors
    /// [`Error::Invalid`] without a source, and as [`add`](Self::add).
    ///
    /// # Cancel safety
    /// As [`add`](Self::add).
    pub async fn rotate_key_encryption_key(&self, sources: Vec<KeySource>) -> Result<KeyChange> {
        self.change(Change::NewKeyEncryptionKey(sources)).await
    }

    async fn change(&self, change: Change) -> Result<KeyChange> {
        self.holder()?.change(self.repository.storage(), &change).await
    }

    fn holder(&self) -> Result<&KeyHolder> {
        let holder = self.repository.objects().keys();
        holder.ok_or_else(|| Error::NotEncrypted { location: self.repository.location() })
    }
}

fn describe(slot: &Slot) -> SlotInfo {
    let kind = match slot.content() {
        Content::Password { cost, .. } => SlotKind::Password(cost),
        Content::KeyFile { .. } => SlotKind::KeyFile,
        Content::Recipient { recipient, .. } => SlotKind::Recipient(recipient),
        Content::Service { service, .. } => SlotKind::Service(service),
        Content::Unknown | Content::Malformed(_) => SlotKind::Other(slot.kind.clone()),
    };
    SlotInfo { id: slot.id, label: slot.label.clone(), created: slot.created, kind }
}
