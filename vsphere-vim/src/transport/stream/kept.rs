//! Connections whose last exchange has ended, kept for the next one to the same server.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hyper::client::conn::http1::SendRequest;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::upload::Outgoing;
use crate::{endpoint::Endpoint, trust::Thumbprint};

/// An open connection, and the task that drives it. The task ends with this value.
pub(super) struct Link {
    pub(super) to: Peer,
    pub(super) sender: SendRequest<Outgoing>,
    pub(super) driver: JoinHandle<()>,
}

/// Who is at the other end, and by which certificate it was trusted: only the same may use it again.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) endpoint: Endpoint,
    pub(super) thumbprint: Option<Thumbprint>,
}

/// The idle connections.
pub(super) struct Kept {
    idle: Mutex<Vec<(Link, Instant)>>,
    most: usize,
    longest: Duration,
}

impl Kept {
    pub(super) fn new(most: usize, longest: Duration) -> Self {
        Self { idle: Mutex::default(), most, longest }
    }

    /// The connection to `peer` that was used last, if it still stands.
    pub(super) async fn take(&self, peer: &Peer) -> Option<Link> {
        loop {
            let mut link = {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                idle.retain(|(link, since)| !link.sender.is_closed() && since.elapsed() < self.longest);
                let at = idle.iter().rposition(|(link, _)| link.to == *peer)?;
                idle.remove(at).0
            };
            // Its driver may still have to digest the end of the last answer.
            if matches!(timeout(SETTLE, link.sender.ready()).await, Ok(Ok(()))) {
                return Some(link);
            }
        }
    }

    /// Keeps a connection whose exchange has ended.
    pub(super) fn put(&self, link: Link) {
        if link.sender.is_closed() || self.most == 0 {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push((link, Instant::now()));
        if idle.len() > self.most {
            idle.remove(0);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("most", &self.most).field("longest", &self.longest).finish_non_exhaustive()
    }
}

/// Longest wait for a connection that has nothing more to do.
const SETTLE: Duration = Duration::from_millis(50);
