//! Texts on their way through C.

use std::ffi::{CStr, CString, c_char};

use super::error::{Error, Result};

/// A text for C.
pub(super) fn to_c(what: &'static str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::Nul { what })
}

/// A text of the library, copied; bytes that are not UTF-8 are replaced. `None` for null.
///
/// # Safety
/// Null, or a text that ends in NUL and does not change during the call.
pub(super) unsafe fn from_c(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null; the rest is the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    Some(text.to_string_lossy().into_owned())
}
