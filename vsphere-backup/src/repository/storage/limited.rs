//! A storage that is asked for few things at once.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    BoxFuture, BoxStream, ObjectInfo, Storage, StorageError,
    around::{Answer, Around, Operation, decorate},
};

/// A decorator that lets at most so many operations of another storage run at once. A listing is
/// one until it ends or is dropped; whoever works on what it lists needs a second place.
#[derive(Debug)]
pub struct Limited {
    inner: Arc<dyn Storage>,
    places: Semaphore,
}

impl Limited {
    /// Wraps `inner`; `operations` is at least 2, so that a listing does not lock out what is done about its objects.
    pub fn new(inner: Arc<dyn Storage>, operations: usize) -> Self {
        Self { inner, places: Semaphore::new(operations.clamp(2, Semaphore::MAX_PERMITS)) }
    }

    async fn place(&self) -> SemaphorePermit<'_> {
        self.places.acquire().await.expect("the semaphore is never closed")
    }
}

impl Around for Limited {
    fn inner(&self) -> &dyn Storage {
        &*self.inner
    }

    async fn around<'a, T: Answer>(
        &'a self,
        _: Operation<'a>,
        mut attempt: impl FnMut() -> BoxFuture<'a, Result<T, StorageError>> + Send + 'a,
    ) -> Result<T, StorageError> {
        let _place = self.place().await;
        attempt().await
    }

    fn listing<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<ObjectInfo, StorageError>> {
        let held = async move { Ok((self.place().await, self.inner.list(prefix))) };
        let lines = |(place, listing)| {
            stream::try_unfold((place, listing), |(place, mut listing): (_, BoxStream<'a, _>)| async move {
                Ok(listing.try_next().await?.map(|line| (line, (place, listing))))
            })
        };
        stream::once(held).map_ok(lines).try_flatten().boxed()
    }
}

decorate!(Limited);
