//! Bodies of answers: whole, or piece by piece from a blocking producer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::files::Metered;
use crate::inject::Injection;

/// The body of an answer.
pub(super) enum Body {
    Full(Full<Bytes>),
    Piped(Piped),
}

/// Pieces from a producer, with what a test wants to go wrong.
pub(super) struct Piped {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    /// Bytes to come, when the answer says so.
    left: Option<u64>,
    /// The connection is closed after this many bytes.
    cut: Option<u64>,
    /// Nothing comes after this many bytes.
    stall: Option<u64>,
    metered: Option<Metered>,
}

impl Body {
    /// What `produce` sends, on a thread of its own; it stops when the client goes away.
    pub(super) fn piped(
        len: Option<u64>,
        injection: Option<&Injection>,
        produce: impl FnOnce(&mut dyn FnMut(Bytes) -> io::Result<()>) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let (sender, pieces) = mpsc::channel(4);
        tokio::task::spawn_blocking(move || {
            let mut send =
                |bytes| sender.blocking_send(Ok(bytes)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe));
            if let Err(error) = produce(&mut send) {
                // The client is gone, or learns of the failure by a broken connection.
                let _ = sender.blocking_send(Err(error));
            }
        });
        let (cut, stall) = match injection {
            Some(Injection::CutBody(bytes)) => (Some(*bytes), None),
            Some(Injection::StallBody(bytes)) => (None, Some(*bytes)),
            _ => (None, None),
        };
        Self::Piped(Piped { pieces, left: len, cut, stall, metered: None })
    }

    /// Counts what is sent of it, and that it is being sent.
    pub(super) fn metered(self, metered: Metered) -> Self {
        match self {
            Self::Piped(piped) => Self::Piped(Piped { metered: Some(metered), ..piped }),
            Self::Full(full) => {
                metered.add(full.size_hint().exact().unwrap_or(0));
                Self::Full(full)
            }
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piped = match self.get_mut() {
            Self::Full(full) => return Pin::new(full).poll_frame(cx).map_err(|never| match never {}),
            Self::Piped(piped) => piped,
        };
        if piped.stall == Some(0) {
            return Poll::Pending;
        }
        if piped.cut == Some(0) {
            return Poll::Ready(Some(Err(io::Error::other("cut on purpose"))));
        }
        piped.pieces.poll_recv(cx).map(|piece| {
            Some(piece?.map(|mut bytes| {
                for limit in [&mut piped.cut, &mut piped.stall].into_iter().flatten() {
                    bytes.truncate(usize::try_from(*limit).unwrap_or(usize::MAX));
                    *limit -= bytes.len() as u64;
                }
                piped.left = piped.left.map(|left| left.saturating_sub(bytes.len() as u64));
                if let Some(metered) = &piped.metered {
                    metered.add(bytes.len() as u64);
                }
                Frame::data(bytes)
            }))
        })
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(full) => full.is_end_stream(),
            Self::Piped(piped) => piped.left == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(full) => full.size_hint(),
            Self::Piped(piped) => piped.left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
