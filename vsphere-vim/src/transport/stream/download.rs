//! A body on its way from the server.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_core::Stream;
use hyper::body::{Body as _, Incoming};
use tokio::{
    task::JoinHandle,
    time::{Instant, Sleep, sleep_until},
};

use super::later;
use crate::transport::{TransportError, TransportErrorKind};

/// The body of an answer. Its connection ends with it.
pub(super) struct Download {
    body: Option<Incoming>,
    idle: Duration,
    deadline: Option<Instant>,
    /// Runs while the network has nothing for a consumer that waits.
    timer: Option<Pin<Box<Sleep>>>,
    _connection: Connection,
}

/// The task that drives a connection; it ends with this value.
pub(super) struct Connection(pub(super) JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Download {
    pub(super) fn new(body: Incoming, idle: Duration, deadline: Option<Instant>, connection: Connection) -> Self {
        Self { body: Some(body), idle, deadline, timer: None, _connection: connection }
    }

    fn end(&mut self, error: TransportError) -> Poll<Option<Result<Bytes, TransportError>>> {
        self.body = None;
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
                        Ok(data) if !data.is_empty() => return Poll::Ready(Some(Ok(data))),
                        // Trailers mean nothing here.
                        _ => {}
                    }
                }
                Poll::Ready(None) => {
                    this.body = None;
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
