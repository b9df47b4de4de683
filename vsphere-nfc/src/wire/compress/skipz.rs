//! SkipZ: a fragment without its zeros.
//!
//! Length of the fragment, 0, and then every run of data with its offset and its length; what lies
//! between is zeros. A fragment of zeros is 8 bytes.

use std::ops::Range;

use crate::wire::{WireError, u32_at};

/// Bytes in front of the first run.
const HEADER_LEN: usize = 8;
/// Bytes in front of the data of a run.
const RUN_HEADER_LEN: usize = 8;
/// How many zeros are looked at together. A gap with fewer would not pay for the next run's header.
const STEP: usize = 16;

/// A form that is shorter than `data`, if there is one.
pub(super) fn compress(data: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    out.extend(u32::try_from(data.len()).ok()?.to_le_bytes());
    out.extend([0; 4]);
    let mut at = 0;
    while let Some(run) = next_run(data, at) {
        if out.len() + RUN_HEADER_LEN + run.len() >= data.len() {
            return None;
        }
        // Both are less than the length of `data`.
        out.extend(u32::try_from(run.start).ok()?.to_le_bytes());
        out.extend(u32::try_from(run.len()).ok()?.to_le_bytes());
        out.extend(&data[run.clone()]);
        at = run.end;
    }
    (out.len() < data.len()).then_some(out)
}

/// The first bytes from `at` on that are not zeros, up to the next gap.
fn next_run(data: &[u8], at: usize) -> Option<Range<usize>> {
    let rest = &data[at..];
    let zeros = STEP * rest.chunks_exact(STEP).take_while(|chunk| is_zero(chunk)).count();
    let start = at + zeros + rest[zeros..].iter().position(|byte| *byte != 0)?;
    let run = &data[start..];
    let whole = STEP * run.chunks_exact(STEP).take_while(|chunk| !is_zero(chunk)).count();
    // At the end of the fragment the last chunk may be a short one.
    let end = if run.len() - whole < STEP { run.len() } else { whole };
    let end = run[..end].iter().rposition(|byte| *byte != 0).map_or(end, |last| last + 1);
    Some(start..start + end)
}

fn is_zero(chunk: &[u8]) -> bool {
    <[u8; STEP]>::try_from(chunk).is_ok_and(|chunk| u128::from_ne_bytes(chunk) == 0)
}

/// Fills `out`.
pub(super) fn decompress_into(data: &[u8], out: &mut [u8]) -> Result<(), WireError> {
    let (header, mut rest) =
        data.split_at_checked(HEADER_LEN).ok_or(WireError::Malformed("a SkipZ fragment has no header"))?;
    if u32_at(header, 0) as usize != out.len() {
        return Err(WireError::field("the length in a SkipZ fragment", u32_at(header, 0)));
    }
    if u32_at(header, 4) != 0 {
        return Err(WireError::field("the second word of a SkipZ fragment", u32_at(header, 4)));
    }
    let mut next = 0;
    while !rest.is_empty() {
        let (header, tail) =
            rest.split_at_checked(RUN_HEADER_LEN).ok_or(WireError::Malformed("a SkipZ run has no header"))?;
        let (start, len) = (u32_at(header, 0) as usize, u32_at(header, 4) as usize);
        let (run, tail) = tail.split_at_checked(len).ok_or(WireError::Malformed("a SkipZ run is cut off"))?;
        let gap = out.get_mut(next..start).ok_or(WireError::field("the offset of a SkipZ run", u32_at(header, 0)))?;
        gap.fill(0);
        let end = start.checked_add(len).ok_or(WireError::Malformed("a SkipZ run has no end"))?;
        let place = out.get_mut(start..end);
        place.ok_or(WireError::field("the length of a SkipZ run", u32_at(header, 4)))?.copy_from_slice(run);
        (next, rest) = (end, tail);
    }
    out[next..].fill(0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hex;

    fn fragment(runs: &[(usize, &[u8])], len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        for (at, run) in runs {
            data[*at..at + run.len()].copy_from_slice(run);
        }
        data
    }

    /// The annotated example E20.
    #[test]
    fn sector_with_three_bytes_in_it_decodes_and_encodes() {
        let packed = hex("00020000 00000000 64000000 03000000 616263");
        let data = fragment(&[(100, b"abc")], 512);
        assert_eq!(compress(&data).unwrap(), packed);
        let mut out = [0xEE; 512];
        decompress_into(&packed, &mut out).unwrap();
        assert_eq!(out.as_slice(), data);
    }

    #[test]
    fn zeros_are_eight_bytes() {
        assert_eq!(compress(&[0; 65536]).unwrap(), hex("00000100 00000000"));
    }

    #[test]
    fn runs_begin_and_end_with_data_wherever_they_lie() {
        for start in [0, 1, 15, 16, 17, 511, 512] {
            for len in [1, 7, 16, 33, 100] {
                let data = fragment(&[(start, &vec![7; len]), (1000, b"x"), (1008, b"y")], 1024);
                let packed = compress(&data).unwrap();
                // One run, and the two bytes whose gap is too short to pay.
                assert_eq!(packed.len(), 8 + 8 + len + 8 + 9, "{start} {len}");
                let mut out = vec![0xEE; 1024];
                decompress_into(&packed, &mut out).unwrap();
                assert!(out == data, "{start} {len}");
            }
        }
    }

    #[test]
    fn hostile_runs_are_refused() {
        let header = "00020000 00000000";
        for (what, runs) in [
            ("backwards", "64000000 01000000 61 63000000 01000000 61"),
            ("overlap", "64000000 02000000 6161 65000000 01000000 61"),
            ("behind the end", "00020000 01000000 61"),
            ("across the end", "ff010000 02000000 6161"),
            ("huge offset", "ffffffff 01000000 61"),
            ("huge length", "00000000 ffffffff 61"),
            ("cut header", "00000000 0100"),
        ] {
            let mut out = [0; 512];
            assert!(decompress_into(&hex(&format!("{header}{runs}")), &mut out).is_err(), "{what}");
        }
        assert!(decompress_into(&hex("00020000 01000000"), &mut [0; 512]).is_err());
        assert!(decompress_into(&hex("00020000 000000"), &mut [0; 512]).is_err());
    }
}
