//! The markers of a stream, from front to back: what a forward reader meets, damage included.

use std::ops::Range;

use crate::{
    SECTOR,
    error::Result,
    extent::Backing,
    layout::{GRAIN_MARKER_BYTES, Marker, MetadataKind, SparseHeader},
};

/// What stands at a place of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A grain whose marker is possible.
    Grain(PackedGrain),
    /// A marker of metadata, and how many sectors follow it.
    Metadata { sector: u64, kind: MetadataKind, sectors: u64 },
    /// The end marker.
    End { sector: u64 },
    /// Sectors without a marker that is possible.
    Damage(Range<u64>),
}

/// A compressed grain in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackedGrain {
    /// Sector of its marker.
    pub(crate) sector: u64,
    /// First sector on the disk.
    pub(crate) disk_sector: u64,
    /// Bytes of zlib data behind the marker.
    pub(crate) bytes: u32,
}

impl PackedGrain {
    /// The sectors of the file that it takes, marker included.
    pub(crate) fn sectors(&self) -> Range<u64> {
        self.sector..self.sector + (GRAIN_MARKER_BYTES as u64 + u64::from(self.bytes)).div_ceil(SECTOR)
    }

    /// Where its zlib data are, in bytes.
    pub(crate) fn data(&self) -> Range<u64> {
        let start = self.sector * SECTOR + GRAIN_MARKER_BYTES as u64;
        start..start + u64::from(self.bytes)
    }
}

/// Reads markers of one stream.
#[derive(Debug, Clone)]
pub(crate) struct Markers {
    backing: Backing,
    len: u64,
    capacity_sectors: u64,
    grain_sectors: u64,
    directory_sectors: u64,
    next: u64,
    ended: bool,
}

impl Markers {
    /// The markers of the stream that `header` describes, from the first grain on.
    pub(crate) fn new(backing: &Backing, header: &SparseHeader) -> Result<Self> {
        let len = backing.len()?;
        let mut markers = Self {
            backing: backing.clone(),
            len,
            capacity_sectors: header.capacity_sectors,
            grain_sectors: header.grain_sectors,
            directory_sectors: (header.directory_entries() * 4).div_ceil(SECTOR),
            next: header.overhead_sectors.max(1).min(len / SECTOR),
            ended: false,
        };
        markers.next = markers.first(header)?;
        Ok(markers)
    }

    /// Where the first marker is: where the header says, unless that is inside of the descriptor, or is no marker while
    /// there is one before it.
    fn first(&self, header: &SparseHeader) -> Result<u64> {
        let said = self.next;
        let descriptor = header.descriptor_range(self.len, &self.backing.name).ok().flatten();
        let least = descriptor.map_or(1, |range| range.end.div_ceil(SECTOR));
        let is_right = said >= least && matches!(self.at(said)?, Some(Piece::Grain(_) | Piece::Metadata { .. }));
        if is_right {
            return Ok(said);
        }
        let end = if said < least { self.sectors() } else { said };
        Ok(self.resume(least, end)?.unwrap_or(said))
    }

    /// What stands at the next place, `None` at the end of the file or behind the end marker.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>> {
        let sector = self.next;
        if self.ended || sector >= self.sectors() {
            return Ok(None);
        }
        let piece = match self.at(sector)? {
            // Zeros are an end marker; in the middle of a file they are damage.
            Some(Piece::End { .. }) | None => match self.resume(sector + 1, self.sectors())? {
                Some(resume) => Piece::Damage(sector..resume),
                None if self.at(sector)?.is_some() => Piece::End { sector },
                None => Piece::Damage(sector..self.sectors()),
            },
            Some(piece) => piece,
        };
        self.next = match &piece {
            Piece::Grain(grain) => grain.sectors().end,
            Piece::Metadata { sector, sectors, .. } => sector + 1 + sectors,
            Piece::Damage(range) => range.end,
            Piece::End { sector } => sector + 1,
        };
        self.ended = matches!(piece, Piece::End { .. });
        Ok(Some(piece))
    }

    /// What stands at `sector`; `None` when it is no marker that is possible.
    pub(crate) fn at(&self, sector: u64) -> Result<Option<Piece>> {
        let start = sector.saturating_mul(SECTOR);
        let mut bytes = [0; 16];
        // A writer may leave the padding of its last grain away.
        let len = self.len.saturating_sub(start).min(16) as usize;
        if len < GRAIN_MARKER_BYTES {
            return Ok(None);
        }
        self.backing.read(start, &mut bytes[..len])?;
        Ok(match Marker::parse(&bytes) {
            Marker::Grain { sector: disk_sector, compressed_bytes } => {
                let grain = PackedGrain { sector, disk_sector, bytes: compressed_bytes };
                (is_zlib(&bytes) && self.is_possible(&grain)).then_some(Piece::Grain(grain))
            }
            Marker::Metadata { kind, sectors } => {
                let known = match kind {
                    MetadataKind::Table => sectors == 4,
                    MetadataKind::Directory => sectors == self.directory_sectors,
                    MetadataKind::Footer => sectors == 1,
                    MetadataKind::Progress | MetadataKind::Other(_) => sectors <= MAX_UNKNOWN_SECTORS,
                };
                let fits = sector + 1 + sectors.min(self.sectors()) <= self.sectors();
                (known && fits).then_some(Piece::Metadata { sector, kind, sectors })
            }
            Marker::EndOfStream => Some(Piece::End { sector }),
        })
    }

    pub(crate) fn grain_sectors(&self) -> u64 {
        self.grain_sectors
    }

    pub(crate) fn capacity_sectors(&self) -> u64 {
        self.capacity_sectors
    }

    /// The sector after the last piece.
    pub(crate) fn position(&self) -> u64 {
        self.next
    }

    /// Goes on at another sector.
    pub(crate) fn go_to(&mut self, sector: u64) {
        self.next = sector;
    }

    /// The first marker of a grain inside of the sectors that `grain` claims: one of the two is wrong.
    pub(crate) fn hidden(&self, grain: &PackedGrain) -> Result<Option<PackedGrain>> {
        let sectors = grain.sectors();
        let Some(sector) = self.resume(sectors.start + 1, sectors.end)? else { return Ok(None) };
        match self.at(sector)? {
            Some(Piece::Grain(found)) => Ok(Some(found)),
            _ => Ok(None),
        }
    }

    /// Bytes behind the end marker up to the last one that is not zero. Writers that allocate whole grains leave zeros.
    pub(crate) fn rest(&self) -> Result<u64> {
        if !self.ended {
            return Ok(0);
        }
        let start = self.next.saturating_mul(SECTOR);
        let (mut at, mut end) = (start, start);
        let mut bytes = vec![0; (BLOCK * SECTOR) as usize];
        while at < self.len {
            let len = (self.len - at).min(BLOCK * SECTOR) as usize;
            self.backing.read(at, &mut bytes[..len])?;
            if let Some(last) = bytes[..len].iter().rposition(|byte| *byte != 0) {
                end = at + last as u64 + 1;
            }
            at += len as u64;
        }
        Ok(end - start)
    }

    fn sectors(&self) -> u64 {
        self.len.div_ceil(SECTOR)
    }

    fn is_possible(&self, grain: &PackedGrain) -> bool {
        grain.disk_sector < self.capacity_sectors
            && grain.disk_sector.is_multiple_of(self.grain_sectors)
            && u64::from(grain.bytes) <= packed_bound(self.grain_sectors)
            && grain.data().end <= self.len
    }

    /// The first sector of `sector..end` where the stream goes on: a marker of a grain with zlib data behind it, or of
    /// metadata that are known.
    fn resume(&self, sector: u64, end: u64) -> Result<Option<u64>> {
        let mut bytes = Vec::new();
        let (mut start, mut block) = (sector, FIRST_BLOCK);
        while start < end.min(self.sectors()) {
            let len = (self.len - start * SECTOR).min((end - start).min(block) * SECTOR) as usize;
            bytes.resize(len, 0);
            self.backing.read(start * SECTOR, &mut bytes[..len])?;
            for (index, block) in bytes[..len].chunks(SECTOR as usize).enumerate() {
                // Most sectors can be told from a marker by their first bytes.
                let candidate = start + index as u64;
                if is_marker_like(block)
                    && matches!(self.at(candidate)?, Some(Piece::Grain(_) | Piece::Metadata { .. }))
                {
                    return Ok(Some(candidate));
                }
            }
            start += block;
            // The next marker is near, mostly: crafted damage must not make every search read much.
            block = (block * 2).min(BLOCK);
        }
        Ok(None)
    }
}

/// Largest number of compressed bytes of a grain that any reader accepts.
pub(crate) fn packed_bound(grain_sectors: u64) -> u64 {
    grain_sectors * SECTOR * 2 + 64
}

/// Whether a sector may begin with the marker of a grain with a zlib header behind it, or with one of metadata.
fn is_marker_like(sector: &[u8]) -> bool {
    let Some(start) = sector.get(..16) else { return false };
    let size = u32::from_le_bytes([start[8], start[9], start[10], start[11]]);
    if size != 0 {
        return start.try_into().is_ok_and(is_zlib);
    }
    let kind = u32::from_le_bytes([start[12], start[13], start[14], start[15]]);
    (1..=4).contains(&kind) && sector[16..].iter().all(|byte| *byte == 0)
}

/// Whether zlib data follow the marker of a grain (RFC 1950: deflate, and a check of the two bytes).
fn is_zlib(marker: &[u8; 16]) -> bool {
    marker[12] & 0x0f == 8 && u16::from_be_bytes([marker[12], marker[13]]).is_multiple_of(31)
}

/// Sectors that an unknown marker may announce.
const MAX_UNKNOWN_SECTORS: u64 = 1 << 16;

/// Sectors that are read at once.
const BLOCK: u64 = 256;

/// Sectors that a search reads first.
const FIRST_BLOCK: u64 = 8;
