//! Making a stream's bytes, without I/O.

use super::{PackedGrains, StreamSpec};
use crate::{
    SECTOR,
    error::{Error, Result},
    layout::{ENTRIES_PER_TABLE, Marker, MetadataKind, SparseHeader},
};

/// Puts packed grains in their order and makes what stands between them: headers, tables, markers.
///
/// Sans I/O: it says what to write, whoever writes it. Memory: one table, and 4 bytes for each table of the disk
/// (8 MiB for 62 TB).
///
/// ```
/// use vmdk::stream::{PackedGrains, Packer, StreamEncoder, StreamSpec};
///
/// # fn main() -> vmdk::Result<()> {
/// let spec = StreamSpec::new(1 << 20);
/// let (mut encoder, mut stream) = StreamEncoder::new(&spec)?;
/// let mut grains = PackedGrains::default();
/// Packer::new(&spec)?.pack(65536, &[7; 65536], &mut grains)?;
/// stream.extend(encoder.push(&grains)?);
/// stream.extend(grains.into_bytes());
/// stream.extend(encoder.finish()?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct StreamEncoder {
    header: SparseHeader,
    name: String,
    /// Bytes given out so far.
    at: u64,
    /// No grain below this number may come any more.
    next: u64,
    /// The open table: its place in the directory, and the sectors of its grains.
    table_number: u64,
    table: Vec<u32>,
    directory: Vec<u32>,
}

impl StreamEncoder {
    /// An encoder, and the first bytes of its stream.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a capacity that is no multiple of 512 or larger than
    /// [`MAX_CAPACITY`](crate::MAX_CAPACITY), for a grain size that is not possible, and for a descriptor of more than
    /// 4 MiB.
    pub fn new(spec: &StreamSpec) -> Result<(Self, Vec<u8>)> {
        let (header, descriptor) = spec.head()?;
        let mut head = header.encode().to_vec();
        head.extend_from_slice(&descriptor);
        // Bounded by the bounds on descriptor and grain.
        head.resize((header.overhead_sectors * SECTOR) as usize, 0);
        let encoder = Self {
            name: spec.stream_name().to_owned(),
            at: head.len() as u64,
            next: 0,
            table_number: 0,
            table: vec![0; ENTRIES_PER_TABLE as usize],
            directory: vec![0; header.directory_entries() as usize],
            header,
        };
        Ok((encoder, head))
    }

    /// Takes the next grains, and returns what to write before [their bytes](PackedGrains::as_bytes): a table where
    /// they begin a new one, else nothing.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for grains that are not ascending, lie before grains taken earlier, belong to two tables
    /// or to no place on the disk; [`Error::NotSupported`] when the stream grows beyond 2 TiB. The encoder is of no use
    /// then.
    pub fn push(&mut self, grains: &PackedGrains) -> Result<Vec<u8>> {
        let placed = grains.placed();
        let (Some(first), Some(last)) = (placed.first(), placed.last()) else { return Ok(Vec::new()) };
        let ascend = placed.windows(2).all(|pair| pair[0].number < pair[1].number);
        let on_disk = last.number < self.header.grain_count();
        let table = first.number / ENTRIES;
        if first.number < self.next || table != last.number / ENTRIES || !ascend || !on_disk {
            let problem = format!("{} to {} cannot follow {} in a stream", first.number, last.number, self.next);
            return Err(Error::invalid("grain numbers", problem));
        }
        let mut lead = Vec::new();
        if table != self.table_number {
            self.close_table(&mut lead)?;
            self.table_number = table;
        }
        let sector = self.at / SECTOR;
        for grain in placed {
            self.table[(grain.number % ENTRIES) as usize] = self.sector(sector + u64::from(grain.sector))?;
        }
        self.at += grains.as_bytes().len() as u64;
        self.next = last.number + 1;
        Ok(lead)
    }

    /// The last bytes of the stream: tables, footer and end marker.
    ///
    /// # Errors
    /// [`Error::NotSupported`] when the stream grows beyond 2 TiB.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        self.end()
    }

    /// As [`finish`](Self::finish), for owners that cannot give it away; nothing may follow.
    pub(super) fn end(&mut self) -> Result<Vec<u8>> {
        let mut tail = Vec::new();
        self.close_table(&mut tail)?;
        let directory = std::mem::take(&mut self.directory);
        let directory_sector = self.metadata(MetadataKind::Directory, &to_bytes(&directory), &mut tail)?;
        let footer = SparseHeader { directory_sector: u64::from(directory_sector), ..self.header.clone() };
        self.metadata(MetadataKind::Footer, &footer.encode(), &mut tail)?;
        tail.extend_from_slice(&Marker::EndOfStream.encode());
        Ok(tail)
    }

    /// Size of the disk in bytes.
    pub fn capacity(&self) -> u64 {
        self.header.capacity_sectors * SECTOR
    }

    /// Bytes given out so far.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Writes the open table, unless it is empty: an entry 0 of the directory says that as well.
    fn close_table(&mut self, out: &mut Vec<u8>) -> Result<()> {
        if self.table.iter().all(|entry| *entry == 0) {
            return Ok(());
        }
        let bytes = to_bytes(&self.table);
        self.directory[self.table_number as usize] = self.metadata(MetadataKind::Table, &bytes, out)?;
        self.table.fill(0);
        Ok(())
    }

    /// Gives out a marker and what it announces; returns the sector of the latter.
    fn metadata(&mut self, kind: MetadataKind, bytes: &[u8], out: &mut Vec<u8>) -> Result<u32> {
        let sectors = (bytes.len() as u64).div_ceil(SECTOR);
        out.extend_from_slice(&Marker::Metadata { kind, sectors }.encode());
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(SECTOR as usize), 0);
        let sector = self.at / SECTOR + 1;
        self.at += (1 + sectors) * SECTOR;
        self.sector(sector)
    }

    /// A sector as tables hold it.
    fn sector(&self, sector: u64) -> Result<u32> {
        u32::try_from(sector).map_err(|_| {
            Error::not_supported(&self.name, "a stream above 2 TiB", "sector numbers of its tables have 32 bits")
        })
    }
}

fn to_bytes(entries: &[u32]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

const ENTRIES: u64 = ENTRIES_PER_TABLE as u64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Packer;

    fn grains(spec: &StreamSpec, offset: u64, len: usize) -> PackedGrains {
        let mut packed = PackedGrains::default();
        Packer::new(spec).unwrap().pack(offset, &vec![7; len], &mut packed).unwrap();
        packed
    }

    #[test]
    fn a_stream_above_2_tib_is_refused() {
        let spec = StreamSpec::new(1 << 30);
        let (mut encoder, _) = StreamEncoder::new(&spec).unwrap();
        encoder.at = (u64::from(u32::MAX)) * SECTOR;
        encoder.push(&grains(&spec, 0, 65536)).unwrap();
        assert!(matches!(encoder.push(&grains(&spec, 65536, 65536)), Err(Error::NotSupported { .. })));
    }

    #[test]
    fn grains_out_of_order_or_of_two_tables_are_refused() {
        let spec = StreamSpec::new(64 << 20);
        let refused = |before: u64, offset: u64, len: usize| {
            let (mut encoder, _) = StreamEncoder::new(&spec).unwrap();
            encoder.push(&grains(&spec, before, 65536)).unwrap();
            encoder.push(&grains(&spec, offset, len)).is_err()
        };
        assert!(refused(65536, 0, 65536));
        assert!(refused(65536, 65536, 65536));
        assert!(refused(0, (32 << 20) - 65536, 2 * 65536));
        assert!(!refused(65536, 2 * 65536, 65536));
        let (mut other, _) = StreamEncoder::new(&StreamSpec::new(65536)).unwrap();
        assert!(other.push(&grains(&spec, 65536, 65536)).is_err());
    }
}
