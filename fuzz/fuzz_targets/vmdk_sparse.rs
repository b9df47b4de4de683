//! A sparse extent with its tables: opens or fails, and reads stay inside.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::Arc;
use vmdk::{Disk, Handle, MemSource};

fuzz_target!(|data: &[u8]| {
    let source = Handle::ReadOnly(Arc::new(MemSource::new(data.to_vec())));
    let Ok(disk) = Disk::from_source("fuzz.vmdk", source) else { return };
    let capacity = disk.capacity();
    let mut buffer = [0u8; 4096];
    for offset in [0, capacity / 2, capacity.saturating_sub(4096)] {
        let len = (capacity - offset).min(4096) as usize;
        let _ = disk.read_at(offset, &mut buffer[..len]);
    }
    let _ = disk.map(0..capacity).take(10_000).count();
});
