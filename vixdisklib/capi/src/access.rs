//! `PrepareForAccess`, `EndAccess` and `Cleanup`: a virtual machine that is being backed up must not be moved.

use std::{ffi::c_char, time::Duration};

use vixdisklib::access::{self, AccessOptions, CleanUp, Prepared, end_access, prepare_for_access};
use vixdisklib_sys::ConnectParams;
use vsphere_vim::{MoRef, Vim, mo};

use crate::{
    call::Outcome,
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
        Ok(Self { target, identity })
    }

    /// Takes the lock. One that the same identity took before, as a program that crashed did, is taken over.
    pub(crate) fn prepare(&self, library: &Library) -> Outcome<()> {
        let options = options(library);
        library.block_on(self.logged_in(async |vim, vm| {
            if prepare_for_access(vim, vm, &self.identity, &options).await? == Prepared::NotNeeded {
                log::line(Channel::Log, &format!("{vm} is on a server that moves nothing: no lock is needed"));
            }
            Ok(())
        }))
    }

    /// Releases the lock; that there is none is no error.
    pub(crate) fn end(&self, library: &Library) -> Outcome<()> {
        let options = options(library);
        library.block_on(self.logged_in(async |vim, vm| Ok(end_access(vim, vm, &self.identity, &options).await?)))
    }

    async fn logged_in(&self, work: impl AsyncFnOnce(&Vim, &MoRef<mo::VirtualMachine>) -> Outcome<()>) -> Outcome<()> {
        let vim = self.target.connect().await?;
        let done = async { work(&vim, &self.target.machine(&vim).await?).await };
        let done = done.await;
        log_out(&vim).await;
        done
    }
}

/// Releases the locks of programs that crashed, whatever they called themselves.
pub(crate) fn clean_up(library: &Library, target: &Target) -> Outcome<CleanUp> {
    let options = options(library);
    library.block_on(async {
        let vim = target.connect().await?;
        let done = access::clean_up(&vim, None, &options).await;
        log_out(&vim).await;
        let done = done?;
        for (vm, error) in &done.remaining {
            log::line(Channel::Warn, &format!("the lock of {vm} could not be released: {error}"));
        }
        Ok(done)
    })
}

/// Programs expect to be told at once that somebody else has the lock: they try again themselves.
fn options(library: &Library) -> AccessOptions {
    let options = AccessOptions::new().retry(1, Duration::ZERO);
    match &library.config.tmp_directory {
        Some(directory) => options.journal(directory),
        None => options,
    }
}
