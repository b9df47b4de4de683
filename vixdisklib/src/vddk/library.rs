//! The library for programs: loading without blocking, a log that goes to `tracing`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use vixdisklib_sys::load::{self, ConnectSpec, Leftovers, LibraryOptions, LogLevel};

use crate::{
    error::{Error, Result},
    mode::TransportMode,
    vddk::Server,
};

/// What VMware's library is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VddkUse {
    /// For `san` and `hotadd`, which this crate has no transport for.
    WhatWeLack,
    /// For those, `nbdssl`, `nbd` and `file`. `https` stays ours.
    Everything,
}

/// VMware's library, begun. Cheap to clone. It stays for the life of the process, or until
/// [`shut_down`](Self::shut_down).
#[derive(Debug, Clone)]
pub struct Library {
    inner: load::Library,
}

impl Library {
    /// Loads the library from a directory, or a file, and begins it.
    ///
    /// A directory is what the VDDK was unpacked to; the newest generation in it that can be loaded is taken. The same
    /// path and options again give the library that is there. Lines of its log go to `tracing`, target `vddk`, if the
    /// options name no other place.
    ///
    /// The file's initialisers run in this process, with its rights: name only what is trusted.
    ///
    /// # Errors
    /// [`Error::Vddk`]: every file that was tried, a function that is missing, another library in use, or what the
    /// library itself says.
    ///
    /// # Cancel safety
    /// A dropped future may have begun the library; the next call gets it.
    ///
    /// # Since
    /// VDDK 6.5.
    #[doc(alias = "VixDiskLib_InitEx")]
    #[doc(alias = "VixDiskLib_Init")]
    pub async fn load(path: impl Into<PathBuf>, options: LibraryOptions) -> Result<Self> {
        let path = path.into();
        let name = path.display().to_string();
        let options = options.log_unless_set(Arc::new(trace));
        let loaded = tokio::task::spawn_blocking(move || load::Library::load(path, options)).await;
        let loaded = loaded.map_err(|_| Error::CutOff { operation: LOADING, path: name.clone() })?;
        let inner = loaded.map_err(Error::vddk(LOADING, &name))?;
        tracing::info!(file = %inner.file().display(), generation = inner.generation(), "VMware's library is begun");
        Ok(Self { inner })
    }

    /// The file that was loaded.
    pub fn file(&self) -> &Path {
        self.inner.file()
    }

    /// 8 for VDDK 8.x, and so on; `None` where the file's name does not tell.
    pub fn generation(&self) -> Option<u32> {
        self.inner.generation()
    }

    /// The transports that it has, as in `file:san:hotadd:nbdssl:nbd`. `None` when it does not tell.
    ///
    /// # Errors
    /// [`Error::Vddk`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "VixDiskLib_ListTransportModes")]
    pub async fn transport_modes(&self) -> Result<Option<String>> {
        self.inner.transport_modes().await.map_err(self.failed("asking for the transports of"))
    }

    /// Removes what crashed programs of this machine left: hot-added disks, files. It needs the `tmpDirectory` that
    /// they had ([`Config::tmp_directory`](load::Config::tmp_directory)).
    ///
    /// # Errors
    /// [`Error::Vddk`].
    ///
    /// # Cancel safety
    /// A dropped future goes on.
    #[doc(alias = "VixDiskLib_Cleanup")]
    pub async fn clean_up(&self, server: &Server) -> Result<Leftovers> {
        let failed = self.failed("cleaning up by");
        let spec = server.spec(None).ok_or(Error::Unavailable {
            mode: TransportMode::HotAdd,
            reason: "cleaning up needs a server with a name and a login of its own",
        })?;
        self.inner.clean_up(spec).await.map_err(failed)
    }

    /// Ends the library when its last disk is closed, and returns after that. VMware's takes about a second. It cannot
    /// be begun again in this process.
    ///
    /// # Errors
    /// [`Error::Vddk`].
    ///
    /// # Cancel safety
    /// A dropped future ends it all the same.
    #[doc(alias = "VixDiskLib_Exit")]
    pub async fn shut_down(self) -> Result<()> {
        let failed = self.failed("ending");
        self.inner.shut_down().await.map_err(failed)
    }

    /// The library as `vixdisklib-sys` has it, for VMware's other libraries, which work on its connections.
    pub fn as_sys(&self) -> &load::Library {
        &self.inner
    }

    pub(crate) async fn connect(&self, spec: ConnectSpec) -> Result<load::Connection, load::Error> {
        self.inner.connect(spec).await
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(load::Error) -> Error + use<> {
        Error::vddk(operation, &self.file().display().to_string())
    }
}

/// How a connection uses the library.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) library: Library,
    pub(crate) used_for: VddkUse,
}

impl Choice {
    /// Whether the library is to serve a transport.
    pub(crate) fn serves(&self, mode: TransportMode) -> bool {
        match mode {
            TransportMode::San | TransportMode::HotAdd => true,
            TransportMode::File | TransportMode::Nbd | TransportMode::NbdSsl => self.used_for == VddkUse::Everything,
            TransportMode::Https | TransportMode::Custom => false,
        }
    }
}

/// A line of the library's log.
fn trace(level: LogLevel, line: &str) {
    match level {
        LogLevel::Info => tracing::debug!(target: "vddk", "{line}"),
        LogLevel::Warning => tracing::warn!(target: "vddk", "{line}"),
        LogLevel::Panic => tracing::error!(target: "vddk", "{line}"),
    }
}

const LOADING: &str = "loading";
