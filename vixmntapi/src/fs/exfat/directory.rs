//! Directories of exFAT: sets of entries, each with a checksum (chapters 6 and 7).

use std::collections::VecDeque;

use super::upcase::Upcase;
use crate::{
    bytes::{le_u16, le_u32, le_u64},
    error::{Error, Result},
    fs::{
        FileKind, Metadata, Timestamp,
        fat::{ENTRY, RawEntries, from_dos},
    },
};

/// Reads a directory file by file.
pub(super) struct Listing {
    raw: RawEntries,
    done: bool,
}

/// What a directory holds.
pub(super) enum Item {
    File(Box<FileEntry>),
    /// Of the root directory: the volume's label.
    Label(Vec<u16>),
    /// Of the root directory: where the table of capitals is.
    Upcase {
        checksum: u32,
        first: u32,
        len: u64,
    },
}

/// A file.
#[derive(Clone, Debug)]
pub(super) struct FileEntry {
    /// Where its entry lies on the device.
    pub(super) place: u64,
    pub(super) name: Vec<u16>,
    pub(super) hash: u16,
    pub(super) first: u32,
    /// Whether its clusters lie side by side, and the table says nothing of them.
    pub(super) contiguous: bool,
    pub(super) size: u64,
    /// Bytes that were written.
    pub(super) valid: u64,
    file: [u8; ENTRY],
}

impl Listing {
    pub(super) fn new(raw: RawEntries) -> Self {
        Self { raw, done: false }
    }

    fn step(&mut self) -> Result<Option<Item>> {
        let Some((place, raw)) = self.raw.next()? else {
            self.done = true;
            return Ok(None);
        };
        let number = |at| le_u32(&raw, at).unwrap_or_default();
        match raw[0] {
            END => self.done = true,
            kind if kind & IN_USE == 0 => {}
            FILE => return self.file(place, raw).map(|file| Some(Item::File(Box::new(file)))),
            LABEL => {
                let units = (2..24).step_by(2).filter_map(|at| le_u16(&raw, at));
                return Ok(Some(Item::Label(units.take(usize::from(raw[1]).min(11)).collect())));
            }
            UPCASE => {
                let len = le_u64(&raw, 24).unwrap_or_default();
                return Ok(Some(Item::Upcase { checksum: number(4), first: number(20), len }));
            }
            BITMAP => {}
            // What may be ignored, with the entries that belong to it.
            kind if kind & BENIGN != 0 => {}
            // Left over from a set of which the first entry is gone: chapter 6.2 says that it is of no file.
            kind if kind & SECONDARY != 0 => {}
            kind => return Err(damaged(place, format!("it is of the unknown kind {kind:#04x}"))),
        }
        Ok(None)
    }

    /// The rest of a set that begins with a file's entry.
    fn file(&mut self, place: u64, first: [u8; ENTRY]) -> Result<FileEntry> {
        let count = first[1];
        if !(2..=18).contains(&count) {
            return Err(damaged(place, format!("it says that {count} entries follow")));
        }
        let mut set = VecDeque::with_capacity(usize::from(count));
        for _ in 0..count {
            match self.raw.next()? {
                Some((_, raw)) => set.push_back(raw),
                None => return Err(damaged(place, "the directory ends within it".into())),
            }
        }
        FileEntry::parse(place, first, set)
    }
}

impl Iterator for Listing {
    type Item = Result<Item>;

    /// The next thing; nothing more after the end or an error.
    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            match self.step() {
                Ok(None) => {}
                Ok(Some(item)) => return Some(Ok(item)),
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl FileEntry {
    /// Reads the set at the current place; `None` when there is none.
    pub(super) fn read(raw: RawEntries) -> Result<Option<Self>> {
        let mut listing = Listing::new(raw);
        match listing.raw.next()? {
            Some((place, raw)) if raw[0] == FILE => listing.file(place, raw).map(Some),
            _ => Ok(None),
        }
    }

    fn parse(place: u64, file: [u8; ENTRY], mut set: VecDeque<[u8; ENTRY]>) -> Result<Self> {
        let mut sum = 0_u16;
        let all = std::iter::once(&file).chain(&set).flatten().enumerate();
        for (_, byte) in all.filter(|(at, _)| !matches!(at, 2 | 3)) {
            sum = sum.rotate_right(1).wrapping_add(u16::from(*byte));
        }
        if Some(sum) != le_u16(&file, 2) {
            return Err(damaged(place, "the checksum of its set is wrong".into()));
        }
        let stream = set.pop_front().filter(|entry| entry[0] == STREAM);
        let stream = stream.ok_or_else(|| damaged(place, "no stream follows it".into()))?;
        let names = set.iter().take_while(|entry| entry[0] == NAME);
        let units = names.flat_map(|entry| (2..ENTRY).step_by(2).filter_map(|at| le_u16(entry, at)));
        let name: Vec<u16> = units.take(usize::from(stream[3])).collect();
        if name.is_empty() || name.len() != usize::from(stream[3]) {
            return Err(damaged(place, format!("its name has {} of {} characters", name.len(), stream[3])));
        }
        let number = |at| le_u64(&stream, at).unwrap_or_default();
        let (valid, size) = (number(8), number(24));
        if valid > size {
            return Err(damaged(place, format!("{valid} of its {size} bytes are valid")));
        }
        let hash = le_u16(&stream, 4).unwrap_or_default();
        let first = le_u32(&stream, 20).unwrap_or_default();
        Ok(Self { place, name, hash, first, contiguous: stream[1] & NO_FAT_CHAIN != 0, size, valid, file })
    }

    pub(super) fn is_directory(&self) -> bool {
        self.attributes() & DIRECTORY != 0
    }

    pub(super) fn kind(&self) -> FileKind {
        if self.is_directory() { FileKind::Directory } else { FileKind::File }
    }

    pub(super) fn metadata(&self, cluster_size: u32) -> Metadata {
        let directory = self.is_directory();
        let mut metadata = Metadata::new(self.kind(), if directory { 0 } else { self.size });
        metadata.allocated = self.size.checked_next_multiple_of(u64::from(cluster_size)).unwrap_or(self.size);
        metadata.attributes = Some(u32::from(self.attributes()));
        if self.attributes() & READ_ONLY != 0 && !directory {
            metadata.mode = 0o444;
        }
        metadata.times.modified = self.time(12, Some(21), 23).unwrap_or_default();
        metadata.times.changed = metadata.times.modified;
        metadata.times.accessed = self.time(16, None, 24).unwrap_or(metadata.times.modified);
        metadata.times.created = self.time(8, Some(20), 22);
        metadata
    }

    /// Whether the guest's system would find it by a name, given in capitals with its hash.
    pub(super) fn is(&self, wanted: &[u16], hash: u16, upcase: &Upcase) -> bool {
        self.hash == hash && self.name.len() == wanted.len() && upcase.name(&self.name) == wanted
    }

    fn attributes(&self) -> u16 {
        le_u16(&self.file, 4).unwrap_or_default()
    }

    /// A moment in three fields: date and time, hundredths, quarters of an hour from UTC. Without the last it is as if
    /// it were in UTC.
    fn time(&self, at: usize, hundredths: Option<usize>, zone: usize) -> Option<Timestamp> {
        let byte = |at: usize| self.file.get(at).copied().unwrap_or_default();
        let local = from_dos(le_u16(&self.file, at + 2)?, le_u16(&self.file, at)?, hundredths.map_or(0, byte))?;
        let zone = byte(zone);
        // Seven bits with a sign, below a bit that says that they count.
        let quarters = if zone & 0x80 != 0 { i64::from((zone << 1) as i8 >> 1) } else { 0 };
        Some(Timestamp::new(local.seconds - quarters * 900, local.nanos))
    }
}

fn damaged(place: u64, problem: String) -> Error {
    Error::damaged(format!("the directory entry of exFAT at byte {place}"), problem)
}

/// Kinds of entries: chapter 7.
const END: u8 = 0;
const BITMAP: u8 = 0x81;
const UPCASE: u8 = 0x82;
const LABEL: u8 = 0x83;
const FILE: u8 = 0x85;
const STREAM: u8 = 0xc0;
const NAME: u8 = 0xc1;
/// Bits of the kinds: chapter 6.2.
const IN_USE: u8 = 0x80;
const SECONDARY: u8 = 0x40;
const BENIGN: u8 = 0x20;
/// Flag of a stream.
const NO_FAT_CHAIN: u8 = 2;
/// Attributes.
const READ_ONLY: u16 = 0x01;
const DIRECTORY: u16 = 0x10;
