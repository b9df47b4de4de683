//! Whatever is in a file, a check ends, soon and with an answer.

use std::sync::Arc;

use proptest::prelude::*;
use vmdk::{
    Handle, MemSource, ReadAt,
    check::{CheckOptions, check_source},
};

/// A small sparse image of our own making, metadata first.
fn image() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.vmdk");
    let spec = vmdk::CreateSpec::new((34 << 20) + 512, vmdk::CreateKind::MonolithicSparse);
    let disk = vmdk::create(&path, &spec).unwrap();
    disk.write_at(0, &[0x5a; 65536]).unwrap();
    disk.write_at(34 << 20, &[0x5a; 512]).unwrap();
    disk.close().unwrap();
    std::fs::read(path).unwrap()
}

fn check_bytes(bytes: &[u8]) {
    let source: Arc<dyn ReadAt> = Arc::new(MemSource::new(bytes.to_vec()));
    for memory in [0, 1 << 20] {
        let options = CheckOptions::new().deep(true).memory_bytes(memory);
        let report = check_source("s.vmdk", Handle::ReadOnly(Arc::clone(&source)), &options).unwrap();
        assert!(report.findings().len() < 1000 && report.to_string().len() < 1 << 20);
    }
}

#[test]
fn every_byte_of_the_header_may_be_anything() {
    let mut bytes = image();
    for at in 0..80 {
        let right = bytes[at];
        for value in [0, 1, right ^ 0x80, 0x7f, 0xff] {
            bytes[at] = value;
            check_bytes(&bytes);
        }
        bytes[at] = right;
    }
}

#[test]
fn every_sector_may_be_the_last() {
    let bytes = image();
    for len in (0..bytes.len()).step_by(509) {
        check_bytes(&bytes[..len]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn metadata_may_be_anything(damage in prop::collection::vec((0_usize..12_000, any::<u8>()), 1..30)) {
        let mut bytes = image();
        for (at, value) in damage {
            bytes[at] = value;
        }
        check_bytes(&bytes);
    }

    #[test]
    fn entries_may_be_anything(damage in prop::collection::vec((0_usize..3000, 0_u32..600), 1..60)) {
        let mut bytes = image();
        for (at, value) in damage {
            bytes[at * 4 + 76..at * 4 + 80].copy_from_slice(&value.to_le_bytes());
        }
        check_bytes(&bytes);
    }
}
