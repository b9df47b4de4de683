//! A TCP stream that counts its bytes and is cut off where the configuration says.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::config::Cut;

/// The stream below both TLS sessions.
#[derive(Debug)]
pub(super) struct Metered {
    tcp: TcpStream,
    cut: Option<Cut>,
    reset: bool,
    sent: u64,
    received: u64,
}

impl Metered {
    pub(super) fn new(tcp: TcpStream, cut: Option<Cut>, reset: bool) -> Self {
        Self { tcp, cut, reset, sent: 0, received: 0 }
    }

    /// How many bytes may still pass before the cut.
    fn left(&self) -> (u64, u64) {
        match self.cut {
            None => (u64::MAX, u64::MAX),
            Some(Cut::Sent(limit)) if self.sent < limit => (limit - self.sent, u64::MAX),
            Some(Cut::Received(limit)) if self.received < limit => (u64::MAX, limit - self.received),
            Some(_) => (0, 0),
        }
    }

    fn cut_off(&self) -> io::Error {
        if self.reset {
            // Fails only on a socket that is gone already.
            let _ = self.tcp.set_zero_linger();
        }
        io::Error::new(io::ErrorKind::ConnectionAborted, "cut off by configuration")
    }
}

impl AsyncRead for Metered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (_, left) = this.left();
        if left == 0 {
            return Poll::Ready(Err(this.cut_off()));
        }
        let limit = usize::try_from(left).unwrap_or(usize::MAX).min(buf.remaining());
        let part = buf.initialize_unfilled_to(limit);
        let mut part = ReadBuf::new(part);
        ready!(Pin::new(&mut this.tcp).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buf.advance(read);
        this.received += read as u64;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let (left, _) = this.left();
        if left == 0 {
            return Poll::Ready(Err(this.cut_off()));
        }
        let limit = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let written = ready!(Pin::new(&mut this.tcp).poll_write(cx, &bytes[..limit]))?;
        this.sent += written as u64;
        Poll::Ready(Ok(written))
    }

    /// TLS hands over many records at once: one system call for all of them, but where a cut has to be exact.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.cut.is_some() {
            let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            return self.poll_write(cx, first);
        }
        let written = ready!(Pin::new(&mut self.tcp).poll_write_vectored(cx, slices))?;
        self.sent += written as u64;
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}
