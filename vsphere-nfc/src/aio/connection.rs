//! One connection with one open disk.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::pending::{Due, Failure, Hold, Pending, Policy, Reply, Shared, Work};
use super::range_lock::RangeGuard;
use super::{assembly::Assembly, reader, writer, writer::Outgoing};
use crate::dial::{self, Dialled};
use crate::disk::{Mode, SessionInfo};
use crate::error::{Blame, Error, Phase, Result};
use crate::ladder::{Found, Rung, Setup, Target};
use crate::options::{Buffers, NfcOptions};
use crate::start;
use crate::ticket::Ticket;
use crate::wire::aio::{Kind, message};
use crate::wire::classic::Message;
use crate::wire::compress::Compression;
use crate::wire::file::{OPEN_FILE_LEN, OpenFile, OpenFileReply, TYPE_DISK, flags};
use crate::wire::io::{Direction, Io};
use crate::wire::query::{AllocationQuery, DdbGet, ranges_of};
use crate::wire::session::{CLOSE_SESSION_LEN, OpenSession, SockOpts};

/// A session with its disk. Dropping it closes the socket.
pub(crate) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Queue,
    wish: Compression,
    /// What a request takes of the budget at least, so that not too many are in flight.
    least_charge: u32,
    rung: Rung,
    pub(crate) buffers: Buffers,
    server_version: u32,
    pub(super) tls_version: Option<String>,
    pub(super) legacy_tls: bool,
    pub(crate) disk: OpenFileReply,
}

/// Where requests go.
pub(super) enum Queue {
    /// To the writer task, as messages.
    Messages(mpsc::UnboundedSender<Outgoing>),
    /// To the task that drives the synchronous layer, as operation ids.
    Operations(mpsc::UnboundedSender<u32>),
}

/// A request that has been sent.
pub(crate) struct InFlight {
    phase: Phase,
    reply: oneshot::Receiver<Result<Reply>>,
}

impl Connection {
    /// Goes all the way from a ticket to an open disk. `found` tells how far it got.
    pub(crate) async fn open(ticket: &Ticket, target: &Target, setup: &Setup, found: &mut Found) -> Result<Self> {
        let options = &target.options;
        let blame = Blame::new(&ticket.host, ticket.port, &target.path);
        if setup.rung == Rung::Synchronous {
            return Self::open_synchronous(blame, ticket, target, setup, found).await;
        }
        let stream = dial::dial(&blame, ticket, options, setup.rung, found).await?;
        Self::start(blame, stream, target, setup, found).await
    }

    /// Goes from a stream that the NFC service listens on to an open disk.
    pub(crate) async fn start(
        blame: Blame,
        mut stream: Dialled,
        target: &Target,
        setup: &Setup,
        found: &mut Found,
    ) -> Result<Self> {
        let options = &target.options;
        if let Some(recorder) = &options.trace {
            (stream.reader, stream.writer) = recorder.listen(stream.reader, stream.writer);
        }
        let limit = options.timeouts.session;
        let starting = start::start(&blame, &mut stream, options, setup.rung, found);
        let version = blame.within(Phase::SessionStart, limit, starting).await?;
        let mut this = Self::spawn(blame, stream, version, setup, options);
        this.legacy_tls = found.legacy_tls;
        this.open_session(options).await?;
        let flags = match target.mode {
            Mode::ReadOnly => flags::READ_ONLY,
            Mode::ReadWrite => flags::READ_WRITE,
        };
        let flags = if options.quirks.open_flag_10 { flags } else { flags & !flags::UNKNOWN_BIT };
        let flags = if options.single_link { flags & !options.quirks.parents_flag } else { flags };
        this.disk = this.open_file(&target.path, flags, limit).await?;
        Ok(this)
    }

    fn spawn(blame: Blame, stream: Dialled, version: u32, setup: &Setup, options: &NfcOptions) -> Self {
        let (quirks, budget) = (&options.quirks, setup.buffers.budget());
        let mut shared = Shared::new(blame, budget);
        shared.policy = Policy { max_unknown: quirks.max_unknown_message, survive_errors: quirks.survive_errors };
        let shared = Arc::new(shared);
        let (queue, outgoing) = mpsc::unbounded_channel();
        let reader = tokio::spawn(reader::run(stream.reader, Arc::clone(&shared)));
        let writer = tokio::spawn(writer::run(stream.writer, outgoing, Arc::clone(&shared)));
        shared.adopt(reader.abort_handle());
        shared.adopt(writer.abort_handle());
        Self::over(shared, Queue::Messages(queue), stream.tls_version, setup, options, version)
    }

    /// A connection whose disk is not open yet.
    pub(super) fn over(
        shared: Arc<Shared>,
        queue: Queue,
        tls_version: Option<String>,
        setup: &Setup,
        options: &NfcOptions,
        server_version: u32,
    ) -> Self {
        let least_charge = |most| u32::try_from(setup.buffers.budget() / u64::from(most)).unwrap_or(u32::MAX);
        Self {
            shared,
            queue,
            wish: options.compression.on_wire(),
            least_charge: options.quirks.max_in_flight.map_or(0, least_charge),
            rung: setup.rung,
            buffers: setup.buffers,
            server_version,
            tls_version,
            legacy_tls: false,
            disk: OpenFileReply::decode(&[0; OPEN_FILE_LEN]),
        }
    }

    async fn open_session(&self, options: &NfcOptions) -> Result<()> {
        let limit = options.timeouts.session;
        let Buffers { size: buffer_size, count: buffer_count } = self.buffers;
        let payload = OpenSession { buffer_size, buffer_count }.encode();
        let opened = self.call(Kind::OpenSession, Phase::OpenSession, limit, &payload, b"", 0).await;
        match opened {
            Err(Error::Server { endpoint, fault, .. }) => {
                return Err(Error::SessionRefused { endpoint, buffer_size, buffer_count, fault });
            }
            other => other?,
        };
        if options.quirks.set_sock_opts {
            let payload = SockOpts::default().encode();
            self.call(Kind::SetSockOpts, Phase::OpenSession, limit, &payload, b"", 0).await?;
        }
        if let Some(pool) = options.quirks.set_res_pool {
            let payload = pool.to_le_bytes();
            self.call(Kind::SetResPool, Phase::OpenSession, limit, &payload, b"", 0).await?;
        }
        Ok(())
    }

    async fn open_file(&self, path: &str, flags: u32, limit: Duration) -> Result<OpenFileReply> {
        // The length was checked with the path.
        let path_len = u32::try_from(path.len()).unwrap_or_default();
        let payload = OpenFile { path_len, file_type: TYPE_DISK, flags }.encode();
        let (payload, _) = self.call(Kind::OpenFile, Phase::OpenFile, limit, &payload, path.as_bytes(), 0).await?;
        let payload: &[u8; OPEN_FILE_LEN] = payload
            .as_slice()
            .try_into()
            .map_err(|_| self.shared.blame.protocol(Phase::OpenFile, "the reply is too short"))?;
        let reply = OpenFileReply::decode(payload);
        if reply.file_type != TYPE_DISK {
            let what = format!("the server opened a file of type {}", reply.file_type);
            return Err(self.shared.blame.protocol(Phase::OpenFile, what));
        }
        Ok(reply)
    }

    /// Sends a read of `total` bytes into the start of `buffer`, as soon as the budget allows.
    pub(crate) async fn read(
        &self,
        offset: u64,
        total: u32,
        buffer: BytesMut,
        range: Option<Arc<RangeGuard>>,
        limit: Duration,
    ) -> Result<InFlight> {
        let permit = self.shared.budget(self.charge(total), Phase::Read, limit).await?;
        let work = Work::Read { offset, assembly: Assembly::new(buffer, total) };
        let hold = Hold { _budget: Some(permit), _range: range };
        self.send(Due::within(Phase::Read, limit), work, hold, |op_id| {
            let io = Io::read_request(self.disk.handle, self.wish, offset, total);
            Outgoing::Message(message(Kind::Io, op_id, &io.encode(), b""))
        })
    }

    /// Sends a write, as soon as the budget allows.
    pub(crate) async fn write(
        &self,
        offset: u64,
        data: Bytes,
        range: Option<Arc<RangeGuard>>,
        limit: Duration,
    ) -> Result<InFlight> {
        // Requests are cut to at most the budget, which fits.
        let total = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let permit = self.shared.budget(self.charge(total), Phase::Write, limit).await?;
        let fragments = self.fragments(offset, total, &data);
        let hold = Hold { _budget: Some(permit), _range: range };
        let sent = Arc::new(AtomicBool::new(false));
        let work = Work::Write { offset, total, sent: Arc::clone(&sent) };
        self.send(Due::within(Phase::Write, limit), work, hold, |op_id| {
            let head = |io: &Io| message(Kind::Io, op_id, &io.encode(), b"");
            Outgoing::Write(fragments.into_iter().map(|(io, data)| (head(&io), data)).collect(), sent)
        })
    }

    /// What a request of `total` bytes takes of the budget. One that was cut for the larger buffers of
    /// an earlier connection takes it all.
    fn charge(&self, total: u32) -> u32 {
        let whole = u32::try_from(self.buffers.budget()).unwrap_or(u32::MAX);
        total.max(self.least_charge).min(whole)
    }

    /// Cuts `data` into fragments of a buffer each, and compresses them if wished for.
    fn fragments(&self, offset: u64, total: u32, data: &Bytes) -> Vec<(Io, Bytes)> {
        let mut fragments = Vec::new();
        let mut fragment_offset = 0;
        while fragment_offset < total {
            let fragment_len = (total - fragment_offset).min(self.buffers.size);
            // Both fit: they are at most `data.len()`.
            let (start, len) = (fragment_offset as usize, fragment_len as usize);
            let raw = data.slice(start..start + len);
            let (compression, data) = match self.wish.compress(&raw) {
                Some(packed) => (self.wish, Bytes::from(packed)),
                None => (Compression::None, raw),
            };
            let io = Io {
                handle: self.disk.handle,
                direction: Direction::Write,
                compression,
                offset,
                total,
                fragment_offset,
                fragment_len,
                wire_len: u32::try_from(data.len()).unwrap_or(u32::MAX),
            };
            fragments.push((io, data));
            fragment_offset += fragment_len;
        }
        fragments
    }

    /// The allocated ranges among the query's chunks.
    pub(crate) async fn query_allocated(
        &self,
        chunk: u64,
        start: u64,
        count: u64,
        limit: Duration,
    ) -> Result<Vec<Range<u64>>> {
        self.check_offered(Phase::QueryAllocated)?;
        let query = AllocationQuery { handle: self.disk.handle, chunk, start, count };
        let (_, bitmap) =
            self.call(Kind::QueryAllocated, Phase::QueryAllocated, limit, &query.encode(), b"", count).await?;
        Ok(ranges_of(&query, &bitmap))
    }

    /// The value of a disk database entry; no bytes when there is none.
    pub(crate) async fn ddb(&self, key: &str, limit: Duration) -> Result<Vec<u8>> {
        self.check_offered(Phase::Metadata)?;
        // The length was checked by the caller.
        let key_len = u32::try_from(key.len()).unwrap_or_default();
        let payload = DdbGet { handle: self.disk.handle, key_len }.encode();
        let (_, value) = self.call(Kind::DdbGet, Phase::Metadata, limit, &payload, key.as_bytes(), 0).await?;
        Ok(value)
    }

    /// Waits for reads and writes that are in flight, closes disk and session, tells the classic layer, and
    /// shuts the connection down, also after an error.
    pub(crate) async fn close(&self, options: &NfcOptions) -> Result<()> {
        let limit = options.timeouts.close;
        let blame = &self.shared.blame;
        let closed = blame.within(Phase::Close, limit, self.say_goodbye(options)).await;
        self.shared.fail(Failure::Lost("it was closed".to_owned()));
        closed
    }

    async fn say_goodbye(&self, options: &NfcOptions) -> Result<()> {
        let limit = options.timeouts.close;
        // Requests of callers that are gone hold their part of the budget until they are answered. What a
        // host makes of a close that overtakes them is not known; VDDK has its callers wait first.
        let _nothing_in_flight = self.shared.budget(self.charge(u32::MAX), Phase::Close, limit).await?;
        let handle = self.disk.handle.to_le_bytes();
        let session = [0; CLOSE_SESSION_LEN];
        let file = self.call(Kind::CloseFile, Phase::Close, limit, &handle, b"", 0).await;
        // After an error the connection is gone, and so is the session.
        file?;
        let Queue::Messages(queue) = &self.queue else {
            // The task of the synchronous layer has closed all there is.
            return Ok(());
        };
        self.call(Kind::CloseSession, Phase::Close, limit, &session, b"", 0).await?;
        let last = Message::SessionComplete.encode().map_err(|error| self.shared.blame.wire(Phase::Close, &error))?;
        // A request that nobody answers: it ends with the connection.
        let (sender, ended) = oneshot::channel();
        let work = Work::Call { kind: Kind::CloseSession, chunks: 0 };
        let farewell = Pending { due: Due::within(Phase::Close, limit), work, reply: sender, hold: Hold::default() };
        if self.shared.enter(farewell).is_err() {
            // Disk and session are closed; a server may hang up without waiting for the last message.
            return Ok(());
        }
        let (done, finished) = oneshot::channel();
        let last = Bytes::copy_from_slice(&last);
        // From here on the end of the connection is the wished for one, whoever brings it about.
        let said = queue.send(Outgoing::Finish(last, done)).is_ok() && finished.await.is_ok();
        if said && options.quirks.await_session_complete {
            let _ = ended.await;
        }
        Ok(())
    }

    /// Closes the socket without a word to the server.
    pub(crate) fn abandon(&self) {
        if self.shared.is_alive() {
            tracing::debug!(endpoint = %self.shared.blame.endpoint, "NFC disk dropped without close");
            self.shared.fail(Failure::Lost("it was dropped".to_owned()));
        }
    }

    /// Whether requests can still be made.
    pub(crate) fn is_alive(&self) -> bool {
        self.shared.is_alive()
    }

    /// What was agreed on with the server.
    pub(crate) fn info(&self) -> SessionInfo {
        SessionInfo {
            endpoint: self.shared.blame.endpoint.to_string(),
            rung: self.rung,
            server_version: self.server_version,
            buffers: self.buffers,
            tls_version: self.tls_version.clone(),
            legacy_tls: self.legacy_tls,
        }
    }

    /// Whether no request is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.shared.is_idle()
    }

    /// Counts what the server sent.
    pub(crate) fn progress(&self) -> u64 {
        self.shared.progress()
    }

    /// Ends the task with the connection.
    pub(crate) fn adopt(&self, task: AbortHandle) {
        self.shared.adopt(task);
    }

    /// Who to blame, for errors made by callers.
    pub(crate) fn blame(&self) -> &Blame {
        &self.shared.blame
    }

    /// The error of a connection that has failed.
    pub(crate) fn failure(&self, phase: Phase) -> Error {
        self.shared.failure(phase)
    }

    /// Whether the session's layer has such requests.
    fn check_offered(&self, phase: Phase) -> Result<()> {
        match self.queue {
            Queue::Messages(_) => Ok(()),
            Queue::Operations(_) => Err(Error::NotOffered { endpoint: Arc::clone(&self.shared.blame.endpoint), phase }),
        }
    }

    /// Waits for a range that requests in flight hold.
    pub(crate) async fn in_time<T>(&self, limit: Duration, waiting: impl Future<Output = T>) -> Result<T> {
        self.shared.in_time(limit, waiting).await
    }

    /// The error to report of requests that were made for one call, when `first` of them has failed
    /// and `rest` are those after it: what the server said to one of them, before the bare fact that
    /// it cost the others their connection.
    pub(crate) async fn worst(&self, first: Error, rest: impl IntoIterator<Item = InFlight>, limit: Duration) -> Error {
        if !matches!(first, Error::Disconnected { .. }) {
            return first;
        }
        for request in rest {
            // The connection has failed, so nothing is waited for.
            match self.wait(request, limit).await {
                Ok(_) | Err(Error::Disconnected { .. }) => {}
                Err(told) => return told,
            }
        }
        first
    }

    /// Waits for the reply to a request.
    pub(crate) async fn wait(&self, request: InFlight, limit: Duration) -> Result<Reply> {
        let InFlight { phase, reply } = request;
        match tokio::time::timeout(limit, reply).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(self.shared.failure(phase)),
            Err(_) => Err(self.shared.timed_out(phase, limit)),
        }
    }

    async fn call(
        &self,
        kind: Kind,
        phase: Phase,
        limit: Duration,
        payload: &[u8],
        extra: &[u8],
        chunks: u64,
    ) -> Result<(Vec<u8>, Vec<u8>)> {
        let work = Work::Call { kind, chunks };
        let request = self.send(Due::within(phase, limit), work, Hold::default(), |op_id| {
            Outgoing::Message(message(kind, op_id, payload, extra))
        })?;
        match self.wait(request, limit).await? {
            Reply::Call { payload, extra } => Ok((payload, extra)),
            _ => Err(self.shared.blame.protocol(phase, "a reply of another kind")),
        }
    }

    /// Enters a request and queues its message, without a point where it could be cancelled.
    fn send(&self, due: Due, work: Work, hold: Hold, outgoing: impl FnOnce(u32) -> Outgoing) -> Result<InFlight> {
        let (sender, reply) = oneshot::channel();
        let phase = due.phase;
        let op_id = self.shared.enter(Pending { due, work, reply: sender, hold })?;
        let queued = match &self.queue {
            Queue::Messages(queue) => queue.send(outgoing(op_id)).is_ok(),
            Queue::Operations(queue) => queue.send(op_id).is_ok(),
        };
        if !queued {
            return Err(self.shared.failure(phase));
        }
        Ok(InFlight { phase, reply })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.abandon();
    }
}
