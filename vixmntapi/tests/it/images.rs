//! Small images with a tree in them, opened, for what is done with any file system.
#![allow(dead_code)] // Each test takes what it needs.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use tempfile::TempDir;
use vixmntapi::fs::FileSystem;

use crate::{disks::raw, peers::run, tree::Tree};

/// An image, until this is dropped.
pub(crate) struct Image {
    path: PathBuf,
    _folder: TempDir,
}

impl Image {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// A tree as ext4; the caller has looked whether `mke2fs` is there.
pub(crate) fn ext4(tree: &Tree) -> (Arc<dyn FileSystem>, Image) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ext4.img");
    File::create(&path).unwrap().set_len(128 << 20).unwrap();
    run(crate::peers::peer("mke2fs").unwrap(), &[&"-q", &"-F", &"-t", &"ext4", &"-d", &tree.path(), &path]);
    let files = vixmntapi::fs::open(&raw(&path)).unwrap().unwrap();
    (files, Image { path, _folder: folder })
}
