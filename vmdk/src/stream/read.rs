//! Reading a stream from a blocking source.

use std::io::{ErrorKind, Read};

use super::{Grain, StreamDecoder, StreamEnd};
use crate::{
    descriptor::Descriptor,
    error::{Error, Result},
};

/// Reads a `streamOptimized` disk forward, grain by grain.
#[derive(Debug)]
pub struct StreamReader<R> {
    source: R,
    name: String,
    decoder: StreamDecoder,
    piece: Box<[u8]>,
    end: Option<StreamEnd>,
}

impl<R: Read> StreamReader<R> {
    /// Reads header and descriptor; `name` names the stream in errors.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::NotSupported`] for sparse files that are no stream, and the source's errors.
    pub fn open(source: R, name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let decoder = StreamDecoder::new(name.clone());
        let mut reader = Self { source, name, decoder, piece: vec![0; PIECE].into_boxed_slice(), end: None };
        while !reader.decoder.has_begun() {
            // No grain can come before the metadata are complete, so none is lost here.
            reader.fill_for_metadata()?;
        }
        Ok(reader)
    }

    /// Size of the disk in bytes.
    pub fn capacity(&self) -> u64 {
        self.decoder.capacity().unwrap_or(0)
    }

    /// The embedded descriptor, if there is one.
    pub fn descriptor(&self) -> Option<&Descriptor> {
        self.decoder.descriptor()
    }

    /// The next grain, in ascending order; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Malformed`], also for a stream that ends too early, and the source's errors.
    pub fn next_grain(&mut self) -> Result<Option<Grain<'_>>> {
        while self.end.is_none() {
            if self.decoder.grain_is_ready()? {
                return self.decoder.next_grain();
            }
            self.fill()?;
        }
        Ok(None)
    }

    /// How the stream ended; `None` before its end.
    pub fn end(&self) -> Option<StreamEnd> {
        self.end
    }

    fn fill(&mut self) -> Result<()> {
        if self.decoder.has_ended() {
            self.end = Some(StreamEnd::Marked);
            return Ok(());
        }
        let read = loop {
            match self.source.read(&mut self.piece) {
                Ok(read) => break read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", &self.name, Some(self.decoder.position()), error)),
            }
        };
        if read == 0 {
            self.end = Some(self.decoder.finish()?);
        }
        self.decoder.feed(&self.piece[..read]);
        Ok(())
    }

    fn fill_for_metadata(&mut self) -> Result<()> {
        self.fill()?;
        self.decoder.grain_is_ready().map(drop)
    }
}

/// Bytes asked of the source at once.
const PIECE: usize = 64 << 10;
