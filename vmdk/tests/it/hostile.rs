//! Damaged and malicious images: errors, never panics, hangs or large allocations.

use proptest::prelude::*;
use vmdk::{
    Disk, OpenOptions,
    layout::{SparseFlags, SparseHeader},
};

use crate::support::MemFiles;

/// A small valid image: two tables, three grains.
fn image() -> Vec<u8> {
    let header = SparseHeader {
        version: 1,
        flags: SparseFlags(SparseFlags::NEWLINE_TEST | SparseFlags::REDUNDANT_DIRECTORY),
        capacity_sectors: 512 * 16 + 5,
        grain_sectors: 16,
        descriptor_sector: 1,
        descriptor_sectors: 1,
        redundant_directory_sector: 2,
        directory_sector: 3,
        overhead_sectors: 32,
        unclean_shutdown: false,
        compression: 0,
    };
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(b"version=1\nCID=1\nparentCID=ffffffff\nRW 8197 SPARSE \"s.vmdk\"\n");
    bytes.resize(32 * 512, 0);
    for (at, table) in [(2 * 512, 4_u32), (2 * 512 + 4, 8), (3 * 512, 12), (3 * 512 + 4, 16)] {
        bytes[at..at + 4].copy_from_slice(&table.to_le_bytes());
    }
    for table in [4 * 512, 12 * 512] {
        for (entry, sector) in [(0, 32_u32), (1, 48), (511, 64)] {
            bytes[table + entry * 4..table + entry * 4 + 4].copy_from_slice(&sector.to_le_bytes());
        }
    }
    bytes.resize(80 * 512, 0x5a);
    bytes
}

/// Opens, maps, reads and writes; only panics and hangs are failures.
fn exercise(bytes: &[u8]) {
    for writable in [false, true] {
        let options = OpenOptions::new().resolver(MemFiles::with(&[("s.vmdk", bytes)]));
        let options = if writable { options.writable() } else { options };
        let Ok(disk) = Disk::open("s.vmdk", &options) else { continue };
        let _ = disk.map(0..u64::MAX).take(1000).filter(Result::is_ok).count();
        let mut buf = [0; 20_000];
        for at in [0, 8000, 4_190_000, disk.capacity().saturating_sub(20_000)] {
            let _ = disk.read_at(at, &mut buf);
            if writable {
                let _ = disk.write_at(at, &buf[..9000]);
                let _ = disk.zero_at(at..at + 100);
            }
        }
        let _ = disk.close();
    }
}

#[test]
fn the_undamaged_image_works() {
    let options = OpenOptions::new().resolver(MemFiles::with(&[("s.vmdk", &image())]));
    let disk = Disk::open("s.vmdk", &options).unwrap();
    let mut buf = [0; 16384];
    disk.read_at(0, &mut buf).unwrap();
    assert!(buf.iter().all(|&byte| byte == 0x5a));
    exercise(&image());
}

#[test]
fn a_grain_table_in_the_metadata_does_not_let_writes_destroy_it() {
    let mut bytes = image();
    bytes[12 * 512..12 * 512 + 4].copy_from_slice(&2_u32.to_le_bytes());
    let files = MemFiles::with(&[("s.vmdk", &bytes)]);
    let disk = Disk::open("s.vmdk", &OpenOptions::new().resolver(files.clone()).writable()).unwrap();
    assert!(disk.write_at(0, &[1; 100]).is_err());
    assert!(disk.zero_at(0..100).is_err());
    assert_eq!(files.bytes("s.vmdk")[512 * 2..], bytes[512 * 2..]);
}

#[test]
fn truncation_anywhere_is_an_error_or_intact_data() {
    let whole = image();
    for len in (0..whole.len()).step_by(97) {
        let options = OpenOptions::new().resolver(MemFiles::with(&[("s.vmdk", &whole[..len])]));
        if let Ok(disk) = Disk::open("s.vmdk", &options) {
            let mut buf = [0; 16384];
            if disk.read_at(0, &mut buf).is_ok() {
                assert!(buf.iter().all(|&byte| byte == 0x5a));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damaged_metadata_never_panics(damage in prop::collection::vec((0_usize..32 * 512, any::<u8>()), 1..12)) {
        let mut bytes = image();
        for (at, value) in damage {
            bytes[at] = value;
        }
        exercise(&bytes);
    }

    #[test]
    fn damaged_header_fields_never_panic(damage in prop::collection::vec((4_usize..80, any::<u64>(), 0_u32..64), 1..4)) {
        let mut bytes = image();
        for (at, value, shift) in damage {
            bytes[at..at + 8].copy_from_slice(&(value >> shift).to_le_bytes());
        }
        exercise(&bytes);
    }

    #[test]
    fn any_header_bytes_are_parsed_or_refused(bytes in prop::array::uniform32(any::<u8>())) {
        let mut header = [0; 512];
        for (index, chunk) in header.chunks_exact_mut(32).enumerate() {
            chunk.copy_from_slice(&bytes);
            chunk.rotate_left(index);
        }
        header[..4].copy_from_slice(b"KDMV");
        let _ = SparseHeader::parse(&header, "x");
    }

    #[test]
    fn any_text_opens_or_fails(text in "(version=1\n)?([A-Za-z0-9=\" #./-]{0,40}\n){0,8}(RW [0-9]{1,20} (FLAT|ZERO|SPARSE|VMFS) (\"[a-z./]{0,5}\")? ?[0-9]{0,20}\n){0,4}") {
        let options = OpenOptions::new().resolver(MemFiles::with(&[("s.vmdk", text.as_bytes()), ("a", &[0; 4096])]));
        let _ = Disk::open("s.vmdk", &options).map(|disk| disk.map(0..u64::MAX).take(100).count());
    }
}
