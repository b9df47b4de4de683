//! Requests and replies of a connection: many in flight, bounded in number and bytes.
//!
//! One task reads requests, each request has a task of its own, and one task writes replies in the order in which they
//! are ready. A request takes its permits before its data is read and gives them up when its reply is written, so a
//! client that sends and does not listen stops itself.

use std::{io, sync::Arc};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, BufWriter},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    commands,
    export::OpenExport,
    limits::NbdLimits,
    wire::{
        Errno,
        negotiation::Modes,
        reply::{Outcome, encode},
        request::{Command, Refusal, RequestHeader},
    },
};

/// Serves requests until the client leaves or `stop` becomes true; then finishes those under way.
///
/// # Errors
/// What ended the connection, other than a goodbye.
pub(super) async fn serve(
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Send + Unpin + 'static,
    export: Arc<OpenExport>,
    modes: Modes,
    limits: &NbdLimits,
    stop: &mut watch::Receiver<bool>,
) -> io::Result<()> {
    let (replies, queue) = mpsc::unbounded_channel();
    let mut requests = Requests {
        reader: BufReader::with_capacity(BUFFER, reader),
        export,
        modes,
        count: Arc::new(Semaphore::new(permits(limits.requests))),
        memory: Arc::new(Semaphore::new(permits(limits.memory))),
        replies,
        tasks: JoinSet::new(),
    };
    // In a set, so that it ends with this function however that ends.
    let mut writing = JoinSet::new();
    writing.spawn(write_replies(writer, queue));
    let mut written = None;
    let received = tokio::select! {
        received = requests.receive() => received,
        _ = stop.wait_for(|stopped| *stopped) => Ok(()),
        done = writing.join_next() => { written = done; Ok(()) }
    };
    // What was begun is finished, also for a client that has gone: half a write helps nobody.
    while requests.tasks.join_next().await.is_some() {}
    drop(requests);
    if written.is_none() {
        // Who sends nothing more and does not listen either has no right to his place.
        written = timeout(limits.stop, writing.join_next()).await.map_err(|_| io::ErrorKind::TimedOut)?;
    }
    received.and(written.unwrap_or(Ok(Ok(()))).unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into())))
}

/// The receiving half of a connection.
struct Requests<R> {
    reader: BufReader<R>,
    export: Arc<OpenExport>,
    modes: Modes,
    count: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    replies: mpsc::UnboundedSender<Reply>,
    tasks: JoinSet<()>,
}

impl<R: AsyncRead + Unpin> Requests<R> {
    /// Reads requests and begins to carry them out, until the client says goodbye or hangs up between two of them.
    async fn receive(&mut self) -> io::Result<()> {
        let mut header = [0; RequestHeader::LEN];
        loop {
            if self.reader.read(&mut header[..1]).await? == 0 {
                return Ok(());
            }
            self.reader.read_exact(&mut header[1..]).await?;
            let request = RequestHeader::decode(&header)
                .map_err(|problem| io::Error::new(io::ErrorKind::InvalidData, problem))?;
            if request.is_goodbye() {
                return Ok(());
            }
            self.accept(&request).await?;
            while self.tasks.try_join_next().is_some() {}
        }
    }

    async fn accept(&mut self, request: &RequestHeader) -> io::Result<()> {
        let Some(count) = acquire(&self.count, 1).await else { return Ok(()) };
        let mut pending = Pending {
            cookie: request.cookie,
            structured: self.modes.structured,
            replies: self.replies.clone(),
            permits: vec![count],
        };
        match request.check(&self.export.facts, self.modes) {
            Ok(command) => {
                pending.permits.extend(acquire(&self.memory, commands::memory(&command)).await);
                let mut data = vec![0; usize::try_from(request.payload()).unwrap_or(usize::MAX)];
                self.reader.read_exact(&mut data).await?;
                self.tasks.spawn(carry_out(Arc::clone(&self.export), command, data.into(), pending));
            }
            Err(refusal) => {
                self.skip(request.payload()).await?;
                pending.finish(Outcome::Failed(refusal));
            }
        }
        Ok(())
    }

    /// Reads the data of a write that is refused.
    async fn skip(&mut self, len: u32) -> io::Result<()> {
        let mut data = (&mut self.reader).take(u64::from(len));
        if tokio::io::copy(&mut data, &mut tokio::io::sink()).await? < u64::from(len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

async fn carry_out(export: Arc<OpenExport>, command: Command, data: Bytes, pending: Pending) {
    let outcome = commands::carry_out(&export.volume, command, data).await;
    // Before the reply: whoever has all replies may want the device for himself.
    drop(export);
    pending.finish(outcome);
}

/// A request that has no reply yet. However its task ends, the client gets one.
struct Pending {
    cookie: u64,
    structured: bool,
    replies: mpsc::UnboundedSender<Reply>,
    /// Empty when the reply is on its way.
    permits: Vec<OwnedSemaphorePermit>,
}

impl Pending {
    fn finish(mut self, outcome: Outcome) {
        self.reply(outcome);
    }

    fn reply(&mut self, outcome: Outcome) {
        let buffers = encode(outcome, self.cookie, self.structured);
        // Nobody writes it when the client is gone.
        let _ = self.replies.send(Reply { buffers, _permits: std::mem::take(&mut self.permits) });
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.permits.is_empty() {
            self.reply(Outcome::Failed(Refusal::new(Errno::Io, "the server gave the request up")));
        }
    }
}

/// A reply, and what its request holds until it is written.
struct Reply {
    buffers: Vec<Bytes>,
    _permits: Vec<OwnedSemaphorePermit>,
}

async fn write_replies(
    writer: impl AsyncWrite + Send + Unpin,
    mut queue: mpsc::UnboundedReceiver<Reply>,
) -> io::Result<()> {
    let mut writer = BufWriter::with_capacity(BUFFER, writer);
    while let Some(first) = queue.recv().await {
        let mut next = Some(first);
        while let Some(reply) = next {
            for buffer in &reply.buffers {
                writer.write_all(buffer).await?;
            }
            next = queue.try_recv().ok();
        }
        writer.flush().await?;
    }
    writer.shutdown().await
}

/// `None` only if the semaphore were closed, which nobody does.
async fn acquire(semaphore: &Arc<Semaphore>, permits: u32) -> Option<OwnedSemaphorePermit> {
    Arc::clone(semaphore).acquire_many_owned(permits).await.ok()
}

fn permits(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}

/// Small requests and replies travel together; data of at least this length is not copied into it.
const BUFFER: usize = 64 << 10;
