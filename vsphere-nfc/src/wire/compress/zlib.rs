//! zlib streams of whole fragments.

use std::cell::RefCell;

use libdeflater::{CompressionLvl, Compressor, Decompressor};

use crate::wire::WireError;

thread_local! {
    // Level 1 as in the captured header 78 01: the network is rarely slower than higher levels.
    static DEFLATE: RefCell<Compressor> =
        RefCell::new(Compressor::new(CompressionLvl::new(1).unwrap_or_default()));
    static INFLATE: RefCell<Decompressor> = RefCell::new(Decompressor::new());
}

/// A stream that is shorter than `data`, if there is one.
pub(super) fn compress(data: &[u8]) -> Option<Vec<u8>> {
    let mut out = vec![0; data.len().checked_sub(1)?];
    let len = DEFLATE.with_borrow_mut(|deflate| deflate.zlib_compress(data, &mut out)).ok()?;
    out.truncate(len);
    Some(out)
}

/// Fills `out`; the stream's checksum is verified.
pub(super) fn decompress_into(data: &[u8], out: &mut [u8]) -> Result<(), WireError> {
    match INFLATE.with_borrow_mut(|inflate| inflate.zlib_decompress(data, out)) {
        Ok(len) if len == out.len() => Ok(()),
        Ok(_) | Err(libdeflater::DecompressionError::InsufficientSpace) => {
            Err(WireError::Malformed("a zlib fragment has not its own length"))
        }
        Err(libdeflater::DecompressionError::BadData) => Err(WireError::Malformed("a zlib fragment is damaged")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_has_the_captured_header_and_is_checked() {
        let data: Vec<u8> = (0..65536u32).map(|at| (at / 100) as u8).collect();
        let mut packed = compress(&data).unwrap();
        assert!(packed.starts_with(&[0x78, 0x01]));
        assert!(packed.len() < data.len() / 4);
        let mut out = vec![0; data.len()];
        decompress_into(&packed, &mut out).unwrap();
        assert!(out == data);
        *packed.last_mut().unwrap() ^= 1;
        assert_eq!(decompress_into(&packed, &mut out), Err(WireError::Malformed("a zlib fragment is damaged")));
    }
}
