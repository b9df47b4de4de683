//! The read and write payload: 44 bytes that describe a request and one fragment of it.

use super::compress::Compression;
use super::{WireError, put_u32, put_u64, u32_at, u64_at};

/// Bytes of an [`Io`] payload.
pub const IO_LEN: usize = 44;

/// Which way the data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// 0: to the disk.
    Write,
    /// 1: from the disk.
    Read,
}

/// A request or a fragment. Lengths and offsets are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Io {
    /// The file's handle; 0 in replies.
    pub handle: u64,
    /// Which way the data goes.
    pub direction: Direction,
    /// In a read request the wish, elsewhere how the extra is compressed.
    pub compression: Compression,
    /// Where the whole request starts on the disk.
    pub offset: u64,
    /// Length of the whole request.
    pub total: u32,
    /// Where the fragment starts in the request.
    pub fragment_offset: u32,
    /// Length of the fragment, uncompressed.
    pub fragment_len: u32,
    /// Bytes of extra that follow. In a read request and a write reply nothing follows, and the
    /// field repeats the total.
    pub wire_len: u32,
}

impl Io {
    /// A request to read `total` bytes at `offset`.
    pub fn read_request(handle: u64, compression: Compression, offset: u64, total: u32) -> Self {
        Self {
            handle,
            direction: Direction::Read,
            compression,
            offset,
            total,
            fragment_offset: 0,
            fragment_len: total,
            wire_len: total,
        }
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// On an unknown direction, on a fragment without length or outside its request, and on more
    /// extra than the fragment has bytes.
    pub fn decode(bytes: &[u8; IO_LEN]) -> Result<Self, WireError> {
        let direction = match u32_at(bytes, 8) {
            0 => Direction::Write,
            1 => Direction::Read,
            other => return Err(WireError::field("the direction of an IO message", other)),
        };
        let io = Self {
            handle: u64_at(bytes, 0),
            direction,
            compression: Compression::from_number(u32_at(bytes, 12)),
            offset: u64_at(bytes, 16),
            total: u32_at(bytes, 24),
            fragment_offset: u32_at(bytes, 28),
            fragment_len: u32_at(bytes, 32),
            wire_len: u32_at(bytes, 36),
        };
        if io.fragment_len == 0 {
            return Err(WireError::field("the fragment length of an IO message", 0u32));
        }
        let end = io.fragment_offset.checked_add(io.fragment_len);
        if end.is_none_or(|end| end > io.total) {
            return Err(WireError::field("the fragment offset of an IO message", io.fragment_offset));
        }
        if io.wire_len > io.fragment_len {
            return Err(WireError::field("the wire length of an IO message", io.wire_len));
        }
        if io.compression == Compression::None && io.wire_len != io.fragment_len {
            return Err(WireError::field("the wire length of a raw fragment", io.wire_len));
        }
        Ok(io)
    }

    /// Writes the payload.
    pub fn encode(&self) -> [u8; IO_LEN] {
        let mut bytes = [0; IO_LEN];
        put_u64(&mut bytes, 0, self.handle);
        put_u32(&mut bytes, 8, matches!(self.direction, Direction::Read).into());
        put_u32(&mut bytes, 12, self.compression.number());
        put_u64(&mut bytes, 16, self.offset);
        put_u32(&mut bytes, 24, self.total);
        put_u32(&mut bytes, 28, self.fragment_offset);
        put_u32(&mut bytes, 32, self.fragment_len);
        put_u32(&mut bytes, 36, self.wire_len);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::aio::{Kind, message};
    use super::super::hex;
    use super::*;

    const HANDLE: u64 = 0xA1_B2C3;

    /// The annotated examples E6, E7, E8 (its message without the data), E9 and E10.
    #[test]
    fn annotated_examples_decode_and_encode() {
        let read = |handle, compression, fragment_offset, fragment_len, wire_len| Io {
            handle,
            direction: Direction::Read,
            compression,
            offset: 1 << 20,
            total: 0x20000,
            fragment_offset,
            fragment_len,
            wire_len,
        };
        let write = |handle, fragment_offset, fragment_len| Io {
            handle,
            direction: Direction::Write,
            compression: Compression::None,
            offset: 0,
            total: 66048,
            fragment_offset,
            fragment_len,
            wire_len: fragment_len,
        };
        let e6 = "7ada00a1070000002c00000004000000 c3b2a10000000000 01000000 00000000
            0000100000000000 00000200 00000000 00000200 00000200 00000000";
        let e7 = "7ada00a1070000002c00000004000000 0000000000000000 01000000 00000000
            0000100000000000 00000200 00000100 00000100 00000100 00000000";
        let e8 = "7ada00a1070000002c00000004000000 0000000000000000 01000000 02000000
            0000100000000000 00000200 00000100 00000100 06010000 00000000";
        let e9 = "7ada00a1070000002c0000000e000000 c3b2a10000000000 00000000 00000000
            0000000000000000 00020100 00000100 00020000 00020000 00000000";
        let e10 = "7ada00a1070000002c0000000e000000 0000000000000000 00000000 00000000
            0000000000000000 00020100 00000000 00020100 00020100 00000000";
        for (text, op_id, io) in [
            (e6, 4, Io::read_request(HANDLE, Compression::None, 1 << 20, 0x20000)),
            (e7, 4, read(0, Compression::None, 0x10000, 0x10000, 0x10000)),
            (e8, 4, read(0, Compression::FastLz, 0x10000, 0x10000, 0x106)),
            (e9, 14, write(HANDLE, 0x10000, 512)),
            (e10, 14, write(0, 0, 66048)),
        ] {
            let bytes = hex(text);
            assert_eq!(Io::decode(bytes[16..].try_into().unwrap()).unwrap(), io);
            assert_eq!(&message(Kind::Io, op_id, &io.encode(), b"")[..], bytes);
        }
    }

    #[test]
    fn fragments_outside_their_request_are_refused() {
        let good = Io {
            fragment_offset: 512,
            fragment_len: 512,
            wire_len: 512,
            ..Io::read_request(0, Compression::None, 0, 1024)
        };
        assert!(Io::decode(&good.encode()).is_ok());
        for bad in [
            Io { fragment_len: 0, wire_len: 0, ..good },
            Io { fragment_len: 513, wire_len: 513, ..good },
            Io { fragment_offset: u32::MAX, ..good },
            Io { wire_len: 513, ..good },
            Io { wire_len: 511, ..good },
            Io { compression: Compression::Zlib, wire_len: 513, ..good },
        ] {
            assert!(Io::decode(&bad.encode()).is_err(), "{bad:?}");
        }
        let mut bytes = good.encode();
        bytes[8] = 2;
        assert!(Io::decode(&bytes).is_err());
    }
}
