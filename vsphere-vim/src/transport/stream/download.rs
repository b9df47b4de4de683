//! A body on its way from the server.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_core::Stream;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    kept::{Kept, Link},
    later,
};
use crate::transport::{TransportError, TransportErrorKind};

/// The body of an answer. Its connection is kept when it comes to its end, and ends with it otherwise.
pub(super) struct Download {
    body: Option<Incoming>,
    idle: Duration,
    deadline: Option<Instant>,
    /// Runs while the network has nothing for a consumer that waits.
    timer: Option<Pin<Box<Sleep>>>,
    link: Option<Link>,
    kept: Arc<Kept>,
}

impl Download {
    pub(super) fn new(body: Incoming, idle: Duration, deadline: Option<Instant>, link: Link, kept: Arc<Kept>) -> Self {
        let mut download = Self { body: Some(body), idle, deadline, timer: None, link: Some(link), kept };
        download.keep_at_end();
        download
    }

    /// Gives the connection back once nothing more comes over it. Consumers that know how much to expect do not ask
    /// for the end.
    fn keep_at_end(&mut self) {
        if self.body.as_ref().is_none_or(|body| body.is_end_stream()) {
            self.body = None;
            if let Some(link) = self.link.take() {
                self.kept.put(link);
            }
        }
    }

    fn end(&mut self, error: TransportError) -> Poll<Option<Result<Bytes, TransportError>>> {
        self.body = None;
        self.link = None;
        Poll::Ready(Some(Err(error)))
    }
}

impl Stream for Download {
    type Item = Result<Bytes, TransportError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            let Some(body) = &mut this.body else { return Poll::Ready(None) };
            match Pin::new(body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    this.timer = None;
                    if this.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                        return this
                            .end(TransportError::new(TransportErrorKind::Timeout, "the whole transfer took too long"));
                    }
                    match frame.into_data() {
                        Ok(data) if !data.is_empty() => {
                            this.keep_at_end();
                            return Poll::Ready(Some(Ok(data)));
                        }
                        // Trailers mean nothing here.
                        _ => {}
                    }
                }
                Poll::Ready(None) => {
                    this.body = None;
                    this.keep_at_end();
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(error))) => {
                    return this.end(TransportError::new(TransportErrorKind::Disconnected, error));
                }
                Poll::Pending => break,
            }
        }
        let (idle, deadline) = (this.idle, this.deadline);
        let timer = this.timer.get_or_insert_with(|| {
            let silence = later(Instant::now(), idle);
            Box::pin(sleep_until(deadline.map_or(silence, |deadline| deadline.min(silence))))
        });
        match timer.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                let text = format!("no further data within {} s", idle.as_secs_f32());
                this.end(TransportError::new(TransportErrorKind::Timeout, text))
            }
        }
    }
}
