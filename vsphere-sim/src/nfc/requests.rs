//! Takes requests off the connection: small ones are answered here, transfers get a task each.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use vsphere_nfc::wire::aio::{HEADER_LEN, Header, Kind};
use vsphere_nfc::wire::fault::{CODE_OUT_OF_MEMORY, CODE_READ_ONLY};
use vsphere_nfc::wire::file::{CLOSE_FILE_LEN, OPEN_FILE_LEN, OpenFile, OpenFileReply, TYPE_DISK, flags};
use vsphere_nfc::wire::io::{Direction, IO_LEN, Io};
use vsphere_nfc::wire::query::{
    ALLOCATION_LEN, AllocationQuery, DDB_LEN, DdbGet, MAX_CHUNKS, MIN_CHUNK, bitmap_of, encode_allocation_reply,
    encode_ddb_reply,
};
use vsphere_nfc::wire::session::{
    CLOSE_SESSION_LEN, OPEN_SESSION_LEN, OpenSession, RES_POOL_LEN, SOCK_OPTS_LEN, SockOpts,
};

use super::authd::ReadHalf;
use super::backend::{Grant, NfcFile};
use super::config::{AllocationAnswers, Step};
use super::counters::NfcCounters;
use super::holding::Holding;
use super::server::{ended, violation};
use super::session::{CODE_INVALID, Replies};
use super::transfer::{self, Write};

/// What a captured server said about its socket buffers.
const SOCKET_BUFFER: u32 = 1_675_000;
/// Buffers of a session that asks for none: older captures.
const DEFAULT_BUFFERS: OpenSession = OpenSession { buffer_size: 65536, buffer_count: 4 };
/// The longest transfer that is taken, in bytes.
const MAX_TRANSFER: u32 = 64 * 1024 * 1024;
/// Handles are opaque; they need not look like small numbers.
const FIRST_HANDLE: u64 = 0x00A1_B2C3;

/// An open disk.
#[derive(Clone)]
pub(super) struct OpenDisk {
    pub(super) path: Arc<str>,
    pub(super) file: Arc<dyn NfcFile>,
    pub(super) writable: bool,
    _open: Arc<Holding>,
}

impl OpenDisk {
    /// Counts `file` among those that are open, until the last copy of this is gone.
    pub(super) fn new(
        counters: &NfcCounters,
        path: String,
        file: Arc<dyn NfcFile>,
        writable: bool,
    ) -> io::Result<Self> {
        let open = counters.open_files.take(1, None).ok_or_else(|| violation("too many files"))?;
        counters.count(&path, |traffic| traffic.opens += 1);
        Ok(Self { path: path.into(), file, writable, _open: Arc::new(open) })
    }
}

/// The receiving side of a session.
pub(super) struct Requests {
    reader: ReadHalf,
    grant: Grant,
    replies: Replies,
    buffers: OpenSession,
    /// The session's part of the host's NFC memory.
    memory: Option<Holding>,
    /// One for each buffer: what is beyond waits on the connection.
    slots: Arc<Semaphore>,
    disks: HashMap<u64, OpenDisk>,
    /// Writes whose last fragment has not come, by operation.
    writes: HashMap<u32, Write>,
    tasks: JoinSet<io::Result<()>>,
    next_handle: u64,
}

impl Requests {
    pub(super) fn new(reader: ReadHalf, grant: Grant, replies: Replies) -> Self {
        let mut this = Self {
            reader,
            grant,
            replies,
            buffers: DEFAULT_BUFFERS,
            memory: None,
            slots: Arc::new(Semaphore::new(0)),
            disks: HashMap::new(),
            writes: HashMap::new(),
            tasks: JoinSet::new(),
            next_handle: FIRST_HANDLE,
        };
        this.use_buffers(DEFAULT_BUFFERS);
        this
    }

    /// Serves until CLOSE_SESSION has been answered.
    pub(super) async fn run(&mut self) -> io::Result<()> {
        loop {
            let bytes = self.header().await?;
            let header = Header::decode(&bytes).map_err(violation)?;
            while let Some(task) = self.tasks.try_join_next() {
                // Errors are of the connection or injected, and end it.
                task.map_err(io::Error::other)??;
            }
            match header.kind {
                Kind::OpenSession => self.open_session(&header).await?,
                Kind::SetSockOpts => self.sock_opts(&header).await?,
                Kind::SetResPool => {
                    self.payload::<RES_POOL_LEN>(&header).await?;
                    self.replies.send(header.kind, header.op_id, &[0; RES_POOL_LEN], Vec::new()).await?;
                }
                Kind::OpenFile => self.open_file(&header).await?,
                Kind::Io => self.io(&header).await?,
                Kind::QueryAllocated => self.query_allocated(&header).await?,
                Kind::DdbGet => self.ddb_get(&header).await?,
                Kind::CloseFile => self.close_file(&header).await?,
                Kind::CloseSession => {
                    self.payload::<CLOSE_SESSION_LEN>(&header).await?;
                    if !self.replies.struck(Step::CloseSession, header.op_id).await? {
                        self.replies.send(header.kind, header.op_id, &[0; CLOSE_SESSION_LEN], Vec::new()).await?;
                        return Ok(());
                    }
                }
                _ => {
                    self.bytes(header.size).await?;
                    self.refuse(&header, "unknown message").await?;
                }
            }
        }
    }

    /// Waits for the next request, but not longer than a session may be idle.
    async fn header(&mut self) -> io::Result<[u8; HEADER_LEN]> {
        let mut bytes = [0; HEADER_LEN];
        let limit = self.replies.config().idle_limit;
        let reading = self.reader.read_exact(&mut bytes);
        match limit {
            None => reading.await?,
            Some(limit) => tokio::time::timeout(limit, reading).await.map_err(|_| ended("the session was idle"))??,
        };
        Ok(bytes)
    }

    /// Ends the work on requests, and gives the connection back.
    pub(super) fn into_reader(self) -> ReadHalf {
        self.reader
    }

    fn use_buffers(&mut self, buffers: OpenSession) {
        let slots = usize::try_from(buffers.buffer_count).unwrap_or(usize::MAX).clamp(1, 1024);
        self.buffers = buffers;
        self.slots = Arc::new(Semaphore::new(slots));
    }

    async fn open_session(&mut self, header: &Header) -> io::Result<()> {
        let asked = OpenSession::decode(&self.payload::<OPEN_SESSION_LEN>(header).await?);
        if self.replies.struck(Step::OpenSession, header.op_id).await? {
            return Ok(());
        }
        let asked = if asked.buffer_size == 0 { DEFAULT_BUFFERS } else { asked };
        let config = self.replies.config();
        let total = u64::from(asked.buffer_size) * u64::from(asked.buffer_count);
        if asked.buffer_size > config.max_buffer_size || total > config.max_session_bytes || asked.buffer_count == 0 {
            let code = config.session_refusal_code;
            return self.replies.error(header.op_id, code, "Failed to allocate the requested buffers").await;
        }
        self.memory = None;
        let Some(memory) = self.replies.shared().counters.memory.take(total, config.memory) else {
            self.replies.shared().counters.refuse();
            let text = format!("Failed to allocate the requested {total} bytes");
            return self.replies.error(header.op_id, CODE_OUT_OF_MEMORY, text).await;
        };
        self.memory = Some(memory);
        self.use_buffers(asked);
        self.replies.send(header.kind, header.op_id, &[0; OPEN_SESSION_LEN], Vec::new()).await
    }

    async fn sock_opts(&mut self, header: &Header) -> io::Result<()> {
        let asked = SockOpts::decode(&self.payload::<SOCK_OPTS_LEN>(header).await?);
        let or_own = |size: u32| if size == 0 { SOCKET_BUFFER } else { size };
        let reply = SockOpts { send: or_own(asked.send), receive: or_own(asked.receive), flag: 1 };
        self.replies.send(header.kind, header.op_id, &reply.encode(), Vec::new()).await
    }

    async fn open_file(&mut self, header: &Header) -> io::Result<()> {
        let request = OpenFile::decode(&self.payload::<OPEN_FILE_LEN>(header).await?).map_err(violation)?;
        let path = String::from_utf8_lossy(&self.bytes(request.path_len).await?).into_owned();
        if self.replies.struck(Step::OpenFile, header.op_id).await? {
            return Ok(());
        }
        let writable = request.flags & flags::READ_ONLY_BIT == 0;
        let backend = Arc::clone(&self.replies.shared().backend);
        let (grant, name) = (self.grant.clone(), path.clone());
        let alone = request.flags & flags::PARENTS_BIT == 0;
        let opened = blocking(move || match alone {
            true => backend.open_link(&grant, &name, writable),
            false => backend.open(&grant, &name, writable),
        });
        let opened = opened.await?;
        let file = match opened {
            Ok(file) => file,
            Err(refused) => return self.replies.error(header.op_id, refused.code, refused.text).await,
        };
        let handle = self.next_handle;
        self.next_handle += 1;
        let reply = OpenFileReply {
            handle,
            file_type: TYPE_DISK,
            flags: request.flags,
            capacity: file.capacity(),
            sector_size: file.sector_size(),
            geometry: file.geometry(),
        };
        self.disks.insert(handle, OpenDisk::new(&self.replies.shared().counters, path, file, writable)?);
        self.replies.send(header.kind, header.op_id, &reply.encode(), Vec::new()).await
    }

    async fn io(&mut self, header: &Header) -> io::Result<()> {
        let io = Io::decode(&self.payload::<IO_LEN>(header).await?).map_err(violation)?;
        let data = match io.direction {
            Direction::Read => Vec::new(),
            Direction::Write if io.fragment_len > self.buffers.buffer_size => {
                return Err(violation("a write fragment is larger than a buffer"));
            }
            Direction::Write => {
                let mut data = self.replies.buffers().take(io.wire_len as usize);
                self.reader.read_exact(&mut data).await?;
                data
            }
        };
        let Some(disk) = self.disks.get(&io.handle).cloned() else {
            return self.refuse(header, "unknown handle").await;
        };
        let sector = u64::from(disk.file.sector_size().max(512));
        let aligned = io.offset.is_multiple_of(sector) && u64::from(io.total).is_multiple_of(sector);
        let end = io.offset.checked_add(u64::from(io.total));
        if !aligned || io.total > MAX_TRANSFER || end.is_none_or(|end| end > disk.file.capacity()) {
            return self.refuse(header, "the range is misaligned or out of bounds").await;
        }
        match io.direction {
            Direction::Read => self.read(header, disk, io).await,
            Direction::Write => self.write(header, disk, io, data).await,
        }
    }

    async fn read(&mut self, header: &Header, disk: OpenDisk, io: Io) -> io::Result<()> {
        if self.replies.struck(Step::Read, header.op_id).await? {
            return Ok(());
        }
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(io::Error::other)?;
        let (replies, op_id, buffer) = (self.replies.clone(), header.op_id, self.buffers.buffer_size);
        self.tasks.spawn(async move {
            let _slot = slot;
            transfer::read(&replies, op_id, &disk, &io, buffer).await
        });
        Ok(())
    }

    async fn write(&mut self, header: &Header, disk: OpenDisk, io: Io, data: Vec<u8>) -> io::Result<()> {
        let op_id = header.op_id;
        let mut write = match self.writes.remove(&op_id) {
            Some(write) => write,
            None if self.replies.struck(Step::Write, op_id).await? => return Ok(()),
            None if !disk.writable => {
                return self.replies.error(op_id, CODE_READ_ONLY, "The file is read-only").await;
            }
            None => Write::new(&self.replies, op_id, disk, &io),
        };
        if !write.accept(&io) {
            return self.refuse(header, "a write fragment is out of turn").await;
        }
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(io::Error::other)?;
        let fragment = write.fragment(io, data);
        self.tasks.spawn(async move {
            let _slot = slot;
            fragment.run().await
        });
        if !write.is_whole() {
            self.writes.insert(op_id, write);
        }
        Ok(())
    }

    async fn query_allocated(&mut self, header: &Header) -> io::Result<()> {
        let query = AllocationQuery::decode(&self.payload::<ALLOCATION_LEN>(header).await?);
        if self.replies.struck(Step::QueryAllocated, header.op_id).await? {
            return Ok(());
        }
        let Some(disk) = self.disks.get(&query.handle).cloned() else {
            return self.refuse(header, "unknown handle").await;
        };
        if self.replies.config().allocation == AllocationAnswers::Refused {
            return self.refuse(header, "not supported on this datastore").await;
        }
        let end = query.count.checked_mul(query.chunk).and_then(|len| len.checked_add(query.start));
        let in_bounds = end.is_some_and(|end| end <= disk.file.capacity());
        let allowed = query.chunk >= MIN_CHUNK && (1..=MAX_CHUNKS).contains(&query.count);
        if !allowed || !in_bounds || !query.start.is_multiple_of(query.chunk) {
            return self.refuse(header, "the query is misaligned or out of bounds").await;
        }
        let range = query.start..end.unwrap_or(query.start);
        match blocking(move || disk.file.allocated(range)).await? {
            Ok(ranges) => {
                let bitmap = bitmap_of(&query, &ranges);
                let payload = encode_allocation_reply(query.count);
                self.replies.send(header.kind, header.op_id, &payload, bitmap).await
            }
            Err(error) => self.refuse(header, &error.to_string()).await,
        }
    }

    async fn ddb_get(&mut self, header: &Header) -> io::Result<()> {
        let get = DdbGet::decode(&self.payload::<DDB_LEN>(header).await?).map_err(violation)?;
        let key = String::from_utf8_lossy(&self.bytes(get.key_len).await?).into_owned();
        if self.replies.struck(Step::DdbGet, header.op_id).await? {
            return Ok(());
        }
        let Some(disk) = self.disks.get(&get.handle).cloned() else {
            return self.refuse(header, "unknown handle").await;
        };
        let value = blocking(move || disk.file.ddb(&key)).await?.unwrap_or_default();
        let len = u32::try_from(value.len()).map_err(io::Error::other)?;
        self.replies.send(header.kind, header.op_id, &encode_ddb_reply(len), value.into_bytes()).await
    }

    async fn close_file(&mut self, header: &Header) -> io::Result<()> {
        let handle = u64::from_le_bytes(self.payload::<CLOSE_FILE_LEN>(header).await?);
        // Writes come before the close that follows them.
        while let Some(task) = self.tasks.join_next().await {
            task.map_err(io::Error::other)??;
        }
        if self.replies.struck(Step::CloseFile, header.op_id).await? {
            return Ok(());
        }
        let Some(disk) = self.disks.remove(&handle) else {
            return self.refuse(header, "unknown handle").await;
        };
        if disk.writable
            && let Err(error) = blocking(move || disk.file.flush()).await?
        {
            return self.refuse(header, &error.to_string()).await;
        }
        self.replies.send(header.kind, header.op_id, &[0; CLOSE_FILE_LEN], Vec::new()).await
    }

    async fn refuse(&mut self, header: &Header, text: &str) -> io::Result<()> {
        self.replies.error(header.op_id, CODE_INVALID, text).await
    }

    async fn payload<const N: usize>(&mut self, header: &Header) -> io::Result<[u8; N]> {
        if header.size as usize != N {
            return Err(violation(format!("{:?} with a payload of {} bytes", header.kind, header.size)));
        }
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    /// Reads bytes whose number has been checked: a payload, a path, a key, a fragment.
    async fn bytes(&mut self, len: u32) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len as usize];
        self.reader.read_exact(&mut bytes).await?;
        Ok(bytes)
    }
}

/// Runs a call of the backend where it may block.
pub(super) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(call).await.map_err(io::Error::other)
}
