//! Descriptors that combine extents: ZERO, mixed types, offsets, access, odd spellings, refusals.

use vmdk::{Disk, Error, MapKind, OpenOptions, PathPolicy};

use crate::support::{MemFiles, Random, assert_is};

fn open(files: &[(&str, &[u8])]) -> vmdk::Result<Disk> {
    Disk::open("d.vmdk", &OpenOptions::new().resolver(MemFiles::with(files)))
}

fn open_text(extents: &str, files: &[(&str, &[u8])]) -> vmdk::Result<Disk> {
    let text =
        format!("# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"custom\"\n{extents}\n");
    let mut all = vec![("d.vmdk", text.as_bytes())];
    all.extend_from_slice(files);
    open(&all)
}

#[test]
fn zero_extents_take_their_place() {
    let data = Random::new(1).bytes(3 << 20);
    let disk = open_text("RW 2048 FLAT \"a\" 0\nRW 2048 ZERO\nRW 2048 FLAT \"a\" 4096", &[("a", &data)]).unwrap();
    let mut expected = data[..1 << 20].to_vec();
    expected.resize(2 << 20, 0);
    expected.extend_from_slice(&data[2 << 20..]);
    assert_is(&disk, &expected);
    let kinds: Vec<_> = disk.map(0..u64::MAX).map(|entry| entry.unwrap().kind).collect();
    assert_eq!(kinds, [MapKind::Data, MapKind::Zero, MapKind::Data]);
}

#[test]
fn keys_and_words_are_read_without_case_and_vmfs_may_have_an_offset() {
    let data = Random::new(2).bytes(4096);
    let text = "\r\n  Version = 1\r\nCid=0000000A\r\nCREATETYPE=\"VMFS\"\r\n\trw 4 vmfs \"sub/x y-flat.vmdk\" 2  \r\n";
    let disk = open(&[("d.vmdk", text.as_bytes()), ("sub/x y-flat.vmdk", &data)]).unwrap();
    assert_is(&disk, &data[1024..3072]);
}

#[test]
fn every_create_type_with_flat_extents_opens() {
    for kind in [
        "custom",
        "vmfsThin",
        "vmfsPreallocated",
        "2GbMaxExtentFlat",
        "vmfsEagerZeroedThick",
        "fullDevice",
        "somethingNew",
    ] {
        let text = format!("version=1\nCID=1\ncreateType=\"{kind}\"\nRW 1 FLAT \"a\" 0\n");
        assert_is(&open(&[("d.vmdk", text.as_bytes()), ("a", &[5; 512])]).unwrap(), &[5; 512]);
    }
}

#[test]
fn truncated_and_missing_extents_fail_at_open() {
    let error = open_text("RW 2 FLAT \"a\" 0", &[("a", &[0; 1023])]).unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }) && error.to_string().contains("truncated"), "{error}");
    let error = open_text("RW 2 FLAT \"a\" 0", &[]).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.hint().is_some(), "{error}");
    assert!(open_text("RW 36028797018963967 ZERO\nRW 36028797018963967 ZERO", &[]).is_err());
    assert!(open_text("RW 1 FLAT", &[]).is_err());
    assert!(open_text("", &[]).is_err());
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    for (line, word) in [
        ("RW 1 VMFSRDM \"x-rdm.vmdk\"", "VMFSRDM"),
        ("RW 1 VMFSRAW \"/vmfs/devices/disks/naa.6\"", "naa.6"),
        ("RW 1 FLAT \"\\\\.\\PhysicalDrive1\" 0", "PhysicalDrive1"),
        ("RW 1 VSANSPARSE \"vsan://x\"", "VSANSPARSE"),
        ("RW 1 VMFS \"vsan://x\"", "vsan://x"),
        ("NOACCESS 1 FLAT \"a\" 0", "NOACCESS"),
    ] {
        let error = open_text(line, &[("a", &[0; 512])]).unwrap_err();
        assert!(matches!(error, Error::NotSupported { .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn names_do_not_leave_the_directory_unless_allowed() {
    for name in ["/etc/passwd", "../x", "a/../../x", ".."] {
        let error = open_text(&format!("RW 1 FLAT \"{name}\" 0"), &[]).unwrap_err();
        assert!(matches!(error, Error::PathRefused { .. }), "{error}");
    }
    let text = b"version=1\nCID=1\nRW 1 FLAT \"/abs/x\" 0\n";
    let files = MemFiles::with(&[("d.vmdk", text), ("/abs/x", &[7; 512])]);
    let disk = Disk::open("d.vmdk", &OpenOptions::new().resolver(files).paths(PathPolicy::Any)).unwrap();
    assert_is(&disk, &[7; 512]);
}

#[test]
fn read_only_and_zero_extents_refuse_data() {
    let text = b"version=1\nCID=1\nRW 1 FLAT \"a\" 0\nRDONLY 1 FLAT \"b\" 0\nRW 1 ZERO\n";
    let files = MemFiles::with(&[("d.vmdk", text), ("a", &[1; 512]), ("b", &[2; 512])]);
    let disk = Disk::open("d.vmdk", &OpenOptions::new().resolver(files.clone()).writable()).unwrap();
    assert!(matches!(disk.write_at(500, &[9; 20]), Err(Error::ReadOnly { .. })));
    assert_eq!((files.bytes("a"), files.bytes("b")), (vec![1; 512], vec![2; 512]));
    assert!(matches!(disk.write_at(1024, &[9]), Err(Error::ReadOnly { .. })));
    disk.write_at(1024, &[0; 512]).unwrap();
    disk.zero_at(1024..1536).unwrap();
    disk.write_at(0, &[9; 512]).unwrap();
    assert_eq!(files.bytes("a"), vec![9; 512]);
}

#[test]
fn a_file_named_vmdk_that_is_none_is_not_taken_for_raw() {
    let error = open(&[("d.vmdk", &[0; 4096])]).unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
    let files = MemFiles::with(&[("d.img", &[3; 1000])]);
    assert_is(&Disk::open("d.img", &OpenOptions::new().resolver(files)).unwrap(), &[3; 1000]);
}
