//! Attributes of MFT records as they are stored.

use crate::{
    bytes::{le_u16, le_u32, le_u64},
    error::{Error, Result},
};

/// Types of attributes, as `$AttrDef` numbers them.
pub(super) mod kind {
    pub(in super::super) const STANDARD_INFORMATION: u32 = 0x10;
    pub(in super::super) const ATTRIBUTE_LIST: u32 = 0x20;
    pub(in super::super) const FILE_NAME: u32 = 0x30;
    pub(in super::super) const SECURITY_DESCRIPTOR: u32 = 0x50;
    pub(in super::super) const VOLUME_NAME: u32 = 0x60;
    pub(in super::super) const VOLUME_INFORMATION: u32 = 0x70;
    pub(in super::super) const DATA: u32 = 0x80;
    pub(in super::super) const INDEX_ROOT: u32 = 0x90;
    pub(in super::super) const INDEX_ALLOCATION: u32 = 0xa0;
    pub(in super::super) const REPARSE_POINT: u32 = 0xc0;
    pub(in super::super) const EA: u32 = 0xe0;
}

/// Bits of an attribute's flags.
pub(super) mod flag {
    /// The method of compression; 1 is LZNT1.
    pub(in super::super) const COMPRESSION: u16 = 0x00ff;
    pub(in super::super) const ENCRYPTED: u16 = 0x4000;
    pub(in super::super) const SPARSE: u16 = 0x8000;
}

/// An attribute in its record.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawAttribute<'a> {
    pub(super) kind: u32,
    /// UTF-16, little endian; empty for most.
    pub(super) name: &'a [u8],
    pub(super) flags: u16,
    /// Tells it from others of its record.
    pub(super) id: u16,
    pub(super) body: RawBody<'a>,
}

/// What an attribute holds, or where.
#[derive(Clone, Copy, Debug)]
pub(super) enum RawBody<'a> {
    Resident(&'a [u8]),
    Mapped(RawMapping<'a>),
}

/// The part of a non-resident attribute that one record tells of.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawMapping<'a> {
    /// Clusters of the attribute that this part maps: first, and one past the last.
    pub(super) first: u64,
    pub(super) end: u64,
    /// Sizes in bytes; right in the part that begins at cluster 0.
    pub(super) sizes: Sizes,
    /// Two to the power of this are the clusters that are compressed together; 0 for none.
    pub(super) unit: u8,
    /// The runs.
    pub(super) pairs: &'a [u8],
}

/// Sizes of an attribute, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sizes {
    pub(super) data: u64,
    /// What was written; the rest reads as zeros.
    pub(super) initialized: u64,
    /// What it takes on the volume.
    pub(super) allocated: u64,
}

impl<'a> RawAttribute<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let kind = le_u32(bytes, 0)?;
        let flags = le_u16(bytes, 0x0c)?;
        let at = usize::from(le_u16(bytes, 0x0a)?);
        let name = match usize::from(*bytes.get(9)?) {
            0 => &[][..],
            units => bytes.get(at..at + units * 2)?,
        };
        let body = match *bytes.get(8)? {
            0 => {
                let at = usize::from(le_u16(bytes, 0x14)?);
                RawBody::Resident(bytes.get(at..at.checked_add(le_u32(bytes, 0x10)? as usize)?)?)
            }
            _ => RawBody::Mapped(RawMapping::parse(bytes, flags)?),
        };
        Some(Self { kind, name, flags, id: le_u16(bytes, 0x0e)?, body })
    }

    pub(super) fn is(&self, kind: u32, name: &[u16]) -> bool {
        self.kind == kind && is_name(self.name, name)
    }
}

impl<'a> RawMapping<'a> {
    fn parse(bytes: &'a [u8], flags: u16) -> Option<Self> {
        let first = le_u64(bytes, 0x10)?;
        // The last cluster of an empty attribute is -1.
        let end = le_u64(bytes, 0x18)?.wrapping_add(1);
        let at = usize::from(le_u16(bytes, 0x20)?);
        let mut sizes = Sizes::default();
        // Parts that continue an attribute may leave these out.
        if first == 0 {
            let data = le_u64(bytes, 0x30)?;
            let packed = flags & (flag::COMPRESSION | flag::SPARSE) != 0 && at >= 0x48;
            let allocated = le_u64(bytes, if packed { 0x40 } else { 0x28 })?;
            sizes = Sizes { data, initialized: le_u64(bytes, 0x38)?.min(data), allocated };
        }
        Some(Self { first, end, sizes, unit: *bytes.get(0x22)?, pairs: bytes.get(at..)? })
            .filter(|mapping| mapping.first <= mapping.end && mapping.sizes.data <= i64::MAX as u64)
    }
}

/// The attributes of a record, one after another.
#[derive(Clone, Debug)]
pub(super) struct RawAttributes<'a> {
    record: u64,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> RawAttributes<'a> {
    pub(super) fn new(record: u64, bytes: &'a [u8], first: usize) -> Self {
        Self { record, bytes, at: first }
    }

    fn take(&mut self) -> Option<Option<RawAttribute<'a>>> {
        if le_u32(self.bytes, self.at)? == END {
            return Some(None);
        }
        let len = le_u32(self.bytes, self.at + 4)? as usize;
        let bytes = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        let attribute = RawAttribute::parse(bytes)?;
        self.at += len;
        Some(Some(attribute))
    }
}

impl<'a> Iterator for RawAttributes<'a> {
    type Item = Result<RawAttribute<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == DONE {
            return None;
        }
        let at = self.at;
        match self.take() {
            Some(Some(attribute)) => Some(Ok(attribute)),
            Some(None) => {
                self.at = DONE;
                None
            }
            None => {
                self.at = DONE;
                let what = format!("MFT record {}", self.record);
                Some(Err(Error::damaged(what, format!("the attribute at byte {at} contradicts itself"))))
            }
        }
    }
}

/// Whether stored UTF-16 is this name.
pub(super) fn is_name(stored: &[u8], name: &[u16]) -> bool {
    stored.len() == name.len() * 2 && units(stored).eq(name.iter().copied())
}

/// Stored UTF-16.
pub(super) fn units(stored: &[u8]) -> impl Iterator<Item = u16> + '_ {
    stored.chunks_exact(2).filter_map(|unit| le_u16(unit, 0))
}

const END: u32 = 0xffff_ffff;
const DONE: usize = usize::MAX;
