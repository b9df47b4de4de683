//! Directories of FAT: short names, each with the long one in front of it.

use super::{
    name,
    raw::{ENTRY, RawEntries},
    time::from_dos,
};
use crate::{
    bytes::{le_u16, le_u32},
    error::Result,
    fs::{FileKind, FileName, Metadata},
};

/// Reads a directory file by file.
pub(super) struct Listing {
    raw: RawEntries,
    done: bool,
}

/// A file, or the label of the volume.
pub(super) struct Item {
    /// Where the short entry lies on the device.
    pub(super) place: u64,
    pub(super) long: Option<Vec<u16>>,
    pub(super) entry: ShortEntry,
}

/// An entry with a short name.
#[derive(Clone, Copy)]
pub(super) struct ShortEntry([u8; ENTRY]);

impl Listing {
    pub(super) fn new(raw: RawEntries) -> Self {
        Self { raw, done: false }
    }
}

impl Iterator for Listing {
    type Item = Result<Item>;

    /// The next file that is not `.` or `..`; nothing more after the end or an error.
    fn next(&mut self) -> Option<Self::Item> {
        let mut long = LongName::default();
        while !self.done {
            let (place, raw) = match self.raw.next() {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            };
            match raw {
                // Nothing was ever written from here on.
                [0, ..] => self.done = true,
                [DELETED, ..] => long = LongName::default(),
                _ if is_long(&raw) => long.add(&raw),
                _ => {
                    let entry = ShortEntry(raw);
                    let long = std::mem::take(&mut long).finish(entry.name());
                    if !entry.is_dot() {
                        return Some(Ok(Item { place, long, entry }));
                    }
                }
            }
        }
        self.done = true;
        None
    }
}

impl Item {
    /// The long name, or the short one for lack of it.
    pub(super) fn units(&self) -> Vec<u16> {
        self.long.clone().unwrap_or_else(|| self.entry.units())
    }

    /// Whether the guest's system would find it by this name.
    pub(super) fn is(&self, wanted: &[u16]) -> bool {
        let long = self.long.as_ref().is_some_and(|long| name::same(long, wanted));
        long || (wanted.len() <= LONGEST_SHORT && name::same(&self.entry.units(), wanted))
    }
}

impl ShortEntry {
    /// Takes what lies at a place; `None` when that is no entry of a file.
    pub(super) fn parse(raw: [u8; ENTRY]) -> Option<Self> {
        let entry = Self(raw);
        let file =
            !matches!(raw.first(), Some(&(0 | DELETED))) && !is_long(&raw) && !entry.is_label() && !entry.is_dot();
        file.then_some(entry)
    }

    fn name(&self) -> &[u8; 11] {
        self.0.first_chunk().expect("an entry has 32 bytes")
    }

    pub(super) fn units(&self) -> Vec<u16> {
        name::short(self.name(), self.byte(12))
    }

    /// The label, if it is one.
    pub(super) fn label(&self) -> Option<FileName> {
        self.is_label().then(|| FileName::from_utf16(name::label(self.name())))
    }

    pub(super) fn is_label(&self) -> bool {
        self.byte(11) & VOLUME_ID != 0
    }

    fn is_dot(&self) -> bool {
        matches!(self.name(), b".          " | b"..         ")
    }

    pub(super) fn is_directory(&self) -> bool {
        self.byte(11) & DIRECTORY != 0
    }

    pub(super) fn kind(&self) -> FileKind {
        if self.is_directory() { FileKind::Directory } else { FileKind::File }
    }

    /// Its first cluster; 0 for an empty file.
    pub(super) fn cluster(&self, high: bool) -> u32 {
        let high = if high { u32::from(self.number(20)) << 16 } else { 0 };
        high | u32::from(self.number(26))
    }

    pub(super) fn size(&self) -> u64 {
        if self.is_directory() { 0 } else { le_u32(&self.0, 28).unwrap_or_default().into() }
    }

    pub(super) fn metadata(&self, cluster_size: u32) -> Metadata {
        let mut metadata = Metadata::new(self.kind(), self.size());
        metadata.allocated = self.size().next_multiple_of(u64::from(cluster_size));
        let attributes = self.byte(11);
        metadata.attributes = Some(u32::from(attributes & 0x3f));
        if attributes & READ_ONLY != 0 && !self.is_directory() {
            metadata.mode = 0o444;
        }
        let modified = from_dos(self.number(24), self.number(22), 0).unwrap_or_default();
        metadata.times.modified = modified;
        metadata.times.changed = modified;
        metadata.times.accessed = from_dos(self.number(18), 0, 0).unwrap_or(modified);
        metadata.times.created = from_dos(self.number(16), self.number(14), self.byte(13));
        metadata
    }

    fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or_default()
    }

    fn number(&self, at: usize) -> u16 {
        le_u16(&self.0, at).unwrap_or_default()
    }
}

/// A long name, whose parts come last first.
#[derive(Default)]
struct LongName {
    /// Thirteen units each, the last part first.
    parts: Vec<[u16; 13]>,
    /// The number of the part that has to come next.
    next: u8,
    checksum: u8,
}

impl LongName {
    fn add(&mut self, raw: &[u8; ENTRY]) {
        let [order, ..] = *raw;
        let checksum = raw[13];
        let number = order & !LAST;
        if order & LAST != 0 && (1..=LONGEST).contains(&number) {
            *self = Self { parts: Vec::with_capacity(number.into()), next: number, checksum };
        } else if self.next == 0 || number != self.next || checksum != self.checksum {
            // What belongs to no short name is left over from systems that know no long names.
            *self = Self::default();
            return;
        }
        let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2));
        let mut part = [0; 13];
        for (unit, at) in part.iter_mut().zip(places) {
            *unit = le_u16(raw, at).unwrap_or_default();
        }
        self.parts.push(part);
        self.next -= 1;
    }

    /// The name, if it is whole and belongs to the short one.
    fn finish(self, short: &[u8; 11]) -> Option<Vec<u16>> {
        if self.parts.is_empty() || self.next != 0 || self.checksum != name::checksum(short) {
            return None;
        }
        let units = self.parts.iter().rev().flatten().copied();
        let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
        (!units.is_empty()).then_some(units)
    }
}

fn is_long(raw: &[u8; ENTRY]) -> bool {
    raw[11] & 0x3f == LONG_NAME
}

/// First byte of an entry that was deleted.
const DELETED: u8 = 0xe5;
/// Attributes.
const READ_ONLY: u8 = 0x01;
const VOLUME_ID: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
/// All the attributes of a part of a long name.
const LONG_NAME: u8 = 0x0f;
/// Flag of the last part of a long name, which comes first.
const LAST: u8 = 0x40;
/// Parts of the longest name.
const LONGEST: u8 = 20;
/// Characters of the longest short name, with its dot.
const LONGEST_SHORT: usize = 12;
