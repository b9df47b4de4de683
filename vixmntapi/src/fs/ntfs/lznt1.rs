//! LZNT1, as MS-XCA section 2.5 defines it.

use crate::bytes::le_u16;

/// Decompresses up to `size` bytes; what is missing at the end is zeros. `None` when the input contradicts itself.
pub(super) fn decompress(mut input: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut output = Vec::with_capacity(size);
    while output.len() < size {
        let head = match le_u16(input, 0) {
            None | Some(0) => break,
            Some(head) => head,
        };
        let (chunk, rest) = input.get(2..)?.split_at_checked(usize::from(head & LENGTH) + 1)?;
        input = rest;
        let start = output.len();
        if head & COMPRESSED != 0 {
            unpack(chunk, &mut output)?;
        } else {
            output.extend_from_slice(chunk);
        }
        // Every chunk but the last stands for 4 KiB.
        output.resize(start + CHUNK, 0);
    }
    output.resize(size, 0);
    Some(output)
}

/// Decompresses a chunk.
fn unpack(mut chunk: &[u8], output: &mut Vec<u8>) -> Option<()> {
    let start = output.len();
    while let Some((&flags, rest)) = chunk.split_first() {
        chunk = rest;
        for bit in 0..8 {
            let Some(&first) = chunk.first() else { break };
            let done = output.len() - start;
            if flags >> bit & 1 == 0 {
                if done >= CHUNK {
                    return None;
                }
                output.push(first);
                chunk = chunk.get(1..)?;
                continue;
            }
            let token = usize::from(le_u16(chunk, 0)?);
            chunk = chunk.get(2..)?;
            // The further in, the more bits say how far back: as many as reach the chunk's first byte, 4 to 12.
            let back_bits = (usize::BITS - done.checked_sub(1)?.leading_zeros()).max(4);
            let len_bits = 16 - back_bits.min(12);
            let back = (token >> len_bits) + 1;
            let len = (token & ((1 << len_bits) - 1)) + 3;
            if back > done || done + len > CHUNK {
                return None;
            }
            for _ in 0..len {
                let byte = *output.get(output.len() - back)?;
                output.push(byte);
            }
        }
    }
    Some(())
}

const CHUNK: usize = 4096;
const LENGTH: u16 = 0x0fff;
const COMPRESSED: u16 = 0x8000;

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of MS-XCA section 3.3.
    #[test]
    fn the_example_of_the_specification() {
        let packed = [
            0x38, 0xb0, 0x88, 0x46, 0x23, 0x20, 0x00, 0x20, 0x47, 0x20, 0x41, 0x00, 0x10, 0xa2, 0x47, 0x01, 0xa0, 0x45,
            0x20, 0x44, 0x00, 0x08, 0x45, 0x01, 0x50, 0x79, 0x00, 0xc0, 0x45, 0x20, 0x05, 0x24, 0x13, 0x88, 0x05, 0xb4,
            0x02, 0x4a, 0x44, 0xef, 0x03, 0x58, 0x02, 0x8c, 0x09, 0x16, 0x01, 0x48, 0x45, 0x00, 0xbe, 0x00, 0x9e, 0x00,
            0x04, 0x01, 0x18, 0x90, 0x00,
        ];
        let plain = "F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E F# G F# D E F# \
                     G F# E D E A F# F# G A A G F# E D D E F# E D D\0";
        let got = decompress(&packed, plain.len()).unwrap();
        assert_eq!(String::from_utf8_lossy(&got), plain);
    }

    #[test]
    fn what_leads_out_of_a_chunk_is_refused() {
        for packed in [&[2, 0xb0, 1, 0, 0][..], &[3, 0xb0, 2, b'a', 0, 0x10], &[9, 0xb0, 0], &[2, 0xb0, 1, 0xff]] {
            assert_eq!(decompress(packed, 4096), None, "{packed:?}");
        }
        assert_eq!(decompress(&[0, 0], 5), Some(vec![0; 5]));
    }
}
