//! Compression of a single fragment. Nothing is negotiated: a read request carries a wish, every
//! fragment says what was used, and data that would not shrink is sent as it is.
//!
//! All of this runs on the data path, so nothing is allocated to decompress: the bytes go where
//! they belong.

mod fastlz;
mod skipz;
mod zlib;

use super::WireError;

/// How a fragment is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// 0: not at all.
    #[default]
    None,
    /// 1: a zlib stream.
    #[doc(alias = "VIXDISKLIB_FLAG_OPEN_COMPRESSION_ZLIB")]
    Zlib,
    /// 2: a FastLZ block.
    #[doc(alias = "VIXDISKLIB_FLAG_OPEN_COMPRESSION_FASTLZ")]
    FastLz,
    /// 3: runs of data between zeros.
    #[doc(alias = "VIXDISKLIB_FLAG_OPEN_COMPRESSION_SKIPZ")]
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
        match self {
            Self::None | Self::Other(_) => None,
            Self::Zlib => zlib::compress(data),
            Self::FastLz => fastlz::compress(data),
            Self::SkipZ => skipz::compress(data),
        }
    }

    /// Decompresses `data` into `out`, which it has to fill to the last byte.
    ///
    /// # Errors
    /// When the data is damaged, gives more or fewer bytes, or is compressed in a way that is not
    /// known. What `out` holds then is not defined.
    pub fn decompress_into(self, data: &[u8], out: &mut [u8]) -> Result<(), WireError> {
        match self {
            Self::None if data.len() == out.len() => {
                out.copy_from_slice(data);
                Ok(())
            }
            Self::None => Err(WireError::Malformed("a raw fragment has not its own length")),
            Self::Zlib => zlib::decompress_into(data, out),
            Self::FastLz => fastlz::decompress_into(data, out),
            Self::SkipZ => skipz::decompress_into(data, out),
            Self::Other(number) => Err(WireError::field("the compression of a fragment", number)),
        }
    }

    /// Decompresses `data` to exactly `len` bytes.
    ///
    /// # Errors
    /// As [`decompress_into`](Self::decompress_into).
    pub fn decompress(self, data: &[u8], len: usize) -> Result<Vec<u8>, WireError> {
        let mut out = vec![0; len];
        self.decompress_into(data, &mut out)?;
        Ok(out)
    }
}

/// Every way to compress.
#[cfg(test)]
const ALL: [Compression; 3] = [Compression::Zlib, Compression::FastLz, Compression::SkipZ];

/// Bytes that nothing makes smaller.
#[cfg(test)]
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| word()).take(len).collect()
}

/// Fragments as disks have them: text, tables, noise and zeros, at odd places.
#[cfg(test)]
fn fragments() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
    use proptest::collection::vec;
    use proptest::prelude::*;

    let part = prop_oneof![
        (1usize..5000).prop_map(|len| vec![0; len]),
        (vec(any::<u8>(), 1..40), 1usize..200).prop_map(|(word, times)| word.repeat(times)),
        vec(any::<u8>(), 1..500),
        vec(0u8..4, 1..3000),
    ];
    vec(part, 1..40).prop_map(|parts| parts.concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_number_keeps_its_meaning() {
        for number in 0..6 {
            assert_eq!(Compression::from_number(number).number(), number);
        }
    }

    #[test]
    fn data_that_does_not_shrink_is_left_alone() {
        let noise = noise(4096);
        for compression in ALL {
            assert_eq!(compression.compress(&noise), None, "{compression:?}");
            for len in 0..9 {
                assert_eq!(compression.compress(&[0; 9][..len]), None, "{compression:?} {len}");
            }
        }
        assert_eq!(Compression::None.compress(&[0; 512]), None);
        assert_eq!(Compression::Other(4).compress(&[0; 512]), None);
    }

    #[test]
    fn bomb_and_truncated_data_are_refused() {
        let data = [vec![0; 100_000], b"data".to_vec(), vec![1; 100_000]].concat();
        for compression in ALL {
            let packed = compression.compress(&data).unwrap();
            assert!(compression.decompress(&packed, data.len()).unwrap() == data);
            for len in [0, 512, data.len() - 1, data.len() + 1] {
                assert!(compression.decompress(&packed, len).is_err(), "{compression:?} {len}");
            }
            for len in 0..packed.len().min(300) {
                if compression == Compression::SkipZ && len == 8 {
                    // Cut between its header and a run, the rest is zeros: nothing says that runs are missing.
                    continue;
                }
                assert!(compression.decompress(&packed[..len], data.len()).is_err(), "{compression:?} {len}");
            }
        }
    }

    #[test]
    fn unknown_compression_and_raw_data_of_another_length_are_refused() {
        assert!(Compression::Other(4).decompress(&[0; 8], 8).is_err());
        assert!(Compression::None.decompress(&[0; 8], 9).is_err());
        assert_eq!(Compression::None.decompress(&[7; 8], 8).unwrap(), [7; 8]);
    }

    proptest! {
        #[test]
        fn the_same_bytes_come_back(data in fragments()) {
            for compression in ALL {
                if let Some(packed) = compression.compress(&data) {
                    prop_assert!(packed.len() < data.len(), "{:?}", compression);
                    prop_assert!(compression.decompress(&packed, data.len()).unwrap() == data, "{:?}", compression);
                }
            }
        }

        #[test]
        fn any_bytes_give_a_value_or_an_error(data: Vec<u8>, len in 0usize..4096) {
            for compression in ALL {
                let _ = compression.decompress(&data, len);
            }
        }

        #[test]
        fn damage_gives_a_value_or_an_error(data in fragments(), at: prop::sample::Index, flip in 1u8..) {
            for compression in ALL {
                if let Some(mut packed) = compression.compress(&data) {
                    let at = at.index(packed.len());
                    packed[at] ^= flip;
                    let _ = compression.decompress(&packed, data.len());
                }
            }
        }
    }
}
