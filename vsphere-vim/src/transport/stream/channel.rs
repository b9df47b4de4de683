//! An upload that is fed from elsewhere, piece by piece.

use std::io;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Upload, steps};

/// Feeds an [`Upload`]. Dropping it without [`finish`](Self::finish) fails the exchange: what was sent so far must not
/// look like all of it.
#[derive(Debug)]
#[must_use = "dropping it fails the upload"]
pub struct UploadSender {
    /// `None` says that nothing follows.
    pieces: mpsc::Sender<Option<Bytes>>,
}

impl UploadSender {
    /// Hands over the next bytes; waits while enough of them are on their way.
    ///
    /// # Errors
    /// [`io::ErrorKind::BrokenPipe`] when the exchange has ended; it says why.
    ///
    /// # Cancel safety
    /// A dropped future has handed over all of the bytes or none.
    pub async fn send(&self, bytes: impl Into<Bytes>) -> io::Result<()> {
        let sent = self.pieces.send(Some(bytes.into())).await;
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Says that nothing follows.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// A dropped future fails the exchange, unless it was understood already.
    pub async fn finish(self) -> io::Result<()> {
        self.pieces.send(None).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

pub(super) fn channel(len: Option<u64>, depth: usize) -> (UploadSender, Upload) {
    let (sender, pieces) = mpsc::channel::<Option<Bytes>>(depth.max(1));
    let source = steps(Some(pieces), |pieces| {
        Box::pin(async move {
            let Some(mut pieces) = pieces else { return (None, None) };
            match pieces.recv().await {
                Some(Some(bytes)) => (Some(pieces), Some(Ok(bytes))),
                Some(None) => (None, None),
                None => {
                    let why = "whoever feeds the upload gave it up";
                    (None, Some(Err(io::Error::new(io::ErrorKind::UnexpectedEof, why))))
                }
            }
        })
    });
    (UploadSender { pieces: sender }, Upload::new(len, source))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn next(upload: &mut Upload) -> Option<io::Result<Bytes>> {
        poll_fn(|cx| upload.source.as_mut().poll_next(cx)).await
    }

    #[tokio::test]
    async fn only_what_was_finished_comes_to_an_end() {
        for finished in [true, false] {
            let (sender, mut upload) = Upload::channel(Some(3), 2);
            sender.send("abc").await.unwrap();
            if finished {
                sender.finish().await.unwrap();
            } else {
                drop(sender);
            }
            assert_eq!(next(&mut upload).await.unwrap().unwrap(), "abc");
            match next(&mut upload).await {
                None => assert!(finished),
                Some(error) => {
                    assert_eq!((error.unwrap_err().kind(), finished), (io::ErrorKind::UnexpectedEof, false));
                }
            }
        }
    }

    #[tokio::test]
    async fn nobody_feeds_an_exchange_that_has_ended() {
        let (sender, upload) = Upload::channel(None, 1);
        drop(upload);
        assert_eq!(sender.send("x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
