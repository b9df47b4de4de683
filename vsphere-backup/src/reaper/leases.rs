//! Repositories as witnesses: a job is alive while its lease there is.

use crate::{
    clock::Clock,
    error::Result,
    repository::{Repository, VmId, lease::watch, storage::BoxFuture},
};

use super::{Fence, Fenced, Liveness};

/// The leases of a repository: alive is a job whose writer or reader gives signs of life, on whatever proxy.
///
/// A lease is dead when it was not renewed between two looks that are at least its time to live apart; a look is noted
/// in the repository, so the looks may be of two runs. A dead one is fenced before anything of its job goes: should the
/// job wake up, it cannot commit.
#[derive(Clone, Debug)]
#[must_use]
pub struct Leases {
    repository: Repository,
    clock: Clock,
}

impl Leases {
    /// The leases of this repository, which must be open for writing.
    pub fn of(repository: &Repository) -> Self {
        Self { repository: repository.clone(), clock: Clock::default() }
    }

    /// Takes the time from a clock: the system's by default.
    pub fn clock(mut self, clock: &Clock) -> Self {
        self.clock = clock.clone();
        self
    }

    async fn ask(&self, job: &str) -> Result<Fenced> {
        let objects = self.repository.objects();
        let live = |body: String| Ok(Fenced::Live(format!("{body} in repository {}", self.repository.id())));
        for found in watch::survey(objects, &self.clock, true).await? {
            if !found.is_for(job) {
                continue;
            }
            if found.is_alive() || !watch::fence(objects, &found).await? {
                return live(found.body.describe());
            }
        }
        Ok(Fenced::Dead(Fence::none()))
    }
}

impl Liveness for Leases {
    fn fence<'a>(&'a self, job: &'a str, _: Option<&'a VmId>) -> BoxFuture<'a, Result<Fenced>> {
        Box::pin(self.ask(job))
    }
}
