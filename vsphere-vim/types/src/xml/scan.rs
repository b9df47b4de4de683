//! Finding the next byte that matters, eight bytes at a time.

/// What a byte may be in a tag.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Part of a name.
    Name,
    /// The colon between prefix and local name.
    Colon,
    /// Anything else ends the name.
    Other,
}

/// Letters, digits, `_`, `-`, `.` and all that is not ASCII are names, as in XML but for a few rare characters.
const CLASSES: [Class; 256] = {
    let mut classes = [Class::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        let own = byte as u8;
        if own.is_ascii_alphanumeric() || matches!(own, b'_' | b'-' | b'.') || own >= 0x80 {
            classes[byte] = Class::Name;
        }
        byte += 1;
    }
    classes[b':' as usize] = Class::Colon;
    classes
};

pub(super) fn class(byte: u8) -> Class {
    CLASSES[usize::from(byte)]
}

/// Whether `text` can stand as a local name.
pub(crate) fn is_local_name(text: &str) -> bool {
    let starts = text.as_bytes().first().is_some_and(|b| begins_name(*b));
    starts && text.bytes().all(|b| class(b) == Class::Name)
}

/// Digits, `-` and `.` are for the inside of a name.
pub(super) fn begins_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

/// Where the character data at the beginning of `bytes` ends, which is at a `<` or at the end of all, and whether
/// something is in it that does not stand for itself: a reference, or a carriage return.
#[inline]
pub(super) fn character_data(bytes: &[u8]) -> (usize, bool) {
    let (words, tail) = bytes.as_chunks::<8>();
    let mut special = false;
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let end = equal(word, b'<');
        let odd = equal(word, b'&') | equal(word, b'\r');
        if end != 0 {
            // Only what stands before the first `<` counts.
            special |= odd & (end & end.wrapping_neg()).wrapping_sub(1) != 0;
            return (at * 8 + first(end), special);
        }
        special |= odd != 0;
    }
    let len = tail.iter().position(|b| *b == b'<').unwrap_or(tail.len());
    special |= tail[..len].iter().any(|b| matches!(b, b'&' | b'\r'));
    (words.len() * 8 + len, special)
}

/// Where the first `needle` is.
#[inline]
pub(super) fn find(bytes: &[u8], needle: u8) -> Option<usize> {
    let (words, tail) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let found = equal(u64::from_le_bytes(*word), needle);
        if found != 0 {
            return Some(at * 8 + first(found));
        }
    }
    tail.iter().position(|b| *b == needle).map(|at| words.len() * 8 + at)
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The high bit of every byte that equals `needle`, up to the first one exactly; bytes above it may be marked wrongly.
#[inline]
fn equal(word: u64, needle: u8) -> u64 {
    let differs = word ^ (ONES * u64::from(needle));
    differs.wrapping_sub(ONES) & !differs & HIGHS
}

/// The place of the lowest marked byte.
#[inline]
fn first(marks: u64) -> usize {
    (marks.trailing_zeros() / 8) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn words_find_what_bytes_find(text in proptest::collection::vec(proptest::sample::select(b"<&\r=;a\x00\xff\x3b\x3d".to_vec()), 0..40)) {
            let end = text.iter().position(|b| *b == b'<');
            let len = end.unwrap_or(text.len());
            let special = text[..len].iter().any(|b| matches!(b, b'&' | b'\r'));
            proptest::prop_assert_eq!(character_data(&text), (len, special));
            proptest::prop_assert_eq!(find(&text, b'<'), end);
        }
    }

    #[test]
    fn names_are_told_from_markup() {
        for name in ["a", "VirtualDisk", "_this", "x-1.2", "é"] {
            assert!(is_local_name(name), "{name}");
        }
        for text in ["", "1a", "-a", "a:b", "a b", "a\"", "?x", "a>"] {
            assert!(!is_local_name(text), "{text}");
        }
    }
}
