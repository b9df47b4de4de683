//! What every function of the interface does around its work.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    thread,
};

use tokio::runtime::Handle;
use vixdisklib_sys::{VixCode, VixError};

use crate::{
    code,
    library::{self, Library},
    log::{self, Channel},
};

/// The result of a function's work.
pub(crate) type Outcome<T> = Result<T, Failure>;

/// Why a function failed: a number for the program, words for its log.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: VixCode,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(code: VixCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    pub(crate) fn null(what: &str) -> Self {
        Self::new(VixCode::INVALID_ARG, format!("{what} is null"))
    }

    /// Whether programs meet this in their normal course, so that it is no warning.
    fn is_usual(&self) -> bool {
        matches!(self.code, VixCode::BUFFER_TOOSMALL | VixCode::DISK_KEY_NOTFOUND | VixCode::DISK_NOINIT)
    }
}

impl From<vixdisklib::Error> for Failure {
    fn from(error: vixdisklib::Error) -> Self {
        let hint = error.hint().map(|hint| format!("; {hint}"));
        Self::new(code::of(&error), chained(&error) + &hint.unwrap_or_default())
    }
}

impl From<vsphere_vim::Error> for Failure {
    fn from(error: vsphere_vim::Error) -> Self {
        let hint = error.hint().map(|hint| format!("; {hint}"));
        Self::new(code::of_server(&error), chained(&error) + &hint.unwrap_or_default())
    }
}

/// An error with all its causes.
fn chained(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Runs the work of a function that needs the library to be ready. What has a disk's handle needs no more than that.
pub(crate) fn entry(function: &'static str, work: impl FnOnce(&Arc<Library>) -> Outcome<()>) -> VixError {
    result(function, || work(&library::current()?))
}

/// Runs the work of a function that reports with an error code.
pub(crate) fn result(function: &'static str, work: impl FnOnce() -> Outcome<()>) -> VixError {
    match guarded(function, work) {
        Some(Ok(())) => VixError::OK,
        Some(Err(failure)) if failure.code == VixCode::ASYNC => failure.code.into(),
        Some(Err(failure)) => {
            let channel = if failure.is_usual() { Channel::Log } else { Channel::Warn };
            log::line(channel, &format!("{function}: {}: {}", failure.code, failure.text));
            failure.code.into()
        }
        None => VixCode::FAIL.into(),
    }
}

/// Runs the work of any function; `None` when it panicked.
pub(crate) fn guarded<T>(function: &'static str, work: impl FnOnce() -> T) -> Option<T> {
    // Unwind safe: shared state is behind locks whose poison is looked past, because every change under them is one
    // insertion or removal.
    match catch_unwind(AssertUnwindSafe(|| if is_ending() { elsewhere(work) } else { work() })) {
        Ok(done) => Some(done),
        Err(panic) => {
            let line = format!("{function}: a bug in this library: {}", message(&*panic));
            // The program's log function is called in here; it may not unwind, and cannot through C.
            log::line(Channel::Panic, &line);
            None
        }
    }
}

/// Whether the memory that threads have for themselves is gone already, as it is in functions that run at exit:
/// destructors of C++ that close disks. A runtime cannot be used without.
fn is_ending() -> bool {
    Handle::try_current().is_err_and(|error| error.is_thread_local_destroyed())
}

/// Runs work on a thread that has such memory, while this one waits.
#[cold]
fn elsewhere<T>(work: impl FnOnce() -> T) -> T {
    struct Lent<T>(T);
    // SAFETY: the thread that the value belongs to does nothing until the other one has ended, so that it is used by
    // one at a time; nothing in it is bound to its thread, because the memory for that is gone.
    unsafe impl<T> Send for Lent<T> {}
    impl<T> Lent<T> {
        fn take(self) -> T {
            self.0
        }
    }
    let work = Lent(work);
    let done = thread::scope(|scope| scope.spawn(move || Lent((work.take())())).join());
    done.unwrap_or_else(|panic| resume_unwind(panic)).take()
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without words")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_failure() {
        let error = result("VixDiskLib_Test", || panic!("on purpose"));
        assert_eq!(error, VixCode::FAIL.into());
        let error = result("VixDiskLib_Test", || panic!("{} of {}", 1, "two"));
        assert_eq!(error.code(), VixCode::FAIL);
    }

    #[test]
    fn failures_are_their_codes() {
        assert_eq!(result("VixDiskLib_Test", || Ok(())), VixError::OK);
        assert_eq!(result("VixDiskLib_Test", || Err(Failure::null("buffer"))).code(), VixCode::INVALID_ARG);
        assert!(result("VixDiskLib_Test", || Err(Failure::new(VixCode::ASYNC, ""))).is_async());
    }
}
