//! Why the library could not be used, or what it answered.

use std::{fmt, path::PathBuf};

use super::search::{Attempt, OTHER_FILE};
use crate::code::{Retry, VixCode, VixError};

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

    /// There is no library where it was looked for.
    #[error("no VixDiskLib could be loaded from {}: {}", .path.display(), Attempt::listed(.tried))]
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
    #[error("{} has no {symbol}, which every VDDK since {since} has", .file.display())]
    MissingSymbol {
        /// The library.
        file: PathBuf,
        /// The function.
        symbol: &'static str,
        /// Since when it should be there.
        since: &'static str,
    },

    /// A library lacks a function that this operation needs.
    #[error("the loaded library has no {symbol}")]
    NotThere {
        /// The function.
        symbol: &'static str,
    },

    /// A library is older than what is asked of it.
    #[error("the loaded library is too old for {what}, which came with {since}")]
    TooOld {
        /// What is asked.
        what: &'static str,
        /// The release that brought it.
        since: &'static str,
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

    /// The configuration is not one that the library would take.
    #[error("the configuration has a bad value for {name}: {reason}")]
    Config {
        /// The setting.
        name: String,
        /// What is wrong.
        reason: &'static str,
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

    /// A buffer is not whole sectors, or empty.
    #[error("{len} bytes are not whole sectors")]
    Length {
        /// Its bytes.
        len: usize,
    },

    /// Two disks were asked for and one was given twice.
    #[error("a disk cannot be its own parent")]
    SameDisk,

    /// The library reported success and gave nothing.
    #[error("{function} succeeded and gave nothing")]
    Nothing {
        /// The function.
        function: &'static str,
    },

    /// An asynchronous operation was not answered before its disk was closed.
    #[error("{function} was begun and never answered")]
    NeverAnswered {
        /// The function.
        function: &'static str,
    },

    /// The thread that the operation was given to is gone: the disk is closed, or the work panicked.
    #[error("the thread of this disk or library is gone")]
    ThreadGone,
}

/// A function of the library that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The function, as in `VixDiskLib_Open`.
    pub function: &'static str,
    /// What it was called for: a path, a server.
    pub object: String,
    /// All 64 bits that it returned.
    pub error: VixError,
    /// The library's own words.
    pub text: Option<String>,
}

impl Error {
    /// The library's code, where it was the library that failed.
    pub fn vix_code(&self) -> Option<VixCode> {
        self.failure().map(|failure| failure.error.code())
    }

    /// The library's answer, where it was the library that failed.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Call(failure) => Some(failure),
            _ => None,
        }
    }

    /// True when the same call may succeed later without anybody changing anything; with some codes on a new
    /// connection only, see [`VixCode::retry`].
    pub fn is_retryable(&self) -> bool {
        self.vix_code().is_some_and(|code| code.retry() != Retry::No)
    }

    /// What to do, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Call(failure) => failure.error.code().hint(),
            Self::NotFound { tried, .. } if tried.iter().any(Attempt::is_about_another_file) => Some(NEEDS),
            Self::NotLoaded { reason, .. } if reason.contains(OTHER_FILE) => Some(NEEDS),
            Self::NotFound { .. } | Self::NotLoaded { .. } => {
                Some("name the directory that the VDDK was unpacked to; it has a folder lib64")
            }
            Self::MissingSymbol { .. } => Some("use VDDK 6.5 or newer"),
            Self::TooOld { .. } => Some("use a newer VDDK"),
            Self::InUse { .. } => Some("load one library, once, and share it"),
            Self::ShutDown { .. } => Some("keep the library for the life of the process"),
            _ => None,
        }
    }
}

const NEEDS: &str = "start the program with LD_LIBRARY_PATH naming the VDDK's lib64, whose libraries it needs; \
                     on systems with OpenSSL 1.1, VDDK 8.0.2 and newer lack libssl.so.3";

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Call(Box::new(failure))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_of_what_and_in_whose_words() {
        let failure = Failure {
            function: "VixDiskLib_Open",
            object: "[ds] a.vmdk".into(),
            error: VixError(0x7_0000_0000 | 14009),
            text: Some("no".into()),
        };
        let error = Error::from(failure);
        let expected = "VixDiskLib_Open of [ds] a.vmdk failed: VIX_E_NETWORK_CONN_REFUSED (14009): \
                        the server refused the connection (in the library's words: no)";
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.failure().unwrap().error.0 >> 32, 7, "all bits are kept");
        assert!(error.is_retryable() && error.hint().is_some());
    }
}
