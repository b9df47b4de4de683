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

use super::{Upload, later};

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
        if left == Some(0) {
            watch.set(Phase::Sent(Instant::now()));
        }
        Self { upload, left, rest: Bytes::new(), chunked, watch }
    }

    /// The next frame's bytes: small pieces, so that progress shows while a large one is sent.
    fn cut(&mut self) -> Bytes {
        let frame = self.rest.split_to(self.rest.len().min(FRAME));
        let now = Instant::now();
        // After the stated length hyper asks no more.
        let last = self.rest.is_empty() && (self.upload.is_none() || self.left == Some(0));
        self.watch.set(if last { Phase::Sent(now) } else { Phase::Sending(now) });
        frame
    }

    /// The frame at hand is the last one, and the source has not said so yet.
    fn is_at_stated_end(&self) -> bool {
        self.left == Some(0) && self.rest.len() <= FRAME && self.upload.is_some()
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
            let at_end = this.is_at_stated_end();
            if !this.rest.is_empty() && !at_end {
                return Poll::Ready(Some(Ok(Frame::data(this.cut()))));
            }
            let Some(upload) = &mut this.upload else { return Poll::Ready(None) };
            let polled = upload.source.as_mut().poll_next(cx);
            if polled.is_pending() {
                if !this.rest.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(this.cut()))));
                }
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
                    if !piece.is_empty() {
                        this.rest = piece;
                    }
                }
                Some(Err(error)) => return this.fail(error),
                None => {
                    if let Some(left) = this.left.filter(|left| *left > 0) {
                        let why = format!("the source ended {left} bytes early");
                        return this.fail(io::Error::new(io::ErrorKind::UnexpectedEof, why));
                    }
                    this.upload = None;
                    if this.rest.is_empty() {
                        this.watch.set(Phase::Sent(Instant::now()));
                    }
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
            Phase::Sending(since) => (later(since, idle), "the server takes no more data"),
            Phase::Waiting => (later(Instant::now(), idle), "the source of the data is silent"),
            Phase::Sent(since) => (later(since, head), "no answer"),
        }
    }

    /// Everything was handed to the network.
    pub(super) fn is_sent(&self) -> bool {
        matches!(self.lock().phase, Phase::Sent(_))
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

#[cfg(test)]
mod tests {
    use std::{
        io,
        pin::pin,
        sync::Arc,
        task::{Context, Waker},
    };

    use bytes::Bytes;
    use futures_util::{StreamExt as _, stream};
    use hyper::body::Body as _;

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);
    const HEAD: Duration = Duration::from_secs(150);

    fn pieces(lens: &[usize]) -> impl futures_core::Stream<Item = io::Result<Bytes>> + Send + 'static {
        stream::iter(lens.iter().map(|len| Ok(Bytes::from(vec![7; *len]))).collect::<Vec<_>>())
    }

    /// What hyper takes: it asks no more once it has the stated length.
    fn take(upload: Upload, stated: usize) -> (Result<usize, io::Error>, &'static str, bool) {
        let watch = Arc::new(Watch::new());
        let mut body = pin!(Outgoing::new(Some(upload), false, Arc::clone(&watch)));
        let mut taken = 0;
        while taken < stated {
            match body.as_mut().poll_frame(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(Ok(frame))) => taken += frame.into_data().unwrap().len(),
                Poll::Ready(Some(Err(error))) => return (Err(error), "", false),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        (Ok(taken), watch.due(HEAD, IDLE).1, watch.is_sent())
    }

    #[test]
    fn what_was_stated_is_sent_and_then_the_answer_is_due() {
        for lens in [&[10][..], &[FRAME], &[FRAME + 1, 5], &[0, 3, 0, 4, 0], &[3 * FRAME]] {
            let stated = lens.iter().sum::<usize>();
            for source in [pieces(lens).boxed(), pieces(lens).chain(stream::pending()).boxed()] {
                let (taken, due, sent) = take(Upload::new(stated as u64, source), stated);
                assert_eq!((taken.unwrap(), due, sent), (stated, "no answer", true), "{lens:?}");
            }
        }
    }

    #[test]
    fn a_source_that_goes_on_after_the_stated_length_is_an_error() {
        for lens in [&[10, 1][..], &[FRAME, FRAME], &[FRAME + 5, 0, 1]] {
            let stated = lens[0];
            let (taken, ..) = take(Upload::new(stated as u64, pieces(lens)), stated);
            assert_eq!(taken.unwrap_err().to_string(), "the source yields more bytes than were stated", "{lens:?}");
        }
    }
}
