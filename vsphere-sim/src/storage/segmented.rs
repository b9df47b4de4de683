//! A sparse file larger than the host's file size limit, as a row of ordinary sparse files.
//!
//! Block N of the disk lies at N's own offset, so holes cost nothing and no slot table is needed. ext4 stops
//! at 16 TiB a file while a virtual disk may have 62 TiB, hence segments.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Error, Result};

/// Bytes in one segment. Only a disk above this size has a second file.
const SEGMENT: u64 = 4 << 40;

/// The bytes of one layer.
#[derive(Debug)]
pub(super) struct SegmentedFile {
    stem: PathBuf,
    segments: Mutex<BTreeMap<u64, Arc<File>>>,
}

impl SegmentedFile {
    /// A file that is created, segment by segment, when it is first written. `stem` gets a number appended.
    pub(super) fn new(stem: PathBuf) -> Self {
        Self { stem, segments: Mutex::default() }
    }

    /// Reads bytes that were written before; what was not is zero.
    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let len = within_segment(at, buffer.len() - done);
            let part = &mut buffer[done..done + len];
            let mut filled = 0;
            if let Some(file) = self.existing(at / SEGMENT) {
                while filled < len {
                    match file.read_at(&mut part[filled..], at % SEGMENT + filled as u64) {
                        Ok(0) => break,
                        Ok(read) => filled += read,
                        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(Error::io("read layer", &self.path(at / SEGMENT), error)),
                    }
                }
            }
            part[filled..].fill(0);
            done += len;
        }
        Ok(())
    }

    /// Writes `bytes` at `offset`.
    pub(super) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let len = within_segment(at, bytes.len() - done);
            let number = at / SEGMENT;
            let file = self.segment(number)?;
            file.write_all_at(&bytes[done..done + len], at % SEGMENT)
                .map_err(|error| Error::io("write layer", &self.path(number), error))?;
            done += len;
        }
        Ok(())
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self) -> Result<()> {
        let files: Vec<_> = self.lock().iter().map(|(number, file)| (*number, file.clone())).collect();
        for (number, file) in files {
            file.sync_data().map_err(|error| Error::io("sync layer", &self.path(number), error))?;
        }
        Ok(())
    }

    /// Removes the files.
    pub(super) fn delete(&self) -> Result<()> {
        for (number, file) in std::mem::take(&mut *self.lock()) {
            drop(file);
            let path = self.path(number);
            std::fs::remove_file(&path).map_err(|error| Error::io("delete layer", &path, error))?;
        }
        Ok(())
    }

    fn existing(&self, number: u64) -> Option<Arc<File>> {
        self.lock().get(&number).cloned()
    }

    fn segment(&self, number: u64) -> Result<Arc<File>> {
        let mut segments = self.lock();
        if let Some(file) = segments.get(&number) {
            return Ok(file.clone());
        }
        let path = self.path(number);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(|error| Error::io("create layer", &path, error))?;
        let file = Arc::new(file);
        segments.insert(number, file.clone());
        Ok(file)
    }

    fn path(&self, number: u64) -> PathBuf {
        segment_path(&self.stem, number)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<File>>> {
        // A panic while the map was held cannot leave it half changed: every change is one insert or take.
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn segment_path(stem: &Path, number: u64) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(format!("-s{:03}", number + 1));
    PathBuf::from(name)
}

fn within_segment(at: u64, len: usize) -> usize {
    usize::try_from(SEGMENT - at % SEGMENT).map_or(len, |room| room.min(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_cross_a_segment_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = SegmentedFile::new(dir.path().join("disk"));
        file.write_at(SEGMENT - 3, b"abcdef").unwrap();
        let mut back = [9; 8];
        file.read_at(SEGMENT - 4, &mut back).unwrap();
        assert_eq!(&back, b"\0abcdef\0");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        file.delete().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
