//! Binary headers: parsed, checked and encoded without any I/O.

mod cowd;
mod field;
mod marker;
mod sesparse;
mod sparse;

pub use self::{
    cowd::{COWD_ENTRIES_PER_TABLE, COWD_HEADER_BYTES, CowdHeader},
    marker::{GRAIN_MARKER_BYTES, Marker, MetadataKind},
    sesparse::{
        Area, SESPARSE_ENTRIES_PER_TABLE, SESPARSE_GRAIN_SECTORS, SESPARSE_HEADER_BYTES, SeSparseDirectoryEntry,
        SeSparseEntry, SeSparseHeader, SeSparseVolatileHeader,
    },
    sparse::{ENTRIES_PER_TABLE, HEADER_BYTES, MAX_DIRECTORY_ENTRIES, SparseFlags, SparseHeader, TABLE_BYTES},
};

/// What the first bytes of a file say that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Magic {
    /// Hosted sparse extent, streamOptimized included.
    Kdmv,
    /// ESXi redo log.
    Cowd,
    /// ESXi space-efficient sparse extent.
    SeSparse,
}

impl Magic {
    /// Looks at the first bytes of a file.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [b'K', b'D', b'M', b'V', ..] => Some(Self::Kdmv),
            [b'C', b'O', b'W', b'D', ..] => Some(Self::Cowd),
            [0xbe, 0xba, 0xfe, 0xca, 0, 0, 0, 0, ..] => Some(Self::SeSparse),
            _ => None,
        }
    }
}
