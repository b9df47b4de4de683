//! What is in an encrypted device.

use std::{fmt, sync::Arc};

use super::cipher::Cipher;
use crate::{
    device::{Device, check},
    error::Result,
};

/// A device whose bytes are deciphered as they are read.
pub(super) struct Decrypted {
    pub(super) device: Arc<dyn Device>,
    pub(super) cipher: Cipher,
    /// Where what is encrypted begins, in bytes of the device.
    pub(super) start: u64,
    /// In bytes: whole sectors.
    pub(super) size: u64,
    /// Bytes that are enciphered together: 512 to 4096.
    pub(super) sector: u64,
    /// The number of the first sector, in units of 512 bytes.
    pub(super) first: u64,
}

impl Decrypted {
    /// Fills `buf`, which is whole sectors, from the sector at `offset` on.
    fn sectors(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.device.read_at(self.start + offset, buf)?;
        let number = self.first.wrapping_add(offset / 512);
        for (sector, number) in
            buf.chunks_exact_mut(self.sector as usize).zip((number..).step_by(self.sector as usize / 512))
        {
            self.cipher.decrypt(sector, number);
        }
        Ok(())
    }
}

impl Device for Decrypted {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector_size(&self) -> u32 {
        self.device.sector_size().max(self.sector as u32)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check(self, offset, buf.len())?;
        // What begins or ends within a sector goes through a buffer of one sector; whole sectors are read in place.
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let within = (at % self.sector) as usize;
            let whole = rest.len() / self.sector as usize * self.sector as usize;
            let len = if within == 0 && whole > 0 {
                self.sectors(at, &mut rest[..whole])?;
                whole
            } else {
                let mut sector = vec![0; self.sector as usize];
                self.sectors(at - within as u64, &mut sector)?;
                let len = rest.len().min(sector.len() - within);
                rest[..len].copy_from_slice(&sector[within..within + len]);
                len
            };
            at += len as u64;
            rest = &mut rest[len..];
        }
        Ok(())
    }

    fn name(&self) -> String {
        format!("what is encrypted in {}", self.device.name())
    }
}

impl fmt::Debug for Decrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decrypted").field("device", &self.device).field("size", &self.size).finish_non_exhaustive()
    }
}
