//! An open disk.

use std::{fmt, ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::sync::RwLock;

use crate::{
    allocation::{Allocation, MIN_CHUNK, chunk_for},
    connection::Connection,
    error::{Attempt, Error, Result},
    info::DiskInfo,
    mode::TransportMode,
    open::Access,
    transport::{DiskHandle, SharedHandle, close, image::blocking_image},
};

/// An open virtual disk. All offsets and lengths are bytes.
///
/// Everything takes `&self`: share it between tasks and have many reads and writes under way at once. A read that
/// overlaps a write under way returns old or new bytes. Dropping the disk closes it, but only
/// [`close`](Self::close) reports what goes wrong then.
#[doc(alias = "VixDiskLibHandle")]
pub struct Disk {
    /// A child that is attached to it keeps it as well.
    handle: SharedHandle,
    path: String,
    access: Access,
    passed_over: Vec<Attempt>,
    /// Shared by what is under way; [`wait`](Self::wait) takes it alone.
    under_way: RwLock<()>,
    /// Disks keep their connection.
    connection: Connection,
}

impl Disk {
    pub(crate) fn new(
        connection: Connection,
        path: String,
        access: Access,
        handle: Box<dyn DiskHandle>,
        passed_over: Vec<Attempt>,
    ) -> Self {
        Self { handle: Arc::new(handle), path, access, passed_over, under_way: RwLock::new(()), connection }
    }

    /// Size in bytes.
    pub fn capacity(&self) -> u64 {
        self.handle.capacity()
    }

    /// The name that the disk was opened by.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The transport that is used.
    #[doc(alias = "VixDiskLib_GetTransportMode")]
    pub fn transport(&self) -> TransportMode {
        self.handle.mode()
    }

    /// What the disk is open for.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The transports that stood before it in the list, and why they were not used.
    pub fn passed_over(&self) -> &[Attempt] {
        &self.passed_over
    }

    /// The connection that the disk was opened through.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// What offsets and lengths have to be multiples of, in bytes: the sector size on remote transports, 1 on `file`.
    pub fn alignment(&self) -> u32 {
        self.handle.alignment()
    }

    /// Collects what the disk says about itself. Remote transports ask for some of it.
    ///
    /// # Errors
    /// Those of the transport.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "VixDiskLib_GetInfo")]
    pub async fn info(&self) -> Result<DiskInfo> {
        self.handle.info().await
    }

    /// Reads `len` bytes from `offset`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] and [`Error::Unaligned`] before anything is asked for, else those of the transport.
    ///
    /// # Cancel safety
    /// Cancel safe: what was asked for still arrives and is dropped.
    #[doc(alias = "VixDiskLib_Read")]
    #[doc(alias = "VixDiskLib_ReadAsync")]
    pub async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        self.check("read", offset, len as u64)?;
        if len == 0 {
            return Ok(Bytes::new());
        }
        let _under_way = self.under_way.read().await;
        self.handle.read_at(offset, len).await
    }

    /// Reads `len` bytes from `offset`, as [`read_at`](Self::read_at), with memory from an earlier read: fresh memory
    /// costs the processor about as much as a copy of the bytes. Memory that is too small, or that the transport cannot
    /// use, is dropped.
    ///
    /// When the result is not shared any more, [`Bytes::try_into_mut`] makes it memory for the next read.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    ///
    /// # Cancel safety
    /// As [`read_at`](Self::read_at); the memory is lost.
    pub async fn read_with(&self, offset: u64, len: usize, memory: BytesMut) -> Result<Bytes> {
        self.check("read", offset, len as u64)?;
        if len == 0 {
            return Ok(Bytes::new());
        }
        let _under_way = self.under_way.read().await;
        self.handle.read_with(offset, len, memory).await
    }

    /// Fills `buffer` with the bytes from `offset`: [`read_at`](Self::read_at) for callers that have memory of their own.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at); the buffer then holds anything.
    ///
    /// # Cancel safety
    /// As [`read_at`](Self::read_at).
    pub async fn read_into(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.check("read", offset, buffer.len() as u64)?;
        if buffer.is_empty() {
            return Ok(());
        }
        let _under_way = self.under_way.read().await;
        self.handle.read_into(offset, buffer).await
    }

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::OutOfRange`] and [`Error::Unaligned`] before anything is written; after an error
    /// of the transport the range may hold old, new or mixed bytes.
    ///
    /// # Cancel safety
    /// A dropped future may have written all, part or nothing, and may go on writing for a while.
    #[doc(alias = "VixDiskLib_Write")]
    #[doc(alias = "VixDiskLib_WriteAsync")]
    pub async fn write_at(&self, offset: u64, data: Bytes) -> Result<()> {
        self.check_writable("write to")?;
        self.check("write", offset, data.len() as u64)?;
        if data.is_empty() {
            return Ok(());
        }
        let _under_way = self.under_way.read().await;
        self.handle.write_at(offset, data).await
    }

    /// Makes a range read as zeros. Files give the space back; NFC has no such request, so zeros travel as bytes.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    ///
    /// # Cancel safety
    /// As [`write_at`](Self::write_at).
    pub async fn zero_range(&self, range: Range<u64>) -> Result<()> {
        self.check_writable("zero")?;
        self.check_range("zero", &range)?;
        if range.is_empty() {
            return Ok(());
        }
        let _under_way = self.under_way.read().await;
        self.handle.zero_range(range).await
    }

    /// Tells which parts of a range have storage behind them; the rest reads as zeros.
    ///
    /// Where nothing can be told, everything counts as allocated and the answer says so
    /// ([`Allocation::is_assumed`]): on datastores that are not VMFS, on disks open for writing, after a refusal. The
    /// grain grows with the range, so that an answer stays within 8 MiB: up to 64 GiB it is 64 KiB. Ask for parts of a
    /// large disk to have it finer. The tail of the disk that is shorter than a grain counts as allocated over NFC.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], and those of the transport that have nothing to do with allocation.
    ///
    /// # Cancel safety
    /// Cancel safe.
    ///
    /// # Since
    /// ESXi 6.7 on remote transports; older hosts yield an assumption.
    #[doc(alias = "VixDiskLib_QueryAllocatedBlocks")]
    pub async fn allocated(&self, range: Range<u64>) -> Result<Allocation> {
        let chunk = chunk_for(range.end.saturating_sub(range.start));
        self.allocated_in_chunks(range, chunk).await
    }

    /// The same in units of `chunk` bytes, which is rounded up to a power of two of at least 64 KiB. A chunk with a
    /// byte of data counts as a whole.
    ///
    /// # Errors
    /// As [`allocated`](Self::allocated).
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "VixDiskLib_QueryAllocatedBlocks")]
    pub async fn allocated_in_chunks(&self, range: Range<u64>, chunk: u64) -> Result<Allocation> {
        let chunk = chunk.max(MIN_CHUNK).checked_next_power_of_two().unwrap_or(1 << 63);
        self.check_bounds("map", range.start, range.end.saturating_sub(range.start))?;
        if range.is_empty() {
            return Ok(Allocation::known(Vec::new()));
        }
        let _under_way = self.under_way.read().await;
        self.handle.allocated(range, chunk).await
    }

    /// A value of the disk data base, such as `adapterType` or `uuid`, without the prefix `ddb.`; `None` when there is
    /// none.
    ///
    /// # Errors
    /// Those of the transport.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "VixDiskLib_ReadMetadata")]
    pub async fn metadata(&self, key: &str) -> Result<Option<String>> {
        self.handle.metadata(key).await
    }

    /// The keys of the disk data base, without the prefix `ddb.`, for [`metadata`](Self::metadata).
    ///
    /// # Errors
    /// [`Error::NotOffered`] on transports that only answer to a key; else those of the transport.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "VixDiskLib_GetMetadataKeys")]
    pub async fn metadata_keys(&self) -> Result<Vec<String>> {
        self.handle.metadata_keys().await
    }

    /// Sets a value of the disk data base, in the file at once.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::NotOffered`] on remote transports, and those of the transport: a value that cannot
    /// be written, or finds no room.
    ///
    /// # Cancel safety
    /// A dropped future may have set the value.
    #[doc(alias = "VixDiskLib_WriteMetadata")]
    pub async fn set_metadata(&self, key: &str, value: &str) -> Result<()> {
        self.check_writable("write the metadata of")?;
        let _under_way = self.under_way.read().await;
        self.handle.set_metadata(key, value).await
    }

    /// Returns when completed writes are as durable as the transport can make them.
    ///
    /// `file` syncs to stable storage. NFC has no known request for it: a write is confirmed by the host when it
    /// returns, and closing the disk is the strongest barrier there is.
    ///
    /// # Errors
    /// Those of the transport; the state of earlier writes is then unknown.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "VixDiskLib_Flush")]
    pub async fn flush(&self) -> Result<()> {
        if self.access == Access::ReadOnly {
            return Ok(());
        }
        self.handle.flush().await
    }

    /// Returns when every read and write has ended that was begun before; those that begin later wait for it.
    ///
    /// What a dropped future left under way is waited for over `file`; over NFC only [`close`](Self::close) does that.
    ///
    /// # Errors
    /// Those of the transport.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "VixDiskLib_Wait")]
    pub async fn wait(&self) -> Result<()> {
        let _alone = self.under_way.write().await;
        self.handle.wait().await
    }

    /// Waits for what is under way, closes the disk and reports what went wrong.
    ///
    /// # Errors
    /// Those of the transport; the disk is closed all the same. After writes, an error means that the last of them may
    /// not be durable.
    ///
    /// # Cancel safety
    /// Dropping the future closes without waiting.
    #[doc(alias = "VixDiskLib_Close")]
    pub async fn close(self) -> Result<()> {
        let Self { handle, .. } = self;
        close(handle).await
    }

    /// The disk as the crate `vmdk` takes images, for its exports and packages: blocking and for reading. For threads
    /// that may block, such as those of `spawn_blocking`; never for a task. It keeps the disk open.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn image(&self) -> Arc<dyn vmdk::Image> {
        blocking_image(self.shared_handle(), &self.path, tokio::runtime::Handle::current())
    }

    /// Counts something that is under way, unless somebody waits for all that is.
    #[cfg(feature = "blocking")]
    pub(crate) fn under_way(&self) -> Option<tokio::sync::RwLockReadGuard<'_, ()>> {
        self.under_way.try_read().ok()
    }

    pub(crate) fn handle(&self) -> &SharedHandle {
        &self.handle
    }

    pub(crate) fn shared_handle(&self) -> SharedHandle {
        Arc::clone(&self.handle)
    }

    pub(crate) fn check_writable(&self, operation: &'static str) -> Result<()> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(Error::ReadOnly { operation, path: self.path.clone() }),
        }
    }

    fn check_range(&self, operation: &'static str, range: &Range<u64>) -> Result<()> {
        self.check(operation, range.start, range.end.saturating_sub(range.start))
    }

    pub(crate) fn check(&self, operation: &'static str, offset: u64, len: u64) -> Result<()> {
        self.check_bounds(operation, offset, len)?;
        let alignment = self.alignment();
        let multiple = |bytes: u64| bytes.is_multiple_of(u64::from(alignment));
        if multiple(offset) && multiple(len) {
            return Ok(());
        }
        Err(Error::Unaligned { operation, path: self.path.clone(), offset, len, alignment })
    }

    fn check_bounds(&self, operation: &'static str, offset: u64, len: u64) -> Result<()> {
        let capacity = self.capacity();
        match offset.checked_add(len) {
            Some(end) if end <= capacity => Ok(()),
            _ => Err(Error::OutOfRange { operation, path: self.path.clone(), offset, len, capacity }),
        }
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("path", &self.path)
            .field("transport", &self.transport())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}
