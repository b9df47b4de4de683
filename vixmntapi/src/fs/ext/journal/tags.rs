//! What a descriptor of the journal tells of the blocks behind it.

use super::{Checksums, Features};
use crate::bytes::{be_u16, be_u32, slice};

/// Where a block of the journal belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tag {
    pub(super) block: u64,
    /// Its first four bytes were the journal's magic number and are zeroed in the journal.
    pub(super) escaped: bool,
    pub(super) checksum: u32,
    /// Which bits of the checksum are kept.
    pub(super) checksum_mask: u32,
}

/// The tags of a descriptor.
pub(super) struct Tags<'a> {
    bytes: &'a [u8],
    at: usize,
    features: Features,
    done: bool,
}

impl<'a> Tags<'a> {
    pub(super) fn of(block: &'a [u8], features: Features) -> Self {
        let tail = if features.checksums.seed().is_some() { 4 } else { 0 };
        Self { bytes: &block[..block.len() - tail], at: HEADER, features, done: false }
    }

    /// Bytes of a tag, as the kernel's `journal_tag_bytes` counts them.
    fn len(&self) -> usize {
        match (self.features.checksums, self.features.wide) {
            (Checksums::V3(_), _) => 16,
            (Checksums::V2(_), true) => 14,
            (Checksums::V2(_), false) => 10,
            (_, true) => 12,
            (_, false) => 8,
        }
    }
}

impl Iterator for Tags<'_> {
    type Item = Tag;

    fn next(&mut self) -> Option<Tag> {
        if self.done {
            return None;
        }
        let len = self.len();
        let bytes = slice(self.bytes, self.at, len)?;
        let low = u64::from(be_u32(bytes, 0)?);
        let high = if self.features.wide { u64::from(be_u32(bytes, 8)?) } else { 0 };
        let (flags, checksum, checksum_mask) = match self.features.checksums {
            Checksums::V3(_) => (be_u32(bytes, 4)?, be_u32(bytes, 12)?, !0),
            _ => (u32::from(be_u16(bytes, 6)?), u32::from(be_u16(bytes, 4)?), 0xffff),
        };
        self.done = flags & LAST != 0;
        self.at += len + if flags & SAME_UUID == 0 { 16 } else { 0 };
        Some(Tag { block: low | high << 32, escaped: flags & ESCAPED != 0, checksum, checksum_mask })
    }
}

/// Bytes of the header of a block of the journal.
const HEADER: usize = 12;
const ESCAPED: u32 = 1;
const SAME_UUID: u32 = 2;
const LAST: u32 = 8;
