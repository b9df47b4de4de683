//! Every file below a directory, one after another.

use std::{collections::HashSet, fmt, sync::Arc};

use crate::{
    error::{Error, Result},
    fs::{Entries, FileKind, FileName, FileSystem, NodeId},
};

/// Walks a tree: the directory that it starts at, then all that is below it, each directory before what is in it and
/// entries in the order in which they are stored.
///
/// Symbolic links are found and not followed. What cannot be read is told as an [`Error::At`] in its place, and the walk
/// goes on with what comes after it; so a walk without an error has seen everything. Directories are held open, not
/// listed into memory: a walk takes a few hundred bytes for each level, and some 16 for each directory that it has seen,
/// because only that ends the circles in which the directories of a hostile volume may lead.
pub struct Walk {
    files: Arc<dyn FileSystem>,
    start: Option<NodeId>,
    /// The directory that was told of last; it is entered by the next step.
    pending: Option<(NodeId, FileName)>,
    open: Vec<Level>,
    entered: HashSet<NodeId>,
    max_depth: usize,
    max_directories: usize,
}

impl Walk {
    /// Of a whole file system.
    pub fn new(files: &Arc<dyn FileSystem>) -> Self {
        Self::from(files, files.root())
    }

    /// Of a directory and all below it; paths begin there. Of a file there is just that file.
    pub fn from(files: &Arc<dyn FileSystem>, start: NodeId) -> Self {
        Self {
            files: files.clone(),
            start: Some(start),
            pending: None,
            open: Vec::new(),
            entered: HashSet::new(),
            max_depth: MAX_DEPTH,
            max_directories: MAX_DIRECTORIES,
        }
    }

    /// The same, but not into directories deeper than so many levels; 0 lists nothing. A directory that is not entered
    /// for that is an error, unlike one that was [skipped](Walk::skip_directory).
    #[must_use]
    pub fn max_depth(mut self, levels: usize) -> Self {
        self.max_depth = levels;
        self
    }

    /// The same with another bound for the directories that are kept in mind. One more is an error.
    #[must_use]
    pub fn max_directories(mut self, count: usize) -> Self {
        self.max_directories = count;
        self
    }

    /// Leaves out what is in the directory that was found last.
    pub fn skip_directory(&mut self) {
        self.pending = None;
    }

    /// What is walked.
    pub fn file_system(&self) -> &Arc<dyn FileSystem> {
        &self.files
    }

    fn found(&mut self, path: FileName, name: FileName, node: NodeId, kind: Option<FileKind>) -> Result<Found> {
        let kind = match kind {
            Some(kind) => kind,
            None => self.files.metadata(node).map_err(|error| error.at(&path))?.kind,
        };
        if kind == FileKind::Directory {
            self.pending = Some((node, path.clone()));
        }
        Ok(Found { path, name, node, kind, depth: self.open.len() })
    }

    fn enter(&mut self, node: NodeId, path: FileName) -> Result<()> {
        let entries = self.list(node).map_err(|error| error.at(&path))?;
        self.open.push(Level { entries, path });
        Ok(())
    }

    fn list(&mut self, node: NodeId) -> Result<Entries> {
        if self.open.len() >= self.max_depth {
            return Err(Error::Invalid(format!("directories are nested in more than {} levels", self.max_depth)));
        }
        if self.entered.contains(&node) {
            return Err(Error::damaged(format!("directory {}", node.number), "it is in several places of the tree"));
        }
        if self.entered.len() >= self.max_directories {
            let limit = self.max_directories;
            return Err(Error::Invalid(format!("there are more than {limit} directories; walk them in parts")));
        }
        self.entered.insert(node);
        self.files.clone().read_dir(node)
    }
}

impl Iterator for Walk {
    type Item = Result<Found>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(start) = self.start.take() {
            return Some(self.found(FileName::default(), FileName::default(), start, None));
        }
        if let Some((node, path)) = self.pending.take()
            && let Err(error) = self.enter(node, path)
        {
            return Some(Err(error));
        }
        loop {
            let level = self.open.last_mut()?;
            match level.entries.next() {
                Some(Ok(entry)) => {
                    let path = level.path.join(&entry.name);
                    return Some(self.found(path, entry.name, entry.node, entry.kind));
                }
                Some(Err(error)) => {
                    let error = error.at(&level.path);
                    self.open.pop();
                    return Some(Err(error));
                }
                None => drop(self.open.pop()),
            }
        }
    }
}

impl fmt::Debug for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walk").field("files", &self.files).field("depth", &self.open.len()).finish_non_exhaustive()
    }
}

/// What a walk has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// From the start of the walk, with `/` between names; empty for the start itself. The names are as they are stored:
    /// one that is not [plain](FileName::is_plain) makes the path of another file, or of none.
    pub path: FileName,
    /// The last name of the path.
    pub name: FileName,
    /// What it names.
    pub node: NodeId,
    /// What that is.
    pub kind: FileKind,
    /// How many directories of the walk it is in.
    pub depth: usize,
}

struct Level {
    entries: Entries,
    path: FileName,
}

/// Deeper than paths that systems take (4096 bytes, two for a name at least).
const MAX_DEPTH: usize = 4096;
/// More than volumes have, in memory that can be had: some 150 MB.
const MAX_DIRECTORIES: usize = 4 << 20;
