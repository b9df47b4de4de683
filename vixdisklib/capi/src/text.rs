//! Strings of C.

use std::ffi::{CStr, c_char};

use vixdisklib_sys::VixCode;

use crate::call::{Failure, Outcome};

/// The text at `text`, which must not be null.
///
/// # Safety
/// `text` is null or points to bytes that end in NUL and stay as they are during the call.
pub(crate) unsafe fn required(what: &'static str, text: *const c_char) -> Outcome<String> {
    // SAFETY: as the caller promises.
    let text = unsafe { optional(what, text) }?;
    text.ok_or_else(|| Failure::new(VixCode::INVALID_ARG, format!("{what} is null")))
}

/// The text at `text`; `None` for null and for no text.
///
/// # Safety
/// As [`required`].
pub(crate) unsafe fn optional(what: &'static str, text: *const c_char) -> Outcome<Option<String>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: not null; the rest is the caller's promise.
    let bytes = unsafe { CStr::from_ptr(text) };
    let text =
        bytes.to_str().map_err(|_| Failure::new(VixCode::INVALID_UTF8_STRING, format!("{what} is not UTF-8")))?;
    Ok((!text.is_empty()).then(|| text.to_owned()))
}
