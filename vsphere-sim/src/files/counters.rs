//! What went through `/folder`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Requests to `/folder` and the bytes that answered them. The numbers only grow.
#[derive(Debug, Default)]
pub struct FolderCounters {
    requests: AtomicU64,
    bytes: AtomicU64,
    running: AtomicU64,
    most_at_once: AtomicU64,
    connections: AtomicU64,
}

/// A request that is being answered.
pub(crate) struct Metered(Arc<FolderCounters>);

impl FolderCounters {
    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Bytes of bodies sent so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Requests being answered.
    pub fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }

    /// Most requests that were answered at the same time.
    pub fn most_at_once(&self) -> u64 {
        self.most_at_once.load(Ordering::Relaxed)
    }

    /// Connections to the HTTPS endpoint so far, those of the API too.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn begin(self: &Arc<Self>) -> Metered {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_at_once.fetch_max(running, Ordering::Relaxed);
        Metered(self.clone())
    }

    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }
}

impl Metered {
    pub(crate) fn add(&self, bytes: u64) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}
