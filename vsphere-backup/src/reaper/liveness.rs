//! Who may still be at work: what a reaper asks before it touches anything.

use std::{any::Any, fmt, io::ErrorKind, path::PathBuf, time::Duration};

use crate::{
    error::{Error, Result},
    journal::Journal,
    repository::{VmId, now, storage::BoxFuture},
    thread::on_journal,
};

/// Knows which jobs are alive.
///
/// A job is alive when it runs, or when it may still be gone on with. Who does not know a job calls it dead.
pub trait Liveness: Send + Sync {
    /// Asks for a job, and keeps it from coming to life again while the returned fence is held.
    fn fence<'a>(&'a self, job: &'a str, vm: Option<&'a VmId>) -> BoxFuture<'a, Result<Fenced>>;
}

/// What is known of a job.
#[derive(Debug)]
#[non_exhaustive]
pub enum Fenced {
    /// It is alive, and who says so.
    Live(String),
    /// It is not, as long as this is held.
    Dead(Fence),
}

/// Keeps a job from coming to life while it is held.
pub struct Fence(#[allow(dead_code)] Option<Box<dyn Any + Send + Sync>>); // Held, never read.

impl Fence {
    /// Holds something, such as a lock, until the fence is dropped.
    pub fn holding(held: impl Any + Send + Sync) -> Self {
        Self(Some(Box::new(held)))
    }

    /// Holds nothing: who says so knows nothing of the job.
    pub fn none() -> Self {
        Self(None)
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fence")
    }
}

/// The journals in a folder: alive is a job whose journal a process holds, and one that was interrupted so recently
/// that the next backup may go on with it.
#[derive(Clone, Debug)]
#[must_use]
pub struct Journals {
    folder: PathBuf,
    spared: Duration,
}

impl Journals {
    /// The journals in this folder: that of [`Backup::journal`](crate::Backup::journal).
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), spared: Duration::from_secs(12 * 3600) }
    }

    /// States for how long after its begin an interrupted job is spared: twelve hours by default, the longest that
    /// [`Backup::resume_within`](crate::Backup::resume_within) allows.
    pub fn spare(mut self, age: Duration) -> Self {
        self.spared = age;
        self
    }

    /// Blocks for as long as reading a few files takes.
    fn ask(&self, job: &str, vm: Option<&VmId>) -> Result<Fenced> {
        let folder = self.folder.display();
        // What it says of the job is not known, and one journal is no reason to look at nothing.
        let foreign = |path: PathBuf| Ok(Fenced::Live(format!("{}, which another version wrote", path.display())));
        let Some(vm) = vm else {
            return match Journal::leftovers(&self.folder) {
                Ok(left) if left.iter().any(|left| left.job.id == job) => {
                    Ok(Fenced::Live(format!("a journal in {folder}")))
                }
                Ok(_) => Ok(Fenced::Dead(Fence::none())),
                Err(Error::Journal { path, source, .. }) if source.kind() == ErrorKind::InvalidData => foreign(path),
                Err(error) => Err(error),
            };
        };
        // Held by whoever reaps, so that no backup of the machine begins meanwhile or goes on.
        let journal = match Journal::open(&self.folder, vm) {
            Ok(journal) => journal,
            Err(Error::JournalInUse { path }) => {
                return Ok(Fenced::Live(format!("a process that holds {}", path.display())));
            }
            Err(Error::Journal { path, source, .. }) if source.kind() == ErrorKind::InvalidData => {
                return foreign(path);
            }
            Err(error) => return Err(error),
        };
        let own = journal.leftover().filter(|left| left.job.id == job && left.committed.is_none());
        // A clock that was put back makes it young.
        let young = |left: &crate::journal::Leftover| now().saturating_sub(left.job.created) < self.spared.as_secs();
        match own {
            Some(left) if young(left) => {
                Ok(Fenced::Live(format!("a journal in {folder}, with which a backup may go on")))
            }
            _ => Ok(Fenced::Dead(Fence::holding(journal))),
        }
    }
}

impl Liveness for Journals {
    fn fence<'a>(&'a self, job: &'a str, vm: Option<&'a VmId>) -> BoxFuture<'a, Result<Fenced>> {
        let (journals, job, vm) = (self.clone(), job.to_owned(), vm.cloned());
        Box::pin(on_journal(move || journals.ask(&job, vm.as_ref())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Record, sample_job};

    #[test]
    fn a_job_is_alive_while_its_journal_is_held_or_young() {
        let folder = tempfile::tempdir().unwrap();
        let (vm, job) = (VmId::parse(&sample_job().vm).unwrap(), sample_job().id);
        let old = Journals::in_folder(folder.path());
        let young = old.clone().spare(Duration::from_secs(u64::MAX));
        let mut journal = Journal::open(folder.path(), &vm).unwrap();
        journal.begin(sample_job()).unwrap();
        journal.append(Record::LockIntent).unwrap();
        assert!(matches!(old.ask(&job, Some(&vm)), Ok(Fenced::Live(_))), "it is held");
        assert!(
            matches!(old.ask("fedcba9876543210", Some(&vm)), Ok(Fenced::Live(_))),
            "another job of the machine runs"
        );
        drop(journal);
        assert!(matches!(young.ask(&job, Some(&vm)), Ok(Fenced::Live(_))), "it may be gone on with");
        assert!(matches!(young.ask("fedcba9876543210", Some(&vm)), Ok(Fenced::Dead(_))));
        let Ok(Fenced::Dead(fence)) = old.ask(&job, Some(&vm)) else { panic!("it is dead") };
        assert!(
            matches!(Journal::open(folder.path(), &vm), Err(Error::JournalInUse { .. })),
            "while the fence is held"
        );
        drop(fence);
        let foreign = folder.path().join("other.journal");
        std::fs::write(&foreign, b"VSBKJRN2").unwrap();
        let other = VmId::parse("other").unwrap();
        assert!(matches!(old.ask("fedcba9876543210", Some(&other)), Ok(Fenced::Live(_))), "nobody knows what it says");
        assert!(matches!(old.ask("fedcba9876543210", None), Ok(Fenced::Live(_))));
        std::fs::remove_file(foreign).unwrap();
        Journal::open(folder.path(), &vm).unwrap();
        assert!(
            matches!(old.ask(&job, None), Ok(Fenced::Live(_))),
            "of a disk without a machine, any journal's word counts"
        );
        assert!(matches!(old.ask("fedcba9876543210", None), Ok(Fenced::Dead(_))));
    }
}
