//! Texts on their way through C.

use std::{
    ffi::{CStr, CString, c_char},
    path::Path,
    ptr,
};

use super::error::{Error, Result};

/// A text for C.
pub(super) fn to_c(what: &'static str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::Nul { what })
}

/// A path for C.
pub(super) fn path_to_c(what: &'static str, path: &Path) -> Result<CString> {
    use std::os::unix::ffi::OsStrExt as _;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::Nul { what })
}

pub(super) fn pointer(text: Option<&CString>) -> *const c_char {
    text.map_or(ptr::null(), |text| text.as_ptr())
}

/// A text of the library, copied as it is: names and paths of guests are in whatever encoding they are. `None` for null.
///
/// # Safety
/// Null, or a text that ends in NUL and does not change during the call.
pub(super) unsafe fn from_c(text: *const c_char) -> Option<Vec<u8>> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null; the rest is the caller's promise.
    Some(unsafe { CStr::from_ptr(text) }.to_bytes().to_vec())
}
