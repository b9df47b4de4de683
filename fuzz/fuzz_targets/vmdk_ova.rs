//! OVA archives, read forward and at random: packages or failures, and no name or size is believed.
#![no_main]

use std::{io::Read, sync::Arc};

use libfuzzer_sys::fuzz_target;
use vmdk::{
    MemSource,
    ova::{OvaReader, OvfPackage},
};

fuzz_target!(|data: &[u8]| {
    if let Ok(mut reader) = OvaReader::open(data, "fuzz") {
        let mut buffer = [0; 512];
        while let Ok(Some(mut file)) = reader.next_file() {
            let _ = (file.name().len(), file.size(), file.read(&mut buffer));
        }
    }
    if let Ok(package) = OvfPackage::from_source(Arc::new(MemSource::new(data.to_vec())), "fuzz") {
        let _ = package.verify();
        for disk in &package.descriptor().disks {
            let _ = package.open_disk(&disk.id).map(|disk| disk.capacity());
        }
    }
});
