//! Freeing what jobs left in a store, by what the journal says.

use std::time::Duration;

use super::failed;
use crate::{
    backup::guard::Guard,
    error::{DiskError, in_one_line},
    event::{Event, Events},
    repository::VmId,
    step::Step,
    store::Sink,
};

/// Frees what is in no point of the jobs that wrote to this store, but for one that goes on. What cannot be freed is
/// returned, and stays in the journal.
pub(super) async fn all(
    guard: &Guard,
    sink: &dyn Sink,
    vm: &VmId,
    goes_on: Option<&str>,
    events: &Events,
) -> Vec<String> {
    let (stores, here) = (guard.leftover().map(|leftover| leftover.stores).unwrap_or_default(), sink.id());
    let mut left = Vec::new();
    for (job, _) in stores.iter().filter(|(job, store)| **store == here && goes_on != Some(job)) {
        let free = async {
            // A store that does not answer must not hold the machine's journal.
            let done = tokio::time::timeout(LIMIT, sink.discard(vm.as_str(), job)).await;
            let silent = |_| Err(DiskError::new(format!("no answer after {LIMIT:?}")).retryable(true));
            done.unwrap_or_else(silent).map_err(failed("the discard of what a job left"))
        };
        let freed = async {
            guard.steps().once(Step::DiscardStored, free).await?;
            guard.forget_store(job).await
        };
        if let Err(error) = freed.await {
            let what = format!("what job {job} stored in {here}: {}", in_one_line(&error));
            events.send(Event::LeftBehind { what: what.clone() });
            left.push(what);
        }
    }
    left
}

/// How long a store may take to free what a job left.
const LIMIT: Duration = Duration::from_secs(60);
