//! Checking disks: the structure of every file, and how the links of a chain fit together.
//!
//! ```no_run
//! use vmdk::check::{CheckOptions, Severity, check};
//!
//! # fn main() -> vmdk::Result<()> {
//! let report = check("web.vmdk", &CheckOptions::new())?;
//! for finding in report.findings() {
//!     println!("{finding}; {}", finding.advice());
//! }
//! if report.worst() >= Some(Severity::Damaged) {
//!     // Take a copy, and see what a repair would do: vmdk::repair.
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A check only reads, and reads metadata only unless it is told to go deep. Its memory is bounded whatever the image
//! says ([`CheckOptions::memory_bytes`]), its time by the size of the files. A disk that is being written looks
//! damaged: check closed ones.

mod chain;
mod cowd;
mod extents;
mod inspection;
mod markers;
mod packed;
mod problem;
mod report;
mod sesparse;
mod space;
mod sparse;
mod stream;
mod tables;
mod walk;

use std::{fmt, path::Path, sync::Arc};

use self::chain::Checker;
/// What a repair shares with a check.
pub(crate) mod internal {
    pub(crate) use super::{
        inspection::Inspection,
        markers::{Markers, PackedGrain, Piece},
        packed::{Inflater, Packed, Verdict},
        space::{Bits, Space, Use},
        sparse::inspect,
        stream::{is_same_disk, read_footer, stream_report},
        tables::{Directory, Entry, TableLookup},
    };
}
pub use self::{
    problem::{Problem, Severity},
    report::{Finding, Place, Report, Usage},
};
use crate::{
    disk::{LocalFiles, OpenOptions, PathPolicy, Resolver},
    error::Result,
    extent::Backing,
    source::Handle,
};

/// Checks the disk at `path`: its descriptor, its extents, and those of its parents.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) when the storage fails or `path` is not there. Everything that is wrong with the
/// image is a finding, and no error.
#[doc(alias = "VixDiskLib_CheckRepair")]
pub fn check(path: impl AsRef<Path>, options: &CheckOptions) -> Result<Report> {
    let mut checker = Checker::new(options);
    checker.chain(path.as_ref())?;
    Ok(checker.finish())
}

/// Checks one file, opened already: a sparse extent, with the descriptor inside if there is one. `name` is its name in
/// findings. Parents and other files are not looked for.
///
/// # Errors
/// As [`check`].
pub fn check_source(name: impl Into<String>, source: Handle, options: &CheckOptions) -> Result<Report> {
    let mut checker = Checker::new(options);
    checker.single(&Backing::new(name.into(), source))?;
    Ok(checker.finish())
}

/// Options of [`check`].
#[derive(Clone)]
#[must_use]
pub struct CheckOptions {
    pub(crate) paths: PathPolicy,
    pub(crate) resolver: Arc<dyn Resolver>,
    single_link: bool,
    deep: bool,
    findings_per_kind: u64,
    pub(crate) memory_bytes: usize,
}

impl CheckOptions {
    /// Stays in the directory, follows parents, reads metadata only, keeps 16 findings of each kind and takes up to 32
    /// MiB of memory: enough to see files of 64 GiB in one pass.
    pub fn new() -> Self {
        Self {
            paths: PathPolicy::SameDirectory,
            resolver: Arc::new(LocalFiles),
            single_link: false,
            deep: false,
            findings_per_kind: 16,
            memory_bytes: 32 << 20,
        }
    }

    /// Sets which files a descriptor may name.
    pub fn paths(mut self, policy: PathPolicy) -> Self {
        self.paths = policy;
        self
    }

    /// Opens files in another way than from the local file system.
    pub fn resolver(mut self, resolver: Arc<dyn Resolver>) -> Self {
        self.resolver = resolver;
        self
    }

    /// Checks this link alone, and not its parents.
    pub fn single_link(mut self, single: bool) -> Self {
        self.single_link = single;
        self
    }

    /// Reads and inflates all grains of streams too, which verifies their checksums.
    pub fn deep(mut self, deep: bool) -> Self {
        self.deep = deep;
        self
    }

    /// Sets how many findings of each kind are kept; all are counted.
    pub fn findings_per_kind(mut self, count: u64) -> Self {
        self.findings_per_kind = count;
        self
    }

    /// The same for local files.
    pub(crate) fn local(self) -> Self {
        self.resolver(Arc::new(LocalFiles))
    }

    /// Bounds the memory, from 1 MiB on. Less memory means more passes over the tables of large files.
    pub fn memory_bytes(mut self, bytes: usize) -> Self {
        self.memory_bytes = bytes;
        self
    }
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl From<&OpenOptions> for CheckOptions {
    /// Takes over where files come from and which may be named.
    fn from(options: &OpenOptions) -> Self {
        Self::new().paths(options.paths).resolver(Arc::clone(&options.resolver)).single_link(options.single_link)
    }
}

impl fmt::Debug for CheckOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckOptions")
            .field("paths", &self.paths)
            .field("single_link", &self.single_link)
            .field("deep", &self.deep)
            .field("findings_per_kind", &self.findings_per_kind)
            .field("memory_bytes", &self.memory_bytes)
            .finish_non_exhaustive()
    }
}
