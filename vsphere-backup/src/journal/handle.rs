//! A journal that is worked on from asynchronous code.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{error::Result, repository::VmId, thread::on_journal};

use super::{Job, Journal, Leftover, Record};

/// A journal whose calls do not block the runtime. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct JournalHandle(Arc<Mutex<Journal>>);

impl JournalHandle {
    /// As [`Journal::open`].
    pub(crate) async fn open(folder: PathBuf, vm: VmId) -> Result<Self> {
        let journal = on_journal(move || Journal::open(&folder, &vm)).await?;
        Ok(Self(Arc::new(Mutex::new(journal))))
    }

    /// As [`Journal::leftover`].
    pub(crate) fn leftover(&self) -> Option<Leftover> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).leftover().cloned()
    }

    /// As [`Journal::begin`].
    pub(crate) async fn begin(&self, job: Job) -> Result<()> {
        self.with(move |journal| journal.begin(job)).await
    }

    /// As [`Journal::append`].
    pub(crate) async fn append(&self, record: Record) -> Result<()> {
        self.with(move |journal| journal.append(record)).await
    }

    /// As [`Journal::clear`].
    pub(crate) async fn clear(&self) -> Result<()> {
        self.with(Journal::clear).await
    }

    /// Gives the lock back, so that the next run may have the machine. Nothing is written any more.
    pub(crate) async fn release(&self) {
        let released = self.with(|journal| {
            journal.release();
            Ok(())
        });
        // Only a panic of the release itself is an error here.
        let _ = released.await;
    }

    async fn with(&self, work: impl FnOnce(&mut Journal) -> Result<()> + Send + 'static) -> Result<()> {
        let journal = self.0.clone();
        on_journal(move || {
            // A panic inside leaves the file behind its last whole record, which is what counts.
            let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut journal)
        })
        .await
    }
}

/// The journal of a job, for whoever gives the job up.
#[derive(Debug, Default)]
pub(crate) struct Abandoned(Mutex<Option<JournalHandle>>);

impl Abandoned {
    pub(crate) fn note(&self, journal: &JournalHandle) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(journal.clone());
    }

    /// Lets the next run have the machine, now that nothing works on it any more.
    pub(crate) async fn release(&self) {
        let journal = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(journal) = journal {
            journal.release().await;
        }
    }
}
