//! Streams for asynchronous sinks and sources, whatever their runtime.
//!
//! The same assembler, packer, encoder and decoder as in the blocking writer and reader; only who moves the bytes
//! differs.

use std::{future::Future, io};

use bytes::Bytes;

use super::{
    Grain, GrainOrder, Packer, StreamDecoder, StreamEncoder, StreamEnd, StreamSpec,
    assemble::{Assembler, Piece},
    write::torn,
};
use crate::{
    descriptor::Descriptor,
    error::{Error, Result},
};

/// Takes the bytes of a stream in their order.
pub trait AsyncSink: Send {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// Whatever the sink says; the stream cannot go on then.
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = io::Result<()>> + Send;

    /// Returns when all bytes are where they should be.
    ///
    /// # Errors
    /// Whatever the sink says.
    fn flush(&mut self) -> impl Future<Output = io::Result<()>> + Send {
        async { Ok(()) }
    }
}

/// Gives the bytes of a stream in their order.
pub trait AsyncSource: Send {
    /// The next bytes, in pieces of any size; `None` at the end.
    ///
    /// # Errors
    /// Whatever the source says.
    fn read(&mut self) -> impl Future<Output = io::Result<Option<Bytes>>> + Send;
}

/// Writes a `streamOptimized` disk to an asynchronous sink: the twin of [`StreamWriter`](super::StreamWriter), with
/// the same bytes.
///
/// Grains are packed where [`write_at`](Self::write_at) is polled, some milliseconds for every 512 KiB. Those who want
/// other threads for that use a [`Packer`] there, and a [`StreamEncoder`] here.
#[derive(Debug)]
pub struct AsyncStreamWriter<S> {
    sink: S,
    name: String,
    assembler: Assembler,
    packer: Packer,
    encoder: StreamEncoder,
    at: u64,
    /// A write has begun and not ended: some of the stream is missing.
    is_torn: bool,
}

impl<S: AsyncSink> AsyncStreamWriter<S> {
    /// Begins a stream: writes its header and descriptor.
    ///
    /// # Errors
    /// Those of [`StreamEncoder::new`] and of the sink.
    ///
    /// # Cancel safety
    /// None: the sink is gone with the future.
    pub async fn new(sink: S, spec: &StreamSpec) -> Result<Self> {
        let (encoder, head) = StreamEncoder::new(spec)?;
        let packing = spec.packing();
        let mut writer = Self {
            sink,
            name: spec.stream_name().to_owned(),
            assembler: Assembler::new(packing),
            packer: Packer::with(packing),
            encoder,
            at: 0,
            is_torn: false,
        };
        writer.write(head).await?;
        Ok(writer)
    }

    /// Writes `data` at `offset`; offsets must not go back.
    ///
    /// # Errors
    /// As [`StreamWriter::write_at`](super::StreamWriter::write_at).
    ///
    /// # Cancel safety
    /// None: a stream whose write was dropped cannot go on, and says so.
    pub async fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        let mut put = self.assembler.put(offset, data)?;
        while let Some(piece) = self.assembler.fill(&mut put) {
            self.push(piece).await?;
        }
        Ok(())
    }

    /// Writes the tables and the end marker, flushes the sink and gives it back.
    ///
    /// # Errors
    /// As [`StreamWriter::finish`](super::StreamWriter::finish).
    ///
    /// # Cancel safety
    /// None: the sink is gone with the future.
    pub async fn finish(mut self) -> Result<S> {
        if let Some(piece) = self.assembler.close() {
            self.push(piece).await?;
        }
        self.tear()?;
        let tail = self.encoder.end()?;
        self.write(tail).await?;
        self.sink.flush().await.map_err(|error| Error::io("flush", &self.name, None, error))?;
        Ok(self.sink)
    }

    /// Bytes written to the sink so far.
    pub fn bytes_written(&self) -> u64 {
        self.at
    }

    async fn push(&mut self, mut piece: Piece) -> Result<()> {
        self.tear()?;
        piece.pack(&mut self.packer)?;
        let lead = self.encoder.push(&piece.packed)?;
        let grains = std::mem::take(&mut piece.packed).into_bytes();
        self.assembler.take_back(piece);
        self.write(lead).await?;
        self.write(grains).await?;
        self.is_torn = false;
        Ok(())
    }

    /// Says that the stream is torn, unless what begins now comes to its end.
    fn tear(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.is_torn, true) { Err(torn(&self.name, self.at)) } else { Ok(()) }
    }

    async fn write(&mut self, bytes: Vec<u8>) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let len = bytes.len() as u64;
        let written = self.sink.write(bytes.into()).await;
        written.map_err(|error| Error::io("write", &self.name, Some(self.at), error))?;
        self.at += len;
        Ok(())
    }
}

/// Reads a `streamOptimized` disk forward from an asynchronous source: the twin of
/// [`StreamReader`](super::StreamReader).
#[derive(Debug)]
pub struct AsyncStreamReader<S> {
    source: S,
    decoder: StreamDecoder,
    end: Option<StreamEnd>,
}

impl<S: AsyncSource> AsyncStreamReader<S> {
    /// Reads header and descriptor; `name` names the stream in errors.
    ///
    /// # Errors
    /// As [`StreamReader::open_ordered`](super::StreamReader::open_ordered).
    ///
    /// # Cancel safety
    /// None: the source is gone with the future.
    pub async fn open(source: S, name: impl Into<String> + Send, order: GrainOrder) -> Result<Self> {
        let mut reader = Self { source, decoder: StreamDecoder::new(name).order(order), end: None };
        while !reader.decoder.has_begun() {
            reader.fill().await?;
            // No grain can come before the metadata are complete, so none is lost here.
            reader.decoder.grain_is_ready()?;
        }
        Ok(reader)
    }

    /// The next grain; `None` at the end.
    ///
    /// # Errors
    /// As [`StreamReader::next_grain`](super::StreamReader::next_grain).
    ///
    /// # Cancel safety
    /// That of the source's `read`: nothing is lost here.
    pub async fn next_grain(&mut self) -> Result<Option<Grain<'_>>> {
        while self.end.is_none() {
            if self.decoder.grain_is_ready()? {
                return self.decoder.next_grain();
            }
            self.fill().await?;
        }
        Ok(None)
    }

    /// Size of the disk in bytes.
    pub fn capacity(&self) -> u64 {
        self.decoder.capacity().unwrap_or(0)
    }

    /// The embedded descriptor, if there is one.
    pub fn descriptor(&self) -> Option<&Descriptor> {
        self.decoder.descriptor()
    }

    /// How the stream ended; `None` before its end.
    pub fn end(&self) -> Option<StreamEnd> {
        self.end
    }

    async fn fill(&mut self) -> Result<()> {
        if self.decoder.has_ended() {
            self.end = Some(StreamEnd::Marked);
            return Ok(());
        }
        let position = self.decoder.position();
        match self.source.read().await {
            Ok(Some(bytes)) => self.decoder.feed(&bytes),
            Ok(None) => self.end = Some(self.decoder.finish()?),
            Err(error) => return Err(Error::io("read", self.decoder.name(), Some(position), error)),
        }
        Ok(())
    }
}
