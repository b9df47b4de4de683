//! Messages of the classic layer about whole files: fetch, store, make a directory, delete.
//!
//! Paths follow their message as extra, with a NUL that counts. The content of files travels in
//! [frames](super::frames).

use super::classic::MESSAGE_LEN;
use super::file::MAX_PATH;
use super::{WireError, put_u32, put_u64, u32_at, u64_at};

/// Message numbers.
pub mod number {
    /// Announces a file: from the client, and as the answer to [`FILE_GET`].
    pub const FILE_PUT: u32 = 1;
    /// Asks for a file.
    pub const FILE_GET: u32 = 2;
    /// The session is over; either side.
    pub const SESSION_COMPLETE: u32 = 4;
    /// Slower or faster, please; either side.
    pub const RATE_CONTROL: u32 = 6;
    /// A frame of a file follows.
    pub const FILE_DATA: u32 = 7;
    /// Is anyone there; either side.
    pub const PING: u32 = 8;
    /// An error; server only.
    pub const ERROR: u32 = 20;
    /// The file is stored; server only.
    pub const PUTFILE_DONE: u32 = 27;
    /// Deletes a file.
    pub const FILE_DELETE: u32 = 31;
    /// Makes a directory.
    pub const FILE_CREATEDIR: u32 = 34;
    /// The outcome of the last two.
    pub const FILEOP_STATUS: u32 = 36;
}

/// What is asked for about the form of a file, in [`FilePut`] and [`FileGet`].
pub mod conversion {
    /// A disk becomes one of VMFS.
    pub const VMFS: u32 = 0x08;
    /// A file that exists is overwritten.
    pub const CREATE_OVERWRITE: u32 = 0x10;
    /// A disk is thin: storage is taken as it is needed.
    pub const THIN: u32 = 0x80;
    /// A disk is for an LSI Logic adapter.
    pub const LSILOGIC: u32 = 0x100;
    /// A disk is for an IDE adapter.
    pub const IDE: u32 = 0x2000;
}

/// Flags of [`PathOperation`].
pub mod operation {
    /// Against what stands in the way.
    pub const FORCE: u32 = 1;
    /// With the directories above.
    pub const CREATE_HIERARCHY: u32 = 2;
}

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileType {
    /// 0: bytes as they are.
    Raw,
    /// 1: text whose line ends may be converted.
    Text,
    /// 2: a disk, as a [disk stream](super::disk_stream).
    Disk,
    /// 3: a disk that is the child of another.
    DeltaDisk,
    /// Any other.
    Other(u32),
}

impl FileType {
    /// The type with the number `number`.
    pub fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Raw,
            1 => Self::Text,
            2 => Self::Disk,
            3 => Self::DeltaDisk,
            other => Self::Other(other),
        }
    }

    /// The number on the wire.
    pub fn number(self) -> u32 {
        match self {
            Self::Raw => 0,
            Self::Text => 1,
            Self::Disk => 2,
            Self::DeltaDisk => 3,
            Self::Other(number) => number,
        }
    }
}

/// 1: a file is about to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilePut {
    /// What kind of file.
    pub file_type: FileType,
    /// See [`conversion`].
    pub conversion: u32,
    /// Bytes of the path, with the NUL.
    pub path_len: u32,
    /// The file's size in bytes; of a disk, its capacity.
    pub size: u64,
    /// Bytes of storage that are needed; seen only with the same value.
    pub space: u64,
}

/// 2: a file is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileGet {
    /// What kind of file.
    pub file_type: FileType,
    /// Bytes of the path, with the NUL.
    pub path_len: u32,
    /// See [`conversion`].
    pub conversion: u32,
}

/// 31 and 34: something is to be done to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathOperation {
    /// Bytes of the path, with the NUL.
    pub path_len: u32,
    /// See [`operation`].
    pub flags: u32,
    /// Probably how many paths; seen only as 1.
    pub count: u16,
}

/// A message of the classic layer about files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileMessage {
    /// 1: a file is about to come. The path follows.
    Put(FilePut),
    /// 2: a file is asked for. The path follows.
    Get(FileGet),
    /// 4: the session is over.
    SessionComplete,
    /// 6: to be skipped.
    RateControl,
    /// 7: a frame follows.
    Data,
    /// 8: to be skipped.
    Ping,
    /// 20: an error. Its text follows, `text_len` bytes with a NUL.
    Error {
        /// The error type; its values are not known.
        kind: u32,
        /// The error code.
        code: u32,
        /// Bytes of text.
        text_len: u32,
    },
    /// 27: the file is stored.
    PutDone,
    /// 31: deletes a file. The path follows.
    Delete(PathOperation),
    /// 34: makes a directory. The path follows.
    CreateDirectory(PathOperation),
    /// 36: how an operation went.
    Status {
        /// Not 0: it failed. Called the size of an error; what follows then is not known.
        error: u32,
    },
    /// Any other, by its number.
    Other(u32),
}

impl FileMessage {
    /// Reads a message.
    ///
    /// # Errors
    /// When a path is empty or longer than [`MAX_PATH`].
    pub fn decode(bytes: &[u8; MESSAGE_LEN]) -> Result<Self, WireError> {
        let path_len = |at| match u32_at(bytes, at) {
            len if (2..=MAX_PATH + 1).contains(&len) => Ok(len),
            len => Err(WireError::field("the path length of a classic message", len)),
        };
        let operation = || {
            let count = u16::from_le_bytes([bytes[12], bytes[13]]);
            Ok(PathOperation { path_len: path_len(4)?, flags: u32_at(bytes, 8), count })
        };
        Ok(match u32_at(bytes, 0) {
            number::FILE_PUT => Self::Put(FilePut {
                file_type: FileType::from_number(u32_at(bytes, 4)),
                conversion: u32_at(bytes, 8),
                path_len: path_len(12)?,
                size: u64_at(bytes, 16),
                space: u64_at(bytes, 24),
            }),
            number::FILE_GET => Self::Get(FileGet {
                file_type: FileType::from_number(u32_at(bytes, 4)),
                path_len: path_len(8)?,
                conversion: u32_at(bytes, 12),
            }),
            number::SESSION_COMPLETE => Self::SessionComplete,
            number::RATE_CONTROL => Self::RateControl,
            number::FILE_DATA => Self::Data,
            number::PING => Self::Ping,
            number::ERROR => {
                Self::Error { kind: u32_at(bytes, 4), code: u32_at(bytes, 8), text_len: u32_at(bytes, 12) }
            }
            number::PUTFILE_DONE => Self::PutDone,
            number::FILE_DELETE => Self::Delete(operation()?),
            number::FILE_CREATEDIR => Self::CreateDirectory(operation()?),
            number::FILEOP_STATUS => Self::Status { error: u32_at(bytes, 4) },
            other => Self::Other(other),
        })
    }

    /// Writes the message.
    pub fn encode(&self) -> [u8; MESSAGE_LEN] {
        let mut bytes = [0; MESSAGE_LEN];
        put_u32(&mut bytes, 0, self.number());
        match self {
            Self::Put(put) => {
                put_u32(&mut bytes, 4, put.file_type.number());
                put_u32(&mut bytes, 8, put.conversion);
                put_u32(&mut bytes, 12, put.path_len);
                put_u64(&mut bytes, 16, put.size);
                put_u64(&mut bytes, 24, put.space);
            }
            Self::Get(get) => {
                put_u32(&mut bytes, 4, get.file_type.number());
                put_u32(&mut bytes, 8, get.path_len);
                put_u32(&mut bytes, 12, get.conversion);
            }
            Self::Error { kind, code, text_len } => {
                put_u32(&mut bytes, 4, *kind);
                put_u32(&mut bytes, 8, *code);
                put_u32(&mut bytes, 12, *text_len);
            }
            Self::Delete(operation) | Self::CreateDirectory(operation) => {
                put_u32(&mut bytes, 4, operation.path_len);
                put_u32(&mut bytes, 8, operation.flags);
                bytes[12..14].copy_from_slice(&operation.count.to_le_bytes());
            }
            Self::Status { error } => put_u32(&mut bytes, 4, *error),
            Self::SessionComplete | Self::RateControl | Self::Data | Self::Ping | Self::PutDone | Self::Other(_) => {}
        }
        bytes
    }

    /// The message's number.
    pub fn number(&self) -> u32 {
        match self {
            Self::Put(_) => number::FILE_PUT,
            Self::Get(_) => number::FILE_GET,
            Self::SessionComplete => number::SESSION_COMPLETE,
            Self::RateControl => number::RATE_CONTROL,
            Self::Data => number::FILE_DATA,
            Self::Ping => number::PING,
            Self::Error { .. } => number::ERROR,
            Self::PutDone => number::PUTFILE_DONE,
            Self::Delete(_) => number::FILE_DELETE,
            Self::CreateDirectory(_) => number::FILE_CREATEDIR,
            Self::Status { .. } => number::FILEOP_STATUS,
            Self::Other(number) => *number,
        }
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

/// Bytes of `path` with its NUL.
pub(super) fn path_len(path: &str) -> Result<u32, WireError> {
    if path.contains('\0') {
        return Err(WireError::Malformed("a path must not have a NUL"));
    }
    let fits = u32::try_from(path.len()).ok().filter(|len| (1..=MAX_PATH).contains(len));
    fits.map(|len| len + 1).ok_or(WireError::Malformed("a path must have 1 to 4096 bytes"))
}

/// The text of a path as it was sent, up to its NUL. What is not UTF-8 is replaced.
pub fn path_text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::{hex, padded};
    use super::*;

    /// The annotated example E16.
    #[test]
    fn put_of_a_thin_disk_decodes_and_encodes() {
        use conversion::{CREATE_OVERWRITE, LSILOGIC, THIN, VMFS};
        let bytes = padded("01000000 02000000 98010000 10000000 0000004000000000 0000004000000000");
        let put = |path_len| {
            FileMessage::Put(FilePut {
                file_type: FileType::Disk,
                conversion: VMFS | CREATE_OVERWRITE | THIN | LSILOGIC,
                path_len,
                size: 1 << 30,
                space: 1 << 30,
            })
        };
        assert_eq!(FileMessage::decode(&bytes).unwrap(), put(16));
        let whole = FileMessage::with_path("[ds] vm/vm.vmdk", put).unwrap();
        assert_eq!(whole[..MESSAGE_LEN], bytes);
        assert_eq!(whole[MESSAGE_LEN..], hex("5b64735d20766d2f766d2e766d646b00"));
        assert_eq!(path_text(&whole[MESSAGE_LEN..]), "[ds] vm/vm.vmdk");
    }

    /// The annotated example E19, and layouts of the sheet that have no example.
    #[test]
    fn other_messages_decode_and_encode() {
        let operation = PathOperation { path_len: 5, flags: operation::CREATE_HIERARCHY, count: 1 };
        let get = FileGet { file_type: FileType::Disk, path_len: 16, conversion: 0 };
        for (bytes, message) in [
            (padded("14000000 01000000 05000000 0e000000"), FileMessage::Error { kind: 1, code: 5, text_len: 14 }),
            (padded("02000000 02000000 10000000 00000000"), FileMessage::Get(get)),
            (padded("1f000000 05000000 02000000 0100"), FileMessage::Delete(operation)),
            (padded("22000000 05000000 02000000 0100"), FileMessage::CreateDirectory(operation)),
            (padded("24000000 0c000000"), FileMessage::Status { error: 12 }),
            (padded("1b000000"), FileMessage::PutDone),
            (padded("07000000"), FileMessage::Data),
            (padded("04000000"), FileMessage::SessionComplete),
            (padded("06000000"), FileMessage::RateControl),
            (padded("08000000"), FileMessage::Ping),
            (padded("63000000"), FileMessage::Other(0x63)),
        ] {
            assert_eq!(FileMessage::decode(&bytes).unwrap(), message);
            assert_eq!(message.encode(), bytes, "{message:?}");
        }
    }

    #[test]
    fn paths_without_end_or_content_are_refused() {
        for len in ["00000000", "01000000", "02100000", "ffffffff"] {
            assert!(FileMessage::decode(&padded(&format!("02000000 00000000 {len}"))).is_err(), "{len}");
        }
        let long = "x".repeat(4097);
        for path in ["", "a\0b", long.as_str()] {
            assert!(FileMessage::with_path(path, FileMessage::Other).is_err());
        }
    }
}
