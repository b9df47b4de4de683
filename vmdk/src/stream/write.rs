//! Writing a stream to a blocking sink, front to back.

use std::io::{self, Write};

use super::{
    PackedGrains, Packer, StreamEncoder, StreamSpec,
    assemble::{Assembler, Piece},
    crew::{Crew, default_threads},
    spec::Packing,
};
use crate::error::{Error, Result};

/// Writes a `streamOptimized` disk to a sink that cannot seek.
///
/// Data are given in ascending order; what is left out reads as zero, and grains of zeros take no space. Memory: a
/// piece of 512 KiB and its packed form, three of each for every [thread](Self::threads), and what a
/// [`StreamEncoder`] takes.
#[derive(Debug)]
pub struct StreamWriter<W> {
    sink: Sink<W>,
    packing: Packing,
    crew: Crew<'static, Piece, Result<Piece>>,
    assembler: Assembler,
    /// Some of the stream is missing: nothing may follow, least of all its end.
    is_torn: bool,
}

impl<W: Write> StreamWriter<W> {
    /// Begins a stream: writes its header and descriptor. Grains are packed by the calling thread.
    ///
    /// # Errors
    /// Those of [`StreamEncoder::new`] and of the sink.
    pub fn new(sink: W, spec: &StreamSpec) -> Result<Self> {
        let packing = spec.packing();
        Ok(Self {
            sink: Sink::new(sink, spec)?,
            crew: Crew::alone(packing_worker(packing)),
            assembler: Assembler::new(packing),
            packing,
            is_torn: false,
        })
    }

    /// Packs grains on this many threads of its own from now on; 0 stands for as many as the machine has. The stream
    /// is the same, byte for byte.
    ///
    /// The calling thread is not counted: it writes to the sink. Errors of the sink come up to two pieces a thread
    /// later than without threads, at the latest from [`finish`](Self::finish).
    ///
    /// # Errors
    /// Those of the sink.
    pub fn threads(mut self, threads: usize) -> Result<Self> {
        let threads = if threads == 0 { default_threads() } else { threads };
        self.drain()?;
        self.crew = match threads {
            1 => Crew::alone(packing_worker(self.packing)),
            _ => Crew::hire(threads, || packing_worker(self.packing)),
        };
        Ok(self)
    }

    /// Writes `data` at `offset`; offsets must not go back.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] beyond the disk's end, [`Error::InvalidInput`] when `offset` lies before the end of what
    /// was written, [`Error::NotSupported`] when the stream grows beyond 2 TiB, and the sink's errors. After one of the
    /// last two the stream cannot go on: what was given is gone, and [`finish`](Self::finish) fails too.
    pub fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        let mut put = self.assembler.put(offset, data)?;
        while let Some(piece) = self.assembler.fill(&mut put) {
            self.submit(piece)?;
        }
        Ok(())
    }

    /// Writes the tables and the end marker, flushes the sink and gives it back.
    ///
    /// # Errors
    /// Those of the sink, [`Error::NotSupported`] when the stream grows beyond 2 TiB, and [`Error::Io`] after a write
    /// that failed.
    pub fn finish(mut self) -> Result<W> {
        if let Some(piece) = self.assembler.close() {
            self.submit(piece)?;
        }
        self.drain()?;
        self.sink.finish().map(|(sink, _)| sink)
    }

    /// Size of the disk in bytes.
    pub fn capacity(&self) -> u64 {
        self.packing.capacity
    }

    /// Bytes written to the sink so far.
    pub fn bytes_written(&self) -> u64 {
        self.sink.position()
    }

    /// The sink, to take finished pieces out of a `Vec` while the stream grows. Bytes may be taken, not added.
    pub fn sink_mut(&mut self) -> &mut W {
        &mut self.sink.out.inner
    }

    /// Hands a piece to the packers, and writes what is ready.
    fn submit(&mut self, piece: Piece) -> Result<()> {
        self.tear()?;
        self.crew.submit(piece, |packed| self.sink.take(packed, &mut self.assembler))?;
        self.is_torn = false;
        Ok(())
    }

    /// Writes all that the packers have.
    fn drain(&mut self) -> Result<()> {
        self.tear()?;
        self.crew.finish(|packed| self.sink.take(packed, &mut self.assembler))?;
        self.is_torn = false;
        Ok(())
    }

    /// Says that the stream is torn, unless what begins now comes to its end.
    fn tear(&mut self) -> Result<()> {
        let was_torn = std::mem::replace(&mut self.is_torn, true);
        if was_torn { Err(torn(&self.sink.out.name, self.sink.position())) } else { Ok(()) }
    }
}

/// What to say to those who go on after a failure.
pub(super) fn torn(name: &str, at: u64) -> Error {
    let torn = io::Error::other("an earlier write failed or was dropped before its end: begin a new stream");
    Error::io("write", name, Some(at), torn)
}

fn packing_worker(packing: Packing) -> impl FnMut(Piece) -> Result<Piece> + Send + 'static {
    let mut packer = Packer::with(packing);
    move |mut piece| {
        piece.pack(&mut packer)?;
        Ok(piece)
    }
}

/// An encoder and the sink of its bytes.
#[derive(Debug)]
pub(super) struct Sink<W> {
    encoder: StreamEncoder,
    out: Out<W>,
}

impl<W: Write> Sink<W> {
    /// Writes the stream's head.
    pub(super) fn new(inner: W, spec: &StreamSpec) -> Result<Self> {
        let (encoder, head) = StreamEncoder::new(spec)?;
        let mut out = Out { inner, name: spec.stream_name().to_owned(), at: 0 };
        out.write(&head)?;
        Ok(Self { encoder, out })
    }

    /// Writes the next grains.
    pub(super) fn push(&mut self, grains: &PackedGrains) -> Result<()> {
        let lead = self.encoder.push(grains)?;
        self.out.write(&lead)?;
        self.out.write(grains.as_bytes())
    }

    /// Writes the stream's end, flushes, and gives the sink back with the stream's length.
    pub(super) fn finish(self) -> Result<(W, u64)> {
        let Self { encoder, mut out } = self;
        out.write(&encoder.finish()?)?;
        out.inner.flush().map_err(|error| Error::io("flush", &out.name, None, error))?;
        Ok((out.inner, out.at))
    }

    /// Bytes written so far.
    pub(super) fn position(&self) -> u64 {
        self.out.at
    }

    /// Writes a packed piece, and gives it back.
    fn take(&mut self, packed: Result<Piece>, assembler: &mut Assembler) -> Result<()> {
        let piece = packed?;
        self.push(&piece.packed)?;
        assembler.take_back(piece);
        Ok(())
    }
}

/// A sink that counts.
#[derive(Debug)]
struct Out<W> {
    inner: W,
    name: String,
    at: u64,
}

impl<W: Write> Out<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner.write_all(bytes).map_err(|error| Error::io("write", &self.name, Some(self.at), error))?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}
