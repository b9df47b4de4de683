//! Disks that are none of the transports': something of the caller's own behind a [`Disk`].

use std::{error::Error as StdError, ops::Range, pin::Pin};

use bytes::Bytes;

use crate::{
    allocation::{Allocation, Chunks},
    connection::Connection,
    disk::Disk,
    error::{Error, Result},
    info::DiskInfo,
    mode::TransportMode,
    open::Access,
    transport::{BoxFuture, DiskHandle},
};

/// Bytes of fixed size that become a [`Disk`] by [`Disk::from_backend`]: a recovery point, a disk of another product.
///
/// Called from many tasks at once, with ranges that are not empty, lie inside the disk and are
/// [aligned](Self::alignment); what writes, only for disks of [`Access::ReadWrite`].
pub trait DiskBackend: Send + Sync + 'static {
    /// Size in bytes.
    fn capacity(&self) -> u64;

    /// What offsets and lengths have to be multiples of, in bytes. Default: 1.
    fn alignment(&self) -> u32 {
        1
    }

    /// Reads exactly `len` bytes from `offset`.
    fn read_at(&self, offset: u64, len: usize) -> BackendFuture<'_, Bytes>;

    /// Writes `data` at `offset`.
    fn write_at(&self, offset: u64, data: Bytes) -> BackendFuture<'_, ()>;

    /// Makes a range read as zeros.
    fn zero_range(&self, range: Range<u64>) -> BackendFuture<'_, ()>;

    /// Tells which parts of a range may hold data, ascending; the rest must read as zeros. Default: it is not known.
    fn allocated(&self, _range: Range<u64>) -> BackendFuture<'_, Option<Vec<Range<u64>>>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// A value of the disk data base, by its key without `ddb.`. Default: there is none.
    fn metadata(&self, _key: &str) -> Option<String> {
        None
    }

    /// Returns when every write that returned before is as durable as it gets.
    fn flush(&self) -> BackendFuture<'_, ()>;

    /// Closes it. Default: drops it.
    fn close(self: Box<Self>) -> BackendFuture<'static, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// What a [`DiskBackend`] answers with.
pub type BackendFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, BackendError>> + Send + 'a>>;

/// Why a [`DiskBackend`] failed. The disk adds what was being done.
pub type BackendError = Box<dyn StdError + Send + Sync>;

impl Disk {
    /// Makes a disk of something of the caller's own; `name` stands in messages. Everything that takes a disk takes it:
    /// the NBD server, clones, `blocking`.
    pub fn from_backend(name: impl Into<String>, access: Access, backend: Box<dyn DiskBackend>) -> Self {
        let name = name.into();
        let handle = Box::new(Backed { name: name.clone(), backend });
        Self::new(Connection::local(access), name, access, handle, Vec::new())
    }
}

struct Backed {
    name: String,
    backend: Box<dyn DiskBackend>,
}

impl Backed {
    fn failed(&self, operation: &'static str) -> impl FnOnce(BackendError) -> Error + use<> {
        let path = self.name.clone();
        move |source| Error::Backend { operation, path, source }
    }
}

impl DiskHandle for Backed {
    fn mode(&self) -> TransportMode {
        TransportMode::Custom
    }

    fn capacity(&self) -> u64 {
        self.backend.capacity()
    }

    fn alignment(&self) -> u32 {
        self.backend.alignment().max(1)
    }

    fn info(&self) -> BoxFuture<'_, Result<DiskInfo>> {
        let info = DiskInfo::of_image(self.capacity(), None, 1, |key| self.backend.metadata(key));
        Box::pin(std::future::ready(info.map_err(Error::file("describing", &self.name))))
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes>> {
        Box::pin(async move {
            let bytes = self.backend.read_at(offset, len).await.map_err(self.failed("reading"))?;
            match bytes.len() == len {
                true => Ok(bytes),
                // Callers copy without looking.
                false => Err(self.failed("reading")(format!("it gave {} bytes of {len}", bytes.len()).into())),
            }
        })
    }

    fn write_at(&self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.backend.write_at(offset, data).await.map_err(self.failed("writing")) })
    }

    fn zero_range(&self, range: Range<u64>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.backend.zero_range(range).await.map_err(self.failed("zeroing")) })
    }

    fn allocated(&self, range: Range<u64>, chunk: u64) -> BoxFuture<'_, Result<Allocation>> {
        Box::pin(async move {
            let known = self.backend.allocated(range.clone()).await.map_err(self.failed("mapping"))?;
            let Some(known) = known else {
                return Ok(Allocation::assumed(range, "the disk does not say"));
            };
            let mut chunks = Chunks::new(chunk, range);
            known.iter().for_each(|area| chunks.push(area));
            Ok(Allocation::known(chunks.finish()))
        })
    }

    fn metadata<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>>> {
        Box::pin(std::future::ready(Ok(self.backend.metadata(key))))
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.backend.flush().await.map_err(self.failed("flushing")) })
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        let failed = self.failed("closing");
        Box::pin(async move { self.backend.close().await.map_err(failed) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A kilobyte that answers short where it is asked to.
    struct Kilobyte(Mutex<Vec<u8>>, bool);

    impl DiskBackend for Kilobyte {
        fn capacity(&self) -> u64 {
            1024
        }

        fn read_at(&self, offset: u64, len: usize) -> BackendFuture<'_, Bytes> {
            let bytes = self.0.lock().unwrap();
            let len = if self.1 { len - 1 } else { len };
            let bytes = Bytes::copy_from_slice(&bytes[offset as usize..offset as usize + len]);
            Box::pin(std::future::ready(Ok(bytes)))
        }

        fn write_at(&self, offset: u64, data: Bytes) -> BackendFuture<'_, ()> {
            self.0.lock().unwrap()[offset as usize..][..data.len()].copy_from_slice(&data);
            Box::pin(std::future::ready(Ok(())))
        }

        fn zero_range(&self, range: Range<u64>) -> BackendFuture<'_, ()> {
            self.0.lock().unwrap()[range.start as usize..range.end as usize].fill(0);
            Box::pin(std::future::ready(Ok(())))
        }

        fn flush(&self) -> BackendFuture<'_, ()> {
            Box::pin(std::future::ready(Err("no such luck".into())))
        }
    }

    fn disk(access: Access, short: bool) -> Disk {
        Disk::from_backend("kilobyte", access, Box::new(Kilobyte(Mutex::new(vec![7; 1024]), short)))
    }

    #[tokio::test]
    async fn what_callers_bring_is_a_disk_like_others() {
        let writable = disk(Access::ReadWrite, false);
        assert_eq!((writable.capacity(), writable.transport()), (1024, TransportMode::Custom));
        writable.write_at(1, Bytes::from_static(b"abc")).await.unwrap();
        writable.zero_range(2..3).await.unwrap();
        assert_eq!(&writable.read_at(0, 5).await.unwrap()[..], b"\x07a\0c\x07");
        assert!(writable.allocated(0..1024).await.unwrap().is_assumed());
        assert!(matches!(writable.read_at(1000, 25).await, Err(Error::OutOfRange { .. })));
        let failed = writable.flush().await.unwrap_err();
        assert!(matches!(&failed, Error::Backend { operation: "flushing", .. }), "{failed}");
        let read_only = disk(Access::ReadOnly, true);
        assert!(matches!(read_only.write_at(0, Bytes::from_static(b"a")).await, Err(Error::ReadOnly { .. })));
        assert!(matches!(read_only.read_at(0, 2).await, Err(Error::Backend { .. })), "a short answer is none");
        assert_eq!(read_only.info().await.unwrap().capacity, 1024);
        read_only.close().await.unwrap();
        assert!("custom".parse::<TransportMode>().is_err(), "no list names it");
    }
}
