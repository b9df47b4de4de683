//! How garbage is collected.

use std::time::Duration;

use crate::{cancel::CancelToken, clock::Clock};

use super::super::pin;

/// How garbage is collected.
#[derive(Clone, Debug)]
#[must_use]
pub struct GcOptions {
    pub(super) grace: Duration,
    pub(super) dry_run: bool,
    pub(super) compact_below: f64,
    pub(super) limits: GcLimits,
    pub(super) lease: Duration,
    pub(super) clock: Clock,
    pub(super) cancel: CancelToken,
}

/// What a collection may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcLimits {
    /// Bytes of memory for the table of chunks: 1 GiB by default. With less, marking takes more passes.
    pub memory: u64,
    /// Bytes that are rewritten at most to free packs of which little is needed: 64 GiB by default.
    pub rewrite: u64,
}

impl Default for GcLimits {
    fn default() -> Self {
        Self { memory: 1 << 30, rewrite: 64 << 30 }
    }
}

impl Default for GcOptions {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(24 * 3600),
            dry_run: false,
            compact_below: 0.5,
            limits: GcLimits::default(),
            lease: pin::TTL,
            clock: Clock::default(),
            cancel: CancelToken::new(),
        }
    }
}

impl GcOptions {
    /// Sets for how long nothing is condemned after it was written, and nothing is deleted after it was condemned:
    /// 24 hours by default.
    ///
    /// Running writers are safe by their leases, with any grace. It keeps what an interrupted backup stored for the
    /// next one, and what readers read who hold no pin.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Changes nothing and tells what would be done.
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Rewrites packs of which a smaller share is needed, 0.5 by default; 0 rewrites none.
    pub fn compact_below(mut self, share: f64) -> Self {
        self.compact_below = share.clamp(0.0, 1.0);
        self
    }

    /// Sets limits.
    pub fn limits(mut self, limits: GcLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the time to live of the collector's own lease: 15 minutes by default.
    pub fn lease(mut self, ttl: Duration) -> Self {
        self.lease = ttl.max(Duration::from_secs(1));
        self
    }

    /// Takes the time from another clock, for tests.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Lets a token cancel the collection, between two steps.
    pub fn cancel(mut self, cancel: &CancelToken) -> Self {
        self.cancel = cancel.clone();
        self
    }
}
