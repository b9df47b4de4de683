//! A file that one process at a time has locked.

use std::{fs::File, io};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

/// A locked file, until it is dropped; the kernel releases it when the process dies.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Locks a file; `None` when somebody else has it.
    pub(super) fn take(file: File) -> io::Result<Option<Self>> {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Lock {
    /// Unlocks the file, which closing it need not do: a process that is just being started has it, too, for a moment.
    fn drop(&mut self) {
        // Closing it is what is left.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_was_dropped_is_free_although_a_forked_process_has_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let open = || File::create(folder.path().join("lock")).unwrap();
        let held = Lock::take(open()).unwrap().unwrap();
        let forked = held.0.try_clone().unwrap();
        assert!(Lock::take(open()).unwrap().is_none());
        drop(held);
        assert!(Lock::take(open()).unwrap().is_some());
        drop(forked);
    }
}
