//! What a disk's handle stands for.

use std::{
    cell::Cell,
    ffi::c_void,
    ops::Deref,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use vixdisklib::blocking;
use vixdisklib_sys::{CompletionFunc, DiskHandle, VixCode, VixError};

use crate::{
    call::{Failure, Outcome},
    connection::{Linked, invalid},
    handle::Table,
    library::Library,
};

/// All open disks of the program.
pub(crate) static DISKS: Table<Opened> = Table::new();

/// An open disk, and what is under way on it.
pub(crate) struct Opened {
    path: String,
    state: Mutex<State>,
    /// Told when something under way has ended.
    ended: Condvar,
}

struct State {
    /// Taken out to be closed.
    open: Option<(Arc<blocking::Disk>, Arc<Linked>)>,
    calls: usize,
    asynchronous: usize,
}

/// Whether a pass is for a call that returns when it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Synchronous,
    Asynchronous,
}

impl Opened {
    pub(crate) fn new(disk: blocking::Disk, linked: Arc<Linked>) -> Self {
        let path = disk.asynchronous().path().to_owned();
        let open = Some((Arc::new(disk), linked));
        Self { path, state: Mutex::new(State { open, calls: 0, asynchronous: 0 }), ended: Condvar::new() }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Waits until no asynchronous operation is under way.
    pub(crate) fn wait(&self) -> Outcome<()> {
        self.check_may_wait()?;
        let mut state = self.state();
        while state.asynchronous > 0 {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Closes the disk after everything that is under way.
    pub(crate) fn close(&self, library: &Library) -> Outcome<()> {
        let mut state = self.state();
        let (disk, linked) = state.open.take().ok_or_else(|| invalid("disk"))?;
        while state.calls + state.asynchronous > 0 {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        // Passes are the only other owners, and they have ended.
        let closed = Arc::into_inner(disk).map_or(Ok(()), blocking::Disk::close);
        linked.release(library);
        closed.map_err(Failure::from)
    }

    fn pass(self: Arc<Self>, way: Way) -> Outcome<Pass> {
        let mut state = self.state();
        let disk = state.open.as_ref().map(|(disk, _)| Arc::clone(disk)).ok_or_else(|| invalid("disk"))?;
        match way {
            Way::Synchronous => state.calls += 1,
            Way::Asynchronous => state.asynchronous += 1,
        }
        drop(state);
        Ok(Pass { disk: Some(disk), opened: self, way })
    }

    /// A completion function that waits for itself would wait for ever.
    pub(crate) fn check_may_wait(&self) -> Outcome<()> {
        if CALLING_BACK.get() == std::ptr::from_ref(self) {
            let text = "the call waits for the completion function that makes it";
            return Err(Failure::new(VixCode::OP_ALREADY_IN_PROGRESS, text));
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to use a disk: it is not closed before the pass is gone.
pub(crate) struct Pass {
    /// Taken out by `Drop` only.
    disk: Option<Arc<blocking::Disk>>,
    opened: Arc<Opened>,
    way: Way,
}

impl Deref for Pass {
    type Target = blocking::Disk;

    fn deref(&self) -> &blocking::Disk {
        self.disk.as_ref().expect("a pass has its disk until it is dropped")
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        // First, so that whoever closes finds itself the only owner.
        self.disk = None;
        let mut state = self.opened.state();
        match self.way {
            Way::Synchronous => state.calls -= 1,
            Way::Asynchronous => state.asynchronous -= 1,
        }
        if state.asynchronous == 0 {
            self.opened.ended.notify_all();
        }
    }
}

/// A pass to the disk of a handle.
pub(crate) fn disk(handle: DiskHandle, way: Way) -> Outcome<Pass> {
    DISKS.find(handle as usize).ok_or_else(|| invalid("disk"))?.pass(way)
}

thread_local! {
    /// The disk whose completion function runs on this thread.
    static CALLING_BACK: Cell<*const Opened> = const { Cell::new(std::ptr::null()) };
}

/// A completion function that is still to be called. Dropped without that, as by a panic, it reports a failure.
pub(crate) struct Completion {
    function: CompletionFunc,
    data: *mut c_void,
    /// After the call, so that `Wait` returns after it too.
    pass: Pass,
    done: bool,
}

// SAFETY: the pointer is only handed back to the program, whose function is documented to run on any thread.
unsafe impl Send for Completion {}

impl Completion {
    pub(crate) fn new(function: CompletionFunc, data: *mut c_void, pass: Pass) -> Self {
        Self { function, data, pass, done: false }
    }

    pub(crate) fn disk(&self) -> &blocking::Disk {
        &self.pass
    }

    pub(crate) fn call(mut self, result: VixError) {
        self.report(result);
    }

    fn report(&mut self, result: VixError) {
        self.done = true;
        let before = CALLING_BACK.replace(Arc::as_ptr(&self.pass.opened));
        // SAFETY: the program gave function and data together, to be called once with a result.
        unsafe { (self.function)(self.data, result) };
        CALLING_BACK.set(before);
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if !self.done {
            self.report(VixCode::FAIL.into());
        }
    }
}
