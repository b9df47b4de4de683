//! `PrepareForAccess` and `EndAccess`: a virtual machine that is being backed up must not be moved.

use std::ffi::c_char;

use vixdisklib_sys::{ConnectParams, VixCode};
use vsphere_vim::{
    MoRef, Vim,
    method_lock::{LockOutcome, MethodLock},
    mo,
};

use crate::{
    call::{Failure, Outcome},
    connection::log_out,
    library::Library,
    log::{self, Channel},
    target::Target,
    text,
};

/// A virtual machine, and under which name it is kept from being moved.
pub(crate) struct Guarding {
    target: Target,
    identity: String,
}

impl Guarding {
    /// # Safety
    /// As [`Target::of_disks`]; `identity` is null or a valid text.
    pub(crate) unsafe fn of(params: *const ConnectParams, identity: *const c_char) -> Outcome<Self> {
        // SAFETY: as the caller promises.
        let (target, identity) = unsafe { (Target::of_server(params)?, text::required("identity", identity)?) };
        if identity.chars().count() > MOST_IDENTITY {
            return Err(Failure::new(VixCode::INVALID_ARG, "an identity has at most 50 characters"));
        }
        Ok(Self { target, identity })
    }

    /// Takes the lock. One that the same identity took before, as a program that crashed did, is taken over.
    pub(crate) fn prepare(&self, library: &Library) -> Outcome<()> {
        library.block_on(self.logged_in(async |vim, vm| {
            let lock = MethodLock::against_migration(vm, &self.identity);
            match vim.lock_methods(&lock).await? {
                LockOutcome::Taken => Ok(()),
                LockOutcome::AlreadyLocked { by } if by.as_ref() == Some(&self.identity) => Ok(()),
                LockOutcome::AlreadyLocked { by } => {
                    let by = by.unwrap_or_else(|| "somebody who is not named".to_owned());
                    Err(Failure::new(VixCode::OBJECT_IS_BUSY, format!("{vm} is kept in its place by {by}; try later")))
                }
                _ => {
                    log::line(Channel::Log, &format!("{vm} is on a server that moves nothing: no lock is needed"));
                    Ok(())
                }
            }
        }))
    }

    /// Releases the lock; that there is none is no error.
    pub(crate) fn end(&self, library: &Library) -> Outcome<()> {
        library.block_on(self.logged_in(async |vim, vm| {
            Ok(vim.unlock_methods(&MethodLock::against_migration(vm, &self.identity)).await?)
        }))
    }

    async fn logged_in(&self, work: impl AsyncFnOnce(&Vim, &MoRef<mo::VirtualMachine>) -> Outcome<()>) -> Outcome<()> {
        let vim = self.target.connect().await?;
        let done = async { work(&vim, &self.target.machine(&vim).await?).await };
        let done = done.await;
        log_out(&vim).await;
        done
    }
}

/// Of VMware's documentation.
const MOST_IDENTITY: usize = 50;
