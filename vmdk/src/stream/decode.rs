//! Understanding a stream piece by piece, without I/O. Everything in it is taken as hostile.

use std::collections::VecDeque;

use flate2::{Decompress, FlushDecompress, Status};

use crate::{
    SECTOR,
    descriptor::Descriptor,
    error::{Error, Result},
    layout::{GRAIN_MARKER_BYTES, HEADER_BYTES, Marker, MetadataKind, SparseFlags, SparseHeader},
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
    /// Between two grains without an end marker: whether something is missing shows only in tables that a forward
    /// reader has passed. Only streams with their directory in front may end so.
    Unmarked,
}

/// Decodes a `streamOptimized` disk from pieces of any size.
///
/// [`feed`](Self::feed) bytes, take grains with [`next_grain`](Self::next_grain) until there is none, repeat; at the
/// source's end [`finish`](Self::finish). Buffers what was fed and not yet taken, at most one grain of it by need:
/// feed small pieces.
#[derive(Debug)]
pub struct StreamDecoder {
    name: String,
    buffer: VecDeque<u8>,
    /// Bytes of the stream taken out of the buffer.
    at: u64,
    /// Bytes that nobody needs to see.
    skip: u64,
    state: State,
    header: Option<SparseHeader>,
    descriptor: Option<Descriptor>,
    inflate: Decompress,
    packed: Vec<u8>,
    grain: Vec<u8>,
    /// Grains must come in ascending order: one that comes twice would be a riddle.
    next_sector: u64,
    grains: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Descriptor,
    Marker,
    Grain { sector: u64, compressed_bytes: u32 },
    Footer,
    Ended,
}

impl StreamDecoder {
    /// A decoder; `name` names the stream in errors.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            buffer: VecDeque::new(),
            at: 0,
            skip: 0,
            state: State::Header,
            header: None,
            descriptor: None,
            inflate: Decompress::new(true),
            packed: Vec::new(),
            grain: Vec::new(),
            next_sector: 0,
            grains: 0,
        }
    }

    /// Takes the next bytes of the stream. What follows the end marker is ignored.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        if self.state == State::Ended {
            return;
        }
        if self.buffer.is_empty() && self.skip > 0 {
            let skipped = self.skip.min(bytes.len() as u64);
            self.skip -= skipped;
            self.at += skipped;
            bytes = &bytes[skipped as usize..];
        }
        self.buffer.extend(bytes);
    }

    /// The next grain, or `None` when more bytes are needed (or the stream has ended).
    ///
    /// # Errors
    /// [`Error::Malformed`] and [`Error::NotSupported`]; the decoder is then of no use any more.
    pub fn next_grain(&mut self) -> Result<Option<Grain<'_>>> {
        if !self.grain_is_ready()? {
            return Ok(None);
        }
        match self.state {
            State::Grain { sector, compressed_bytes } => self.inflate(sector, compressed_bytes as usize).map(Some),
            _ => Ok(None),
        }
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
                State::Header => {
                    let Some(bytes) = self.take::<HEADER_BYTES>() else { return Ok(false) };
                    self.begin(SparseHeader::parse(&bytes, &self.name)?)?;
                }
                State::Descriptor => {
                    let bytes = self.descriptor_len();
                    if self.buffer.len() < bytes {
                        return Ok(false);
                    }
                    let bytes = self.take_vec(bytes);
                    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
                    self.descriptor = Some(Descriptor::parse(text)?);
                    self.skip_to_data()?;
                }
                State::Marker => {
                    // Every marker is followed by something, but for the last one, and that one fills a sector.
                    let Some(bytes) = self.peek::<16>() else { return Ok(false) };
                    self.marker(Marker::parse(&bytes))?;
                }
                State::Footer => {
                    let Some(bytes) = self.take::<HEADER_BYTES>() else { return Ok(false) };
                    self.check_footer(&SparseHeader::parse(&bytes, &self.name)?)?;
                    self.state = State::Marker;
                }
                State::Grain { compressed_bytes, .. } => return Ok(self.buffer.len() >= compressed_bytes as usize),
                State::Ended => return Ok(false),
            }
        }
    }

    /// Says that the source has ended.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the stream is not complete.
    pub fn finish(&self) -> Result<StreamEnd> {
        let in_front =
            self.header.as_ref().is_some_and(|header| header.directory_sector != SparseHeader::DIRECTORY_AT_END);
        // A writer may leave the padding of its last grain away.
        let padding_only = self.skip < SECTOR;
        match self.state {
            State::Ended => Ok(StreamEnd::Marked),
            State::Marker if in_front && self.buffer.is_empty() && padding_only => Ok(StreamEnd::Unmarked),
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

    fn begin(&mut self, header: SparseHeader) -> Result<()> {
        let needed = SparseFlags::COMPRESSED | SparseFlags::MARKERS;
        if !header.flags.has(needed) || header.compression != 1 {
            let reason = "only compressed extents with markers can be read as a stream";
            return Err(Error::not_supported(&self.name, "this sparse extent", reason));
        }
        if header.capacity_sectors == 0 {
            return Err(self.bad("the disk has no sectors".to_owned()));
        }
        self.grain = vec![0; (header.grain_sectors * SECTOR) as usize];
        let descriptor = header.descriptor_range(u64::MAX, &self.name)?;
        let data = header.overhead_sectors.max(1);
        self.header = Some(header);
        match descriptor {
            Some(range) if range.start >= self.at && range.end <= data.saturating_mul(SECTOR) => {
                self.skip = range.start - self.at;
                self.state = State::Descriptor;
                Ok(())
            }
            Some(_) => Err(self.bad("the descriptor does not lie between header and data".to_owned())),
            None => self.skip_to_data(),
        }
    }

    /// Passes what lies between descriptor and first grain: tables in front, which a forward reader does not need.
    fn skip_to_data(&mut self) -> Result<()> {
        let header = self.header.as_ref().ok_or_else(|| self.bad("no header".to_owned()))?;
        let data = header.overhead_sectors.max(1).checked_mul(SECTOR).filter(|data| *data >= self.at);
        let Some(data) = data else {
            return Err(self.bad("the data begin inside of the metadata".to_owned()));
        };
        self.skip = data - self.at;
        self.state = State::Marker;
        Ok(())
    }

    fn descriptor_len(&self) -> usize {
        // Bounded by `descriptor_range`.
        self.header.as_ref().map_or(0, |header| (header.descriptor_sectors * SECTOR) as usize)
    }

    fn marker(&mut self, marker: Marker) -> Result<()> {
        match marker {
            Marker::Grain { sector, compressed_bytes } => {
                self.check_grain(sector, compressed_bytes)?;
                self.drop_front(GRAIN_MARKER_BYTES);
                self.state = State::Grain { sector, compressed_bytes };
            }
            Marker::EndOfStream => {
                self.buffer.clear();
                self.state = State::Ended;
            }
            Marker::Metadata { kind: MetadataKind::Footer, sectors: 1 } => {
                self.skip = SECTOR;
                self.state = State::Footer;
            }
            Marker::Metadata { kind, sectors } => {
                let most = self.header.as_ref().map_or(0, |header| header.directory_entries().div_ceil(128).max(4));
                if sectors > most {
                    return Err(self.bad(format!("a {kind:?} marker announces {sectors} sectors, more than {most}")));
                }
                self.skip = (sectors + 1) * SECTOR;
            }
        }
        Ok(())
    }

    fn check_grain(&self, sector: u64, compressed_bytes: u32) -> Result<()> {
        let Some(header) = &self.header else { return Err(self.bad("no header".to_owned())) };
        let bound = self.grain.len() as u64 * 2 + 64;
        let problem = if sector >= header.capacity_sectors {
            format!("a grain at sector {sector} of a disk of {}", header.capacity_sectors)
        } else if !sector.is_multiple_of(header.grain_sectors) {
            format!("a grain at sector {sector}, which is no multiple of {}", header.grain_sectors)
        } else if sector < self.next_sector {
            format!("a grain at sector {sector} after one at or behind it")
        } else if u64::from(compressed_bytes) > bound {
            format!("a grain of {compressed_bytes} compressed bytes")
        } else {
            return Ok(());
        };
        Err(self.bad(problem))
    }

    fn inflate(&mut self, sector: u64, compressed_bytes: usize) -> Result<Grain<'_>> {
        self.packed.clear();
        self.packed.extend(self.buffer.drain(..compressed_bytes));
        self.at += compressed_bytes as u64;
        self.inflate.reset(true);
        let outcome = self.inflate.decompress(&self.packed, &mut self.grain, FlushDecompress::Finish);
        let header_sectors = self.header.as_ref().map_or(0, |header| header.capacity_sectors);
        let offset = sector * SECTOR;
        let wanted = (header_sectors * SECTOR - offset).min(self.grain.len() as u64) as usize;
        let produced = self.inflate.total_out() as usize;
        match outcome {
            // A short last grain is what qemu-img writes; VMware fills it up.
            Ok(Status::StreamEnd) if produced >= wanted => {}
            Ok(Status::StreamEnd) => {
                return Err(
                    self.bad(format!("the grain at sector {sector} holds {produced} bytes instead of {wanted}"))
                );
            }
            Ok(_) => return Err(self.bad(format!("the grain at sector {sector} is cut or larger than a grain"))),
            Err(error) => return Err(self.bad(format!("the grain at sector {sector}: {error}"))),
        }
        self.state = State::Marker;
        self.skip = self.at.next_multiple_of(SECTOR) - self.at;
        self.next_sector = sector + self.grain.len() as u64 / SECTOR;
        self.grains += 1;
        Ok(Grain { offset, data: &self.grain[..wanted] })
    }

    /// The footer is the header once more, with the directory's place.
    fn check_footer(&self, footer: &SparseHeader) -> Result<()> {
        let same = self.header.as_ref().is_some_and(|header| {
            (header.capacity_sectors, header.grain_sectors) == (footer.capacity_sectors, footer.grain_sectors)
        });
        if same { Ok(()) } else { Err(self.bad("header and footer describe different disks".to_owned())) }
    }

    /// Drops what is to be skipped; false when more of it has to come.
    fn skip_now(&mut self) -> bool {
        let now = self.skip.min(self.buffer.len() as u64) as usize;
        self.drop_front(now);
        self.skip -= now as u64;
        self.skip == 0
    }

    fn drop_front(&mut self, len: usize) {
        self.buffer.drain(..len);
        self.at += len as u64;
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.peek()?;
        self.drop_front(N);
        Some(bytes)
    }

    fn take_vec(&mut self, len: usize) -> Vec<u8> {
        self.at += len as u64;
        self.buffer.drain(..len).collect()
    }

    fn peek<const N: usize>(&self) -> Option<[u8; N]> {
        if self.buffer.len() < N {
            return None;
        }
        let mut bytes = [0; N];
        bytes.iter_mut().zip(&self.buffer).for_each(|(to, from)| *to = *from);
        Some(bytes)
    }

    fn bad(&self, problem: String) -> Error {
        Error::malformed(&self.name, format!("stream at byte {}: {problem}", self.at))
    }
}
