//! What connections hold of a host: counted while it is held, and limited where the configuration says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much of something is held by all connections together.
#[derive(Debug, Clone, Default)]
pub(super) struct Gauge(Arc<AtomicU64>);

impl Gauge {
    pub(super) fn held(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Takes `amount`, unless more than `limit` would be held then.
    pub(super) fn take(&self, amount: u64, limit: Option<u64>) -> Option<Holding> {
        let limit = limit.unwrap_or(u64::MAX);
        let more = |held: u64| held.checked_add(amount).filter(|sum| *sum <= limit);
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(Holding { gauge: self.clone(), amount })
    }
}

/// A part of a gauge, given back when dropped: also when the connection's task is aborted.
#[derive(Debug)]
pub(super) struct Holding {
    gauge: Gauge,
    amount: u64,
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.gauge.0.fetch_sub(self.amount, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_taken_above_the_limit_and_what_is_dropped_can_be_taken_again() {
        let gauge = Gauge::default();
        let first = gauge.take(6, Some(10)).unwrap();
        assert!(gauge.take(5, Some(10)).is_none());
        let second = gauge.take(4, Some(10)).unwrap();
        assert_eq!(gauge.held(), 10);
        drop(first);
        assert_eq!(gauge.held(), 4);
        assert!(gauge.take(u64::MAX, None).is_none());
        drop(second);
        assert_eq!(gauge.held(), 0);
    }
}
