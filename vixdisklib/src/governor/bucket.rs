//! A token bucket: so many bytes per second, with a little in hand.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes per second. A request may begin when the bucket is not in debt, and then puts it into debt by all of its
/// bytes: so large requests need no large bucket, and the rate holds over any time, but for one request and what the
/// bucket holds.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Bytes per second; `None` is no limit.
    rate: Option<u64>,
    /// Bytes times nanoseconds per second, so that nothing is lost in rounding.
    level: i128,
    updated: Instant,
}

impl Bucket {
    pub(super) fn new(rate: Option<u64>, now: Instant) -> Self {
        let mut bucket = Self { rate: None, level: 0, updated: now };
        bucket.set_rate(rate, now);
        bucket
    }

    /// Changes the rate. Debt stays: what has travelled has travelled.
    pub(super) fn set_rate(&mut self, rate: Option<u64>, now: Instant) {
        self.refill(now);
        let rate = rate.map(|rate| rate.max(1));
        if self.rate.is_none() && rate.is_some() {
            self.level = 0;
        }
        self.rate = rate;
        self.level = self.level.min(self.capacity());
    }

    /// When a request may begin: `None` means at once.
    pub(super) fn ready_at(&mut self, now: Instant) -> Option<Instant> {
        self.refill(now);
        let rate = self.rate?;
        if self.level >= 0 {
            return None;
        }
        let wait = self.level.unsigned_abs().div_ceil(u128::from(rate));
        Some(now + Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX)).min(LONGEST))
    }

    /// Takes the bytes of a request that begins.
    pub(super) fn take(&mut self, bytes: u64) {
        if self.rate.is_some() {
            self.level -= i128::from(bytes) * SECOND;
        }
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.updated).as_nanos();
        self.updated = self.updated.max(now);
        if let Some(rate) = self.rate {
            // A century at a terabyte per second still fits.
            let added = i128::try_from(elapsed).unwrap_or(i128::MAX / 2).saturating_mul(i128::from(rate));
            self.level = self.level.saturating_add(added).min(self.capacity());
        }
    }

    /// What is in hand at most: a twentieth of a second.
    fn capacity(&self) -> i128 {
        self.rate.map_or(0, |rate| i128::from(rate) * SECOND / 20)
    }
}

/// Nanoseconds.
const SECOND: i128 = 1_000_000_000;

/// Whoever waits longer asks again.
const LONGEST: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_debt_is_paid_at_the_rate() {
        let now = Instant::now();
        let mut bucket = Bucket::new(Some(1000), now);
        assert_eq!(bucket.ready_at(now), None);
        bucket.take(500);
        assert_eq!(bucket.ready_at(now), Some(now + Duration::from_millis(500)));
        assert_eq!(bucket.ready_at(now + Duration::from_millis(500)), None);
        // An hour of silence is worth a twentieth of a second.
        let later = now + Duration::from_secs(3600);
        assert_eq!(bucket.ready_at(later), None);
        bucket.take(1050);
        assert_eq!(bucket.ready_at(later), Some(later + Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_rate_holds_at_once_and_for_old_debts() {
        let now = Instant::now();
        let mut bucket = Bucket::new(None, now);
        bucket.take(u64::MAX);
        assert_eq!(bucket.ready_at(now), None);
        bucket.set_rate(Some(100), now);
        bucket.take(1000);
        bucket.set_rate(Some(1000), now);
        assert_eq!(bucket.ready_at(now), Some(now + Duration::from_secs(1)));
        bucket.set_rate(None, now);
        assert_eq!(bucket.ready_at(now), None);
    }
}
