//! A suite that any [`Storage`] has to pass before a repository may be trusted to it.
//!
//! It needs no test framework: call it from a test, or from a program that looks at a new store
//! before the first backup.
//!
//! ```
//! use std::sync::Arc;
//! use vsphere_backup::repository::storage::{MemoryStorage, conformance::Conformance};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let storage = Arc::new(MemoryStorage::new());
//! let report = Conformance::new().large(1 << 20).many(100).run(storage).await?;
//! println!("kept: {:?}", report.kept);
//! # Ok::<(), vsphere_backup::repository::storage::conformance::Violation>(())
//! # }).unwrap();
//! ```
//!
//! What cannot be seen from outside is not proved: that an object survives a power failure is only
//! checked as far as [`reopen`](Conformance::reopen) goes, and a race that was not lost in the
//! suite's rounds may be lost in the next.

mod rules;

use std::{fmt, sync::Arc};

use super::{BoxFuture, Key, Storage, StorageError};
use crate::conformance;

/// The suite and its measures.
#[derive(Clone)]
#[must_use]
pub struct Conformance {
    prefix: String,
    large: usize,
    many: usize,
    racers: usize,
    rounds: usize,
    append_only: bool,
    reopen: Option<Reopen>,
}

type Reopen = Arc<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Storage>, StorageError>> + Send + Sync>;

/// A part of the contract of [`Storage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// What is not there is told as such, and removing it is no error.
    Absent,
    /// An object is given back as it was put, in one part or many, empty or not, within the limit.
    Whole,
    /// Ranges are exact or refused.
    Ranges,
    /// A second `put` replaces the first whole.
    Replaced,
    /// A deleted object is gone and its name free again.
    Deleted,
    /// Changes that a storage declared not to take are refused, and change nothing.
    Refused,
    /// One of several `put_new` wins; all others are told so, and change nothing.
    Exclusive,
    /// A reader meets an object whole or not at all, also while it is written or given up.
    Atomic,
    /// Listings are complete, by whole segments, with right sizes.
    Listed,
    /// Every key is an object of its own.
    Named,
    /// Large objects behave as small ones do.
    Large,
    /// Many operations at once do not disturb each other.
    Concurrent,
    /// Another handle, opened afterwards, sees the same.
    Durable,
}

/// What was found to hold.
pub type Report = conformance::Report<Rule>;

/// The first breach of the contract.
pub type Violation = conformance::Violation<Rule>;

impl Default for Conformance {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Conformance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, large, many, racers, rounds, append_only, .. } = self;
        let of = (prefix, large, many, racers, rounds, append_only);
        write!(f, "Conformance{of:?}")
    }
}

impl Conformance {
    /// The whole suite: objects of up to 40 MiB, listings of 1100 objects.
    pub fn new() -> Self {
        Self {
            prefix: "conformance".into(),
            large: 40 << 20,
            many: 1100,
            racers: 16,
            rounds: 8,
            append_only: false,
            reopen: None,
        }
    }

    /// Sets below which key objects are written: `conformance` by default. There must be none yet.
    /// They are removed at the end of a run without a violation, where the storage lets them.
    pub fn prefix(mut self, key: &Key) -> Self {
        self.prefix = key.to_string();
        self
    }

    /// Sets the size of large objects in bytes. They should be larger than what the store sends in one request.
    pub fn large(mut self, bytes: usize) -> Self {
        self.large = bytes;
        self
    }

    /// Sets the number of objects in the long listing, which should be more than the store lists in one answer.
    pub fn many(mut self, objects: usize) -> Self {
        self.many = objects;
        self
    }

    /// Sets how many contend for one name at once, at least 2, and how often.
    pub fn races(mut self, racers: usize, rounds: usize) -> Self {
        (self.racers, self.rounds) = (racers.max(2), rounds);
        self
    }

    /// States that the storage refuses to delete and to replace, which is checked then.
    pub fn append_only(mut self) -> Self {
        self.append_only = true;
        self
    }

    /// Gives a way to open the same storage anew, in this process or, better, after a restart of the server.
    pub fn reopen<F>(mut self, open: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Arc<dyn Storage>, StorageError>> + Send + 'static,
    {
        self.reopen = Some(Arc::new(move || Box::pin(open())));
        self
    }

    /// Checks a storage, one rule after the other. Needs a tokio runtime with its timers.
    ///
    /// # Errors
    /// The first [`Violation`]. A storage that fails otherwise breaks the rule that was being checked.
    ///
    /// # Cancel safety
    /// When dropped, objects below the prefix stay.
    pub async fn run(&self, storage: Arc<dyn Storage>) -> Result<Report, Violation> {
        let mut kept = Vec::new();
        for &(rule, check) in rules::ALL {
            if !self.applies(rule) {
                continue;
            }
            let place = rules::Place {
                storage: &storage,
                suite: self,
                folder: format!("{}/{}", self.prefix, format!("{rule:?}").to_lowercase()),
            };
            check(&place).await.map_err(|what| Violation::new(rule, what))?;
            if !self.append_only {
                place.clear().await.map_err(|what| Violation::new(Rule::Deleted, what))?;
            }
            kept.push(rule);
        }
        Ok(Report::new(kept))
    }

    fn applies(&self, rule: Rule) -> bool {
        match rule {
            Rule::Replaced | Rule::Deleted => !self.append_only,
            Rule::Refused => self.append_only,
            Rule::Durable => self.reopen.is_some(),
            _ => true,
        }
    }
}
