//! What a process has for itself: a child begins with nothing of its parent's.
//!
//! The threads and sockets of a parent are not there in a child, and a lock that another thread of the parent held at the
//! moment of the fork stays held in the child for ever. So a child does not even look at what its parent had.
//!
//! Asking the system for the process id costs more than all else around a small read; a function that runs in the child
//! of every fork costs nothing.

use std::{
    ffi::c_int,
    ops::Deref,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicPtr, AtomicU32, Ordering},
    },
};

/// A value that every process makes for itself, when it first looks.
pub(crate) struct PerProcess<T: Send + Sync + 'static> {
    current: AtomicPtr<Made<T>>,
    make: fn() -> T,
}

struct Made<T> {
    value: T,
    /// Of the process that made it.
    generation: u32,
    /// Of the parent: kept, never looked at.
    _inherited: *mut Self,
}

impl<T: Send + Sync> PerProcess<T> {
    pub(crate) const fn new(make: fn() -> T) -> Self {
        Self { current: AtomicPtr::new(ptr::null_mut()), make }
    }

    #[cold]
    fn renewed(&self, inherited: *mut Made<T>) -> &T {
        are_noticed();
        let made = Made { value: (self.make)(), generation: FORKS.load(Ordering::Relaxed), _inherited: inherited };
        let made = Box::into_raw(Box::new(made));
        match self.current.compare_exchange(inherited, made, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: just made; what is in `current` is never freed.
            Ok(_) => unsafe { &(*made).value },
            Err(_) => {
                // SAFETY: just made, and nobody has seen it: another thread was quicker.
                drop(unsafe { Box::from_raw(made) });
                self
            }
        }
    }
}

impl<T: Send + Sync> Deref for PerProcess<T> {
    type Target = T;

    fn deref(&self) -> &T {
        let current = self.current.load(Ordering::Acquire);
        // SAFETY: null, or from a box that is never freed.
        match unsafe { current.as_ref() } {
            Some(made) if made.generation == FORKS.load(Ordering::Relaxed) => &made.value,
            _ => self.renewed(current),
        }
    }
}

/// Differs from that of all ancestors and is the same as long as the process does not fork.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Whether forks are noticed from now on: not without memory for that, which is as unlikely as it sounds.
pub(crate) fn are_noticed() -> bool {
    static NOTICED: OnceLock<bool> = OnceLock::new();
    // SAFETY: the function of the child does nothing but one atomic addition, which is allowed there.
    *NOTICED.get_or_init(|| unsafe { pthread_atfork(None, None, Some(forked)) == 0 })
}

extern "C" fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

type Handler = Option<extern "C" fn()>;

unsafe extern "C" {
    /// Of the C library. It forgets the functions when this library is unloaded.
    fn pthread_atfork(prepare: Handler, parent: Handler, child: Handler) -> c_int;
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, thread};

    use super::*;

    #[test]
    fn threads_that_look_at_once_see_the_same() {
        static VALUE: PerProcess<Mutex<u32>> = PerProcess::new(|| Mutex::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| *VALUE.lock().unwrap() += 1);
            }
        });
        assert_eq!(*VALUE.lock().unwrap(), 8);
    }
}
