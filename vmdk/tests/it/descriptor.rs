//! Descriptors as hosts write them, and the promise that an edit changes what it is meant to change and nothing else.

use proptest::{collection, prelude::*, sample::select, test_runner::Config};
use vmdk::{
    Cid, CreateType, Descriptor, Error,
    descriptor::{ExtentLine, ExtentType},
};

fn parse(text: impl AsRef<[u8]>) -> Descriptor {
    Descriptor::parse(text.as_ref()).unwrap()
}

#[test]
fn a_descriptor_of_virtualbox_is_read() {
    let text = "# Disk DescriptorFile\nversion=1\nCID=5e4d9e0f\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\n\n\
        # Extent description\nRW 2097152 SPARSE \"disk.vmdk\"\n\n# The disk Data Base \n#DDB\n\n\
        ddb.virtualHWVersion = \"4\"\nddb.adapterType=\"ide\"\nddb.geometry.cylinders=\"2080\"\nddb.geometry.heads=\"16\"\n\
        ddb.geometry.sectors=\"63\"\nddb.geometry.biosCylinders=\"520\"\nddb.uuid.image=\"c0ffee00-0000-4000-8000-000000000001\"\n\
        ddb.uuid.parent=\"00000000-0000-0000-0000-000000000000\"\n";
    let mut descriptor = parse(text);
    assert!(Descriptor::probe(text.as_bytes()));
    assert_eq!(descriptor.create_type(), Some(CreateType::MonolithicSparse));
    assert_eq!(descriptor.ddb_get("geometry.biosCylinders").as_deref(), Some("520"));
    assert_eq!(descriptor.ddb().count(), 8);
    descriptor.ddb_set("geometry.bioscylinders", "521").unwrap();
    assert_eq!(descriptor.to_string(), text.replace("\"520\"", "\"521\""));
}

#[test]
fn a_snapshot_of_vmfs_6_is_read_and_its_long_content_id_kept_true() {
    let text = "# Disk DescriptorFile\nversion=4\nencoding=\"UTF-8\"\nCID=fffffffe\nparentCID=fffffffe\n\
        createType=\"seSparse\"\nparentFileNameHint=\"web.vmdk\"\n# Extent description\nRW 83886080 SESPARSE \"web-000001-sesparse.vmdk\"\n\n\
        # Change Tracking File\nchangeTrackPath=\"web-000001-ctk.vmdk\"\n\n# The Disk Data Base \n#DDB\n\n\
        ddb.encoding = \"UTF-8\"\nddb.grain = \"8\"\nddb.longContentID = \"f6370e7b6cb0d2f4ebb6b4e1fffffffe\"\n";
    let mut descriptor = parse(text);
    assert_eq!((descriptor.cid().unwrap(), descriptor.parent_cid().unwrap()), (Cid::LONG, Cid::LONG));
    assert_eq!(descriptor.long_content_id().unwrap(), Some(0xf637_0e7b_6cb0_d2f4_ebb6_b4e1_ffff_fffe));
    assert_eq!(descriptor.extents().unwrap()[0].kind, ExtentType::SeSparse);
    descriptor.set_cid(Cid(0x0000_abcd)).unwrap();
    assert_eq!(descriptor.long_content_id().unwrap().unwrap() as u32, 0xabcd);
    assert_eq!(descriptor.cid().unwrap(), Cid(0xabcd));
    // Version 4 with a tracking file goes back to 1, as 3 does.
    assert!(descriptor.strip_change_tracking());
    assert_eq!((descriptor.version().unwrap(), descriptor.change_track_path().unwrap()), (1, None));
    assert!(parse("ddb.longContentID = \"12\"").long_content_id().is_err());
}

#[test]
fn stale_names_of_io_filters_go_and_nothing_else() {
    let before = "# Disk DescriptorFile\r\nversion=1\r\nCID=1\r\nRW 1 VMFS \"a-flat.vmdk\"\r\nddb.uuid = \"60 00\"\r\n";
    let filters =
        "ddb.iofilters = \"vmwarevmcrypt\"\r\nddb.sidecars = \"a-0d3c.vmfd,4;\"\r\nDDB.Sidecars.x = \"1\"\r\n";
    let after = "ddb.sidecarsNot = \"kept\"\r\nddb.thinProvisioned = \"1\"\r\n";
    let mut descriptor = parse([before, filters, after].concat());
    assert!(descriptor.strip_io_filters());
    assert_eq!(descriptor.to_string(), [before, after].concat());
    assert!(!descriptor.strip_io_filters());
}

#[test]
fn every_create_type_and_extent_type_is_known_by_its_names() {
    for name in [
        "custom",
        "monolithicSparse",
        "monolithicFlat",
        "2GbMaxExtentSparse",
        "twoGbMaxExtentSparse",
        "2GbMaxExtentFlat",
        "twoGbMaxExtentFlat",
        "fullDevice",
        "partitionedDevice",
        "streamOptimized",
        "vmfs",
        "vmfsThin",
        "vmfsThick",
        "vmfsPreallocated",
        "vmfsEagerZeroedThick",
        "vmfsSparse",
        "vmfsSeSparse",
        "seSparse",
        "vsanSparse",
        "vmfsRaw",
        "vmfsRDM",
        "vmfsRawDeviceMap",
        "vmfsRDMP",
        "vmfsPassthroughRawDeviceMap",
    ] {
        for name in [name.to_owned(), name.to_uppercase(), name.to_lowercase()] {
            let found = parse(format!("CREATETYPE = \"{name}\"")).create_type().unwrap();
            assert!(!matches!(found, CreateType::Other(_)), "{name}");
        }
    }
    for name in ["FLAT", "SPARSE", "ZERO", "VMFS", "VMFSSPARSE", "VMFSRDM", "VMFSRAW", "SESPARSE", "VSANSPARSE"] {
        let line = format!("rw 1 {} \"x\"", name.to_lowercase());
        let found = parse(line).extents().unwrap().remove(0).kind;
        assert_eq!((found.name(), matches!(found, ExtentType::Other(_))), (name, false));
    }
}

#[cfg(feature = "encodings")]
#[test]
fn names_are_read_and_written_in_the_encoding_of_the_file() {
    // In Shift_JIS the second byte of the first character is a backslash.
    let mut text = b"encoding=\"Shift_JIS\"\nCID=1\nRW 1 FLAT \"".to_vec();
    text.extend_from_slice(b"\x95\x5c\x8e\xa6.vmdk\" 0\nddb.comment = \"x\"\n");
    let mut descriptor = parse(&text);
    assert_eq!(descriptor.encoding(), "Shift_JIS");
    let extents = descriptor.extents().unwrap();
    assert_eq!(extents[0].file_name.as_deref(), Some("表示.vmdk"));
    descriptor.set_extents(&extents).unwrap();
    assert_eq!(descriptor.to_bytes(), text);
    descriptor.ddb_set("comment", "表").unwrap();
    assert_eq!(descriptor.ddb_get("comment").as_deref(), Some("表"));
    assert!(descriptor.to_bytes().ends_with(b"\"\x95\x5c\"\n"));
    // What Shift_JIS has no code for, and an encoding that would make other names of the bytes.
    let before = descriptor.clone();
    assert!(matches!(descriptor.ddb_set("comment", "€ 디"), Err(Error::InvalidInput { .. })));
    assert!(matches!(descriptor.set_value("encoding", "UTF-8"), Err(Error::InvalidInput { .. })));
    assert!(descriptor.set_extents(&[ExtentLine::new(ExtentType::Flat, 1, "디.vmdk")]).is_err());
    assert_eq!(descriptor, before);
    let mut plain = parse("encoding=\"GBK\"\nCID=1\n");
    plain.set_value("Encoding", "UTF-8").unwrap();
    assert_eq!(plain.to_string(), "encoding=\"UTF-8\"\nCID=1\n");
    // The data base may name the encoding, too; the header counts more.
    assert_eq!(
        parse(b"ddb.encoding = \"windows-1252\"\nddb.comment = \"\xe4\"").ddb_get("comment").as_deref(),
        Some("ä")
    );
}

#[test]
fn an_unknown_encoding_keeps_its_bytes_and_refuses_what_it_cannot_read() {
    let text = b"encoding=\"EBCDIC-DE\"\nCID=1\nRW 1 FLAT \"a.vmdk\" 0\nddb.comment = \"\xe4\"\n";
    let mut descriptor = parse(text);
    assert_eq!(descriptor.extents().unwrap()[0].file_name.as_deref(), Some("a.vmdk"));
    descriptor.ddb_set("uuid", "60").unwrap();
    assert_eq!(descriptor.to_bytes(), [&text[..], b"ddb.uuid = \"60\"\n"].concat());
    let error = parse(b"encoding=\"EBCDIC-DE\"\nRW 1 FLAT \"\xe4.vmdk\" 0\n").extents().unwrap_err();
    assert!(matches!(error, Error::NotSupported { .. }) && error.to_string().contains("EBCDIC-DE"), "{error}");
    let error = parse(b"RW 1 FLAT \"\xe4.vmdk\" 0\n").extents().unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }) && error.to_string().contains("UTF-8"), "{error}");
}

#[test]
fn extents_that_would_not_be_read_back_are_refused() {
    let mut descriptor = parse("CID=1\nRW 1 ZERO\n");
    let before = descriptor.clone();
    let flat = ExtentLine::new(ExtentType::Flat, 1, "a");
    for bad in [
        ExtentLine::new(ExtentType::Flat, 1, "a\"b"),
        ExtentLine::new(ExtentType::Flat, 1, "a\nRW 1 ZERO"),
        ExtentLine { file_name: None, ..flat.clone() },
        ExtentLine { size_sectors: u64::MAX, ..flat.clone() },
        ExtentLine { kind: ExtentType::Other("A B".to_owned()), ..flat.clone() },
        ExtentLine { rest: Some("x\n".to_owned()), ..flat.clone() },
    ] {
        assert!(matches!(descriptor.set_extents(&[flat.clone(), bad]), Err(Error::InvalidInput { .. })));
    }
    assert_eq!(descriptor, before);
}

/// One edit.
#[derive(Debug, Clone)]
enum Edit {
    Set(String, String),
    Remove(String),
    Cid(u32),
    Extents(u64),
    StripTracking,
    StripFilters,
}

fn key() -> impl Strategy<Value = String> {
    let known = ["version", "CID", "createType", "changeTrackPath", "ddb.uuid", "ddb.iofilters", "ddb.new", "vendor.x"];
    prop_oneof![4 => select(known.to_vec()).prop_map(str::to_owned), 1 => "[a-zA-Z.]{1,12}"]
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        6 => (key(), "[ -!#-~äß磁]{0,20}").prop_map(|(key, value)| Edit::Set(key, value)),
        2 => key().prop_map(Edit::Remove),
        1 => any::<u32>().prop_map(Edit::Cid),
        1 => (1..1000_u64).prop_map(Edit::Extents),
        1 => Just(Edit::StripTracking),
        1 => Just(Edit::StripFilters),
    ]
}

/// A line that no edit of ours may touch.
fn foreign_line() -> impl Strategy<Value = String> {
    prop_oneof![
        "# ?[ -~ä]{0,20}",
        "[ \t]{0,3}",
        "[ \t]{0,2}foreign\\.[a-z]{1,5}[ \t]{0,2}=[ \t]{0,2}\"?[ -!#-~]{0,12}\"? ?",
        "ddb\\.foreign[a-z]{0,5} = \"[ -!#-~ä磁]{0,12}\"[ \t]{0,2}",
        "[!-\"$-<>-~]{1,10}",
    ]
}

fn file() -> impl Strategy<Value = String> {
    let own = [
        "version=3",
        "CID = deadbeef",
        "createType=\"vmfs\"",
        "RW 8 VMFS \"a b-flat.vmdk\"",
        "changeTrackPath=\"a-ctk.vmdk\"",
        "ddb.uuid=\"60 00\"",
        "ddb.iofilters = \"x\"",
    ];
    let line = prop_oneof![1 => select(own.to_vec()).prop_map(str::to_owned), 2 => foreign_line()];
    let end = prop_oneof![Just("\n"), Just("\r\n")];
    (collection::vec((line, end), 0..24), any::<bool>()).prop_map(|(lines, cut)| {
        let mut text: String = lines.iter().flat_map(|(line, end)| [line.as_str(), end]).collect();
        if cut {
            text.truncate(text.trim_end_matches(['\r', '\n']).len());
        }
        text
    })
}

/// The lines that are none of our keys' and no extents: all these must survive.
fn foreign(text: &str) -> Vec<&str> {
    let own = |line: &str| {
        let key = line.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
        let word = line.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
        line.contains('=') && !line.trim_start().starts_with('#') && !key.contains("foreign") && !key.contains('"')
            || ["rw", "rdonly", "noaccess"].contains(&word.as_str())
            || line.trim().is_empty()
    };
    text.lines().filter(|line| !own(line)).collect()
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn an_edit_leaves_all_other_lines_alone(text in file(), edits in collection::vec(edit(), 1..8)) {
        let mut descriptor = parse(&text);
        prop_assert_eq!(descriptor.to_bytes(), text.as_bytes());
        for edit in edits {
            let before = descriptor.to_string();
            match &edit {
                Edit::Set(key, value) => {
                    if descriptor.set_value(key, value).is_ok() {
                        prop_assert_eq!(descriptor.value(key), Some(value.as_str().into()), "{} in {:?}", key, before);
                    }
                }
                Edit::Remove(key) => {
                    descriptor.remove_value(key);
                    prop_assert_eq!(descriptor.value(key), None);
                }
                Edit::Cid(id) => {
                    descriptor.set_cid(Cid(*id)).unwrap();
                    prop_assert_eq!(descriptor.cid().unwrap(), Cid(*id));
                }
                Edit::Extents(sectors) => {
                    let extents = [ExtentLine::new(ExtentType::Flat, *sectors, "n.vmdk")];
                    descriptor.set_extents(&extents).unwrap();
                    prop_assert_eq!(&descriptor.extents().unwrap()[..], &extents[..]);
                }
                Edit::StripTracking => {
                    descriptor.strip_change_tracking();
                    prop_assert_eq!(descriptor.change_track_path().unwrap(), None);
                }
                Edit::StripFilters => {
                    descriptor.strip_io_filters();
                    prop_assert_eq!(descriptor.ddb_get("iofilters"), None);
                }
            }
            let after = descriptor.to_string();
            prop_assert_eq!(foreign(&before), foreign(&after), "{:?}", edit);
            prop_assert_eq!(&parse(&after), &descriptor);
        }
    }
}
