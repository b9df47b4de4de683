//! Understanding a stream piece by piece, without I/O. Everything in it is taken as hostile.

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
    layout::{
        ENTRIES_PER_TABLE, GRAIN_MARKER_BYTES, HEADER_BYTES, Marker, MetadataKind, SparseFlags, SparseHeader,
        TABLE_BYTES,
    },
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

    /// Understands the next piece of metadata; false when more bytes are needed.
    fn step(&mut self) -> Result<bool> {
        match self.state {
            State::Header => {
                let Some(bytes) = self.take::<HEADER_BYTES>() else { return Ok(false) };
                self.begin(SparseHeader::parse(&bytes, &self.name)?)?;
            }
            State::Descriptor => {
                let len = self.descriptor_len();
                if self.buffer.waiting().len() < len {
                    return Ok(false);
                }
                let text = self.buffer.waiting()[..len].split(|byte| *byte == 0).next().unwrap_or_default();
                self.descriptor = Some(Descriptor::parse(text)?);
                self.drop_front(len);
                self.skip_to_directory()?;
            }
            State::FrontDirectory { entry } => {
                let Some(bytes) = self.take::<SECTOR_BYTES>() else { return Ok(false) };
                self.front_directory(entry, &bytes)?;
            }
            State::FrontTable { number, entry } => {
                let Some(bytes) = self.take::<SECTOR_BYTES>() else { return Ok(false) };
                self.ledger.numbered_table(number, entry, entries(&bytes));
                self.state = State::FrontTable { number, entry: entry + ENTRIES_A_SECTOR };
                if entry + ENTRIES_A_SECTOR == u64::from(ENTRIES_PER_TABLE) {
                    self.skip_to_front_table(number + 1)?;
                }
            }
            State::Marker => {
                // Every marker is followed by something, but for the last one, and that one fills a sector.
                let Some(bytes) = self.peek::<16>() else { return Ok(false) };
                self.marker(&bytes)?;
            }
            State::Table { sector, entry } => {
                let Some(bytes) = self.take::<SECTOR_BYTES>() else { return Ok(false) };
                self.ledger.table(sector, entry, entries(&bytes));
                let entry = entry + ENTRIES_A_SECTOR;
                let is_whole = entry == u64::from(ENTRIES_PER_TABLE);
                self.state = if is_whole { State::Marker } else { State::Table { sector, entry } };
            }
            State::Directory { entry, sectors } => {
                let sector = self.at / SECTOR;
                let Some(bytes) = self.take::<SECTOR_BYTES>() else { return Ok(false) };
                self.ledger.directory(entry, entries(&bytes));
                if entry == 0 {
                    self.directory_sector = Some(sector);
                }
                let (entry, sectors) = (entry + ENTRIES_A_SECTOR, sectors - 1);
                self.state = if sectors == 0 { State::Marker } else { State::Directory { entry, sectors } };
            }
            State::Footer => {
                let Some(bytes) = self.take::<HEADER_BYTES>() else { return Ok(false) };
                self.check_footer(&SparseHeader::parse(&bytes, &self.name)?)?;
                self.has_footer = true;
                self.state = State::Marker;
            }
            State::Grain { .. } | State::Ended => {}
        }
        Ok(true)
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
            None => self.skip_to_directory(),
        }
    }

    /// Passes what lies between descriptor and directory, if that is in front of the data.
    fn skip_to_directory(&mut self) -> Result<()> {
        let header = self.known_header()?;
        let in_front = header.directory_sector < header.overhead_sectors && header.directory_sector != 0;
        let few = header.directory_entries() <= MOST_TABLES;
        match header.directory_sector.checked_mul(SECTOR).filter(|at| in_front && few && *at >= self.at) {
            Some(directory) => {
                self.skip = directory - self.at;
                self.state = State::FrontDirectory { entry: 0 };
                Ok(())
            }
            None => self.skip_to_data(),
        }
    }

    fn front_directory(&mut self, entry: u64, bytes: &[u8; SECTOR_BYTES]) -> Result<()> {
        let all = self.known_header()?.directory_entries();
        let left = (all - entry).min(ENTRIES_A_SECTOR) as usize;
        self.front.extend(entries(bytes).take(left));
        self.state = State::FrontDirectory { entry: entry + ENTRIES_A_SECTOR };
        if entry + ENTRIES_A_SECTOR < all { Ok(()) } else { self.skip_to_front_table(0) }
    }

    /// Goes on to the next table in front, from `number` on. Tables that do not come in their order go unread: a
    /// forward reader could not keep them, and does not need them.
    fn skip_to_front_table(&mut self, number: u64) -> Result<()> {
        let next = (number..).zip(self.front.get(number as usize..).unwrap_or_default());
        let Some((number, sector)) = next.into_iter().find(|(_, sector)| **sector != 0) else {
            self.front = Vec::new();
            self.ledger.complete();
            return self.skip_to_data();
        };
        let (start, data) = (u64::from(*sector) * SECTOR, self.known_header()?.overhead_sectors.saturating_mul(SECTOR));
        if start < self.at || start + TABLE_BYTES > data {
            self.front = Vec::new();
            self.ledger = Ledger::default();
            return self.skip_to_data();
        }
        self.skip = start - self.at;
        self.state = State::FrontTable { number, entry: 0 };
        Ok(())
    }

    /// Passes what lies before the first grain.
    fn skip_to_data(&mut self) -> Result<()> {
        let header = self.known_header()?;
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

    /// Whether the directory, and with it the footer, come behind the data.
    fn ends_with_footer(&self) -> bool {
        self.header.as_ref().is_none_or(|header| header.directory_sector == SparseHeader::DIRECTORY_AT_END)
    }

    fn marker(&mut self, bytes: &[u8; 16]) -> Result<()> {
        let directory_entries = self.known_header()?.directory_entries();
        match Marker::parse(bytes) {
            Marker::Grain { sector, compressed_bytes } => {
                let number = self.check_grain(sector, compressed_bytes)?;
                self.drop_front(GRAIN_MARKER_BYTES);
                self.state = State::Grain { number, compressed_bytes };
            }
            Marker::EndOfStream => {
                if bytes[..8] != [0; 8] {
                    return Err(self.bad("a marker of no kind".to_owned()));
                }
                // Else a sector of zeros in a damaged stream would pass for its end.
                if self.ends_with_footer() && !self.has_footer {
                    return Err(self.bad("an end marker without a footer before it".to_owned()));
                }
                self.ledger.check().map_err(|problem| self.bad(problem))?;
                self.drop_front(self.buffer.waiting().len());
                self.state = State::Ended;
            }
            Marker::Metadata { kind: MetadataKind::Footer, sectors: 1 } => {
                self.skip = SECTOR;
                self.state = State::Footer;
            }
            Marker::Metadata { kind: MetadataKind::Table, sectors: TABLE_SECTORS } => {
                self.tables += 1;
                // Once more for a redundant directory.
                if self.tables > 2 * directory_entries.min(MOST_TABLES) {
                    return Err(self.bad(format!("{} tables on a disk that needs {directory_entries}", self.tables)));
                }
                self.skip = SECTOR;
                self.state = State::Table { sector: self.at / SECTOR + 1, entry: 0 };
            }
            Marker::Metadata { kind: MetadataKind::Directory, sectors }
                if sectors == directory_entries.div_ceil(ENTRIES_A_SECTOR) =>
            {
                self.skip = SECTOR;
                self.state = State::Directory { entry: 0, sectors };
            }
            Marker::Metadata { kind, sectors } => {
                let most = directory_entries.div_ceil(ENTRIES_A_SECTOR).max(4);
                if sectors > most {
                    return Err(self.bad(format!("a {kind:?} marker announces {sectors} sectors, more than {most}")));
                }
                self.skip = (sectors + 1) * SECTOR;
            }
        }
        Ok(())
    }

    /// Checks a grain's marker and returns the grain's number.
    fn check_grain(&mut self, sector: u64, compressed_bytes: u32) -> Result<u64> {
        let header = self.known_header()?;
        let number = sector / header.grain_sectors;
        let problem = if sector >= header.capacity_sectors {
            format!("a grain at sector {sector} of a disk of {}", header.capacity_sectors)
        } else if !sector.is_multiple_of(header.grain_sectors) {
            format!("a grain at sector {sector}, which is no multiple of {}", header.grain_sectors)
        } else if u64::from(compressed_bytes) > most_compressed(self.grain.len()) {
            format!("a grain of {compressed_bytes} compressed bytes")
        } else {
            self.ledger.grain(number, self.at / SECTOR);
            return Ok(number);
        };
        Err(self.bad(problem))
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

    /// The footer is the header once more, with the directory's place.
    fn check_footer(&self, footer: &SparseHeader) -> Result<()> {
        let header = self.known_header()?;
        if (header.capacity_sectors, header.grain_sectors) != (footer.capacity_sectors, footer.grain_sectors) {
            return Err(self.bad("header and footer describe different disks".to_owned()));
        }
        if self.ends_with_footer() && self.directory_sector != Some(footer.directory_sector) {
            let problem = format!("the footer names a directory at sector {}, which is none", footer.directory_sector);
            return Err(self.bad(problem));
        }
        Ok(())
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

const SECTOR_BYTES: usize = SECTOR as usize;
const ENTRIES_A_SECTOR: u64 = SECTOR / 4;
const TABLE_SECTORS: u64 = TABLE_BYTES / SECTOR;

/// Tables whose places are kept while they pass: enough for 62 TB.
const MOST_TABLES: u64 = 2 << 20;
