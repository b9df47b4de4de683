//! Volume managers: metadata whose checksums are right, whatever it says. The first byte chooses the manager, and the
//! rest is what it reads on two disks: the text of LVM2, superblocks of md, records of dynamic disks, the JSON of LUKS2.
#![no_main]

use std::{io, sync::Arc};

use libfuzzer_sys::fuzz_target;
use sha2::Digest as _;
use vixmntapi::{Error, Result, device::Device, set::DiskSet};

fuzz_target!(|data: &[u8]| {
    let [choice, data @ ..] = data else { return };
    if data.len() > (256 << 10) {
        return;
    }
    let disks = [0, 1].map(|number| match choice % 5 {
        0 => lvm(number, data),
        1 => array(number, data),
        2 => old_array(number, data),
        4 => luks(data),
        _ => dynamic(number, data),
    });
    let disks = disks.map(|head| Arc::new(Disk { head }) as Arc<dyn Device>);
    let set = disks.into_iter().fold(DiskSet::builder(), |set, disk| set.device(disk));
    let set = set.passphrase("x").volume_key([0; 64]).limit_key_work(64).open().expect("two disks");
    for volume in set.volumes_until_damage().iter().take(64) {
        let Ok(device) = volume.device() else { continue };
        for at in [0, 4096, device.size() / 2, device.size().saturating_sub(512)] {
            drop(device.read_at(at, &mut [0; 512]));
            drop(device.below(at));
        }
    }
});

/// A physical volume with a text.
fn lvm(number: u8, text: &[u8]) -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    let label = &mut disk[512..1024];
    label[..16].copy_from_slice(b"LABELONE\x01\0\0\0\0\0\0\0");
    label[20..32].copy_from_slice(b"\x20\0\0\0LVM2 001");
    label[32..64].fill(b'a' + number);
    put(label, 64, &[SIZE, 1 << 20, 0, 0, 0, 4096, (1 << 20) - 4096]);
    let sum = lvm_checksum(&label[20..]);
    label[16..20].copy_from_slice(&sum.to_le_bytes());
    let area = &mut disk[4096..];
    area[4..24].copy_from_slice(b" LVM2 x[5A%r0N*>\x01\0\0\0");
    put(area, 24, &[4096, (1 << 20) - 4096, 512, text.len() as u64]);
    area[56..60].copy_from_slice(&lvm_checksum(text).to_le_bytes());
    area[512..512 + text.len()].copy_from_slice(text);
    let sum = lvm_checksum(&area[4..512]);
    area[..4].copy_from_slice(&sum.to_le_bytes());
    disk
}

fn lvm_checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xf597_a6cf, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 != 0 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 })
    })
}

/// A member with a superblock 1.2: each disk has its half of the data.
fn array(number: u8, data: &[u8]) -> Vec<u8> {
    let mut disk = vec![0; 64 << 10];
    let block = &mut disk[4096..4096 + 512];
    fill(block, half(number, data));
    block[..8].copy_from_slice(&[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]);
    put(block, 144, &[8]);
    block[220..224].copy_from_slice(&[128, 0, 0, 0]);
    seal(block, 54);
    disk
}

/// A member with a superblock 0.90; the disk is as short as that takes.
fn old_array(number: u8, data: &[u8]) -> Vec<u8> {
    let mut disk = vec![0; SIZE as usize];
    let place = (SIZE - (64 << 10)) as usize;
    let block = &mut disk[place..place + 4096];
    fill(block, half(number, data));
    block[..12].copy_from_slice(&[0xfc, 0x4e, 0x2b, 0xa9, 0, 0, 0, 0, 90, 0, 0, 0]);
    seal(block, 38);
    disk
}

/// Corrects the checksum of a superblock, its word with this number.
fn seal(block: &mut [u8], place: usize) {
    block[4 * place..][..4].fill(0);
    let words = block.chunks_exact(4).map(|word| u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]])));
    let sum: u64 = words.sum();
    let sum = (sum as u32).wrapping_add((sum >> 32) as u32);
    block[4 * place..][..4].copy_from_slice(&sum.to_le_bytes());
}

/// An encrypted disk with a header whose text is the data.
fn luks(json: &[u8]) -> Vec<u8> {
    let mut head = vec![0; 16 << 10];
    head[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
    head[8..16].copy_from_slice(&(16_u64 << 10).to_be_bytes());
    head[72..78].copy_from_slice(b"sha256");
    let len = json.len().min((12 << 10) - 1);
    head[4096..4096 + len].copy_from_slice(&json[..len]);
    let sum = sha2::Sha256::digest(&head);
    head[448..480].copy_from_slice(&sum);
    head
}

/// A dynamic disk whose records are pieces of the data, each after a byte with its length.
fn dynamic(number: u8, data: &[u8]) -> Vec<u8> {
    let mut disk = vec![0; 2 << 20];
    disk[446..462].copy_from_slice(&[0, 0, 0, 0, 0x42, 0, 0, 0, 63, 0, 0, 0, 0, 14, 0, 0]);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let head = &mut disk[6 * 512..7 * 512];
    head[..8].copy_from_slice(b"PRIVHEAD");
    head[0x30..0x50].fill(b'a' + number);
    head[0xb0..0xd0].fill(b'0');
    for (at, value) in [(0x11b, 64_u64), (0x123, 1900), (0x12b, 2048), (0x133, 2048)] {
        head[at..at + 8].copy_from_slice(&value.to_be_bytes());
    }
    let contents = &mut disk[(1 << 20) + 512..][..512];
    contents[..8].copy_from_slice(b"TOCBLOCK");
    contents[0x24..0x2a].copy_from_slice(b"config");
    contents[0x2e..0x36].copy_from_slice(&17_u64.to_be_bytes());
    contents[0x36..0x3e].copy_from_slice(&1800_u64.to_be_bytes());
    let mut counts = [0_u32; 4];
    let mut blocks = Vec::new();
    let mut rest = data;
    while let [len, tail @ ..] = rest {
        let (record, tail) = tail.split_at(usize::from(len % 113).min(tail.len()));
        rest = tail;
        let kind = record.get(3).map_or(0, |kind| kind & 0x0f);
        if let Some(count) = usize::from(kind).checked_sub(1).and_then(|kind| counts.get_mut(kind)) {
            *count += 1;
        }
        blocks.extend(b"VBLK\0\0\0\0\0\0\0\0\0\0\0\x01");
        blocks.extend(record);
        blocks.resize(blocks.len().next_multiple_of(128), 0);
    }
    let records = &mut disk[(1 << 20) + 17 * 512..];
    records[..20].copy_from_slice(b"VMDB\0\0\0\0\0\0\0\x80\0\0\x02\0\0\x01\0\x04");
    for (at, count) in [133, 137, 141, 145].into_iter().zip(counts) {
        records[at..at + 4].copy_from_slice(&count.to_be_bytes());
    }
    let len = blocks.len().min(1700 * 512);
    records[512..512 + len].copy_from_slice(&blocks[..len]);
    disk
}

fn half(number: u8, data: &[u8]) -> &[u8] {
    let (first, second) = data.split_at(data.len() / 2);
    if number == 0 { first } else { second }
}

fn fill(block: &mut [u8], data: &[u8]) {
    let len = block.len().min(data.len());
    block[..len].copy_from_slice(&data[..len]);
}

fn put(bytes: &mut [u8], at: usize, numbers: &[u64]) {
    for (place, number) in bytes[at..].chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
}

/// A disk of which only the beginning is not zeros.
#[derive(Debug)]
struct Disk {
    head: Vec<u8>,
}

impl Device for Disk {
    fn size(&self) -> u64 {
        SIZE
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > SIZE) {
            let (device, len) = (self.name(), buf.len() as u64);
            return Err(Error::Read { device, offset, len, source: io::ErrorKind::UnexpectedEof.into() });
        }
        buf.fill(0);
        if let Some(from) = self.head.get(offset as usize..) {
            let len = from.len().min(buf.len());
            buf[..len].copy_from_slice(&from[..len]);
        }
        Ok(())
    }

    fn name(&self) -> String {
        "the disk".into()
    }
}

const SIZE: u64 = 4 << 20;
