//! Texts on their way through C.

use std::ffi::{CStr, CString, c_char};

use super::error::{Error, Result};

/// A text for C.
pub(super) fn to_c(what: &'static str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::Nul { what })
}

/// Bytes of the library as text; those that are not UTF-8 are replaced.
pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
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
    Some(lossy(text.to_bytes()))
}
