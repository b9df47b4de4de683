//! What can go wrong under a virtual disk.

use std::path::{Path, PathBuf};

/// A failure of the simulator's storage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The host's file system refused an operation. The host's fault; a retry rarely helps.
    #[error("{operation}: {}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// An access outside the disk. The caller's fault.
    #[error("{len} bytes at {offset} are outside the disk {disk} of {capacity} bytes")]
    OutOfRange {
        /// The disk's datastore path.
        disk: String,
        /// First byte asked for.
        offset: u64,
        /// Bytes asked for.
        len: u64,
        /// The disk's size in bytes.
        capacity: u64,
    },
    /// A snapshot's disk was asked for that does not exist (any more).
    #[error("{disk} has no layer {layer}")]
    NoSuchLayer {
        /// The disk's datastore path.
        disk: String,
        /// The layer.
        layer: String,
    },
    /// The disk cannot be changed that way now, as a server would refuse it.
    #[error("{disk}: {reason}")]
    Refused {
        /// The disk's datastore path.
        disk: String,
        /// Why.
        reason: String,
    },
    /// The base image given by the user is unusable.
    #[error("base image {}: {reason}", path.display())]
    BadBase {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// A result of the storage engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(super) fn io(operation: &'static str, path: &Path, source: std::io::Error) -> Self {
        Error::Io { operation, path: path.to_owned(), source }
    }

    /// Whether the same call may work later without anything being changed by hand.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::Interrupted)
    }
}
