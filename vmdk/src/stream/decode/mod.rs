//! Understanding a stream piece by piece, without I/O. Everything in it is taken as hostile.

mod metadata;

use super::{
    buffer::Buffer,
    codec::GrainInflater,
    ledger::Ledger,
    order::{GrainOrder, Order},
};
use crate::{
    SECTOR,
    descriptor::Descriptor,
    error::{Error, Result},
    layout::SparseHeader,
};

/// A piece of the disk that the stream holds. What no grain covers reads as zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grain<'a> {
    /// Where it belongs on the disk, in bytes.
    pub offset: u64,
    /// Its bytes, cut at the end of the disk.
    pub data: &'a [u8],
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// By its end marker: it is complete.
    Marked,
    /// Between two grains without an end marker. Only streams with their directory in front may end so; that no grain
    /// is missing was checked with it, where its tables lie in their order.
    Unmarked,
}

/// Decodes a `streamOptimized` disk from pieces of any size.
///
/// [`feed`](Self::feed) bytes, take grains with [`next_grain`](Self::next_grain) until there is none, repeat; at the
/// source's end [`finish`](Self::finish). Buffers what was fed and not yet taken, at most one grain of it by need:
/// feed small pieces. Beside that, 32 bytes are kept for every table of 32 MiB that has passed.
///
/// Each grain's checksum is verified, and at the end that the stream has just the grains that its tables name.
#[derive(Debug)]
pub struct StreamDecoder {
    name: String,
    buffer: Buffer,
    /// Bytes of the stream taken out of the buffer.
    at: u64,
    /// Bytes that nobody needs to see.
    skip: u64,
    state: State,
    header: Option<SparseHeader>,
    descriptor: Option<Descriptor>,
    inflater: GrainInflater,
    grain: Vec<u8>,
    order: Order,
    grains: u64,
    ledger: Ledger,
    /// Tables that passed behind a marker.
    tables: u64,
    /// Where the directory behind the data began.
    directory_sector: Option<u64>,
    has_footer: bool,
    /// The directory in front: sectors of tables still to pass, in their order. See [`State::FrontDirectory`].
    front: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Descriptor,
    /// The directory in front, from this entry on.
    FrontDirectory {
        entry: u64,
    },
    /// A table in front, from this entry on.
    FrontTable {
        number: u64,
        entry: u64,
    },
    Marker,
    Grain {
        number: u64,
        compressed_bytes: u32,
    },
    /// A table that begins at this sector of the stream, from this entry on.
    Table {
        sector: u64,
        entry: u64,
    },
    Directory {
        entry: u64,
        sectors: u64,
    },
    Footer,
    Ended,
}

/// A grain that is not inflated yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deflated<'a> {
    /// Where it belongs on the disk.
    pub(super) offset: u64,
    /// How many of its bytes lie on the disk.
    pub(super) wanted: usize,
    /// Where its packed bytes end in the stream.
    pub(super) position: u64,
    pub(super) packed: &'a [u8],
}

impl StreamDecoder {
    /// A decoder; `name` names the stream in errors.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            buffer: Buffer::default(),
            at: 0,
            skip: 0,
            state: State::Header,
            header: None,
            descriptor: None,
            inflater: GrainInflater::new(),
            grain: Vec::new(),
            order: Order::new(GrainOrder::Ascending),
            grains: 0,
            ledger: Ledger::default(),
            tables: 0,
            directory_sector: None,
            has_footer: false,
            front: Vec::new(),
        }
    }

    /// Says in which order grains may come; [`GrainOrder::Ascending`] unless said. To be said before the first byte.
    #[must_use]
    pub fn order(mut self, order: GrainOrder) -> Self {
        self.order = Order::new(order);
        self
    }

    /// Takes the next bytes of the stream. What follows the end marker is ignored.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.state != State::Ended {
            self.space(bytes.len()).copy_from_slice(bytes);
            self.filled(bytes.len());
        }
    }

    /// Room for `len` more bytes; [`filled`](Self::filled) says how many of them came.
    pub(super) fn space(&mut self, len: usize) -> &mut [u8] {
        self.buffer.space(len)
    }

    pub(super) fn filled(&mut self, len: usize) {
        self.buffer.filled(len);
    }

    /// The next grain, or `None` when more bytes are needed (or the stream has ended).
    ///
    /// # Errors
    /// [`Error::Malformed`] and [`Error::NotSupported`]; the decoder is then of no use any more.
    pub fn next_grain(&mut self) -> Result<Option<Grain<'_>>> {
        if !self.grain_is_ready()? {
            return Ok(None);
        }
        let Some((offset, wanted, len)) = self.pass_grain()? else { return Ok(None) };
        let packed = self.buffer.taken(len);
        match self.inflater.unpack_whole(packed, &mut self.grain, wanted) {
            Ok(()) => Ok(Some(Grain { offset, data: &self.grain[..wanted] })),
            Err(problem) => Err(damaged_grain(&self.name, self.at, offset, &problem)),
        }
    }

    /// As [`next_grain`](Self::next_grain), for those who inflate elsewhere.
    pub(super) fn next_deflated(&mut self) -> Result<Option<Deflated<'_>>> {
        if !self.grain_is_ready()? {
            return Ok(None);
        }
        let Some((offset, wanted, len)) = self.pass_grain()? else { return Ok(None) };
        Ok(Some(Deflated { offset, wanted, position: self.at, packed: self.buffer.taken(len) }))
    }

    /// Goes on to the next grain; true when all of it is here.
    ///
    /// # Errors
    /// As [`next_grain`](Self::next_grain).
    pub fn grain_is_ready(&mut self) -> Result<bool> {
        loop {
            if !self.skip_now() {
                return Ok(false);
            }
            match self.state {
                State::Grain { compressed_bytes, .. } => {
                    return Ok(self.buffer.waiting().len() >= compressed_bytes as usize);
                }
                State::Ended => return Ok(false),
                _ => {
                    if !self.step()? {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Says that the source has ended.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the stream is not complete.
    pub fn finish(&self) -> Result<StreamEnd> {
        // A writer may leave the padding of its last grain away.
        let padding_only = self.skip < SECTOR;
        match self.state {
            State::Ended => Ok(StreamEnd::Marked),
            State::Marker if !self.ends_with_footer() && self.buffer.waiting().is_empty() && padding_only => {
                self.ledger.check().map_err(|problem| self.bad(problem))?;
                Ok(StreamEnd::Unmarked)
            }
            _ => {
                Err(self.bad(format!("the stream ends after {} bytes and {} grains, too early", self.at, self.grains)))
            }
        }
    }

    /// True when nothing more is to come.
    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Size of the disk in bytes, once the header was fed.
    pub fn capacity(&self) -> Option<u64> {
        self.header.as_ref().map(|header| header.capacity_sectors * SECTOR)
    }

    /// Bytes of a grain, once the header was fed.
    pub fn grain_bytes(&self) -> Option<u64> {
        self.header.as_ref().map(|header| header.grain_sectors * SECTOR)
    }

    /// The embedded descriptor, once it was fed; not every stream has one.
    pub fn descriptor(&self) -> Option<&Descriptor> {
        self.descriptor.as_ref()
    }

    /// True when header and descriptor were fed (and looked at by [`next_grain`](Self::next_grain)).
    pub fn has_begun(&self) -> bool {
        !matches!(self.state, State::Header | State::Descriptor)
    }

    /// Grains taken so far.
    pub fn grains(&self) -> u64 {
        self.grains
    }

    /// Bytes of the stream that were understood so far.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Order of the grains so far, and the gaps between them.
    pub(super) fn order_mut(&mut self) -> &mut Order {
        &mut self.order
    }

    /// The stream's name in errors.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Takes a grain that is ready: where it belongs on the disk, how much of it lies there, and its packed length.
    fn pass_grain(&mut self) -> Result<Option<(u64, usize, usize)>> {
        let State::Grain { number, compressed_bytes } = self.state else { return Ok(None) };
        let (grain, len) = (self.grain.len() as u64, compressed_bytes as usize);
        let offset = number * grain;
        if let Err(problem) = self.order.note(number) {
            return Err(self.bad(format!("a grain at sector {} {problem}", offset / SECTOR)));
        }
        let wanted = (self.known_header()?.capacity_sectors * SECTOR - offset).min(grain) as usize;
        self.drop_front(len);
        self.state = State::Marker;
        self.skip = self.at.next_multiple_of(SECTOR) - self.at;
        self.grains += 1;
        Ok(Some((offset, wanted, len)))
    }

    fn known_header(&self) -> Result<&SparseHeader> {
        self.header.as_ref().ok_or_else(|| self.bad("no header".to_owned()))
    }

    /// Drops what is to be skipped; false when more of it has to come.
    fn skip_now(&mut self) -> bool {
        let now = self.skip.min(self.buffer.waiting().len() as u64) as usize;
        self.drop_front(now);
        self.skip -= now as u64;
        self.skip == 0
    }

    fn drop_front(&mut self, len: usize) {
        self.buffer.take(len);
        self.at += len as u64;
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.peek()?;
        self.drop_front(N);
        Some(bytes)
    }

    fn peek<const N: usize>(&self) -> Option<[u8; N]> {
        self.buffer.waiting().first_chunk().copied()
    }

    fn bad(&self, problem: String) -> Error {
        Error::malformed(&self.name, format!("stream at byte {}: {problem}", self.at))
    }
}

/// What to say of a grain whose packed bytes end at `position` of the stream.
pub(super) fn damaged_grain(name: &str, position: u64, offset: u64, problem: &str) -> Error {
    let problem = format!("stream at byte {position}: the grain at sector {}: {problem}", offset / SECTOR);
    Error::malformed(name, problem)
}

/// Bytes that a packed grain may have: stored it is hardly larger than itself, and nobody has to do worse.
pub(super) fn most_compressed(grain: usize) -> u64 {
    grain as u64 * 2 + 64
}

/// Entries of a table or directory.
pub(super) fn entries(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(4).map(|entry| entry.iter().rev().fold(0, |entry, byte| entry << 8 | u32::from(*byte)))
}
