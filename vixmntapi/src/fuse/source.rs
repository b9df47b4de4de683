//! What is mounted: one file system, or a folder for each volume of a set.

use std::{
    collections::HashSet,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Failure, ids::Place};
use crate::{
    error::Result,
    fs::{FileName, FileSystem, NodeId},
    set::VolumeId,
};

/// A file system, or why there is none.
pub(super) struct Slot {
    /// The name of its folder, when there is one for each volume.
    pub(super) name: FileName,
    pub(super) root: NodeId,
    pub(super) files: Result<Arc<dyn FileSystem>>,
    /// Bytes of a block or cluster.
    pub(super) block_size: u32,
}

impl Slot {
    /// A file system from its root on.
    pub(super) fn new(name: FileName, files: Result<Arc<dyn FileSystem>>) -> Self {
        let (root, block_size) =
            files.as_ref().map_or((NodeId::default(), 1), |files| (files.root(), files.info().block_size.max(1)));
        Self { name, root, files, block_size }
    }
}

/// All that is behind a mount.
pub(super) struct Source {
    pub(super) slots: Vec<Slot>,
    pub(super) is_set: bool,
}

impl Source {
    /// The file system of a volume.
    pub(super) fn files(&self, volume: usize) -> Result<&Arc<dyn FileSystem>, Failure> {
        let slot = self.slots.get(volume).ok_or(Failure::Code(fuser::Errno::ESTALE))?;
        slot.files.as_ref().map_err(|error| error.duplicate().into())
    }

    /// Bytes of a block of the file system that a file is in.
    pub(super) fn block_size(&self, place: Place) -> u32 {
        match place {
            Place::In { volume, .. } => self.slots.get(volume).map_or(1, |slot| slot.block_size),
            Place::Top => 1,
        }
    }

    /// The directory of a volume below which all its others are.
    pub(super) fn root(&self, volume: usize) -> Option<NodeId> {
        self.slots.get(volume).map(|slot| slot.root)
    }

    /// Finds the folder of a volume.
    pub(super) fn folder(&self, name: &[u8]) -> Option<Place> {
        let volume = self.slots.iter().position(|slot| slot.name.as_bytes() == name)?;
        self.place(volume)
    }

    /// Where files are, when all is mounted on a folder.
    pub(super) fn path(&self, folder: &Path, slot: &Slot) -> PathBuf {
        if self.is_set { folder.join(OsStr::from_bytes(slot.name.as_bytes())) } else { folder.to_owned() }
    }

    /// The folder of a volume.
    pub(super) fn place(&self, volume: usize) -> Option<Place> {
        self.root(volume).map(|node| Place::In { volume, node })
    }
}

/// Names the folders of volumes: their ids with `.` for `/`. Names that come from disks may be no names of files, and may
/// come twice.
pub(super) fn folder_names<'a>(volumes: impl Iterator<Item = &'a VolumeId>) -> Vec<FileName> {
    let mut taken = HashSet::new();
    let mut names = Vec::new();
    for id in volumes {
        let plain: String =
            id.as_str().chars().map(|char| if matches!(char, '/' | '\0') { '.' } else { char }).collect();
        let cut = plain.char_indices().map(|(at, char)| at + char.len_utf8()).take_while(|end| *end <= MAX_NAME).last();
        let plain = plain.get(..cut.unwrap_or(0)).unwrap_or_default();
        let plain = if matches!(plain, "" | "." | "..") { "volume" } else { plain };
        let mut name = plain.to_owned();
        let mut again = 2;
        while !taken.insert(name.clone()) {
            name = format!("{plain}~{again}");
            again += 1;
        }
        names.push(FileName::from(&*name));
    }
    names
}

/// Bytes of a folder's name, so that a number fits after it.
const MAX_NAME: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_have_plain_names_that_differ() {
        let long = "x".repeat(300);
        let ids = ["disk0p1", "lvm/a/b", "lvm/a.b", "..", "", "a\0b", &long].map(VolumeId::of_test);
        let names = folder_names(ids.iter());
        assert!(names.iter().all(FileName::is_plain), "{names:?}");
        let names: Vec<_> = names.iter().map(FileName::to_string_lossy).collect();
        assert_eq!(names[..6], ["disk0p1", "lvm.a.b", "lvm.a.b~2", "volume", "volume~2", "a.b"]);
        assert_eq!(names[6].len(), MAX_NAME);
    }
}
