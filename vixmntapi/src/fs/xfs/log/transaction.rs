//! Transactions, put together from the operations of records.

use std::collections::HashMap;

use super::damaged;
use crate::{
    bytes::{be_u32, le_u16, le_u32, slice, u8_at},
    error::{Error, Result},
};

/// A transaction that was committed.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) items: Vec<Item>,
    /// Bytes of its own header that were read.
    header: usize,
}

/// What was done to one thing: its first region says what, the others hold the bytes.
#[derive(Debug, Default)]
pub(super) struct Item {
    pub(super) regions: Vec<Vec<u8>>,
    /// How many there are to be.
    total: usize,
}

impl Item {
    /// The kind, as the first region says.
    pub(super) fn kind(&self) -> u16 {
        self.regions.first().and_then(|region| le_u16(region, 0)).unwrap_or_default()
    }

    /// A region; nothing where there is none.
    pub(super) fn region(&self, number: usize) -> &[u8] {
        self.regions.get(number).map_or(&[], Vec::as_slice)
    }
}

/// Transactions that are not committed yet.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    open: HashMap<u32, Transaction>,
    held: usize,
}

impl Transactions {
    /// Takes in the operations of a record; gives back what was committed in it.
    pub(super) fn feed(&mut self, mut data: &[u8], operations: u32) -> Result<Vec<Transaction>> {
        let mut committed = Vec::new();
        for _ in 0..operations {
            let (header, rest) = data.split_at_checked(OPERATION).ok_or_else(|| damaged("an operation is cut"))?;
            let (id, len) = be_u32(header, 0).zip(be_u32(header, 4)).unwrap_or_default();
            let flags = u8_at(header, 9).unwrap_or_default();
            let bytes = slice(rest, 0, len as usize).ok_or_else(|| damaged(format!("an operation of {len} bytes")))?;
            data = &rest[bytes.len()..];
            let Some(open) = self.open.get_mut(&id) else {
                // The rest of a transaction that ended before the tail has no start.
                if flags & START != 0 {
                    self.open.insert(id, Transaction::default());
                }
                continue;
            };
            let flags = flags & !END;
            let flags = if flags & WAS_CONTINUED != 0 { flags & !CONTINUED } else { flags };
            match flags {
                0 | CONTINUED => open.add(bytes)?,
                WAS_CONTINUED => open.go_on(bytes)?,
                COMMIT => committed.extend(self.open.remove(&id)),
                UNMOUNT => drop(self.open.remove(&id)),
                _ => return Err(damaged(format!("an operation with flags {flags:#x}"))),
            }
            self.held += bytes.len();
            if self.open.is_empty() {
                self.held = 0;
            } else if self.held > MEMORY {
                return Err(Error::unsupported("this XFS log", "its transactions are too large"));
            }
        }
        Ok(committed)
    }
}

impl Transaction {
    /// Adds a region, or the start of one.
    fn add(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.header < HEADER {
            if self.header == 0 && le_u32(bytes, 0) != Some(MAGIC) {
                return Err(damaged("a transaction has no header"));
            }
            return self.add_header(bytes);
        }
        match self.items.last_mut() {
            Some(item) if item.regions.len() < item.total => item.regions.push(bytes.to_vec()),
            _ => {
                let total = usize::from(le_u16(bytes, 2).unwrap_or_default());
                if total == 0 || total > MOST_REGIONS {
                    return Err(damaged(format!("an item of {total} regions")));
                }
                self.items.push(Item { regions: vec![bytes.to_vec()], total });
            }
        }
        Ok(())
    }

    /// Adds the rest of the last region.
    fn go_on(&mut self, bytes: &[u8]) -> Result<()> {
        if self.header < HEADER {
            return self.add_header(bytes);
        }
        let last = self.items.last_mut().and_then(|item| item.regions.last_mut());
        last.ok_or_else(|| damaged("an operation goes on from nothing"))?.extend_from_slice(bytes);
        Ok(())
    }

    fn add_header(&mut self, bytes: &[u8]) -> Result<()> {
        self.header += bytes.len();
        if self.header > HEADER {
            return Err(damaged("the header of a transaction is too long"));
        }
        Ok(())
    }
}

/// `TRAN`
const MAGIC: u32 = 0x5452_414e;
/// Bytes of the header of a transaction, and of an operation.
const HEADER: usize = 16;
const OPERATION: usize = 12;
const START: u8 = 0x01;
const COMMIT: u8 = 0x02;
const CONTINUED: u8 = 0x04;
const WAS_CONTINUED: u8 = 0x08;
const END: u8 = 0x10;
const UNMOUNT: u8 = 0x20;
/// Regions of one item: more than a buffer of 64 KiB has chunks.
const MOST_REGIONS: usize = 2048;
/// Bytes of transactions at once.
const MEMORY: usize = 512 << 20;
