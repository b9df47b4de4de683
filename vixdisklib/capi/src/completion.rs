//! Completion functions of programs.

use std::ffi::c_void;

use vixdisklib::blocking;
use vixdisklib_sys::{CompletionFunc, VixCode, VixError};

use crate::disk::Pass;

/// A completion function that is still to be called. Dropped without that, as by a panic, it reports a failure.
pub(crate) struct Completion {
    function: CompletionFunc,
    data: *mut c_void,
    /// Until after the call, so that `Wait` returns after it too.
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
        let _here = self.pass.completing();
        // SAFETY: the program gave function and data together, to be called once with a result.
        unsafe { (self.function)(self.data, result) };
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if !self.done {
            self.report(VixCode::FAIL.into());
        }
    }
}
