//! A suite that any [`Sink`] has to pass before backups may go there. It needs no test framework.
//!
//! ```
//! use std::sync::Arc;
//! use vsphere_backup::{repository::{CreateOptions, Repository, WriterOptions, storage::MemoryStorage}};
//! use vsphere_backup::store::{RepositorySink, conformance::Conformance};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let options = CreateOptions::default().chunk_size(64 << 10);
//! let repository = Repository::create(Arc::new(MemoryStorage::new()), options).await?;
//! let sink = RepositorySink::new(&repository, WriterOptions::default());
//! let report = Conformance::new("00000000-0000-0000-0000-000000000001").run(Arc::new(sink)).await?;
//! println!("kept: {:?}", report.kept);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

mod rules;
mod told;

use std::{fmt, sync::Arc};

use super::Sink;
use crate::{conformance, error::DiskError, repository::storage::BoxFuture};

/// The suite and where it writes.
#[derive(Clone)]
#[must_use]
pub struct Conformance {
    vm: String,
    reopen: Option<Reopen>,
}

type Reopen = Arc<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Sink>, DiskError>> + Send + Sync>;

/// A part of the contract of [`Sink`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A disk is given back as it was told, byte by byte.
    Whole,
    /// Data, zeros and what is unallocated are told apart.
    Kinds,
    /// What is unchanged or not told is the parent's.
    Unchanged,
    /// A disk does not change when a child of it is written.
    Independent,
    /// A disk that grew has nothing allocated behind its parent's end.
    Grown,
    /// Ranges that are out of order, not aligned or behind the end are refused.
    OnePass,
    /// A writer goes on after a checkpoint.
    Checkpoint,
    /// Nothing is visible before its commit, nor what was given up.
    Hidden,
    /// What is not finished cannot be committed.
    Finished,
    /// What a job left is freed, and nothing else.
    Discarded,
    /// Another writer goes on where a checkpoint says, through another handle where there is a way to reopen. Of stores
    /// that give no tokens behind byte 0 nothing is asked.
    Resumed,
    /// The name of a point is given once.
    Exclusive,
    /// Points are listed as they were committed, the oldest first.
    Listed,
    /// Another handle, opened afterwards, sees the same.
    Durable,
}

/// What was found to hold.
pub type Report = conformance::Report<Rule>;

/// The first breach of the contract.
pub type Violation = conformance::Violation<Rule>;

impl fmt::Debug for Conformance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conformance({})", self.vm)
    }
}

impl Conformance {
    /// The suite, which writes points of the machine `vm` (a UUID); there must be none yet. They stay.
    pub fn new(vm: impl Into<String>) -> Self {
        Self { vm: vm.into(), reopen: None }
    }

    /// Gives a way to open the same store anew.
    pub fn reopen<F>(mut self, open: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Arc<dyn Sink>, DiskError>> + Send + 'static,
    {
        self.reopen = Some(Arc::new(move || Box::pin(open())));
        self
    }

    /// Checks a store, one rule after the other. Needs a tokio runtime.
    ///
    /// # Errors
    /// The first [`Violation`]. A store that fails otherwise breaks the rule that was being checked.
    ///
    /// # Cancel safety
    /// When dropped, points stay.
    pub async fn run(&self, sink: Arc<dyn Sink>) -> Result<Report, Violation> {
        let mut kept = Vec::new();
        for &(rule, check) in rules::ALL {
            let place = Place { sink: &*sink, suite: self, rule, step: sink.alignment() };
            let broken = |what| Violation::new(rule, what);
            let applies = match rule {
                Rule::Durable => self.reopen.is_some(),
                Rule::Resumed => rules::gives_tokens(&place).await.map_err(broken)?,
                _ => true,
            };
            if applies {
                check(&place).await.map_err(broken)?;
                kept.push(rule);
            }
        }
        Ok(Report::new(kept))
    }
}

/// Where a rule is checked.
struct Place<'a> {
    sink: &'a dyn Sink,
    suite: &'a Conformance,
    rule: Rule,
    step: u64,
}
