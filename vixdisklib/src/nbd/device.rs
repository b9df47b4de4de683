//! What can be served: positioned bytes.

use std::{error::Error as StdError, fmt, io, ops::Range, sync::Arc};

use bytes::Bytes;

use crate::{
    disk::Disk,
    error::Error,
    mode::TransportMode,
    nbd::wire::{Errno, request::Refusal},
    open::Access,
    transport::BoxFuture,
};

/// Something of fixed size that is read and perhaps written at byte offsets: an open [`Disk`], or anything else that
/// is to be served over NBD.
///
/// The server checks bounds, access and [`alignment`](Self::alignment) before it calls, and calls from many tasks at
/// once. A read that overlaps a write under way may return old or new bytes.
pub trait BlockDevice: Send + Sync + 'static {
    /// Size in bytes.
    fn capacity(&self) -> u64;

    /// What offsets and lengths have to be multiples of, in bytes; a power of two. Default: 1.
    fn alignment(&self) -> u32 {
        1
    }

    /// Whether it can be written. Default: no.
    fn is_writable(&self) -> bool {
        false
    }

    /// Whether [`zero_range`](Self::zero_range) takes less than writing zeros, and [`discard`](Self::discard) gives
    /// storage back. Default: no.
    fn zeroes_fast(&self) -> bool {
        false
    }

    /// Reads `len` bytes from `offset`.
    fn read_at(&self, offset: u64, len: usize) -> impl Future<Output = Result<Bytes, DeviceError>> + Send;

    /// Writes `data` at `offset`.
    fn write_at(&self, offset: u64, data: Bytes) -> impl Future<Output = Result<(), DeviceError>> + Send;

    /// Makes a range read as zeros.
    fn zero_range(&self, range: Range<u64>) -> impl Future<Output = Result<(), DeviceError>> + Send;

    /// Told that nobody needs the bytes of a range any more. Default: makes it read as zeros.
    fn discard(&self, range: Range<u64>) -> impl Future<Output = Result<(), DeviceError>> + Send {
        self.zero_range(range)
    }

    /// Tells which parts of a range may hold data, ascending; the rest must read as zeros. Default: all of it.
    fn allocated(&self, range: Range<u64>) -> impl Future<Output = Result<Vec<Range<u64>>, DeviceError>> + Send {
        std::future::ready(Ok(vec![range]))
    }

    /// Returns when every write that returned before, whoever made it, is durable.
    fn flush(&self) -> impl Future<Output = Result<(), DeviceError>> + Send;

    /// Closes it, after the last flush. Called only when the server is its last owner. Default: drops it.
    fn close(self) -> impl Future<Output = Result<(), DeviceError>> + Send
    where
        Self: Sized,
    {
        std::future::ready(Ok(()))
    }
}

/// Why a device did not do what it was asked for: what the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceError {
    kind: DeviceErrorKind,
    message: String,
}

/// What NBD can tell errors apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceErrorKind {
    /// It cannot be written.
    ReadOnly,
    /// The request makes no sense.
    Invalid,
    /// The storage is full.
    NoSpace,
    /// Anything else.
    Io,
}

impl DeviceError {
    /// With a text for people. It travels to clients: nothing secret belongs in it.
    pub fn new(kind: DeviceErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The kind.
    pub fn kind(&self) -> DeviceErrorKind {
        self.kind
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for DeviceError {}

impl From<Error> for DeviceError {
    fn from(error: Error) -> Self {
        let mut message = error.to_string();
        let mut kind = match error {
            Error::ReadOnly { .. } => DeviceErrorKind::ReadOnly,
            Error::OutOfRange { .. } | Error::Unaligned { .. } => DeviceErrorKind::Invalid,
            _ => DeviceErrorKind::Io,
        };
        let mut cause = error.source();
        while let Some(lower) = cause {
            message = format!("{message}: {lower}");
            if lower.downcast_ref().is_some_and(is_full) {
                kind = DeviceErrorKind::NoSpace;
            }
            cause = lower.source();
        }
        Self { kind, message }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

impl From<DeviceError> for Refusal {
    fn from(error: DeviceError) -> Self {
        let errno = match error.kind {
            DeviceErrorKind::ReadOnly => Errno::NotPermitted,
            DeviceErrorKind::Invalid => Errno::Invalid,
            DeviceErrorKind::NoSpace => Errno::NoSpace,
            DeviceErrorKind::Io => Errno::Io,
        };
        Self::new(errno, error.message)
    }
}

impl BlockDevice for Disk {
    fn capacity(&self) -> u64 {
        self.capacity()
    }

    fn alignment(&self) -> u32 {
        self.alignment()
    }

    fn is_writable(&self) -> bool {
        self.access() == Access::ReadWrite
    }

    fn zeroes_fast(&self) -> bool {
        matches!(self.transport(), TransportMode::File | TransportMode::Custom)
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, DeviceError> {
        Ok(self.read_at(offset, len).await?)
    }

    async fn write_at(&self, offset: u64, data: Bytes) -> Result<(), DeviceError> {
        Ok(self.write_at(offset, data).await?)
    }

    async fn zero_range(&self, range: Range<u64>) -> Result<(), DeviceError> {
        Ok(self.zero_range(range).await?)
    }

    async fn allocated(&self, range: Range<u64>) -> Result<Vec<Range<u64>>, DeviceError> {
        Ok(self.allocated(range).await?.areas)
    }

    async fn flush(&self) -> Result<(), DeviceError> {
        Ok(self.flush().await?)
    }

    async fn close(self) -> Result<(), DeviceError> {
        Ok(self.close().await?)
    }
}

/// A [`BlockDevice`] whose type is forgotten, so that a server can have several of different types.
pub(super) trait AnyDevice: Send + Sync {
    fn capacity(&self) -> u64;
    fn alignment(&self) -> u32;
    fn is_writable(&self) -> bool;
    fn zeroes_fast(&self) -> bool;
    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes, DeviceError>>;
    fn write_at(&self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<(), DeviceError>>;
    fn zero_range(&self, range: Range<u64>) -> BoxFuture<'_, Result<(), DeviceError>>;
    fn discard(&self, range: Range<u64>) -> BoxFuture<'_, Result<(), DeviceError>>;
    fn allocated(&self, range: Range<u64>) -> BoxFuture<'_, Result<Vec<Range<u64>>, DeviceError>>;
    fn flush(&self) -> BoxFuture<'_, Result<(), DeviceError>>;
    /// Closes the device if nobody else has it.
    fn close(self: Arc<Self>) -> BoxFuture<'static, Result<(), DeviceError>>;
}

impl<D: BlockDevice> AnyDevice for D {
    fn capacity(&self) -> u64 {
        BlockDevice::capacity(self)
    }

    fn alignment(&self) -> u32 {
        BlockDevice::alignment(self)
    }

    fn is_writable(&self) -> bool {
        BlockDevice::is_writable(self)
    }

    fn zeroes_fast(&self) -> bool {
        BlockDevice::zeroes_fast(self)
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes, DeviceError>> {
        Box::pin(BlockDevice::read_at(self, offset, len))
    }

    fn write_at(&self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(BlockDevice::write_at(self, offset, data))
    }

    fn zero_range(&self, range: Range<u64>) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(BlockDevice::zero_range(self, range))
    }

    fn discard(&self, range: Range<u64>) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(BlockDevice::discard(self, range))
    }

    fn allocated(&self, range: Range<u64>) -> BoxFuture<'_, Result<Vec<Range<u64>>, DeviceError>> {
        Box::pin(BlockDevice::allocated(self, range))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(BlockDevice::flush(self))
    }

    fn close(self: Arc<Self>) -> BoxFuture<'static, Result<(), DeviceError>> {
        Box::pin(async move {
            match Arc::into_inner(self) {
                Some(device) => device.close().await,
                None => Ok(()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_disks_keep_their_causes_and_a_full_storage_its_number() {
        let full = vmdk::Error::Io {
            operation: "write",
            object: "a.vmdk".into(),
            offset: None,
            source: io::ErrorKind::StorageFull.into(),
        };
        let error = DeviceError::from(Error::file("writing", "a.vmdk")(full));
        assert_eq!(error.kind(), DeviceErrorKind::NoSpace);
        assert!(error.to_string().contains("writing a.vmdk failed: cannot write a.vmdk: "), "{error}");
        let read_only = Error::ReadOnly { operation: "write to", path: "a.vmdk".into() };
        assert_eq!(Refusal::from(DeviceError::from(read_only)).errno, Errno::NotPermitted);
    }
}
