//! The journal: what a backup is about to do to a server, durable before it is done.
//!
//! One file for each virtual machine, `<instanceUuid>.journal`, in a folder that the caller gives;
//! beside it `<instanceUuid>.lock`, which the process that works on the machine holds locked
//! (`flock`: the kernel releases it when the process dies, however it dies). A file that is there
//! when a backup begins tells what an earlier one left behind: [`Journal::leftover`]. A backup
//! that ends well removes its file.
//!
//! An interrupted backup may go on where it was: the journal names the disks of its snapshot that are stored, and up to
//! where ([`StoredDisk`]). A file that grew long by that is written anew with what still counts.
//!
//! What a job may have left in a store of others is no matter of the server: it hinders no other job, and it stays written
//! down, in a file that names nothing else, until a backup into that store has discarded it ([`Leftover::stores`]).

mod file;
mod handle;
mod lock;
pub(crate) mod marker;
mod record;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

pub use self::record::{InStore, Job, Leftover, MachineState, Record, SnapshotState, StoredDisk};
#[cfg(test)]
pub(crate) use self::record::{sample_disk, sample_job};
use self::{
    file::{encode, read, scan, set_aside, sync_folder, write_anew},
    lock::Lock,
};
pub(crate) use self::{
    handle::{Abandoned, JournalHandle},
    record::FCD_PREFIX,
};
use crate::{
    error::{Error, Result},
    repository::VmId,
};

/// The journal of one virtual machine, held by this process.
///
/// Its methods block for as long as a sync of the disk takes.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Option<File>,
    leftover: Option<Leftover>,
    /// Keeps the lock until it is dropped; `None` once it was given back.
    lock: Option<Lock>,
}

impl Journal {
    /// Opens the journal of a virtual machine in `folder`, which is created when it does not
    /// exist, and locks it.
    ///
    /// # Errors
    /// [`Error::JournalInUse`] when another process, or another backup of this one, works on the
    /// machine; [`Error::Journal`], also when another version wrote it.
    pub fn open(folder: &Path, vm: &VmId) -> Result<Self> {
        let path = folder.join(format!("{vm}.journal"));
        let wrong = |operation| {
            let path = path.clone();
            move |source| Error::Journal { path, operation, source }
        };
        std::fs::create_dir_all(folder).map_err(wrong("creating the folder"))?;
        let lock_path = folder.join(format!("{vm}.lock"));
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(wrong("opening the lock"))?;
        let Some(lock) = Lock::take(lock).map_err(wrong("locking"))? else {
            return Err(Error::JournalInUse { path: lock_path });
        };
        let leftover = read(&path).map_err(wrong("reading"))?;
        if leftover.is_none() {
            set_aside(&path).map_err(wrong("setting aside what is no journal"))?;
        }
        Ok(Self { path, file: None, leftover, lock: Some(lock) })
    }

    /// Lists the machines whose journals in `folder` say that something is to be undone, also
    /// those that another process works on now.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn leftovers(folder: &Path) -> Result<Vec<Leftover>> {
        let wrong = |source| Error::Journal { path: folder.into(), operation: "listing", source };
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(wrong(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(wrong)?.path();
            if path.extension().is_some_and(|extension| extension == "journal") {
                found.extend(read(&path).map_err(wrong)?.filter(|left| !left.is_clean()));
            }
        }
        Ok(found)
    }

    /// Returns what the journal says now: before [`begin`](Self::begin) what an earlier job left
    /// behind, afterwards what this one would leave.
    pub fn leftover(&self) -> Option<&Leftover> {
        self.leftover.as_ref()
    }

    /// Begins a job, replacing what the file said. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Invalid`] when an earlier job's leftovers are not undone yet; [`Error::Journal`].
    pub fn begin(&mut self, job: Job) -> Result<()> {
        self.check_held()?;
        if self.leftover.as_ref().is_some_and(|leftover| !leftover.is_clean()) {
            return Err(Error::invalid("the leftovers of an earlier job are to be undone first"));
        }
        self.replace(job).map_err(|source| self.error("beginning", source))
    }

    /// Adds a record. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Journal`]; [`Error::Invalid`] when nothing was begun and nothing was left.
    pub fn append(&mut self, record: Record) -> Result<()> {
        self.check_held()?;
        let Some(leftover) = &mut self.leftover else {
            return Err(Error::invalid("a journal's first record is that a job begins"));
        };
        // Taken, and put back only after a success: after a failure the file may end with half a
        // record, which the next call cuts off.
        let (file, path) = (self.file.take(), &self.path);
        let work = || {
            let mut file = match file {
                Some(file) => file,
                None => {
                    let good = scan(&std::fs::read(path)?, drop)?;
                    let file = OpenOptions::new().append(true).open(path)?;
                    file.set_len(good as u64)?;
                    file
                }
            };
            file.write_all(&encode(&record)?)?;
            file.sync_data()?;
            let len = file.metadata()?.len();
            Ok((file, len))
        };
        match work() {
            Ok((file, len)) => {
                leftover.apply(record);
                self.file = Some(file);
                if len > LONG_FILE {
                    // The long one is as good.
                    match write_anew(&self.path, leftover) {
                        Ok(file) => self.file = Some(file),
                        Err(error) => {
                            tracing::warn!(journal = %self.path.display(), %error, "a long journal stays long");
                            self.file = None;
                        }
                    }
                }
                Ok(())
            }
            Err(source) => Err(self.error("appending", source)),
        }
    }

    /// Removes the file of a job that left nothing behind; what stores of others may hold stays written down. Durable
    /// when it returns.
    ///
    /// # Errors
    /// [`Error::Invalid`] when something is left to be undone; [`Error::Journal`].
    pub fn clear(&mut self) -> Result<()> {
        self.check_held()?;
        if self.leftover.as_ref().is_some_and(|leftover| !leftover.is_clean()) {
            return Err(Error::invalid("what a journal names is to be undone before it is cleared"));
        }
        if let Some(leftover) = self.leftover.as_ref().filter(|leftover| !leftover.stores.is_empty()) {
            let job = leftover.job.clone();
            return self.replace(job).map_err(|source| self.error("clearing", source));
        }
        self.file = None;
        self.leftover = None;
        let work = || match std::fs::remove_file(&self.path) {
            Ok(()) => sync_folder(&self.path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        work().map_err(|source| self.error("clearing", source))
    }

    /// Gives the lock back: the next run may have the machine, and nothing is written here any more.
    pub(crate) fn release(&mut self) {
        self.file = None;
        self.lock = None;
    }

    /// Writes the file anew for a job that has done nothing yet; what stores of others may hold is not forgotten.
    fn replace(&mut self, job: Job) -> io::Result<()> {
        let stores = self.leftover.as_ref().map(|leftover| leftover.stores.clone()).unwrap_or_default();
        let leftover = Leftover { stores, ..Leftover::new(job) };
        self.file = Some(write_anew(&self.path, &leftover)?);
        self.leftover = Some(leftover);
        Ok(())
    }

    fn check_held(&self) -> Result<()> {
        match self.lock {
            Some(_) => Ok(()),
            None => Err(Error::Abandoned),
        }
    }

    fn error(&self, operation: &'static str, source: io::Error) -> Error {
        Error::Journal { path: self.path.clone(), operation, source }
    }
}

/// A longer file is written anew after each record.
const LONG_FILE: u64 = 1 << 20;
#[cfg(test)]
mod tests {
    use super::{record::sample_job, *};

    fn vm() -> VmId {
        VmId::parse("5029c440").unwrap()
    }

    #[test]
    fn what_was_not_undone_is_told_to_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path(), &vm()).unwrap();
        assert_eq!(journal.leftover(), None);
        journal.begin(sample_job()).unwrap();
        journal.append(Record::LockIntent).unwrap();
        journal.append(Record::SnapshotIntent).unwrap();
        journal.append(Record::SnapshotCreated { snapshot: "snapshot-1".into() }).unwrap();
        assert!(journal.clear().is_err(), "it would forget a snapshot");
        drop(journal);

        assert_eq!(Journal::leftovers(folder.path()).unwrap().len(), 1);
        let mut journal = Journal::open(folder.path(), &vm()).unwrap();
        let left = journal.leftover().unwrap().clone();
        assert_eq!(left.snapshot, SnapshotState::Exists("snapshot-1".into()));
        assert!(left.lock && left.job == sample_job());
        assert!(journal.begin(sample_job()).is_err(), "it would forget a snapshot");
        journal.append(Record::SnapshotRemoved).unwrap();
        drop(journal);

        let mut journal = Journal::open(folder.path(), &vm()).unwrap();
        assert_eq!(journal.leftover().unwrap().snapshot, SnapshotState::Absent);
        journal.append(Record::LockReleased).unwrap();
        journal.clear().unwrap();
        drop(journal);
        assert_eq!(Journal::open(folder.path(), &vm()).unwrap().leftover(), None);
        assert_eq!(Journal::leftovers(folder.path()).unwrap(), []);
        assert_eq!(Journal::leftovers(&folder.path().join("none")).unwrap(), []);
    }

    #[test]
    fn what_a_store_of_others_may_hold_hinders_no_job_and_is_not_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let intent = |job: &str| Record::StoreIntent { job: job.into(), store: "store".into() };
        let mut journal = Journal::open(folder.path(), &vm()).unwrap();
        journal.begin(sample_job()).unwrap();
        journal.append(intent("1")).unwrap();
        journal.clear().unwrap();
        drop(journal);
        assert_eq!(Journal::leftovers(folder.path()).unwrap(), [], "nothing is left on the server");
        let mut journal = Journal::open(folder.path(), &vm()).unwrap();
        journal.begin(sample_job()).unwrap();
        journal.append(intent("2")).unwrap();
        journal.append(Record::StoreDiscarded { job: "2".into() }).unwrap();
        drop(journal);
        let mut journal = Journal::open(folder.path(), &vm()).unwrap();
        let left = journal.leftover().unwrap();
        assert!(left.is_clean() && left.stores == [("1".to_owned(), "store".to_owned())].into(), "{left:?}");
        journal.append(Record::StoreDiscarded { job: "1".into() }).unwrap();
        journal.clear().unwrap();
        assert!(!folder.path().join("5029c440.journal").exists());
    }

    #[test]
    fn two_runs_cannot_hold_one_machine() {
        let folder = tempfile::tempdir().unwrap();
        let first = Journal::open(folder.path(), &vm()).unwrap();
        let second = Journal::open(folder.path(), &vm());
        assert!(matches!(second, Err(Error::JournalInUse { .. })));
        let other = VmId::parse("other").unwrap();
        Journal::open(folder.path(), &other).unwrap();
        drop(first);
        Journal::open(folder.path(), &vm()).unwrap();
    }

    #[test]
    fn a_journal_that_grew_long_is_written_anew_and_says_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path(), &vm()).unwrap();
        journal.begin(sample_job()).unwrap();
        journal.append(Record::LockIntent).unwrap();
        journal.append(Record::SnapshotCreated { snapshot: "snapshot-1".into() }).unwrap();
        let mut stored = record::sample_disk();
        stored.record.reason = "r".repeat(100 << 10);
        for round in 0..30 {
            stored.position = Some(round);
            journal.append(Record::DiskStored(stored.clone())).unwrap();
        }
        let left = journal.leftover().unwrap().clone();
        assert_eq!(left.disks[&2000].position, Some(29));
        drop(journal);
        let path = folder.path().join("5029c440.journal");
        assert!(std::fs::metadata(&path).unwrap().len() <= LONG_FILE + (200 << 10));
        assert_eq!(Journal::open(folder.path(), &vm()).unwrap().leftover(), Some(&left));
        // A disk that is done stays done.
        let mut journal = Journal::open(folder.path(), &vm()).unwrap();
        journal.append(Record::DiskStored(StoredDisk { position: None, ..stored.clone() })).unwrap();
        journal.append(Record::DiskStored(stored)).unwrap();
        assert_eq!(journal.leftover().unwrap().disks[&2000].position, None);
    }

    #[test]
    fn a_journal_that_was_released_takes_no_record_and_frees_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path(), &vm()).unwrap();
        journal.begin(sample_job()).unwrap();
        journal.release();
        assert!(matches!(journal.append(Record::LockIntent), Err(Error::Abandoned)));
        assert!(matches!(journal.clear(), Err(Error::Abandoned)));
        assert!(Journal::open(folder.path(), &vm()).unwrap().leftover().is_some());
    }
}
