//! The crate's error: what was being read, whose fault it is, and what to do next.

use std::io;

use crate::fs::FileName;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be read out of a guest's disks.
///
/// Variants are grouped by whose fault it is: [`Error::Read`] is the disk's or its transport's, [`Error::Damaged`] the
/// guest's, [`Error::Unsupported`] ours; the rest are the caller's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk under a volume could not be read.
    #[error("cannot read {len} bytes at byte {offset} of {device}")]
    Read {
        /// The disk or volume.
        device: String,
        /// In bytes, from the device's start.
        offset: u64,
        /// In bytes.
        len: u64,
        /// What it said.
        source: io::Error,
    },
    /// A structure of the guest contradicts itself. What depends on it is not read; other files may be.
    #[error("{what} is damaged: {problem}")]
    Damaged {
        /// The structure, as the format's own documentation calls it, with its number or place.
        what: String,
        /// What is wrong, with the offending value.
        problem: String,
    },
    /// A legal structure that this crate does not read (yet). Nothing of it was listed in part.
    #[error("{what} is not supported: {reason}")]
    Unsupported {
        /// The format or feature by its usual name.
        what: String,
        /// What exactly is missing.
        reason: String,
    },
    /// The volume is encrypted and was not opened with a key.
    #[error("{what} is encrypted with {scheme}")]
    Encrypted {
        /// The volume or file.
        what: String,
        /// LUKS, BitLocker, EFS.
        scheme: &'static str,
    },
    /// There is no such file.
    #[error("there is no {0}")]
    NotFound(String),
    /// Something else than a directory was to be entered or listed.
    #[error("{0} is no directory")]
    NotADirectory(String),
    /// Something else than a file was to be read.
    #[error("{what} is no file but {kind}")]
    NotAFile {
        /// The path or id.
        what: String,
        /// What it is.
        kind: &'static str,
    },
    /// Symbolic links lead in a circle, or through more links than systems follow.
    #[error("{0}: too many symbolic links")]
    TooManyLinks(String),
    /// The caller asked for what cannot be.
    #[error("{0}")]
    Invalid(String),
    /// One of many files could not be read; the rest goes on.
    #[error("cannot read {path:?}")]
    At {
        /// Its path, from where the work began.
        path: FileName,
        /// Why.
        source: Box<Error>,
    },
    /// A file of this computer, where something is copied to, refused or failed.
    #[error("cannot {operation} {path}")]
    Local {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The local path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// VMware's library failed, or could not be used.
    #[cfg(all(feature = "vendor", target_os = "linux"))]
    #[error("cannot {operation} {what} by VMware's library")]
    Vendor {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The disks, the volume or the library.
        what: String,
        /// Why.
        source: std::sync::Arc<vixmntapi_sys::load::Error>,
    },
}

impl Error {
    /// A damaged structure.
    pub(crate) fn damaged(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Damaged { what: what.into(), problem: problem.into() }
    }

    /// A structure that is not read.
    pub(crate) fn unsupported(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), reason: reason.into() }
    }

    /// A failure of VMware's library.
    #[cfg(all(feature = "vendor", target_os = "linux"))]
    pub(crate) fn vendor(
        operation: &'static str,
        what: impl FnOnce() -> String,
    ) -> impl FnOnce(vixmntapi_sys::load::Error) -> Self {
        move |source| Self::Vendor { operation, what: what(), source: std::sync::Arc::new(source) }
    }

    /// The code of VMware's library, where it was that library that failed.
    #[cfg(all(feature = "vendor", target_os = "linux"))]
    pub fn vix_code(&self) -> Option<vixmntapi_sys::VixCode> {
        match self {
            Self::Vendor { source, .. } => source.vix_code(),
            Self::At { source, .. } => source.vix_code(),
            _ => None,
        }
    }

    /// The same error once more, for what is found out once and asked for again. Of what a disk or this computer said,
    /// the kind and the words stay.
    pub(crate) fn duplicate(&self) -> Self {
        let again = |source: &io::Error| io::Error::new(source.kind(), source.to_string());
        match self {
            Self::Read { device, offset, len, source } => {
                Self::Read { device: device.clone(), offset: *offset, len: *len, source: again(source) }
            }
            Self::Damaged { what, problem } => Self::Damaged { what: what.clone(), problem: problem.clone() },
            Self::Unsupported { what, reason } => Self::Unsupported { what: what.clone(), reason: reason.clone() },
            Self::Encrypted { what, scheme } => Self::Encrypted { what: what.clone(), scheme },
            Self::NotFound(what) => Self::NotFound(what.clone()),
            Self::NotADirectory(what) => Self::NotADirectory(what.clone()),
            Self::NotAFile { what, kind } => Self::NotAFile { what: what.clone(), kind },
            Self::TooManyLinks(what) => Self::TooManyLinks(what.clone()),
            Self::Invalid(what) => Self::Invalid(what.clone()),
            Self::At { path, source } => source.duplicate().at(path),
            Self::Local { operation, path, source } => {
                Self::Local { operation, path: path.clone(), source: again(source) }
            }
            #[cfg(all(feature = "vendor", target_os = "linux"))]
            Self::Vendor { operation, what, source } => {
                Self::Vendor { operation, what: what.clone(), source: source.clone() }
            }
        }
    }

    /// Whether it says that a path names nothing, which for who only wants to know that is no failure.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::NotFound(_) | Self::NotADirectory(_) | Self::TooManyLinks(_))
    }

    /// The same, told of one file among many.
    pub(crate) fn at(self, path: &FileName) -> Self {
        match self {
            Self::At { .. } => self,
            error => Self::At { path: path.clone(), source: Box::new(error) },
        }
    }

    /// A next step, where one is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Read { .. } => Some("see to the disk or its transport, then read again"),
            Self::Damaged { .. } => Some("check the file system in the guest; other files may be whole"),
            Self::Unsupported { .. } => Some("restore the whole disk and read it with the guest's own system"),
            Self::Encrypted { .. } => Some("open the volume with its key, or read it in the guest"),
            Self::At { source, .. } => source.hint(),
            #[cfg(all(feature = "vendor", target_os = "linux"))]
            Self::Vendor { source, .. } => source.hint(),
            _ => None,
        }
    }
}
