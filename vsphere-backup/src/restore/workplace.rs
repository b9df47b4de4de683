//! The folder beside a file in which a restore makes it, so that no half file ever has its name.
//!
//! A file `web.vmdk` is made in `web.vmdk.restoring/`, with every other file that belongs to it, and a record of how far
//! it is. What is whole is moved out of it, the file that was asked for last. The lock on the folder keeps others out;
//! it ends with the process.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    repository::{PointId, Repository},
};

/// A locked folder, for one file with what belongs to it.
#[derive(Debug)]
pub(super) struct Workplace {
    target: PathBuf,
    folder: PathBuf,
    /// Names of the files that belong together; the one that was asked for is the last.
    names: Vec<PathBuf>,
    overwrite: bool,
    lock: Arc<File>,
}

/// What a folder says of the files in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) repository: String,
    pub(super) point: PointId,
    pub(super) disk: i32,
    pub(super) capacity: u64,
    pub(super) format: String,
    /// Below it everything is written, and was durable before this was.
    pub(super) position: u64,
    /// The files are whole and being moved out.
    pub(super) placing: bool,
}

impl Record {
    pub(super) fn new(repository: &Repository, point: &PointId, disk: i32, capacity: u64, format: &str) -> Self {
        let (repository, point, format) = (repository.id().to_string(), point.clone(), format.to_owned());
        Self { repository, point, disk, capacity, format, position: 0, placing: false }
    }

    /// Tells whether another record is of the same work.
    fn same_work(&self, other: &Self) -> bool {
        *self == Self { position: self.position, placing: self.placing, ..other.clone() }
    }
}

impl Workplace {
    /// Makes the folder, or takes the one that an earlier restore left, and locks it.
    ///
    /// `others` are names of files that belong to the one at `target`.
    ///
    /// # Errors
    /// [`Error::File`], also when one of the files exists and may not be replaced, and when another restore makes it.
    pub(super) async fn open(target: &Path, others: Vec<PathBuf>, overwrite: bool) -> Result<Self> {
        let wrong = |operation| wrong(operation, target);
        let name = target.file_name().ok_or_else(|| Error::invalid("a restore needs the name of a file"))?;
        let mut folder = name.to_owned();
        folder.push(SUFFIX);
        let folder = target.with_file_name(folder);
        let mut names = others;
        names.push(name.into());
        let lock = async {
            // A write of a restore that was dropped may be under way still, and holds the lock.
            for _ in 0..LOOKS {
                if let Some(lock) = lock(&folder)? {
                    return Ok(lock);
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(io::Error::new(io::ErrorKind::WouldBlock, "another restore makes it"))
        };
        let lock = Arc::new(lock.await.map_err(wrong("locking the folder of"))?);
        let place = Self { target: target.to_owned(), folder, names, overwrite, lock };
        let free = place.take_back().map_err(wrong("taking back the files of")).and_then(|()| place.check_free());
        if free.is_err() {
            // Unless there is something in it.
            let _ = fs::remove_dir(&place.folder);
        }
        free.map(|()| place)
    }

    /// Where the file that was asked for is made.
    pub(super) fn path(&self) -> PathBuf {
        self.file(self.names.last().expect("there is one"))
    }

    /// What keeps the folder locked while it is there.
    pub(super) fn lock(&self) -> Arc<File> {
        self.lock.clone()
    }

    /// Returns how far an earlier restore came that did the same work, when all its files are there.
    pub(super) fn resume(&self, work: &Record) -> Option<Record> {
        let record = self.record()?;
        // Files, not links to whatever.
        let whole =
            self.names.iter().all(|name| fs::symlink_metadata(self.file(name)).is_ok_and(|file| file.is_file()));
        (whole && record.same_work(work)).then_some(record)
    }

    /// Says how far the restore is. Durable when it returns.
    pub(super) fn note(&self, record: &Record) -> Result<()> {
        let noted = || {
            let fresh = self.folder.join("record.tmp");
            let mut file = File::create(&fresh)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            file.sync_all()?;
            fs::rename(&fresh, self.folder.join(RECORD))?;
            self.lock.sync_all()
        };
        noted().map_err(wrong("noting the position of", &self.target))
    }

    /// Removes what an earlier restore left in the folder.
    pub(super) fn clear(&self) -> Result<()> {
        let cleared = || {
            // The record first: it is believed when the files are there.
            [RECORD.as_ref(), "record.tmp".as_ref()]
                .into_iter()
                .try_for_each(|name: &Path| remove(&self.file(name)))?;
            self.names.iter().try_for_each(|name| remove(&self.file(name)))
        };
        cleared().map_err(wrong("removing the incomplete files of", &self.target))
    }

    /// Removes the folder and what is in it.
    pub(super) fn discard(&self) -> Result<()> {
        self.clear()?;
        fs::remove_dir(&self.folder).map_err(wrong("removing the folder of", &self.target))
    }

    /// Moves files out that are whole and durable.
    ///
    /// # Errors
    /// [`Error::File`], also when there is a file of that name by now: what was made is in the folder still, or, with a
    /// record, will be when that is opened again.
    pub(super) fn place(&self, record: Option<&Record>) -> Result<()> {
        if let Some(record) = record {
            self.note(&Record { placing: true, ..record.clone() })?;
        }
        let mut moved = Vec::new();
        let mut placed = || {
            if self.overwrite && self.names.len() > 1 {
                // It names the others, and they are no longer its own in a moment.
                remove(&self.target)?;
            }
            for name in &self.names {
                rename(&self.file(name), &self.target.with_file_name(name), self.overwrite)?;
                moved.push(name);
            }
            self.sync_outside()
        };
        if let Err(error) = placed() {
            // Nobody else takes them back.
            for name in moved.into_iter().filter(|_| record.is_none()) {
                if let Err(error) = rename(&self.target.with_file_name(name), &self.file(name), false) {
                    tracing::warn!(name = %name.display(), %error, "a part of an incomplete file stays");
                }
            }
            return Err(wrong("naming", &self.target)(error));
        }
        if let Err(error) = self.discard() {
            tracing::debug!(folder = %self.folder.display(), %error, "a folder that is done with stays");
        }
        Ok(())
    }

    fn file(&self, name: &Path) -> PathBuf {
        self.folder.join(name)
    }

    fn record(&self) -> Option<Record> {
        let path = self.folder.join(RECORD);
        let small = fs::symlink_metadata(&path).is_ok_and(|file| file.is_file() && file.len() < MAX_RECORD);
        serde_json::from_slice(&fs::read(path).ok().filter(|_| small)?).ok()
    }

    /// Takes files back that were moved out when the move of all ended early.
    fn take_back(&self) -> io::Result<()> {
        let moved = |name: &&PathBuf| !self.file(name).exists();
        if !self.record().is_some_and(|record| record.placing) {
            return Ok(());
        }
        if self.names.last().is_some_and(|name| moved(&name)) {
            // All were: only the folder was to be removed, and what was made is its owner's.
            return self.clear().map_err(io::Error::other);
        }
        for name in self.names.iter().filter(moved) {
            match rename(&self.target.with_file_name(name), &self.file(name), false) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.sync_outside()
    }

    /// Sees to it that no file has one of the names, unless it may be replaced.
    fn check_free(&self) -> Result<()> {
        for name in self.names.iter().filter(|_| !self.overwrite) {
            let path = self.target.with_file_name(name);
            match fs::symlink_metadata(&path) {
                Ok(_) => return Err(wrong("creating", &path)(io::ErrorKind::AlreadyExists.into())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(wrong("looking for", &path)(error)),
            }
        }
        Ok(())
    }

    /// Makes names in the folder of the target durable.
    fn sync_outside(&self) -> io::Result<()> {
        let outside = self.target.parent().filter(|outside| !outside.as_os_str().is_empty());
        File::open(outside.unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// Makes a folder and locks it; `None` when somebody else has it.
fn lock(folder: &Path) -> io::Result<Option<File>> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if !fs::symlink_metadata(folder)?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "its folder is none"));
    }
    let file = File::open(folder)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(None),
        other => other?,
    }
    // Whoever had it may have removed it meanwhile.
    let held = file.metadata()?;
    let same = fs::metadata(folder).is_ok_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino()));
    Ok(same.then_some(file))
}

/// Renames a file, over another one only when that is allowed.
fn rename(from: &Path, to: &Path, replace: bool) -> io::Result<()> {
    if replace {
        return fs::rename(from, to);
    }
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // File systems that cannot do it in one go.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => match fs::symlink_metadata(to) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(from, to),
        },
        other => other.map_err(Into::into),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn wrong(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::File { operation, path, source: source.into() }
}

const SUFFIX: &str = ".restoring";
const RECORD: &str = "record.json";
const MAX_RECORD: u64 = 1 << 16;
const LOOKS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);
