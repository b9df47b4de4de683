//! What stands in a stream beside the grains: header, descriptor, directories, tables and markers.

use super::{Ledger, State, StreamDecoder, entries, most_compressed};
use crate::{
    SECTOR,
    descriptor::Descriptor,
    error::{Error, Result},
    layout::{
        ENTRIES_PER_TABLE, GRAIN_MARKER_BYTES, HEADER_BYTES, Marker, MetadataKind, SparseFlags, SparseHeader,
        TABLE_BYTES,
    },
};

impl StreamDecoder {
    /// Understands the next piece of metadata; false when more bytes are needed.
    pub(super) fn step(&mut self) -> Result<bool> {
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
    pub(super) fn ends_with_footer(&self) -> bool {
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
}

const SECTOR_BYTES: usize = SECTOR as usize;
const ENTRIES_A_SECTOR: u64 = SECTOR / 4;
const TABLE_SECTORS: u64 = TABLE_BYTES / SECTOR;

/// Tables whose places are kept while they pass: enough for 62 TB.
const MOST_TABLES: u64 = 2 << 20;
