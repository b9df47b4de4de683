//! Getting out of a damaged or truncated stream whatever is whole in it.

mod account;
mod reader;
mod report;

use std::collections::VecDeque;

use self::report::add;
pub use self::{
    reader::SalvageReader,
    report::{Misplaced, SalvageReport},
};
use super::{
    Grain,
    buffer::Buffer,
    codec::GrainInflater,
    decode::{entries, most_compressed},
};
use crate::{
    MAX_CAPACITY, SECTOR,
    descriptor::Descriptor,
    layout::{GRAIN_MARKER_BYTES, HEADER_BYTES, Marker, MetadataKind, SparseFlags, SparseHeader, TABLE_BYTES},
};

/// Finds the whole grains of a stream, whatever happened to the rest. Sans I/O.
///
/// Grains carry their place and a checksum, so each that is whole can be used without the others. After damage, the
/// scan goes on at the next sector at which something of the stream begins. Grains are given out as they are found;
/// [`report`](Self::report) says what was not.
///
/// Memory: one packed and one whole grain, and the report, whose lists are bounded. Work: what is inflated in vain is
/// bounded by a multiple of the stream's length.
#[derive(Debug)]
pub struct Salvager {
    buffer: Buffer,
    /// Bytes of the stream that were passed, and those of them that are still to come.
    at: u64,
    skip: u64,
    /// No more bytes will come.
    is_fed: bool,
    is_done: bool,
    header: Option<SparseHeader>,
    descriptor: Option<Descriptor>,
    has_begun: bool,
    grain_bytes: u64,
    /// Where the data begin; what comes before need be no part of the stream's markers.
    data_from: u64,
    inflater: GrainInflater,
    grain: Vec<u8>,
    /// Bytes inflated for nothing.
    vain: u64,
    /// Something was not understood since the last whole grain.
    is_hurt: bool,
    /// A sector of zeros was the last that came: the end, if nothing follows.
    after_zeros: bool,
    after_footer: bool,
    /// Where on the disk the next gap would begin.
    gap_from: u64,
    /// Grains since the last table, for it to judge: number and sector.
    recent: VecDeque<(u64, u64)>,
    report: SalvageReport,
}

/// What stands at a sector.
enum Found {
    /// A whole grain, inflated.
    Grain(Place),
    /// Something else, which was passed.
    Other,
    /// More bytes are needed to say.
    Unclear,
}

/// Where a grain belongs on the disk, and how many of its bytes.
#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    wanted: usize,
}

impl Salvager {
    /// A scan of a stream with a header that can be read, or else with grains of 64 KiB.
    pub fn new() -> Self {
        Self {
            buffer: Buffer::default(),
            at: 0,
            skip: 0,
            is_fed: false,
            is_done: false,
            header: None,
            descriptor: None,
            has_begun: false,
            grain_bytes: 64 << 10,
            data_from: 0,
            inflater: GrainInflater::new(),
            grain: Vec::new(),
            vain: 0,
            is_hurt: false,
            after_zeros: false,
            after_footer: false,
            gap_from: 0,
            recent: VecDeque::new(),
            report: SalvageReport { is_ordered: true, ..SalvageReport::default() },
        }
    }

    /// Sets the size of the disk, for streams whose header is damaged.
    #[must_use]
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.report.capacity = Some(bytes);
        self
    }

    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.space(bytes.len()).copy_from_slice(bytes);
        self.buffer.filled(bytes.len());
    }

    /// Says that no more bytes will come; more grains may.
    pub fn end(&mut self) {
        self.is_fed = true;
    }

    /// The next whole grain; `None` when more bytes are needed, or after [`end`](Self::end) when there is none.
    pub fn next_grain(&mut self) -> Option<Grain<'_>> {
        let place = self.advance()?;
        Some(self.grain_at(place))
    }

    /// What is known by now; complete when [`next_grain`](Self::next_grain) gave `None` after [`end`](Self::end).
    pub fn report(&self) -> &SalvageReport {
        &self.report
    }

    /// The embedded descriptor, if it can be read.
    pub fn descriptor(&self) -> Option<&Descriptor> {
        self.descriptor.as_ref()
    }

    /// Goes on to the next whole grain, and says where it is.
    fn advance(&mut self) -> Option<Place> {
        if !self.has_begun && !self.begin() {
            return None;
        }
        loop {
            match self.look() {
                Found::Grain(place) => return Some(place),
                Found::Other => {}
                Found::Unclear => {
                    if self.is_fed {
                        self.conclude();
                    }
                    return None;
                }
            }
        }
    }

    fn grain_at(&self, place: Place) -> Grain<'_> {
        Grain { offset: place.offset, data: &self.grain[..place.wanted] }
    }

    /// Reads header and descriptor, if they are whole; false when more bytes are needed.
    fn begin(&mut self) -> bool {
        let waiting = self.buffer.waiting();
        let Some(first) = waiting.first_chunk::<HEADER_BYTES>() else {
            if self.is_fed && !self.is_done {
                self.report.header_is_damaged = true;
                self.lose_track();
                self.conclude();
            }
            return false;
        };
        let header = SparseHeader::parse(first, "stream").ok().filter(is_stream);
        if let Some(header) = header {
            if let Some(range) = header.descriptor_range(u64::MAX, "stream").ok().flatten() {
                // Only where every writer has it: else a damaged place would ask for any number of bytes.
                if range.start == SECTOR && (waiting.len() as u64) < range.end && !self.is_fed {
                    return false;
                }
                let text = waiting.get(range.start as usize..range.end as usize).unwrap_or_default();
                let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
                self.descriptor = Descriptor::parse(text).ok().filter(|found| found.cid().is_ok());
            }
            self.grain_bytes = header.grain_sectors * SECTOR;
            self.report.capacity = Some(header.capacity_sectors * SECTOR);
            self.data_from = header.overhead_sectors.saturating_mul(SECTOR);
            self.header = Some(header);
            self.pass(SECTOR);
        } else {
            self.report.header_is_damaged = true;
            self.lose_track();
        }
        self.grain = vec![0; self.grain_bytes as usize];
        self.has_begun = true;
        true
    }

    /// Looks at the next sector, and passes it or what begins there.
    fn look(&mut self) -> Found {
        let skipped = self.skip.min(self.buffer.waiting().len() as u64);
        self.buffer.take(skipped as usize);
        self.skip -= skipped;
        if self.skip > 0 {
            return Found::Unclear;
        }
        let waiting = self.buffer.waiting();
        let sector = &waiting[..waiting.len().min(SECTOR as usize)];
        if sector.is_empty() || (sector.len() < SECTOR as usize && !self.is_fed) {
            return Found::Unclear;
        }
        let Some(marker) = sector.first_chunk() else { return self.pass_damage() };
        let pads_with_zeros = sector[16..].iter().all(|byte| *byte == 0);
        match Marker::parse(marker) {
            Marker::Grain { sector, compressed_bytes } => self.look_at_grain(sector, compressed_bytes),
            Marker::EndOfStream if marker[..8] == [0; 8] && pads_with_zeros => {
                // Zeros where nothing else can be are the end, or damage: what follows decides.
                if !self.after_zeros && self.at >= self.data_from {
                    self.after_zeros = true;
                    self.report.is_ended = self.after_footer || self.has_directory_in_front();
                }
                self.pass(SECTOR);
                Found::Other
            }
            Marker::Metadata { kind, sectors } if pads_with_zeros => self.look_at_metadata(kind, sectors),
            _ => self.pass_damage(),
        }
    }

    fn look_at_grain(&mut self, sector: u64, compressed_bytes: u32) -> Found {
        let grain_sectors = self.grain_bytes / SECTOR;
        let capacity = self.report.capacity.unwrap_or(MAX_CAPACITY);
        let waiting = self.buffer.waiting();
        let zlib = waiting.get(GRAIN_MARKER_BYTES..).and_then(|data| data.first_chunk()).copied().unwrap_or_default();
        let is_possible = sector < capacity / SECTOR
            && sector.is_multiple_of(grain_sectors)
            && u64::from(compressed_bytes) <= most_compressed(self.grain.len())
            && begins_zlib(zlib);
        if !is_possible {
            return self.pass_damage();
        }
        let len = GRAIN_MARKER_BYTES + compressed_bytes as usize;
        let Some(packed) = waiting.get(GRAIN_MARKER_BYTES..len) else {
            return if self.is_fed { self.pass_damage() } else { Found::Unclear };
        };
        if self.vain > VAIN_AT_LEAST + self.at.saturating_mul(VAIN_FOR_A_BYTE) {
            self.report.is_exhausted = true;
            return self.pass_damage();
        }
        let offset = sector * SECTOR;
        let wanted = (capacity - offset).min(self.grain_bytes) as usize;
        if self.inflater.unpack_whole(packed, &mut self.grain, wanted).is_err() {
            self.vain += len as u64 + self.grain_bytes;
            return self.pass_damage();
        }
        let place = self.at / SECTOR;
        self.came_through();
        self.data_from = self.data_from.min(self.at);
        self.note_grain(sector / grain_sectors, place);
        self.pass((len as u64).next_multiple_of(SECTOR));
        Found::Grain(Place { offset, wanted })
    }

    fn look_at_metadata(&mut self, kind: MetadataKind, sectors: u64) -> Found {
        let waiting = self.buffer.waiting();
        let behind = match (kind, sectors) {
            (MetadataKind::Table, TABLE_SECTORS) => {
                let Some(bytes) = waiting.get(SECTOR as usize..(SECTOR + TABLE_BYTES) as usize) else {
                    return if self.is_fed { self.pass_damage() } else { Found::Unclear };
                };
                let table: Vec<u32> = entries(bytes).collect();
                self.judge(&table);
                sectors
            }
            (MetadataKind::Directory, _) => match &self.header {
                Some(header) if sectors == (header.directory_entries() * 4).div_ceil(SECTOR) => sectors,
                // Its entries are looked at like everything else, and are no markers.
                _ => 0,
            },
            (MetadataKind::Footer, 1) => {
                self.after_footer = true;
                sectors
            }
            (MetadataKind::Progress, 0..8) => sectors,
            _ => return self.pass_damage(),
        };
        self.came_through();
        self.pass((1 + behind) * SECTOR);
        Found::Other
    }

    /// Passes a sector that is nothing.
    fn pass_damage(&mut self) -> Found {
        if self.at >= self.data_from {
            self.came_through();
            self.lose_track();
        }
        self.pass(SECTOR);
        Found::Other
    }

    /// Something comes behind what looked like the end.
    fn came_through(&mut self) {
        if std::mem::take(&mut self.after_zeros) {
            self.report.is_ended = false;
            self.lose_track();
        }
    }

    fn lose_track(&mut self) {
        if !std::mem::replace(&mut self.is_hurt, true) {
            self.report.damages += 1;
        }
    }

    /// At the source's end: what is behind the last grain?
    fn conclude(&mut self) {
        if std::mem::replace(&mut self.is_done, true) {
            return;
        }
        if !self.report.is_ended {
            self.lose_track();
        }
        if std::mem::take(&mut self.is_hurt) {
            let end = self.report.capacity.unwrap_or(MAX_CAPACITY);
            add(&mut self.report.unknown, self.gap_from..end);
        }
    }

    fn has_directory_in_front(&self) -> bool {
        self.header.as_ref().is_some_and(|header| header.directory_sector != SparseHeader::DIRECTORY_AT_END)
    }

    /// Passes bytes, whether they have come or are still to come.
    fn pass(&mut self, len: u64) {
        self.at += len;
        self.skip += len;
    }
}

impl Default for Salvager {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether the header is that of a stream.
fn is_stream(header: &SparseHeader) -> bool {
    let needed = SparseFlags::COMPRESSED | SparseFlags::MARKERS;
    header.flags.has(needed) && header.compression == 1 && header.capacity_sectors > 0
}

/// Whether zlib data may begin so (RFC 1950): deflate, and a check of the two bytes.
fn begins_zlib(bytes: [u8; 2]) -> bool {
    bytes[0] & 0xf == 8 && u16::from_be_bytes(bytes).is_multiple_of(31)
}

const TABLE_SECTORS: u64 = TABLE_BYTES / SECTOR;

/// Bytes that may be inflated in vain: so many, and so many for each byte of the stream.
const VAIN_AT_LEAST: u64 = 64 << 20;
const VAIN_FOR_A_BYTE: u64 = 8;
