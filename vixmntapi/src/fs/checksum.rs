//! CRC-32C as ext4, jbd2, XFS and Btrfs take it: a running value that starts at `!0` and is not inverted at the end.

/// Goes on with `crc` over `bytes`.
pub(in crate::fs) fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!crc, bytes)
}

/// The CRC-32 of jbd2's first kind of checksums: the most significant bit first.
pub(in crate::fs) fn crc32_be(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, byte| crc << 8 ^ BIG[(crc >> 24 ^ u32::from(*byte)) as usize & 0xff])
}

static BIG: [u32; 256] = big();

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
        assert_eq!(crc32_be(!0, b"123456789"), 0x0376_e6e7); // CRC-32/MPEG-2
    }
}
