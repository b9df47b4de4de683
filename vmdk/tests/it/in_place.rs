//! Writing: content ids, the unclean flag, both directories, concurrency, what must be refused.

use std::{fs, sync::Arc};

use vmdk::{
    CreateKind, CreateSpec, Disk, Error, Image, MapKind, OpenOptions, create,
    layout::{SparseFlags, SparseHeader},
};

use crate::support::{MemFiles, Random, assert_is};

const MIB: u64 = 1 << 20;

fn header(path: &std::path::Path) -> SparseHeader {
    let bytes = fs::read(path).unwrap();
    SparseHeader::parse(bytes[..512].try_into().unwrap(), "test").unwrap()
}

#[test]
fn the_content_id_changes_once_at_the_first_write_only() {
    let dir = tempfile::tempdir().unwrap();
    for kind in [CreateKind::Flat, CreateKind::MonolithicSparse] {
        let path = dir.path().join(format!("{kind:?}.vmdk"));
        create(&path, &CreateSpec::new(MIB, kind)).unwrap().close().unwrap();
        let cid = |disk: &Disk| disk.descriptor().unwrap().cid().unwrap();
        let writable = OpenOptions::new().writable();
        let disk = Disk::open(&path, &writable).unwrap();
        let before = cid(&disk);
        let text_before = disk.descriptor().unwrap().to_string();
        disk.write_at(0, b"").unwrap();
        assert_eq!(cid(&disk), before);
        disk.write_at(0, b"a").unwrap();
        let after = cid(&disk);
        assert_ne!(before, after);
        disk.write_at(9, b"b").unwrap();
        disk.zero_at(0..4096).unwrap();
        assert_eq!(cid(&disk), after);
        disk.close().unwrap();
        let reopened = Disk::open(&path, &writable).unwrap();
        assert_eq!(cid(&reopened), after);
        let text = reopened.descriptor().unwrap().to_string();
        assert_eq!(text.replace(&after.to_string(), &before.to_string()), text_before);
        let keep = Disk::open(&path, &OpenOptions::new().writable().update_cid(false)).unwrap();
        keep.write_at(0, b"c").unwrap();
        assert_eq!(cid(&keep), after);
    }
}

#[test]
fn the_unclean_flag_is_set_while_writing_and_taken_back_on_close() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.vmdk");
    let disk = create(&path, &CreateSpec::new(MIB, CreateKind::MonolithicSparse)).unwrap();
    assert!(!header(&path).unclean_shutdown);
    disk.write_at(0, b"x").unwrap();
    assert!(header(&path).unclean_shutdown);
    disk.close().unwrap();
    assert!(!header(&path).unclean_shutdown);
    let disk = Disk::open(&path, &OpenOptions::new().writable()).unwrap();
    disk.zero_at(0..1).unwrap();
    assert!(header(&path).unclean_shutdown);
    drop(disk);
    assert!(!header(&path).unclean_shutdown);
}

#[test]
fn both_directories_lead_to_the_same_grains() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.vmdk");
    let disk = create(&path, &CreateSpec::new(100 * MIB, CreateKind::MonolithicSparse)).unwrap();
    let mut random = Random::new(1);
    for _ in 0..50 {
        let at = random.below(99 * MIB);
        disk.write_at(at, &random.bytes(100_000)).unwrap();
    }
    disk.close().unwrap();
    let bytes = fs::read(&path).unwrap();
    let header = header(&path);
    let u32_at = |at: u64| u32::from_le_bytes(bytes[at as usize..at as usize + 4].try_into().unwrap());
    let mut grains = Vec::new();
    for index in 0..header.directory_entries() {
        let table = u64::from(u32_at(header.directory_sector * 512 + index * 4)) * 512;
        let redundant = u64::from(u32_at(header.redundant_directory_sector * 512 + index * 4)) * 512;
        assert_ne!(table, redundant);
        for entry in 0..512 {
            assert_eq!(u32_at(table + entry * 4), u32_at(redundant + entry * 4));
            grains.extend(Some(u32_at(table + entry * 4)).filter(|&sector| sector != 0));
        }
    }
    grains.sort_unstable();
    assert!(!grains.is_empty());
    assert!(grains.windows(2).all(|pair| pair[1] - pair[0] >= 128), "grains overlap");
    assert!(u64::from(grains[0]) >= header.overhead_sectors);
    assert!(u64::from(*grains.last().unwrap()) * 512 + 65536 <= bytes.len() as u64);
}

#[test]
fn missing_tables_are_made_when_needed() {
    // What some writers leave: a directory of zeros, no table, and here room for zeroed grains as well.
    let mut header = SparseHeader {
        version: 2,
        flags: SparseFlags(SparseFlags::NEWLINE_TEST | SparseFlags::REDUNDANT_DIRECTORY | SparseFlags::ZEROED_GRAINS),
        capacity_sectors: 3 * 65536 + 1,
        grain_sectors: 128,
        descriptor_sector: 0,
        descriptor_sectors: 0,
        redundant_directory_sector: 1,
        directory_sector: 2,
        overhead_sectors: 128,
        unclean_shutdown: false,
        compression: 0,
    };
    let mut expected = vec![0; header.capacity_sectors as usize * 512];
    for flags in [header.flags.0, SparseFlags::NEWLINE_TEST] {
        header.flags = SparseFlags(flags);
        let mut bytes = header.encode().to_vec();
        bytes.resize(65536, 0);
        let files = MemFiles::with(&[("s", &bytes)]);
        let options = OpenOptions::new().resolver(files.clone());
        let disk = Disk::open("s", &options.clone().writable()).unwrap();
        let whole = disk.map(0..u64::MAX).map(|entry| entry.unwrap().kind).collect::<Vec<_>>();
        assert_eq!(whole, [MapKind::Unallocated]);
        let end = expected.len() - 3;
        for at in [40 << 20, end] {
            expected[at..at + 3].copy_from_slice(b"abc");
            disk.write_at(at as u64, b"abc").unwrap();
        }
        assert_is(&disk, &expected);
        disk.close().unwrap();
        assert_is(&Disk::open("s", &options).unwrap(), &expected);
        assert!(files.bytes("s").len() < 1 << 20);
    }
}

#[test]
fn many_threads_write_and_read_one_sparse_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.vmdk");
    let capacity = 64 * MIB;
    // A cache of a few tables only, so that tables are loaded while others are changed.
    create(&path, &CreateSpec::new(capacity, CreateKind::MonolithicSparse)).unwrap().close().unwrap();
    let options = OpenOptions::new().writable().cache_bytes(0);
    let disk = Arc::new(Disk::open(&path, &options).unwrap());
    const STRIPE: u64 = 10_000;
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let disk = Arc::clone(&disk);
            scope.spawn(move || {
                let mut buf = vec![0; STRIPE as usize];
                // Stripes of different threads share grains and tables.
                for stripe in (thread..capacity / STRIPE).step_by(8) {
                    let data = vec![(stripe % 255) as u8 + 1; STRIPE as usize];
                    disk.write_at(stripe * STRIPE, &data).unwrap();
                    disk.read_at(stripe * STRIPE, &mut buf).unwrap();
                    assert!(buf == data);
                }
            });
        }
    });
    let mut expected = vec![0; capacity as usize];
    for stripe in 0..capacity / STRIPE {
        expected[(stripe * STRIPE) as usize..][..STRIPE as usize].fill((stripe % 255) as u8 + 1);
    }
    assert_is(&disk, &expected);
    drop(disk);
    assert_is(&Disk::open(&path, &OpenOptions::new()).unwrap(), &expected);
}

#[test]
fn ddb_values_are_changed_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    for kind in [CreateKind::Flat, CreateKind::MonolithicSparse] {
        let path = dir.path().join(format!("{kind:?}.vmdk"));
        let disk = create(&path, &CreateSpec::new(MIB, kind)).unwrap();
        disk.write_at(0, b"data").unwrap();
        disk.ddb_set("comment", "a longer value than before").unwrap();
        disk.ddb_set("comment", "short").unwrap();
        assert!(disk.ddb_remove("virtualHWVersion").unwrap());
        assert!(matches!(disk.ddb_set("comment", "\n"), Err(Error::InvalidInput { .. })));
        let large = "x".repeat(11_000);
        assert_eq!(disk.ddb_set("comment", &large).is_err(), kind == CreateKind::MonolithicSparse);
        disk.ddb_set("comment", "short").unwrap();
        disk.close().unwrap();
        let disk = Disk::open(&path, &OpenOptions::new()).unwrap();
        assert_eq!(disk.ddb_get("comment").as_deref(), Some("short"));
        assert_eq!(disk.ddb_get("virtualHWVersion"), None);
        let mut buf = [0; 4];
        disk.read_at(0, &mut buf).unwrap();
        assert_eq!(&buf, b"data");
    }
}

#[test]
fn nothing_is_written_through_a_read_only_disk_or_beyond_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.vmdk");
    let disk = create(&path, &CreateSpec::new(MIB, CreateKind::MonolithicSparse)).unwrap();
    assert!(matches!(disk.write_at(MIB - 1, b"ab"), Err(Error::OutOfRange { .. })));
    assert!(matches!(disk.write_at(u64::MAX, b"ab"), Err(Error::OutOfRange { .. })));
    assert!(matches!(disk.zero_at(0..MIB + 1), Err(Error::OutOfRange { .. })));
    assert!(matches!(disk.read_at(MIB, &mut [0]), Err(Error::OutOfRange { .. })));
    disk.close().unwrap();
    let before = fs::read(&path).unwrap();
    let disk: Arc<dyn Image> = Arc::new(Disk::open(&path, &OpenOptions::new()).unwrap());
    assert!(matches!(disk.write_at(0, b"a"), Err(Error::ReadOnly { .. })));
    assert!(matches!(disk.zero_at(0..1), Err(Error::ReadOnly { .. })));
    assert!(!disk.is_writable() && disk.ddb_get("adapterType").is_some());
    drop(disk);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn the_map_of_a_flat_disk_follows_writes_and_punched_ranges() {
    let dir = tempfile::tempdir().unwrap();
    let disk = create(dir.path().join("f.vmdk"), &CreateSpec::new(64 * MIB, CreateKind::Flat)).unwrap();
    let map = || disk.map(0..u64::MAX).map(|entry| entry.unwrap()).collect::<Vec<_>>();
    let data = || map().iter().filter(|e| e.kind == MapKind::Data).map(|e| e.range.end - e.range.start).sum::<u64>();
    if data() != 0 {
        eprintln!("SKIPPED: the file system does not tell where holes are");
        return;
    }
    disk.write_at(10 * MIB, &vec![1; 4 << 20]).unwrap();
    disk.write_at(40 * MIB, &[1]).unwrap();
    assert_eq!(map()[1].range, 10 * MIB..14 * MIB);
    assert_eq!(map().len(), 5);
    disk.zero_at(11 * MIB..13 * MIB).unwrap();
    assert_eq!(map()[2].range, 11 * MIB..13 * MIB);
    let middle: Vec<_> = disk.map(12 * MIB..40 * MIB + 1).map(|entry| entry.unwrap().range).collect();
    assert_eq!(middle, [12 * MIB..13 * MIB, 13 * MIB..14 * MIB, 14 * MIB..40 * MIB, 40 * MIB..40 * MIB + 1]);
}

#[test]
fn more_holes_than_one_answer_holds_are_all_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raw");
    let disk = create(&path, &CreateSpec::new(3000 * 65536, CreateKind::Raw)).unwrap();
    for index in (0..3000).step_by(2) {
        disk.write_at(index * 65536, &[1; 4096]).unwrap();
    }
    let entries: Vec<_> = disk.map(0..u64::MAX).map(|entry| entry.unwrap()).collect();
    if entries.len() == 1 {
        eprintln!("SKIPPED: the file system does not tell where holes are");
        return;
    }
    assert_eq!(entries.len(), 3000);
    assert!(entries.iter().all(|entry| (entry.kind == MapKind::Data) == (entry.range.start % 131_072 == 0)));
}

#[test]
fn an_extent_file_that_cannot_grow_refuses_new_grains_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.vmdk");
    let disk = create(&path, &CreateSpec::new(MIB, CreateKind::MonolithicSparse)).unwrap();
    disk.write_at(0, b"stored").unwrap();
    disk.close().unwrap();
    // The last whole grain that sector numbers of 32 bits can name is taken.
    fs::File::options().write(true).open(&path).unwrap().set_len((1 << 41) - 65536).unwrap();
    let disk = Disk::open(&path, &OpenOptions::new().writable()).unwrap();
    for (at, len) in [(2 * 65536, 65536), (3 * 65536 + 5, 10), (2 * 65536, 2)] {
        let error = disk.write_at(at, &vec![1; len]).unwrap_err();
        assert!(matches!(error, Error::NotSupported { .. }), "{error}");
    }
    disk.write_at(0, b"STORED").unwrap();
    let mut buf = [1; 6];
    disk.read_at(0, &mut buf).unwrap();
    assert_eq!(&buf, b"STORED");
}

#[test]
fn data_for_an_extent_without_a_file_are_refused_before_anything_is_changed() {
    let text = b"version=1\nCID=12345678\nparentCID=ffffffff\nRW 8 FLAT \"f\" 0\nRW 8 ZERO\n";
    let files = MemFiles::with(&[("d.vmdk", text), ("f", &[7; 4096])]);
    let disk = Disk::open("d.vmdk", &OpenOptions::new().resolver(files.clone()).writable()).unwrap();
    let error = disk.write_at(0, &[1; 8192]).unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
    assert!(files.bytes("f") == [7; 4096] && files.bytes("d.vmdk") == text);
    disk.write_at(0, &[[1; 4096], [0; 4096]].concat()).unwrap();
    assert!(files.bytes("f") == [1; 4096]);
}

#[test]
fn a_clean_close_says_nothing_about_an_earlier_crash() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.vmdk");
    let disk = create(&path, &CreateSpec::new(MIB, CreateKind::MonolithicSparse)).unwrap();
    disk.write_at(0, b"x").unwrap();
    std::mem::forget(disk);
    let disk = Disk::open(&path, &OpenOptions::new().writable()).unwrap();
    disk.write_at(9, b"y").unwrap();
    disk.close().unwrap();
    assert!(header(&path).unclean_shutdown);
}
