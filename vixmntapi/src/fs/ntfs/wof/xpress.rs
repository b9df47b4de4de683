//! XPRESS with Huffman codes, as MS-XCA section 2.2 defines it, for chunks of up to 64 KiB, which have one code.

use super::{
    bits::{Bits, Code},
    output::Output,
};

/// Fills `output` from a chunk. `None` when the chunk contradicts itself.
pub(super) fn unpack(chunk: &[u8], output: &mut [u8]) -> Option<()> {
    let mut output = Output::new(output);
    let (lengths, packed) = chunk.split_at_checked(SYMBOLS / 2)?;
    // The lower half of a byte is for the first of two symbols.
    let mut of_symbols = [0; SYMBOLS];
    for (pair, byte) in of_symbols.chunks_exact_mut(2).zip(lengths) {
        pair.copy_from_slice(&[byte & 0xf, byte >> 4]);
    }
    let code = Code::new(&of_symbols)?;
    let mut bits = Bits::new(packed);
    while output.room() > 0 {
        let symbol = code.take(&mut bits)?;
        let Some(found) = symbol.checked_sub(LITERALS) else {
            output.push(symbol as u8)?;
            continue;
        };
        // Bytes between the bits lie behind what a reader has fetched that always has 16 bits.
        bits.need(16);
        let len = match found & 0xf {
            0xf => long(&mut bits)?,
            len => len,
        };
        let power = (found >> 4) as u32;
        let back = 1 << power | bits.take(power)? as usize;
        output.copy(back, len.checked_add(SHORTEST)?)?;
    }
    Some(())
}

/// The length of a long match, less the shortest.
fn long(bits: &mut Bits<'_>) -> Option<usize> {
    let len = match bits.byte()? {
        0xff => match u16::from_le_bytes(*bits.raw(2)?.first_chunk()?) {
            0 => u32::from_le_bytes(*bits.raw(4)?.first_chunk()?) as usize,
            len => usize::from(len),
        },
        len => usize::from(len) + 0xf,
    };
    (len >= 0xf).then_some(len)
}

/// Bytes, and matches: 16 lengths for each of 16 powers of two of distances.
const SYMBOLS: usize = 512;
const LITERALS: usize = 256;
const SHORTEST: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// The first example of MS-XCA section 3.2: the alphabet, each letter with a code of its own.
    #[test]
    fn the_alphabet_of_the_specification() {
        let mut chunk = vec![0; 256];
        chunk[0x30..0x3e].fill(0x55);
        (chunk[0x30], chunk[0x3b], chunk[0x3c], chunk[0x3d]) = (0x50, 0x45, 0x44, 0x04);
        chunk[0x80] = 0x04;
        chunk.extend([
            0xd8, 0x52, 0x3e, 0xd7, 0x94, 0x11, 0x5b, 0xe9, 0x19, 0x5f, 0xf9, 0xd6, 0x7c, 0xdf, 0x8d, 0x04, 0, 0, 0, 0,
        ]);
        let mut got = [0; 26];
        unpack(&chunk, &mut got).unwrap();
        assert_eq!(&got, b"abcdefghijklmnopqrstuvwxyz");
        for len in 0..272 {
            assert_eq!(unpack(&chunk[..len], &mut got), None, "{len} bytes");
        }
    }
}
