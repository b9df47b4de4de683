//! Frames: how the content of a file travels in the classic layer.
//!
//! A message [`FileMessage::Data`], a magic number, a length, and so many bytes. A frame without
//! bytes ends the file.

use bytes::{Buf, Bytes, BytesMut};

use super::classic::MESSAGE_LEN;
use super::classic_file::FileMessage;
use super::{WireError, put_u32, u32_at};

/// In front of the length of every frame.
pub const MAGIC: u32 = 0xABCD_EFAB;
/// The most bytes of a frame.
pub const MAX_LEN: usize = 256 * 1024;
/// The most bytes of a frame of a disk: with everything in front of it, it has 256 KiB.
pub const MAX_DISK_LEN: usize = MAX_LEN - HEAD_LEN;
/// Bytes in front of the content: message, magic number, length.
pub const HEAD_LEN: usize = MESSAGE_LEN + LENGTH_LEN;

const LENGTH_LEN: usize = 8;

/// What stands in front of a frame of `len` bytes.
pub fn head(len: u32) -> [u8; HEAD_LEN] {
    let mut bytes = [0; HEAD_LEN];
    bytes[..MESSAGE_LEN].copy_from_slice(&FileMessage::Data.encode());
    put_u32(&mut bytes, MESSAGE_LEN, MAGIC);
    put_u32(&mut bytes, MESSAGE_LEN + 4, len);
    bytes
}

/// What was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// The content of a frame, never empty.
    Frame(Bytes),
    /// A frame without bytes: the end of the file.
    End,
    /// A message that is not about a frame. Its extra, if it has one, is still to come.
    Message(FileMessage),
}

/// Takes messages and frames off a stream of bytes, however it is cut.
///
/// At most one frame is kept, 256 KiB.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    /// A message comes next.
    #[default]
    Message,
    /// The message of a frame was read.
    Length,
    /// So many bytes of a frame are to come.
    Content(usize),
}

impl Decoder {
    /// Takes the next thing from the front of `bytes`; `None` when there is not enough yet.
    ///
    /// # Errors
    /// When the bytes do not follow the protocol. Nothing useful can follow.
    pub fn next(&mut self, bytes: &mut BytesMut) -> Result<Option<Incoming>, WireError> {
        loop {
            match self.state {
                State::Message => {
                    let Some(message) = bytes.first_chunk::<MESSAGE_LEN>() else { return Ok(None) };
                    let message = FileMessage::decode(message)?;
                    bytes.advance(MESSAGE_LEN);
                    if message != FileMessage::Data {
                        return Ok(Some(Incoming::Message(message)));
                    }
                    self.state = State::Length;
                }
                State::Length => {
                    let Some(length) = bytes.first_chunk::<LENGTH_LEN>() else { return Ok(None) };
                    let (magic, len) = (u32_at(length, 0), u32_at(length, 4));
                    if magic != MAGIC {
                        return Err(WireError::field("the magic number of a frame", magic));
                    }
                    let fits = usize::try_from(len).ok().filter(|len| *len <= MAX_LEN);
                    let len = fits.ok_or(WireError::field("the length of a frame", len))?;
                    bytes.advance(LENGTH_LEN);
                    if len == 0 {
                        self.state = State::Message;
                        return Ok(Some(Incoming::End));
                    }
                    self.state = State::Content(len);
                }
                State::Content(len) if bytes.len() < len => return Ok(None),
                State::Content(len) => {
                    self.state = State::Message;
                    return Ok(Some(Incoming::Frame(bytes.split_to(len).freeze())));
                }
            }
        }
    }

    /// Whether the stream may end here: not within a frame.
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::hex;
    use super::*;

    fn all(bytes: &[u8], step: usize) -> Result<Vec<Incoming>, WireError> {
        let (mut decoder, mut buffer, mut all) = (Decoder::default(), BytesMut::new(), Vec::new());
        for part in bytes.chunks(step) {
            buffer.extend_from_slice(part);
            while let Some(incoming) = decoder.next(&mut buffer)? {
                all.push(incoming);
            }
        }
        Ok(all)
    }

    #[test]
    fn frames_are_found_however_the_stream_is_cut() {
        let largest = vec![7; MAX_LEN];
        let stream = [
            &head(3)[..],
            b"abc",
            &FileMessage::Ping.encode(),
            &head(MAX_LEN as u32),
            &largest,
            &head(0),
            &FileMessage::PutDone.encode(),
        ]
        .concat();
        let expected = [
            Incoming::Frame(Bytes::from_static(b"abc")),
            Incoming::Message(FileMessage::Ping),
            Incoming::Frame(largest.into()),
            Incoming::End,
            Incoming::Message(FileMessage::PutDone),
        ];
        for step in [1, 7, 263, 264, 265, 65536, stream.len()] {
            assert!(all(&stream, step).unwrap() == expected, "{step}");
        }
    }

    /// The head of the annotated example E17.
    #[test]
    fn head_of_a_frame_encodes() {
        let head = head(0x420);
        assert_eq!(head[..4], hex("07000000"));
        assert!(head[4..264].iter().all(|byte| *byte == 0));
        assert_eq!(head[264..], hex("abefcdab 20040000"));
        assert_eq!(MAX_DISK_LEN, 261_872);
    }

    #[test]
    fn wrong_magic_and_long_frames_are_refused() {
        let mut bytes = head(MAX_LEN as u32 + 1);
        assert!(all(&bytes, 272).is_err());
        bytes = head(1);
        bytes[264] ^= 1;
        assert!(all(&bytes, 272).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_value_or_an_error(bytes: Vec<u8>, first in 0u32..10, step in 1usize..100) {
            let mut message = [0; MESSAGE_LEN];
            put_u32(&mut message, 0, first);
            let _ = all(&[&message, bytes.as_slice()].concat(), step);
        }
    }
}
