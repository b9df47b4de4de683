//! Grains made ready for a stream, away from it: on as many threads as there are.

use super::{
    codec::Deflater,
    spec::{Packing, StreamSpec},
};
use crate::{
    SECTOR,
    copy::is_zero,
    error::{Error, Result},
    layout::{GRAIN_MARKER_BYTES, Marker},
};

/// Grains as they stand in a stream: each behind its marker, filled up to a sector. Made by a [`Packer`], placed by a
/// [`StreamEncoder`](super::StreamEncoder).
#[derive(Debug, Clone, Default)]
pub struct PackedGrains {
    bytes: Vec<u8>,
    grains: Vec<Placed>,
}

/// A grain of [`PackedGrains`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    /// Its number on the disk.
    pub(super) number: u64,
    /// Where its marker is, in sectors from the first of them.
    pub(super) sector: u32,
}

impl PackedGrains {
    /// Their bytes in the stream.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Their bytes in the stream.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// How many grains these are.
    pub fn len(&self) -> usize {
        self.grains.len()
    }

    /// Whether there are none: all data were zeros.
    pub fn is_empty(&self) -> bool {
        self.grains.is_empty()
    }

    /// Drops the grains and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.grains.clear();
    }

    pub(super) fn placed(&self) -> &[Placed] {
        &self.grains
    }
}

/// Packs grains. What it gives depends on its [`StreamSpec`] and the data alone: any number of packers make the bytes
/// that one makes.
#[derive(Debug)]
pub struct Packer {
    packing: Packing,
    deflater: Deflater,
    /// A last grain that the disk's end cuts, filled up with zeros.
    last: Vec<u8>,
}

impl Packer {
    /// A packer for the stream of `spec`.
    ///
    /// # Errors
    /// Those of [`StreamEncoder::new`](super::StreamEncoder::new).
    pub fn new(spec: &StreamSpec) -> Result<Self> {
        spec.head()?;
        Ok(Self::with(spec.packing()))
    }

    pub(super) fn with(packing: Packing) -> Self {
        Self { packing, deflater: Deflater::new(packing.level), last: Vec::new() }
    }

    /// Packs the whole grains of `data`, which lie at `offset` of the disk, behind those that `packed` has. Grains of
    /// zeros are left out. The last grain of the disk may be cut by the disk's end, no other.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] beyond the disk's end, [`Error::InvalidInput`] for parts of grains.
    pub fn pack(&mut self, offset: u64, data: &[u8], packed: &mut PackedGrains) -> Result<()> {
        let Packing { capacity, grain, .. } = self.packing;
        let len = data.len() as u64;
        let end = offset.checked_add(len).filter(|end| *end <= capacity);
        let end = end.ok_or(Error::OutOfRange { operation: "pack", offset, len, capacity })?;
        if !offset.is_multiple_of(grain) || !(end.is_multiple_of(grain) || end == capacity) {
            let problem = format!("{len} bytes at {offset} are no whole grains of {grain} bytes");
            return Err(Error::invalid("data", problem));
        }
        for (number, grain) in (offset / grain..).zip(data.chunks(grain as usize)) {
            if !is_zero(grain) {
                self.one(number, grain, packed);
            }
        }
        Ok(())
    }

    fn one(&mut self, number: u64, grain: &[u8], packed: &mut PackedGrains) {
        let full = self.packing.grain as usize;
        let grain = if grain.len() == full {
            grain
        } else {
            self.last.clear();
            self.last.extend_from_slice(grain);
            // VMware writes whole grains only.
            self.last.resize(full, 0);
            &self.last
        };
        // Deflating must save a sector or it saves nothing.
        let zlib = self.deflater.pack(grain, full - GRAIN_MARKER_BYTES);
        // A grain has 1 MiB at most, and stored hardly more.
        let marker = Marker::Grain { sector: number * (full as u64 / SECTOR), compressed_bytes: zlib.len() as u32 };
        let sector = (packed.bytes.len() as u64 / SECTOR) as u32;
        packed.grains.push(Placed { number, sector });
        packed.bytes.extend_from_slice(&marker.encode());
        packed.bytes.extend_from_slice(zlib);
        packed.bytes.resize(packed.bytes.len().next_multiple_of(SECTOR as usize), 0);
    }
}

impl Packing {
    /// Bytes that are packed in one go: whole grains of one table, which spans at least 4 MiB. Large enough to make hand-over between threads
    /// cheap, small enough for many to be under way.
    pub(super) fn piece(&self) -> u64 {
        self.grain.max(PIECE)
    }
}

/// See [`Packing::piece`]; a power of two.
const PIECE: u64 = 512 << 10;
