//! Payloads of allocation queries and of look-ups in the disk database.

use std::ops::Range;

use super::{WireError, put_u32, put_u64, u32_at, u64_at};

/// Bytes of an allocation query and of its reply. The bitmap follows the reply as extra.
pub const ALLOCATION_LEN: usize = 48;
/// Bytes of a look-up and of its reply. Key and value follow as extra.
pub const DDB_LEN: usize = 16;
/// The smallest chunk of an allocation query, in bytes.
pub const MIN_CHUNK: u64 = 64 * 1024;
/// The most chunks of one allocation query.
pub const MAX_CHUNKS: u64 = 524_288;
/// The longest key that is taken, in bytes.
pub const MAX_KEY: u32 = 4096;

/// Asks which chunks of a range are allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllocationQuery {
    /// The file's handle.
    pub handle: u64,
    /// Bytes of a chunk.
    pub chunk: u64,
    /// First byte asked for, a multiple of the chunk.
    pub start: u64,
    /// How many chunks.
    pub count: u64,
}

impl AllocationQuery {
    /// Reads the payload.
    pub fn decode(bytes: &[u8; ALLOCATION_LEN]) -> Self {
        Self { handle: u64_at(bytes, 0), chunk: u64_at(bytes, 16), start: u64_at(bytes, 24), count: u64_at(bytes, 32) }
    }

    /// Writes the payload.
    pub fn encode(&self) -> [u8; ALLOCATION_LEN] {
        let mut bytes = [0; ALLOCATION_LEN];
        put_u64(&mut bytes, 0, self.handle);
        put_u64(&mut bytes, 16, self.chunk);
        put_u64(&mut bytes, 24, self.start);
        put_u64(&mut bytes, 32, self.count);
        bytes
    }
}

/// The payload of the reply to a query of `count` chunks.
pub fn encode_allocation_reply(count: u64) -> [u8; ALLOCATION_LEN] {
    let mut bytes = [0; ALLOCATION_LEN];
    put_u64(&mut bytes, 32, count);
    bytes
}

/// The number of chunks in the reply's bitmap.
///
/// # Errors
/// When it is not the number asked for.
pub fn decode_allocation_reply(bytes: &[u8; ALLOCATION_LEN], asked: u64) -> Result<u64, WireError> {
    let count = u64_at(bytes, 32);
    if count != asked {
        return Err(WireError::field("the chunk count of an allocation reply", count));
    }
    Ok(count)
}

/// Bytes of the bitmap of `count` chunks: one bit a chunk, padded to 4 bytes.
pub fn bitmap_len(count: u64) -> u64 {
    count.div_ceil(32).saturating_mul(4)
}

/// The bitmap of `count` chunks of `chunk` bytes from `start`, with the chunks that `allocated`
/// touches set, lowest bit first.
pub fn bitmap_of(query: &AllocationQuery, allocated: &[Range<u64>]) -> Vec<u8> {
    let bytes = usize::try_from(bitmap_len(query.count.min(MAX_CHUNKS))).unwrap_or(0);
    let mut bitmap = vec![0u8; bytes];
    for range in allocated {
        if query.chunk == 0 || range.end <= range.start || range.end <= query.start {
            continue;
        }
        let first = range.start.saturating_sub(query.start) / query.chunk;
        let last = (range.end - 1 - query.start) / query.chunk;
        for bit in first..=last.min(query.count.saturating_sub(1)) {
            if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| bitmap.get_mut(at)) {
                *byte |= 1 << (bit % 8);
            }
        }
    }
    bitmap
}

/// The ranges of bytes whose bits are set, merged, ascending. Padding bits are not looked at.
pub fn ranges_of(query: &AllocationQuery, bitmap: &[u8]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let bits = query.count.min(bitmap.len() as u64 * 8);
    let mut bit = 0;
    while bit < bits {
        // In range: bit < bits <= 8 * bitmap.len().
        let byte = bitmap[usize::try_from(bit / 8).unwrap_or(usize::MAX).min(bitmap.len() - 1)];
        if byte == 0 && bit % 8 == 0 {
            bit += 8;
            continue;
        }
        if byte & (1 << (bit % 8)) != 0 {
            let start = query.start.saturating_add(bit.saturating_mul(query.chunk));
            let end = start.saturating_add(query.chunk);
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        bit += 1;
    }
    ranges
}

/// Looks up a disk database entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DdbGet {
    /// The file's handle.
    pub handle: u64,
    /// Bytes of the key that follows, without `ddb.` and without NUL.
    pub key_len: u32,
}

impl DdbGet {
    /// Reads the payload.
    ///
    /// # Errors
    /// When the key is longer than [`MAX_KEY`].
    pub fn decode(bytes: &[u8; DDB_LEN]) -> Result<Self, WireError> {
        let key_len = u32_at(bytes, 8);
        if key_len > MAX_KEY {
            return Err(WireError::field("the key length of a DDB look-up", key_len));
        }
        Ok(Self { handle: u64_at(bytes, 0), key_len })
    }

    /// Writes the payload.
    pub fn encode(&self) -> [u8; DDB_LEN] {
        let mut bytes = [0; DDB_LEN];
        put_u64(&mut bytes, 0, self.handle);
        put_u32(&mut bytes, 8, self.key_len);
        bytes
    }
}

/// The payload of the reply to a look-up. The value follows as extra; no bytes mean no such key.
pub fn encode_ddb_reply(value_len: u32) -> [u8; DDB_LEN] {
    let mut bytes = [0; DDB_LEN];
    put_u32(&mut bytes, 12, value_len);
    bytes
}

/// Bytes of the value that follows a reply.
pub fn decode_ddb_reply(bytes: &[u8; DDB_LEN]) -> u32 {
    u32_at(bytes, 12)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::aio::{Kind, message};
    use super::super::hex;
    use super::*;

    const CHUNK: u64 = 64 * 1024;

    fn example() -> AllocationQuery {
        AllocationQuery { handle: 0xA1_B2C3, chunk: CHUNK, start: 1 << 20, count: 40 }
    }

    /// The annotated example E11.
    #[test]
    fn allocation_query_decodes_and_encodes() {
        let bytes = hex("7ada00a10d0000003000000005000000 c3b2a10000000000
            0000000000000000 0000010000000000 0000100000000000
            2800000000000000 0000000000000000");
        let query = AllocationQuery::decode(bytes[16..].try_into().unwrap());
        assert_eq!(query, example());
        assert_eq!(&message(Kind::QueryAllocated, 5, &query.encode(), b"")[..], bytes);
    }

    /// The annotated example E12.
    #[test]
    fn allocation_reply_gives_merged_ranges_without_the_padding() {
        let mut bytes = hex("7ada00a10d0000003000000005000000");
        bytes.resize(48, 0);
        bytes.extend(hex("2800000000000000 0000000000000000 7700ffff80 000000"));
        let count = decode_allocation_reply(bytes[16..64].try_into().unwrap(), 40).unwrap();
        assert_eq!(bitmap_len(count), 8);
        let ranges = ranges_of(&example(), &bytes[64..]);
        let at = |chunk: u64| (1 << 20) + chunk * CHUNK;
        assert_eq!(ranges, [at(0)..at(3), at(4)..at(7), at(16)..at(32), at(39)..at(40)]);
        assert_eq!(bitmap_of(&example(), &ranges), &bytes[64..]);
        assert_eq!(&encode_allocation_reply(40)[..], &bytes[16..64]);
        assert!(decode_allocation_reply(bytes[16..64].try_into().unwrap(), 41).is_err());
    }

    /// The annotated examples E13 and E14.
    #[test]
    fn ddb_look_up_decodes_and_encodes() {
        let bytes = hex("7ada00a10b0000001000000006000000 c3b2a10000000000 0b000000 00000000
            6164617074657254797065");
        let get = DdbGet::decode(bytes[16..32].try_into().unwrap()).unwrap();
        assert_eq!(get, DdbGet { handle: 0xA1_B2C3, key_len: 11 });
        assert_eq!(&message(Kind::DdbGet, 6, &get.encode(), b"adapterType")[..], bytes);
        let reply = hex("000000000000000000000000 08000000");
        assert_eq!(decode_ddb_reply(reply.as_slice().try_into().unwrap()), 8);
        assert_eq!(encode_ddb_reply(8).as_slice(), reply);
    }

    proptest! {
        #[test]
        fn bitmaps_and_ranges_are_inverse(bits in prop::collection::vec(any::<bool>(), 1..200)) {
            let query = AllocationQuery { count: bits.len() as u64, ..example() };
            let mut bitmap = vec![0u8; bitmap_len(query.count) as usize];
            for (at, set) in bits.iter().enumerate() {
                bitmap[at / 8] |= u8::from(*set) << (at % 8);
            }
            let ranges = ranges_of(&query, &bitmap);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert_eq!(bitmap_of(&query, &ranges), bitmap);
        }

        #[test]
        fn any_bitmap_gives_ranges_without_a_panic(
            bitmap in prop::collection::vec(any::<u8>(), 0..64),
            chunk: u64, start: u64, count: u64,
        ) {
            let _ = ranges_of(&AllocationQuery { handle: 0, chunk, start, count }, &bitmap);
        }
    }
}
