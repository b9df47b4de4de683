//! The passing of time, as decorators need it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::BoxFuture;

/// Tells how long something took and waits: by the system, or by hand for tests.
#[derive(Clone)]
pub struct Timer {
    now: Arc<dyn Fn() -> Duration + Send + Sync>,
    sleep: Arc<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>,
}

impl Timer {
    /// A timer whose waits are over at once and move its time on, so that tests need not wait.
    pub fn by_hand() -> Self {
        let time = Arc::new(Mutex::new(Duration::ZERO));
        let moved = time.clone();
        let sleep = move |wait: Duration| {
            *moved.lock().unwrap_or_else(PoisonError::into_inner) += wait;
            Box::pin(tokio::task::yield_now()) as _
        };
        Self { now: Arc::new(move || *time.lock().unwrap_or_else(PoisonError::into_inner)), sleep: Arc::new(sleep) }
    }

    /// Returns the time since the timer was made.
    pub fn now(&self) -> Duration {
        (self.now)()
    }

    /// Waits.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn sleep(&self, wait: Duration) {
        if !wait.is_zero() {
            (self.sleep)(wait).await;
        }
    }
}

impl Default for Timer {
    /// The system's.
    fn default() -> Self {
        let begun = Instant::now();
        let sleep = |wait| Box::pin(tokio::time::sleep(wait)) as _;
        Self { now: Arc::new(move || begun.elapsed()), sleep: Arc::new(sleep) }
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timer({:?})", self.now())
    }
}
