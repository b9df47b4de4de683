//! A storage that fails on purpose.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{BoxFuture, BoxStream, Key, ObjectInfo, Storage, StorageError, StorageErrorKind};

/// A decorator that makes operation number `k` of another storage fail.
///
/// Operations are counted from 0 over all methods, so that a test can fail each of them in turn.
///
/// ```
/// use std::sync::Arc;
/// use vsphere_backup::repository::storage::{Fault, Faulty, MemoryStorage};
///
/// let memory = Arc::new(MemoryStorage::new());
/// let cut_at_the_third = Faulty::new(memory, 2, Fault::Cut);
/// assert_eq!(cut_at_the_third.operations(), 0);
/// ```
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Storage>,
    at: u64,
    fault: Fault,
    count: AtomicU64,
}

/// What [`Faulty`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Operation `k` fails and changes nothing; the rest succeed.
    Error,
    /// Operation `k` is carried out but its answer is an error; the rest succeed.
    LostAnswer,
    /// Operation `k` and all later ones fail and change nothing, as after a power cut.
    Cut,
}

impl Faulty {
    /// Wraps `inner`: operation number `at` (from 0) meets `fault`.
    pub fn new(inner: Arc<dyn Storage>, at: u64, fault: Fault) -> Self {
        Self { inner, at, fault, count: AtomicU64::new(0) }
    }

    /// Returns how many operations were asked for so far.
    pub fn operations(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn next(&self) -> Step {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Fault::Error if number == self.at => Step::Fail,
            Fault::Cut if number >= self.at => Step::Fail,
            Fault::LostAnswer if number == self.at => Step::DoAndFail,
            _ => Step::Do,
        }
    }

    async fn apply<T>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        let failure = || StorageError::new(StorageErrorKind::Unavailable, operation, key);
        match self.next() {
            Step::Do => work.await,
            Step::DoAndFail => {
                work.await?;
                Err(failure())
            }
            Step::Fail => Err(failure()),
        }
    }
}

enum Step {
    Do,
    DoAndFail,
    Fail,
}

impl Storage for Faulty {
    fn get<'a>(&'a self, key: &'a Key, limit: u64) -> BoxFuture<'a, Result<Bytes, StorageError>> {
        Box::pin(self.apply("get", key.as_str(), self.inner.get(key, limit)))
    }

    fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, StorageError>> {
        Box::pin(self.apply("get range", key.as_str(), self.inner.get_range(key, range)))
    }

    fn put<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(self.apply("put", key.as_str(), self.inner.put(key, parts)))
    }

    fn put_new<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(self.apply("create", key.as_str(), self.inner.put_new(key, parts)))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<ObjectInfo, StorageError>> {
        match self.next() {
            Step::Do => self.inner.list(prefix),
            Step::Fail | Step::DoAndFail => {
                let failure = StorageError::new(StorageErrorKind::Unavailable, "list", prefix);
                stream::iter([Err(failure)]).boxed()
            }
        }
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(self.apply("delete", key.as_str(), self.inner.delete(key)))
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}
