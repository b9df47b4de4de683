//! The asynchronous twins write the same bytes and read the same grains.

use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use bytes::Bytes;
use vmdk::{
    Cid, Error,
    stream::{
        AsyncSink, AsyncSource, AsyncStreamReader, AsyncStreamWriter, GrainOrder, StreamEnd, StreamSpec, StreamWriter,
    },
};

use super::ODD;
use crate::support::holey;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T> + Send) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::park(),
        }
    }
}

/// Not ready when it is asked first.
async fn wait() {
    let mut is_asked = false;
    poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::replace(&mut is_asked, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// A sink with room for so many bytes.
struct Slow(Vec<u8>, usize);

impl AsyncSink for Slow {
    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        wait().await;
        if self.0.len() + bytes.len() > self.1 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.extend(bytes);
        Ok(())
    }
}

struct Pieces(Vec<u8>, usize);

impl AsyncSource for Pieces {
    async fn read(&mut self) -> io::Result<Option<Bytes>> {
        wait().await;
        let end = (self.1 + 70_001).min(self.0.len());
        let piece = Bytes::copy_from_slice(&self.0[self.1..end]);
        self.1 = end;
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }
}

#[test]
fn both_twins_write_the_same_bytes_and_the_other_reads_them() {
    let disk = holey(ODD, 81);
    let spec = StreamSpec::new(ODD as u64).cid(Cid(1));
    let mut blocking = StreamWriter::new(Vec::new(), &spec).unwrap();
    blocking.write_at(0, &disk).unwrap();
    let expected = blocking.finish().unwrap();
    let stream = block_on(async {
        let mut writer = AsyncStreamWriter::new(Slow(Vec::new(), usize::MAX), &spec).await?;
        for (number, data) in disk.chunks(300_000).enumerate() {
            writer.write_at(number as u64 * 300_000, data).await?;
        }
        writer.finish().await
    });
    assert!(stream.unwrap().0 == expected);
    let (read, end) = block_on(async {
        let mut reader = AsyncStreamReader::open(Pieces(expected, 0), "stream", GrainOrder::Ascending).await.unwrap();
        let mut read = vec![0; reader.capacity() as usize];
        while let Some(grain) = reader.next_grain().await.unwrap() {
            read[grain.offset as usize..][..grain.data.len()].copy_from_slice(grain.data);
        }
        (read, reader.end())
    });
    assert!(read == disk);
    assert_eq!(end, Some(StreamEnd::Marked));
}

#[test]
fn a_torn_stream_does_not_go_on() {
    let spec = StreamSpec::new(ODD as u64);
    let refused = |outcome| matches!(outcome, Err(Error::Io { operation: "write", .. }));
    block_on(async {
        let mut writer = AsyncStreamWriter::new(Slow(Vec::new(), 100_000), &spec).await.unwrap();
        let data = holey(2 << 20, 82);
        assert!(refused(writer.write_at(0, &data).await));
        assert!(refused(writer.write_at(4 << 20, &data).await));
    });
    // A write that is dropped before its end tears the stream too.
    let mut writer = block_on(AsyncStreamWriter::new(Slow(Vec::new(), usize::MAX), &spec)).unwrap();
    let data = holey(2 << 20, 82);
    {
        let mut dropped = pin!(writer.write_at(0, &data));
        assert!(dropped.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    assert!(refused(block_on(writer.write_at(4 << 20, &data))));
}

#[test]
fn a_source_that_ends_early_is_an_error() {
    let spec = StreamSpec::new(1 << 20);
    let mut writer = StreamWriter::new(Vec::new(), &spec).unwrap();
    writer.write_at(0, &holey(1 << 20, 83)).unwrap();
    let mut stream = writer.finish().unwrap();
    stream.truncate(stream.len() - 1024);
    let outcome = block_on(async {
        let mut reader = AsyncStreamReader::open(Pieces(stream, 0), "stream", GrainOrder::Ascending).await?;
        while reader.next_grain().await?.is_some() {}
        Ok(())
    });
    assert!(matches!(outcome, Err(Error::Malformed { .. })), "{outcome:?}");
}
