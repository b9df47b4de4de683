//! An open directory, listed piece by piece.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    error::{Error, Result},
    fs::{Entries, Entry, FileSystem, NodeId},
};

/// A directory that is being listed. It is not held in memory: only the entries told of last are kept, because the
/// kernel asks again for what did not fit the buffer of the program.
pub(super) struct Directory {
    files: Arc<dyn FileSystem>,
    node: NodeId,
    /// The root of the volume, which no directory can hold.
    root: Option<NodeId>,
    /// `None` before the start, and after a reader has panicked.
    entries: Option<Entries>,
    /// The position of the first entry that is kept.
    first: u64,
    kept: VecDeque<Entry>,
    /// What comes after the entries that are kept, once that is known: nothing more, or an error.
    end: Option<Result<()>>,
    /// What cannot be here: a name that no file of this computer can have, or one for the root.
    left_out: Option<Entry>,
}

impl Directory {
    pub(super) fn new(files: &Arc<dyn FileSystem>, node: NodeId, root: Option<NodeId>) -> Self {
        Self {
            files: files.clone(),
            node,
            root,
            entries: None,
            first: 0,
            kept: VecDeque::new(),
            end: None,
            left_out: None,
        }
    }

    /// The entry at a position, counted from 0; `None` after the last one. The next position is cheap, one far before
    /// the last one is not.
    ///
    /// What cannot be here is left out, and the end is then an error: so all others can be used, and no program
    /// takes them for all that there is.
    pub(super) fn at(&mut self, position: u64) -> Result<Option<&Entry>> {
        if position < self.first {
            self.begin()?;
        }
        while position >= self.first + self.kept.len() as u64 {
            match &self.end {
                Some(Ok(())) => return Ok(None),
                Some(Err(error)) => return Err(error.duplicate()),
                None => self.step()?,
            }
        }
        Ok(self.kept.get((position - self.first) as usize))
    }

    fn can_be_here(&self, entry: &Entry) -> bool {
        entry.name.is_plain() && entry.name.as_bytes().len() <= MAX_NAME && Some(entry.node) != self.root
    }

    fn begin(&mut self) -> Result<()> {
        (self.first, self.end, self.left_out) = (0, None, None);
        self.kept.clear();
        self.entries = Some(self.files.clone().read_dir(self.node)?);
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        if self.entries.is_none() {
            self.begin()?;
        }
        // It is put back when it has not panicked.
        let Some(mut entries) = self.entries.take() else { return Ok(()) };
        match entries.next() {
            Some(Ok(entry)) if self.can_be_here(&entry) => {
                if self.kept.len() >= KEPT {
                    self.kept.pop_front();
                    self.first += 1;
                }
                self.kept.push_back(entry);
            }
            Some(Ok(entry)) => self.left_out = Some(entry),
            Some(Err(error)) => self.end = Some(Err(error)),
            None => {
                self.end = Some(self.left_out.as_ref().map_or(Ok(()), |entry| {
                    let problem = format!("it holds {:?}, which cannot be the name of a file here", entry.name);
                    Err(Error::damaged(format!("directory {}", self.node.number), problem))
                }));
            }
        }
        self.entries = Some(entries);
        Ok(())
    }
}

/// More entries than the kernel asks for at once, by far.
const KEPT: usize = 2048;
/// Bytes of a name, as FUSE has it (`FUSE_NAME_MAX`).
const MAX_NAME: usize = 1024;
