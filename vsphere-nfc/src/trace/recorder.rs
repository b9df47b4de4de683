//! Listens to connections as they are made.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::Frames;
use super::{Side, Trace};
use crate::dial::{ReadHalf, WriteHalf};

/// The most messages of a connection that are kept.
const MAX_EVENTS: usize = 4096;
/// The most connections that are kept.
const MAX_TRACES: usize = 256;

/// Keeps what is said on every connection that is made with its options: see [the module](crate::trace).
///
/// Clones share what was kept. Memory is bounded: data is not kept, and of each connection the first 4096 messages.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Vec<Arc<Mutex<Conversation>>>>>);

#[derive(Debug)]
struct Conversation {
    trace: Trace,
    client: Frames,
    server: Frames,
}

impl Recorder {
    /// A recorder that has heard nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was said so far, a trace for each connection, in the order in which they were made.
    pub fn traces(&self) -> Vec<Trace> {
        locked(&self.0).iter().map(|conversation| locked(conversation).trace.clone()).collect()
    }

    /// Listens to both halves of a connection that was handed over.
    pub(crate) fn listen(&self, reader: ReadHalf, writer: WriteHalf) -> (ReadHalf, WriteHalf) {
        let mut all = locked(&self.0);
        if all.len() >= MAX_TRACES {
            return (reader, writer);
        }
        let conversation = Arc::new(Mutex::new(Conversation {
            trace: Trace::default(),
            client: Frames::new(Side::Client),
            server: Frames::new(Side::Server),
        }));
        all.push(Arc::clone(&conversation));
        (Box::new(ReadTee { reader, to: Arc::clone(&conversation) }), Box::new(WriteTee { writer, to: conversation }))
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("traces", &locked(&self.0).len()).finish()
    }
}

impl Conversation {
    fn hear(&mut self, from: Side, bytes: &[u8]) {
        let Self { trace, client, server } = self;
        if trace.cut_short {
            return;
        }
        let frames = if from == Side::Client { client } else { server };
        let heard = frames.feed(bytes, |event| {
            if trace.events.len() < MAX_EVENTS {
                trace.events.push(event);
            }
        });
        if let Err(error) = &heard {
            tracing::debug!(%error, ?from, "the rest of the conversation is not recorded");
        }
        trace.cut_short = heard.is_err() || trace.events.len() >= MAX_EVENTS;
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held; if it did, what was kept is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Passes on what the server says.
struct ReadTee {
    reader: ReadHalf,
    to: Arc<Mutex<Conversation>>,
}

/// Passes on what the client says.
struct WriteTee {
    writer: WriteHalf,
    to: Arc<Mutex<Conversation>>,
}

impl AsyncRead for ReadTee {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.reader).poll_read(cx, buf))?;
        locked(&this.to).hear(Side::Server, buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WriteTee {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // Held while the bytes go out: the answer, which another thread reads, must not be heard before them.
        let mut to = locked(&this.to);
        let written = ready!(Pin::new(&mut this.writer).poll_write(cx, bytes))?;
        to.hear(Side::Client, bytes.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().writer).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().writer).poll_shutdown(cx)
    }
}
