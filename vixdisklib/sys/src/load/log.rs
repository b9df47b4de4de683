//! The library's log: lines in the manner of `printf`, on any thread.

use std::{
    ffi::{c_char, c_int},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError, RwLock},
};

use crate::types::{LogFunc, VaList};

/// How serious a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogLevel {
    /// What it is doing.
    Info,
    /// What went wrong.
    Warning,
    /// Why it cannot go on.
    Panic,
}

/// Takes lines of the log, without their line ends. Called on any thread, also while a call of the library runs; it must
/// not call the library.
pub type LogSink = Arc<dyn Fn(LogLevel, &str) + Send + Sync>;

/// The functions that format lines for the loaded library's [`LogSink`]: of information, warnings and panics. For
/// `InitEx`, and for VMware's other libraries; never null, as the library's own default is not thread-safe.
pub const LOG_FUNCTIONS: [Option<LogFunc>; 3] = [Some(info), Some(warning), Some(panic)];

/// Where lines go from now on. One for the process, as the functions get no data of ours.
pub(super) fn send_to(sink: Option<LogSink>) {
    *SINK.write().unwrap_or_else(PoisonError::into_inner) = sink;
}

static SINK: RwLock<Option<LogSink>> = RwLock::new(None);

unsafe extern "C" fn info(format: *const c_char, arguments: VaList) {
    // SAFETY: what the library promises of its own format and arguments.
    unsafe { line(LogLevel::Info, format, arguments) }
}

unsafe extern "C" fn warning(format: *const c_char, arguments: VaList) {
    // SAFETY: as in `info`.
    unsafe { line(LogLevel::Warning, format, arguments) }
}

unsafe extern "C" fn panic(format: *const c_char, arguments: VaList) {
    // SAFETY: as in `info`.
    unsafe { line(LogLevel::Panic, format, arguments) }
}

/// Formats a line and hands it on. A panic of the sink ends here: it must not pass through C.
///
/// # Safety
/// `format` is null or ends in NUL, and `arguments` are the ones that it asks for, not used before.
unsafe fn line(level: LogLevel, format: *const c_char, arguments: VaList) {
    let sink = SINK.read().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(sink) = sink.filter(|_| !format.is_null()) else { return };
    let mut buffer = [0_u8; LONGEST];
    // SAFETY: the buffer has the length that is named; the rest is the caller's promise. The list is used once only.
    let whole = unsafe { vsnprintf(buffer.as_mut_ptr().cast(), LONGEST, format, arguments) };
    let Ok(whole) = usize::try_from(whole) else { return };
    let text = String::from_utf8_lossy(&buffer[..whole.min(LONGEST - 1)]);
    let text = text.trim_end_matches(['\n', '\r']);
    let _ = catch_unwind(AssertUnwindSafe(|| match whole < LONGEST {
        true => sink(level, text),
        false => sink(level, &format!("{text}... ({whole} bytes)")),
    }));
}

/// Longer lines are cut: the list can be gone through once only, so that the length cannot be asked for first.
const LONGEST: usize = 8 << 10;

unsafe extern "C" {
    /// Of the C library, which `std` links. `arguments` travels as C passes a `va_list`: see [`VaList`].
    fn vsnprintf(buffer: *mut c_char, len: usize, format: *const c_char, arguments: VaList) -> c_int;
}
