//! A storage whose passing failures are met by trying again.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{
    BoxFuture, BoxStream, Key, ObjectInfo, Storage, StorageError, StorageErrorKind,
    around::{Answer, Around, Operation, decorate, total},
    join,
    timer::Timer,
};

/// A decorator that tries again what failed with [`StorageErrorKind::Unavailable`], a bounded
/// number of times with growing pauses.
///
/// The stores of [`ObjectStorage`](super::ObjectStorage) try again by themselves; this is for
/// others, such as a folder on NFS. A `put_new` whose first answer was lost finds its own object
/// when tried again: it is a success when the bytes are the same. What two writers must not both
/// believe to own therefore has to differ between them, as manifests and leases do.
///
/// A listing is begun again only while nothing of it was given out.
#[derive(Debug)]
#[must_use]
pub struct Retried {
    inner: Arc<dyn Storage>,
    tries: u32,
    first: Duration,
    longest: Duration,
    timer: Timer,
}

impl Retried {
    /// Wraps `inner`: 5 tries with pauses of 200 ms, doubling, up to 5 s.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        let (first, longest) = (Duration::from_millis(200), Duration::from_secs(5));
        Self { inner, tries: 5, first, longest, timer: Timer::default() }
    }

    /// Sets how often an operation is tried: 1 to 100.
    pub fn tries(mut self, tries: u32) -> Self {
        self.tries = tries.clamp(1, 100);
        self
    }

    /// Sets the first pause, which doubles with each try, and the longest.
    pub fn pauses(mut self, first: Duration, longest: Duration) -> Self {
        (self.first, self.longest) = (first, longest);
        self
    }

    /// Takes the time from `timer`.
    pub fn timer(mut self, timer: &Timer) -> Self {
        self.timer = timer.clone();
        self
    }

    /// Waits after failed try number `tried`; `false` when there is to be no other.
    async fn again(&self, tried: u32, error: &StorageError) -> bool {
        if tried >= self.tries || !error.is_retryable() {
            return false;
        }
        let pause = self.first.saturating_mul(1 << (tried - 1).min(20)).min(self.longest);
        tracing::debug!(%error, tried, ?pause, "the storage is asked again");
        self.timer.sleep(pause).await;
        true
    }
}

impl Around for Retried {
    fn inner(&self) -> &dyn Storage {
        &*self.inner
    }

    async fn around<'a, T: Answer>(
        &'a self,
        _: Operation<'a>,
        mut attempt: impl FnMut() -> BoxFuture<'a, Result<T, StorageError>> + Send + 'a,
    ) -> Result<T, StorageError> {
        let mut tried = 0;
        loop {
            tried += 1;
            match attempt().await {
                Err(error) if self.again(tried, &error).await => {}
                other => return other,
            }
        }
    }

    fn creation<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            let mut tried = 0;
            loop {
                tried += 1;
                match self.inner.put_new(key, parts.clone()).await {
                    Err(error) if self.again(tried, &error).await => {}
                    Err(error) if tried > 1 && error.kind == StorageErrorKind::AlreadyExists => {
                        let found = self.get(key, total(&parts)).await;
                        return if found.is_ok_and(|found| found == join(&parts)) { Ok(()) } else { Err(error) };
                    }
                    other => return other,
                }
            }
        })
    }

    fn listing<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<ObjectInfo, StorageError>> {
        let state = (self.inner.list(prefix), Some(0));
        stream::unfold(state, move |(mut listing, mut tried)| async move {
            loop {
                match (listing.next().await?, tried) {
                    (Err(error), Some(before)) if self.again(before + 1, &error).await => {
                        tried = Some(before + 1);
                        listing = self.inner.list(prefix);
                    }
                    (line, _) => return Some((line, (listing, None))),
                }
            }
        })
        .boxed()
    }
}

decorate!(Retried);
