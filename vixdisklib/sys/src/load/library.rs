//! The library as a whole: loading, beginning, ending, and what needs no disk.

use std::{
    ffi::CString,
    fmt,
    path::{Path, PathBuf},
    ptr,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Sender, channel},
    },
};

use tempfile::NamedTempFile;

use super::{
    answer::{Answer, Asker, answer},
    api::Api,
    config::{Config, ConfigSource},
    connection::{Connection, RawConnection},
    error::{Error, Failure, Result},
    log::{self, LogSink},
    opener::{self, Job},
    registry::Registry,
    search::{self, Attempt},
    spec::{ConnectSpec, ConnectTexts},
    text,
};
use crate::code::VixError;

/// How to begin a library.
#[derive(Clone)]
#[must_use]
pub struct LibraryOptions {
    version: (u32, u32),
    lib_dir: Option<PathBuf>,
    config: Option<ConfigSource>,
    generation: Option<u32>,
    pub(super) depth: usize,
    log: Option<LogSink>,
}

impl Default for LibraryOptions {
    fn default() -> Self {
        Self { version: (6, 5), lib_dir: None, config: None, generation: None, depth: 8, log: None }
    }
}

impl LibraryOptions {
    /// The version of the interface that is asked for. A library takes its own and older ones; 6.5 goes for all.
    pub fn version(self, major: u32, minor: u32) -> Self {
        Self { version: (major, minor), ..self }
    }

    /// Where the library finds its plugins, if not above the `lib64` that it was found in.
    pub fn lib_dir(self, directory: impl Into<PathBuf>) -> Self {
        Self { lib_dir: Some(directory.into()), ..self }
    }

    /// Settings of the library. They are written to a file that only this user can read.
    pub fn config(self, config: Config) -> Self {
        Self { config: Some(ConfigSource::Ours(config)), ..self }
    }

    /// A configuration file that is there already.
    pub fn config_file(self, file: impl Into<PathBuf>) -> Self {
        Self { config: Some(ConfigSource::File(file.into())), ..self }
    }

    /// The library's generation (6 for VDDK 6.x, and so on), if the number in its file's name does not tell. It decides
    /// which fields are read; without any number only those that all generations have.
    pub fn generation(self, generation: u32) -> Self {
        Self { generation: Some(generation), ..self }
    }

    /// How many reads and writes of one disk are under way at once, where the library does that: over NFC. 8 if not
    /// set, at least 1.
    pub fn depth(self, depth: usize) -> Self {
        Self { depth: depth.max(1), ..self }
    }

    /// Where lines of the log go. The first to load decides.
    pub fn log(self, sink: LogSink) -> Self {
        Self { log: Some(sink), ..self }
    }

    /// The same, unless somebody has set one already.
    pub fn log_unless_set(self, sink: LogSink) -> Self {
        Self { log: self.log.or(Some(sink)), ..self }
    }

    /// Whether a library begun with these is as good as one begun with `other`.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let key = |of: &Self| (of.version, of.lib_dir.clone(), of.config.clone(), of.generation, of.depth);
        key(self) == key(other)
    }
}

impl fmt::Debug for LibraryOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LibraryOptions")
            .field("version", &self.version)
            .field("lib_dir", &self.lib_dir)
            .field("config", &self.config)
            .field("generation", &self.generation)
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}

/// VMware's library, begun. Cheap to clone; connections and disks keep it.
///
/// Dropping it ends nothing: beginning takes seconds and there is no second time, so the library stays until
/// [`shut_down`](Self::shut_down).
#[derive(Clone)]
pub struct Library {
    inner: Arc<Inner>,
}

struct Inner {
    api: Api,
    file: PathBuf,
    generation: Option<u32>,
    depth: usize,
    jobs: Sender<Job>,
    /// Kept for the library's life: it is not documented when it is read.
    config: Option<NamedTempFile>,
    /// Who waits for the end.
    ending: Mutex<Vec<Asker<()>>>,
}

/// What a clean-up did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leftovers {
    /// How many were removed.
    pub removed: u32,
    /// How many could not be.
    pub remaining: u32,
}

impl Library {
    /// Loads the library from a directory, or a file, and begins it. Blocks, up to some seconds.
    ///
    /// In a directory, the newest generation is taken that can be loaded: `lib64/libvixDiskLib.so.9`, the same beside
    /// it, then 8, 7 and 6. The same path and options again give the library that is there.
    ///
    /// The file's initialisers run in this process, with its rights: name only what is trusted.
    ///
    /// # Errors
    /// [`Error::NotFound`] with every file that was tried, [`Error::MissingSymbol`], [`Error::InUse`] when another is
    /// loaded, [`Error::ShutDown`], [`Error::Config`], and the library's own from `InitEx`.
    #[doc(alias = "VixDiskLib_InitEx")]
    #[doc(alias = "VixDiskLib_Init")]
    pub fn load(path: impl AsRef<Path>, options: LibraryOptions) -> Result<Self> {
        let path = path.as_ref();
        let asked = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mut registry = Registry::lock();
        if let Some(library) = registry.find(&asked, &options)? {
            return Ok(library);
        }
        let (api, file) = find(&asked)?;
        let library = Self::begin(api, file, &options)?;
        *registry = Registry::Loaded { asked, options, library: library.clone() };
        Ok(library)
    }

    fn begin(api: Api, file: PathBuf, options: &LibraryOptions) -> Result<Self> {
        let lib_dir = options.lib_dir.clone().or_else(|| search::root_of(&file));
        let lib_dir = lib_dir.map(|directory| path_to_c("library's directory", &directory)).transpose()?;
        let config = match &options.config {
            Some(ConfigSource::Ours(config)) => Some(config.write()?),
            _ => None,
        };
        let config_file = match (&options.config, &config) {
            (Some(ConfigSource::File(file)), _) => Some(file.as_path()),
            (_, config) => config.as_ref().map(NamedTempFile::path),
        };
        let config_file = config_file.map(|file| path_to_c("configuration file", file)).transpose()?;
        let io = |source| Error::Io { doing: "starting the library's thread", source };
        let jobs = opener::start().map_err(io)?;

        log::send_to(options.log.clone());
        let (major, minor) = options.version;
        let (begun, result) = channel();
        let _ = jobs.send(Box::new(move || {
            let [info, warning, panic] = log::LOG_FUNCTIONS;
            let (lib_dir, config_file) = (pointer(lib_dir.as_ref()), pointer(config_file.as_ref()));
            // SAFETY: the registry is locked and empty, so that this is the first beginning of the process, or follows
            // one that failed. The texts live to the end of this job, and the file to the end of the library.
            let error = unsafe { (api.init_ex)(major, minor, info, warning, panic, lib_dir, config_file) };
            let _ = begun.send(check(&api, "VixDiskLib_InitEx", "", error));
        }));
        result.recv().unwrap_or(Err(Error::ThreadGone))?;
        let generation = options.generation.or_else(|| search::generation_of(&file));
        let inner = Inner { api, file, generation, depth: options.depth, jobs, config, ending: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The file that was loaded.
    pub fn file(&self) -> &Path {
        &self.inner.file
    }

    /// The library's generation: 8 for VDDK 8.x. `None` when neither its file's name nor the options say.
    pub fn generation(&self) -> Option<u32> {
        self.inner.generation
    }

    /// Its functions, for calls of one's own.
    pub fn api(&self) -> &Api {
        &self.inner.api
    }

    /// The transports that the library has, as in `file:san:hotadd:nbdssl:nbd`. `None` when it does not tell.
    #[doc(alias = "VixDiskLib_ListTransportModes")]
    pub fn transport_modes(&self) -> Answer<Option<String>> {
        let api = self.inner.api;
        self.on_opener(move || {
            // SAFETY: the library is begun; it takes nothing.
            let text = api.list_transport_modes.map(|list| unsafe { list() });
            // SAFETY: the library's own text, which it keeps.
            Ok(text.and_then(|text| unsafe { text::from_c(text) }))
        })
    }

    /// Connects to this machine's files or to a server.
    #[doc(alias = "VixDiskLib_ConnectEx")]
    #[doc(alias = "VixDiskLib_Connect")]
    pub fn connect(&self, spec: ConnectSpec) -> Answer<Connection> {
        let library = self.clone();
        self.on_opener(move || RawConnection::open(library, &spec).map(Connection::new))
    }

    /// Keeps a VM from being moved while it is backed up, under a name of up to 50 characters. vCenter only; before the
    /// snapshot is made.
    #[doc(alias = "VixDiskLib_PrepareForAccess")]
    pub fn prepare_for_access(&self, spec: ConnectSpec, identity: &str) -> Answer<()> {
        self.access("VixDiskLib_PrepareForAccess", self.inner.api.prepare_for_access, spec, identity)
    }

    /// Undoes [`prepare_for_access`](Self::prepare_for_access), also that of a program that crashed.
    #[doc(alias = "VixDiskLib_EndAccess")]
    pub fn end_access(&self, spec: ConnectSpec, identity: &str) -> Answer<()> {
        self.access("VixDiskLib_EndAccess", self.inner.api.end_access, spec, identity)
    }

    fn access(&self, symbol: &'static str, function: Option<Access>, spec: ConnectSpec, identity: &str) -> Answer<()> {
        let (api, identity) = (self.inner.api, text::to_c("identity", identity));
        self.on_opener(move || {
            let (function, identity) = (need(function, symbol)?, identity?);
            let params = ConnectTexts::new(&api, &spec)?;
            // SAFETY: the library is begun; parameters and text live during the call.
            let error = unsafe { function(params.as_ptr(), identity.as_ptr()) };
            check(&api, symbol, &spec.name(), error)
        })
    }

    /// Removes what crashed programs left attached or on disk. Needs the `tmpDirectory` that they had.
    #[doc(alias = "VixDiskLib_Cleanup")]
    pub fn clean_up(&self, spec: ConnectSpec) -> Answer<Leftovers> {
        let api = self.inner.api;
        self.on_opener(move || {
            let function = need(api.cleanup, "VixDiskLib_Cleanup")?;
            let params = ConnectTexts::new(&api, &spec)?;
            let mut found = Leftovers { removed: 0, remaining: 0 };
            // SAFETY: the library is begun; parameters and counts live during the call.
            let error = unsafe { function(params.as_ptr(), &mut found.removed, &mut found.remaining) };
            check(&api, "VixDiskLib_Cleanup", &spec.name(), error)?;
            Ok(found)
        })
    }

    /// Renames a disk of this machine.
    #[doc(alias = "VixDiskLib_Rename")]
    pub fn rename(&self, from: &str, to: &str) -> Answer<()> {
        let api = self.inner.api;
        let (from, to) = (from.to_owned(), to.to_owned());
        self.on_opener(move || {
            let function = need(api.rename, "VixDiskLib_Rename")?;
            let (from_text, to_text) = (text::to_c("path", &from)?, text::to_c("path", &to)?);
            // SAFETY: the library is begun; the texts live during the call.
            let error = unsafe { function(from_text.as_ptr(), to_text.as_ptr()) };
            check(&api, "VixDiskLib_Rename", &from, error)
        })
    }

    /// The library's words for an error.
    #[doc(alias = "VixDiskLib_GetErrorText")]
    #[doc(alias = "VixDiskLib_FreeErrorText")]
    pub fn error_text(&self, error: VixError) -> Option<String> {
        error_text(&self.inner.api, error)
    }

    /// Ends the library when its last connection and disk are gone; the answer comes after that. VMware's takes about a
    /// second. There is no second beginning in this process.
    #[doc(alias = "VixDiskLib_Exit")]
    pub fn shut_down(self) -> Answer<()> {
        let mut registry = Registry::lock();
        let (asker, answer) = answer();
        self.inner.ending.lock().unwrap_or_else(PoisonError::into_inner).push(asker);
        // Dropped after the lock: it may be the last.
        let before = std::mem::replace(&mut *registry, Registry::ShutDown { loaded: self.inner.file.clone() });
        drop(registry);
        drop(before);
        answer
    }

    /// Has work done on the thread of the library, so that no disk is opened or closed meanwhile. For what else opens
    /// disks of it, such as VMware's VixMntapi.
    ///
    /// The work must not wait for anything else that this thread does: it would wait for itself.
    pub fn on_opener<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Answer<T> {
        let (asker, answer) = answer();
        // When the thread is gone, the asker is dropped and says so.
        let _ = self.inner.jobs.send(Box::new(move || asker.give(work())));
        answer
    }

    pub(super) fn depth(&self) -> usize {
        self.inner.depth
    }
}

/// The last user is gone, whoever that was: the thread of the library ends it.
impl Drop for Inner {
    fn drop(&mut self) {
        let (exit, config) = (self.api.exit, self.config.take());
        let ending = std::mem::take(self.ending.get_mut().unwrap_or_else(PoisonError::into_inner));
        let _ = self.jobs.send(Box::new(move || {
            // SAFETY: the library is begun, and nobody is left who could call it.
            unsafe { exit() };
            drop(config);
            for asker in ending {
                asker.give(Ok(()));
            }
        }));
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library")
            .field("file", &self.inner.file)
            .field("generation", &self.inner.generation)
            .finish_non_exhaustive()
    }
}

/// Turns what a function returned into a result, with all that the library says about it.
pub(super) fn check(api: &Api, function: &'static str, object: &str, error: VixError) -> Result<()> {
    if error.is_ok() {
        return Ok(());
    }
    let text = error_text(api, error);
    Err(Failure { function, object: object.to_owned(), error, text }.into())
}

fn error_text(api: &Api, error: VixError) -> Option<String> {
    // SAFETY: a number and null, which stands for the usual language.
    let text = unsafe { (api.get_error_text)(error, ptr::null()) };
    // SAFETY: a text of the library's, or null.
    let copy = unsafe { text::from_c(text) };
    if !text.is_null() {
        // SAFETY: given by the same library's `GetErrorText`, and freed once.
        unsafe { (api.free_error_text)(text) };
    }
    copy.filter(|text| !text.is_empty())
}

/// The first candidate that can be loaded.
fn find(path: &Path) -> Result<(Api, PathBuf)> {
    let mut tried = Vec::new();
    for file in search::candidates(path, search::generations()) {
        // SAFETY: whoever names the path says that it is a VDDK: that is what `Library::load` documents.
        match unsafe { Api::load(&file) } {
            Ok(api) => return Ok((api, file)),
            Err(Error::NotLoaded { file, reason }) => tried.push(Attempt::new(file, reason)),
            Err(error) => return Err(error),
        }
    }
    Err(Error::NotFound { path: path.to_owned(), tried })
}

fn path_to_c(what: &'static str, path: &Path) -> Result<CString> {
    use std::os::unix::ffi::OsStrExt as _;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::Nul { what })
}

pub(super) fn pointer(text: Option<&CString>) -> *const std::ffi::c_char {
    text.map_or(ptr::null(), |text| text.as_ptr())
}

/// A function that not every library has.
pub(super) fn need<T>(function: Option<T>, symbol: &'static str) -> Result<T> {
    function.ok_or(Error::NotThere { symbol })
}

/// `PrepareForAccess` and `EndAccess` are of one type.
type Access = crate::functions::EndAccess;
