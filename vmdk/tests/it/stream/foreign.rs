//! Streams as other programs lay them out, made by hand: grains in any order, tables late or in front, markers that
//! nobody needs. `qemu-img` reads them by their tables and must see the same.

use std::fs;

use vmdk::{
    Cid, Disk, Error, Handle, MemSource, SECTOR,
    layout::{ENTRIES_PER_TABLE, Marker, MetadataKind, SparseHeader},
    stream::{GrainOrder, Import, PackedGrains, Packer, StreamEncoder, StreamEnd, StreamReader, StreamSpec},
};

use super::compare;
use crate::support::{Random, content, holey, peer, run};

const GRAIN: usize = 64 << 10;
/// Three tables.
const LEN: usize = (66 << 20) + 512;
const ENTRIES: usize = ENTRIES_PER_TABLE as usize;

fn disk() -> Vec<u8> {
    let mut disk = holey(LEN, 91);
    // Few data, so that the test is quick.
    for chunk in disk.chunks_mut(2 << 20) {
        let len = chunk.len();
        chunk[len.min(400_000)..].fill(0);
    }
    disk
}

/// A stream under construction.
struct Layout {
    header: SparseHeader,
    stream: Vec<u8>,
    packer: Packer,
    tables: Vec<Vec<u32>>,
}

impl Layout {
    fn new() -> Self {
        let spec = StreamSpec::new(LEN as u64).name("generated-stream.vmdk").cid(Cid(1));
        let (_, stream) = StreamEncoder::new(&spec).unwrap();
        let header = SparseHeader::parse(stream[..512].try_into().unwrap(), "made").unwrap();
        let tables = vec![vec![0; ENTRIES]; header.directory_entries() as usize];
        Self { header, stream, packer: Packer::new(&spec).unwrap(), tables }
    }

    fn sector(&self) -> u32 {
        (self.stream.len() / 512) as u32
    }

    fn grain(&mut self, disk: &[u8], number: usize) {
        let (start, end) = (number * GRAIN, ((number + 1) * GRAIN).min(LEN));
        let mut packed = PackedGrains::default();
        self.packer.pack(start as u64, &disk[start..end], &mut packed).unwrap();
        if !packed.is_empty() {
            self.tables[number / ENTRIES][number % ENTRIES] = self.sector();
            self.stream.extend(packed.into_bytes());
        }
    }

    fn metadata(&mut self, kind: MetadataKind, bytes: &[u8]) -> u32 {
        let sectors = (bytes.len() as u64).div_ceil(SECTOR);
        self.stream.extend(Marker::Metadata { kind, sectors }.encode());
        let sector = self.sector();
        self.stream.extend(bytes);
        self.stream.resize(self.stream.len().next_multiple_of(512), 0);
        sector
    }

    /// All tables one after the other, as open-vmdk has them, then directory, footer and end.
    fn finish(mut self) -> Vec<u8> {
        let mut directory = Vec::new();
        for table in std::mem::take(&mut self.tables) {
            let sector = self.metadata(MetadataKind::Table, &bytes_of(&table));
            directory.extend(sector.to_le_bytes());
        }
        let directory_sector = self.metadata(MetadataKind::Directory, &directory).into();
        let footer = SparseHeader { directory_sector, ..self.header.clone() };
        self.metadata(MetadataKind::Footer, &footer.encode());
        self.stream.extend(Marker::EndOfStream.encode());
        self.stream
    }
}

fn bytes_of(table: &[u32]) -> Vec<u8> {
    table.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

/// We and qemu-img read the stream as `disk`.
fn assert_reads(stream: &[u8], disk: &[u8], order: GrainOrder, end: StreamEnd) {
    for threads in [1, 4] {
        let source = MemSource::new(vec![0xee; LEN]);
        let target = Disk::from_source("target", Handle::ReadWrite(std::sync::Arc::new(source))).unwrap();
        let mut reader = StreamReader::open_ordered(stream, "made", order).unwrap();
        assert_eq!(Import::new().threads(threads).run(&mut reader, &target).unwrap(), end);
        assert!(content(&target) == disk);
    }
    if peer("qemu-img") {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("raw"), disk).unwrap();
        fs::write(dir.path().join("stream.vmdk"), stream).unwrap();
        run("qemu-img", dir.path(), &["check", "-f", "vmdk", "stream.vmdk"]);
        compare(dir.path(), "stream.vmdk");
    }
}

fn shuffled(count: usize) -> Vec<usize> {
    let mut random = Random::new(92);
    let mut numbers: Vec<usize> = (0..count).collect();
    for at in (1..count).rev() {
        numbers.swap(at, random.below(at as u64 + 1) as usize);
    }
    numbers
}

#[test]
fn grains_in_any_order_are_read_when_that_is_allowed() {
    let disk = disk();
    let mut layout = Layout::new();
    for number in shuffled(LEN.div_ceil(GRAIN)) {
        layout.grain(&disk, number);
    }
    let stream = layout.finish();
    assert_reads(&stream, &disk, GrainOrder::Any, StreamEnd::Marked);
    let mut reader = StreamReader::open(stream.as_slice(), "made").unwrap();
    let refused = loop {
        match reader.next_grain() {
            Ok(grain) => assert!(grain.is_some()),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::Malformed { .. }));
}

#[test]
fn a_grain_that_comes_twice_is_refused_in_any_order() {
    let disk = disk();
    let mut layout = Layout::new();
    for number in [3, 1, 0, 3] {
        layout.grain(&vec![7; disk.len()], number);
    }
    let stream = layout.finish();
    let mut reader = StreamReader::open_ordered(stream.as_slice(), "made", GrainOrder::Any).unwrap();
    for _ in 0..3 {
        assert!(reader.next_grain().unwrap().is_some());
    }
    assert!(reader.next_grain().unwrap_err().to_string().contains("second time"));
}

#[test]
fn markers_that_nobody_needs_are_passed() {
    let disk = disk();
    let mut layout = Layout::new();
    for number in 0..LEN.div_ceil(GRAIN) {
        layout.grain(&disk, number);
        match number % 50 {
            0 => drop(layout.metadata(MetadataKind::Progress, &[])),
            1 => drop(layout.metadata(MetadataKind::Progress, &[0xff; 512])),
            2 => drop(layout.metadata(MetadataKind::Other(77), &[0xaa; 1024])),
            _ => {}
        }
    }
    assert_reads(&layout.finish(), &disk, GrainOrder::Ascending, StreamEnd::Marked);
}

#[test]
fn tables_in_front_are_passed_and_compared() {
    let disk = disk();
    let mut layout = Layout::new();
    let front = layout.sector();
    let tables = layout.tables.len() as u32;
    // Directory, then its tables, then the data: as an encoder that seeks back leaves it.
    let overhead = (front + 1 + tables * 4).next_multiple_of(128);
    layout.stream.resize(overhead as usize * 512, 0);
    for number in 0..LEN.div_ceil(GRAIN) {
        layout.grain(&disk, number);
    }
    let header =
        SparseHeader { directory_sector: front.into(), overhead_sectors: overhead.into(), ..layout.header.clone() };
    layout.stream[..512].copy_from_slice(&header.encode());
    let directory: Vec<u32> = (0..tables).map(|table| front + 1 + table * 4).collect();
    let at = front as usize * 512;
    layout.stream[at..at + tables as usize * 4].copy_from_slice(&bytes_of(&directory));
    for (sector, table) in directory.iter().zip(&layout.tables) {
        let at = *sector as usize * 512;
        layout.stream[at..at + 2048].copy_from_slice(&bytes_of(table));
    }
    assert_reads(&layout.stream, &disk, GrainOrder::Ascending, StreamEnd::Unmarked);
    // One entry less in front than there are grains behind.
    let entry = layout.stream[at + 512..].iter().position(|byte| *byte != 0).unwrap() / 4 * 4;
    layout.stream[at + 512 + entry..][..4].fill(0);
    let mut reader = StreamReader::open(layout.stream.as_slice(), "made").unwrap();
    let compared = loop {
        match reader.next_grain() {
            Ok(grain) => assert!(grain.is_some(), "the tables were not compared"),
            Err(error) => break error,
        }
    };
    assert!(compared.to_string().contains("misplaced"), "{compared}");
}
