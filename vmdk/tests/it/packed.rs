//! Compressed disks by position.

use std::thread;

use vmdk::{
    Cid, Disk, Error, MapKind, OpenOptions,
    descriptor::{CreateType, ExtentLine, ExtentType, NewDescriptor},
    stream::{StreamSpec, StreamWriter},
};

use crate::support::{MemFiles, Random, assert_is, content, holey, peer, run};

fn packed(content: &[u8]) -> Vec<u8> {
    let mut writer = StreamWriter::new(Vec::new(), &StreamSpec::new(content.len() as u64)).unwrap();
    for (number, grain) in content.chunks(65536).enumerate() {
        writer.write_at(number as u64 * 65536, grain).unwrap();
    }
    writer.finish().unwrap()
}

fn open(bytes: &[u8]) -> vmdk::Result<Disk> {
    Disk::open("s.vmdk", &OpenOptions::new().resolver(MemFiles::with(&[("s.vmdk", bytes)])))
}

#[test]
fn streams_with_their_directory_at_the_end_are_read_anywhere() {
    for len in [3 << 20, (2 << 20) + 512 * 77] {
        let content = holey(len, len as u64);
        let disk = open(&packed(&content)).unwrap();
        assert_is(&disk, &content);
        let data = disk.map(0..u64::MAX).map(|entry| entry.unwrap()).filter(|entry| entry.kind == MapKind::Data);
        assert!(data.inspect(|entry| assert!(entry.compressed && entry.layer == Some(0))).count() > 1);
    }
}

#[test]
fn streams_of_qemu_with_their_directory_in_front_are_read_anywhere() {
    if !peer("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let content = holey((40 << 20) + 512 * 5, 3);
    std::fs::write(dir.path().join("raw"), &content).unwrap();
    run(
        "qemu-img",
        dir.path(),
        &["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", "raw", "s.vmdk"],
    );
    assert_is(&Disk::open(dir.path().join("s.vmdk"), &OpenOptions::new()).unwrap(), &content);
}

#[test]
fn many_threads_read_one_disk_and_a_small_cache_changes_nothing() {
    let whole = holey(8 << 20, 5);
    let files = MemFiles::with(&[("s.vmdk", &packed(&whole))]);
    for bytes in [0, 1 << 20, 64 << 20] {
        let options = OpenOptions::new().resolver(files.clone()).grain_cache_bytes(bytes);
        let disk = Disk::open("s.vmdk", &options).unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_is(&disk, &whole));
            }
        });
    }
}

#[test]
fn compressed_disks_are_parents_and_extents_of_descriptors() {
    let base = holey(1 << 20, 6);
    let text = |kind, extents: Vec<ExtentLine>| NewDescriptor::new(kind, extents);
    let sparse = |name: &str| ExtentLine::new(ExtentType::Sparse, 2048, name);
    let bytes = packed(&base);
    let twice = text(CreateType::Custom, vec![sparse("s.vmdk"), sparse("s.vmdk")]).cid(Cid(5)).build().unwrap();
    let zero = ExtentLine { file_name: None, ..ExtentLine::new(ExtentType::Zero, 4096, "") };
    let own = open(&bytes).unwrap().descriptor().unwrap().cid().unwrap();
    let child = text(CreateType::Custom, vec![zero]).parent(own, "s.vmdk").build().unwrap();
    let files =
        MemFiles::with(&[("s.vmdk", &bytes), ("twice.vmdk", &twice.to_bytes()), ("child.vmdk", &child.to_bytes())]);
    let open = |name: &str| Disk::open(name, &OpenOptions::new().resolver(files.clone())).unwrap();
    assert_is(&open("twice.vmdk"), &[&base[..], &base].concat());
    assert_eq!((open("child.vmdk").links().len(), content(&open("child.vmdk"))), (2, vec![0; 2 << 20]));
}

#[test]
fn writing_to_them_is_refused_at_open() {
    let files = MemFiles::with(&[("s.vmdk", &packed(&holey(1 << 20, 7)))]);
    let error = Disk::open("s.vmdk", &OpenOptions::new().resolver(files).writable()).unwrap_err();
    assert!(matches!(error, Error::NotSupported { .. }) && error.to_string().contains("compressed"), "{error}");
}

#[test]
fn damage_is_an_error_or_harmless_but_never_other_data() {
    let content = holey(1 << 20, 8);
    let whole = packed(&content);
    let mut failed = 0;
    for at in (0..whole.len()).step_by(whole.len() / 300) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        let Ok(disk) = open(&bytes) else { continue };
        if disk.capacity() != content.len() as u64 {
            continue;
        }
        for (number, grain) in content.chunks(65536).enumerate() {
            let mut buf = vec![0; grain.len()];
            match disk.read_at(number as u64 * 65536, &mut buf) {
                // A table entry that became 0 or 1 is a grain of zeros to everybody.
                Ok(()) => assert!(buf == grain || buf.iter().all(|&byte| byte == 0), "{at}"),
                Err(error) => {
                    failed += 1;
                    assert!(matches!(error, Error::Malformed { .. }), "{error}");
                }
            }
        }
    }
    assert!(failed > 100, "{failed}");
}

#[test]
fn a_stream_that_was_cut_says_so() {
    let whole = packed(&holey(1 << 20, 9));
    for len in [512, 70_000, whole.len() - 512, whole.len() - 1024] {
        let error = open(&whole[..len / 512 * 512]).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{error}");
    }
}

#[test]
fn a_grain_that_two_entries_name_is_refused_for_the_wrong_one_whatever_was_read_before() {
    let content = Random::new(10).bytes(4 * 65536);
    let mut bytes = packed(&content);
    // The table is the one metadata sector before the directory's marker with entries of four grains.
    let entries: Vec<u32> =
        bytes.chunks(512).zip(0..).filter(|(sector, _)| starts_grain(sector)).map(|(_, n)| n).collect();
    let table: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    let at = bytes.chunks(512).position(|sector| sector.starts_with(&table)).unwrap() * 512;
    bytes.copy_within(at..at + 4, at + 4);
    let disk = open(&bytes).unwrap();
    let mut buf = [0; 100];
    for _ in 0..2 {
        assert!(disk.read_at(65536 + 7, &mut buf).is_err());
        disk.read_at(7, &mut buf).unwrap();
        assert!(buf == content[7..107]);
    }
}

/// Whether a sector starts with the marker of one of the first four grains.
fn starts_grain(sector: &[u8]) -> bool {
    let word = |at: usize| u32::from_le_bytes(sector[at..at + 4].try_into().unwrap());
    word(4) == 0 && word(0) % 128 == 0 && word(0) < 512 && (60_000..70_000).contains(&word(8))
}
