//! Progress of long calls.

use std::{
    ffi::{c_int, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crate::types::{Bool, ProgressFunc};

/// Hears of progress in percent, on a thread of the library's.
pub type Progress = Arc<dyn Fn(u8) + Send + Sync>;

/// What to hand to C for a listener: a function and its data. Valid as long as the listener stays where it is.
pub(super) fn to_c(listener: Option<&Progress>) -> (Option<ProgressFunc>, *mut c_void) {
    match listener {
        None => (None, std::ptr::null_mut()),
        Some(listener) => (Some(report), std::ptr::from_ref(listener).cast_mut().cast()),
    }
}

/// Called by the library. A listener that panics is heard no worse: the panic ends here.
unsafe extern "C" fn report(data: *mut c_void, percent: c_int) -> Bool {
    // SAFETY: `data` is the listener of `to_c`, whose borrow lasts for the call of the library that we are inside of.
    let listener = unsafe { &*data.cast::<Progress>().cast_const() };
    let percent = u8::try_from(percent.clamp(0, 100)).unwrap_or(100);
    let _ = catch_unwind(AssertUnwindSafe(|| listener(percent)));
    1
}
