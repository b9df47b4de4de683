//! A server that speaks just enough, over a stream in memory, and stops wherever it is told to.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};

use crate::aio::{Connection, RangeLock};
use crate::dial::Dialled;
use crate::error::{Blame, Error, Phase, Result};
use crate::ladder::{Found, Rung, Setup, Target};
use crate::line;
use crate::options::NfcOptions;
use crate::ticket::{BoxFuture, Ticket, TicketError, TicketSource};
use crate::wire::aio::{HEADER_LEN, Header, Kind, message};
use crate::wire::classic::{MESSAGE_LEN, Message};
use crate::wire::compress::Compression;
use crate::wire::file::{Geometry, OpenFileReply, TYPE_DISK, flags};
use crate::wire::io::{Direction, IO_LEN, Io};
use crate::wire::query;
use crate::{Mode, NfcDisk};

pub(super) const CAPACITY: u64 = 64 << 20;
pub(super) const CHUNK: u64 = 64 * 1024;

/// What the server does besides answering.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Habits {
    /// Hangs up after so many bytes from the client.
    pub(super) stop_after_received: Option<usize>,
    /// Hangs up after so many bytes to the client.
    pub(super) stop_after_sent: Option<usize>,
    /// Falls silent, but stays, after so many bytes to the client.
    pub(super) stall_after_sent: Option<usize>,
    /// Time that every byte to the client takes.
    pub(super) per_byte: Duration,
    /// Answers a write before its data has come.
    pub(super) confirms_early: bool,
    /// Reports an error instead of answering the read at this offset.
    pub(super) bad_sector: Option<u64>,
    /// Never answers a read at this offset, and answers everything else.
    pub(super) forgets: Option<u64>,
    /// Answers a read at this offset a second late, and with an error when the disk is closed before.
    pub(super) defers: Option<u64>,
}

/// Which message a byte belongs to: where each one ends, counted from the start of its direction.
#[derive(Debug, Default)]
pub(super) struct Marks {
    pub(super) received: Vec<(usize, Phase)>,
    pub(super) sent: Vec<(usize, Phase)>,
}

pub(super) struct Server {
    stream: DuplexStream,
    habits: Habits,
    received: usize,
    sent: usize,
    /// The read that is answered late.
    deferred: Option<(Header, Io)>,
    pub(super) marks: Marks,
}

impl Server {
    pub(super) fn new(stream: DuplexStream, habits: Habits) -> Self {
        Self { stream, habits, received: 0, sent: 0, deferred: None, marks: Marks::default() }
    }

    /// Serves until the client is gone or a habit ends it.
    pub(super) async fn run(mut self) -> Marks {
        let _ = self.serve().await;
        self.marks
    }

    async fn serve(&mut self) -> io::Result<()> {
        loop {
            let bytes: [u8; MESSAGE_LEN] = self.take(Phase::SessionStart).await?;
            let answer = match Message::decode(&bytes) {
                Message::SessionParameters => Message::SessionReady { version_follows: 1 },
                Message::Version(_) => Message::Version(11),
                Message::ConnectionData { name_len, operation_id_len } => {
                    self.bytes((name_len + operation_id_len) as usize, Phase::SessionStart).await?;
                    continue;
                }
                Message::AioOpen => Message::AioOpen,
                _ => continue,
            };
            self.send(&answer.encode().unwrap(), Phase::SessionStart).await?;
            if answer == Message::AioOpen {
                break;
            }
        }
        loop {
            let Some(header) = self.header().await? else { continue };
            self.marks.received.pop();
            if header.kind == Kind::CloseFile
                && let Some((read, _)) = self.deferred.take()
            {
                self.fail(&read, "the disk is closed").await?;
            }
            let phase = match header.kind {
                Kind::OpenFile => Phase::OpenFile,
                Kind::DdbGet => Phase::Metadata,
                Kind::QueryAllocated => Phase::QueryAllocated,
                Kind::CloseFile | Kind::CloseSession => Phase::Close,
                Kind::Io => Phase::Read,
                _ => Phase::OpenSession,
            };
            if header.kind == Kind::Io {
                self.io(&header).await?;
                continue;
            }
            let payload = self.bytes(header.size as usize, phase).await?;
            let (reply, extra) = self.answer(header.kind, &payload).await?;
            self.send(&message(header.kind, header.op_id, &reply, &extra), phase).await?;
            if header.kind == Kind::CloseSession {
                break;
            }
        }
        self.take::<MESSAGE_LEN>(Phase::Close).await?;
        Ok(())
    }

    /// Payload and extra of the reply to a message that moves no data.
    async fn answer(&mut self, kind: Kind, payload: &[u8]) -> io::Result<(Vec<u8>, Vec<u8>)> {
        Ok(match kind {
            Kind::OpenFile => {
                let path_len = u32::from_le_bytes(payload[..4].try_into().unwrap());
                self.bytes(path_len as usize, Phase::OpenFile).await?;
                let reply = OpenFileReply {
                    handle: 0xA1_B2C3,
                    file_type: TYPE_DISK,
                    flags: flags::READ_WRITE,
                    capacity: CAPACITY,
                    sector_size: 512,
                    geometry: Geometry::for_capacity(CAPACITY),
                };
                (reply.encode().to_vec(), Vec::new())
            }
            Kind::DdbGet => {
                let get = query::DdbGet::decode(payload.try_into().unwrap()).unwrap();
                self.bytes(get.key_len as usize, Phase::Metadata).await?;
                (query::encode_ddb_reply(8).to_vec(), b"lsilogic".to_vec())
            }
            Kind::QueryAllocated => {
                let query = query::AllocationQuery::decode(payload.try_into().unwrap());
                (
                    query::encode_allocation_reply(query.count).to_vec(),
                    query::bitmap_of(&query, std::slice::from_ref(&(0..CHUNK))),
                )
            }
            _ => (payload.to_vec(), Vec::new()),
        })
    }

    async fn io(&mut self, header: &Header) -> io::Result<()> {
        let mut bytes = [0; IO_LEN];
        bytes.copy_from_slice(&self.bytes(IO_LEN, Phase::Read).await?);
        let io = Io::decode(&bytes).unwrap();
        if io.direction == Direction::Write {
            self.marks.received.pop();
            let reply = message(
                Kind::Io,
                header.op_id,
                &Io { wire_len: io.total, fragment_len: io.total, fragment_offset: 0, ..io }.encode(),
                b"",
            );
            if self.habits.confirms_early {
                self.send(&reply, Phase::Write).await?;
            }
            self.bytes(io.wire_len as usize, Phase::Write).await?;
            if io.fragment_offset + io.fragment_len == io.total && !self.habits.confirms_early {
                self.send(&reply, Phase::Write).await?;
            }
            return Ok(());
        }
        if self.habits.forgets == Some(io.offset) {
            return Ok(());
        }
        if self.habits.bad_sector == Some(io.offset) {
            return self.fail(header, "medium error").await;
        }
        if self.habits.defers == Some(io.offset) {
            self.deferred = Some((*header, io));
            return Ok(());
        }
        self.read(header, &io).await
    }

    /// The next header; `None` when the late read was answered instead of waiting for one.
    async fn header(&mut self) -> io::Result<Option<Header>> {
        let late = self.deferred.take();
        let header = match late {
            None => self.take::<HEADER_LEN>(Phase::Idle).await,
            // Headers come whole: none is lost to the clock.
            Some((read, io)) => {
                match tokio::time::timeout(Duration::from_secs(1), self.take::<HEADER_LEN>(Phase::Idle)).await {
                    Err(_) => return self.read(&read, &io).await.map(|()| None),
                    Ok(header) => {
                        self.deferred = Some((read, io));
                        header
                    }
                }
            }
        };
        Ok(Some(Header::decode(&header?).unwrap()))
    }

    /// Reports an error instead of an answer to the read.
    async fn fail(&mut self, read: &Header, text: &str) -> io::Result<()> {
        let (payload, extra) = crate::Fault::new(1, 42, text).encode(crate::wire::fault::Layout::default());
        self.send(&message(Kind::Error, read.op_id, &payload, &extra), Phase::Read).await
    }

    /// Answers a read.
    async fn read(&mut self, header: &Header, io: &Io) -> io::Result<()> {
        // Two fragments, the second first.
        let half = io.total / 1024 * 512;
        for (fragment_offset, fragment_len) in [(half, io.total - half), (0, half)] {
            if fragment_len > 0 {
                let reply = Io {
                    handle: 0,
                    fragment_offset,
                    fragment_len,
                    wire_len: fragment_len,
                    compression: Compression::None,
                    ..*io
                };
                let data = content(io.offset + u64::from(fragment_offset), fragment_len as usize);
                self.send(&message(Kind::Io, header.op_id, &reply.encode(), &data), Phase::Read).await?;
            }
        }
        Ok(())
    }

    async fn take<const N: usize>(&mut self, phase: Phase) -> io::Result<[u8; N]> {
        let bytes = self.bytes(N, phase).await?;
        bytes.try_into().map_err(|_| io::ErrorKind::UnexpectedEof.into())
    }

    async fn bytes(&mut self, len: usize, phase: Phase) -> io::Result<Vec<u8>> {
        let left = self.habits.stop_after_received.map_or(len, |limit| len.min(limit - self.received));
        let mut bytes = vec![0; left];
        self.stream.read_exact(&mut bytes).await?;
        self.received += left;
        if self.habits.stop_after_received == Some(self.received) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.marks.received.push((self.received, phase));
        Ok(bytes)
    }

    async fn send(&mut self, bytes: &[u8], phase: Phase) -> io::Result<()> {
        let allowed = |limit: Option<usize>| limit.map_or(bytes.len(), |limit| bytes.len().min(limit - self.sent));
        let left = allowed(self.habits.stop_after_sent).min(allowed(self.habits.stall_after_sent));
        if self.habits.per_byte.is_zero() {
            self.stream.write_all(&bytes[..left]).await?;
        } else {
            for byte in &bytes[..left] {
                tokio::time::sleep(self.habits.per_byte).await;
                self.stream.write_all(&[*byte]).await?;
            }
        }
        self.sent += left;
        if self.habits.stop_after_sent == Some(self.sent) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if self.habits.stall_after_sent == Some(self.sent) {
            // Takes what comes, until the client is gone.
            tokio::io::copy(&mut self.stream, &mut tokio::io::sink()).await?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.marks.sent.push((self.sent, phase));
        Ok(())
    }
}

/// The disk's content: every sector is told by its number.
pub(super) fn content(offset: u64, len: usize) -> Vec<u8> {
    (offset..offset + len as u64).map(|at| (at / 512) as u8).collect()
}

/// A source without tickets that counts how often it was asked.
#[derive(Debug, Default)]
pub(super) struct NoTickets(AtomicU32);

impl NoTickets {
    pub(super) fn asked(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

impl TicketSource for NoTickets {
    fn ticket(&self) -> BoxFuture<'_, Result<Ticket, TicketError>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Err(TicketError::new("no second ticket", false)) })
    }
}

/// A client's stream: the end of the connection is the end, or a reset.
struct Line {
    stream: DuplexStream,
    resets: bool,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Fin,
    Rst,
}

/// Opens the server's disk over a stream that holds `pipe` bytes in each direction.
pub(super) async fn open(
    habits: Habits,
    end: End,
    pipe: usize,
    mode: Mode,
    options: &NfcOptions,
) -> (Result<NfcDisk>, Arc<NoTickets>, Arc<Mutex<Option<Marks>>>) {
    let (near, far) = tokio::io::duplex(pipe);
    let marks = Arc::<Mutex<Option<Marks>>>::default();
    let told = Arc::clone(&marks);
    tokio::spawn(async move {
        let seen = Server::new(far, habits).run().await;
        *told.lock().unwrap() = Some(seen);
    });
    let (reader, writer) = tokio::io::split(Line { stream: near, resets: end == End::Rst });
    let dialled =
        Dialled { reader: Box::new(reader), writer: Box::new(writer), send_client_random: true, tls_version: None };
    let path: Arc<str> = "[ds1] web/web.vmdk".into();
    let tickets = Arc::<NoTickets>::default();
    let blame = Blame::new("esx1", 902, &path);
    let target = Target { tickets: Arc::clone(&tickets) as _, path, mode, options: options.clone() };
    let setup = Setup { rung: Rung::Full, buffers: options.buffers };
    let disk = Connection::start(blame, dialled, &target, &setup, &mut Found::default()).await.and_then(|connection| {
        let ranges = Arc::<RangeLock>::default();
        NfcDisk::over(line::Line::over(connection, target, Arc::clone(&ranges)), ranges)
    });
    (disk, tickets, marks)
}

/// The phase of a lost connection, also behind a doubt about a write.
pub(super) fn lost_in(error: &Error) -> Option<Phase> {
    match error {
        Error::Disconnected { phase, .. } => Some(*phase),
        Error::WriteInDoubt { source, .. } => lost_in(source),
        _ => None,
    }
}

/// Waits until all tasks are gone but the caller's own.
pub(super) async fn assert_no_tasks_left() {
    let metrics = tokio::runtime::Handle::current().metrics();
    for _ in 0..100 {
        if metrics.num_alive_tasks() == 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{} tasks are still there", metrics.num_alive_tasks());
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if self.resets && buf.filled().len() == before && buf.remaining() > 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let resets = self.resets;
        Pin::new(&mut self.stream).poll_write(cx, bytes).map_err(|error| match resets {
            true => io::ErrorKind::ConnectionReset.into(),
            false => error,
        })
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
