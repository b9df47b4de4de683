//! A storage whose operations are let through one by one, so that two actors take turns at every operation.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::{sync::Semaphore, task::JoinHandle};
use vsphere_backup::repository::storage::{BoxFuture, BoxStream, Key, ObjectInfo, Storage, StorageError};

/// A decorator that makes each operation wait until it is let through.
#[derive(Debug)]
pub(crate) struct Gate {
    inner: Arc<dyn Storage>,
    permits: Semaphore,
    waiting: AtomicU64,
}

impl Gate {
    pub(crate) fn new(inner: Arc<dyn Storage>) -> Arc<Self> {
        Arc::new(Self { inner, permits: Semaphore::new(0), waiting: AtomicU64::new(0) })
    }

    /// Lets `count` operations through and waits until the next one waits, or the actor has ended. Returns whether it
    /// has not ended.
    pub(crate) async fn pass<T>(&self, count: usize, actor: &JoinHandle<T>) -> bool {
        self.permits.add_permits(count);
        loop {
            if actor.is_finished() {
                return false;
            }
            if self.permits.available_permits() == 0 && self.waiting.load(Ordering::SeqCst) > 0 {
                return true;
            }
            // Part of the work is done by threads for blocking work.
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }

    /// Lets everything through from now on.
    pub(crate) fn open(&self) {
        self.permits.add_permits(1 << 40);
    }

    async fn enter(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.permits.acquire().await.unwrap().forget();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Storage for Gate {
    fn get<'a>(&'a self, key: &'a Key, limit: u64) -> BoxFuture<'a, Result<Bytes, StorageError>> {
        Box::pin(async move {
            self.enter().await;
            self.inner.get(key, limit).await
        })
    }

    fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, StorageError>> {
        Box::pin(async move {
            self.enter().await;
            self.inner.get_range(key, range).await
        })
    }

    fn put<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            self.enter().await;
            self.inner.put(key, parts).await
        })
    }

    fn put_new<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            self.enter().await;
            self.inner.put_new(key, parts).await
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<ObjectInfo, StorageError>> {
        // The storage is looked at when the operation is let through.
        let listed = async move {
            self.enter().await;
            self.inner.list(prefix)
        };
        stream::once(listed).map(Ok).try_flatten().boxed()
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            self.enter().await;
            self.inner.delete(key).await
        })
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}
