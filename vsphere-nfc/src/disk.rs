//! The handle of an open disk.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};

use crate::aio::{Access, Connection, InFlight, RangeGuard, RangeLock, Reply};
use crate::error::{Error, Phase, Result};
use crate::ladder::{Rung, Target};
use crate::line::Line;
use crate::options::{Buffers, NfcOptions};
use crate::ticket::TicketSource;
use crate::wire::file::{Geometry, MAX_PATH};
use crate::wire::query::{MAX_KEY, MIN_CHUNK};

/// A virtual disk of an ESXi host, open over NFC.
///
/// All methods take `&self`: any number of reads and writes may be under way at once, and together
/// they keep the session's buffers filled. Dropping the handle closes the socket; only
/// [`close`](Self::close) tells the server and reports errors.
#[doc(alias = "VixDiskLibHandle")]
pub struct NfcDisk {
    line: Line,
    ranges: Arc<RangeLock>,
    has_written: AtomicBool,
    capacity: u64,
    sector_size: u32,
    geometry: Geometry,
}

/// What a disk is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Reading. The ticket may be of any kind.
    #[doc(alias = "VIXDISKLIB_FLAG_OPEN_READ_ONLY")]
    ReadOnly,
    /// Reading and writing. Needs a ticket for writing.
    ReadWrite,
}

/// What was agreed on with the server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Host and port.
    pub endpoint: String,
    /// How the session was started.
    pub rung: Rung,
    /// The server's NFC library version: 11 on ESXi 8, 7 on 7.0, 2 on 6.7; 0 also on
    /// [`Rung::Synchronous`], where it is not told.
    pub server_version: u32,
    /// The session's buffers.
    pub buffers: Buffers,
    /// The version of the TLS session that the data travels in; `None` when it travels in clear.
    pub tls_version: Option<String>,
    /// Whether TLS took SHA-1 signatures.
    pub legacy_tls: bool,
}

impl NfcDisk {
    /// Opens the disk `path` (`[datastore] folder/disk.vmdk`) with tickets from `tickets`.
    ///
    /// The path decides which point in time is read: the parent's file after a snapshot, or a
    /// child's, which opens as the whole chain.
    ///
    /// A host that does not understand how the session starts is asked for less ([`Rung`]); one that
    /// refuses the buffers, for smaller ones; one that is out of NFC memory is waited for a while, and
    /// asked for ever smaller ones ([`NfcOptions::retry`]). Every try takes a new connection and a new
    /// ticket. Errors about the ticket, the certificate and the disk are final.
    ///
    /// # Errors
    /// Every variant of [`Error`] but those of reads and writes.
    ///
    /// # Privileges
    /// Those of the ticket; none more.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection. A ticket may have been used up.
    #[doc(alias = "VixDiskLib_Open")]
    pub async fn open(tickets: Arc<dyn TicketSource>, path: &str, mode: Mode, options: NfcOptions) -> Result<Self> {
        let path: Arc<str> = path.into();
        let invalid = |what: &str| Error::InvalidRequest { path: Arc::clone(&path), what: what.to_owned() };
        options.check().map_err(invalid)?;
        if path.is_empty() || path.len() as u64 > u64::from(MAX_PATH) {
            return Err(invalid("a path must have 1 to 4096 bytes"));
        }
        if path.contains('\0') {
            // A host would take what is before it for the path.
            return Err(invalid("a path must not have a NUL in it"));
        }
        let ranges = Arc::<RangeLock>::default();
        Self::over(Line::open(Target { tickets, path, mode, options }, Arc::clone(&ranges)).await?, ranges)
    }

    /// The handle of a disk that is open.
    pub(crate) fn over(line: Line, ranges: Arc<RangeLock>) -> Result<Self> {
        let connection = line.latest();
        let disk = connection.disk;
        let sector_size = match disk.sector_size {
            0 => 512,
            size if size.is_power_of_two() && (512..=65536).contains(&size) => size,
            size => {
                let what = format!("the server says that a sector has {size} bytes");
                return Err(connection.blame().protocol(Phase::OpenFile, what));
            }
        };
        Ok(Self {
            line,
            ranges,
            has_written: AtomicBool::new(false),
            capacity: disk.capacity,
            sector_size,
            geometry: disk.geometry,
        })
    }

    /// The disk's size in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes in a sector. Offsets and lengths of reads and writes are multiples of it.
    pub fn sector_size(&self) -> u32 {
        self.sector_size
    }

    /// The physical geometry.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The path that the disk was opened with.
    pub fn path(&self) -> &str {
        &self.line.target().path
    }

    /// What the disk was opened for.
    pub fn mode(&self) -> Mode {
        self.line.target().mode
    }

    /// What was agreed on with the server, on the latest connection.
    pub fn session_info(&self) -> SessionInfo {
        self.line.latest().info()
    }

    /// Reads `len` bytes from `offset`.
    ///
    /// A read longer than a buffer is cut into several requests that are in flight together.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] when the range is not whole sectors inside the disk, and whatever
    /// the connection says. When the connection was lost, a disk that is open for reading connects
    /// again, wherever the new ticket says, and reads what is missing; it gives up after the tries of
    /// [`NfcOptions::retry`] in a row brought nothing. After another error the next call connects.
    ///
    /// # Cancel safety
    /// Safe: what was asked for still arrives, is dropped, and keeps its part of the budget until
    /// then.
    #[doc(alias = "VixDiskLib_Read")]
    #[doc(alias = "VixDiskLib_ReadAsync")]
    pub async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        Ok(self.read_into(offset, len, BytesMut::new()).await?.freeze())
    }

    /// Reads `len` bytes from `offset` into `buffer`, whose content is replaced and whose memory is
    /// used again when it is large enough.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at). The buffer is lost.
    ///
    /// # Cancel safety
    /// As [`read_at`](Self::read_at).
    pub async fn read_into(&self, offset: u64, len: usize, mut buffer: BytesMut) -> Result<BytesMut> {
        let range = self.check(offset, len)?;
        buffer.clear();
        if range.is_empty() {
            return Ok(buffer);
        }
        let guard = match self.mode() {
            Mode::ReadOnly => None,
            Mode::ReadWrite => {
                let connection = self.line.connection(Phase::Read).await?;
                let limit = self.options().timeouts.read;
                let free = connection.in_time(limit, self.ranges.acquire(range, Access::Read));
                Some(Arc::new(free.await?))
            }
        };
        buffer.reserve(len);
        let mut parts = Vec::new();
        let mut patience = self.line.patience();
        loop {
            let connection = self.line.connection(Phase::Read).await?;
            if parts.is_empty() {
                parts = self.parts(&connection, offset, len, &mut buffer);
            }
            let before = missing(&parts);
            match self.read_missing(&connection, &mut parts, guard.as_ref()).await {
                Ok(()) => break,
                Err(error) => {
                    if missing(&parts) < before {
                        patience.restore();
                    }
                    self.line.survive(error, &connection, &mut patience).await?;
                }
            }
        }
        // Parts that came at the first try lie side by side in memory: no bytes are moved.
        let mut whole = BytesMut::new();
        parts.into_iter().for_each(|part| whole.unsplit(part.bytes));
        Ok(whole)
    }

    /// Cuts a read into the parts that are asked for one by one, and the buffer with it.
    fn parts(&self, connection: &Connection, offset: u64, len: usize, buffer: &mut BytesMut) -> Vec<Part> {
        let cut = |(at, total): (usize, u32)| {
            let rest = buffer.split_off(size(total.into()));
            Part { at: offset + at as u64, len: total, bytes: std::mem::replace(buffer, rest) }
        };
        self.requests(connection, len).map(cut).collect()
    }

    /// Asks for all parts that are not there yet. Those that came are kept, also after an error.
    async fn read_missing(
        &self,
        connection: &Connection,
        parts: &mut [Part],
        guard: Option<&Arc<RangeGuard>>,
    ) -> Result<()> {
        let limit = self.options().timeouts.read;
        let mut requests: Vec<(&mut Part, InFlight)> = Vec::new();
        let mut failed = None;
        for part in parts.iter_mut().filter(|part| !part.is_here()) {
            let buffer = std::mem::take(&mut part.bytes);
            match connection.read(part.at, part.len, buffer, guard.cloned(), limit).await {
                Ok(request) => requests.push((part, request)),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        for (part, request) in requests {
            match connection.wait(request, limit).await {
                Ok(Reply::Read(bytes)) => part.bytes = bytes,
                Ok(_) => return Err(connection.blame().protocol(Phase::Read, "a reply of another kind")),
                Err(error) => failed = Some(telling(failed, error)),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Writes `data` at `offset`; returns when the server has replied for all of it.
    ///
    /// A write waits for earlier reads and writes of this handle that overlap it, and later ones
    /// wait for it. Whether a reply means that the data is durable is not known; closing is the
    /// best barrier there is.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] on a handle for reading, [`Error::InvalidRequest`] when the range is not
    /// whole sectors inside the disk, and [`Error::WriteInDoubt`] when something failed after data
    /// was sent: the connection is not made anew then, nor when it was lost before, but by
    /// [`reopen`](Self::reopen).
    ///
    /// # Cancel safety
    /// Dropping the future does not take back what was sent: the range holds old or new bytes.
    #[doc(alias = "VixDiskLib_Write")]
    #[doc(alias = "VixDiskLib_WriteAsync")]
    pub async fn write_at(&self, offset: u64, data: Bytes) -> Result<()> {
        if self.mode() == Mode::ReadOnly {
            return Err(Error::ReadOnly { path: self.path_arc(), fault: None });
        }
        let range = self.check(offset, data.len())?;
        if range.is_empty() {
            return Ok(());
        }
        let connection = self.line.connection(Phase::Write).await?;
        let limit = self.options().timeouts.write;
        let free = connection.in_time(limit, self.ranges.acquire(range.clone(), Access::Write));
        let guard = Arc::new(free.await?);
        self.has_written.store(true, Ordering::SeqCst);
        let doubt = |start: u64, error: Error| Error::WriteInDoubt {
            path: self.path_arc(),
            range: start..range.end,
            source: Box::new(error),
        };
        let mut requests: Vec<(u64, InFlight)> = Vec::new();
        for (at, total) in self.requests(&connection, data.len()) {
            let part = data.slice(at..at + size(total.into()));
            let at = offset + at as u64;
            match connection.write(at, part, Some(Arc::clone(&guard)), limit).await {
                Ok(request) => requests.push((at, request)),
                // Nothing was sent, so nothing is in doubt.
                Err(error) if requests.is_empty() => return Err(error),
                // Nothing is known of what is in flight, so the doubt starts with the first of it.
                Err(error) => {
                    let (starts, requests): (Vec<u64>, Vec<InFlight>) = requests.into_iter().unzip();
                    let error = connection.worst(error, requests, limit).await;
                    return Err(doubt(starts.first().copied().unwrap_or(at), error));
                }
            }
        }
        let mut requests = requests.into_iter();
        while let Some((at, request)) = requests.next() {
            if let Err(error) = connection.wait(request, limit).await {
                let rest = requests.map(|(_, request)| request);
                return Err(doubt(at, connection.worst(error, rest, limit).await));
            }
        }
        Ok(())
    }

    /// Returns the parts of `range` that have storage behind them: ascending, merged, clipped to
    /// `range`. Everything else reads as zeros, or as the parent where only a link was opened.
    ///
    /// The server is asked in chunks of `chunk` bytes, at least 64 KiB, aligned to the chunk; a
    /// chunk counts as a whole. The tail of the disk that is shorter than a chunk cannot be asked
    /// for and counts as allocated.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`], also on a handle that has written, be it in the meantime, where the
    /// server's answer may be stale. [`Error::Server`] when the server refuses, as it may for datastores that are not
    /// VMFS: take all as allocated. The refusal ends the connection; the next read makes a new one.
    /// [`Error::NotOffered`] on [`Rung::Synchronous`], which costs nothing.
    ///
    /// # Cancel safety
    /// Safe.
    #[doc(alias = "VixDiskLib_QueryAllocatedBlocks")]
    pub async fn query_allocated(&self, range: Range<u64>, chunk: u64) -> Result<Vec<Range<u64>>> {
        if range.start > range.end || range.end > self.capacity {
            return Err(self.invalid("the range of an allocation query is not inside the disk"));
        }
        if chunk < MIN_CHUNK || !chunk.is_multiple_of(u64::from(self.sector_size)) {
            return Err(self.invalid("a chunk must be whole sectors and have at least 64 KiB"));
        }
        self.check_unwritten()?;
        let mut allocated: Vec<Range<u64>> = Vec::new();
        if range.is_empty() {
            return Ok(allocated);
        }
        let limit = self.options().timeouts.query;
        let mut patience = self.line.patience();
        // In chunks; what is behind the last whole one is the tail.
        let last = range.end.div_ceil(chunk).min(self.capacity / chunk);
        let mut next = range.start / chunk;
        while next < last {
            let connection = self.line.connection(Phase::QueryAllocated).await?;
            let count = (last - next).min(u64::from(self.options().allocation_page));
            let start = (next * chunk).saturating_add(self.options().quirks.allocation_shift.into());
            let page = match connection.query_allocated(chunk, start, count, limit).await {
                Ok(page) => page,
                Err(error) => {
                    self.line.survive(error, &connection, &mut patience).await?;
                    continue;
                }
            };
            patience.restore();
            page.into_iter().for_each(|part| push_clipped(&mut allocated, part, &range));
            next += count;
        }
        push_clipped(&mut allocated, last * chunk..self.capacity, &range);
        // What was written in the meantime may be missing.
        self.check_unwritten()?;
        Ok(allocated)
    }

    /// Looks up the disk database entry `key` (without `ddb.`); `None` when there is none.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] when the key is empty or longer than 4096 bytes,
    /// [`Error::NotOffered`] on [`Rung::Synchronous`], and whatever the connection says.
    ///
    /// # Cancel safety
    /// Safe.
    #[doc(alias = "VixDiskLib_ReadMetadata")]
    pub async fn metadata(&self, key: &str) -> Result<Option<String>> {
        if key.is_empty() || key.len() as u64 > u64::from(MAX_KEY) {
            return Err(self.invalid("a key must have 1 to 4096 bytes"));
        }
        let limit = self.options().timeouts.query;
        let mut patience = self.line.patience();
        loop {
            let connection = self.line.connection(Phase::Metadata).await?;
            match connection.ddb(key, limit).await {
                Ok(value) => return Ok((!value.is_empty()).then(|| String::from_utf8_lossy(&value).into_owned())),
                Err(error) => self.line.survive(error, &connection, &mut patience).await?,
            }
        }
    }

    /// Makes a new connection, with a new ticket, and closes the old one if it still works.
    ///
    /// What a handle for reading does by itself, one for writing does only when told so: after
    /// [`Error::WriteInDoubt`], write the ranges in doubt again on the new connection, or read them to
    /// see. A connection that works is closed first, after the requests that are in flight on it.
    ///
    /// # Errors
    /// Those of [`open`](Self::open); those of [`close`](Self::close) for a connection that works,
    /// and then there is none until this is called again; [`Error::Protocol`] when the disk has
    /// another size than before.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the handle without a connection; reopen again.
    pub async fn reopen(&self) -> Result<()> {
        self.line.reopen().await
    }

    /// Closes the disk and the session, and the connection with them, as soon as reads and writes whose
    /// futures were dropped have been answered.
    ///
    /// # Errors
    /// The first thing that went wrong; the connection is closed all the same. For a disk that was
    /// written to, an error means that the last writes may not be durable.
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    #[doc(alias = "VixDiskLib_Close")]
    pub async fn close(self) -> Result<()> {
        let connection = self.line.latest();
        if !connection.is_alive() && self.mode() == Mode::ReadOnly {
            // Nothing to say goodbye to, and nothing that could have been lost.
            return Ok(());
        }
        connection.close(self.options()).await
    }

    /// The server's word on the allocation is good as long as this handle has not written.
    fn check_unwritten(&self) -> Result<()> {
        match self.has_written.load(Ordering::SeqCst) {
            true => Err(self.invalid("the allocation is not reliable on a handle that has written")),
            false => Ok(()),
        }
    }

    fn options(&self) -> &NfcOptions {
        &self.line.target().options
    }

    fn path_arc(&self) -> Arc<str> {
        Arc::clone(&self.line.target().path)
    }

    /// The range in bytes, when it is whole sectors inside the disk.
    fn check(&self, offset: u64, len: usize) -> Result<Range<u64>> {
        let len = len as u64;
        let sector = u64::from(self.sector_size);
        if !offset.is_multiple_of(sector) || !len.is_multiple_of(sector) {
            return Err(self.invalid(format!("{offset}+{len} is not in sectors of {sector} bytes")));
        }
        match offset.checked_add(len) {
            Some(end) if end <= self.capacity => Ok(offset..end),
            _ => Err(self.invalid(format!("{offset}+{len} is beyond the capacity {}", self.capacity))),
        }
    }

    /// Cuts `len` bytes into requests: offset in the whole, and length.
    fn requests(&self, connection: &Connection, len: usize) -> impl Iterator<Item = (usize, u32)> + use<> {
        let buffers = connection.buffers;
        let budget = u32::try_from(buffers.budget()).unwrap_or(u32::MAX);
        let wished = self.options().quirks.max_request.unwrap_or(buffers.size);
        let most = wished.min(budget) / self.sector_size * self.sector_size;
        let most = size(most.max(self.sector_size).into());
        (0..len).step_by(most).map(move |at| {
            // At most `most`, which is a u32.
            (at, u32::try_from(most.min(len - at)).unwrap_or(u32::MAX))
        })
    }

    fn invalid(&self, what: impl Into<String>) -> Error {
        Error::InvalidRequest { path: self.path_arc(), what: what.into() }
    }
}

impl std::fmt::Debug for NfcDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NfcDisk")
            .field("path", &self.path())
            .field("mode", &self.mode())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

/// Bytes as an index. Lengths come from a `usize` and fit.
fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A part of a read, asked for with one request.
struct Part {
    at: u64,
    len: u32,
    /// The bytes when they are here; room for them, or nothing, before.
    bytes: BytesMut,
}

impl Part {
    fn is_here(&self) -> bool {
        self.bytes.len() == size(self.len.into())
    }
}

fn missing(parts: &[Part]) -> usize {
    parts.iter().filter(|part| !part.is_here()).count()
}

/// Which of two errors of one connection to report: what the server said to one request, before the
/// bare fact that it cost the others their connection.
fn telling(first: Option<Error>, second: Error) -> Error {
    match first {
        Some(first) if !matches!(first, Error::Disconnected { .. }) => first,
        Some(first) if matches!(second, Error::Disconnected { .. }) => first,
        _ => second,
    }
}

/// Appends the part of `part` inside `range`, joined to the last one where they touch.
fn push_clipped(ranges: &mut Vec<Range<u64>>, part: Range<u64>, range: &Range<u64>) {
    let part = part.start.max(range.start)..part.end.min(range.end);
    if part.is_empty() {
        return;
    }
    match ranges.last_mut() {
        Some(last) if last.end == part.start => last.end = part.end,
        _ => ranges.push(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_clipped_and_joined() {
        let mut ranges = Vec::new();
        for part in [0..10, 10..20, 30..40, 40..41, 90..200] {
            push_clipped(&mut ranges, part, &(5..100));
        }
        assert_eq!(ranges, [5..20, 30..41, 90..100]);
        push_clipped(&mut ranges, 100..120, &(5..100));
        assert_eq!(ranges.len(), 3);
    }
}
