//! Markers of `streamOptimized` extents: what stands before each grain and each piece of metadata.
//!
//! A grain's marker has 12 bytes and its deflated data follow at once; all others fill a sector. Facts: VMware's
//! "Virtual Disk Format 5.0" technical note; the zlib framing of grains is what every implementation writes.

use crate::SECTOR;

/// Bytes of a grain's marker, before its compressed data.
pub const GRAIN_MARKER_BYTES: usize = 12;

/// What a marker announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Marker {
    /// A compressed grain.
    Grain {
        /// First sector of the grain on the disk.
        sector: u64,
        /// Bytes of zlib data that follow.
        compressed_bytes: u32,
    },
    /// The stream ends here.
    EndOfStream,
    /// Metadata of this many sectors follow.
    Metadata {
        /// Which.
        kind: MetadataKind,
        /// Sectors after the marker's own.
        sectors: u64,
    },
}

/// What kind of metadata a marker announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetadataKind {
    /// A grain table, for the grains before it.
    Table,
    /// The grain directory.
    Directory,
    /// The header again, now complete.
    Footer,
    /// Written by open-vmdk; holds nothing that a reader needs.
    Progress,
    /// A kind that this crate does not know, by its number.
    Other(u32),
}

impl Marker {
    /// Reads a marker from the first bytes of its sector.
    pub fn parse(bytes: &[u8; 16]) -> Self {
        let value =
            u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]);
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        match (word(8), word(12)) {
            (0, 0) => Self::EndOfStream,
            (0, kind) => Self::Metadata { kind: MetadataKind::of(kind), sectors: value },
            (compressed_bytes, _) => Self::Grain { sector: value, compressed_bytes },
        }
    }

    /// The marker's own bytes: 12 for a grain, a sector for everything else.
    pub fn encode(self) -> Vec<u8> {
        let (value, size, kind) = match self {
            Self::Grain { sector, compressed_bytes } => {
                let mut bytes = sector.to_le_bytes().to_vec();
                bytes.extend_from_slice(&compressed_bytes.to_le_bytes());
                return bytes;
            }
            Self::EndOfStream => (0, 0_u32, 0),
            Self::Metadata { kind, sectors } => (sectors, 0, kind.number()),
        };
        let mut bytes = vec![0; SECTOR as usize];
        bytes[..8].copy_from_slice(&value.to_le_bytes());
        bytes[8..12].copy_from_slice(&size.to_le_bytes());
        bytes[12..16].copy_from_slice(&kind.to_le_bytes());
        bytes
    }
}

impl MetadataKind {
    fn of(number: u32) -> Self {
        match number {
            1 => Self::Table,
            2 => Self::Directory,
            3 => Self::Footer,
            4 => Self::Progress,
            other => Self::Other(other),
        }
    }

    fn number(self) -> u32 {
        match self {
            Self::Table => 1,
            Self::Directory => 2,
            Self::Footer => 3,
            Self::Progress => 4,
            Self::Other(number) => number,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encode_and_parse_are_inverse() {
        let markers = [
            Marker::Grain { sector: 1 << 40, compressed_bytes: 77 },
            Marker::EndOfStream,
            Marker::Metadata { kind: MetadataKind::Table, sectors: 4 },
            Marker::Metadata { kind: MetadataKind::Other(9), sectors: 1 },
        ];
        for marker in markers {
            let mut bytes = marker.encode();
            bytes.resize(512, 0xaa);
            let first: [u8; 16] = bytes[..16].try_into().unwrap();
            assert_eq!(Marker::parse(&first), marker);
        }
    }
}
