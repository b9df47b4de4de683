//! Checking: sound images have no findings, damaged ones have the right ones.

mod chains;
mod clean;
pub(crate) mod damage;
mod hostile;
mod snapshots;
pub(crate) mod streams;

use std::path::Path;

use vmdk::{
    check::{CheckOptions, Problem, Report, check},
    layout::SparseHeader,
};

pub(crate) fn deep(path: &Path) -> Report {
    check(path, &CheckOptions::new().deep(true)).unwrap()
}

/// The kinds that were found, with their counts.
pub(crate) fn problems(report: &Report) -> Vec<(Problem, u64)> {
    report.counts().collect()
}

pub(crate) fn assert_clean(path: &Path) {
    let report = deep(path);
    assert!(report.is_clean(), "{}: {report}", path.display());
}

/// A file changed word by word.
pub(crate) struct Patch {
    path: std::path::PathBuf,
    pub(crate) bytes: Vec<u8>,
}

impl Patch {
    pub(crate) fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), bytes: std::fs::read(path).unwrap() }
    }

    pub(crate) fn header(&self) -> SparseHeader {
        SparseHeader::parse(self.bytes[..512].try_into().unwrap(), "test").unwrap()
    }

    pub(crate) fn word(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.bytes[at as usize..at as usize + 4].try_into().unwrap())
    }

    pub(crate) fn set(&mut self, at: u64, value: u32) {
        self.bytes[at as usize..at as usize + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Where the first (`copy` 0) or the redundant (`copy` 1) directory has the entry of `table`.
    pub(crate) fn directory_entry(&self, copy: usize, table: u64) -> u64 {
        let header = self.header();
        [header.directory_sector, header.redundant_directory_sector][copy] * 512 + table * 4
    }

    /// Where the table has the entry of `grain`.
    pub(crate) fn grain_entry(&self, copy: usize, grain: u64) -> u64 {
        u64::from(self.word(self.directory_entry(copy, grain / 512))) * 512 + grain % 512 * 4
    }

    /// Changes the entry of a grain in both tables.
    pub(crate) fn set_grain(&mut self, grain: u64, sector: u32) {
        for copy in 0..2 {
            self.set(self.grain_entry(copy, grain), sector);
        }
    }

    pub(crate) fn save(self) {
        std::fs::write(self.path, self.bytes).unwrap();
    }
}
