//! Bytes as hex digits.

use crate::error::Result;

use super::id::random;

/// Writes bytes as hex digits in lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Makes a name of 16 digits that nobody else has.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) when the operating system has no random numbers.
pub(crate) fn random_name() -> Result<String> {
    Ok(hex(&random::<8>()?))
}

/// Parses exactly `out.len() * 2` hex digits in lower case.
pub(crate) fn parse_hex(text: &str, out: &mut [u8]) -> Option<()> {
    let digits = text.as_bytes();
    if digits.len() != out.len() * 2 {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(())
}

/// Parses hex digits in lower case of any even number.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0; text.len() / 2];
    parse_hex(text, &mut bytes).map(|()| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_a_round_trip_as_digits() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(hex(&[0x00, 0x0f, 0xa5, 0xff]), "000fa5ff");
        assert_eq!(unhex(&hex(&all)).as_deref(), Some(&all[..]));
        for bad in ["a", "A5", "g0", "0 "] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
    }
}
