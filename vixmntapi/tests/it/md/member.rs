//! Members of arrays, with superblocks of all versions.

use super::MIB;

/// A member of an array.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) uuid: [u8; 16],
    /// 0.90 is 90.
    pub(super) version: u32,
    pub(super) level: i32,
    pub(super) layout: u32,
    /// Bytes of a chunk.
    pub(super) chunk: usize,
    pub(super) slots: u32,
    pub(super) slot: u32,
    /// Bytes that the array uses of each member.
    pub(super) size: usize,
    pub(super) events: u64,
    /// Places whose members are in step.
    pub(super) active: Vec<u32>,
    pub(super) features: u32,
    pub(super) data: Vec<u8>,
    /// Room for more data than the array has.
    pub(super) more: usize,
}

impl Member {
    pub(super) fn new(version: u32, level: i32, slots: u32, slot: u32, data: Vec<u8>) -> Self {
        let chunk = if level == 1 { 0 } else { 64 << 10 };
        let size = if level > 0 { data.len() } else { 0 };
        let active = (0..slots).collect();
        let layout = if level == 10 { 0x102 } else { 0 };
        Self {
            uuid: UUID,
            version,
            level,
            layout,
            chunk,
            slots,
            slot,
            size,
            events: 20,
            active,
            features: 0,
            data,
            more: 0,
        }
    }

    /// The bytes of the device.
    pub(super) fn device(&self) -> Vec<u8> {
        match self.version {
            90 => self.old(),
            version => self.new_style(version),
        }
    }

    fn new_style(&self, version: u32) -> Vec<u8> {
        let (data, end) = if version == 0 { (0, 64 << 10) } else { (MIB, 0) };
        let mut disk = vec![0; data + self.data.len() + self.more + end];
        disk[data..][..self.data.len()].copy_from_slice(&self.data);
        let place = [(disk.len() / 512 - 16) & !7, 0, 8][version as usize];
        let mut block = vec![0; 256 + 2 * 16];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        for (at, word) in [
            (0, 0xa92b_4efc),
            (4, 1),
            (8, self.features),
            (72, self.level as u32),
            (76, self.layout),
            (88, (self.chunk / 512) as u32),
            (92, self.slots),
            (160, self.slot),
            (220, 16),
        ] {
            put(at, &word.to_le_bytes());
        }
        for (at, number) in [
            (80, self.size / 512),
            (128, data / 512),
            (136, (self.data.len() + self.more) / 512),
            (144, place),
            (200, self.events as usize),
            (208, usize::MAX),
        ] {
            put(at, &number.to_le_bytes());
        }
        put(16, &self.uuid);
        put(32, b"host:data");
        put(168, &[7; 16]);
        for number in 0..16 {
            let is_active = self.active.contains(&number);
            put(256 + 2 * number as usize, &(if is_active { number as u16 } else { 0xfffe }).to_le_bytes());
        }
        let sum: u64 = block.chunks_exact(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap()))).sum();
        let sum = (sum as u32).wrapping_add((sum >> 32) as u32);
        block[216..220].copy_from_slice(&sum.to_le_bytes());
        disk[place * 512..][..block.len()].copy_from_slice(&block);
        disk
    }

    fn old(&self) -> Vec<u8> {
        let place = self.data.len().next_multiple_of(64 << 10) + self.more;
        let mut disk = self.data.clone();
        disk.resize(place + (64 << 10) + 4096, 0);
        let mut words = vec![0_u32; 1024];
        let uuid = |number: usize| u32::from_be_bytes(self.uuid[4 * number..4 * number + 4].try_into().unwrap());
        for (word, value) in [
            (0, 0xa92b_4efc),
            (2, 90),
            (5, uuid(0)),
            (7, self.level as u32),
            (8, (self.size / 1024) as u32),
            (9, self.slots),
            (10, self.slots),
            (13, uuid(1)),
            (14, uuid(2)),
            (15, uuid(3)),
            (33, 1),
            (34, self.active.len() as u32),
            (35, self.active.len() as u32),
            (39, self.events as u32),
            (64, self.layout),
            (65, self.chunk as u32),
        ] {
            words[word] = value;
        }
        for slot in 0..self.slots {
            let state = if self.active.contains(&slot) { 6 } else { 1 };
            let disk = [slot, 8, 16 * slot, slot, state];
            words[128 + 32 * slot as usize..][..5].copy_from_slice(&disk);
            if slot == self.slot {
                words[992..997].copy_from_slice(&disk);
            }
        }
        let sum: u64 = words.iter().map(|word| u64::from(*word)).sum();
        words[38] = (sum as u32).wrapping_add((sum >> 32) as u32);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        disk[place..place + 4096].copy_from_slice(&bytes);
        disk
    }
}

const UUID: [u8; 16] = *b"\x01\x23\x45\x67\x89\xab\xcd\xef\x00\x11\x22\x33\x44\x55\x66\x77";
