//! Cuts one side's stream into messages, without input or output.

use super::{Event, Side, scrub};
use crate::wire::aio::{HEADER_LEN, Header, Kind};
use crate::wire::classic::{MESSAGE_LEN, Message};
use crate::wire::file::OPEN_FILE_LEN;
use crate::wire::io::{Direction, IO_LEN, Io};
use crate::wire::query::{ALLOCATION_LEN, AllocationQuery, DDB_LEN, DdbGet, bitmap_len, decode_ddb_reply};
use crate::wire::{WireError, fault, u32_at};

/// The most bytes of a message that is kept whole: longer ones are not understood.
const MAX_MESSAGE: usize = 256 << 10;

/// One side of a conversation.
#[derive(Debug)]
pub(super) struct Frames {
    from: Side,
    layer: Layer,
    /// The start of a message.
    begun: Vec<u8>,
    /// Data that is still to be dropped.
    data: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Classic,
    Aio,
}

/// What the start of a message says.
enum Seen {
    /// It has so many bytes, at least.
    Needs(usize),
    /// It is whole, but for so many bytes of data.
    Whole { data: u64 },
}

impl Frames {
    pub(super) fn new(from: Side) -> Self {
        Self { from, layer: Layer::Classic, begun: Vec::new(), data: 0 }
    }

    pub(super) fn feed(&mut self, mut bytes: &[u8], mut found: impl FnMut(Event)) -> Result<(), WireError> {
        while !bytes.is_empty() {
            if self.data > 0 {
                let dropped = usize::try_from(self.data).unwrap_or(usize::MAX).min(bytes.len());
                self.data -= dropped as u64;
                bytes = &bytes[dropped..];
                continue;
            }
            match self.look()? {
                Seen::Needs(len) => {
                    let missing = len.saturating_sub(self.begun.len()).min(bytes.len());
                    let (now, later) = bytes.split_at(missing);
                    self.begun.extend_from_slice(now);
                    bytes = later;
                    // What has come may have been the last of it.
                    if let Seen::Whole { data } = self.look()? {
                        self.end(data, &mut found);
                    }
                }
                Seen::Whole { data } => self.end(data, &mut found),
            }
        }
        Ok(())
    }

    fn end(&mut self, data: u64, found: &mut impl FnMut(Event)) {
        let mut bytes = std::mem::take(&mut self.begun);
        let layer = self.layer;
        self.layer = match (layer, u32_at(&bytes, if layer == Layer::Aio { 4 } else { 0 })) {
            (Layer::Classic, number) if number == Message::AioOpen.number() => Layer::Aio,
            (Layer::Aio, kind) if Kind::from_number(kind) == Kind::CloseSession => Layer::Classic,
            _ => layer,
        };
        self.data = data;
        let zeros =
            if layer == Layer::Aio { scrub::aio(self.from, &mut bytes, data) } else { scrub::classic(&mut bytes) };
        found(Event { from: self.from, bytes, zeros });
    }

    fn look(&self) -> Result<Seen, WireError> {
        let seen = match self.layer {
            Layer::Classic => self.look_at_classic(),
            Layer::Aio => self.look_at_aio()?,
        };
        match seen {
            Seen::Needs(len) if len > MAX_MESSAGE => Err(WireError::field("the length of a message", len as u64)),
            seen => Ok(seen),
        }
    }

    fn look_at_classic(&self) -> Seen {
        let Some(bytes) = self.begun.first_chunk::<MESSAGE_LEN>() else { return Seen::Needs(MESSAGE_LEN) };
        let extra = match Message::decode(bytes) {
            Message::Error { text_len, .. } => u64::from(text_len).min(fault::MAX_TEXT as u64),
            Message::ConnectionData { name_len, operation_id_len } => u64::from(name_len) + u64::from(operation_id_len),
            _ => 0,
        };
        self.whole_after(MESSAGE_LEN, extra)
    }

    fn look_at_aio(&self) -> Result<Seen, WireError> {
        let Some(bytes) = self.begun.first_chunk::<HEADER_LEN>() else { return Ok(Seen::Needs(HEADER_LEN)) };
        let header = Header::decode(bytes)?;
        let len = HEADER_LEN + header.size as usize;
        let Some(payload) = self.begun.get(HEADER_LEN..len) else { return Ok(Seen::Needs(len)) };
        let client = self.from == Side::Client;
        let extra = match header.kind {
            Kind::Io => {
                let io = Io::decode(sized::<IO_LEN>(payload)?);
                let carries = |io: &Io| (io.direction == Direction::Write) == client;
                // A write's reply has fields that are not known; nothing follows it.
                let data = io.ok().filter(carries).map_or(0, |io| u64::from(io.wire_len));
                return Ok(Seen::Whole { data });
            }
            Kind::OpenFile if client => u64::from(u32_at(sized::<OPEN_FILE_LEN>(payload)?, 0)),
            Kind::DdbGet if client => u64::from(DdbGet::decode(sized::<DDB_LEN>(payload)?)?.key_len),
            Kind::DdbGet => u64::from(decode_ddb_reply(sized::<DDB_LEN>(payload)?)),
            Kind::QueryAllocated if !client => {
                bitmap_len(AllocationQuery::decode(sized::<ALLOCATION_LEN>(payload)?).count)
            }
            _ => 0,
        };
        Ok(self.whole_after(len, extra))
    }

    fn whole_after(&self, len: usize, extra: u64) -> Seen {
        let whole = len.saturating_add(usize::try_from(extra).unwrap_or(usize::MAX));
        if self.begun.len() < whole { Seen::Needs(whole) } else { Seen::Whole { data: 0 } }
    }
}

fn sized<const N: usize>(payload: &[u8]) -> Result<&[u8; N], WireError> {
    payload.try_into().map_err(|_| WireError::field("the payload size of a message", payload.len() as u64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::aio::message;
    use crate::wire::compress::Compression;

    fn conversation() -> Vec<u8> {
        let read = Io::read_request(7, Compression::None, 0, 1024);
        let write = Io { direction: Direction::Write, fragment_len: 512, wire_len: 512, ..read };
        let start = [Message::SessionParameters, Message::Version(11), Message::AioOpen];
        let mut bytes: Vec<u8> = start.iter().flat_map(|message| message.encode().unwrap()).collect();
        bytes.extend(message(Kind::Io, 1, &read.encode(), b""));
        bytes.extend(message(Kind::Io, 2, &write.encode(), &[9; 512]));
        bytes.extend(message(Kind::CloseSession, 3, &[0; 4], b""));
        bytes.extend(Message::SessionComplete.encode().unwrap());
        bytes
    }

    proptest! {
        #[test]
        fn messages_are_the_same_however_the_stream_is_cut(cuts in prop::collection::vec(1usize..700, 1..40)) {
            let bytes = conversation();
            let mut whole = Vec::new();
            Frames::new(Side::Client).feed(&bytes, |event| whole.push(event)).unwrap();
            prop_assert_eq!(whole.len(), 7);
            prop_assert_eq!(whole[4].zeros, 512);
            let (mut frames, mut parts, mut rest) = (Frames::new(Side::Client), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at(*cut.min(&rest.len()));
                frames.feed(now, |event| parts.push(event)).unwrap();
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(parts, whole);
        }

        #[test]
        fn any_bytes_end_in_messages_or_an_error(bytes: Vec<u8>, server: bool, aio: bool) {
            let mut frames = Frames::new(if server { Side::Server } else { Side::Client });
            if aio {
                frames.layer = Layer::Aio;
            }
            let _ = frames.feed(&bytes, |_| ());
        }
    }
}
