//! MFT records, and the update sequence that guards them and index blocks against torn writes.

use super::attribute::RawAttributes;
use crate::{
    bytes::{le_u16, le_u32, le_u64},
    error::{Error, Result},
};

/// Number and sequence of an MFT record in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reference(pub(super) u64);

impl Reference {
    pub(super) fn number(self) -> u64 {
        self.0 & ((1 << 48) - 1)
    }

    pub(super) fn sequence(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

/// An MFT record in use.
#[derive(Debug)]
pub(super) struct Record {
    number: u64,
    bytes: Vec<u8>,
    used: usize,
}

impl Record {
    /// Checks a record and undoes its update sequence. `None` for one that is free.
    pub(super) fn parse(number: u64, mut bytes: Vec<u8>) -> Result<Option<Self>> {
        let what = || format!("MFT record {number}");
        let damaged = |problem: &str| Err(Error::damaged(what(), problem));
        match bytes.first_chunk::<4>() {
            Some(b"FILE") => {}
            Some(b"BAAD") => return damaged("Windows found it torn"),
            // Space of the MFT that was never used.
            Some([0, 0, 0, 0]) => return Ok(None),
            _ => return damaged("it has no signature"),
        }
        fix_up(&mut bytes, what)?;
        if flags(&bytes) & IN_USE == 0 {
            return Ok(None);
        }
        let used = le_u32(&bytes, 0x18).unwrap_or(0) as usize;
        if used > bytes.len() {
            return damaged("its attributes are longer than itself");
        }
        Ok(Some(Self { number, bytes, used }))
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn reference(&self) -> Reference {
        Reference(self.number | u64::from(self.sequence()) << 48)
    }

    pub(super) fn sequence(&self) -> u16 {
        le_u16(&self.bytes, 0x10).unwrap_or(0)
    }

    /// Names that it has, short ones counted as well.
    pub(super) fn links(&self) -> u16 {
        le_u16(&self.bytes, 0x12).unwrap_or(0)
    }

    pub(super) fn is_directory(&self) -> bool {
        flags(&self.bytes) & DIRECTORY != 0
    }

    /// The record that this one continues, if it does.
    pub(super) fn base(&self) -> Option<Reference> {
        le_u64(&self.bytes, 0x20).filter(|base| *base != 0).map(Reference)
    }

    /// The attributes that lie in this record.
    pub(super) fn attributes(&self) -> RawAttributes<'_> {
        let first = usize::from(le_u16(&self.bytes, 0x14).unwrap_or(0));
        RawAttributes::new(self.number, self.bytes.get(..self.used).unwrap_or_default(), first)
    }
}

fn flags(record: &[u8]) -> u16 {
    le_u16(record, 0x16).unwrap_or(0)
}

/// Puts back the last two bytes of every 512 that were exchanged for the number of the write they belong to.
pub(super) fn fix_up(bytes: &mut [u8], what: impl Fn() -> String) -> Result<()> {
    let list = usize::from(le_u16(bytes, 4).unwrap_or(0));
    let sectors = usize::from(le_u16(bytes, 6).unwrap_or(0)).saturating_sub(1);
    if sectors * STRIDE != bytes.len() {
        return Err(Error::damaged(what(), format!("an update sequence of {sectors} sectors")));
    }
    let Some(write) = le_u16(bytes, list) else {
        return Err(Error::damaged(what(), format!("an update sequence at byte {list}")));
    };
    for sector in 0..sectors {
        let end = (sector + 1) * STRIDE - 2;
        let Some(kept) = le_u16(bytes, list + 2 + sector * 2) else {
            return Err(Error::damaged(what(), "its update sequence is cut off"));
        };
        if le_u16(bytes, end) != Some(write) {
            return Err(Error::damaged(what(), format!("sector {sector} of it is of another write (torn)")));
        }
        if let Some(place) = bytes.get_mut(end..end + 2) {
            place.copy_from_slice(&kept.to_le_bytes());
        }
    }
    Ok(())
}

const IN_USE: u16 = 1;
const DIRECTORY: u16 = 2;
/// Of the update sequence: 512 on disks of any sector size.
const STRIDE: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_record_is_told_from_a_whole_one() {
        let mut record = vec![0; 1024];
        record[..8].copy_from_slice(&[b'F', b'I', b'L', b'E', 0x30, 0, 3, 0]);
        record[0x30..0x36].copy_from_slice(&[9, 9, 1, 2, 3, 4]);
        record[510..512].copy_from_slice(&[9, 9]);
        record[1022..].copy_from_slice(&[9, 9]);
        let mut whole = record.clone();
        fix_up(&mut whole, String::new).unwrap();
        assert_eq!((&whole[510..512], &whole[1022..]), (&[1, 2][..], &[3, 4][..]));
        record[1022] = 8;
        fix_up(&mut record, String::new).unwrap_err();
    }
}
