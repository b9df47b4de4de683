//! Panics that nobody would see: those of tasks whose answer is not asked for, and of the steps' table.

use std::{
    panic,
    sync::{Mutex, Once, PoisonError},
};

/// Notes every panic of this process from now on.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            SEEN.lock().unwrap_or_else(PoisonError::into_inner).push(info.to_string().replace('\n', " "));
            before(info);
        }));
    });
}

/// Takes what was noted. Cases that run at the same time share it: a panic fails the one that ends first.
pub(crate) fn take() -> Vec<String> {
    std::mem::take(&mut SEEN.lock().unwrap_or_else(PoisonError::into_inner))
}

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
