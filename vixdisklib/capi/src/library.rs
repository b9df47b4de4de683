//! What `InitEx` makes and `Exit` ends.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::runtime::{Builder, Handle, Runtime};
use vixdisklib_sys::VixCode;

use crate::{
    call::{Failure, Outcome},
    config::Config,
    connection::CONNECTIONS,
    disk::{self, DISKS},
    fork::{self, PerProcess},
    log::{self, Channel, Functions},
};

/// The library, ready for use.
pub(crate) struct Library {
    /// As the program stated it: what structures it passes have in them.
    pub(crate) major: u32,
    pub(crate) config: Config,
    /// Taken out by `Drop` only.
    runtime: Option<Runtime>,
    handle: Handle,
}

/// The library and how often it was asked for.
struct State {
    library: Arc<Library>,
    users: usize,
}

static STATE: PerProcess<RwLock<Option<State>>> = PerProcess::new(RwLock::default);

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
    let remarks = match started(major, minor, functions, config_file) {
        Ok(None) => return Ok(()),
        Ok(Some(library)) => library.config.remarks.clone(),
        Err(failure) => {
            // Nobody else tells the program: its functions count only from the success of this call on.
            functions.line(Channel::Warn, &format!("InitEx: {}: {}", failure.code, failure.text));
            return Err(failure);
        }
    };
    // Without the lock: the program's functions may call the library.
    for remark in remarks {
        log::line(Channel::Warn, &remark);
    }
    let text = format!("vixDiskLib {} for a program of version {major}.{minor}", env!("CARGO_PKG_VERSION"));
    log::line(Channel::Log, &text);
    Ok(())
}

/// The library, if this call made it.
fn started(major: u32, minor: u32, functions: Functions, config_file: Option<&str>) -> Outcome<Option<Arc<Library>>> {
    if !SUPPORTED.contains(&major) {
        let text = format!("version {major}.{minor} is not known: this library knows 5.0 to 9");
        return Err(Failure::new(VixCode::INVALID_ARG, text));
    }
    let mut state = STATE.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(state) = &mut *state {
        state.users += 1;
        return Ok(None);
    }
    let failed = |what: &str| Failure::new(VixCode::DISK_SUBSYSTEM_INIT_FAIL, what.to_owned());
    if !fork::are_noticed() {
        return Err(failed("there is no memory to notice forks"));
    }
    let config = config_file.map(Config::load).transpose()?.unwrap_or_default();
    let runtime = Builder::new_multi_thread().worker_threads(workers()).thread_name("vixDiskLib").enable_all().build();
    let runtime = runtime.map_err(|error| failed(&format!("no threads can be made: {error}")))?;
    log::begin(functions, config.levels);
    let handle = runtime.handle().clone();
    let library = Arc::new(Library { major, config, runtime: Some(runtime), handle });
    *state = Some(State { library: Arc::clone(&library), users: 1 });
    Ok(Some(library))
}

/// The library, if it is ready in this process.
pub(crate) fn current() -> Outcome<Arc<Library>> {
    match &*state() {
        None => Err(Failure::new(VixCode::DISK_NOINIT, "InitEx was not called in this process")),
        Some(state) => Ok(Arc::clone(&state.library)),
    }
}

impl Library {
    /// Makes a handle, unless `Exit` came while the thing that it stands for was made: nobody would end that.
    pub(crate) fn admit(self: &Arc<Self>, insert: impl FnOnce() -> usize) -> Outcome<usize> {
        match &*state() {
            Some(state) if Arc::ptr_eq(&state.library, self) => Ok(insert()),
            _ => Err(Failure::new(VixCode::DISK_NOINIT, "Exit was called meanwhile")),
        }
    }
}

fn state() -> RwLockReadGuard<'static, Option<State>> {
    STATE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the library when its last user has gone: closes what is open, ends sessions and threads.
pub(crate) fn end() {
    if disk::is_used_here() {
        let text = "Exit does nothing in a function that a disk's call has called: it would wait for itself";
        return log::line(Channel::Warn, text);
    }
    let (library, disks, connections, log) = {
        let mut state = STATE.write().unwrap_or_else(PoisonError::into_inner);
        match state.as_mut() {
            Some(state) if state.users > 1 => {
                state.users -= 1;
                return;
            }
            // All at once: what an InitEx makes that comes meanwhile is not ended.
            _ => match state.take() {
                Some(state) => (state.library, DISKS.clear(), CONNECTIONS.clear(), log::current()),
                None => return,
            },
        }
    };
    for disk in disks {
        log::line(Channel::Warn, &format!("Exit closes {}, which the program left open", disk.path()));
        if let Err(failure) = disk.close(&library) {
            log::line(Channel::Warn, &failure.text);
        }
    }
    for connection in connections {
        connection.release(&library);
    }
    // Another thread may be inside a function still: then the threads end when it returns.
    drop(library);
    log::end(log);
}

/// Threads that move network data and encrypt it. Programs use few disks at a time.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8))
}

/// Versions of the interface that programs may state.
const SUPPORTED: std::ops::RangeInclusive<u32> = 5..=9;
