//! The image that everybody backs up, and what a guest then changes in it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// What is changed at a time.
pub(super) const PIECE: u64 = 64 << 10;
const MIB: u64 = 1 << 20;

/// Writes an image of `size` bytes, half of it holes; how many bytes are data.
///
/// A third of the data does not compress, the rest does by half or better; every image of another `seed` is another.
pub(crate) fn make(path: &Path, size: u64, seed: u64) -> io::Result<u64> {
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    file.set_len(size)?;
    let mut content = Content::new(seed);
    let mut block = vec![0u8; MIB as usize];
    let mut written = 0;
    for at in (0..size).step_by(2 << 20) {
        content.fill(&mut block, (at >> 21).is_multiple_of(3));
        file.write_all_at(&block, at)?;
        written += MIB;
    }
    file.sync_all()?;
    Ok(written)
}

/// What changes: one percent of the disk in scattered pieces, all of them inside the data; ascending.
pub(super) fn changes(size: u64, round: u64) -> Vec<(u64, Vec<u8>)> {
    let (count, pieces) = (size / 100 / PIECE, size / 2 / PIECE);
    let mut content = Content::new(0x1234_5678 + round);
    let mut places: Vec<u64> = Vec::new();
    while (places.len() as u64) < count {
        places.push(content.next() % pieces);
        if places.len() as u64 == count {
            places.sort_unstable();
            places.dedup();
        }
    }
    let per_mib = MIB / PIECE;
    places
        .into_iter()
        .map(|place| {
            let mut bytes = vec![0; PIECE as usize];
            content.fill(&mut bytes, place.is_multiple_of(3));
            // Every second MiB of the disk is a hole.
            (place / per_mib * 2 * MIB + place % per_mib * PIECE, bytes)
        })
        .collect()
}

/// Writes the changes of a round into the file itself.
pub(super) fn change(path: &Path, size: u64, round: u64) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    for (at, bytes) in changes(size, round) {
        file.write_all_at(&bytes, at)?;
    }
    file.sync_all()
}

/// Bytes that look like those of disks.
struct Content(u64);

impl Content {
    fn new(seed: u64) -> Self {
        Self(88_172_645_463_325_252 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn fill(&mut self, block: &mut [u8], random: bool) {
        for word in block.chunks_exact_mut(8) {
            let number = self.next();
            // Text-like: few different values, so that zstd halves it or better.
            let text = number & 0x0f0f_0303_0101_0f0f | 0x2020_2020_2020_2020;
            word.copy_from_slice(&if random { number } else { text }.to_le_bytes());
        }
    }
}
