//! The one library of this process.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    error::{Error, Result},
    library::{Library, LibraryOptions},
};

/// What became of the process's one beginning.
pub(super) enum Registry {
    Empty,
    /// It stays until it is shut down: there is no second beginning.
    Loaded {
        asked: PathBuf,
        options: LibraryOptions,
        library: Library,
    },
    ShutDown {
        loaded: PathBuf,
    },
}

impl Registry {
    pub(super) fn lock() -> MutexGuard<'static, Self> {
        static REGISTRY: Mutex<Registry> = Mutex::new(Registry::Empty);
        REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The library that is there, if it is what is asked for.
    pub(super) fn find(&self, asked: &Path, options: &LibraryOptions) -> Result<Option<Library>> {
        match self {
            Self::Empty => Ok(None),
            Self::ShutDown { loaded } => Err(Error::ShutDown { loaded: loaded.clone() }),
            Self::Loaded { asked: first, options: with, library } => {
                let in_use = |difference| Err(Error::InUse { loaded: library.file().to_owned(), difference });
                if first != asked && library.file() != asked {
                    return in_use("and there is one a process");
                }
                if with != options {
                    return in_use("other settings");
                }
                Ok(Some(library.clone()))
            }
        }
    }
}
