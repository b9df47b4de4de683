//! A body on its way to the server, and the watch over its progress.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::Upload;

/// The body of a request under hyper's trait.
pub(super) struct Outgoing {
    upload: Option<Upload>,
    /// Bytes still to come, when that was stated.
    left: Option<u64>,
    /// A piece that was too large for one frame.
    rest: Bytes,
    chunked: bool,
    watch: Arc<Watch>,
}

impl Outgoing {
    pub(super) fn new(upload: Option<Upload>, chunked: bool, watch: Arc<Watch>) -> Self {
        let left = match &upload {
            Some(upload) => upload.len(),
            None => Some(0),
        };
        if upload.is_none() {
            watch.set(Phase::Sent(Instant::now()));
        }
        Self { upload, left, rest: Bytes::new(), chunked, watch }
    }

    /// The next frame's bytes: small pieces, so that progress shows while a large one is sent.
    fn cut(&mut self) -> Bytes {
        self.watch.set(Phase::Sending(Instant::now()));
        self.rest.split_to(self.rest.len().min(FRAME))
    }

    fn fail(&mut self, error: io::Error) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.upload = None;
        let text = error.to_string();
        self.watch.lock().failure = Some(error);
        Poll::Ready(Some(Err(io::Error::other(text))))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        loop {
            if !this.rest.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(this.cut()))));
            }
            let Some(upload) = &mut this.upload else { return Poll::Ready(None) };
            let polled = upload.source.as_mut().poll_next(cx);
            if polled.is_pending() {
                // The source is slow; that is not the network's fault.
                this.watch.set(Phase::Waiting);
            }
            match ready!(polled) {
                Some(Ok(piece)) => {
                    if let Some(left) = this.left {
                        let Some(left) = left.checked_sub(piece.len() as u64) else {
                            let why = "the source yields more bytes than were stated";
                            return this.fail(io::Error::new(io::ErrorKind::InvalidData, why));
                        };
                        this.left = Some(left);
                    }
                    this.rest = piece;
                }
                Some(Err(error)) => return this.fail(error),
                None => {
                    if let Some(left) = this.left.filter(|left| *left > 0) {
                        let why = format!("the source ended {left} bytes early");
                        return this.fail(io::Error::new(io::ErrorKind::UnexpectedEof, why));
                    }
                    this.upload = None;
                    this.watch.set(Phase::Sent(Instant::now()));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.upload.is_none() && self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            Some(left) if !self.chunked => SizeHint::with_exact(left + self.rest.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

/// What is known of the body's progress, shared with whoever waits for the answer.
#[derive(Debug)]
pub(super) struct Watch {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    failure: Option<io::Error>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The network has had a piece since then.
    Sending(Instant),
    /// The source has nothing at the moment.
    Waiting,
    /// All is sent; the answer is due.
    Sent(Instant),
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State { phase: Phase::Sending(Instant::now()), failure: None }) }
    }

    /// When the server's silence becomes an error, as things stand.
    pub(super) fn due(&self, head: Duration, idle: Duration) -> (Instant, &'static str) {
        match self.lock().phase {
            Phase::Sending(since) => (since + idle, "the server takes no more data"),
            Phase::Waiting => (Instant::now() + idle, "the source of the data is silent"),
            Phase::Sent(since) => (since + head, "no answer"),
        }
    }

    /// Why the source failed, if it did.
    pub(super) fn failure(&self) -> Option<io::Error> {
        self.lock().failure.take()
    }

    fn set(&self, phase: Phase) {
        self.lock().phase = phase;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Most bytes in one frame.
const FRAME: usize = 64 << 10;
