//! Synchronous random access, the fallback for hosts without the asynchronous layer.
//!
//! One request is on its way at a time: a classic message, data behind a write, and the same
//! message as the answer, with data behind that of a read.

use super::classic::MESSAGE_LEN;
use super::classic_file::path_len;
use super::file::MAX_PATH;
use super::{WireError, put_u32, put_u64, u32_at, u64_at};

/// Message numbers.
pub mod number {
    /// Opens a disk.
    pub const OPEN: u32 = 21;
    /// The answer to it. Its fields are not known.
    pub const DISK_GEOMETRY: u32 = 22;
    /// Reads or writes.
    pub const IO: u32 = 23;
    /// Closes the disk.
    pub const CLOSE: u32 = 24;
}

/// The direction of a write. That of a read is not known.
pub const DIRECTION_WRITE: u32 = 1;

/// Open flags. The asynchronous layer's have the same meaning, and one more.
pub mod flags {
    /// Opens the parents too, and locks.
    pub const READ_WRITE: u32 = 0x0A;
    /// The same with the bit that the asynchronous layer has for reading.
    pub const READ_ONLY: u32 = READ_WRITE | crate::wire::file::flags::READ_ONLY_BIT;
}

/// A message of synchronous random access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// 21: opens a disk. The path follows, with a NUL.
    Open {
        /// Bytes of the path, with the NUL.
        path_len: u32,
        /// See [`flags`].
        flags: u32,
        /// A plain file is meant, and no disk.
        raw: bool,
    },
    /// 22: the disk is open.
    DiskGeometry,
    /// 23: reads or writes; also the answer.
    Io(Io),
    /// 24: closes the disk; also the answer.
    Close,
    /// Any other, by its number.
    Other(u32),
}

/// A read or a write. Offset and length are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Io {
    /// [`DIRECTION_WRITE`], or something else for a read.
    pub direction: u32,
    /// Where on the disk.
    pub offset: u64,
    /// How many bytes.
    pub len: u32,
}

impl Message {
    /// Reads a message.
    ///
    /// # Errors
    /// When a path is empty or longer than [`MAX_PATH`].
    pub fn decode(bytes: &[u8; MESSAGE_LEN]) -> Result<Self, WireError> {
        Ok(match u32_at(bytes, 0) {
            number::OPEN => {
                let len = u32_at(bytes, 4);
                if !(2..=MAX_PATH + 1).contains(&len) {
                    return Err(WireError::field("the path length of FSSRVR_OPEN", len));
                }
                Self::Open { path_len: len, flags: u32_at(bytes, 8), raw: bytes[12] != 0 }
            }
            number::DISK_GEOMETRY => Self::DiskGeometry,
            number::IO => {
                Self::Io(Io { direction: u32_at(bytes, 4), offset: u64_at(bytes, 8), len: u32_at(bytes, 16) })
            }
            number::CLOSE => Self::Close,
            other => Self::Other(other),
        })
    }

    /// Writes the message.
    pub fn encode(&self) -> [u8; MESSAGE_LEN] {
        let mut bytes = [0; MESSAGE_LEN];
        let number = match self {
            Self::Open { path_len, flags, raw } => {
                put_u32(&mut bytes, 4, *path_len);
                put_u32(&mut bytes, 8, *flags);
                bytes[12] = (*raw).into();
                number::OPEN
            }
            Self::DiskGeometry => number::DISK_GEOMETRY,
            Self::Io(io) => {
                put_u32(&mut bytes, 4, io.direction);
                put_u64(&mut bytes, 8, io.offset);
                put_u32(&mut bytes, 16, io.len);
                number::IO
            }
            Self::Close => number::CLOSE,
            Self::Other(number) => *number,
        };
        put_u32(&mut bytes, 0, number);
        bytes
    }

    /// The message with `path` behind it; `make` is given the path's length.
    ///
    /// # Errors
    /// When the path is empty, too long, or has a NUL of its own.
    pub fn with_path(path: &str, make: impl FnOnce(u32) -> Self) -> Result<Vec<u8>, WireError> {
        let message = make(path_len(path)?).encode();
        Ok([message.as_slice(), path.as_bytes(), b"\0"].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::super::hex;
    use super::*;

    /// The layouts of the sheet; it has no annotated example of them.
    #[test]
    fn messages_decode_and_encode() {
        let open = Message::Open { path_len: 16, flags: flags::READ_WRITE, raw: false };
        let write = Io { direction: DIRECTION_WRITE, offset: 1 << 40, len: 65536 };
        for (text, message) in [
            ("15000000 10000000 0a000000 00", open),
            ("16000000", Message::DiskGeometry),
            ("17000000 01000000 0000000000010000 00000100", Message::Io(write)),
            ("18000000", Message::Close),
            ("63000000", Message::Other(0x63)),
        ] {
            let mut bytes = hex(text);
            bytes.resize(MESSAGE_LEN, 0);
            assert_eq!(Message::decode(bytes.as_slice().try_into().unwrap()).unwrap(), message);
            assert_eq!(message.encode().as_slice(), bytes);
        }
        assert_eq!(flags::READ_ONLY, 0x0E);
        let empty = Message::Open { path_len: 1, flags: 0, raw: false };
        assert!(Message::decode(&empty.encode()).is_err());
    }
}
