//! Directories of FAT and exFAT: entries of 32 bytes.

use std::sync::Arc;

use super::runs::Runs;
use crate::{device::Device, error::Result};

/// Bytes of an entry.
pub(in crate::fs) const ENTRY: usize = 32;

/// The entries of a directory, with where they lie on the device.
pub(in crate::fs) struct RawEntries {
    device: Arc<dyn Device>,
    runs: Runs,
    at: u64,
    buffer: Vec<u8>,
    /// Where the buffer lies: in the directory, and on the device.
    start: u64,
    place: u64,
}

impl RawEntries {
    pub(in crate::fs) fn new(device: Arc<dyn Device>, runs: Runs) -> Self {
        Self { device, runs, at: 0, buffer: Vec::new(), start: 0, place: 0 }
    }

    /// Goes on from a byte of the directory.
    #[must_use]
    pub(in crate::fs) fn starting_at(mut self, at: u64) -> Self {
        (self.at, self.start) = (at, at);
        self
    }

    /// The next entry; `None` at the end of the space.
    pub(in crate::fs) fn next(&mut self) -> Result<Option<(u64, [u8; ENTRY])>> {
        if self.at >= self.start + self.buffer.len() as u64 {
            let Some((place, there)) = self.runs.find(self.at) else { return Ok(None) };
            self.buffer.resize(there.min(CHUNK) as usize, 0);
            (self.start, self.place) = (self.at, place);
            if let Err(error) = self.device.read_at(place, &mut self.buffer) {
                self.runs = Runs::default();
                self.buffer.clear();
                return Err(error);
            }
        }
        let into = self.at - self.start;
        let raw = self.buffer.get(into as usize..).and_then(|rest| rest.first_chunk());
        self.at += ENTRY as u64;
        Ok(raw.map(|raw| (self.place + into, *raw)))
    }
}

/// Bytes that are read at once.
const CHUNK: u64 = 64 << 10;
