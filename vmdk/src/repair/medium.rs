//! The file under repair: changed for real, or only in thought while a plan is made.

use super::action::{ActionKind, Ledger};
use crate::{
    SECTOR,
    check::Place,
    error::{Error, Result},
    extent::Backing,
};

/// A file, its new end, and what was done to it.
#[derive(Debug)]
pub(super) struct Medium {
    pub(super) backing: Backing,
    /// Nothing is written: the plan is made.
    pub(super) is_dry: bool,
    pub(super) ledger: Ledger,
    end: u64,
    /// Something new is not yet on stable storage.
    unsynced: bool,
}

impl Medium {
    pub(super) fn new(backing: Backing, is_dry: bool) -> Result<Self> {
        let end = backing.len()?;
        Ok(Self { backing, is_dry, ledger: Ledger::default(), end, unsynced: false })
    }

    /// Where the next append goes at the earliest, in bytes.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Moves the place of the next append.
    pub(super) fn set_end(&mut self, end: u64) {
        self.end = end;
    }

    pub(super) fn note(&mut self, kind: ActionKind, place: Place) {
        self.ledger.note(kind, place);
    }

    /// Writes in place: what was appended before is on stable storage first, so that nothing ever points to bytes
    /// that a power failure can take away.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.is_dry {
            return Ok(());
        }
        if self.unsynced {
            self.sync()?;
        }
        self.backing.write(offset, bytes)
    }

    /// Reserves `len` bytes at a multiple of `unit` behind the end, and returns the sector.
    pub(super) fn reserve(&mut self, len: u64, unit: u64) -> Result<u32> {
        let start = self.end.checked_next_multiple_of(unit);
        let sector = start.and_then(|start| u32::try_from(start / SECTOR).ok());
        let (start, sector) = start.zip(sector).ok_or_else(|| {
            let reason = "sector numbers have 32 bits";
            Error::not_supported(&*self.backing.name, "a repair that makes the file larger than 2 TiB", reason)
        })?;
        self.end = start + len;
        Ok(sector)
    }

    /// Appends `bytes` at a multiple of `unit`, and returns the sector.
    pub(super) fn append(&mut self, bytes: &[u8], unit: u64) -> Result<u32> {
        let sector = self.reserve(bytes.len() as u64, unit)?;
        if !self.is_dry {
            self.backing.write(u64::from(sector) * SECTOR, bytes)?;
            self.unsynced = true;
        }
        Ok(sector)
    }

    pub(super) fn set_len(&mut self, len: u64) -> Result<()> {
        if self.is_dry { Ok(()) } else { self.backing.set_len(len) }
    }

    pub(super) fn sync(&mut self) -> Result<()> {
        self.unsynced = false;
        if self.is_dry { Ok(()) } else { self.backing.sync() }
    }
}
