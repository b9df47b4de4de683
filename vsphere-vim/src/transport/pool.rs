//! Open connections: a bounded number, the idle ones kept for the next request.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The sending half of a connection; a spawned task drives the other half.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// Connections of one server.
#[derive(Debug)]
pub(super) struct Pool {
    idle: Mutex<VecDeque<(Sender, Instant)>>,
    short: Semaphore,
    long: Semaphore,
    keep: usize,
    max_idle: Duration,
}

impl Pool {
    /// At most `connections` requests at once, besides `long_polls` blocking ones.
    pub(super) fn new(connections: usize, long_polls: usize, max_idle: Duration) -> Self {
        Self {
            idle: Mutex::default(),
            short: Semaphore::new(connections.max(1)),
            long: Semaphore::new(long_polls.max(1)),
            keep: connections.max(1),
            max_idle,
        }
    }

    /// Waits for the right to use a connection.
    pub(super) async fn admit(&self, long_poll: bool) -> SemaphorePermit<'_> {
        let semaphore = if long_poll { &self.long } else { &self.short };
        semaphore.acquire().await.expect("the semaphores are never closed")
    }

    /// A connection that was usable a moment ago, the most recently used first.
    pub(super) fn take(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(sender, since)| !sender.is_closed() && since.elapsed() < self.max_idle);
        // A connection whose driver has not yet digested the last answer is put back for later.
        let ready = idle.iter().rposition(|(sender, _)| sender.is_ready())?;
        idle.remove(ready).map(|(sender, _)| sender)
    }

    /// Keeps a connection for the next request.
    pub(super) fn put_back(&self, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !sender.is_closed() {
            idle.push_back((sender, Instant::now()));
        }
        while idle.len() > self.keep {
            idle.pop_front();
        }
    }
}
