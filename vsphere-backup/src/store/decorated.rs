//! Stores around other stores: slower, or failing on purpose.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use super::{DiskMeta, DiskRef, DiskWriter, PointMeta, Sink, Token};
use crate::{
    engine::Source,
    error::DiskError,
    repository::storage::{BoxFuture, Bucket, Timer},
};

/// A decorator that hands a store no more than so many bytes a second, of all its disks together.
#[derive(Debug)]
pub struct ThrottledSink(Decorated);

impl ThrottledSink {
    /// Wraps `inner`: at most `rate` bytes a second, at least 1, by `timer`.
    pub fn new(inner: Arc<dyn Sink>, rate: u64, timer: &Timer) -> Self {
        let around = Around::Throttled { bucket: Mutex::new(Bucket::new(rate)), timer: timer.clone() };
        Self(Decorated { inner, around: Arc::new(around) })
    }
}

/// A decorator that makes operation number `k` of a store fail, and all later ones when it is cut off; or hang.
///
/// Operations are counted from 0 over the store and all of its writers.
#[derive(Debug)]
pub struct FaultySink(Decorated);

impl FaultySink {
    /// Wraps `inner`: operation number `at` fails and changes nothing; with `cut` all later ones do too.
    pub fn new(inner: Arc<dyn Sink>, at: u64, cut: bool) -> Self {
        let around = Around::Faulty { at, cut, hangs: false, count: AtomicU64::new(0) };
        Self(Decorated { inner, around: Arc::new(around) })
    }

    /// Wraps `inner`: operation number `at` changes nothing and has no end. What waits for it can only be killed.
    pub fn hanging(inner: Arc<dyn Sink>, at: u64) -> Self {
        let around = Around::Faulty { at, cut: false, hangs: true, count: AtomicU64::new(0) };
        Self(Decorated { inner, around: Arc::new(around) })
    }

    /// Returns how many operations were asked for so far.
    pub fn operations(&self) -> u64 {
        match &*self.0.around {
            Around::Faulty { count, .. } => count.load(Ordering::Relaxed),
            Around::Throttled { .. } => 0,
        }
    }
}

#[derive(Debug)]
struct Decorated {
    inner: Arc<dyn Sink>,
    around: Arc<Around>,
}

#[derive(Debug)]
enum Around {
    Throttled { bucket: Mutex<Bucket>, timer: Timer },
    Faulty { at: u64, cut: bool, hangs: bool, count: AtomicU64 },
}

impl Around {
    /// What happens before an operation that carries `bytes`.
    async fn pass(&self, bytes: u64) -> Result<(), DiskError> {
        match self {
            Self::Throttled { bucket, timer } => {
                let wait = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(timer.now(), bytes);
                timer.sleep(wait).await;
                Ok(())
            }
            Self::Faulty { at, cut, hangs, count } => {
                let number = count.fetch_add(1, Ordering::Relaxed);
                if *hangs && number == *at {
                    std::future::pending::<()>().await;
                }
                let fails = !hangs && number == *at || (*cut && number > *at);
                if fails { Err(DiskError::new("a fault of a test").retryable(true)) } else { Ok(()) }
            }
        }
    }
}

macro_rules! decorate {
    ($type:ty) => {
        impl Sink for $type {
            fn id(&self) -> String {
                self.0.inner.id()
            }

            fn alignment(&self) -> u64 {
                self.0.inner.alignment()
            }

            fn encrypts(&self) -> bool {
                self.0.inner.encrypts()
            }

            fn begin<'a>(
                &'a self,
                disk: DiskMeta,
                parent: Option<DiskRef>,
            ) -> BoxFuture<'a, Result<Box<dyn DiskWriter>, DiskError>> {
                Box::pin(async move {
                    self.0.around.pass(0).await?;
                    let (inner, around) = (self.0.inner.begin(disk, parent).await?, self.0.around.clone());
                    Ok(Box::new(Writer { inner, around }) as Box<dyn DiskWriter>)
                })
            }

            fn resume<'a>(
                &'a self,
                disk: DiskMeta,
                token: &'a Token,
            ) -> BoxFuture<'a, Result<Box<dyn DiskWriter>, DiskError>> {
                Box::pin(async move {
                    self.0.around.pass(0).await?;
                    let (inner, around) = (self.0.inner.resume(disk, token).await?, self.0.around.clone());
                    Ok(Box::new(Writer { inner, around }) as Box<dyn DiskWriter>)
                })
            }

            fn discard<'a>(&'a self, vm: &'a str, job: &'a str) -> BoxFuture<'a, Result<(), DiskError>> {
                Box::pin(async move {
                    self.0.around.pass(0).await?;
                    self.0.inner.discard(vm, job).await
                })
            }

            fn commit<'a>(&'a self, point: PointMeta) -> BoxFuture<'a, Result<(), DiskError>> {
                Box::pin(async move {
                    self.0.around.pass(0).await?;
                    self.0.inner.commit(point).await
                })
            }

            fn points<'a>(&'a self, vm: &'a str) -> BoxFuture<'a, Result<Vec<PointMeta>, DiskError>> {
                Box::pin(async move {
                    self.0.around.pass(0).await?;
                    self.0.inner.points(vm).await
                })
            }

            fn open<'a>(&'a self, disk: &'a DiskRef) -> BoxFuture<'a, Result<Box<dyn Source>, DiskError>> {
                Box::pin(async move {
                    self.0.around.pass(0).await?;
                    self.0.inner.open(disk).await
                })
            }
        }
    };
}

decorate!(ThrottledSink);
decorate!(FaultySink);

#[derive(Debug)]
struct Writer {
    inner: Box<dyn DiskWriter>,
    around: Arc<Around>,
}

impl DiskWriter for Writer {
    fn write(&mut self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async move {
            self.around.pass(data.len() as u64).await?;
            self.inner.write(offset, data).await
        })
    }

    fn zero(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async move {
            self.around.pass(0).await?;
            self.inner.zero(range).await
        })
    }

    fn unallocated(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async move {
            self.around.pass(0).await?;
            self.inner.unallocated(range).await
        })
    }

    fn unchanged(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async move {
            self.around.pass(0).await?;
            self.inner.unchanged(range).await
        })
    }

    fn checkpoint(&mut self) -> BoxFuture<'_, Result<Token, DiskError>> {
        Box::pin(async move {
            self.around.pass(0).await?;
            self.inner.checkpoint().await
        })
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<DiskRef, DiskError>> {
        Box::pin(async move {
            self.around.pass(0).await?;
            self.inner.finish().await
        })
    }

    fn abort(self: Box<Self>) -> BoxFuture<'static, Result<(), DiskError>> {
        // Not counted: what fails leaves the same behind as being dropped.
        self.inner.abort()
    }
}
