//! Descriptors that combine extents: missing files, names, access. What others get wrong is in `peer_defects.rs`.

use vmdk::{CreateKind, CreateSpec, Disk, Error, OpenOptions, PathPolicy, create};

use crate::support::{MemFiles, assert_is};

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
fn truncated_and_missing_extents_fail_at_open() {
    let error = open_text("RW 2 FLAT \"a\" 0", &[("a", &[0; 1023])]).unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }) && error.to_string().contains("truncated"), "{error}");
    let error = open_text("RW 2 FLAT \"a\" 0", &[]).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.hint().is_some(), "{error}");
    assert!(open_text("RW 36028797018963967 ZERO\nRW 36028797018963967 ZERO", &[]).is_err());
    assert!(open_text("RW 1 FLAT", &[]).is_err());
    let error = open_text("NOACCESS 1 FLAT \"a\" 0", &[("a", &[0; 512])]).unwrap_err();
    assert!(matches!(error, Error::NotSupported { .. }) && error.to_string().contains("NOACCESS"), "{error}");
    assert!(open_text("", &[]).is_err());
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

#[test]
fn a_sparse_file_that_is_named_twice_has_no_two_writers() {
    let text = "version=1\nCID=1\nRW 2048 SPARSE \"s\"\nRW 2048 SPARSE \"s\"\n";
    let dir = tempfile::tempdir().unwrap();
    let sparse = CreateSpec::new(1 << 20, CreateKind::MonolithicSparse);
    create(dir.path().join("s"), &sparse).unwrap().close().unwrap();
    std::fs::write(dir.path().join("d.vmdk"), text).unwrap();
    let error = Disk::open(dir.path().join("d.vmdk"), &OpenOptions::new().writable()).unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }) && error.to_string().contains("twice"), "{error}");
    // Readers do no harm.
    assert_is(&Disk::open(dir.path().join("d.vmdk"), &OpenOptions::new()).unwrap(), &vec![0; 2 << 20]);
}
