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
//! The file is an eight-byte magic, then records: length (4 bytes, little endian), CRC-32 of
//! length and payload (4 bytes), payload (JSON). A record counts once it was synced. A torn tail,
//! which a power cut leaves, is cut off; nothing behind a bad record is believed.

pub(crate) mod marker;
mod record;

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

pub use self::record::{Job, Leftover, MachineState, Record, SnapshotState, StoredDisk};
#[cfg(test)]
pub(crate) use self::record::{sample_disk, sample_job};
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
    lock: Option<File>,
}

impl Journal {
    /// Opens the journal of a virtual machine in `folder`, which is created when it does not
    /// exist, and locks it.
    ///
    /// # Errors
    /// [`Error::JournalInUse`] when another process, or another backup of this one, works on the
    /// machine; [`Error::Journal`].
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
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(Error::JournalInUse { path: lock_path });
            }
            Err(error) => return Err(wrong("locking")(error.into())),
        }
        let leftover = read(&path).map_err(wrong("reading"))?;
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
        let leftover = Leftover::new(job);
        let file = write_anew(&self.path, &leftover).map_err(|source| self.error("beginning", source))?;
        self.file = Some(file);
        self.leftover = Some(leftover);
        Ok(())
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
                    let good = sound_len(&std::fs::read(path)?);
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

    /// Removes the file of a job that left nothing behind. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Invalid`] when something is left to be undone; [`Error::Journal`].
    pub fn clear(&mut self) -> Result<()> {
        self.check_held()?;
        if self.leftover.as_ref().is_some_and(|leftover| !leftover.is_clean()) {
            return Err(Error::invalid("what a journal names is to be undone before it is cleared"));
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

/// Writes a journal's file beside and renames it, so that no crash leaves one without its first record.
fn write_anew(path: &Path, leftover: &Leftover) -> io::Result<File> {
    let fresh = path.with_extension("journal.tmp");
    let mut file = File::create(&fresh)?;
    file.write_all(MAGIC)?;
    file.write_all(&encode(&Record::Begin(leftover.job.clone()))?)?;
    for record in leftover.records() {
        file.write_all(&encode(&record)?)?;
    }
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    sync_folder(path)?;
    Ok(file)
}

/// Reads a journal's file; `None` when there is none, or none with a first record.
fn read(path: &Path) -> io::Result<Option<Leftover>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_FILE).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut state: Option<Leftover> = None;
    for record in records(&bytes) {
        match (&mut state, record) {
            (None, Record::Begin(job)) => state = Some(Leftover::new(job)),
            (None, _) => {}
            (Some(state), record) => state.apply(record),
        }
    }
    Ok(state)
}

/// Decodes records up to the first that is not whole.
fn records(bytes: &[u8]) -> impl Iterator<Item = Record> + '_ {
    let mut rest = bytes.strip_prefix(MAGIC).unwrap_or_default();
    std::iter::from_fn(move || {
        let (payload, after) = next(rest)?;
        let record = serde_json::from_slice(payload).ok()?;
        rest = after;
        Some(record)
    })
}

/// Returns the length of the part of a file that is sound.
fn sound_len(bytes: &[u8]) -> usize {
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else { return 0 };
    while let Some((payload, after)) = next(rest) {
        if serde_json::from_slice::<Record>(payload).is_err() {
            break;
        }
        rest = after;
    }
    bytes.len() - rest.len()
}

fn next(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(8)?;
    let len = u32::from_le_bytes(head[..4].try_into().expect("4 bytes"));
    let sum = u32::from_le_bytes(head[4..].try_into().expect("4 bytes"));
    let (payload, after) = rest.split_at_checked(len as usize)?;
    (checksum(len, payload) == sum).then_some((payload, after))
}

fn encode(record: &Record) -> io::Result<Vec<u8>> {
    let payload = serde_json::to_vec(record)?;
    let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut bytes = len.to_le_bytes().to_vec();
    bytes.extend_from_slice(&checksum(len, &payload).to_le_bytes());
    bytes.extend_from_slice(&payload);
    Ok(bytes)
}

fn checksum(len: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&len.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Makes the names in the folder of `path` durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

const MAGIC: &[u8; 8] = b"VSBKJRN1";
/// A longer file is written anew after each record.
const LONG_FILE: u64 = 1 << 20;
/// No more than this is read: what is to be undone stands at the beginning.
const MAX_FILE: u64 = 64 << 20;

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
    fn a_torn_tail_is_cut_off_wherever_it_is_torn() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path(), &vm()).unwrap();
        journal.begin(sample_job()).unwrap();
        journal.append(Record::SnapshotIntent).unwrap();
        let path = folder.path().join("5029c440.journal");
        let good = std::fs::read(&path).unwrap();
        journal.append(Record::SnapshotCreated { snapshot: "snapshot-1".into() }).unwrap();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        for len in good.len()..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            let mut journal = Journal::open(folder.path(), &vm()).unwrap();
            assert_eq!(journal.leftover().unwrap().snapshot, SnapshotState::Possible);
            journal.append(Record::SnapshotRemoved).unwrap();
            drop(journal);
            let journal = Journal::open(folder.path(), &vm()).unwrap();
            assert_eq!(journal.leftover().unwrap().snapshot, SnapshotState::Absent);
        }
        // A flipped bit hides what is behind it, never what is before it.
        for at in good.len()..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            std::fs::write(&path, bad).unwrap();
            let journal = Journal::open(folder.path(), &vm()).unwrap();
            assert_eq!(journal.leftover().unwrap().snapshot, SnapshotState::Possible);
        }
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

    #[test]
    fn a_file_that_is_not_a_journal_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("5029c440.journal");
        for bytes in [&b""[..], b"VSBK", b"VSBKJRN1", b"something else entirely"] {
            std::fs::write(&path, bytes).unwrap();
            let mut journal = Journal::open(folder.path(), &vm()).unwrap();
            assert_eq!(journal.leftover(), None);
            journal.begin(sample_job()).unwrap();
            journal.clear().unwrap();
        }
    }
}
