//! Search for files by their names, sizes and times.

mod pattern;

use std::{
    fmt,
    ops::{Bound, RangeBounds},
    sync::Arc,
};

pub use self::pattern::{Case, Pattern};
use self::pattern::{State, Units};
use crate::{
    error::Result,
    fs::{FileKind, FileSystem, NodeId, Timestamp},
    walk::{Found, Walk},
};

/// Finds the files whose paths match a [`Pattern`], and that are what else is asked for.
///
/// Directories in which nothing can match are not read: `etc/*.conf` reads two. What cannot be read is told in its
/// place, as by [`Walk`], and the search goes on.
///
/// ```
/// # use std::sync::Arc;
/// # use vixmntapi::{Result, find::{Find, Pattern}, fs::{FileKind, FileSystem}};
/// # fn large_logs(files: &Arc<dyn FileSystem>) -> Result<()> {
/// let logs = Pattern::new("var/log/**/*.{log,gz}")?;
/// for found in Find::new(files, logs).kind(FileKind::File).size(1 << 20..) {
///     println!("{}", found?.path);
/// }
/// # Ok(()) }
/// ```
pub struct Find {
    walk: Walk,
    pattern: Pattern,
    case: Case,
    kind: Option<FileKind>,
    size: (Bound<u64>, Bound<u64>),
    modified: (Bound<Timestamp>, Bound<Timestamp>),
    /// What may still match below each directory that is open.
    states: Vec<Vec<State>>,
}

impl Find {
    /// In a whole file system, with regard to case as that has it.
    pub fn new(files: &Arc<dyn FileSystem>, pattern: Pattern) -> Self {
        Self::from(files, files.root(), pattern)
    }

    /// In a directory; the pattern is held against paths from there on.
    pub fn from(files: &Arc<dyn FileSystem>, start: NodeId, pattern: Pattern) -> Self {
        let case = match files.info().kind {
            "ntfs" | "vfat" | "exfat" => Case::Ignored,
            _ => Case::Regarded,
        };
        let all = (Bound::Unbounded, Bound::Unbounded);
        let walk = Walk::from(files, start);
        let modified = (Bound::Unbounded, Bound::Unbounded);
        Self { walk, pattern, case, kind: None, size: all, modified, states: Vec::new() }
    }

    /// The same, with or without regard to case, whatever the guest's system does.
    #[must_use]
    pub fn case(mut self, case: Case) -> Self {
        self.case = case;
        self
    }

    /// Only what is of this kind.
    #[must_use]
    pub fn kind(mut self, kind: FileKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Only what is of such a size, in bytes.
    #[must_use]
    pub fn size(mut self, bytes: impl RangeBounds<u64>) -> Self {
        self.size = (bytes.start_bound().cloned(), bytes.end_bound().cloned());
        self
    }

    /// Only what was changed at such a time.
    #[must_use]
    pub fn modified(mut self, when: impl RangeBounds<Timestamp>) -> Self {
        self.modified = (when.start_bound().cloned(), when.end_bound().cloned());
        self
    }

    fn matches(&mut self, found: &Found) -> bool {
        let states = match found.depth.checked_sub(1) {
            None => self.pattern.start(),
            Some(parent) => {
                let name = Units::new(found.name.as_bytes(), self.case);
                self.states.get(parent).map(|states| self.pattern.step(states, &name, self.case)).unwrap_or_default()
            }
        };
        let matches = self.pattern.is_match(&states);
        if found.kind == FileKind::Directory {
            if self.pattern.goes_on(&states) {
                self.states.truncate(found.depth);
                self.states.push(states);
            } else {
                self.walk.skip_directory();
            }
        }
        matches
    }

    fn is_wanted(&self, found: &Found) -> Result<bool> {
        if self.kind.is_some_and(|kind| kind != found.kind) {
            return Ok(false);
        }
        if let ((Bound::Unbounded, Bound::Unbounded), (Bound::Unbounded, Bound::Unbounded)) = (self.size, self.modified)
        {
            return Ok(true);
        }
        let metadata = self.walk.file_system().metadata(found.node).map_err(|error| error.at(&found.path))?;
        Ok(self.size.contains(&metadata.size) && self.modified.contains(&metadata.times.modified))
    }
}

impl Iterator for Find {
    type Item = Result<Found>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let found = match self.walk.next()? {
                Ok(found) => found,
                Err(error) => return Some(Err(error)),
            };
            if !self.matches(&found) {
                continue;
            }
            match self.is_wanted(&found) {
                Ok(true) => return Some(Ok(found)),
                Ok(false) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl fmt::Debug for Find {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Find").field("pattern", &self.pattern).field("walk", &self.walk).finish_non_exhaustive()
    }
}
