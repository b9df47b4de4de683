//! The files of a disk in the making: all of them stay, or none.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    error::{Error, Result},
    extent::Backing,
    source::{FileSource, Handle},
};

/// Files made so far; removed when dropped before [`NewFiles::keep`].
#[derive(Debug, Default)]
pub(crate) struct NewFiles(Vec<PathBuf>);

impl NewFiles {
    /// Creates a file that must not exist.
    pub(crate) fn create(&mut self, path: &Path) -> Result<Backing> {
        let name = path.display().to_string();
        let file = FileSource::create_new(path).map_err(|error: io::Error| Error::io("create", &*name, None, error))?;
        self.0.push(path.to_owned());
        Ok(Backing::new(name, Handle::ReadWrite(Arc::new(file))))
    }

    /// Keeps the files if `last` succeeds too.
    pub(crate) fn keep<T>(mut self, last: impl FnOnce() -> Result<T>, path: &Path) -> Result<T> {
        let done = last()?;
        self.0.clear();
        sync_directory(path);
        Ok(done)
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        for path in &self.0 {
            // The first failure is the one to report.
            let _ = fs::remove_file(path);
        }
    }
}

/// Makes names in the directory of `path` survive a power failure. Not all file systems can, none must.
pub(crate) fn sync_directory(path: &Path) {
    if let Some(directory) = path.parent() {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let _ = fs::File::open(directory).and_then(|directory| directory.sync_all());
    }
}
