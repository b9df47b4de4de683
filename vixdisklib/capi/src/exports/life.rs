//! The library as a whole: its beginning and end, transports, errors in words.

use std::{
    ffi::{CString, c_char},
    ptr,
    sync::OnceLock,
};

use vixdisklib::Connection;
use vixdisklib_sys::{LogFunc, VixError};

use crate::{
    call,
    given::{self, Kind, c_string},
    library,
    log::Functions,
    text,
};

/// Makes the library ready; see [`VixDiskLib_InitEx`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Init(
    major: u32,
    minor: u32,
    log: Option<LogFunc>,
    warn: Option<LogFunc>,
    panic: Option<LogFunc>,
    lib_dir: *const c_char,
) -> VixError {
    // SAFETY: as the program promises.
    unsafe { VixDiskLib_InitEx(major, minor, log, warn, panic, lib_dir, ptr::null()) }
}

/// Makes the library ready. Called again, it is counted: as many calls of `Exit` end the library.
///
/// `lib_dir` has no meaning: this library has no parts. Missing log functions leave warnings to the standard error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_InitEx(
    major: u32,
    minor: u32,
    log: Option<LogFunc>,
    warn: Option<LogFunc>,
    panic: Option<LogFunc>,
    _lib_dir: *const c_char,
    config_file: *const c_char,
) -> VixError {
    call::result("VixDiskLib_InitEx", || {
        // SAFETY: as the program promises.
        let config_file = unsafe { text::optional("configFile", config_file) }?;
        library::begin(major, minor, Functions { log, warn, panic }, config_file.as_deref())
    })
}

/// Closes what is open and ends all threads.
#[unsafe(no_mangle)]
pub extern "C" fn VixDiskLib_Exit() {
    call::guarded("VixDiskLib_Exit", library::end);
}

/// The transports that can be used, in the order in which they are tried; valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn VixDiskLib_ListTransportModes() -> *const c_char {
    static MODES: OnceLock<CString> = OnceLock::new();
    call::guarded("VixDiskLib_ListTransportModes", || {
        MODES.get_or_init(|| c_string(&Connection::list_transport_modes().to_string())).as_ptr()
    })
    .unwrap_or(ptr::null())
}

/// Tells an error in English, whatever the locale.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_GetErrorText(error: VixError, _locale: *const c_char) -> *mut c_char {
    call::guarded("VixDiskLib_GetErrorText", || {
        if error.is_ok() {
            return given::text("VIX_OK (0): the operation was successful");
        }
        let hint = error.code().hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        given::text(&format!("{}{hint}", error.code()))
    })
    .unwrap_or(ptr::null_mut())
}

/// Frees what `GetErrorText` gave; anything else is left alone.
#[unsafe(no_mangle)]
pub extern "C" fn VixDiskLib_FreeErrorText(text: *mut c_char) {
    call::guarded("VixDiskLib_FreeErrorText", || given::take_back(text, Kind::Text));
}
