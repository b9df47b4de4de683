//! The messages of the NBD protocol as bytes, after its public description
//! (<https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>). Pure functions: no I/O, no clock.
//!
//! Everything is big-endian. What comes from clients is bounded before anything is allocated for it.

pub mod negotiation;
pub mod option;
pub mod reply;
pub mod request;

/// `NBDMAGIC`: the server's first word.
pub const SERVER_MAGIC: u64 = 0x4e42_444d_4147_4943;

/// `IHAVEOPT`: the server's second word, and the first one of every option.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;

/// The first word of every answer to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// The first word of every request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;

/// The first word of a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;

/// The first word of a chunk of a structured reply.
pub const CHUNK_MAGIC: u32 = 0x668e_33ef;

/// The port that is registered for NBD.
pub const PORT: u16 = 10809;

/// The most bytes of a name or message.
pub const MAX_STRING: usize = 4096;

/// What client and server tell each other first.
pub mod handshake_flag {
    /// Options may fail without ending the connection.
    pub const FIXED_NEWSTYLE: u16 = 1;
    /// The 124 zeros after `EXPORT_NAME` may be left out.
    pub const NO_ZEROES: u16 = 1 << 1;
}

/// What a client may do with an export.
pub mod transmission_flag {
    /// Always set.
    pub const HAS_FLAGS: u16 = 1;
    /// Writes are refused.
    pub const READ_ONLY: u16 = 1 << 1;
    /// `FLUSH` is known.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// Command flag `FUA` is known.
    pub const SEND_FUA: u16 = 1 << 3;
    /// `TRIM` is known.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// `WRITE_ZEROES` is known.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// Command flag `DF` is known.
    pub const SEND_DF: u16 = 1 << 7;
    /// A flush on one connection covers the writes of all.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    /// `CACHE` is known.
    pub const SEND_CACHE: u16 = 1 << 10;
    /// Command flag `FAST_ZERO` is known.
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// What a request adds to its command.
pub mod command_flag {
    /// The reply may come only when what was written is durable.
    pub const FUA: u16 = 1;
    /// Zeros must be written, not left out.
    pub const NO_HOLE: u16 = 1 << 1;
    /// One chunk of data, please.
    pub const DF: u16 = 1 << 2;
    /// One extent is enough.
    pub const REQ_ONE: u16 = 1 << 3;
    /// Fail rather than write zeros as bytes.
    pub const FAST_ZERO: u16 = 1 << 4;
}

/// What a range is, in the context `base:allocation`.
pub mod state_flag {
    /// Has no storage behind it.
    pub const HOLE: u32 = 1;
    /// Reads as zeros.
    pub const ZERO: u32 = 1 << 1;
}

/// The one metadata context that is served.
pub const BASE_ALLOCATION: &str = "base:allocation";

/// The context's number in replies.
pub const BASE_ALLOCATION_ID: u32 = 1;

/// Error numbers of replies: those of Linux, whatever the server runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Errno {
    /// `EPERM`: writing to what is read-only.
    NotPermitted = 1,
    /// `EIO`.
    Io = 5,
    /// `EINVAL`: a request that makes no sense.
    Invalid = 22,
    /// `ENOSPC`: also writes beyond the end.
    NoSpace = 28,
    /// `EOVERFLOW`: more than fits in one chunk.
    Overflow = 75,
    /// `ENOTSUP`: zeros would not be fast.
    NotSupported = 95,
}

/// The text cut to `limit` bytes, between two characters.
fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
