//! Deflate of single grains, in zlib's framing.

use std::fmt;

use libdeflater::{CompressionLvl, Compressor, DecompressionError, Decompressor};

use super::density::Density;

/// Deflates grains. What it gives depends on the grain and the level only.
pub(super) struct Deflater {
    deflate: Compressor,
    store: Compressor,
    density: Density,
    packed: Vec<u8>,
}

impl Deflater {
    /// Levels above [`MAX_LEVEL`] are taken as that.
    pub(super) fn new(level: u32) -> Self {
        let compressor = |level: u32| Compressor::new(CompressionLvl::new(level as i32).unwrap_or_default());
        Self {
            deflate: compressor(level.min(MAX_LEVEL)),
            store: compressor(0),
            density: Density::new(),
            packed: Vec::new(),
        }
    }

    /// Packs a grain. One that deflate could not bring below `most` bytes is stored, which every inflater reads alike.
    pub(super) fn pack(&mut self, grain: &[u8], most: usize) -> &[u8] {
        self.packed.resize(self.store.zlib_compress_bound(grain.len()).max(most), 0);
        let deflated = if self.density.is_dense(grain) {
            None
        } else {
            self.deflate.zlib_compress(grain, &mut self.packed[..most]).ok()
        };
        let len = match deflated {
            Some(len) => len,
            // Cannot fail: the buffer has the size that the compressor asked for.
            None => self.store.zlib_compress(grain, &mut self.packed).unwrap_or(0),
        };
        &self.packed[..len]
    }
}

/// Inflates grains.
pub(crate) struct GrainInflater(Decompressor);

impl GrainInflater {
    pub(crate) fn new() -> Self {
        Self(Decompressor::new())
    }

    /// Inflates `packed` to the front of `grain` and returns how much it was. The checksum is verified; never more
    /// than `grain` is written. Bytes after the end of the data are ignored.
    pub(crate) fn unpack(&mut self, packed: &[u8], grain: &mut [u8]) -> Result<usize, &'static str> {
        self.0.zlib_decompress(packed, grain).map_err(|error| match error {
            DecompressionError::BadData => "its zlib data are damaged",
            DecompressionError::InsufficientSpace => "its zlib data hold more than a grain",
        })
    }

    /// Inflates a grain of which `wanted` bytes lie on the disk; says what is wrong with it.
    pub(crate) fn unpack_whole(&mut self, packed: &[u8], grain: &mut [u8], wanted: usize) -> Result<(), String> {
        match self.unpack(packed, grain) {
            // A short last grain is what qemu-img writes; VMware fills it up.
            Ok(len) if len >= wanted => Ok(()),
            Ok(len) => Err(format!("it holds {len} bytes instead of {wanted}")),
            Err(problem) => Err(problem.to_owned()),
        }
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater").finish_non_exhaustive()
    }
}

impl fmt::Debug for GrainInflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrainInflater").finish_non_exhaustive()
    }
}

/// The best and slowest level.
pub(super) const MAX_LEVEL: u32 = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_round_trips_and_the_bound_holds() {
        let text: Vec<u8> = (0..65536_u32).map(|n| ((n * n) >> 7) as u8).collect();
        for level in [0, 1, 6, 9, 12, 99] {
            let mut deflater = Deflater::new(level);
            for most in [100, 65_524] {
                let packed = deflater.pack(&text, most).to_vec();
                let mut grain = vec![0; 65536];
                assert_eq!(GrainInflater::new().unpack(&packed, &mut grain), Ok(65536));
                assert!(grain == text);
                assert!(packed.len() <= 65536 + 21, "{}", packed.len());
            }
        }
    }

    #[test]
    fn damage_and_excess_are_told() {
        let mut packed = Deflater::new(1).pack(&[5; 4096], 4000).to_vec();
        assert!(GrainInflater::new().unpack(&packed, &mut [0; 4095]).is_err());
        assert!(GrainInflater::new().unpack(&packed[..packed.len() - 1], &mut [0; 4096]).is_err());
        *packed.last_mut().unwrap() ^= 1;
        assert!(GrainInflater::new().unpack(&packed, &mut [0; 4096]).is_err());
    }
}
