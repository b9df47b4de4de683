//! The library as a whole: loading, beginning and ending, and calls on its thread.

use std::{
    fmt,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use tempfile::NamedTempFile;
use vixdisklib_sys::load::{Config, Connection, Disk, LOG_FUNCTIONS, Library as DiskLibrary, search::Attempt};

use super::{
    api::Api,
    error::{Error, Failure, Result},
    limits::Proxy,
    registry::Registry,
    search,
    set::DiskSet,
    text::{path_to_c, pointer},
};
use crate::{OpenFlags, VixError, constants::VERSION};

/// How to begin a library.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct LibraryOptions {
    lib_dir: Option<PathBuf>,
    config: Config,
    config_file: Option<PathBuf>,
    proxy: Proxy,
}

impl Default for LibraryOptions {
    fn default() -> Self {
        Self { lib_dir: None, config: Config::default(), config_file: None, proxy: Proxy::current() }
    }
}

impl LibraryOptions {
    /// Where the library finds its programs, if not above the `lib64` that it was found in.
    pub fn lib_dir(self, directory: impl Into<PathBuf>) -> Self {
        Self { lib_dir: Some(directory.into()), ..self }
    }

    /// Where it keeps its files and mounts.
    pub fn tmp_directory(self, directory: impl AsRef<Path>) -> Self {
        Self { config: self.config.tmp_directory(directory), ..self }
    }

    /// How much it logs, on Linux since 6.7.1. The log goes to the sink of the disk library.
    #[doc(alias = "vixMntapi.cfg.LogLevel")]
    pub fn log_level(self, level: u8) -> Self {
        Self { config: self.config.other("vixMntapi.cfg.LogLevel", level.to_string()), ..self }
    }

    /// A configuration file that is there already; other settings of these options are then not looked at.
    pub fn config_file(self, file: impl Into<PathBuf>) -> Self {
        Self { config_file: Some(file.into()), ..self }
    }

    /// Takes the library for one of another system. For tests against libraries that are not VMware's.
    #[doc(hidden)]
    pub fn assume_proxy(self, proxy: Proxy) -> Self {
        Self { proxy, ..self }
    }
}

/// VMware's library, begun. Cheap to clone; sets keep it.
///
/// Dropping it ends nothing: there is no second beginning, so the library stays until [`shut_down`](Self::shut_down).
#[derive(Clone)]
pub struct Library {
    inner: Arc<Inner>,
}

struct Inner {
    api: Api,
    file: PathBuf,
    proxy: Proxy,
    disks: DiskLibrary,
    /// Kept for the library's life: it is not documented when it is read.
    config: Option<NamedTempFile>,
}

impl Library {
    /// Loads the library from a directory, or a file, and begins it. It works on connections and disks of `disks`, and
    /// comes from the same VDDK.
    ///
    /// In a directory `lib64/libvixMntapi.so.1` is looked for, then the same beside it, then both without the number.
    /// The same path and options again give the library that is there.
    ///
    /// The file's initialisers run in this process, with its rights: name only what is trusted.
    ///
    /// # Errors
    /// [`Error::NotFound`] with every file that was tried, [`Error::MissingSymbol`], [`Error::InUse`] when another is
    /// loaded, [`Error::ShutDown`], [`Error::Io`] when the configuration cannot be written, and the library's own from
    /// `Init`.
    #[doc(alias = "VixMntapi_Init")]
    pub fn load(disks: &DiskLibrary, path: impl AsRef<Path>, options: LibraryOptions) -> Result<Self> {
        let path = path.as_ref();
        let asked = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mut registry = Registry::lock();
        if let Some(library) = registry.find(&asked, &options)? {
            return Ok(library);
        }
        let (api, file) = find(&asked)?;
        let library = Self::begin(api, file, disks, &options)?;
        *registry = Registry::Loaded { asked, options, library: library.clone() };
        Ok(library)
    }

    fn begin(api: Api, file: PathBuf, disks: &DiskLibrary, options: &LibraryOptions) -> Result<Self> {
        let lib_dir = options.lib_dir.clone().or_else(|| search::root_of(&file));
        let lib_dir = lib_dir.map(|directory| path_to_c("library's directory", &directory)).transpose()?;
        let config = match options.config_file {
            None if options.config != Config::default() => Some(written(&options.config)?),
            _ => None,
        };
        let config_file = options.config_file.as_deref().or(config.as_ref().map(NamedTempFile::path));
        let config_file = config_file.map(|file| path_to_c("configuration file", file)).transpose()?;
        let (major, minor) = VERSION;
        let [info, warning, panic] = LOG_FUNCTIONS;
        let begun = disks.on_opener(move || {
            let (lib_dir, config_file) = (pointer(lib_dir.as_ref()), pointer(config_file.as_ref()));
            // SAFETY: the registry is locked and empty, so that this is the first beginning of the process, or follows
            // one that failed; the disk library, on whose thread this is, is begun. The texts live to the end of this
            // job, the file to the end of the library.
            Ok(unsafe { (api.init)(major, minor, info, warning, panic, lib_dir, config_file) })
        });
        check(disks, "VixMntapi_Init", "", begun.wait()?)?;
        let inner = Inner { api, file, proxy: options.proxy, disks: disks.clone(), config };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The file that was loaded.
    pub fn file(&self) -> &Path {
        &self.inner.file
    }

    /// Its functions, for calls of one's own.
    pub fn api(&self) -> &Api {
        &self.inner.api
    }

    /// The disk library that it works with.
    pub fn disk_library(&self) -> &DiskLibrary {
        &self.inner.disks
    }

    /// The system that it runs on.
    pub fn proxy(&self) -> Proxy {
        self.inner.proxy
    }

    /// Opens disks by their paths, in the order in which the guest has them, and makes a set of them.
    ///
    /// # Errors
    /// [`Error::Limit`]: on Linux there is exactly one disk. [`Error::OtherLibrary`], and the library's own.
    #[doc(alias = "VixMntapi_OpenDisks")]
    pub fn open_disks(&self, connection: &Connection, paths: &[&str], flags: OpenFlags) -> Result<DiskSet> {
        DiskSet::open_disks(self, connection, paths, flags)
    }

    /// Makes a set of open disks, in the order in which the guest has them. The set reads them through their handles, so
    /// it takes them.
    ///
    /// # Errors
    /// [`Error::NotThere`] with libraries for Linux, [`Error::OtherLibrary`], and the library's own.
    #[doc(alias = "VixMntapi_OpenDiskSet")]
    pub fn open_disk_set(&self, disks: Vec<Disk>, flags: OpenFlags) -> Result<DiskSet> {
        DiskSet::open_disk_set(self, disks, flags)
    }

    /// Ends the library as soon as its last set is gone: now, if there is none. There is no second beginning in this
    /// process. The disk library is kept until then: waiting for its end before waits for this one.
    #[doc(alias = "VixMntapi_Exit")]
    pub fn shut_down(self) {
        let mut registry = Registry::lock();
        let before = std::mem::replace(&mut *registry, Registry::ShutDown { loaded: self.inner.file.clone() });
        // Dropped after the lock: it may be the last.
        drop(registry);
        drop(before);
    }

    /// Makes calls on the thread on which disks are opened and closed, and waits for them.
    ///
    /// As the caller waits, what it keeps alive stays so while `work` runs.
    pub(super) fn call<T: Send + 'static>(&self, work: impl FnOnce(&Api) -> T + Send + 'static) -> Result<T> {
        let api = self.inner.api;
        Ok(self.inner.disks.on_opener(move || Ok(work(&api))).wait()?)
    }

    /// Turns what a function returned into a result, with all that is said about it.
    pub(super) fn check(&self, function: &'static str, object: &str, error: VixError) -> Result<()> {
        check(&self.inner.disks, function, object, error)
    }

    /// Whether connections and disks of that library go with this one.
    pub(super) fn check_same(&self, what: &'static str, of: &DiskLibrary) -> Result<()> {
        // There is one disk library a process, whose file tells it from one of tests that are not.
        if of.file() == self.inner.disks.file() { Ok(()) } else { Err(Error::OtherLibrary { what }) }
    }
}

/// The last user is gone, whoever that was: the library ends.
impl Drop for Inner {
    fn drop(&mut self) {
        let exit = self.api.exit;
        let ended = self.disks.on_opener(move || {
            // SAFETY: the library is begun, and nobody is left who could call it.
            unsafe { exit() };
            Ok(())
        });
        // Waited for, so that the configuration file outlives it. Nobody is left to hear of a thread that is gone.
        let _ = ended.wait();
        drop(self.config.take());
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library").field("file", &self.inner.file).finish_non_exhaustive()
    }
}

fn check(disks: &DiskLibrary, function: &'static str, object: &str, error: VixError) -> Result<()> {
    if error.is_ok() {
        return Ok(());
    }
    let text = disks.error_text(error);
    Err(Failure { function, object: object.to_owned(), error, text }.into())
}

/// A configuration file that only this user can read.
fn written(config: &Config) -> Result<NamedTempFile> {
    let text = config.text()?;
    let failed = |source| Error::Io { doing: "writing the library's configuration", source };
    let mut file = tempfile::Builder::new().prefix("vixmntapi-").suffix(".cfg").tempfile().map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    Ok(file)
}

/// The first candidate that can be loaded.
fn find(path: &Path) -> Result<(Api, PathBuf)> {
    let mut tried = Vec::new();
    for file in search::candidates(path) {
        // SAFETY: whoever names the path says that it is a VDDK: that is what `Library::load` documents.
        match unsafe { Api::load(&file) } {
            Ok(api) => return Ok((api, file)),
            Err(Error::NotLoaded { file, reason }) => tried.push(Attempt::new(file, reason)),
            Err(error) => return Err(error),
        }
    }
    Err(Error::NotFound { path: path.to_owned(), tried })
}
