//! The storage that a repository lives on: named objects, written whole, read whole or in part.
//!
//! [`Storage`] is narrow on purpose: what a repository needs, and nothing that some store cannot
//! promise. Its contract, which every implementation must keep:
//!
//! - **Atomic**: after [`put`](Storage::put) or [`put_new`](Storage::put_new) an object is there
//!   whole or not at all, whatever happens in between, also to readers and other processes.
//! - **Durable**: when either returns `Ok`, the object survives a power failure.
//! - **Exclusive**: of several concurrent `put_new` of one key exactly one returns `Ok`; the rest
//!   get [`StorageErrorKind::AlreadyExists`] and change nothing.
//! - **Listed**: an object that was put before a listing began and is not deleted before it ends is listed; one whose
//!   deletion returned before the listing began is not. What appears or goes while a listing runs may be listed or not.
//!
//! - **Named**: two keys that differ in one byte, also only in case, are two objects. No key is a
//!   folder of another (`a` and `a/b`).
//!
//! [`conformance`] checks all of it of any implementation, as far as it can be seen from outside.
//!
//! | Storage | What it is |
//! |---|---|
//! | [`LocalStorage`] | a folder, with fsync of file and folder |
//! | [`ObjectStorage`] | Amazon S3 (feature `s3`), Google Cloud Storage (`gcs`), Azure Blob Storage (`azure`) |
//! | [`MemoryStorage`] | for tests and for trying things out |
//!
//! | Decorator | What it does to another storage |
//! |---|---|
//! | [`Throttled`] | so many bytes a second, up and down |
//! | [`Limited`] | so many operations at once |
//! | [`Retried`] | tries again what failed for a moment |
//! | [`ReadOnly`] | refuses every change |
//! | [`AppendOnly`] | refuses to delete and to replace |
//! | [`ObjectLocked`] | refuses both until an object has a certain age |
//! | [`Faulty`] | fails, hangs, is slow, is full or is cut off at a chosen operation |

pub(super) mod around;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
pub mod cloud;
pub mod conformance;
mod faulty;
mod key;
mod limited;
mod local;
mod memory;
mod object;
mod restricted;
mod retried;
mod throttled;
mod timer;
mod unfinished;

use std::{fmt, ops::Range, pin::Pin, time::SystemTime};

use bytes::Bytes;
use futures_core::Stream;

pub use self::{
    faulty::{Fault, Faulty},
    key::Key,
    limited::Limited,
    local::LocalStorage,
    memory::MemoryStorage,
    object::ObjectStorage,
    restricted::{AppendOnly, ObjectLocked, ReadOnly},
    retried::Retried,
    throttled::Throttled,
    timer::Timer,
};
pub(crate) use self::{key::is_segment, throttled::Bucket};

/// A boxed future, as object-safe traits need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A boxed stream, as object-safe traits need it.
pub type BoxStream<'a, T> = Pin<Box<dyn Stream<Item = T> + Send + 'a>>;

/// Where the objects of a repository lie.
///
/// The module's documentation states the contract that implementations keep.
///
/// # Cancel safety
/// Dropping a future of `put` or `put_new` leaves the object either absent or whole; which of the
/// two is unknown, and it may still appear a moment later: a request cannot be called back. The other operations change nothing when dropped.
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// Reads a whole object of at most `limit` bytes.
    ///
    /// # Errors
    /// [`StorageErrorKind::NotFound`]; [`StorageErrorKind::TooLarge`] when the object is larger
    /// than `limit`, without having read it.
    fn get<'a>(&'a self, key: &'a Key, limit: u64) -> BoxFuture<'a, Result<Bytes, StorageError>>;

    /// Reads exactly the bytes `range` of an object.
    ///
    /// # Errors
    /// [`StorageErrorKind::NotFound`]; [`StorageErrorKind::OutOfRange`] when the object is
    /// shorter than `range.end`.
    fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, StorageError>>;

    /// Writes an object, replacing one of the same name.
    ///
    /// Used for content-addressed objects only, where a replacement has the same bytes.
    fn put<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>>;

    /// Writes an object that must not exist yet.
    ///
    /// # Errors
    /// [`StorageErrorKind::AlreadyExists`], and nothing was changed.
    fn put_new<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>>;

    /// Lists the objects below `prefix` (whole path segments, `packs` or `points/4f..`), in no
    /// particular order. A prefix without objects gives an empty stream.
    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<ObjectInfo, StorageError>>;

    /// Removes an object. Removing an absent one is not an error.
    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), StorageError>>;

    /// Removes what writes that were cut short before `before` left where no listing shows it, and returns how many.
    ///
    /// A store that keeps no such remains has nothing to do, which is the default. What a write that still runs needs may
    /// go too when it was begun before: it fails then.
    fn remove_unfinished(&self, before: SystemTime) -> BoxFuture<'_, Result<u64, StorageError>> {
        let _ = before;
        Box::pin(async { Ok(0) })
    }

    /// Returns where this is, for messages: a path or an address without credentials.
    fn location(&self) -> String;
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The object's name.
    pub key: Key,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last written, by the store's clock; `None` where the store does not say.
    pub modified: Option<SystemTime>,
}

/// A failed operation of a [`Storage`].
#[derive(Debug, thiserror::Error)]
#[error("{operation} {key}: {kind}")]
pub struct StorageError {
    /// What went wrong, as far as a caller can act on it.
    pub kind: StorageErrorKind,
    /// The operation: `get`, `put`, `list`, ...
    pub operation: &'static str,
    /// The object's name or the prefix.
    pub key: String,
    /// What the implementation said.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StorageError {
    /// Makes an error without a deeper cause.
    pub fn new(kind: StorageErrorKind, operation: &'static str, key: impl fmt::Display) -> Self {
        Self { kind, operation, key: key.to_string(), source: None }
    }

    /// Attaches the implementation's own error.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Tells whether the same operation may succeed when it is tried again.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, StorageErrorKind::Unavailable)
    }
}

/// The kinds of [`StorageError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageErrorKind {
    /// There is no such object.
    NotFound,
    /// The object exists already ([`Storage::put_new`]).
    AlreadyExists,
    /// The object is larger than the caller allowed.
    TooLarge,
    /// The object is shorter than the range asked for.
    OutOfRange,
    /// The store refuses this to us.
    PermissionDenied,
    /// The store did not answer or is overloaded; trying again may help.
    Unavailable,
    /// No space is left, or a quota is used up.
    Full,
    /// Anything else.
    Other,
}

impl fmt::Display for StorageErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "no such object",
            Self::AlreadyExists => "the object exists already",
            Self::TooLarge => "the object is larger than it may be",
            Self::OutOfRange => "the object is shorter than it should be",
            Self::PermissionDenied => "permission denied",
            Self::Unavailable => "the storage is unavailable",
            Self::Full => "no space left",
            Self::Other => "the storage failed",
        })
    }
}

/// Joins the parts of an object, without a copy when there is one.
pub(crate) fn join(parts: &[Bytes]) -> Bytes {
    match parts {
        [one] => one.clone(),
        many => many.concat().into(),
    }
}
