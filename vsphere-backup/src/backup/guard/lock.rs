//! The lock against migration.

use vsphere_vim::method_lock::{LockOutcome, MethodLock};

use crate::{
    error::Result,
    event::Event,
    journal::{Job, Record},
    server::failed,
    step::Step,
};

use super::Guard;

impl Guard {
    /// Locks the machine against migration, where the server offers that and nobody else did.
    ///
    /// # Errors
    /// [`Error::Server`](crate::Error::Server) when the network failed; a refusal of the server is a warning.
    pub(crate) async fn lock(&self, job: &Job) -> Result<()> {
        self.record(Step::RecordLock, Record::LockIntent).await?;
        let lock = method_lock(self, job);
        let outcome = self
            .steps
            .take(Step::Lock, || async {
                match self.vim.lock_methods(&lock).await {
                    // A refusal that passes by itself is tried again, any other is an answer.
                    Err(error) if error.server_fault().is_some() && !error.is_retryable() => Ok(Err(error.to_string())),
                    other => other.map(Ok).map_err(failed("locking", &self.name)),
                }
            })
            .await;
        let why_not = match outcome {
            Ok(Ok(LockOutcome::Taken)) => {
                self.events.send(Event::Locked);
                return Ok(());
            }
            // An answer was lost and the call repeated, or the job is resumed.
            Ok(Ok(LockOutcome::AlreadyLocked { by: Some(by) })) if by == job.marker => return Ok(()),
            Ok(Ok(LockOutcome::AlreadyLocked { by })) => {
                format!("it is locked already, by {}", by.as_deref().unwrap_or("someone else"))
            }
            // A single host does not migrate machines: nothing to be warned of.
            Ok(Ok(_)) => return self.record(Step::RecordUnlock, Record::LockReleased).await,
            Ok(Err(refusal)) => refusal,
            Err(error) => return Err(error),
        };
        self.events.warn(format!("{} is not locked against migration: {why_not}", self.name));
        self.record(Step::RecordUnlock, Record::LockReleased).await
    }

    /// Releases the lock that the journal names, if there is one.
    pub(super) async fn unlock(&self) -> Result<()> {
        let Some(leftover) = self.leftover().filter(|leftover| leftover.lock) else {
            return Ok(());
        };
        let lock = method_lock(self, &leftover.job);
        self.steps
            .take(Step::Unlock, || async {
                self.vim.unlock_methods(&lock).await.map_err(failed("unlocking", &self.name))
            })
            .await?;
        self.record(Step::RecordUnlock, Record::LockReleased).await?;
        self.events.send(Event::Unlocked);
        Ok(())
    }
}

/// The marker is the lock's source, so that the lock can be found and released without the journal.
fn method_lock(guard: &Guard, job: &Job) -> MethodLock {
    MethodLock::against_migration(&guard.vm, &job.marker)
}
