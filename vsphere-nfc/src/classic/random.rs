//! Synchronous random access (FSSRVR): a disk open on a classic connection, one request at a time.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::files::NfcFiles;
use crate::disk::Mode;
use crate::error::{Error, Phase, Result};
use crate::wire::classic_file::FileMessage;
use crate::wire::disk_stream::SECTOR;
use crate::wire::frames::Incoming;
use crate::wire::fssrvr::{DIRECTION_WRITE, Io, Message, number};

/// A disk that is open for synchronous random access, for hosts without the asynchronous layer.
///
/// The layout of a write is VMware's own; that of a read is inferred, so a disk that is open for
/// writing is not read unless [`ClassicQuirks::read_when_writable`](super::ClassicQuirks) is set: a
/// host that took the read for a write would wait for data, or write it. The server does not say in
/// a known way how large the disk is; the caller knows it over SOAP.
///
/// Dropped before [`close`](Self::close), or after an error, it leaves a connection that is of no
/// further use.
#[derive(Debug)]
pub struct SynchronousDisk<'a> {
    files: &'a mut NfcFiles,
    path: Arc<str>,
    mode: Mode,
    capacity: u64,
    /// A request was begun and did not come to its end.
    is_broken: bool,
}

impl NfcFiles {
    /// Opens the disk `path` of `capacity` bytes for random access.
    ///
    /// # Errors
    /// [`Error::OpenRefused`] and [`Error::ReadOnly`] as the host says; [`Error::InvalidRequest`] for
    /// a path or a capacity that cannot be.
    ///
    /// # Cancel safety
    /// A dropped future makes the connection useless.
    #[doc(alias = "VixDiskLib_Open")]
    pub async fn open_disk(&mut self, path: &str, mode: Mode, capacity: u64) -> Result<SynchronousDisk<'_>> {
        let invalid = |what: String| Error::InvalidRequest { path: path.into(), what };
        if !capacity.is_multiple_of(SECTOR) {
            return Err(invalid(format!("a capacity of {capacity} bytes is not in sectors")));
        }
        let flags = match mode {
            Mode::ReadOnly => self.quirks.open_flags_read_only,
            Mode::ReadWrite => self.quirks.open_flags_read_write,
        };
        let open = |path_len| Message::Open { path_len, flags, raw: false };
        let bytes = Message::with_path(path, open).map_err(|error| invalid(error.to_string()))?;
        let limit = self.timeouts.session;
        self.link.begin(path, Phase::OpenFile)?;
        self.link.send(Phase::OpenFile, limit, bytes.into()).await?;
        match self.link.receive(Phase::OpenFile, limit).await? {
            Incoming::Message(FileMessage::Other(number::DISK_GEOMETRY)) => {
                tracing::debug!(path, ?mode, capacity, "NFC disk open for synchronous access");
                Ok(SynchronousDisk { files: self, path: path.into(), mode, capacity, is_broken: false })
            }
            other => Err(self.link.unexpected(Phase::OpenFile, &other)),
        }
    }
}

impl SynchronousDisk<'_> {
    /// The disk's size in bytes, as the caller told it.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Reads `len` bytes from `offset`, in as many requests as it takes.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] when the range is not whole sectors inside the disk, or the disk is
    /// open for writing; whatever the host says.
    ///
    /// # Cancel safety
    /// A dropped future makes disk and connection useless.
    #[doc(alias = "VixDiskLib_Read")]
    pub async fn read_at(&mut self, offset: u64, len: usize) -> Result<Bytes> {
        self.check(offset, len)?;
        if self.mode == Mode::ReadWrite && !self.files.quirks.read_when_writable {
            return Err(self.invalid("how a disk that is open for writing is read is not certain"));
        }
        let direction = self.files.quirks.read_direction;
        let mut whole = BytesMut::new();
        for (at, len) in self.requests(offset, len) {
            let io = Message::Io(Io { direction, offset: at, len });
            let limit = self.files.timeouts.read;
            self.request(Phase::Read, Bytes::copy_from_slice(&io.encode()), Bytes::new(), number::IO).await?;
            self.is_broken = true;
            whole.extend_from_slice(&self.files.link.extra(Phase::Read, limit, len).await?);
            self.is_broken = false;
        }
        Ok(whole.freeze())
    }

    /// Writes `data` at `offset`, in as many requests as it takes.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] on a disk that is open for reading, [`Error::InvalidRequest`] when the range is
    /// not whole sectors inside the disk, and [`Error::WriteInDoubt`] when something failed after data
    /// was sent.
    ///
    /// # Cancel safety
    /// A dropped future makes disk and connection useless; the range holds old or new bytes.
    #[doc(alias = "VixDiskLib_Write")]
    pub async fn write_at(&mut self, offset: u64, mut data: Bytes) -> Result<()> {
        if self.mode == Mode::ReadOnly {
            return Err(Error::ReadOnly { path: Arc::clone(&self.path), fault: None });
        }
        self.check(offset, data.len())?;
        let end = offset + data.len() as u64;
        for (at, len) in self.requests(offset, data.len()) {
            let io = Message::Io(Io { direction: DIRECTION_WRITE, offset: at, len });
            // At most what is left.
            let part = data.split_to(len as usize);
            let written = self.request(Phase::Write, Bytes::copy_from_slice(&io.encode()), part, number::IO).await;
            written.map_err(|error| Error::WriteInDoubt {
                path: Arc::clone(&self.path),
                range: at..end,
                source: Box::new(error),
            })?;
        }
        Ok(())
    }

    /// Closes the disk. The connection can be used for something else then.
    ///
    /// # Errors
    /// Whatever the host says. After writing, an error means that the last writes may not be durable.
    ///
    /// # Cancel safety
    /// A dropped future makes the connection useless.
    #[doc(alias = "VixDiskLib_Close")]
    pub async fn close(mut self) -> Result<()> {
        let close = Bytes::copy_from_slice(&Message::Close.encode());
        self.request(Phase::Close, close, Bytes::new(), number::CLOSE).await?;
        self.files.link.end();
        Ok(())
    }

    /// Sends a request, and waits for the message with the number `answer`.
    async fn request(&mut self, phase: Phase, head: Bytes, data: Bytes, answer: u32) -> Result<()> {
        let timeouts = self.files.timeouts;
        let limit = match phase {
            Phase::Read => timeouts.read,
            Phase::Write => timeouts.write,
            _ => timeouts.close,
        };
        let link = &mut self.files.link;
        if std::mem::replace(&mut self.is_broken, true) {
            return Err(link.blame().lost(phase, "a request before did not come to its end"));
        }
        link.send(phase, limit, head).await?;
        link.send(phase, limit, data).await?;
        match link.receive(phase, limit).await? {
            Incoming::Message(message) if message.number() == answer => {
                self.is_broken = false;
                Ok(())
            }
            other => Err(link.unexpected(phase, &other)),
        }
    }

    /// Cuts a range into requests: disk offset and length.
    fn requests(&self, offset: u64, len: usize) -> impl Iterator<Item = (u64, u32)> + use<> {
        let most = self.files.quirks.max_request.max(512) / 512 * 512;
        let len = len as u64;
        // No more than `most`, which is a u32.
        (0..len)
            .step_by(most as usize)
            .map(move |at| (offset + at, u32::try_from(len - at).unwrap_or(u32::MAX).min(most)))
    }

    fn check(&self, offset: u64, len: usize) -> Result<()> {
        let len = len as u64;
        let fits = offset.checked_add(len).is_some_and(|end| end <= self.capacity);
        if !offset.is_multiple_of(SECTOR) || !len.is_multiple_of(SECTOR) || !fits {
            return Err(self.invalid(format!("{offset}+{len} is not whole sectors inside the disk")));
        }
        Ok(())
    }

    fn invalid(&self, what: impl Into<String>) -> Error {
        Error::InvalidRequest { path: Arc::clone(&self.path), what: what.into() }
    }
}
