//! Compression of a single fragment. Nothing is negotiated: a read request carries a wish, every
//! fragment says what was used, and data that would not shrink is sent as it is.

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};

use super::WireError;

/// How a fragment is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// 0: not at all.
    #[default]
    None,
    /// 1: a zlib stream.
    Zlib,
    /// 2: a FastLZ block.
    FastLz,
    /// 3: runs of data between zeros.
    SkipZ,
    /// A value that is not known.
    Other(u32),
}

impl Compression {
    /// The compression with the number `number`.
    pub fn from_number(number: u32) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Zlib,
            2 => Self::FastLz,
            3 => Self::SkipZ,
            other => Self::Other(other),
        }
    }

    /// The number on the wire.
    pub fn number(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Zlib => 1,
            Self::FastLz => 2,
            Self::SkipZ => 3,
            Self::Other(number) => number,
        }
    }

    /// Compresses `data`, or returns `None` when it would not get smaller or cannot be compressed
    /// in this way; the fragment is then sent as it is.
    pub fn compress(self, data: &[u8]) -> Option<Vec<u8>> {
        if self != Self::Zlib || data.len() < 2 {
            return None;
        }
        let mut out = Vec::with_capacity(data.len() - 1);
        // Level 1 as in the captured header 78 01: the network is rarely slower than higher levels.
        let mut zlib = Compress::new(flate2::Compression::fast(), true);
        match zlib.compress_vec(data, &mut out, FlushCompress::Finish) {
            Ok(Status::StreamEnd) => Some(out),
            _ => None,
        }
    }

    /// Decompresses `data` to exactly `len` bytes.
    ///
    /// # Errors
    /// When the data is damaged, gives more or less than `len` bytes, or is compressed in a way
    /// that this crate cannot read.
    pub fn decompress(self, data: &[u8], len: usize) -> Result<Vec<u8>, WireError> {
        match self {
            Self::None if data.len() == len => Ok(data.to_vec()),
            Self::None => Err(WireError::Malformed("a raw fragment has not its own length")),
            Self::Zlib => {
                let mut out = Vec::with_capacity(len);
                let mut zlib = Decompress::new(true);
                match zlib.decompress_vec(data, &mut out, FlushDecompress::Finish) {
                    Ok(Status::StreamEnd) if out.len() == len => Ok(out),
                    Ok(_) => Err(WireError::Malformed("a zlib fragment has not its own length")),
                    Err(_) => Err(WireError::Malformed("a zlib fragment is damaged")),
                }
            }
            Self::FastLz | Self::SkipZ | Self::Other(_) => {
                Err(WireError::field("the compression of a fragment", self.number()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn zlib_gives_the_same_bytes_back() {
        let data: Vec<u8> = (0..65536u32).map(|at| (at / 100) as u8).collect();
        let packed = Compression::Zlib.compress(&data).unwrap();
        assert!(packed.len() < data.len() / 4);
        assert_eq!(Compression::Zlib.decompress(&packed, data.len()).unwrap(), data);
    }

    #[test]
    fn data_that_does_not_shrink_is_left_alone() {
        assert_eq!(Compression::Zlib.compress(b"\x01\x9f"), None);
        assert_eq!(Compression::None.compress(&[0; 512]), None);
        assert_eq!(Compression::FastLz.compress(&[0; 512]), None);
    }

    #[test]
    fn bomb_and_truncated_stream_are_refused_without_growing() {
        let packed = Compression::Zlib.compress(&[0; 1 << 20]).unwrap();
        assert!(Compression::Zlib.decompress(&packed, 512).is_err());
        assert!(Compression::Zlib.decompress(&packed, (1 << 20) + 1).is_err());
        assert!(Compression::Zlib.decompress(&packed[..packed.len() - 1], 1 << 20).is_err());
        assert!(Compression::SkipZ.decompress(&packed, 512).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_value_or_an_error(data: Vec<u8>, len in 0usize..4096) {
            let _ = Compression::Zlib.decompress(&data, len);
        }
    }
}
