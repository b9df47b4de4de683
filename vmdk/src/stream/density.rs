//! Telling data that deflate cannot shrink (media, archives, ciphertext) before it has tried.
//!
//! Deflate has two ways to save: bytes of unequal frequency, and sequences that come again. Where a look finds neither,
//! trying costs four times what the look does, and saves nothing. The answer is a pure function of the data: streams
//! must not depend on anything else.

/// Looks at grains; kept for its table.
#[derive(Debug)]
pub(super) struct Density {
    /// Where a sequence of this hash was seen last, plus one.
    seen: Vec<u32>,
}

impl Density {
    pub(super) fn new() -> Self {
        Self { seen: vec![0; 1 << HASH_BITS] }
    }

    /// True when deflate would save less than two or three hundredths of `data`.
    pub(super) fn is_dense(&mut self, data: &[u8]) -> bool {
        // What compresses shows in a sample most of the time. What looks dense there is looked at as a whole: a sample
        // can fall in step with a structure.
        is_even(data.chunks(SAMPLE).step_by(SAMPLE_STEP)) && is_even(std::iter::once(data)) && !self.repeats(data)
    }

    /// Whether sequences of eight bytes come again in reach of deflate. Looks where a byte is small, one place in 32
    /// of even data: such places lie the same in a sequence and in its copy.
    fn repeats(&mut self, data: &[u8]) -> bool {
        self.seen.fill(0);
        let (mut looks, mut hits) = (0_u32, 0_u32);
        for (at, window) in data.windows(SEQUENCE).enumerate() {
            if window[0] >= SMALL {
                continue;
            }
            let Ok(window) = <[u8; SEQUENCE]>::try_from(window) else { continue };
            looks += 1;
            let hash = u64::from_le_bytes(window).wrapping_mul(HASH_FACTOR) >> (64 - HASH_BITS);
            let last = std::mem::replace(&mut self.seen[hash as usize], at as u32 + 1);
            if last != 0 {
                let last = last as usize - 1;
                hits += u32::from(at - last <= DEFLATE_REACH && data[last..last + SEQUENCE] == window);
            }
        }
        hits > looks / 64
    }
}

/// Whether all values of a byte are about as frequent as each other, so that codes of unequal length save nothing.
///
/// Measured by how often two bytes taken at random are equal: 1 in 256 when all is even. The bound on it bounds the
/// entropy (Rényi's second order is below Shannon's) to more than 7.9 bits a byte.
fn is_even<'a>(parts: impl Iterator<Item = &'a [u8]>) -> bool {
    // Four counters a value: neighbours of equal value do not wait for each other.
    let mut counts = [[0_u32; 256]; 4];
    for part in parts {
        let mut quads = part.chunks_exact(4);
        for quad in &mut quads {
            for (count, byte) in counts.iter_mut().zip(quad) {
                count[usize::from(*byte)] += 1;
            }
        }
        for byte in quads.remainder() {
            counts[0][usize::from(*byte)] += 1;
        }
    }
    let (mut total, mut pairs) = (0_u64, 0_u64);
    for value in 0..256 {
        let count: u64 = counts.iter().map(|counts| u64::from(counts[value])).sum();
        total += count;
        pairs += count * count.saturating_sub(1);
    }
    // 256 * pairs / (total * (total - 1)) < 1.0625, in whole numbers; grains have at most 32 MiB.
    pairs * 256 * 16 < total * total.saturating_sub(1) * 17
}

/// Bytes of a piece of the sample.
const SAMPLE: usize = 64;
/// One piece in so many belongs to the sample.
const SAMPLE_STEP: usize = 8;

/// Bytes of a sequence whose repetition counts. Shorter ones save next to nothing where bytes are even.
const SEQUENCE: usize = 8;
/// Bytes below this are where sequences are looked up.
const SMALL: u8 = 8;
const HASH_BITS: u32 = 12;
/// 2^64 divided by the golden ratio.
const HASH_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// How far back deflate finds a sequence.
const DEFLATE_REACH: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..len).map(next).collect()
    }

    #[test]
    fn noise_is_dense_and_text_is_not() {
        let mut density = Density::new();
        assert!(density.is_dense(&noise(65536)));
        assert!(!density.is_dense(&[7; 65536]));
        let text: Vec<u8> = noise(65536).iter().map(|byte| b'a' + byte % 16).collect();
        assert!(!density.is_dense(&text));
    }

    #[test]
    fn noise_that_comes_again_is_not_dense() {
        let noise = noise(16384);
        let mut density = Density::new();
        assert!(!density.is_dense(&noise.repeat(4)));
        // A copy of one sector in sixteen is worth finding.
        let mut copied = super::tests::noise(65536);
        for start in (16384..65536).step_by(8192) {
            copied.copy_within(start - 8192..start - 7680, start);
        }
        assert!(!density.is_dense(&copied));
    }

    #[test]
    fn a_structure_in_step_with_the_sample_is_seen() {
        let mut data = vec![0; 65536];
        let noise = noise(65536);
        for start in (0..65536).step_by(SAMPLE * SAMPLE_STEP) {
            data[start..start + SAMPLE].copy_from_slice(&noise[start..start + SAMPLE]);
        }
        assert!(!Density::new().is_dense(&data));
    }
}
