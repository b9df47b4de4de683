//! Why the library could not be used, or what it answered.

use std::{fmt, path::PathBuf};

use vixdisklib_sys::{
    code::Retry,
    load::search::{Attempt, OTHER_FILE},
};

use crate::{VixCode, VixError};

/// The result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the library could not be used, or what it answered.
///
/// [`Error::Call`] is the library's own answer; the rest is found on this side of the boundary.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A function of the library failed.
    #[error(transparent)]
    Call(Box<Failure>),

    /// The disk library, on whose thread all calls are made, could not be used.
    #[error("VixDiskLib could not be used for it")]
    DiskLibrary(#[source] Box<vixdisklib_sys::load::Error>),

    /// There is no library where it was looked for.
    #[error("no VixMntapi could be loaded from {}: {}", .path.display(), Attempt::listed(.tried))]
    NotFound {
        /// What the caller named.
        path: PathBuf,
        /// The files that were tried, in order.
        tried: Vec<Attempt>,
    },

    /// The dynamic linker refused a file.
    #[error("{} was not loaded: {reason}", .file.display())]
    NotLoaded {
        /// The file.
        file: PathBuf,
        /// The linker's words.
        reason: String,
    },

    /// A library lacks a function that nothing works without.
    #[error("{} has no {symbol}, which every VixMntapi has", .file.display())]
    MissingSymbol {
        /// The library.
        file: PathBuf,
        /// The function.
        symbol: &'static str,
    },

    /// A library lacks a function that this operation needs.
    #[error("the loaded library has no {symbol}: those for Linux do not")]
    NotThere {
        /// The function.
        symbol: &'static str,
    },

    /// Another library, or the same with other settings, is in use: one a process is the rule.
    #[error("{} is in use already, with {difference}", .loaded.display())]
    InUse {
        /// What was loaded first.
        loaded: PathBuf,
        /// What differs.
        difference: &'static str,
    },

    /// The library was shut down, and it begins only once a process.
    #[error("{} was shut down, and it begins only once a process", .loaded.display())]
    ShutDown {
        /// The library.
        loaded: PathBuf,
    },

    /// The platform, or the way in which the set was opened, does not allow it. The library was not asked.
    #[error("{what} is not possible: {why}")]
    Limit {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        why: &'static str,
    },

    /// The volume is mounted in another mode, by another user of this set.
    #[error("volume {volume} is mounted {mode} by another user of this set")]
    MountedOtherwise {
        /// The number of the volume in its set.
        volume: usize,
        /// How it is mounted.
        mode: &'static str,
    },

    /// A connection or disk of another library than the one whose thread the calls are made on.
    #[error("the {what} is of another VixDiskLib")]
    OtherLibrary {
        /// What was given.
        what: &'static str,
    },

    /// This machine refused something on the way.
    #[error("{doing} failed")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: std::io::Error,
    },

    /// A text has a NUL inside, which C cannot carry.
    #[error("the {what} has a NUL character inside")]
    Nul {
        /// Which text.
        what: &'static str,
    },

    /// The library reported success and gave nothing, or more than makes sense.
    #[error("{function} succeeded and gave {what}")]
    Answer {
        /// The function.
        function: &'static str,
        /// What it gave.
        what: String,
    },
}

/// A function of the library that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The function, as in `VixMntapi_MountVolume`.
    pub function: &'static str,
    /// What it was called for: disks, a volume of them.
    pub object: String,
    /// All 64 bits that it returned.
    pub error: VixError,
    /// The disk library's words for it.
    pub text: Option<String>,
}

impl Error {
    /// The library's code, where it was a library that failed.
    pub fn vix_code(&self) -> Option<VixCode> {
        match self {
            Self::Call(failure) => Some(failure.error.code()),
            Self::DiskLibrary(error) => error.vix_code(),
            _ => None,
        }
    }

    /// The library's answer, where it was the library that failed.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Call(failure) => Some(failure),
            _ => None,
        }
    }

    /// True when the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        self.vix_code().is_some_and(|code| code.retry() != Retry::No)
    }

    /// What to do, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Call(failure) => failure.error.code().hint(),
            Self::DiskLibrary(error) => error.hint(),
            Self::NotFound { tried, .. } if tried.iter().any(Attempt::is_about_another_file) => Some(NEEDS),
            Self::NotLoaded { reason, .. } if reason.contains(OTHER_FILE) => Some(NEEDS),
            Self::NotFound { .. } | Self::NotLoaded { .. } => {
                Some("name the directory that the VDDK was unpacked to; it has a folder lib64")
            }
            Self::NotThere { .. } => Some("open disks by their paths"),
            Self::InUse { .. } => Some("load one library, once, and share it"),
            Self::ShutDown { .. } => Some("keep the library for the life of the process"),
            Self::OtherLibrary { .. } => Some("connect by the disk library that was named when this one was loaded"),
            _ => None,
        }
    }
}

const NEEDS: &str = "start the program with LD_LIBRARY_PATH naming the VDDK's lib64, whose libraries it needs, and \
                     install FUSE's library";

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Call(Box::new(failure))
    }
}

impl From<vixdisklib_sys::load::Error> for Error {
    fn from(error: vixdisklib_sys::load::Error) -> Self {
        Self::DiskLibrary(Box::new(error))
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.function)?;
        if !self.object.is_empty() {
            write!(f, " of {}", self.object)?;
        }
        write!(f, " failed: {}", self.error.code())?;
        match &self.text {
            Some(text) => write!(f, " (in the library's words: {text})"),
            None => Ok(()),
        }
    }
}
