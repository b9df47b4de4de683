//! The bytes of NFC: pure encoding and decoding, without input or output.
//!
//! Client and simulator share this module, so one side's encoder meets the other side's decoder in
//! every test. All integers are little-endian, unsigned and packed; sizes and offsets are bytes.
//!
//! | module | what |
//! |-|-|
//! | [`authd`] | the line protocol in front: banner, commands, replies |
//! | [`classic`] | the 264-byte messages that start and end a session |
//! | [`classic_file`] | those about whole files |
//! | [`frames`] | how the content of a file travels |
//! | [`disk_stream`] | what it is when the file is a disk |
//! | [`fssrvr`] | messages of synchronous random access |
//! | [`aio`] | the 16-byte header of the asynchronous layer |
//! | [`session`] | payloads that set up an AIO session |
//! | [`mod@file`] | payloads that open and close a disk |
//! | [`io`] | the read and write payload |
//! | [`query`] | payloads of allocation queries and disk database look-ups |
//! | [`fault`] | what an error message carries |
//! | [`compress`] | compression of a fragment |
//!
//! "Extra" means bytes that follow a message and that its size field does not count.

pub mod aio;
pub mod authd;
pub mod classic;
pub mod classic_file;
pub mod compress;
pub mod disk_stream;
pub mod fault;
pub mod file;
pub mod frames;
pub mod fssrvr;
pub mod io;
pub mod query;
pub mod session;

/// Bytes that do not follow the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// A field has a value that it must not have here.
    #[error("{field} is {value:#x}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// The value that was found.
        value: u64,
    },
    /// The bytes as a whole are wrong.
    #[error("{0}")]
    Malformed(&'static str),
}

impl WireError {
    /// A field with a value that it must not have.
    pub(crate) fn field(field: &'static str, value: impl Into<u64>) -> Self {
        Self::Field { field, value: value.into() }
    }
}

/// The u32 at `at`. Callers index into arrays of fixed size, so the range always exists.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// The u64 at `at`. Callers index into arrays of fixed size, so the range always exists.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Writes `value` at `at`.
pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Writes `value` at `at`.
pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Bytes of an annotated example: hexadecimal digits, blanks ignored.
#[cfg(test)]
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A classic message of an annotated example: its first fields, zeros behind them.
#[cfg(test)]
pub(crate) fn padded(fields: &str) -> [u8; classic::MESSAGE_LEN] {
    let mut bytes = hex(fields);
    bytes.resize(classic::MESSAGE_LEN, 0);
    bytes.try_into().unwrap()
}
