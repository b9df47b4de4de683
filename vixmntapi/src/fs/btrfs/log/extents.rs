//! Extents: the logged ones take the place of what was there.

use super::{EXTENT_DATA, Replay, damaged};
use crate::{
    bytes::{le_u64, u8_at},
    error::Result,
    fs::btrfs::{
        content::{INLINE, PREALLOCATED, REGULAR},
        tree::Key,
    },
};

impl Replay<'_> {
    /// Removes what lies after the end of a file.
    pub(super) fn cut(&mut self, number: u64, size: u64) -> Result<()> {
        match size.checked_next_multiple_of(self.sector()) {
            Some(end) => self.clear(number, end, u64::MAX),
            None => Err(damaged(format!("inode {number} has {size} bytes"))),
        }
    }

    /// Puts an extent in.
    pub(super) fn extent(&mut self, key: Key, item: &[u8]) -> Result<()> {
        self.existing(key.object)?;
        let end = self.end(key, item)?;
        let same = self.view().item(key)?;
        if same.as_deref() == Some(item) {
            return Ok(());
        }
        self.clear(key.object, key.offset, end)?;
        self.changes.put(key, item.to_vec())
    }

    /// Removes what is from one byte of a file to another; what goes beyond on either side stays there.
    fn clear(&mut self, number: u64, start: u64, end: u64) -> Result<()> {
        if start >= end {
            return Ok(());
        }
        let at = |offset| Key::new(number, EXTENT_DATA, offset);
        let last = self.before(number, end)?;
        let first = self.before(number, start)?;
        // What goes beyond the end, first: it may be the same that begins before the start.
        if let Some((key, item)) = last
            && self.end(key, &item)? > end
        {
            let rest = self.rest(key, item, end)?;
            self.changes.put(at(end), rest)?;
        }
        if let Some((key, item)) = first
            && self.end(key, &item)? > start
        {
            let begin = self.begin(key, item, start)?;
            self.changes.put(key, begin)?;
        }
        self.changes.remove(at(start), at(end - 1))
    }

    /// The last extent that begins before a byte.
    fn before(&self, number: u64, byte: u64) -> Result<Option<(Key, Vec<u8>)>> {
        let Some(last) = byte.checked_sub(1) else { return Ok(None) };
        let (found, _) = self.view().around(Key::new(number, EXTENT_DATA, last))?;
        Ok(found.filter(|(key, _)| (key.object, key.kind) == (number, EXTENT_DATA)))
    }

    /// Where an extent ends in its file.
    fn end(&self, key: Key, item: &[u8]) -> Result<u64> {
        let end = match u8_at(item, 20) {
            Some(INLINE) => {
                le_u64(item, 8).and_then(|len| key.offset.checked_add(len)?.checked_next_multiple_of(self.sector()))
            }
            Some(REGULAR | PREALLOCATED) => le_u64(item, 45).and_then(|len| key.offset.checked_add(len)),
            _ => None,
        };
        end.ok_or_else(|| damaged(format!("the extent at byte {} of inode {} is none", key.offset, key.object)))
    }

    /// An extent without what is before a byte.
    fn rest(&self, key: Key, mut item: Vec<u8>, from: u64) -> Result<Vec<u8>> {
        let gone = from - key.offset;
        let moved = || {
            let (address, skip, len) = (le_u64(&item, 21)?, le_u64(&item, 37)?, le_u64(&item, 45)?);
            // Holes have no place.
            let skip = if address == 0 { skip } else { skip.checked_add(gone)? };
            Some((skip, len.checked_sub(gone)?)).filter(|_| u8_at(&item, 20) != Some(INLINE))
        };
        let (skip, len) = moved().ok_or_else(|| parted(key))?;
        super::set(&mut item, 37, skip);
        super::set(&mut item, 45, len);
        Ok(item)
    }

    /// An extent up to a byte.
    fn begin(&self, key: Key, mut item: Vec<u8>, to: u64) -> Result<Vec<u8>> {
        if u8_at(&item, 20) == Some(INLINE) {
            return Err(parted(key));
        }
        super::set(&mut item, 45, to - key.offset);
        Ok(item)
    }

    fn sector(&self) -> u64 {
        self.volume.superblock.sector_size.into()
    }
}

fn parted(key: Key) -> crate::Error {
    damaged(format!("the extent at byte {} of inode {} cannot be parted", key.offset, key.object))
}
