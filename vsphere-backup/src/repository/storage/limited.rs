//! A storage that is asked for few things at once.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    BoxFuture, BoxStream, ObjectInfo, Storage, StorageError,
    around::{Answer, Around, Operation, decorate},
};

/// A decorator that lets at most so many operations of another storage run at once. A listing is one only while a line
/// of it is waited for: whoever works on what it lists meanwhile is in nobody's way.
#[derive(Debug)]
pub struct Limited {
    inner: Arc<dyn Storage>,
    places: Semaphore,
}

impl Limited {
    /// Wraps `inner`; `operations` is at least 1.
    pub fn new(inner: Arc<dyn Storage>, operations: usize) -> Self {
        Self { inner, places: Semaphore::new(operations.clamp(1, Semaphore::MAX_PERMITS)) }
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
        stream::try_unfold(self.inner.list(prefix), move |mut listing| async move {
            let _place = self.place().await;
            Ok(listing.try_next().await?.map(|line| (line, listing)))
        })
        .boxed()
    }
}

decorate!(Limited);

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::repository::storage::{Key, MemoryStorage};

    #[tokio::test]
    async fn listings_that_are_worked_on_lock_nobody_out() {
        let memory = Arc::new(MemoryStorage::new());
        for name in ["leases/a", "leases/b"] {
            memory.put(&Key::parse(name).unwrap(), vec!["x".into()]).await.unwrap();
        }
        let storage = Limited::new(memory, 1);
        let (mut one, mut other) = (storage.list("leases"), storage.list("leases"));
        for listing in [&mut one, &mut other] {
            let line = listing.try_next().now_or_never().expect("a place is free").unwrap().unwrap();
            assert!(storage.get(&line.key, 9).now_or_never().expect("a place is free").is_ok());
        }
    }
}
