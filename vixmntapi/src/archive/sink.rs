//! Where an archive goes.

use std::io::{self, Write};

use crate::error::{Error, Result};

/// Counts the bytes, and tells of errors as ours.
pub(super) struct Sink<W> {
    out: W,
    pub(super) written: u64,
}

impl<W: Write> Sink<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, written: 0 }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all(bytes).map_err(failed)
    }

    /// Fills up to a multiple of so many bytes with zeros.
    pub(super) fn align(&mut self, to: u64) -> Result<()> {
        let missing = self.written.next_multiple_of(to) - self.written;
        self.put(&vec![0; missing as usize])
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.flush().map_err(failed)
    }
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.out.write(bytes)?;
        self.written += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

pub(super) fn failed(source: io::Error) -> Error {
    Error::Local { operation: "write", path: "the archive".into(), source }
}
