//! Keeping a virtual machine in its place while its disks are read: it must not be migrated, for tickets, locks and
//! snapshots go with it.
//!
//! ```no_run
//! use vixdisklib::access::{self, AccessOptions};
//! # use vsphere_vim::{MoRef, Vim, mo};
//! # async fn example(vim: Vim, vm: MoRef<mo::VirtualMachine>) -> vixdisklib::Result<()> {
//! let options = AccessOptions::new().journal("/var/lib/backup/access");
//! // After a crash: releases what earlier runs of this program left behind.
//! let _left = access::clean_up(&vim, Some("backup of example.org"), &options).await?;
//!
//! access::prepare_for_access(&vim, &vm, "backup of example.org", &options).await?;
//! // Create a snapshot, open its disks, read them, close them, remove the snapshot.
//! access::end_access(&vim, &vm, "backup of example.org", &options).await
//! # }
//! ```
//!
//! The lock is the server's and outlives the session, the connection and the program: it is written to a journal before
//! it is taken, and whoever has the same journal and identity can release it.

mod journal;

use std::{path::PathBuf, time::Duration};

use vsphere_vim::{
    MoRef, Vim,
    method_lock::{LockOutcome, MethodLock},
    mo,
};

use self::journal::{Journal, Note};
use crate::error::{Error, Result};

/// How [`prepare_for_access`] waits and what it remembers.
#[derive(Debug, Clone)]
#[must_use]
pub struct AccessOptions {
    attempts: u32,
    pause: Duration,
    journal: Option<PathBuf>,
}

impl AccessOptions {
    /// Ten attempts, a minute apart, as VMware's sample does; no journal.
    pub fn new() -> Self {
        Self { attempts: 10, pause: Duration::from_secs(60), journal: None }
    }

    /// How often a lock that somebody else holds is asked for, at least once, and how long to wait in between.
    pub fn retry(self, attempts: u32, pause: Duration) -> Self {
        Self { attempts: attempts.max(1), pause, ..self }
    }

    /// The directory in which locks are written down before they are taken; made if it is not there. [`clean_up`] finds
    /// them by it. One directory may serve several programs and servers.
    #[doc(alias = "tmpDirectory")]
    pub fn journal(self, directory: impl Into<PathBuf>) -> Self {
        Self { journal: Some(directory.into()), ..self }
    }

    async fn open_journal(&self) -> Result<Option<Journal>> {
        match &self.journal {
            Some(directory) => Journal::open(directory.clone()).await.map(Some),
            None => Ok(None),
        }
    }
}

impl Default for AccessOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// What came of [`prepare_for_access`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Prepared {
    /// The VM stays where it is.
    Locked,
    /// It was locked already, by this identity: an earlier run did not end its access, or another one is under way.
    LockedBefore,
    /// The server is an ESXi host, from which nothing migrates by itself: there was nothing to do.
    NotNeeded,
}

/// What [`clean_up`] did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct CleanUp {
    /// Locks that were released.
    pub cleaned: u32,
    /// Locks that could not be, and why. They are still in the journal.
    pub remaining: Vec<(MoRef<mo::VirtualMachine>, Error)>,
}

/// Forbids migrating a VM. Call it before its snapshot is created.
///
/// `identity` names the program, in at most 50 characters; only it can lift the lock again. A lock of somebody else is
/// waited for as the options say.
///
/// # Errors
/// [`Error::InvalidIdentity`]; [`Error::AccessLocked`] when somebody else holds the lock to the end; [`Error::Journal`]
/// when it cannot be written down, and then it is not taken; [`Error::Server`].
///
/// # Privileges
/// `Global.DisableMethods` and `Global.EnableMethods` on the VM.
///
/// # Cancel safety
/// A dropped future may have taken the lock: [`end_access`] releases it, and [`clean_up`] with a journal.
#[doc(alias = "VixDiskLib_PrepareForAccess")]
pub async fn prepare_for_access(
    vim: &Vim,
    vm: &MoRef<mo::VirtualMachine>,
    identity: &str,
    options: &AccessOptions,
) -> Result<Prepared> {
    check_identity(identity)?;
    if !vim.is_vcenter() {
        tracing::debug!(%vm, "an ESXi host migrates nothing: no lock is needed");
        return Ok(Prepared::NotNeeded);
    }
    let journal = options.open_journal().await?;
    let note = Note::new(server_of(vim), vm.clone(), identity);
    if let Some(journal) = &journal {
        journal.add(&note).await?;
    }
    let outcome = lock(vim, vm, identity, options).await;
    // After an error of the network the lock may be taken all the same, and one whose holder is not told may be ours:
    // then its note stays.
    let is_not_ours = matches!(outcome, Ok(Prepared::NotNeeded) | Err(Error::AccessLocked { holder: Some(_), .. }));
    if let Some(journal) = journal.filter(|_| is_not_ours)
        && let Err(error) = journal.remove(&note).await
    {
        tracing::warn!(%vm, %error, "a note of a lock that was not taken is left");
    }
    outcome
}

async fn lock(vim: &Vim, vm: &MoRef<mo::VirtualMachine>, identity: &str, options: &AccessOptions) -> Result<Prepared> {
    let wanted = MethodLock::against_migration(vm, identity);
    let mut attempt = 1;
    loop {
        let outcome = vim.lock_methods(&wanted).await.map_err(failed("locking against migration", vm))?;
        let holder = match outcome {
            LockOutcome::Taken => return Ok(Prepared::Locked),
            LockOutcome::AlreadyLocked { by: Some(by) } if by == identity => return Ok(Prepared::LockedBefore),
            LockOutcome::AlreadyLocked { by } => by,
            _ => return Ok(Prepared::NotNeeded),
        };
        if attempt >= options.attempts {
            return Err(Error::AccessLocked { vm: vm.to_string(), holder, attempts: attempt });
        }
        tracing::info!(%vm, ?holder, attempt, "somebody else keeps the VM in its place; waiting");
        attempt += 1;
        tokio::time::sleep(options.pause).await;
    }
}

/// Allows migrating a VM again. Call it after its snapshot was removed. Locks of others stay; a VM that is not locked,
/// or is gone, is no error.
///
/// # Errors
/// [`Error::InvalidIdentity`], [`Error::Server`]; [`Error::Journal`] when the lock is gone but its note is not.
///
/// # Privileges
/// `Global.EnableMethods` on the VM.
///
/// # Cancel safety
/// Safe to repeat.
#[doc(alias = "VixDiskLib_EndAccess")]
pub async fn end_access(
    vim: &Vim,
    vm: &MoRef<mo::VirtualMachine>,
    identity: &str,
    options: &AccessOptions,
) -> Result<()> {
    check_identity(identity)?;
    let unlocked = vim.unlock_methods(&MethodLock::against_migration(vm, identity)).await;
    unlocked.map_err(failed("releasing the lock", vm))?;
    match options.open_journal().await? {
        Some(journal) => journal.remove(&Note::new(server_of(vim), vm.clone(), identity)).await,
        None => Ok(()),
    }
}

/// Releases what earlier runs left locked on this server, as their journal says: those with this identity, or with any
/// when there is none. Without a journal there is nothing to go by, and nothing is done.
///
/// Call it when no other run with the same journal is under way: it cannot tell a run that died from one that is at work.
///
/// # Errors
/// [`Error::InvalidIdentity`], and [`Error::Journal`] when the journal cannot be read. Locks that cannot be released are
/// in the answer.
///
/// # Privileges
/// `Global.EnableMethods` on the VMs.
///
/// # Cancel safety
/// Safe to repeat.
#[doc(alias = "VixDiskLib_Cleanup")]
pub async fn clean_up(vim: &Vim, identity: Option<&str>, options: &AccessOptions) -> Result<CleanUp> {
    identity.map_or(Ok(()), check_identity)?;
    let mut done = CleanUp::default();
    let Some(journal) = options.open_journal().await? else { return Ok(done) };
    let server = server_of(vim);
    for note in journal.notes().await? {
        if note.server != server || identity.is_some_and(|identity| note.identity != identity) {
            continue;
        }
        match end_access(vim, &note.vm, &note.identity, options).await {
            Ok(()) => done.cleaned += 1,
            Err(error) => done.remaining.push((note.vm, error)),
        }
    }
    Ok(done)
}

fn check_identity(identity: &str) -> Result<()> {
    let reason = if identity.trim().is_empty() {
        "it is empty"
    } else if identity.chars().count() > MAX_IDENTITY {
        "it has more than 50 characters"
    } else if identity.chars().any(char::is_control) {
        "it has control characters"
    } else {
        return Ok(());
    };
    Err(Error::InvalidIdentity { identity: identity.to_owned(), reason })
}

/// What tells one server from another, whatever name it is reached by.
fn server_of(vim: &Vim) -> String {
    vim.server_uuid().unwrap_or_default().to_owned()
}

fn failed(operation: &'static str, vm: &MoRef<mo::VirtualMachine>) -> impl FnOnce(vsphere_vim::Error) -> Error + use<> {
    let of = vm.to_string();
    move |source| Error::Server { operation, of, source: Box::new(source) }
}

/// The longest identity, as documented for `VixDiskLib_PrepareForAccess`.
const MAX_IDENTITY: usize = 50;
