//! A disk whose every read and write is a step.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::{
    engine::{DiskSource, DiskTarget},
    error::{DiskError, Error, Result},
    repository::storage::BoxFuture,
};

use super::{Step, Steps};

/// Another disk, with steps.
pub(crate) struct SteppedDisk<'a, D> {
    key: i32,
    inner: &'a D,
    steps: &'a Steps,
}

impl<'a, D: DiskSource> SteppedDisk<'a, D> {
    pub(crate) fn new(key: i32, inner: &'a D, steps: &'a Steps) -> Self {
        Self { key, inner, steps }
    }

    fn step<'b, T: Send + 'b>(
        &'b self,
        step: Step,
        operation: &'static str,
        range: Range<u64>,
        work: BoxFuture<'b, Result<T, DiskError>>,
    ) -> BoxFuture<'b, Result<T, DiskError>> {
        let disk = self.key;
        Box::pin(async move {
            let wrong =
                |source| Error::Disk { operation, disk, offset: range.start, len: range.end - range.start, source };
            match self.steps.once(step, async { work.await.map_err(wrong) }).await {
                Ok(done) => Ok(done),
                // Told once, by the engine.
                Err(Error::Disk { source, .. }) => Err(source),
                Err(error) => Err(DiskError::from_error(error)),
            }
        })
    }
}

impl<D: DiskSource> DiskSource for SteppedDisk<'_, D> {
    fn capacity(&self) -> u64 {
        self.inner.capacity()
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes, DiskError>> {
        self.read_with(offset, len, BytesMut::new())
    }

    fn read_with(&self, offset: u64, len: usize, memory: BytesMut) -> BoxFuture<'_, Result<Bytes, DiskError>> {
        let read = self.inner.read_with(offset, len, memory);
        self.step(Step::ReadDisk, "reading", offset..offset + len as u64, read)
    }
}

impl<D: DiskTarget> DiskTarget for SteppedDisk<'_, D> {
    fn write_at(&self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<(), DiskError>> {
        let range = offset..offset + data.len() as u64;
        self.step(Step::WriteDisk, "writing", range, self.inner.write_at(offset, data))
    }

    fn zero(&self, range: Range<u64>) -> BoxFuture<'_, Result<(), DiskError>> {
        self.step(Step::WriteDisk, "zeroing", range.clone(), self.inner.zero(range))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        self.step(Step::WriteDisk, "flushing", 0..0, self.inner.flush())
    }
}
