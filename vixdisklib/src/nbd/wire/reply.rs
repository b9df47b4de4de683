//! Replies, simple and structured, as lists of buffers that are written one after the other.

use std::ops::Range;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{
    BASE_ALLOCATION_ID, CHUNK_MAGIC, SIMPLE_REPLY_MAGIC, cut,
    request::Refusal,
    state_flag::{HOLE, ZERO},
};

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// The bytes that were to be read, in order and without a gap.
    Data {
        /// The bytes.
        pieces: Vec<Piece>,
        /// They have to travel in one chunk.
        whole: bool,
    },
    /// What the range that was asked about is, from its beginning on.
    Status(Vec<Extent>),
    /// It was not done, or not all of it.
    Failed(Refusal),
}

/// A part of what is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes at an offset.
    Data(u64, Bytes),
    /// A range that reads as zeros.
    Hole(Range<u64>),
}

impl Piece {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Data(_, bytes) => bytes.len() as u64,
            Self::Hole(range) => range.end - range.start,
        }
    }

    /// True when it is empty, which no piece should be.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn offset(&self) -> u64 {
        match self {
            Self::Data(offset, _) => *offset,
            Self::Hole(range) => range.start,
        }
    }

    fn put_bytes(self, out: &mut Vec<Bytes>) {
        match self {
            Self::Data(_, bytes) => out.push(bytes),
            Self::Hole(range) => {
                let mut left = range.end - range.start;
                while left > 0 {
                    let len = left.min(ZEROS.len() as u64);
                    out.push(Bytes::from_static(&ZEROS[..usize::try_from(len).unwrap_or(0)]));
                    left -= len;
                }
            }
        }
    }
}

/// A part of what [`Outcome::Status`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes.
    pub len: u32,
    /// Whether there may be data; else it is a hole that reads as zeros.
    pub data: bool,
}

/// The buffers of a reply.
pub fn encode(outcome: Outcome, cookie: u64, structured: bool) -> Vec<Bytes> {
    if structured { chunks(outcome, cookie) } else { simple(outcome, cookie) }
}

fn simple(outcome: Outcome, cookie: u64) -> Vec<Bytes> {
    let errno = match &outcome {
        Outcome::Failed(refusal) => refusal.errno as u32,
        _ => 0,
    };
    let mut head = BytesMut::with_capacity(16);
    head.put_u32(SIMPLE_REPLY_MAGIC);
    head.put_u32(errno);
    head.put_u64(cookie);
    let mut out = vec![head.freeze()];
    if let Outcome::Data { pieces, .. } = outcome {
        pieces.into_iter().for_each(|piece| piece.put_bytes(&mut out));
    }
    out
}

fn chunks(outcome: Outcome, cookie: u64) -> Vec<Bytes> {
    let mut out = Vec::new();
    match outcome {
        Outcome::Done => out.push(chunk(cookie, kind::NONE, true, 0, |_| {})),
        Outcome::Failed(refusal) => out.push(failure(cookie, &refusal)),
        Outcome::Status(extents) => {
            let body = BytesMut::with_capacity(4 + extents.len() * 8);
            let body = extents.into_iter().fold(body, |mut body, extent| {
                body.put_u32(extent.len);
                body.put_u32(if extent.data { 0 } else { HOLE | ZERO });
                body
            });
            out.push(chunk(cookie, kind::BLOCK_STATUS, true, 4 + body.len(), |out| {
                out.put_u32(BASE_ALLOCATION_ID);
                out.put_slice(&body);
            }));
        }
        Outcome::Data { pieces, whole: true } if pieces.len() > 1 => {
            let len = pieces.iter().map(Piece::len).sum::<u64>();
            out.push(data_head(cookie, true, pieces[0].offset(), len));
            pieces.into_iter().for_each(|piece| piece.put_bytes(&mut out));
        }
        Outcome::Data { pieces, .. } if pieces.is_empty() => return chunks(Outcome::Done, cookie),
        Outcome::Data { pieces, whole } => {
            let last = pieces.len() - 1;
            for (at, piece) in pieces.into_iter().enumerate() {
                let (offset, len, done) = (piece.offset(), piece.len(), at == last);
                match u32::try_from(len) {
                    Ok(len) if !whole && matches!(piece, Piece::Hole(_)) => {
                        out.push(chunk(cookie, kind::OFFSET_HOLE, done, 12, |out| {
                            out.put_u64(offset);
                            out.put_u32(len);
                        }));
                    }
                    _ => {
                        out.push(data_head(cookie, done, offset, len));
                        piece.put_bytes(&mut out);
                    }
                }
            }
        }
    }
    out
}

/// A chunk of data without its bytes.
fn data_head(cookie: u64, done: bool, offset: u64, len: u64) -> Bytes {
    let payload = usize::try_from(len + 8).unwrap_or(usize::MAX);
    chunk(cookie, kind::OFFSET_DATA, done, payload, |out| out.put_u64(offset))
}

fn failure(cookie: u64, refusal: &Refusal) -> Bytes {
    let message = cut(&refusal.message, MAX_MESSAGE);
    chunk(cookie, kind::ERROR, true, 6 + message.len(), |out| {
        out.put_u32(refusal.errno as u32);
        out.put_u16(u16::try_from(message.len()).unwrap_or(0));
        out.put_slice(message.as_bytes());
    })
}

fn chunk(cookie: u64, kind: u16, done: bool, len: usize, payload: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    out.put_u32(CHUNK_MAGIC);
    out.put_u16(u16::from(done));
    out.put_u16(kind);
    out.put_u64(cookie);
    // Requests are at most as long as was announced, which is far below 4 GiB.
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    payload(&mut out);
    out.freeze()
}

/// The kinds of chunks.
pub mod kind {
    /// Nothing more.
    pub const NONE: u16 = 0;
    /// Bytes.
    pub const OFFSET_DATA: u16 = 1;
    /// A hole.
    pub const OFFSET_HOLE: u16 = 2;
    /// Extents.
    pub const BLOCK_STATUS: u16 = 5;
    /// An error.
    pub const ERROR: u16 = (1 << 15) + 1;
}

/// The most bytes of a message; strings should not be much longer.
const MAX_MESSAGE: usize = 1024;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nbd::wire::Errno;

    fn bytes(outcome: Outcome, structured: bool) -> Vec<u8> {
        encode(outcome, 0x0102_0304_0506_0708, structured).concat()
    }

    fn read(whole: bool) -> Outcome {
        let pieces = vec![Piece::Data(512, Bytes::from_static(b"abc")), Piece::Hole(515..520)];
        Outcome::Data { pieces, whole }
    }

    #[test]
    fn a_simple_reply_carries_holes_as_zeros() {
        let reply = bytes(read(false), false);
        assert_eq!(reply[..16], [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(reply[16..], *b"abc\0\0\0\0\0");
    }

    #[test]
    fn a_structured_reply_names_holes_and_marks_its_last_chunk() {
        let reply = bytes(read(false), true);
        let (data, hole) = reply.split_at(20 + 8 + 3);
        assert_eq!(data[..8], [0x66, 0x8e, 0x33, 0xef, 0, 0, 0, 1]);
        assert_eq!(data[16..28], [0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 2, 0]);
        assert_eq!(hole[4..8], [0, 1, 0, 2]);
        assert_eq!(hole[16..], [0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 2, 3, 0, 0, 0, 5]);
    }

    #[test]
    fn one_chunk_holds_everything_when_the_client_wants_it_so() {
        let reply = bytes(read(true), true);
        assert_eq!(reply[4..8], [0, 1, 0, 1]);
        assert_eq!(reply[16..20], [0, 0, 0, 16]);
        assert_eq!(reply[28..], *b"abc\0\0\0\0\0");
        let hole = bytes(Outcome::Data { pieces: vec![Piece::Hole(0..4)], whole: true }, true);
        assert_eq!(hole[4..8], [0, 1, 0, 1]);
    }

    #[test]
    fn errors_have_a_number_and_to_structured_replies_a_text() {
        let refusal = || Outcome::Failed(Refusal::new(Errno::NoSpace, "full"));
        assert_eq!(bytes(refusal(), false)[4..8], [0, 0, 0, 28]);
        let reply = bytes(refusal(), true);
        assert_eq!(reply[4..8], [0, 1, 0x80, 1]);
        assert_eq!(reply[16..], *b"\0\0\0\x0a\0\0\0\x1c\0\x04full");
        let long = Refusal::new(Errno::Io, "ä".repeat(1000));
        assert_eq!(bytes(Outcome::Failed(long), true).len(), 20 + 6 + 1024);
    }

    #[test]
    fn extents_tell_data_from_holes() {
        let extents = vec![Extent { len: 65536, data: true }, Extent { len: 512, data: false }];
        let reply = bytes(Outcome::Status(extents), true);
        assert_eq!(reply[4..8], [0, 1, 0, 5]);
        assert_eq!(reply[16..20], [0, 0, 0, 20]);
        assert_eq!(reply[20..], [0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 3]);
    }
}
