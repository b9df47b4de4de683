//! Blocks of metadata, their checksums verified.

use crate::{
    error::{Error, Result},
    fs::{checksum::crc32c, parts::Replayed},
};

/// Why a block of metadata is not used.
#[derive(Debug)]
pub(super) enum Unread {
    /// The device failed.
    Device(Error),
    /// Its checksum is wrong.
    Checksum,
}

impl Unread {
    /// As an error of `what`.
    pub(super) fn of(self, what: &str) -> Error {
        match self {
            Self::Device(error) => error,
            Self::Checksum => Error::damaged(what, "its checksum is wrong"),
        }
    }
}

impl Replayed {
    /// Reads a block of metadata and verifies its checksum, which is at byte `crc` of it. Of what was replayed from the
    /// log none is right: the kernel makes them when it writes.
    pub(super) fn read_checked(&self, place: u64, len: usize, crc: Option<usize>) -> Result<Vec<u8>, Unread> {
        let mut raw = vec![0; len];
        self.device.read_at(place, &mut raw).map_err(Unread::Device)?;
        let Some(at) = crc else { return Ok(raw) };
        let (Some(before), Some(stored), Some(after)) = (raw.get(..at), raw.get(at..at + 4), raw.get(at + 4..)) else {
            return Err(Unread::Checksum);
        };
        let found = !crc32c(crc32c(crc32c(!0, before), &[0; 4]), after);
        if found.to_le_bytes() == stored || self.is_patched(place..place + len as u64) {
            return Ok(raw);
        }
        Err(Unread::Checksum)
    }
}
