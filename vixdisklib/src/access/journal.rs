//! What was locked, written down before: one small file for each lock.

use std::{
    fs, io,
    io::Write,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::task::spawn_blocking;
use vsphere_vim::{MoRef, mo};

use crate::error::{Error, Result};

/// A directory with notes.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    directory: PathBuf,
}

/// One lock that is or may be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    /// The server's own id.
    pub(super) server: String,
    pub(super) vm: MoRef<mo::VirtualMachine>,
    pub(super) identity: String,
}

impl Journal {
    pub(super) async fn open(directory: PathBuf) -> Result<Self> {
        let journal = Self { directory };
        journal.work("making", |journal| fs::create_dir_all(&journal.directory)).await?;
        Ok(journal)
    }

    /// Writes a note to stable storage, unless there is one.
    pub(super) async fn add(&self, note: &Note) -> Result<()> {
        let note = note.clone();
        self.work("writing to", move |journal| {
            if journal.read()?.iter().any(|(_, known)| *known == note) {
                return Ok(());
            }
            let mut file = fs::File::options().write(true).create_new(true).open(journal.fresh_name())?;
            file.write_all(note.to_text().as_bytes())?;
            file.sync_all()?;
            // The file's name is as good as its content.
            fs::File::open(&journal.directory)?.sync_all()
        })
        .await
    }

    /// Removes a note; it need not be there.
    pub(super) async fn remove(&self, note: &Note) -> Result<()> {
        let note = note.clone();
        self.work("removing from", move |journal| {
            let found = journal.read()?;
            found.into_iter().filter(|(_, known)| *known == note).try_for_each(|(path, _)| {
                match fs::remove_file(path) {
                    // Another run was faster.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    removed => removed,
                }
            })
        })
        .await
    }

    pub(super) async fn notes(&self) -> Result<Vec<Note>> {
        self.work("reading", |journal| Ok(journal.read()?.into_iter().map(|(_, note)| note).collect())).await
    }

    fn read(&self) -> io::Result<Vec<(PathBuf, Note)>> {
        let mut notes = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            // What a crash cut off was never followed by a lock.
            if let Some(note) = fs::read_to_string(&path).ok().as_deref().and_then(Note::from_text) {
                notes.push((path, note));
            }
        }
        Ok(notes)
    }

    /// A name that no note of this or another program has.
    fn fresh_name(&self) -> PathBuf {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        self.directory.join(format!("{time:x}-{:x}-{number:x}.{EXTENSION}", std::process::id()))
    }

    async fn work<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let journal = self.clone();
        let done = spawn_blocking(move || work(&journal)).await.unwrap_or_else(|cut| Err(io::Error::other(cut)));
        done.map_err(|source| Error::Journal { operation, directory: self.directory.clone(), source })
    }
}

impl Note {
    pub(super) fn new(server: String, vm: MoRef<mo::VirtualMachine>, identity: &str) -> Self {
        Self { server, vm, identity: identity.to_owned() }
    }

    /// One line each; none of the values has line breaks. The last line tells a whole note from one that was cut.
    fn to_text(&self) -> String {
        format!("server={}\nvm={}\nidentity={}\nend\n", self.server, self.vm.value(), self.identity)
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut value = |key: &str| lines.next()?.strip_prefix(key).map(str::to_owned);
        let (server, vm, identity) = (value("server=")?, value("vm=")?, value("identity=")?);
        (lines.next() == Some("end")).then(|| Self { server, vm: MoRef::new(&vm), identity })
    }
}

const EXTENSION: &str = "access";

#[cfg(test)]
mod tests {
    use super::*;

    fn note(vm: &str) -> Note {
        Note::new("564d-uuid".to_owned(), MoRef::new(vm), "backup = of \"x\"")
    }

    #[test]
    fn a_note_that_was_cut_is_none() {
        let text = note("vm-7").to_text();
        assert_eq!(Note::from_text(&text), Some(note("vm-7")));
        for end in 0..text.len() - 1 {
            assert_eq!(Note::from_text(&text[..end]), None, "{end}");
        }
    }

    #[tokio::test]
    async fn notes_are_kept_once_and_removed_by_what_they_say() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path().join("a/b")).await.unwrap();
        for vm in ["vm-1", "vm-2", "vm-1"] {
            journal.add(&note(vm)).await.unwrap();
        }
        assert_eq!(journal.notes().await.unwrap().len(), 2);
        journal.remove(&note("vm-1")).await.unwrap();
        journal.remove(&note("vm-3")).await.unwrap();
        assert_eq!(journal.notes().await.unwrap(), [note("vm-2")]);
    }
}
