//! The crate's error.

mod answers;

use std::{fmt, path::PathBuf};

use crate::repository::{
    ChunkId, PageId, PointId,
    storage::{StorageError, StorageErrorKind},
};

pub use self::answers::{ErrorKind, ErrorPhase};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A source of an error that only informs.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What can go wrong in this crate, by whose fault it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The repository's storage failed.
    #[error("the repository's storage failed: {0}")]
    Storage(#[source] StorageError),

    /// The place holds no repository.
    #[error("{location} holds no repository")]
    NotARepository {
        /// The storage's location.
        location: String,
    },

    /// The place holds a repository already.
    #[error("{location} holds a repository already")]
    RepositoryExists {
        /// The storage's location.
        location: String,
    },

    /// An object was written in a format that this release does not know.
    #[error("{object} has format version {found}; this release reads version {supported}")]
    UnsupportedVersion {
        /// The object's name.
        object: String,
        /// The version found.
        found: u32,
        /// The newest version that this release reads.
        supported: u32,
    },

    /// An object needs a feature that this release does not know.
    #[error("{object} needs the feature {feature:?}, which this release does not know")]
    UnsupportedFeature {
        /// The object's name.
        object: String,
        /// The feature's name, or the bits of the flags.
        feature: String,
    },

    /// The repository is encrypted and was opened without a key.
    #[error("the repository at {location} is encrypted: a key is needed")]
    Encrypted {
        /// The storage's location.
        location: String,
    },

    /// The repository is not encrypted, although a key was given or asked for.
    #[error("the repository at {location} is not encrypted")]
    NotEncrypted {
        /// The storage's location.
        location: String,
    },

    /// No key slot of this kind opens with what was given.
    #[error("the {kind} is wrong: none of {slots} key slots of this kind opens with it")]
    WrongKey {
        /// `password`, `key file`, ...
        kind: &'static str,
        /// How many slots of this kind there are.
        slots: usize,
    },

    /// The repository has no key slot of this kind.
    #[error("the repository has no key slot for a {kind}")]
    NoKeySlot {
        /// `password`, `key file`, ...
        kind: &'static str,
    },

    /// An object is under a data key that is not on the repository's key ring.
    #[error("{object} is under data key {generation}, which the repository does not have")]
    UnknownDataKey {
        /// The object's name.
        object: String,
        /// The generation of the data key.
        generation: u32,
    },

    /// A key service failed.
    #[error("{operation} by the key service {service} failed")]
    KeyService {
        /// The operation.
        operation: &'static str,
        /// The service's name.
        service: String,
        /// What it said.
        #[source]
        source: DiskError,
    },

    /// An object of the repository is damaged.
    #[error("{object} is damaged: {reason}")]
    Damaged {
        /// The object's name.
        object: String,
        /// What is wrong with it.
        reason: String,
    },

    /// A chunk that a disk needs is damaged or absent.
    #[error("disk {disk}, offset {offset}: chunk {chunk} is damaged: {reason}")]
    DamagedChunk {
        /// The disk's key within the virtual machine.
        disk: i32,
        /// The chunk's first byte on the disk.
        offset: u64,
        /// The chunk.
        chunk: ChunkId,
        /// What is wrong with it.
        reason: String,
    },

    /// A page of a disk's index is damaged or absent.
    #[error("disk {disk}, offset {offset}: page {page} of the disk's index is damaged: {reason}")]
    DamagedPage {
        /// The disk's key within the virtual machine.
        disk: i32,
        /// The first byte of the disk that the page describes.
        offset: u64,
        /// The page.
        page: PageId,
        /// What is wrong with it.
        reason: String,
    },

    /// There is no such recovery point.
    #[error("there is no recovery point {point}")]
    PointNotFound {
        /// The point asked for.
        point: PointId,
    },

    /// The recovery point holds no such disk.
    #[error("recovery point {point} holds no disk {disk}")]
    DiskNotFound {
        /// The point.
        point: PointId,
        /// The key asked for.
        disk: i32,
    },

    /// A disk that is read from or written to failed.
    #[error("{operation} {len} bytes at offset {offset} of disk {disk} failed")]
    Disk {
        /// `reading`, `writing`, ...
        operation: &'static str,
        /// The disk's key within the virtual machine.
        disk: i32,
        /// The first byte.
        offset: u64,
        /// The number of bytes.
        len: u64,
        /// What the disk said.
        #[source]
        source: DiskError,
    },

    /// A store of somebody else failed.
    #[error("{operation} by the store failed")]
    Sink {
        /// The operation.
        operation: &'static str,
        /// What the store said.
        #[source]
        source: DiskError,
    },

    /// The list of areas to back up could not be had.
    #[error("asking for the areas of disk {disk} to back up failed")]
    Areas {
        /// The disk's key within the virtual machine.
        disk: i32,
        /// What the server said.
        #[source]
        source: DiskError,
    },

    /// Change tracking called a part of a disk unchanged that is not: it cannot be believed.
    #[error("disk {disk}, offset {offset}: the bytes changed, and change tracking does not say so")]
    MissedChange {
        /// The disk's key within the virtual machine.
        disk: i32,
        /// The first byte of the chunk that differs.
        offset: u64,
    },

    /// The server refused or failed an operation on a virtual machine.
    #[error("{operation} of {vm} failed")]
    Server {
        /// The operation, as a noun.
        operation: &'static str,
        /// The virtual machine or another object.
        vm: String,
        /// What the server's client said.
        #[source]
        source: DiskError,
    },

    /// The virtual machine is not in a state in which this can be done.
    #[error("{vm}: {reason}")]
    Refused {
        /// The virtual machine.
        vm: String,
        /// Why.
        reason: String,
        /// What to do, where that is known.
        hint: Option<String>,
    },

    /// A local file that a disk is restored to failed.
    #[error("{operation} {} failed", path.display())]
    File {
        /// The operation.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: Cause,
    },

    /// The journal could not be read or written.
    #[error("journal {}: {operation} failed", path.display())]
    Journal {
        /// The journal's file.
        path: PathBuf,
        /// The operation.
        operation: &'static str,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },

    /// Another process backs up the same virtual machine now.
    #[error("journal {} is in use by another process", path.display())]
    JournalInUse {
        /// The lock file.
        path: PathBuf,
    },

    /// A lease was taken away because it was not renewed in time: the holder counts as dead.
    #[error("lease {lease} was taken away: it was not renewed in time")]
    Fenced {
        /// The lease.
        lease: String,
    },

    /// Somebody else does what only one may do at a time.
    #[error("{what}")]
    Busy {
        /// What, and who.
        what: String,
    },

    /// A recovery point is held and so is not deleted.
    #[error("recovery point {point} is held: {reason}")]
    Held {
        /// The point.
        point: PointId,
        /// The reason given for the hold.
        reason: String,
    },

    /// The caller passed something that makes no sense.
    #[error("{what}")]
    Invalid {
        /// What.
        what: String,
    },

    /// The caller cancelled the work.
    #[error("cancelled")]
    Cancelled,

    /// The caller gave the work up: nothing was undone, and the journal tells the next run what there is.
    #[error("abandoned")]
    Abandoned,

    /// An earlier failure of the same writer, whose data is lost; or a panic of a worker.
    #[error("the writer of the repository stopped: {reason}")]
    WriterStopped {
        /// The first failure.
        reason: String,
    },
}

impl Error {
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }

    pub(crate) fn damaged(object: impl fmt::Display, reason: impl Into<String>) -> Self {
        Self::Damaged { object: object.to_string(), reason: reason.into() }
    }

    /// Tells whether the same operation may succeed when it is tried again without a change.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Storage(error) => error.is_retryable(),
            Self::Disk { source, .. } | Self::Areas { source, .. } | Self::Server { source, .. } => source.retryable,
            Self::KeyService { source, .. } | Self::Sink { source, .. } => source.retryable,
            Self::JournalInUse { .. } | Self::Busy { .. } => true,
            _ => false,
        }
    }

    /// Says what to do next, where that is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Storage(error) => match error.kind {
                StorageErrorKind::Full => Some("free space on the repository's storage"),
                StorageErrorKind::PermissionDenied => {
                    Some("allow this user to read and write the repository's storage")
                }
                _ => None,
            },
            Self::Encrypted { .. } => {
                Some("open it with a password, a key file, a recipient's secret or a key service")
            }
            Self::NotEncrypted { .. } => Some("open it without a key, if it is meant to be plain"),
            Self::WrongKey { .. } => Some("check which repository and which key this is; its key slots tell"),
            Self::NoKeySlot { .. } => Some("use a key of another kind, or add a slot of this kind"),
            Self::KeyService { source, .. } | Self::Sink { source, .. } => source.hint.as_deref(),
            Self::NotARepository { .. } => Some("create the repository first, or correct the path"),
            Self::UnsupportedVersion { .. } | Self::UnsupportedFeature { .. } => {
                Some("use a newer release of this crate")
            }
            Self::DamagedChunk { .. } | Self::DamagedPage { .. } | Self::Damaged { .. } => {
                Some("restore from another recovery point; verify the repository to see all damage")
            }
            Self::MissedChange { .. } => Some(
                "back up the disk in full, reset its change tracking, and verify all until a backup finds no difference",
            ),
            Self::Fenced { .. } => Some("begin again: what was stored is found and used"),
            Self::Held { .. } => Some("release the hold first"),
            Self::JournalInUse { .. } => Some("wait until the other backup of this VM has ended"),
            Self::Refused { hint, .. } => hint.as_deref(),
            Self::Disk { source, .. } | Self::Areas { source, .. } | Self::Server { source, .. } => {
                source.hint.as_deref()
            }
            _ => None,
        }
    }

    /// Tells whether this is damage found in the repository, rather than a failed operation.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. } | Self::DamagedChunk { .. } | Self::DamagedPage { .. } | Self::UnknownDataKey { .. }
        )
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// Writes an error and its causes in one line.
pub(crate) fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// What a disk, or the server behind it, said: an error of another crate with the two answers
/// that this crate needs.
#[derive(Debug)]
pub struct DiskError {
    /// Whether a retry can help.
    pub retryable: bool,
    /// What to do next, where that is known.
    pub hint: Option<String>,
    source: Cause,
}

impl DiskError {
    /// Wraps an error of which nothing more is known.
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { retryable: false, hint: None, source: source.into() }
    }

    /// Wraps an error of this crate.
    pub(crate) fn from_error(error: Error) -> Self {
        let (retryable, hint) = (error.is_retryable(), error.hint().map(str::to_owned));
        Self::new(error).retryable(retryable).with_hint(hint)
    }

    /// States whether a retry can help.
    #[must_use]
    pub fn retryable(mut self, retryable: bool) -> Self {
        self.retryable = retryable;
        self
    }

    /// States what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    /// Returns the wrapped error, to be downcast.
    pub fn inner(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.source
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl std::error::Error for DiskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.source()
    }
}
