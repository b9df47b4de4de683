//! Numbers at places in bytes that nobody vouches for: `None` where they end too early, never a panic.
#![allow(dead_code)] // Each reader takes what its format needs.

macro_rules! number {
    ($name:ident, $int:ty, $from:ident, $order:literal) => {
        #[doc = concat!("The ", $order, " number at byte `at`.")]
        #[inline]
        pub(crate) fn $name(bytes: &[u8], at: usize) -> Option<$int> {
            Some(<$int>::$from(*bytes.get(at..)?.first_chunk()?))
        }
    };
}

number!(le_u16, u16, from_le_bytes, "little-endian");
number!(le_u32, u32, from_le_bytes, "little-endian");
number!(le_u64, u64, from_le_bytes, "little-endian");
number!(be_u16, u16, from_be_bytes, "big-endian");
number!(be_u32, u32, from_be_bytes, "big-endian");
number!(be_u64, u64, from_be_bytes, "big-endian");

/// The byte at `at`.
#[inline]
pub(crate) fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

/// `len` bytes from `at` on.
#[inline]
pub(crate) fn slice(bytes: &[u8], at: usize, len: usize) -> Option<&[u8]> {
    bytes.get(at..at.checked_add(len)?)
}

/// An array at `at`, such as a UUID.
#[inline]
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// What stands before the first NUL, or everything: labels and names of fixed length.
pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

/// A UUID as `blkid` writes it, its bytes in the order in which they are stored.
pub(crate) fn uuid_text(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_end_where_the_bytes_end() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(le_u16(&bytes, 6), Some(0x0807));
        assert_eq!(be_u32(&bytes, 4), Some(0x0506_0708));
        assert_eq!(le_u64(&bytes, 1), None);
        assert_eq!(le_u16(&bytes, usize::MAX), None);
        assert_eq!(slice(&bytes, 2, usize::MAX), None);
        assert_eq!(slice(&bytes, 8, 0), Some(&[][..]));
    }

    #[test]
    fn a_uuid_is_written_as_blkid_does() {
        let bytes = array(b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef", 0).unwrap();
        assert_eq!(uuid_text(&bytes), "01234567-89ab-cdef-0123-456789abcdef");
    }

    #[test]
    fn a_label_ends_at_its_first_nul() {
        assert_eq!(until_nul(b"root\0junk"), b"root");
        assert_eq!(until_nul(b"sixteen bytes ab"), b"sixteen bytes ab");
    }
}
