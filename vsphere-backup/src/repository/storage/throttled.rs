//! A storage that is given no more than so many bytes a second.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    BoxFuture, Storage, StorageError,
    around::{Answer, Around, Kind, Operation, decorate},
    timer::Timer,
};

/// A decorator that limits the bytes sent to and taken from another storage. Clones of the inner
/// `Arc` elsewhere are not limited; share the decorator.
///
/// An upload waits before it is sent, a download before its bytes are handed out.
#[derive(Debug)]
#[must_use]
pub struct Throttled {
    inner: Arc<dyn Storage>,
    up: Option<Mutex<Bucket>>,
    down: Option<Mutex<Bucket>>,
    timer: Timer,
}

impl Throttled {
    /// Wraps `inner`, without a limit yet.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner, up: None, down: None, timer: Timer::default() }
    }

    /// Limits what is written to `rate` bytes a second, at least 1.
    pub fn up(mut self, rate: u64) -> Self {
        self.up = Some(Mutex::new(Bucket::new(rate)));
        self
    }

    /// Limits what is read to `rate` bytes a second, at least 1. Listings do not count.
    pub fn down(mut self, rate: u64) -> Self {
        self.down = Some(Mutex::new(Bucket::new(rate)));
        self
    }

    /// Takes the time from `timer`.
    pub fn timer(mut self, timer: &Timer) -> Self {
        self.timer = timer.clone();
        self
    }

    async fn pay(&self, bucket: Option<&Mutex<Bucket>>, bytes: u64) {
        let Some(bucket) = bucket else { return };
        let wait = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(self.timer.now(), bytes);
        self.timer.sleep(wait).await;
    }
}

impl Around for Throttled {
    fn inner(&self) -> &dyn Storage {
        &*self.inner
    }

    async fn around<'a, T: Answer>(
        &'a self,
        operation: Operation<'a>,
        mut attempt: impl FnMut() -> BoxFuture<'a, Result<T, StorageError>> + Send + 'a,
    ) -> Result<T, StorageError> {
        if let Kind::Write(bytes) = operation.kind {
            self.pay(self.up.as_ref(), bytes).await;
        }
        let answer = attempt().await?;
        self.pay(self.down.as_ref(), answer.received()).await;
        Ok(answer)
    }
}

decorate!(Throttled);

/// A token bucket that may go into debt: whoever takes more than there is waits until that is paid.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: u64,
    /// When everything taken so far is paid for.
    paid_at: Duration,
}

impl Bucket {
    pub(crate) fn new(rate: u64) -> Self {
        Self { rate: rate.max(1), paid_at: Duration::ZERO }
    }

    /// Takes `bytes` at the time `now`; returns how long to wait.
    pub(crate) fn take(&mut self, now: Duration, bytes: u64) -> Duration {
        let micros = u128::from(bytes) * 1_000_000 / u128::from(self.rate);
        let cost = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        // What was not used of the last moments may be used now, what was not used before is lost.
        self.paid_at = self.paid_at.max(now.saturating_sub(BURST)).saturating_add(cost);
        self.paid_at.saturating_sub(now)
    }
}

/// The time whose unused share may be used later.
const BURST: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_a_burst(
            rate in 1u64..10_000_000,
            steps in proptest::collection::vec((0u64..500, 0u64..1_000_000), 1..50),
        ) {
            let (mut bucket, mut now, mut taken) = (Bucket::new(rate), Duration::ZERO, 0u128);
            for (idle, bytes) in steps {
                now += Duration::from_millis(idle);
                now += bucket.take(now, bytes);
                taken += u128::from(bytes);
                let allowed = (now + BURST).as_micros() * u128::from(rate) / 1_000_000;
                // A microsecond a step is lost to rounding.
                prop_assert!(taken <= allowed + u128::from(rate / 1_000_000 + 1) * 50, "{taken} {allowed}");
            }
        }
    }

    #[test]
    fn a_bucket_does_not_keep_what_an_hour_left_unused() {
        let mut bucket = Bucket::new(1000);
        assert_eq!(bucket.take(Duration::from_secs(3600), 1100), Duration::from_secs(1));
    }
}
