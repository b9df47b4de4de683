//! What the entries of directories and tables mean, format by format.

use std::sync::atomic::{AtomicU32, Ordering};

use super::Place;
use crate::{
    SECTOR,
    layout::{CowdHeader, SeSparseDirectoryEntry, SeSparseEntry, SeSparseHeader},
};

/// Hosted entry of a grain that is not stored.
const UNALLOCATED: u32 = 0;
/// Hosted entry of a grain of zeros. VMware reads it so whether or not the header has the flag, and no grain
/// can be at sector 1: the header or the descriptor is there.
pub(crate) const ZERO_GRAIN: u32 = 1;

/// What the entries of directory and tables mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entries {
    /// `KDMV`: sectors of 32 bits; 1 is a grain of zeros.
    Hosted,
    /// `KDMV` with compressed grains: sectors of markers in a file of `file_len` bytes.
    Packed { file_len: u64 },
    /// `COWD`: sectors of 32 bits; there are no zero grains.
    Cowd,
    /// seSparse: tables and grains by number, in areas of the file that the header names.
    SeSparse(Box<SeSparseHeader>),
}

impl Entries {
    /// Bytes of an entry.
    pub(crate) fn width(&self) -> u64 {
        match self {
            Self::Hosted | Self::Packed { .. } | Self::Cowd => 4,
            Self::SeSparse(_) => 8,
        }
    }

    pub(super) fn load(&self, table: &[AtomicU32], index: usize) -> u64 {
        let word = |at: usize| u64::from(table[at].load(Ordering::Acquire));
        match self {
            Self::Hosted | Self::Packed { .. } | Self::Cowd => word(index),
            // Nobody writes these tables, so that two loads see one entry.
            Self::SeSparse(_) => word(2 * index) | word(2 * index + 1) << 32,
        }
    }

    /// How many entries behind `index` are the same as the one there.
    pub(super) fn alike(&self, table: &[AtomicU32], index: usize) -> u64 {
        // What tells of no grain orders no reads of one.
        let word = |word: &AtomicU32| word.load(Ordering::Relaxed);
        let width = (self.width() / 4) as usize;
        let alike = match &table[index * width..] {
            [first, rest @ ..] if width == 1 => {
                let first = word(first);
                rest.iter().take_while(|next| word(next) == first).count()
            }
            words => {
                let mut entries = words.chunks_exact(width).map(|entry| entry.iter().map(word));
                let first = entries.next();
                entries.take_while(|next| first.as_ref().is_some_and(|first| next.clone().eq(first.clone()))).count()
            }
        };
        alike as u64
    }

    /// Where a table is, as the directory's entry says.
    pub(super) fn table_offset(&self, entry: u64) -> Result<Option<u64>, &'static str> {
        match self {
            Self::SeSparse(header) => match SeSparseDirectoryEntry::decode(entry) {
                Some(SeSparseDirectoryEntry::None) => Ok(None),
                Some(SeSparseDirectoryEntry::Table(index)) => {
                    header.table_offset(index).map(Some).ok_or("names a table behind the last one")
                }
                None => Err("is of no known type"),
            },
            Self::Cowd if entry != 0 && !CowdHeader::is_possible_sector(entry as u32) => Err(IN_HEADER),
            Self::Hosted | Self::Packed { .. } | Self::Cowd => Ok((entry != 0).then_some(entry * SECTOR)),
        }
    }

    /// Where a grain is, as the table's entry says.
    pub(super) fn grain_place(&self, entry: u64) -> Result<Place, &'static str> {
        const NOTHING: u64 = UNALLOCATED as u64;
        const ZERO: u64 = ZERO_GRAIN as u64;
        match self {
            Self::Hosted | Self::Packed { .. } => Ok(match entry {
                NOTHING => Place::Unallocated,
                ZERO => Place::Zero,
                sector => Place::At(sector * SECTOR),
            }),
            Self::Cowd if entry == NOTHING => Ok(Place::Unallocated),
            Self::Cowd if CowdHeader::is_possible_sector(entry as u32) => Ok(Place::At(entry * SECTOR)),
            Self::Cowd => Err(IN_HEADER),
            Self::SeSparse(header) => match SeSparseEntry::decode(entry) {
                Some(SeSparseEntry::Unallocated) => Ok(Place::Unallocated),
                Some(SeSparseEntry::Unmapped | SeSparseEntry::Zero) => Ok(Place::Zero),
                Some(SeSparseEntry::Grain(index)) => {
                    header.grain_offset(index).map(Place::At).ok_or("names a grain behind the last one")
                }
                None => Err("is of no known type"),
            },
        }
    }
}

const IN_HEADER: &str = "points into the header";
