//! Reading a stream from a blocking source.

use std::io::{ErrorKind, Read};

use super::{
    Grain, StreamDecoder, StreamEnd,
    decode::Deflated,
    order::{GrainOrder, Order},
};
use crate::{
    descriptor::Descriptor,
    error::{Error, Result},
};

/// Reads a `streamOptimized` disk forward, grain by grain.
#[derive(Debug)]
pub struct StreamReader<R> {
    source: R,
    decoder: StreamDecoder,
    end: Option<StreamEnd>,
}

impl<R: Read> StreamReader<R> {
    /// Reads header and descriptor; `name` names the stream in errors.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::NotSupported`] for sparse files that are no stream, and the source's errors.
    pub fn open(source: R, name: impl Into<String>) -> Result<Self> {
        Self::open_with(source, StreamDecoder::new(name))
    }

    /// As [`open`](Self::open), for streams whose grains come in any [order](GrainOrder).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_ordered(source: R, name: impl Into<String>, order: GrainOrder) -> Result<Self> {
        Self::open_with(source, StreamDecoder::new(name).order(order))
    }

    fn open_with(source: R, decoder: StreamDecoder) -> Result<Self> {
        let mut reader = Self { source, decoder, end: None };
        while !reader.decoder.has_begun() {
            reader.fill()?;
            // No grain can come before the metadata are complete, so none is lost here.
            reader.decoder.grain_is_ready()?;
        }
        Ok(reader)
    }

    /// Size of the disk in bytes.
    pub fn capacity(&self) -> u64 {
        self.decoder.capacity().unwrap_or(0)
    }

    /// Bytes of a grain.
    pub fn grain_bytes(&self) -> u64 {
        self.decoder.grain_bytes().unwrap_or(0)
    }

    /// The embedded descriptor, if there is one.
    pub fn descriptor(&self) -> Option<&Descriptor> {
        self.decoder.descriptor()
    }

    /// The next grain; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Malformed`], also for a stream that ends too early, and the source's errors.
    pub fn next_grain(&mut self) -> Result<Option<Grain<'_>>> {
        if self.reaches_grain()? { self.decoder.next_grain() } else { Ok(None) }
    }

    /// How the stream ended; `None` before its end.
    pub fn end(&self) -> Option<StreamEnd> {
        self.end
    }

    /// Bytes of the stream that were understood so far.
    pub fn position(&self) -> u64 {
        self.decoder.position()
    }

    /// As [`next_grain`](Self::next_grain), for those who inflate elsewhere.
    pub(super) fn next_deflated(&mut self) -> Result<Option<Deflated<'_>>> {
        if self.reaches_grain()? { self.decoder.next_deflated() } else { Ok(None) }
    }

    pub(super) fn order_mut(&mut self) -> &mut Order {
        self.decoder.order_mut()
    }

    pub(super) fn name(&self) -> &str {
        self.decoder.name()
    }

    /// Reads up to the next grain; false when there is none.
    fn reaches_grain(&mut self) -> Result<bool> {
        while self.end.is_none() {
            if self.decoder.grain_is_ready()? {
                return Ok(true);
            }
            self.fill()?;
        }
        Ok(false)
    }

    fn fill(&mut self) -> Result<()> {
        if self.decoder.has_ended() {
            self.end = Some(StreamEnd::Marked);
            return Ok(());
        }
        let position = self.decoder.position();
        let read = loop {
            match self.source.read(self.decoder.space(PIECE)) {
                Ok(read) => break read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", self.name(), Some(position), error)),
            }
        };
        if read == 0 {
            self.end = Some(self.decoder.finish()?);
        }
        self.decoder.filled(read);
        Ok(())
    }
}

/// Bytes asked of the source at once.
const PIECE: usize = 128 << 10;
