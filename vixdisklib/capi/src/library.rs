//! What `InitEx` makes and `Exit` ends.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::runtime::{Builder, Handle, Runtime};
use vixdisklib_sys::VixCode;

use crate::{
    call::{Failure, Outcome},
    config::Config,
    connection::CONNECTIONS,
    disk::DISKS,
    fork,
    log::{self, Channel, Functions},
};

/// The library, ready for use.
pub(crate) struct Library {
    /// As the program stated it: what structures it passes have in them.
    pub(crate) major: u32,
    pub(crate) config: Config,
    /// Threads do not come along into a child process.
    forks: u32,
    /// Taken out by `Drop` only.
    runtime: Option<Runtime>,
    handle: Handle,
}

/// The library and how often it was asked for.
struct State {
    library: Arc<Library>,
    users: usize,
}

static STATE: RwLock<Option<State>> = RwLock::new(None);

impl Library {
    /// Runs `future` on the calling thread.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        vixdisklib::blocking::block_on(&self.handle, future)
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.handle
    }

    /// Whether the structures that the program passes have the fields of 7.0.
    pub(crate) fn has_sector_sizes(&self) -> bool {
        self.major >= 7
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        match Handle::try_current() {
            // A runtime cannot wait for its own threads: they end on their own, a moment later.
            Ok(_) => runtime.shutdown_background(),
            Err(_) => drop(runtime),
        }
    }
}

/// Makes the library ready. A second time it is only counted, so that as many `Exit`s end it: the first log functions
/// and the first configuration stay.
pub(crate) fn begin(major: u32, minor: u32, functions: Functions, config_file: Option<&str>) -> Outcome<()> {
    if !SUPPORTED.contains(&major) {
        let text = format!("version {major}.{minor} is not known: this library knows 5.0 to 9");
        return Err(Failure::new(VixCode::INVALID_ARG, text));
    }
    let mut state = STATE.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(state) = state.as_mut().filter(|state| state.library.forks == fork::generation()) {
        state.users += 1;
        return Ok(());
    }
    let config = config_file.map(Config::load).transpose()?.unwrap_or_default();
    let runtime =
        Builder::new_multi_thread().worker_threads(workers()).thread_name("vixDiskLib").enable_all().build().map_err(
            |error| Failure::new(VixCode::DISK_SUBSYSTEM_INIT_FAIL, format!("no threads can be made: {error}")),
        )?;
    log::begin(functions, config.levels);
    let handle = runtime.handle().clone();
    let library = Library { major, config, forks: fork::generation(), runtime: Some(runtime), handle };
    for remark in &library.config.remarks {
        log::line(Channel::Warn, remark);
    }
    // What a parent process had open stays with the parent: its threads and sockets are not ours to close.
    if let Some(inherited) = state.replace(State { library: Arc::new(library), users: 1 }) {
        std::mem::forget(inherited);
        DISKS.clear().into_iter().for_each(std::mem::forget);
        CONNECTIONS.clear().into_iter().for_each(std::mem::forget);
    }
    drop(state);
    log::line(
        Channel::Log,
        &format!("vixDiskLib {} for a program of version {major}.{minor}", env!("CARGO_PKG_VERSION")),
    );
    Ok(())
}

/// The library, if it is ready in this process.
pub(crate) fn current() -> Outcome<Arc<Library>> {
    let state = STATE.read().unwrap_or_else(PoisonError::into_inner);
    match &*state {
        None => Err(Failure::new(VixCode::DISK_NOINIT, "InitEx was not called")),
        Some(state) if state.library.forks != fork::generation() => {
            Err(Failure::new(VixCode::DISK_NOINIT, "the process forked after InitEx; call InitEx in the child"))
        }
        Some(state) => Ok(Arc::clone(&state.library)),
    }
}

/// Ends the library when its last user has gone: closes what is open, ends sessions and threads.
pub(crate) fn end() {
    let library = {
        let mut state = STATE.write().unwrap_or_else(PoisonError::into_inner);
        match state.as_mut() {
            Some(state) if state.users > 1 => {
                state.users -= 1;
                return;
            }
            _ => state.take().map(|state| state.library),
        }
    };
    let Some(library) = library else { return };
    if library.forks != fork::generation() {
        // Nothing of it works in a child.
        std::mem::forget(library);
        return;
    }
    for disk in DISKS.clear() {
        log::line(Channel::Warn, &format!("Exit closes {}, which the program left open", disk.path()));
        if let Err(failure) = disk.close(&library) {
            log::line(Channel::Warn, &failure.text);
        }
    }
    for connection in CONNECTIONS.clear() {
        connection.release(&library);
    }
    // Another thread may be inside a function still: then the threads end when it returns.
    drop(library);
    log::end();
}

/// Threads that move network data and encrypt it. Programs use few disks at a time.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8))
}

/// Versions of the interface that programs may state.
const SUPPORTED: std::ops::RangeInclusive<u32> = 5..=9;
