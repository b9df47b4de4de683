//! Lets hyper drive a tokio stream.
//!
//! hyper has its own I/O traits; `hyper-util` bridges them with `unsafe` code. This bridge copies each read once
//! more through a buffer of its own (16 KiB, a TLS record), which costs nothing beside the decryption, and needs
//! neither the dependency nor `unsafe`.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A tokio stream under hyper's traits.
pub(super) struct HyperIo<S> {
    stream: S,
    scratch: Box<[u8]>,
}

impl<S> HyperIo<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, scratch: vec![0; SCRATCH].into_boxed_slice() }
    }
}

impl<S: AsyncRead + Unpin> hyper::rt::Read for HyperIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut target: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let room = target.remaining().min(this.scratch.len());
        let mut buffer = ReadBuf::new(&mut this.scratch[..room]);
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer))?;
        target.put_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> hyper::rt::Write for HyperIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, parts)
    }
}

const SCRATCH: usize = 16 * 1024;
