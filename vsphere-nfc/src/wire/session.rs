//! Payloads that set up an AIO session: buffers, socket options, resource pool.

use super::{put_u32, u32_at};

/// Bytes of an [`OpenSession`] payload, and of its (all zero) reply.
pub const OPEN_SESSION_LEN: usize = 16;
/// Bytes of a [`SockOpts`] payload.
pub const SOCK_OPTS_LEN: usize = 12;
/// Bytes of a resource pool request.
pub const RES_POOL_LEN: usize = 4;
/// Bytes of a close-session request, all zero.
pub const CLOSE_SESSION_LEN: usize = 4;

/// The buffers that a client asks for. The server accepts them or answers with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenSession {
    /// Bytes of a buffer, which is the largest fragment.
    pub buffer_size: u32,
    /// How many buffers.
    pub buffer_count: u32,
}

impl OpenSession {
    /// Reads the payload.
    pub fn decode(bytes: &[u8; OPEN_SESSION_LEN]) -> Self {
        Self { buffer_size: u32_at(bytes, 4), buffer_count: u32_at(bytes, 8) }
    }

    /// Writes the payload.
    pub fn encode(&self) -> [u8; OPEN_SESSION_LEN] {
        let mut bytes = [0; OPEN_SESSION_LEN];
        put_u32(&mut bytes, 4, self.buffer_size);
        put_u32(&mut bytes, 8, self.buffer_count);
        bytes
    }
}

/// Socket buffer sizes of the server. All zero in a request leaves them alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SockOpts {
    /// Probably the send buffer in bytes.
    pub send: u32,
    /// Probably the receive buffer in bytes.
    pub receive: u32,
    /// Unknown; 1 in replies.
    pub flag: u32,
}

impl SockOpts {
    /// Reads the payload.
    pub fn decode(bytes: &[u8; SOCK_OPTS_LEN]) -> Self {
        Self { send: u32_at(bytes, 0), receive: u32_at(bytes, 4), flag: u32_at(bytes, 8) }
    }

    /// Writes the payload.
    pub fn encode(&self) -> [u8; SOCK_OPTS_LEN] {
        let mut bytes = [0; SOCK_OPTS_LEN];
        put_u32(&mut bytes, 0, self.send);
        put_u32(&mut bytes, 4, self.receive);
        put_u32(&mut bytes, 8, self.flag);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::aio::{Kind, message};
    use super::super::hex;
    use super::*;

    /// The annotated example E3.
    #[test]
    fn open_session_of_64_kib_times_4_decodes_and_encodes() {
        let bytes = hex("7ada00a1020000001000000000000000 00000000 00000100 04000000 00000000");
        let payload = OpenSession::decode(bytes[16..].try_into().unwrap());
        assert_eq!(payload, OpenSession { buffer_size: 65536, buffer_count: 4 });
        assert_eq!(&message(Kind::OpenSession, 0, &payload.encode(), b"")[..], bytes);
    }

    #[test]
    fn sock_opts_survive_a_round_trip() {
        let opts = SockOpts { send: 1_675_000, receive: 1_675_000, flag: 1 };
        assert_eq!(SockOpts::decode(&opts.encode()), opts);
    }
}
