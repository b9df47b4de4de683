//! Records of directories: ECMA-119, chapter 9.1.

use std::sync::Arc;

use crate::{
    bytes::{le_u32, slice},
    device::{Device, DeviceExt},
    error::{Error, Result},
};

/// A record.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// Where it lies on the device.
    pub(super) place: u64,
    /// The first block of the content, behind its extended attributes.
    pub(super) block: u32,
    pub(super) size: u32,
    raw: Vec<u8>,
}

impl Record {
    /// Reads the record at a place; `None` when nothing is there.
    pub(super) fn read(device: &dyn Device, place: u64) -> Result<Option<Self>> {
        let [len] = device.read_array(place)?;
        match len {
            0 => Ok(None),
            _ => Self::parse(place, device.read_vec(place, usize::from(len))?).map(Some),
        }
    }

    fn parse(place: u64, raw: Vec<u8>) -> Result<Self> {
        let fields = || Some((raw.get(1).copied()?, le_u32(&raw, 2)?, le_u32(&raw, 10)?, raw.get(32).copied()?));
        let damaged =
            |problem: &str| Error::damaged(format!("the directory record of ISO 9660 at byte {place}"), problem);
        let (attributes, block, size, name) = fields().ok_or_else(|| damaged("it is too short"))?;
        if slice(&raw, 33, name.into()).is_none() {
            return Err(damaged("its name is longer than itself"));
        }
        let block = block.checked_add(attributes.into()).ok_or_else(|| damaged("its block is no block"))?;
        Ok(Self { place, block, size, raw })
    }

    pub(super) fn flags(&self) -> u8 {
        self.raw.get(25).copied().unwrap_or_default()
    }

    pub(super) fn is_directory(&self) -> bool {
        self.flags() & DIRECTORY != 0
    }

    /// Whether the file goes on in the next record.
    pub(super) fn goes_on(&self) -> bool {
        self.flags() & MULTI_EXTENT != 0
    }

    /// Whether it belongs to another file, as Apple's resource forks do.
    pub(super) fn is_associated(&self) -> bool {
        self.flags() & ASSOCIATED != 0
    }

    /// Whether its blocks alternate with those of another file.
    pub(super) fn is_interleaved(&self) -> bool {
        self.raw.get(26).is_some_and(|unit| *unit != 0)
    }

    pub(super) fn name(&self) -> &[u8] {
        let len = self.raw.get(32).copied().unwrap_or_default();
        slice(&self.raw, 33, len.into()).unwrap_or_default()
    }

    /// `.` or `..`.
    pub(super) fn is_dot(&self) -> bool {
        matches!(self.name(), [0 | 1])
    }

    pub(super) fn time(&self) -> &[u8] {
        self.raw.get(18..25).unwrap_or_default()
    }

    /// What is behind the name, for Rock Ridge.
    pub(super) fn system_use(&self) -> &[u8] {
        let end = 33 + self.name().len();
        self.raw.get(end.next_multiple_of(2)..).or_else(|| self.raw.get(end..)).unwrap_or_default()
    }

    fn end(&self) -> u64 {
        self.place + self.raw.len() as u64
    }
}

/// The records of a directory.
pub(super) struct Records {
    device: Arc<dyn Device>,
    at: u64,
    end: u64,
}

impl Records {
    pub(super) fn new(device: Arc<dyn Device>, at: u64, end: u64) -> Self {
        Self { device, at, end }
    }

    /// Those after a record, as far as the device goes.
    pub(super) fn after(device: Arc<dyn Device>, record: &Record) -> Self {
        let end = device.size();
        Self { device, at: record.end(), end }
    }

    /// The next record; nothing more after an error.
    pub(super) fn next(&mut self) -> Result<Option<Record>> {
        while self.at < self.end {
            match Record::read(&*self.device, self.at) {
                Ok(Some(record)) => {
                    self.at = record.end();
                    return Ok(Some(record));
                }
                // The rest of a sector that has no room for the next record.
                Ok(None) => self.at = (self.at / SECTOR + 1) * SECTOR,
                Err(error) => {
                    self.at = self.end;
                    return Err(error);
                }
            }
        }
        Ok(None)
    }
}

/// Bytes of a sector, which no record crosses.
pub(super) const SECTOR: u64 = 2048;
/// Flags.
const DIRECTORY: u8 = 0x02;
const ASSOCIATED: u8 = 0x04;
const MULTI_EXTENT: u8 = 0x80;
