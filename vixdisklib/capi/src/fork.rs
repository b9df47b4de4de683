//! Whether this is still the process in which something began.
//!
//! Asking the system for the process id costs more than all else around a small read; a function that runs in the child
//! of every fork costs nothing.

use std::{
    ffi::c_int,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

static FORKS: AtomicU32 = AtomicU32::new(0);

/// A number that differs from those of all ancestors and is the same as long as the process does not fork.
pub(crate) fn generation() -> u32 {
    static IS_TOLD: OnceLock<bool> = OnceLock::new();
    // SAFETY: the function of the child does nothing but one atomic addition, which is allowed there.
    let is_told = IS_TOLD.get_or_init(|| unsafe { pthread_atfork(None, None, Some(forked)) == 0 });
    // Without memory for the function, which is as unlikely as it sounds, the system is asked.
    if *is_told { FORKS.load(Ordering::Relaxed) } else { std::process::id() }
}

extern "C" fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

type Handler = Option<extern "C" fn()>;

unsafe extern "C" {
    /// Of the C library. It forgets the functions when this library is unloaded.
    fn pthread_atfork(prepare: Handler, parent: Handler, child: Handler) -> c_int;
}
