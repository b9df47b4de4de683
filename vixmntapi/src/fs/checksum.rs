//! CRC-32C as ext4, jbd2, XFS and Btrfs take it: a running value that starts at `!0` and is not inverted at the end.

/// Goes on with `crc` over `bytes`.
pub(in crate::fs) fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut crc = crc;
    for word in words {
        crc = step(crc, *word);
    }
    for byte in rest {
        crc = crc >> 8 ^ TABLES[0][((crc ^ u32::from(*byte)) & 0xff) as usize];
    }
    crc
}

#[inline]
fn step(crc: u32, word: [u8; 8]) -> u32 {
    let word = u64::from_le_bytes(word) ^ u64::from(crc);
    TABLES[7][(word & 0xff) as usize]
        ^ TABLES[6][(word >> 8 & 0xff) as usize]
        ^ TABLES[5][(word >> 16 & 0xff) as usize]
        ^ TABLES[4][(word >> 24 & 0xff) as usize]
        ^ TABLES[3][(word >> 32 & 0xff) as usize]
        ^ TABLES[2][(word >> 40 & 0xff) as usize]
        ^ TABLES[1][(word >> 48 & 0xff) as usize]
        ^ TABLES[0][(word >> 56) as usize]
}

/// The CRC-32C of four blocks of one length, which takes little longer than that of one: no step waits for the one before.
pub(in crate::fs) fn crc32c_of_four(blocks: [&[u8]; 4]) -> [u32; 4] {
    let words = blocks.map(|block| block.as_chunks::<8>().0);
    let [len, ..] = words.map(<[_]>::len);
    if words.iter().any(|words| words.len() != len) || blocks[0].len() != len * 8 {
        return blocks.map(|block| !crc32c(!0, block));
    }
    let [a, b, c, d] = words;
    let mut crcs = [!0_u32; 4];
    for (((a, b), c), d) in a.iter().zip(b).zip(c).zip(d) {
        for (crc, word) in crcs.iter_mut().zip([a, b, c, d]) {
            *crc = step(*crc, *word);
        }
    }
    crcs.map(|crc| !crc)
}

/// The CRC-32 of jbd2's first kind of checksums: the most significant bit first.
pub(in crate::fs) fn crc32_be(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, byte| crc << 8 ^ BIG[(crc >> 24 ^ u32::from(*byte)) as usize & 0xff])
}

/// `TABLES[n][byte]` is what a byte does that is followed by `n` others.
static TABLES: [[u32; 256]; 8] = tables();
static BIG: [u32; 256] = big();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[table - 1][byte];
            tables[table][byte] = crc >> 8 ^ tables[0][(crc & 0xff) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

const fn big() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            crc = crc << 1 ^ if crc >> 31 != 0 { 0x04c1_1db7 } else { 0 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_values_of_both_polynomials_come_out() {
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(crc32c(!0, b"12345678901"), b"23456789"), crc32c(!0, b"1234567890123456789"));
        let blocks = [&b"1234567812345678"[..], b"abcdefghabcdefgh", b"0000000000000000", b"1234567887654321"];
        assert_eq!(crc32c_of_four(blocks), blocks.map(|block| !crc32c(!0, block)));
        let uneven = [&b"123456789"[..], b"1", b"", b"12345678"];
        assert_eq!(crc32c_of_four(uneven), uneven.map(|block| !crc32c(!0, block)));
        assert_eq!(crc32_be(!0, b"123456789"), 0x0376_e6e7); // CRC-32/MPEG-2
    }
}
