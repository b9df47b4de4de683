//! ESXi's snapshot formats, written from the facts by hand: nobody but VMware writes seSparse, and of COWD the crate
//! only knows the header. None of the crate's own encoders are used, so that a mistake in them cannot hide.

use std::collections::BTreeMap;

use super::Random;

/// What a snapshot says about a grain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    /// The grain is there, random bytes made from this.
    Data(u64),
    /// Zero, whatever the parent has. Not in COWD.
    Zero,
    /// Given back by the guest; zero as well. Not in COWD.
    Unmapped,
}

/// One snapshot: its size and the grains that are not the parent's.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) sectors: u64,
    pub(crate) grain_sectors: u64,
    pub(crate) grains: BTreeMap<u64, Stored>,
    /// In which order grains and tables lie in the file.
    pub(crate) order: u64,
}

impl Snapshot {
    /// What a guest sees when this snapshot lies over `content`.
    pub(crate) fn over(&self, mut content: Vec<u8>) -> Vec<u8> {
        content.resize(self.sectors as usize * 512, 0);
        for (&number, stored) in &self.grains {
            let start = (number * self.grain_sectors * 512) as usize;
            let end = (start + self.grain_bytes()).min(content.len());
            content[start..end].copy_from_slice(&self.bytes(*stored)[..end - start]);
        }
        content
    }

    /// The extent in the format of ESXi's redo logs.
    pub(crate) fn cowd(&self) -> Vec<u8> {
        let span = 4096 * self.grain_sectors;
        let tables = self.sectors.div_ceil(span) as usize;
        // The directory has room for more entries than are needed, in whole sectors.
        let room = tables.next_multiple_of(128);
        let mut file = vec![0; 2048 + room * 4];
        put32(&mut file, 0, u32::from_le_bytes(*b"COWD"));
        for (at, value) in [(4, 1), (8, 3), (12, self.sectors), (16, self.grain_sectors), (20, 4), (24, room as u64)] {
            put32(&mut file, at, value as u32);
        }
        for number in self.shuffled() {
            let Some(Stored::Data(_)) = self.grains.get(&number) else { panic!("COWD has data and nothing else") };
            let entry = 2048 + (number / 4096) as usize * 4;
            let mut table = get32(&file, entry) as usize * 512;
            if table == 0 {
                table = file.len();
                put32(&mut file, entry, (table / 512) as u32);
                file.resize(table + 4096 * 4, 0);
            }
            let sector = (file.len() / 512) as u32;
            put32(&mut file, table + (number % 4096) as usize * 4, sector);
            file.extend(self.bytes(self.grains[&number]));
        }
        let end = (file.len() / 512) as u32;
        put32(&mut file, 28, end);
        file
    }

    /// The extent in the format of VMFS-6. `self.grain_sectors` must be 8.
    pub(crate) fn sesparse(&self) -> Vec<u8> {
        assert_eq!(self.grain_sectors, 8);
        let tables = self.sectors.div_ceil(4096 * 8);
        let directory_sectors = tables.div_ceil(64);
        let grains = self.sectors.div_ceil(8);
        let mut areas = vec![(1, 1), (2, 2), (4, 60)];
        let mut next = 64;
        // Directory, tables, free bitmap, back map, grains.
        for sectors in [directory_sectors, tables * 64, 8, 8, grains * 8] {
            areas.push((next, sectors));
            next += sectors;
        }
        let (directory, table_area, grain_area) = (areas[3].0 as usize, areas[4].0 as usize, areas[7].0 as usize);
        let mut file = vec![0; grain_area * 512];
        for (word, value) in [0xcafe_babe, 0x2_0000_0001, self.sectors, 8, 64].into_iter().enumerate() {
            put64(&mut file, word * 8, value);
        }
        for (index, (sector, sectors)) in areas.into_iter().enumerate() {
            put64(&mut file, 80 + index * 16, sector);
            put64(&mut file, 88 + index * 16, sectors);
        }
        put64(&mut file, 512, 0xcafe_cafe);
        let (mut used_tables, mut used_grains) = (0, 0);
        for number in self.shuffled() {
            let entry = directory * 512 + (number / 4096) as usize * 8;
            if get64(&file, entry) == 0 {
                put64(&mut file, entry, 0x1000_0000_0000_0000 | used_tables);
                used_tables += 1;
            }
            let table = table_area + (get64(&file, entry) & 0xffff_ffff) as usize * 64;
            let meaning = match self.grains[&number] {
                // The rest of the entry remembers some old grain.
                Stored::Unmapped => 0x1000_0000_0000_0000 | number << 20,
                Stored::Zero => 0x2000_0000_0000_0000,
                stored @ Stored::Data(_) => {
                    file.extend(self.bytes(stored));
                    used_grains += 1;
                    let index: u64 = used_grains - 1;
                    0x3000_0000_0000_0000 | (index & 0xfff) << 48 | index >> 12
                }
            };
            put64(&mut file, table * 512 + (number % 4096) as usize * 8, meaning);
        }
        put64(&mut file, 520, used_tables);
        file
    }

    fn grain_bytes(&self) -> usize {
        self.grain_sectors as usize * 512
    }

    fn bytes(&self, stored: Stored) -> Vec<u8> {
        match stored {
            Stored::Data(seed) => Random::new(seed).bytes(self.grain_bytes()),
            Stored::Zero | Stored::Unmapped => vec![0; self.grain_bytes()],
        }
    }

    /// The stored grains as the guest might have written them. Some stay in sequence: neighbours are one run.
    fn shuffled(&self) -> Vec<u64> {
        let mut random = Random::new(self.order);
        let mut order: Vec<u64> = self.grains.keys().copied().collect();
        for _ in 0..random.below(order.len() as u64 + 1) {
            let (one, other) = (random.below(order.len() as u64), random.below(order.len() as u64));
            order.swap(one as usize, other as usize);
        }
        order
    }
}

fn put32(file: &mut [u8], at: usize, value: u32) {
    file[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put64(file: &mut [u8], at: usize, value: u64) {
    file[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn get32(file: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(file[at..at + 4].try_into().unwrap())
}

fn get64(file: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(file[at..at + 8].try_into().unwrap())
}
