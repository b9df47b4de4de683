//! How a writer works.

use std::{num::NonZeroUsize, time::Duration};

use super::super::pin;

/// How much a [`Writer`](super::Writer) holds in memory and does at a time.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct WriterOptions {
    pub(super) pack_size: usize,
    pub(super) workers: usize,
    pub(super) uploads: usize,
    pub(in crate::repository) lease: Duration,
}

impl Default for WriterOptions {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
        Self { pack_size: 32 << 20, workers, uploads: 1, lease: pin::TTL }
    }
}

impl WriterOptions {
    /// Sets the size in bytes at which a pack is closed: 32 MiB by default, 1 to 64 MiB.
    ///
    /// In memory are one pack that is being filled, one that waits, and those being written.
    pub fn pack_size(mut self, bytes: usize) -> Self {
        self.pack_size = bytes.clamp(1 << 20, 64 << 20);
        self
    }

    /// Sets how many runs are hashed and compressed at once: one a CPU by default, at most 64.
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count.clamp(1, MOST_WORKERS);
        self
    }

    /// Sets how long the writer counts as alive without a sign of life: 15 minutes by default, at least a second.
    ///
    /// A sign is given every third of it. A writer that is silent for longer may be declared dead by a collector of
    /// garbage, and then cannot commit.
    pub fn lease(mut self, ttl: Duration) -> Self {
        self.lease = ttl.max(Duration::from_secs(1));
        self
    }

    /// Sets how many packs are written to the storage at once: 1 by default, which is enough for a
    /// local disk. A store that is far away needs more.
    pub fn uploads(mut self, count: usize) -> Self {
        self.uploads = count.clamp(1, 64);
        self
    }
}

/// Each works on memory of its own, which is part of the pack: no pack may outgrow 1 GiB.
const MOST_WORKERS: usize = 64;
