//! A snapshot's extent as ESXi writes it, made while it is read: `seSparse` or `COWD` over one layer of a disk.
//!
//! Nothing is stored. Headers, directory and tables are a function of the blocks that the layer holds; behind them
//! come those blocks, ascending. Layers that a snapshot has frozen do not change, so any number of ranges fit together.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::storage::{BLOCK, DiskStore, NodeHandle, NodeId};

/// In which format a snapshot's extents are shown over `/folder`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeltaFormat {
    /// `web-000001-sesparse.vmdk`, as on VMFS-6 and for large disks.
    #[default]
    SeSparse,
    /// `web-000001-delta.vmdk`, as on VMFS-5: the format of redo logs.
    Cowd,
}

/// The extent of one layer.
pub(crate) struct Delta {
    store: Arc<DiskStore>,
    node: NodeId,
    format: DeltaFormat,
    sectors: u64,
    /// Blocks that the layer holds, ascending.
    blocks: Vec<u64>,
    /// Tables that some of those blocks are in, ascending.
    tables: Vec<u64>,
}

impl DeltaFormat {
    /// What stands between the disk's name and `.vmdk`.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::SeSparse => "-sesparse.vmdk",
            Self::Cowd => "-delta.vmdk",
        }
    }

    /// Sectors of a grain.
    fn grain(self) -> u64 {
        match self {
            Self::SeSparse => 8,
            Self::Cowd => 1,
        }
    }

    /// Bytes of an entry, of directory and tables alike.
    fn width(self) -> u64 {
        match self {
            Self::SeSparse => 8,
            Self::Cowd => 4,
        }
    }
}

impl Delta {
    pub(crate) fn new(store: Arc<DiskStore>, node: NodeId, format: DeltaFormat) -> Self {
        let sectors = store.capacity_of(node).unwrap_or(0) / SECTOR;
        let blocks = store.layer_blocks(node).unwrap_or_default();
        let span = ENTRIES * format.grain() * SECTOR / BLOCK;
        let mut tables: Vec<u64> = blocks.iter().map(|block| block / span).collect();
        tables.dedup();
        Self { store, node, format, sectors, blocks, tables }
    }

    /// Bytes of the file.
    pub(crate) fn len(&self) -> u64 {
        self.data_start() + self.blocks.len() as u64 * BLOCK
    }

    /// Sends the bytes of a range of the file.
    pub(crate) fn send(
        &self,
        range: Range<u64>,
        send: &mut dyn FnMut(bytes::Bytes) -> io::Result<()>,
    ) -> io::Result<()> {
        let handle = self.store.open(self.node, crate::storage::Access::ReadOnly).map_err(io::Error::other)?;
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + PIECE);
            let piece = match at < self.data_start() {
                true => self.metadata(at..end.min(self.data_start())),
                false => self.data(&handle, at, end)?,
            };
            at += piece.len() as u64;
            send(piece.into())?;
        }
        Ok(())
    }

    fn metadata(&self, range: Range<u64>) -> Vec<u8> {
        let width = self.format.width();
        let first = range.start / width;
        let words = first..range.end.div_ceil(width);
        let bytes: Vec<u8> = words
            .flat_map(|word| {
                let value = match self.format {
                    DeltaFormat::SeSparse => self.sesparse_word(word),
                    DeltaFormat::Cowd => self.cowd_word(word),
                };
                value.to_le_bytes().into_iter().take(width as usize)
            })
            .collect();
        let skip = (range.start - first * width) as usize;
        bytes[skip..skip + (range.end - range.start) as usize].to_vec()
    }

    /// Bytes of one block, up to its end. The last block of a disk may be shorter than a block; zeros fill it.
    fn data(&self, handle: &NodeHandle, at: u64, end: u64) -> io::Result<Vec<u8>> {
        let within = at - self.data_start();
        let (index, offset) = (within / BLOCK, within % BLOCK);
        let mut bytes = vec![0; (end - at).min(BLOCK - offset) as usize];
        let start = self.blocks[index as usize] * BLOCK + offset;
        let there = (self.sectors * SECTOR).saturating_sub(start).min(bytes.len() as u64);
        if there > 0 {
            handle.read_at(start, &mut bytes[..there as usize]).map_err(io::Error::other)?;
        }
        Ok(bytes)
    }

    /// Where the layer's blocks begin, in bytes.
    fn data_start(&self) -> u64 {
        let tables = self.tables.len() as u64 * ENTRIES * self.format.width();
        match self.format {
            DeltaFormat::SeSparse => self.sesparse_areas()[7].start * SECTOR,
            DeltaFormat::Cowd => COWD_HEADER + self.cowd_room() * 4 + tables,
        }
    }

    /// Tables that the capacity needs, used or not.
    fn directory_entries(&self) -> u64 {
        self.sectors.div_ceil(ENTRIES * self.format.grain())
    }

    /// How many used tables, or held blocks, come before `number`; `None` when it is not among them.
    fn ordinal(list: &[u64], number: u64) -> Option<u64> {
        list.binary_search(&number).ok().map(|index| index as u64)
    }

    /// Entry `index` of the used table `ordinal`: the held block, counted, and the grain's number in it.
    fn entry(&self, ordinal: u64, index: u64) -> Option<(u64, u64)> {
        let number = *self.tables.get(ordinal as usize)?;
        let grain = number * ENTRIES + index;
        let a_block = BLOCK / SECTOR / self.format.grain();
        let block = Self::ordinal(&self.blocks, grain / a_block)?;
        (grain * self.format.grain() < self.sectors).then_some((block, grain % a_block))
    }

    fn sesparse_word(&self, word: u64) -> u64 {
        let areas = self.sesparse_areas();
        let (sector, at) = (word / 64, word % 64);
        match sector {
            0 => match word {
                0 => 0xcafe_babe,
                1 => 0x2_0000_0001,
                2 => self.sectors,
                3 => 8,
                4 => 64,
                10..=25 => {
                    let area = &areas[(word as usize - 10) / 2];
                    if word.is_multiple_of(2) { area.start } else { area.end - area.start }
                }
                _ => 0,
            },
            1 => match at {
                0 => 0xcafe_cafe,
                1 => self.tables.len() as u64,
                _ => 0,
            },
            _ if areas[3].contains(&sector) => {
                let number = word - areas[3].start * 64;
                Self::ordinal(&self.tables, number).map_or(0, |ordinal| ALLOCATED_TABLE | ordinal)
            }
            _ if areas[4].contains(&sector) => {
                let entry = word - areas[4].start * 64;
                let grain = self.entry(entry / ENTRIES, entry % ENTRIES);
                grain.map_or(0, |(block, within)| {
                    let index = block * (BLOCK / 4096) + within;
                    ALLOCATED_GRAIN | (index & 0xfff) << 48 | index >> 12
                })
            }
            _ => 0,
        }
    }

    /// Volatile header, journal header, journal, directory, tables, bitmap, back map and grains, in sectors.
    fn sesparse_areas(&self) -> [Range<u64>; 8] {
        let (tables, grains) = (self.tables.len() as u64 * 64, self.blocks.len() as u64 * (BLOCK / SECTOR));
        let mut next = 64;
        let mut area = |sectors: u64| {
            next += sectors;
            next - sectors..next
        };
        let directory = area(self.directory_entries().div_ceil(64));
        [1..2, 2..4, 4..64, directory, area(tables), area(8), area(8), area(grains)]
    }

    fn cowd_word(&self, word: u64) -> u64 {
        let (directory, room) = (COWD_HEADER / 4, self.cowd_room());
        let end = self.len() / SECTOR;
        match word {
            0 => u64::from(u32::from_le_bytes(*b"COWD")),
            1 => 1,
            2 => 3,
            3 => self.sectors,
            4 => 1,
            5 => COWD_HEADER / SECTOR,
            6 => room,
            7 => end,
            _ if word < directory => 0,
            _ if word < directory + room => {
                let first = (COWD_HEADER + room * 4) / SECTOR;
                let ordinal = Self::ordinal(&self.tables, word - directory);
                ordinal.map_or(0, |ordinal| first + ordinal * (ENTRIES * 4 / SECTOR))
            }
            _ => {
                let entry = word - directory - room;
                let grain = self.entry(entry / ENTRIES, entry % ENTRIES);
                grain.map_or(0, |(block, within)| self.data_start() / SECTOR + block * (BLOCK / SECTOR) + within)
            }
        }
    }

    /// Entries that the directory has room for: whole sectors of them.
    fn cowd_room(&self) -> u64 {
        self.directory_entries().next_multiple_of(SECTOR / 4)
    }
}

const SECTOR: u64 = 512;

/// Entries of a table, in both formats.
const ENTRIES: u64 = 4096;

/// Bytes before the directory of a `COWD` file.
const COWD_HEADER: u64 = 2048;

const ALLOCATED_TABLE: u64 = 0x1000_0000_0000_0000;
const ALLOCATED_GRAIN: u64 = 0x3000_0000_0000_0000;

/// Most bytes sent at once.
const PIECE: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use vmdk::{Disk, MapKind, OpenOptions};

    use super::*;
    use crate::storage::{Datastore, DiskOptions, DiskSource};

    /// The file of the layer above a base of zeros, and what the disk reads as.
    fn delta(capacity: u64, writes: &[(u64, usize)], format: DeltaFormat) -> (Vec<u8>, Vec<u8>) {
        let datastore = Datastore::temporary("ds1").unwrap();
        let source = DiskSource::Empty(capacity);
        let store = datastore.create_disk("web", 0, &source, &DiskOptions::default()).unwrap();
        store.freeze().unwrap();
        for (number, (offset, len)) in writes.iter().enumerate() {
            store.guest_write(*offset, &vec![number as u8 + 1; *len]).unwrap();
        }
        let mut content = vec![0; capacity as usize];
        store.guest_read(0, &mut content).unwrap();
        let delta = Delta::new(store.clone(), store.current(), format);
        let mut file = Vec::new();
        let mut collect = |bytes: bytes::Bytes| {
            file.extend_from_slice(&bytes);
            Ok(())
        };
        // In pieces that are no multiple of anything.
        let mut at = 0;
        while at < delta.len() {
            let end = delta.len().min(at + 77_777);
            delta.send(at..end, &mut collect).unwrap();
            at = end;
        }
        (file, content)
    }

    #[test]
    fn the_disk_crate_reads_both_formats_as_the_guest_does() {
        let (capacity, writes) = ((70 << 20) + 512, [(0, 5), (4 << 20, 300_000), (65 << 20, 1), (70 << 20, 512)]);
        for format in [DeltaFormat::SeSparse, DeltaFormat::Cowd] {
            let (file, content) = delta(capacity, &writes, format);
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("delta.vmdk");
            std::fs::write(&path, file).unwrap();
            let disk = Disk::open(&path, &OpenOptions::new()).unwrap();
            assert_eq!(disk.capacity(), capacity, "{format:?}");
            let mut read = vec![1; capacity as usize];
            disk.read_at(0, &mut read).unwrap();
            assert!(read == content, "{format:?}");
            let data = |entry: &vmdk::MapEntry| entry.kind == MapKind::Data;
            let held: u64 = Vec::from_iter(disk.map(0..capacity).map(Result::unwrap).filter(data))
                .iter()
                .map(|entry| entry.range.end - entry.range.start)
                .sum();
            assert_eq!(held, 7 * BLOCK + 512, "{format:?}");
        }
    }
}
