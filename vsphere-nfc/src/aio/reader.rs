//! The reader task: takes replies off the connection and completes the requests they belong to.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BufMut as _;
use tokio::io::{AsyncReadExt, BufReader};

use super::pending::{Failure, Pending, Reply, Shared, Work};
use crate::dial::ReadHalf;
use crate::wire::WireError;
use crate::wire::aio::{HEADER_LEN, Header, Kind};
use crate::wire::compress::Compression;
use crate::wire::fault::{self, Fault};
use crate::wire::io::{Direction, IO_LEN, Io};
use crate::wire::query::{self, ALLOCATION_LEN, DDB_LEN};
use crate::wire::{file::OPEN_FILE_LEN, session::OPEN_SESSION_LEN};

/// The largest value of a disk database entry that is taken, in bytes.
const MAX_VALUE: u32 = 64 * 1024;
/// Enough for a header and a payload in one system call; data goes past this buffer.
const BUFFER: usize = 128;

/// Runs until the connection ends or the task is aborted.
pub(crate) async fn run(reader: ReadHalf, shared: Arc<Shared>) {
    let mut replies = Replies { reader: BufReader::with_capacity(BUFFER, reader), packed: Vec::new(), shared };
    let stop = loop {
        match replies.next().await {
            Ok(()) => {}
            Err(stop) => break stop,
        }
    };
    replies.shared.fail(stop.failure());
}

/// Why reading ends.
enum Stop {
    Io(io::Error),
    Wire(WireError),
    /// An error message: what follows it on the connection is not certain.
    Fault(Fault),
}

impl Stop {
    fn failure(&self) -> Failure {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Failure::Lost("the other side closed it".to_owned())
            }
            Self::Io(error) => Failure::Lost(error.to_string()),
            Self::Wire(error) => Failure::Protocol(error.to_string()),
            Self::Fault(fault) => Failure::Lost(format!("it was dropped after the server reported {fault}")),
        }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<WireError> for Stop {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

struct Replies {
    reader: BufReader<ReadHalf>,
    /// Room for a compressed fragment, used again and again.
    packed: Vec<u8>,
    shared: Arc<Shared>,
}

impl Replies {
    /// Reads one message. The request it belongs to is failed with the message's own error, the
    /// others by whoever called.
    async fn next(&mut self) -> Result<(), Stop> {
        let mut bytes = [0; HEADER_LEN];
        self.reader.read_exact(&mut bytes).await?;
        let header = Header::decode(&bytes)?;
        let Some(mut pending) = self.shared.take(header.op_id) else {
            return self.unsolicited(&header).await;
        };
        let result = self.reply(&header, &mut pending).await;
        match result {
            Ok(None) => self.shared.put_back(header.op_id, pending),
            Ok(Some(reply)) => {
                let Pending { reply: caller, hold, .. } = pending;
                self.shared.done();
                drop(hold);
                // A caller that is gone has no use for the bytes.
                let _ = caller.send(Ok(reply));
            }
            Err(stop) => {
                let blame = &self.shared.blame;
                let error = match &stop {
                    Stop::Io(error) => blame.io(pending.due.phase, error),
                    Stop::Wire(error) => blame.wire(pending.due.phase, error),
                    Stop::Fault(fault) => blame.server(pending.due.phase, fault.clone()),
                };
                if matches!(stop, Stop::Fault(_)) && self.shared.policy.survive_errors {
                    self.shared.done();
                    let _ = pending.reply.send(Err(error));
                } else {
                    // Whoever hears the error may look at once whether the connection is still there.
                    self.shared.fail(stop.failure());
                    let _ = pending.reply.send(Err(error));
                    return Err(stop);
                }
            }
        }
        Ok(())
    }

    /// A message that nobody waits for: skipped when its kind is new to us and it is small, else out
    /// of step.
    async fn unsolicited(&mut self, header: &Header) -> Result<(), Stop> {
        match header.kind {
            Kind::Error => Err(Stop::Fault(self.fault(header).await?)),
            Kind::Other(number) if header.size <= self.shared.policy.max_unknown => {
                tracing::debug!(number, size = header.size, "skipping an unknown NFC message");
                self.payload(header.size).await?;
                Ok(())
            }
            _ => Err(WireError::field("the operation of an unexpected reply", header.op_id).into()),
        }
    }

    /// Reads what follows the header of a reply; `None` when the request waits for more.
    async fn reply(&mut self, header: &Header, pending: &mut Pending) -> Result<Option<Reply>, Stop> {
        if header.kind == Kind::Error {
            return Err(Stop::Fault(self.fault(header).await?));
        }
        if header.kind != pending.work.kind() {
            return Err(WireError::field("the kind of a reply", header.kind.number()).into());
        }
        match &mut pending.work {
            Work::Read { offset, assembly } => {
                let io = self.io(header, Direction::Read, *offset, assembly.total()).await?;
                let slot = assembly.slot(io.fragment_offset, io.fragment_len)?;
                let wire_len = size(io.wire_len);
                if io.compression == Compression::None {
                    let mut left = wire_len;
                    while left > 0 {
                        match self.reader.read_buf(&mut (&mut *slot).limit(left)).await? {
                            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                            read => left -= read,
                        }
                    }
                } else {
                    self.packed.resize(wire_len, 0);
                    self.reader.read_exact(&mut self.packed).await?;
                    let start = slot.len();
                    slot.resize(start + size(io.fragment_len), 0);
                    io.compression.decompress_into(&self.packed, &mut slot[start..])?;
                }
                if !assembly.is_complete() {
                    return Ok(None);
                }
                let whole = std::mem::replace(assembly, super::assembly::Assembly::empty());
                Ok(Some(Reply::Read(whole.finish())))
            }
            Work::Write { offset, total, sent } => {
                self.io(header, Direction::Write, *offset, *total).await?;
                if !sent.load(Ordering::Acquire) {
                    return Err(WireError::Malformed("a write was confirmed before it was sent").into());
                }
                Ok(Some(Reply::Written))
            }
            Work::Call { kind, chunks } => {
                let payload = self.payload(header.size).await?;
                let extra = match *kind {
                    Kind::DdbGet => {
                        let len = query::decode_ddb_reply(sized::<DDB_LEN>(&payload)?);
                        if len > MAX_VALUE {
                            return Err(WireError::field("the length of a value", len).into());
                        }
                        u64::from(len)
                    }
                    Kind::QueryAllocated => {
                        let payload = sized::<ALLOCATION_LEN>(&payload)?;
                        query::bitmap_len(query::decode_allocation_reply(payload, *chunks)?)
                    }
                    Kind::OpenFile => {
                        sized::<OPEN_FILE_LEN>(&payload)?;
                        0
                    }
                    Kind::OpenSession => {
                        sized::<OPEN_SESSION_LEN>(&payload)?;
                        0
                    }
                    _ => 0,
                };
                // At most 64 KiB: a value, or the bitmap of 524288 chunks.
                let extra = self.bytes(usize::try_from(extra).unwrap_or(usize::MAX)).await?;
                Ok(Some(Reply::Call { payload, extra }))
            }
        }
    }

    /// Reads an IO payload and checks that it belongs to the request.
    async fn io(&mut self, header: &Header, direction: Direction, offset: u64, total: u32) -> Result<Io, Stop> {
        if size(header.size) != IO_LEN {
            return Err(WireError::field("the payload size of an IO reply", header.size).into());
        }
        let mut bytes = [0; IO_LEN];
        self.reader.read_exact(&mut bytes).await?;
        if direction == Direction::Write {
            // Most fields of a write reply are unknown; its kind and operation are enough.
            return Ok(Io::read_request(0, Compression::None, offset, total));
        }
        let io = Io::decode(&bytes)?;
        if io.direction != direction {
            return Err(WireError::Malformed("a read reply has the direction of a write").into());
        }
        if io.offset != offset {
            return Err(WireError::field("the disk offset of a read reply", io.offset).into());
        }
        if io.total != total {
            return Err(WireError::field("the total length of a read reply", io.total).into());
        }
        Ok(io)
    }

    /// Reads an error message, and the text that may follow it uncounted.
    async fn fault(&mut self, header: &Header) -> Result<Fault, Stop> {
        let payload = self.payload(header.size).await?;
        let fault = Fault::decode(&payload);
        let mut text = vec![0; Fault::uncounted_text(&payload)];
        match tokio::time::timeout(fault::TEXT_LIMIT, self.reader.read_exact(&mut text)).await {
            Ok(Ok(_)) if !text.is_empty() => Ok(fault.with_text(&text)),
            _ => Ok(fault),
        }
    }

    /// Reads a payload; headers are decoded only with a bounded size.
    async fn payload(&mut self, len: u32) -> io::Result<Vec<u8>> {
        self.bytes(size(len)).await
    }

    async fn bytes(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.reader.read_exact(&mut bytes).await?;
        Ok(bytes)
    }
}

/// The payload as an array of the size it must have.
fn sized<const N: usize>(payload: &[u8]) -> Result<&[u8; N], WireError> {
    payload.try_into().map_err(|_| WireError::field("the payload size of a reply", payload.len() as u64))
}

fn size(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::time::Duration;

    use bytes::BytesMut;
    use proptest::prelude::*;
    use tokio::sync::oneshot;

    use super::super::assembly::Assembly;
    use super::super::pending::{Due, Hold};
    use super::*;
    use crate::error::{Blame, Error, Phase, Result};
    use crate::wire::aio::message;
    use crate::wire::fault::Layout;

    const READ_LEN: u32 = 2048;

    fn read_work() -> (Phase, Work) {
        (Phase::Read, Work::Read { offset: 4096, assembly: Assembly::new(BytesMut::new(), READ_LEN) })
    }

    fn call_work(kind: Kind, chunks: u64) -> (Phase, Work) {
        (Phase::Metadata, Work::Call { kind, chunks })
    }

    /// A fragment of the read as a server sends it.
    fn fragment(op_id: u32, change: impl FnOnce(&mut Io), data: &[u8]) -> Vec<u8> {
        let mut io = Io::read_request(0, Compression::None, 4096, READ_LEN);
        (io.fragment_len, io.wire_len) = (data.len() as u32, data.len() as u32);
        change(&mut io);
        message(Kind::Io, op_id, &io.encode(), data).to_vec()
    }

    /// Lets the reader task read `bytes`, with requests in flight whose operations count from 0.
    fn replies(requests: Vec<(Phase, Work)>, bytes: Vec<u8>) -> Vec<Result<Reply>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let shared = Arc::new(Shared::new(Blame::new("esx1", 902, &Arc::from("[ds] a.vmdk")), 1 << 20));
        let enter = |(phase, work)| {
            let (reply, receiver) = oneshot::channel();
            let due = Due::within(phase, Duration::from_secs(60));
            shared.enter(Pending { due, work, reply, hold: Hold::default() }).unwrap();
            receiver
        };
        let receivers: Vec<_> = requests.into_iter().map(enter).collect();
        runtime.block_on(run(Box::new(Cursor::new(bytes)), Arc::clone(&shared)));
        assert!(!shared.is_alive());
        receivers.into_iter().map(|mut receiver| receiver.try_recv().unwrap()).collect()
    }

    fn one(work: (Phase, Work), bytes: Vec<u8>) -> Result<Reply> {
        replies(vec![work], bytes).remove(0)
    }

    #[test]
    fn fragments_of_two_reads_may_interleave_and_come_backwards() {
        let bytes = [
            fragment(1, |io| io.fragment_offset = 1024, &[4; 1024]),
            fragment(0, |io| io.fragment_offset = 1024, &[2; 1024]),
            fragment(1, |_| (), &[3; 1024]),
            fragment(0, |_| (), &[1; 1024]),
        ];
        let replies = replies(vec![read_work(), read_work()], bytes.concat());
        for (reply, bytes) in replies.into_iter().zip([[1, 2], [3, 4]]) {
            let Ok(Reply::Read(read)) = reply else { panic!("no bytes") };
            assert_eq!(read, [[bytes[0]; 1024], [bytes[1]; 1024]].concat());
        }
    }

    #[test]
    fn fragments_that_do_not_belong_to_the_read_end_the_connection() {
        let data = [0; 1024];
        let damaged = |at: usize, value: u8| {
            let mut bytes = fragment(0, |_| (), &data);
            bytes[at] = value;
            bytes
        };
        for (what, bytes) in [
            ("twice", [fragment(0, |_| (), &data), fragment(0, |_| (), &data)].concat()),
            ("overlap", [fragment(0, |_| (), &data), fragment(0, |io| io.fragment_offset = 512, &data)].concat()),
            ("too long", fragment(0, |io| io.fragment_offset = 1536, &data)),
            ("empty", fragment(0, |_| (), &[])),
            ("other total", fragment(0, |io| io.total = 4096, &data)),
            ("other offset", fragment(0, |io| io.offset = 0, &data)),
            ("a write", fragment(0, |io| io.direction = Direction::Write, &data)),
            ("wire longer", fragment(0, |io| (io.fragment_len, io.wire_len) = (512, 1024), &data)),
            ("FastLZ not asked for", fragment(0, |io| io.compression = Compression::FastLz, &data)),
            ("broken zlib", fragment(0, |io| io.compression = Compression::Zlib, &data)),
            ("nobody's", fragment(9, |_| (), &data)),
            ("magic", damaged(0, 0)),
            ("classic error", [20u32.to_le_bytes().to_vec(), vec![0; 260]].concat()),
            ("size 0", damaged(8, 0)),
            ("size 43", damaged(8, 43)),
            ("size 45", damaged(8, 45)),
            ("size 4 GiB", damaged(11, 255)),
            ("other kind", damaged(4, 11)),
        ] {
            match one(read_work(), bytes) {
                Err(Error::Protocol { phase: Phase::Read, .. }) => {}
                Err(other) => panic!("{what}: {other}"),
                Ok(_) => panic!("{what}: accepted"),
            }
        }
    }

    #[test]
    fn zlib_fragment_is_taken_although_it_was_not_asked_for() {
        let data = [7; READ_LEN as usize];
        let packed = Compression::Zlib.compress(&data).unwrap();
        let change = |io: &mut Io| (io.compression, io.fragment_len) = (Compression::Zlib, READ_LEN);
        let Ok(Reply::Read(read)) = one(read_work(), fragment(0, change, &packed)) else { panic!("no bytes") };
        assert_eq!(read, data.as_slice());
    }

    #[test]
    fn error_of_any_layout_fails_its_request_and_disconnects_the_others() {
        for layout in [Layout::TextCounted, Layout::NoText, Layout::TextUncounted, Layout::CodeOnly] {
            let (payload, extra) = Fault::new(1, 99, "disk on fire").encode(layout);
            let bytes = message(Kind::Error, 1, &payload, &extra).to_vec();
            let replies = replies(vec![read_work(), read_work()], bytes);
            let Err(Error::Disconnected { reason, .. }) = &replies[0] else { panic!("{layout:?}") };
            assert!(reason.contains("99"), "{reason}");
            let Err(Error::Server { fault, .. }) = &replies[1] else { panic!("{layout:?}") };
            assert_eq!(fault.code, Some(99), "{layout:?}");
            let has_text = matches!(layout, Layout::TextCounted | Layout::TextUncounted);
            assert_eq!(fault.text == "disk on fire", has_text, "{layout:?}");
        }
    }

    #[test]
    fn message_of_an_unknown_kind_is_skipped_when_nobody_waits_for_it() {
        let bytes =
            [message(Kind::Other(77), 500, &[1; 1000], b"").to_vec(), fragment(0, |_| (), &[1; READ_LEN as usize])];
        assert!(matches!(one(read_work(), bytes.concat()), Ok(Reply::Read(_))));
        let bytes = message(Kind::Other(77), 0, &[], b"").to_vec();
        assert!(matches!(one(read_work(), bytes), Err(Error::Protocol { .. })));
    }

    #[test]
    fn huge_value_and_other_chunk_count_are_refused() {
        let reply = message(Kind::DdbGet, 0, &query::encode_ddb_reply(u32::MAX), b"").to_vec();
        assert!(matches!(one(call_work(Kind::DdbGet, 0), reply), Err(Error::Protocol { .. })));
        let reply = message(Kind::QueryAllocated, 0, &query::encode_allocation_reply(1 << 40), b"").to_vec();
        assert!(matches!(one(call_work(Kind::QueryAllocated, 40), reply), Err(Error::Protocol { .. })));
    }

    #[test]
    fn end_of_the_connection_after_every_byte_is_a_disconnect_in_the_phase() {
        let whole = [fragment(0, |_| (), &[1; 512]), fragment(0, |io| io.fragment_offset = 512, &[2; 1536])].concat();
        for len in 0..whole.len() {
            let end = one(read_work(), whole[..len].to_vec());
            assert!(matches!(end, Err(Error::Disconnected { phase: Phase::Read, .. })), "{len}");
        }
        assert!(one(read_work(), whole).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_error_without_a_panic(bytes: Vec<u8>, kind in 0u32..24, size in 0u32..100) {
            let header = Header { kind: Kind::from_number(kind), size, op_id: 0 }.encode();
            let bytes = [header.to_vec(), bytes].concat();
            for work in [read_work(), call_work(Kind::from_number(kind), 40)] {
                let _ = one(work, bytes.clone());
            }
        }
    }
}
