//! The classic layer: messages of 264 bytes, their number at offset 0, their fields from offset 4.
//!
//! Here are the messages that lead into the asynchronous layer and out of it. Messages of other
//! numbers decode to [`Message::Other`] and are kept whole.

use super::{WireError, put_u32, u32_at};

/// Every classic message has this many bytes.
pub const MESSAGE_LEN: usize = 264;

/// The version that this crate speaks of in [`Message::Version`]: that of ESXi 8.
pub const VERSION: u32 = 11;

/// From this server version on, [`Message::ConnectionData`] is understood.
pub const VERSION_CONNECTION_DATA: u32 = 3;

const CLIENT_RANDOM_LEN: usize = MESSAGE_LEN - 4;

/// Message numbers.
pub mod number {
    /// The session is over; either side.
    pub const SESSION_COMPLETE: u32 = 4;
    /// Not known; perhaps how fast the sender may send.
    pub const RATE_CONTROL: u32 = 6;
    /// Not known; perhaps a sign of life.
    pub const PING: u32 = 8;
    /// An error; server only.
    pub const ERROR: u32 = 20;
    /// The client's session parameters (called FILE_COPY in older lists).
    pub const SESSION_PARAMETERS: u32 = 33;
    /// The answer to them (called FILEOP_STATUS in older lists).
    pub const SESSION_READY: u32 = 36;
    /// The word that was sent with `THUMBPRINT_SHA2`.
    pub const CLIENT_RANDOM: u32 = 43;
    /// The version; both sides.
    pub const VERSION: u32 = 51;
    /// Asks for the asynchronous layer; both sides.
    pub const AIO_OPEN: u32 = 52;
    /// Who the client is; client only, no answer.
    pub const CONNECTION_DATA: u32 = 54;
    /// What the client can do; client only, no answer.
    pub const FEATURES: u32 = 55;
}

/// A classic message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// 4: the session is over.
    SessionComplete,
    /// 20: an error. Its text follows as extra, `text_len` bytes with a NUL.
    Error {
        /// The error type; its values are not known.
        kind: u32,
        /// The error code.
        code: u32,
        /// Bytes of text that follow.
        text_len: u32,
    },
    /// 33: the client's parameters, all zero.
    SessionParameters,
    /// 36: the server is ready.
    SessionReady {
        /// Not 0: the server understands [`Message::Version`].
        version_follows: u32,
    },
    /// 43: the word sent with `THUMBPRINT_SHA2`, at most 260 bytes, without a NUL.
    ClientRandom(Vec<u8>),
    /// 51: the sender's version.
    Version(u32),
    /// 52: from here on, the asynchronous layer.
    AioOpen,
    /// 54: two strings follow as extra, without NUL or padding.
    ConnectionData {
        /// Bytes of the client's name.
        name_len: u32,
        /// Bytes of the operation id.
        operation_id_len: u32,
    },
    /// 55: a bit set of what the client can do (1 interruption, 2 host switch).
    Features(u32),
    /// Any other message, whole.
    Other(Box<[u8; MESSAGE_LEN]>),
}

impl Message {
    /// Reads a message.
    pub fn decode(bytes: &[u8; MESSAGE_LEN]) -> Self {
        match u32_at(bytes, 0) {
            number::SESSION_COMPLETE => Self::SessionComplete,
            number::ERROR => {
                Self::Error { kind: u32_at(bytes, 4), code: u32_at(bytes, 8), text_len: u32_at(bytes, 12) }
            }
            number::SESSION_PARAMETERS => Self::SessionParameters,
            number::SESSION_READY => Self::SessionReady { version_follows: u32_at(bytes, 16) },
            number::CLIENT_RANDOM => {
                let word = &bytes[4..];
                let end = word.iter().position(|byte| *byte == 0).unwrap_or(word.len());
                Self::ClientRandom(word[..end].to_vec())
            }
            number::VERSION => Self::Version(u32_at(bytes, 4)),
            number::AIO_OPEN => Self::AioOpen,
            number::CONNECTION_DATA => {
                Self::ConnectionData { name_len: u32_at(bytes, 4), operation_id_len: u32_at(bytes, 8) }
            }
            number::FEATURES => Self::Features(u32_at(bytes, 4)),
            _ => Self::Other(Box::new(*bytes)),
        }
    }

    /// Writes the message.
    ///
    /// # Errors
    /// When the word of a [`Message::ClientRandom`] has more than 260 bytes.
    pub fn encode(&self) -> Result<[u8; MESSAGE_LEN], WireError> {
        let mut bytes = [0; MESSAGE_LEN];
        put_u32(&mut bytes, 0, self.number());
        match self {
            Self::SessionComplete | Self::SessionParameters | Self::AioOpen => {}
            Self::Error { kind, code, text_len } => {
                put_u32(&mut bytes, 4, *kind);
                put_u32(&mut bytes, 8, *code);
                put_u32(&mut bytes, 12, *text_len);
            }
            Self::SessionReady { version_follows } => put_u32(&mut bytes, 16, *version_follows),
            Self::ClientRandom(word) => {
                if word.len() > CLIENT_RANDOM_LEN {
                    return Err(WireError::Malformed("the client word has more than 260 bytes"));
                }
                bytes[4..4 + word.len()].copy_from_slice(word);
            }
            Self::Version(value) | Self::Features(value) => put_u32(&mut bytes, 4, *value),
            Self::ConnectionData { name_len, operation_id_len } => {
                put_u32(&mut bytes, 4, *name_len);
                put_u32(&mut bytes, 8, *operation_id_len);
            }
            Self::Other(whole) => bytes = **whole,
        }
        Ok(bytes)
    }

    /// The message's number.
    pub fn number(&self) -> u32 {
        match self {
            Self::SessionComplete => number::SESSION_COMPLETE,
            Self::Error { .. } => number::ERROR,
            Self::SessionParameters => number::SESSION_PARAMETERS,
            Self::SessionReady { .. } => number::SESSION_READY,
            Self::ClientRandom(_) => number::CLIENT_RANDOM,
            Self::Version(_) => number::VERSION,
            Self::AioOpen => number::AIO_OPEN,
            Self::ConnectionData { .. } => number::CONNECTION_DATA,
            Self::Features(_) => number::FEATURES,
            Self::Other(whole) => u32_at(&whole[..], 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::padded;
    use super::*;

    /// The annotated examples E0, E1, E2 and E19.
    #[test]
    fn annotated_examples_decode_and_encode() {
        let examples = [
            (padded("2b000000 506c61696e54657874"), Message::ClientRandom(b"PlainText".to_vec())),
            (padded("21000000"), Message::SessionParameters),
            (padded("24000000 000000000000000000000000 01000000"), Message::SessionReady { version_follows: 1 }),
            (padded("33000000 0b000000"), Message::Version(11)),
            (padded("36000000 04000000 07000000"), Message::ConnectionData { name_len: 4, operation_id_len: 7 }),
            (padded("37000000 03000000"), Message::Features(3)),
            (padded("34000000"), Message::AioOpen),
            (padded("04000000"), Message::SessionComplete),
            (padded("14000000 01000000 05000000 0e000000"), Message::Error { kind: 1, code: 5, text_len: 14 }),
        ];
        for (bytes, message) in examples {
            assert_eq!(Message::decode(&bytes), message);
            assert_eq!(message.encode().unwrap(), bytes);
        }
    }

    #[test]
    fn unknown_message_is_kept_whole() {
        let bytes = padded("63000000 0102030405");
        let message = Message::decode(&bytes);
        assert_eq!(message.number(), 0x63);
        assert_eq!(message.encode().unwrap(), bytes);
    }

    #[test]
    fn client_word_that_does_not_fit_is_refused() {
        assert!(Message::ClientRandom(vec![1; 261]).encode().is_err());
        let full = Message::ClientRandom(vec![1; 260]);
        assert_eq!(Message::decode(&full.encode().unwrap()), full);
    }
}
