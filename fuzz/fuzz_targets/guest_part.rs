//! Partition tables: the first byte chooses the size of the sectors, then come the first and the last sectors of a disk.
#![no_main]

use std::{io, sync::Arc};

use libfuzzer_sys::fuzz_target;
use vixmntapi::{Error, Result, device::Device, part};

fuzz_target!(|data: &[u8]| {
    let [choice, data @ ..] = data else { return };
    let sector = if choice & 1 == 0 { 512 } else { 4096 };
    let disk: Arc<dyn Device> = Arc::new(Disk { sector, data: data.to_vec() });
    if let Ok(table) = part::partitions(&disk) {
        for partition in table.partitions.iter().chain(&table.legacy) {
            drop(partition.slice(&disk));
        }
    }
});

/// A disk of 1 GiB: the first half of the data at its start, the other at its end.
#[derive(Debug)]
struct Disk {
    sector: u32,
    data: Vec<u8>,
}

impl Device for Disk {
    fn size(&self) -> u64 {
        SIZE
    }

    fn sector_size(&self) -> u32 {
        self.sector
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > SIZE) {
            let (device, len) = (self.name(), buf.len() as u64);
            return Err(Error::Read { device, offset, len, source: io::ErrorKind::UnexpectedEof.into() });
        }
        let (head, tail) = self.data.split_at(self.data.len() / 2);
        let tail_at = SIZE - tail.len() as u64;
        for (place, byte) in (offset..).zip(buf) {
            let of_tail = || place.checked_sub(tail_at).and_then(|at| tail.get(at as usize));
            *byte = head.get(place as usize).or_else(of_tail).copied().unwrap_or(0);
        }
        Ok(())
    }

    fn name(&self) -> String {
        "the disk".into()
    }
}

const SIZE: u64 = 1 << 30;
