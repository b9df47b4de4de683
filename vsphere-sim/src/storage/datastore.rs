//! A datastore: a directory on the host with a folder per VM.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chain::Place;
use super::{DiskOptions, DiskSource, DiskStore, Error, Result};

/// A simulated datastore.
#[derive(Debug)]
pub struct Datastore {
    name: String,
    root: PathBuf,
    temporary: bool,
}

impl Datastore {
    /// A datastore in `directory`, which is created if need be and kept afterwards.
    ///
    /// # Errors
    /// The host's.
    pub fn at(name: &str, directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory).map_err(|error| Error::io("create datastore", directory, error))?;
        Ok(Self { name: name.into(), root: directory.to_owned(), temporary: false })
    }

    /// A datastore in a new directory that goes away with it.
    ///
    /// # Errors
    /// The host's.
    pub fn temporary(name: &str) -> Result<Self> {
        let root = std::env::temp_dir().join(format!("vsphere-sim-{}", crate::ids::uuid()));
        std::fs::create_dir(&root).map_err(|error| Error::io("create datastore", &root, error))?;
        Ok(Self { name: name.into(), root, temporary: true })
    }

    /// The name in `[name] folder/file.vmdk`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory on the host.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether there is a folder of that name.
    pub fn has_folder(&self, folder: &str) -> bool {
        !folder.is_empty() && !folder.contains(['/', '\\', '\0']) && self.root.join(folder).is_dir()
    }

    /// Creates disk number `index` (from 0) of the VM whose files lie in `folder`.
    ///
    /// # Errors
    /// [`Error::BadBase`] and the host's.
    pub fn create_disk(
        &self,
        folder: &str,
        index: usize,
        source: &DiskSource,
        options: &DiskOptions,
    ) -> Result<Arc<DiskStore>> {
        let stem = if index == 0 { folder.to_owned() } else { format!("{folder}_{index}") };
        self.create_disk_file(folder, &stem, source, options)
    }

    /// Creates the disk `[name] folder/stem.vmdk`.
    ///
    /// # Errors
    /// [`Error::BadBase`] and the host's.
    pub fn create_disk_file(
        &self,
        folder: &str,
        stem: &str,
        source: &DiskSource,
        options: &DiskOptions,
    ) -> Result<Arc<DiskStore>> {
        let bad = |name: &str| name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']);
        if bad(folder) || bad(stem) {
            return Err(Error::Refused { disk: folder.into(), reason: "not a name for a folder and a file".into() });
        }
        let dir = self.root.join(folder);
        std::fs::create_dir_all(&dir).map_err(|error| Error::io("create disk folder", &dir, error))?;
        let place = Place { dir, prefix: format!("[{}] {folder}/", self.name), stem: stem.to_owned() };
        DiskStore::create(place, source, options)
    }
}

impl Drop for Datastore {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.root)
        {
            tracing::warn!(directory = %self.root.display(), %error, "temporary datastore left behind");
        }
    }
}
