//! The header of the asynchronous layer: 16 bytes in front of every message.

use bytes::{BufMut, BytesMut};

use super::{WireError, put_u32, u32_at};

/// Bytes of a header.
pub const HEADER_LEN: usize = 16;

/// The first four bytes of every message, little-endian.
pub const MAGIC: u32 = 0xA100_DA7A;

/// The largest payload that is taken, in bytes. The largest known one has 60; data is not payload.
pub const MAX_PAYLOAD: u32 = 64 * 1024;

/// What a message is about. A reply carries the kind of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// 1: an error; server only.
    Error,
    /// 2: opens the session and asks for buffers.
    OpenSession,
    /// 3: closes the session.
    CloseSession,
    /// 4: opens a file.
    OpenFile,
    /// 5: closes a file.
    CloseFile,
    /// 7: reads or writes.
    Io,
    /// 9: socket buffer sizes of the server.
    SetSockOpts,
    /// 11: looks up a disk database entry.
    DdbGet,
    /// 13: asks which chunks are allocated.
    QueryAllocated,
    /// 22: chooses a resource pool.
    SetResPool,
    /// A kind that is not known.
    Other(u32),
}

impl Kind {
    /// The kind with the number `number`.
    pub fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Error,
            2 => Self::OpenSession,
            3 => Self::CloseSession,
            4 => Self::OpenFile,
            5 => Self::CloseFile,
            7 => Self::Io,
            9 => Self::SetSockOpts,
            11 => Self::DdbGet,
            13 => Self::QueryAllocated,
            22 => Self::SetResPool,
            other => Self::Other(other),
        }
    }

    /// The number on the wire.
    pub fn number(self) -> u32 {
        match self {
            Self::Error => 1,
            Self::OpenSession => 2,
            Self::CloseSession => 3,
            Self::OpenFile => 4,
            Self::CloseFile => 5,
            Self::Io => 7,
            Self::SetSockOpts => 9,
            Self::DdbGet => 11,
            Self::QueryAllocated => 13,
            Self::SetResPool => 22,
            Self::Other(number) => number,
        }
    }
}

/// The header of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the message is about.
    pub kind: Kind,
    /// Bytes of payload; extras are not counted.
    pub size: u32,
    /// The operation: chosen by the client, copied by the server.
    pub op_id: u32,
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// On a wrong magic number (the streams are out of step) or a payload above [`MAX_PAYLOAD`].
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, WireError> {
        let magic = u32_at(bytes, 0);
        if magic != MAGIC {
            return Err(WireError::field("the magic number of an AIO header", magic));
        }
        let size = u32_at(bytes, 8);
        if size > MAX_PAYLOAD {
            return Err(WireError::field("the payload size of an AIO header", size));
        }
        Ok(Self { kind: Kind::from_number(u32_at(bytes, 4)), size, op_id: u32_at(bytes, 12) })
    }

    /// Writes the header.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        put_u32(&mut bytes, 0, MAGIC);
        put_u32(&mut bytes, 4, self.kind.number());
        put_u32(&mut bytes, 8, self.size);
        put_u32(&mut bytes, 12, self.op_id);
        bytes
    }
}

/// A message without its data: header, `payload` and `extra`, ready to be sent in one write.
///
/// Payloads are fixed structures of at most some dozen bytes, so the size always fits.
pub fn message(kind: Kind, op_id: u32, payload: &[u8], extra: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(HEADER_LEN + payload.len() + extra.len());
    let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    bytes.put_slice(&Header { kind, size, op_id }.encode());
    bytes.put_slice(payload);
    bytes.put_slice(extra);
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::hex;
    use super::*;

    #[test]
    fn header_of_open_file_decodes_and_encodes() {
        let bytes = hex("7ada00a1 04000000 3c000000 03000000");
        let header = Header::decode(bytes.as_slice().try_into().unwrap()).unwrap();
        assert_eq!(header, Header { kind: Kind::OpenFile, size: 60, op_id: 3 });
        assert_eq!(header.encode().as_slice(), bytes);
    }

    #[test]
    fn wrong_magic_and_huge_payload_are_refused() {
        let mut bytes = Header { kind: Kind::Io, size: 44, op_id: 4 }.encode();
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Header::decode(&bytes).is_err());
        bytes[8..12].copy_from_slice(&44u32.to_le_bytes());
        assert!(Header::decode(&bytes).is_ok());
        bytes[0] = 0;
        assert!(Header::decode(&bytes).is_err());
    }

    #[test]
    fn every_kind_keeps_its_number() {
        for number in 0..64 {
            assert_eq!(Kind::from_number(number).number(), number);
        }
    }
}
