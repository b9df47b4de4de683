//! A salvage from a blocking source.

use std::io::{ErrorKind, Read};

use super::{Grain, SalvageReport, Salvager};
use crate::{
    descriptor::Descriptor,
    error::{Error, Result},
};

/// Reads the whole grains of a damaged stream from a blocking source; see [`Salvager`].
#[derive(Debug)]
pub struct SalvageReader<R> {
    source: R,
    name: String,
    salvager: Salvager,
}

impl<R: Read> SalvageReader<R> {
    /// Scans `source` with `salvager`; `name` names the stream in errors.
    pub fn new(source: R, name: impl Into<String>, salvager: Salvager) -> Self {
        Self { source, name: name.into(), salvager }
    }

    /// The next whole grain; `None` at the source's end.
    ///
    /// # Errors
    /// Those of the source only. Reading may be tried again after an error.
    pub fn next_grain(&mut self) -> Result<Option<Grain<'_>>> {
        loop {
            if let Some(place) = self.salvager.advance() {
                return Ok(Some(self.salvager.grain_at(place)));
            }
            if self.salvager.is_done {
                return Ok(None);
            }
            match self.source.read(self.salvager.buffer.space(PIECE)) {
                Ok(0) => self.salvager.end(),
                Ok(read) => self.salvager.buffer.filled(read),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", &self.name, Some(self.salvager.at), error)),
            }
        }
    }

    /// What is known by now; complete when [`next_grain`](Self::next_grain) gave `None`.
    pub fn report(&self) -> &SalvageReport {
        self.salvager.report()
    }

    /// The embedded descriptor, if it can be read.
    pub fn descriptor(&self) -> Option<&Descriptor> {
        self.salvager.descriptor()
    }
}

/// Bytes asked of the source at once.
const PIECE: usize = 128 << 10;
