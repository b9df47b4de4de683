//! The crate's error: what was being done, to what, whose fault it is, and what to do next.

use std::{io, path::PathBuf};

use crate::descriptor::Cid;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on a virtual disk failed.
///
/// Variants are grouped by whose fault it is: [`Error::Io`] is the storage's, [`Error::Malformed`] and
/// [`Error::Chain`] are the image's, [`Error::NotSupported`] is ours, the rest are the caller's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The storage under the image refused or failed.
    #[error("cannot {operation} {object}{}", at(*.offset))]
    Io {
        /// What was tried, as a verb: `open`, `read`, `write`, `flush`.
        operation: &'static str,
        /// The file or source.
        object: String,
        /// Byte offset inside the file, where there is one.
        offset: Option<u64>,
        /// What the storage said.
        source: io::Error,
    },
    /// The image contradicts itself or its format.
    #[error("{object} is damaged: {problem}")]
    Malformed {
        /// The file.
        object: String,
        /// What is wrong, with the offending value.
        problem: String,
    },
    /// A legal image of a kind that this crate does not handle (yet), or not in this way.
    #[error("{object}: {format} is not supported: {reason}")]
    NotSupported {
        /// The file.
        object: String,
        /// The format or feature by its usual name.
        format: String,
        /// What exactly is missing.
        reason: &'static str,
    },
    /// The links of a snapshot chain do not fit together.
    #[error("the parent chain of {object} is broken: {problem}")]
    Chain {
        /// The child's file.
        object: String,
        /// What does not fit.
        problem: ChainProblem,
    },
    /// A descriptor names a file that the path policy forbids.
    #[error("{object} names {name:?}, which the path policy refuses: {reason}")]
    PathRefused {
        /// The descriptor's file.
        object: String,
        /// The name as written in the descriptor.
        name: String,
        /// Which rule it broke.
        reason: &'static str,
    },
    /// A range that leaves the disk.
    #[error("cannot {operation} {len} bytes at offset {offset}: the disk has {capacity} bytes")]
    OutOfRange {
        /// What was tried, as a verb.
        operation: &'static str,
        /// First byte asked for.
        offset: u64,
        /// Number of bytes asked for.
        len: u64,
        /// Size of the disk in bytes.
        capacity: u64,
    },
    /// A change was asked of something that cannot be changed.
    #[error("cannot {operation} {object}: {reason}")]
    ReadOnly {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The file.
        object: String,
        /// Why it cannot be changed.
        reason: &'static str,
    },
    /// The caller asked a long operation to end.
    #[error("the {operation} was cancelled")]
    Cancelled {
        /// What was ended.
        operation: &'static str,
    },
    /// A value that the caller gave does not make sense.
    #[error("{what} is invalid: {problem}")]
    InvalidInput {
        /// Which value.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// How a parent chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainProblem {
    /// The parent was written to after the child was made, or is another disk.
    #[error("it wants a parent with content id {wanted}, but {} has {found}", parent.display())]
    CidMismatch {
        /// The child's `parentCID`.
        wanted: Cid,
        /// The parent's `CID`.
        found: Cid,
        /// The parent's file.
        parent: PathBuf,
    },
    /// The link says that it has a parent, but not where.
    #[error("its parentCID is {wanted}, but it has no parentFileNameHint")]
    NoParentHint {
        /// The child's `parentCID`.
        wanted: Cid,
    },
    /// A file is its own ancestor.
    #[error("{} appears twice", file.display())]
    Cycle {
        /// The file met twice.
        file: PathBuf,
    },
    /// More links than allowed.
    #[error("it has more than {limit} links")]
    TooDeep {
        /// The limit that was exceeded.
        limit: usize,
    },
}

impl Error {
    /// An I/O failure; for implementors of [`Image`](crate::Image) and [`Resolver`](crate::Resolver).
    pub fn io(operation: &'static str, object: impl Into<String>, offset: Option<u64>, source: io::Error) -> Self {
        Self::Io { operation, object: object.into(), offset, source }
    }

    /// Whether the same call may succeed when repeated without any other change.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::Interrupted
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::WouldBlock
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::ResourceBusy
                    | io::ErrorKind::StaleNetworkFileHandle
            ),
            _ => false,
        }
    }

    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => Some("check that all files of the disk are in the descriptor's directory"),
                io::ErrorKind::StorageFull => Some("free space on the target and repeat"),
                io::ErrorKind::PermissionDenied => Some("check the file's permissions, or open the disk read-only"),
                _ => None,
            },
            Self::Malformed { .. } => Some("take the image from another copy or backup; do not write to it"),
            Self::Chain { problem: ChainProblem::CidMismatch { .. }, .. } => {
                Some("the parent was changed under its child; restore the parent as it was when the child was made")
            }
            Self::Chain { problem: ChainProblem::NoParentHint { .. }, .. } => {
                Some("open the link alone with OpenOptions::single_link")
            }
            Self::PathRefused { .. } => {
                Some("a trusted disk can be opened with PathPolicy::Any; a package may name its own files only")
            }
            Self::ReadOnly { reason, .. } if *reason == OPEN_READ_ONLY => Some("open the disk with Access::ReadWrite"),
            _ => None,
        }
    }

    pub(crate) fn malformed(object: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Malformed { object: object.into(), problem: problem.into() }
    }

    pub(crate) fn invalid(what: &'static str, problem: impl Into<String>) -> Self {
        Self::InvalidInput { what, problem: problem.into() }
    }

    pub(crate) fn not_supported(object: impl Into<String>, format: impl Into<String>, reason: &'static str) -> Self {
        Self::NotSupported { object: object.into(), format: format.into(), reason }
    }
}

/// The one reason of [`Error::ReadOnly`] that the caller can change.
pub(crate) const OPEN_READ_ONLY: &str = "it is open for reading only";

fn at(offset: Option<u64>) -> String {
    offset.map(|offset| format!(" at offset {offset}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_operation_object_and_offset_once() {
        let error = Error::io("read", "a.vmdk", Some(512), io::ErrorKind::TimedOut.into());
        assert_eq!(error.to_string(), "cannot read a.vmdk at offset 512");
        assert!(error.is_retryable());
        assert!(!Error::malformed("a.vmdk", "x").is_retryable());
    }
}
