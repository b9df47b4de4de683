//! Groups of dynamic disks, and disks with their database.

use super::{MIB, SECTORS};
use crate::disks::Partitions;

/// A volume, its copies, and on which disk, from which sector and how long their partitions are.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) size: u64,
    pub(super) copies: Vec<Copy>,
}

#[derive(Clone)]
pub(super) struct Copy {
    pub(super) state: &'static str,
    /// 1 for stripes, 2 for one after the other, 3 for parity.
    pub(super) layout: u8,
    pub(super) parts: Vec<(usize, u64, u64)>,
}

impl Made {
    pub(super) fn new(name: &'static str, layout: u8, copies: &[&[(usize, u64, u64)]]) -> Self {
        let kind = if layout == 3 { "raid5" } else { "gen" };
        let copies = copies.iter().map(|parts| Copy { state: "ACTIVE", layout, parts: parts.to_vec() });
        Self { name, kind, size: SECTORS, copies: copies.collect() }
    }
}

/// A group of disks.
#[derive(Clone)]
pub(super) struct Group {
    pub(super) volumes: Vec<Made>,
    pub(super) disks: usize,
    pub(super) sequence: u64,
    pub(super) is_committed: bool,
    /// What the database says more of each kind than it has.
    pub(super) miscounted: u32,
}

pub(super) const GROUP: &str = "00000000-1111-2222-3333-444444444444";
/// Sectors of a stripe.
pub(super) const CHUNK: u64 = 128;

fn guid(disk: usize) -> String {
    format!("aaaaaaaa-bbbb-cccc-dddd-{:012x}", disk + 1)
}

fn number(value: u64) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let skip = bytes.iter().take_while(|byte| **byte == 0).count().min(7);
    [&[8 - skip as u8], &bytes[skip..]].concat()
}

fn text(value: &str) -> Vec<u8> {
    [&[value.len() as u8], value.as_bytes()].concat()
}

fn record(kind: u8, flags: u8, fields: &[&[u8]]) -> Vec<u8> {
    let body = fields.concat();
    [&[0, 0, flags, kind][..], &(body.len() as u32).to_be_bytes(), &body].concat()
}

impl Group {
    pub(super) fn new(disks: usize, volumes: Vec<Made>) -> Self {
        Self { volumes, disks, sequence: 100, is_committed: true, miscounted: 0 }
    }

    fn records(&self) -> Vec<Vec<u8>> {
        let mut records = vec![record(0x35, 0, &[&number(1), &text("Group0"), &text(GROUP), &[0; 12]])];
        for disk in 0..self.disks {
            let (id, name) = (number(10 + disk as u64), text(&format!("Disk{}", disk + 1)));
            // Both versions of what is known of a disk.
            records.push(if disk % 2 == 0 {
                record(0x34, 0, &[&id, &name, &text(&guid(disk)), &text(""), &[0; 12]])
            } else {
                let digits = guid(disk).replace('-', "");
                let bytes = (0..16).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap());
                record(0x44, 0, &[&id, &name, &bytes.collect::<Vec<_>>(), &[0; 29]])
            });
        }
        let mut next = 1000;
        for (place, volume) in self.volumes.iter().enumerate() {
            let id = 100 + place as u64;
            let hint = text("F:");
            let kind = if volume.kind == "gen" { 3 } else { 4 };
            let state = [&b"ACTIVE\0\0\0\0\0\0\0\0"[..], &[kind, 0, 1, 0, 0, 0, 0]].concat();
            let fields = [
                number(id),
                text(volume.name),
                text(volume.kind),
                text("8000000000000000"),
                state,
                number(volume.copies.len() as u64),
                vec![0; 16],
                number(volume.size),
                vec![0, 0, 0, 0, 7],
                vec![place as u8 + 1; 16],
                hint,
            ];
            records.push(record(0x51, 0x02, &fields.each_ref().map(Vec::as_slice)));
            for copy in &volume.copies {
                next += 1;
                let component = next;
                let stripes = [number(CHUNK), number(copy.parts.len() as u64)].concat();
                let fields = [
                    number(component),
                    text("component"),
                    text(copy.state),
                    vec![copy.layout, 0, 0, 0, 0],
                    number(copy.parts.len() as u64),
                    vec![0; 16],
                    number(id),
                    vec![0],
                    if copy.layout == 2 { Vec::new() } else { stripes },
                ];
                let flags = if copy.layout == 2 { 0 } else { 0x10 };
                records.push(record(0x32, flags, &fields.each_ref().map(Vec::as_slice)));
                let mut offset = 0_u64;
                for (index, (disk, start, size)) in copy.parts.iter().enumerate() {
                    next += 1;
                    let fields = [
                        number(next),
                        text(&format!("{}-{next}", volume.name)),
                        vec![0; 12],
                        start.to_be_bytes().to_vec(),
                        offset.to_be_bytes().to_vec(),
                        number(*size),
                        number(component),
                        number(10 + *disk as u64),
                        number(index as u64),
                    ];
                    records.push(record(0x33, 0x08, &fields.each_ref().map(Vec::as_slice)));
                    offset += size;
                }
            }
        }
        records
    }

    /// 1 MiB with the database, and the head in its last sector.
    fn database(&self, disk: usize, data: u64, config: u64) -> Vec<u8> {
        let mut bytes = vec![0; MIB];
        let mut contents = [0; 512];
        contents[..8].copy_from_slice(b"TOCBLOCK");
        for (at, name, start, len) in [(0x24, "config", 17_u64, 1000_u64), (0x46, "log", 1800, 20)] {
            contents[at..at + name.len()].copy_from_slice(name.as_bytes());
            contents[at + 10..at + 18].copy_from_slice(&start.to_be_bytes());
            contents[at + 18..at + 26].copy_from_slice(&len.to_be_bytes());
        }
        for sector in [1, 2, 2045, 2046] {
            bytes[sector * 512..][..512].copy_from_slice(&contents);
        }
        let mut blocks = Vec::new();
        for (group, record) in self.records().iter().enumerate() {
            let count = record.len().div_ceil(112);
            for (part, piece) in record.chunks(112).enumerate() {
                let mut block = vec![0; 128];
                block[..4].copy_from_slice(b"VBLK");
                block[4..8].copy_from_slice(&(blocks.len() as u32 + 4).to_be_bytes());
                block[8..12].copy_from_slice(&(group as u32 + 1).to_be_bytes());
                block[12..14].copy_from_slice(&(part as u16).to_be_bytes());
                block[14..16].copy_from_slice(&(count as u16).to_be_bytes());
                block[16..16 + piece.len()].copy_from_slice(piece);
                blocks.push(block);
            }
        }
        let copies = || self.volumes.iter().flat_map(|volume| &volume.copies);
        let counts = [
            self.volumes.len() as u32,
            copies().count() as u32,
            copies().map(|copy| copy.parts.len() as u32).sum::<u32>() + self.miscounted,
            self.disks as u32,
        ];
        let mut head = vec![0; 512];
        head[..4].copy_from_slice(b"VMDB");
        head[4..8].copy_from_slice(&(blocks.len() as u32 + 4).to_be_bytes());
        head[8..12].copy_from_slice(&128_u32.to_be_bytes());
        head[12..16].copy_from_slice(&512_u32.to_be_bytes());
        head[16..18].copy_from_slice(&(if self.is_committed { 1_u16 } else { 2 }).to_be_bytes());
        head[18..22].copy_from_slice(&[0, 4, 0, 10]);
        head[22..28].copy_from_slice(b"Group0");
        head[53..53 + GROUP.len()].copy_from_slice(GROUP.as_bytes());
        head[117..125].copy_from_slice(&self.sequence.to_be_bytes());
        head[125..133].copy_from_slice(&self.sequence.to_be_bytes());
        for (number, count) in counts.iter().enumerate() {
            head[133 + 4 * number..][..4].copy_from_slice(&count.to_be_bytes());
        }
        let records = [head, blocks.concat()].concat();
        // Empty blocks up to the end, as Windows leaves them.
        bytes[17 * 512..][..records.len()].copy_from_slice(&records);
        for sector in [1856, 2047] {
            bytes[sector * 512..][..512].copy_from_slice(&head_of(disk, data, config));
        }
        bytes
    }
}

/// The head of a disk whose data begins at one sector and whose database at another.
fn head_of(disk: usize, data: u64, config: u64) -> Vec<u8> {
    let mut head = vec![0; 512];
    head[..8].copy_from_slice(b"PRIVHEAD");
    head[12..16].copy_from_slice(&[0, 2, 0, 12]);
    for (at, value) in [(0x30, &*guid(disk)), (0x70, GROUP), (0xb0, GROUP), (0xf0, "Group0")] {
        head[at..at + value.len()].copy_from_slice(value.as_bytes());
    }
    let len = if config < data { 1 << 20 } else { config - data };
    for (at, value) in [(0x11b, data), (0x123, len), (0x12b, config), (0x133, 2048)] {
        head[at..at + 8].copy_from_slice(&value.to_be_bytes());
    }
    head
}

/// A disk with an MBR: the head in its sector 6, the data from its second MiB on, the database at its end.
pub(super) fn with_mbr(group: &Group, disk: usize, data: &[u8]) -> Vec<u8> {
    let config = (MIB + data.len()) as u64 / 512;
    let mut bytes = [&vec![0; MIB][..], data, &group.database(disk, 2048, config)].concat();
    bytes[6 * 512..][..512].copy_from_slice(&head_of(disk, 2048, config));
    bytes[446..462].copy_from_slice(&[0, 0, 0, 0, 0x42, 0, 0, 0, 63, 0, 0, 0, 0, 0, 0, 0]);
    let sectors = (bytes.len() / 512 - 63) as u32;
    bytes[458..462].copy_from_slice(&sectors.to_le_bytes());
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    bytes
}

/// A disk with a GPT: the database in its first partition, the data in its second.
pub(super) fn with_gpt(group: &Group, disk: usize, data: &[u8]) -> Option<Vec<u8>> {
    let types = ["5808C8AA-7E8F-42E0-85D2-E1E90434CFB3", "AF9B60A0-1431-4F62-BC68-3311714A69AD"];
    Partitions::with_types("gpt", &[(&group.database(disk, 4096, 2048), types[0]), (data, types[1])])
}
