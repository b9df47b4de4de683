//! The table of capitals of an exFAT volume, and the hashes of names (chapters 7.2 and 7.6.4).

use std::fmt;

use crate::{
    bytes::le_u16,
    error::{Error, Result},
};

/// The capitals of all characters in one unit of UTF-16.
pub(super) struct Upcase(Vec<u16>);

impl Upcase {
    /// Reads a stored table, in which a run of characters that are their own capitals is 0xffff and its length.
    pub(super) fn parse(raw: &[u8], checksum: u32) -> Result<Self> {
        let damaged = |problem: &str| Error::damaged("the up-case table", problem);
        let sum = raw.iter().fold(0_u32, |sum, byte| sum.rotate_right(1).wrapping_add(u32::from(*byte)));
        if sum != checksum {
            return Err(damaged("its checksum is wrong"));
        }
        let mut units = (0..raw.len()).step_by(2).map_while(|at| le_u16(raw, at));
        let mut table: Vec<u16> = Vec::with_capacity(UNITS);
        while let Some(unit) = units.next() {
            match unit {
                0xffff if table.len() < UNITS - 1 => {
                    let run = usize::from(units.next().ok_or_else(|| damaged("it ends within a run"))?);
                    let end = (table.len() + run).min(UNITS);
                    table.extend((table.len()..end).map(|unit| unit as u16));
                }
                unit if table.len() < UNITS => table.push(unit),
                _ => return Err(damaged("it has more than 65536 characters")),
            }
        }
        table.extend((table.len()..UNITS).map(|unit| unit as u16));
        Ok(Self(table))
    }

    /// A name in capitals.
    pub(super) fn name(&self, units: &[u16]) -> Vec<u16> {
        units.iter().map(|unit| self.0.get(usize::from(*unit)).copied().unwrap_or(*unit)).collect()
    }
}

impl fmt::Debug for Upcase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upcase({})", self.0.len())
    }
}

/// The hash of a name in capitals.
pub(super) fn hash(capitals: &[u16]) -> u16 {
    let bytes = capitals.iter().flat_map(|unit| unit.to_le_bytes());
    bytes.fold(0, |hash: u16, byte| hash.rotate_right(1).wrapping_add(u16::from(byte)))
}

/// Characters in the table.
const UNITS: usize = 65_536;
